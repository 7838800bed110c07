"""The trials of a run in tables, a table for each experiment and machine, beside the published figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

WORK = ["model", "weights", "data", "classes", "image_size", "limit_train", "epochs"]
# Rows that differ in one of these are not put into one table: other work, or an unlike machine.
APART = ["experiment", *WORK, "host", "device_name", "cpu_model", "torch", "driver"]
SETTINGS = ["effective_batch", "processes", "precision", "memory_format", "compile", "input_pipeline", "seed", "repeat"]
FEW_WINDOWS = 10
WIDE_SPREAD = 0.2
GIB = 2**30


def show(trials: pd.DataFrame) -> None:
    """Print the tables."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=140)
    if trials.empty:
        console.print("no trial has ended in this folder yet")
    for _, rows in trials.groupby(APART, sort=False, dropna=False):
        _show_group(console, rows)


def _show_group(console: Console, rows: pd.DataFrame) -> None:
    first = rows.iloc[0]
    varying = [name for name in SETTINGS if rows[name].nunique(dropna=False) > 1]
    table = Table(box=box.SIMPLE_HEAD, title=escape(str(first["experiment"])), title_justify="left", pad_edge=False)
    table.add_column("arm", no_wrap=True)
    for name in varying:
        table.add_column(name, justify="right")
    shown = [(head, cell) for head, cell in CELLS if any(cell(row) for _, row in rows.iterrows())]
    for head, _ in shown:
        table.add_column(head, justify="right")
    notes: dict[str, str] = {}
    for _, row in rows.iterrows():
        marks = "".join(notes.setdefault(text, str(len(notes) + 1)).join("[]") for text in remarks(row))
        cells = [_text(row[name]) for name in varying] + [cell(row) for _, cell in shown]
        table.add_row(escape(f"{row['arm']} {marks}".strip()), *(escape(cell) for cell in cells))
    console.print(table)
    for text, mark in notes.items():
        console.print(escape(f"  [{mark}] {text}"), soft_wrap=True)
    common = [name for name in [*WORK, *SETTINGS] if name not in varying and not pd.isna(first[name])]
    console.print(escape("  " + ", ".join(f"{name} {_text(first[name])}" for name in common)), soft_wrap=True)
    console.print(escape("  " + machine_line(first)), soft_wrap=True)
    console.print()


Cell = Callable[[Any], str]


def _text(value: Any) -> str:
    return "" if pd.isna(value) else str(value)


def _number(name: str, form: str, factor: float = 1.0) -> Cell:
    return lambda row: "" if pd.isna(row[name]) else form.format(float(row[name]) * factor)


def _status(row: Any) -> str:
    return _text(row["status"])


def _published(row: Any) -> str:
    train, evaluation = (_number(f"published_{part}_accuracy", "{:.1f}", 100)(row) for part in ("train", "eval"))
    return f"{train or '-'} / {evaluation or '-'}" if train or evaluation else ""


def _memory(name: str) -> Cell:
    return _number(name, "{:.2f}", 1 / GIB)


def _waiting(row: Any) -> str:
    wait, windows, time = row["data_wait_s"], row["measured_windows"], row["measured_time_s"]
    return "" if pd.isna(wait) or pd.isna(time) or not time else f"{100 * wait * windows / time:.0f}"


CELLS: list[tuple[str, Cell]] = [
    ("status", _status),
    ("images/s", _number("images_per_s", "{:.4g}")),
    ("step ms\np50", _number("step_time_p50_s", "{:.4g}", 1000)),
    ("step\ncv", _number("step_time_cv", "{:.2f}")),
    ("epoch s", _number("epoch_time_s", "{:.4g}")),
    ("data\nwait %", _waiting),
    ("GPU GiB\nallocated", _memory("peak_allocated_bytes")),
    ("GPU GiB\nreserved", _memory("peak_reserved_bytes")),
    ("host GiB\nper rank", _memory("peak_rss_bytes")),
    ("train\nacc %", _number("train_accuracy", "{:.1f}", 100)),
    ("eval\nacc %", _number("eval_accuracy", "{:.1f}", 100)),
    ("published\ntrain / eval %", _published),
]


def remarks(row: Any) -> list[str]:
    """What a reader must know before using the row's numbers."""
    found = []
    if row["status"] != "ok":
        found.append(f"{row['status']}: {_text(row['error'])}")
    windows, cv = row["measured_windows"], row["step_time_cv"]
    if row["status"] == "ok" and (pd.isna(windows) or windows < FEW_WINDOWS):
        found.append(f"times of fewer than {FEW_WINDOWS} measured windows")
    if not pd.isna(cv) and cv > WIDE_SPREAD:
        found.append(f"step times spread by more than {WIDE_SPREAD:.0%} of their mean")
    if row["weights"] == "none" and "all" not in _text(row["trainable"]).split():
        found.append("the frozen part has random weights: speed and memory are real, accuracy says nothing")
    if not pd.isna(row["published_where"]):
        differs = _text(row["published_differs"])
        text = f"not comparable with the published figure ({row['published_where']})"
        found.append(f"{text}: here {differs}" if differs else f"published by {row['published_where']}")
    return found


def machine_line(row: Any) -> str:
    """The machine and versions that a row was made with."""
    on_gpu = not pd.isna(row["device_count"]) and row["device_count"] > 0
    device = _text(row["device_name"]) if on_gpu else f"{_text(row['cpu_count'])} CPUs {_text(row['cpu_model'])}"
    driver = f", driver {row['driver']}" if on_gpu and not pd.isna(row["driver"]) else ""
    commit = f", commit {row['commit']}" if not pd.isna(row["commit"]) else ""
    return f"on {_text(row['host'])}: {device}, torch {_text(row['torch'])}{driver}{commit}"
