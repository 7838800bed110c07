"""GPU.md: what each check found, a line each, written anew after each so that nothing is lost."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bench.machine import environment, nvml
from bench.record.csvfile import write_whole

STANDIN = "Stand-in GPU"
NOT_RUN = "not run"


@dataclass
class Line:
    """A check: what it says, how it ended, and what it measured."""

    text: str
    result: str = NOT_RUN
    figures: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def markdown(self) -> str:
        """A row of the table."""
        figures = "; ".join(f"{name} {value}" for name, value in self.figures.items())
        return "| " + " | ".join(cell(word) for word in (self.text, self.result, figures, f"{self.seconds:.0f}")) + " |"


def cell(text: str) -> str:
    """Text that a Markdown table can hold."""
    return " ".join(text.split()).replace("|", "\\|")


def machine() -> dict[str, Any]:
    """This machine and its versions. To be called apart: it touches the GPU."""
    import torch

    known = environment.machine()
    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    if gpus:
        torch.zeros(1, device="cuda")  # a GPU that is there and cannot be used is no GPU
    return {
        **known,
        "cuda": torch.version.cuda or torch.version.hip,
        "cudnn": cudnn_version() if gpus else None,
        "gpus": [f"{gpu.name}, {gpu.total_memory / 2**30:.1f} GiB, {gpu.major}.{gpu.minor}" for gpu in gpus],
        "is_standin": any(gpu.name.startswith(STANDIN) for gpu in gpus),
        "driver": nvml.driver_version(),
    }


def cudnn_version() -> int | None:
    """As torch has it; None where it is not the one that torch was built with, which training then says."""
    import torch

    try:
        return torch.backends.cudnn.version()
    except RuntimeError:
        return None


class Sheet:
    """A pytest plugin that keeps the lines. After so many minutes no further check begins, and each left says so."""

    def __init__(self, path: Path, machine: dict[str, Any], minutes: float) -> None:
        self.path, self.machine, self.minutes = path, machine, minutes
        self.began = time.monotonic()
        self.lines: dict[str, Line] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Know all lines before the first is run."""
        self.lines = {item.nodeid: Line(title(item)) for item in session.items}
        self.write()

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Begin nothing too late."""
        if time.monotonic() - self.began > 60 * self.minutes:
            pytest.fail(f"{NOT_RUN}: {self.minutes:g} minutes are over", pytrace=False)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep how a check ended."""
        line = self.lines[report.nodeid]
        line.seconds += report.duration
        line.figures |= dict(report.user_properties)
        if report.when == "call" or report.outcome != "passed":
            line.result = ended(report)
        if report.when == "teardown":
            self.write()

    def summary(self) -> str:
        """How many ended how."""
        kinds = [line.result.partition(":")[0] for line in self.lines.values()]
        counts = [f"{kinds.count(kind)} {kind}" for kind in ("ok", "FAILED", "skipped", NOT_RUN) if kind in kinds]
        return f"{len(kinds)} checks: {', '.join(counts)}"

    def write(self) -> None:
        """The whole file."""
        known, minutes = self.machine, (time.monotonic() - self.began) / 60
        versions = f"torch {known['torch']}, CUDA {known['cuda']}, cuDNN {known['cudnn']}, driver {known['driver']}, "
        versions += f"accelerate {known['accelerate']}, Python {platform.python_version()}, commit {known['commit']}"
        lines = [
            "# On a GPU",
            "",
            "What the suite shows on the GPU below. `make test-gpu` writes this file anew; its checks: tests/gpu.",
            "",
            f"- GPU: {'; '.join(known['gpus'])} (memory, compute capability)",
            f"- CPU: {known['cpu_model']}, {known['cpu_count']} CPUs",
            f"- {versions}",
            f"- {self.summary()}, in {minutes:.1f} minutes",
            "",
            "| what | result | figures | s |",
            "| --- | --- | --- | ---: |",
            *(line.markdown() for line in self.lines.values()),
            "",
        ]
        write_whole(self.path, "\n".join(lines))


def title(item: pytest.Item) -> str:
    """What a check shows: its docstring, and the case where there are several."""
    text = str(getattr(item, "obj", item).__doc__).split("\n\n")[0].rstrip(".")
    case = item.name.partition("[")[2].rstrip("]")
    return f"{text} ({case})" if case else text


def ended(report: pytest.TestReport) -> str:
    """ok, FAILED: why, or skipped: why."""
    if report.outcome == "passed":
        return "ok"
    if report.outcome == "skipped":
        reason: Sequence[Any] = report.longrepr  # type: ignore[assignment]
        return f"skipped: {str(reason[2]).removeprefix('Skipped: ')}"
    crash = getattr(report.longrepr, "reprcrash", None)
    said = (crash.message if crash is not None else report.longreprtext).strip().splitlines()
    return f"FAILED: {said[0].removeprefix('Failed: ') if said else 'without a word'}"
