"""Run folders whose rows a test knows, as if trials had been run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.experiment import Experiment
from bench.machine import environment
from bench.record.rows import first_row
from bench.record.run_folder import RunFolder
from bench.trial import Trial
from reports.cli import main

MACHINE: dict[str, Any] = {
    "host": "tower",
    "device_name": "NVIDIA H100",
    "device_count": 1,
    "cpu_model": "AMD EPYC",
    "cpu_count": 16,
    "torch": "2.9.0",
    "driver": "550.54.15",
    "commit": "0123456789ab",
}


MEASURED: dict[str, Any] = {
    "status": "ok",
    "measured_windows": 400,
    "measured_time_s": 8.0,
    "images_per_s": 12345.678,
    "step_time_p50_s": 0.0123456,
    "step_time_cv": 0.0512,
    "epoch_time_s": 61.23456,
    "data_wait_s": 0.005,
    "peak_allocated_bytes": 3 * 2**29,
    "peak_reserved_bytes": 9 * 2**28,
    "peak_rss_bytes": 2**29,
    "train_accuracy": 0.87654,
    "eval_accuracy": 0.91116,
}


NAME, ARM = "resnet20_accumulation", "16x8"


def plant(folder: Path, *changes: dict[str, Any]) -> None:
    """A folder with a row of the above for each of these changes to it."""
    trial = Trial(experiment=NAME, arm=ARM)
    experiment = Experiment(question="", base=Trial(), arms={ARM: {}})
    for number, change in enumerate(changes):
        row = first_row(trial, experiment, f"launch{number}") | MACHINE | MEASURED | change
        RunFolder(folder).append("trials", [row])


# Shares of the mean by which launches lie off it.
SPREAD = [0.002, -0.001, 0.0, 0.001, -0.002]


def times(mean: float = 0.0123, spread: list[float] = SPREAD, **more: Any) -> list[dict[str, Any]]:
    """A row for each launch, whose memory and accuracy are those of all."""
    return [
        {"step_time_p50_s": mean * (1 + share), "images_per_s": 152 / (mean * (1 + share)), "repeat": number, **more}
        for number, share in enumerate(spread)
    ]


def plant_ceilings(folder: Path, launch: str = "c", devices: int = 1, **machine: Any) -> None:
    """Ceilings of one device, or of a faster one beside it. bf16: the slower one's convolution is at 4e14.

    Copies move 2e12 bytes/s, so that the ridge is at 200 FLOP/byte in bf16 and at 25 in fp32.
    """
    rates = {
        ("fp32", "matrix_product"): (6e13, 5e13),
        ("tf32", "matrix_product"): (3e14, 2.5e14),
        ("bf16", "matrix_product"): (4e14, 3e14),
        ("bf16", "convolution"): (5e14, 4e14),
    }
    head = {"launch_id": launch, "measuring": devices, **environment.machine(), **MACHINE, **machine}
    rows = [
        {**head, "kind": kind, "work": kind, "number_format": number_format, "rank": rank, "flops_per_s": rate}
        for (number_format, kind), by_rank in rates.items()
        for rank, rate in enumerate(by_rank[-devices:])
    ]
    copies = {**head, "kind": "device_copy", "work": "1 GiB"}
    rows += [{**copies, "rank": rank, "bytes_per_s": rate} for rank, rate in enumerate((3e12, 2e12)[-devices:])]
    rows.append({**head, "kind": "host_to_device", "work": "1 GiB", "rank": 0, "bytes_per_s": 1e10})
    RunFolder(folder).append("ceilings", rows)


COUNTED: dict[str, Any] = {
    "device_name": "cpu",
    "model": "resnet20",
    "image_size": 32,
    "micro_batch": 4,
    "processes": 1,
    "total_parameters": 272474,
    "trainable_parameters": 272474,
    "flops_per_window": 10**12,
    "operations_per_window": 3,
    "casts_per_window": 1,
    "waits_per_window": 0,
    "operation_kinds": "_to_copy 1, convolution 2",
}


def counted(folder: Path, *changes: dict[str, Any], times: int = 2) -> Path:
    """A run in which each trial was counted so many times."""
    folder.mkdir()
    rows = [{**COUNTED, **change, "repeat": repeat} for change in changes or ({},) for repeat in range(times)]
    plant(folder, *rows)
    return folder


def launches(folder: Path, *rows: dict[str, Any]) -> None:
    """Rows of trials.csv, each with three epochs and 40 measured steps of about 10 ms, one of 50 ms among them."""
    plant(folder, *({"launch_id": f"l{number}", **row} for number, row in enumerate(rows)))
    for launch in (f"l{number}" for number in range(len(rows))):
        for epoch in range(3):
            figures = {"train_loss": 2 - 0.5 * epoch, "eval_accuracy": 0.5 + 0.1 * epoch, "eval_images": 10000}
            RunFolder(folder).append("epochs", [{"launch_id": launch, "epoch": epoch, **figures}])
        times = [0.05 if window == 7 else 0.01 + 0.00001 * (window % 5) for window in range(40)]
        step = {"launch_id": launch, "epoch": 0, "measured": True}
        RunFolder(folder).append("steps", [{**step, "measured": False, "step_time_s": 9.0}])
        RunFolder(folder).append("steps", [{**step, "window": w, "step_time_s": time} for w, time in enumerate(times)])


def shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    main(["show", str(folder)])
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out


def rows_of(text: str, arm: str = ARM) -> list[list[str]]:
    """The words of the arm's lines, its notes' numbers left out."""
    lines = [line.split() for line in text.splitlines() if line.startswith(f" {arm} ")]
    return [[word for word in line if not word.startswith("[")] for line in lines]


def tables(text: str) -> int:
    return sum(line.split()[:1] == ["arm"] for line in text.splitlines())


HOSTILE = '<script>document.title="run"</script>"><img src=x onerror=alert(1)>\u2028=1+1'
