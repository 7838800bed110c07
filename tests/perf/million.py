"""A run of 1,000,000 steps: how long reports take for it, and how much memory: `python -m tests.perf.million`."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.experiment import Experiment
from bench.machine.environment import CHECKOUT
from bench.record.rows import first_row
from bench.record.run_folder import RunFolder
from bench.trial import Trial

from .speed import machine_line

# The most memory that a command had, in KiB, and not what its parent had before.
RUN = """
import re, sys
from reports.cli import main
main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1], file=sys.stderr)
"""
LAUNCHES, EPOCHS, WINDOWS = 100, 100, 100


def plant(folder: Path, launches: int, epochs: int, windows: int) -> None:
    """Rows of so many launches that ended well, of at most 20 settings."""
    drawn = random.Random(0)
    run = RunFolder(folder)
    experiment = Experiment(question="", base=Trial(), arms={"16x8": {}})
    for number in range(launches):
        trial = Trial(experiment="resnet20_accumulation", arm="16x8", lr=0.1 * (1 + number % 20), repeat=number // 20)
        times = {"status": "ok", "images_per_s": drawn.gauss(6400, 100), "peak_rss_bytes": 2**29 + number}
        launch = f"launch{number}"
        run.append("trials", [first_row(trial, experiment, launch) | times | {"device_name": "cpu"}])
        curve = ({"launch_id": launch, "epoch": e, "train_loss": 2.3 / (e + 1)} for e in range(epochs))
        run.append("epochs", [{**row, "eval_accuracy": drawn.random()} for row in curve])
        run.append("steps", (step(drawn, launch, *divmod(n, windows)) for n in range(epochs * windows)))


def step(drawn: random.Random, launch: str, epoch: int, window: int) -> dict[str, Any]:
    """A row of steps.csv, as full as a real one."""
    place = {"launch_id": launch, "epoch": epoch, "window": window, "images": 128}
    loss = {
        "measured": epoch > 0 or window > 5,
        "learning_rate": 0.1,
        "train_loss": drawn.random(),
        "train_accuracy": drawn.random(),
    }
    return {**place, **loss, "step_time_s": drawn.gauss(0.02, 0.001), "data_wait_s": drawn.random() / 1e4}


def main() -> None:
    """Plant, and run each command in a process of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        plant(folder, LAUNCHES, EPOCHS, WINDOWS)
        size = (folder / "steps.csv").stat().st_size
        print(f"{LAUNCHES * EPOCHS * WINDOWS:,} steps in {size / 1e6:.0f} MB. {machine_line()}")
        for words in (["show", scratch], ["page", scratch], ["plot", scratch]):
            began = time.monotonic()
            done = subprocess.run([sys.executable, "-c", RUN, *words], cwd=CHECKOUT, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"reports {words[0]} failed: {done.stderr}")
            print(f"{words[0]}: {time.monotonic() - began:.2f} s, {int(done.stderr) / 2**20:.2f} GiB")
        print(f"the page has {(folder / 'report.html').stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
