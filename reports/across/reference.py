"""Throughputs that others published, one row of reference.csv for each: machines that ran another code.

Adding one is adding a row. A cell is empty where the source does not state it: an image size is then USUAL_SIZE, and
without a precision the figure has no ratio to ours. `batch` is of one device, `images_per_s` of all `devices` together;
`precision` is in the source's words, AMP being mixed precision in a format that it does not name; `date`: when the
figure was published.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UsageError
from reports.tables.summary import Row, in_words

REFERENCE = Path(__file__).parents[1] / "reference.csv"
UNIT = "images/s"
NAMES: tuple[str, ...] = (
    "model",
    "image_size",
    "precision",
    "layout",
    "batch",
    "devices",
    "device",
    "throughput",
    "unit",
    "source",
)
NAMES += ("date", "note")
# What a source calls a precision -> what we call it.
PRECISIONS = {"FP32": ("fp32",), "TF32": ("tf32",), "FP16": ("fp16",), "BF16": ("bf16",), "AMP": ("fp16", "bf16")}
USUAL_SIZE = 224  # pixels: ImageNet's, which sources take for granted
# What a source may leave open, and what follows from it.
OPEN = {
    "image_size": f"image size (taken as {USUAL_SIZE})",
    "precision": "precision (so there is no ratio)",
    "layout": "layout",
    "batch": "batch",
}
LAYOUTS = ("channels_last", "contiguous")
DATE = re.compile(r"\d{4}(-\d\d){0,2}")


@dataclass(frozen=True)
class Published:
    """A throughput that a source reports; None: the source does not state it."""

    model: str
    device: str
    devices: int
    images_per_s: float
    source: str
    image_size: int | None = None
    precision: str | None = None
    layout: str | None = None
    batch: int | None = None
    date: str | None = None
    note: str | None = None

    def name(self) -> str:
        """RTX 3090, or 8 x A100."""
        return self.device if self.devices == 1 else f"{self.devices} x {self.device}"

    def unstated(self) -> list[str]:
        """What the source leaves open, and what follows from it."""
        return [text for name, text in OPEN.items() if getattr(self, name) is None]

    def about(self, row: Row) -> str:
        """What a reader has to know before holding it against this row."""
        batch = f"batch {self.batch} a device against {row['micro_batch']}" if self.batch != row["micro_batch"] else ""
        open_ = f"it does not state {', '.join(self.unstated())}" if self.unstated() else ""
        origin = ", ".join(filter(None, (self.source, self.date)))
        parts = (f"published, another code: {origin}", batch if self.batch else "", open_, self.note)
        return "; ".join(filter(None, parts))


def published(path: Path = REFERENCE) -> list[Published]:
    """All rows. Raises UsageError, with the row's line, if one has no source, another unit or a wrong value."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, restval="")
            if tuple(reader.fieldnames or ()) != NAMES:
                raise UsageError(f"{path} does not begin with the columns {','.join(NAMES)}; restore its first line")
            return [of_row(row, f"{path}, line {reader.line_num}") for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"cannot read {path}: {error}; restore it from its commit") from error


def of_row(row: Mapping[str, str], where: str) -> Published:
    """One row. Raises UsageError if something of it is missing or wrong; `where` is its file and line."""
    for name in ("model", "device", "source"):
        if not row[name].strip():
            raise UsageError(f"{where}: a published figure without a {name}; give it, or remove the row")
    if row["unit"] != UNIT:
        raise UsageError(f"{where}: the unit {row['unit']!r} is not {UNIT}; convert the figure, or remove the row")
    choices = {"precision": PRECISIONS, "layout": LAYOUTS}
    for name, known in choices.items():
        if row[name] and row[name] not in known:
            raise UsageError(f"{where}: no {name} {row[name]!r}; choose from: {', '.join(known)}, or leave it empty")
    if row["date"] and not DATE.fullmatch(row["date"]):
        raise UsageError(f"{where}: the date {row['date']!r} is none; give 2024, 2024-03 or 2024-03-31, or nothing")
    devices = number(row, "devices", where)
    if devices is None:
        raise UsageError(f"{where}: a published figure without its number of devices; give it, or remove the row")
    return Published(
        model=row["model"],
        device=row["device"],
        devices=devices,
        images_per_s=throughput(row, where),
        source=row["source"],
        image_size=number(row, "image_size", where),
        precision=row["precision"] or None,
        layout=row["layout"] or None,
        batch=number(row, "batch", where),
        date=row["date"] or None,
        note=row["note"] or None,
    )


def number(row: Mapping[str, str], name: str, where: str) -> int | None:
    """A whole number from 1 on; None if the cell is empty."""
    cell = row[name]
    if cell and (not cell.isdecimal() or int(cell) < 1):
        raise UsageError(f"{where}: {name} {cell!r} is no whole number from 1 on; correct it, or leave it empty")
    return int(cell) if cell else None


def throughput(row: Mapping[str, str], where: str) -> float:
    """The figure itself."""
    cell = row["throughput"]
    if not re.fullmatch(r"\d{1,9}(\.\d{1,6})?", cell) or float(cell) == 0:
        raise UsageError(f"{where}: throughput {cell!r} is no number of {UNIT} above 0; correct it")
    return float(cell)


def differences(row: Row, of: Published) -> list[str] | None:
    """Why a published figure stands not beside this row: the settings that differ; None: it is of another model."""
    if of.model != row["model"]:
        return None
    ours = "tf32" if row["precision"] == "no" and row["tf32"] else in_words("precision", row["precision"])
    size = USUAL_SIZE if of.image_size is None else of.image_size
    assumed = ", which the source does not state" if of.image_size is None else ""
    unlike = {
        f"devices {row['processes']} against {of.devices}": row["processes"] != of.devices,
        f"image_size {row['image_size']} against {size}{assumed}": row["image_size"] != size,
        f"precision {ours} against {of.precision}": of.precision is not None and ours not in PRECISIONS[of.precision],
        f"memory_format {row['memory_format']} against {of.layout}": of.layout not in (None, row["memory_format"]),
        f"trainable {row['trainable']} against all": row["trainable"] != "all",
    }
    return [text for text, differs in unlike.items() if differs]
