"""Sweeps as a user starts them, on this machine's GPUs, and what they leave."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from launching import rows

from .device import ON_STANDIN

CHECKOUT = Path(__file__).resolve().parent.parent.parent
RUN = ["-m", "launch", "run"]
SECONDS = 400 if ON_STANDIN else 100
# A short trial: what starts and ends it is what is looked at.
SHORT = {
    "--arm": "16x1" if ON_STANDIN else "64x1",
    "--model": "resnet8" if ON_STANDIN else "resnet20",
    "--data": "digits",
    "--image-size": "16" if ON_STANDIN else "32",
    "--limit-train": "64" if ON_STANDIN else "1024",
    "--limit-eval": "50",
    "--epochs": "2",
    "--warmup-windows": "0" if ON_STANDIN else "3",
}


def words(*more: str) -> list[str]:
    """A short trial's, with these options instead of its own or besides."""
    named = {name: value for name, value in SHORT.items() if name not in more}
    return ["resnet20_accumulation", *(word for pair in named.items() for word in pair), *more]


shared: list[Callable[..., subprocess.CompletedProcess[str]]] = []
"""What runs commands on the stand-in (tests/shared_server.py); on a GPU they are started as a user's are."""


@dataclass
class Swept:
    """What came of a command: its exit code and words, and its run folder."""

    code: int
    said: str
    out: Path

    def rows(self, file: str = "trials") -> list[dict[str, str]]:
        """The rows of a CSV file."""
        return rows(self.out, file)

    def row(self, **settings: Any) -> dict[str, str]:
        """The one row with these settings."""
        wanted = {name: str(value) for name, value in settings.items()}
        found = [row for row in self.rows() if wanted.items() <= row.items()]
        assert len(found) == 1, f"{len(found)} rows of {wanted}: {self.said[-2000:]}"
        return found[0]


def command(words: list[str], out: Path, seconds: float = SECONDS) -> Swept:
    """Run one of the suite's commands to its end. On the stand-in all have one server to fork their trials off."""
    words = [*words, "--out", str(out)]
    try:
        done = shared[0](*words[2:]) if shared else _run(words, seconds)
    except subprocess.TimeoutExpired:
        pytest.fail(f"not done after {seconds:g} s: {' '.join(words)}", pytrace=False)
    return Swept(done.returncode, done.stdout + done.stderr, out)


def _run(words: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def sweep(words: list[str], out: Path) -> Swept:
    """Run `launch run` with these words to its end."""
    return command([*RUN, *words], out)
