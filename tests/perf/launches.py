"""What a window asks of a GPU, counted exactly: `python -m tests.perf.launches` writes LAUNCHES.md beside it.

Counted on the stand-in for a GPU (tests/standin_cuda), which runs torch's own CUDA build and no arithmetic: kernels
launched, calls of cuDNN and cuBLAS, copies, events, and times that the host waited for the device. Before and after:
the plain path (plain_path.py) and the suite's, and between them each piece by itself.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from standin_cuda import build, counts
from standin_cuda.standin import Standin

from bench import experiments
from bench.machine import environment
from bench.trial import Trial

TABLE = Path(__file__).with_name("LAUNCHES.md")
CHECKOUT = Path(__file__).resolve().parents[2]
WARMUP, MEASURED = 3, 3
TRIALS = (
    ("resnet20_accumulation", "128x1"),
    ("resnet20_accumulation", "16x8"),
    ("resnet152_frozen", "as_published"),
)
PRECISIONS = ("no", "bf16", "fp16")


def per_window(loop: Any, windows: int = MEASURED) -> list[counts.Counts]:
    """What each of so many measured windows asked for, the making of its batches included, after some that warm up."""
    from bench.training.loop import run_window
    from bench.training.windows import epoch_windows

    trial, meter = loop.trial, loop.meter
    chosen = list(epoch_windows(loop.images, trial.micro_batch, trial.accumulate, 1, 0))[: WARMUP + windows + 1]
    assert len(chosen) > WARMUP + windows, "too few images"
    loop.training.model.train()
    meter.block = len(chosen) + 1  # reading the probes is off the clock
    batches = meter.timed(loop.feed.train(0, [a_pass for window in chosen for a_pass in window.passes]))
    seen = []
    for window in chosen:
        seen.append(counts.read())
        meter.window_begin(window)
        run_window(loop.training, window, batches, meter)
        meter.window_end(window, {})
    meter.read()
    return [after.since(before) for before, after in zip(seen[WARMUP:], seen[WARMUP + 1 :], strict=False)]


def one(loop: Any) -> counts.Counts:
    """What a window asks for; they are all alike."""
    (found,) = set(per_window(loop))
    return found


def trial(experiment: str, arm: str, precision: str) -> Trial:
    """The arm's trial, its images small: no count depends on their size."""
    own = experiments.load(experiment).trial(experiment, arm)
    changes: Any = {"precision": precision, "weights": "none", "image_size": 32, "data": "cifar10", "classes": ()}
    return dataclasses.replace(own, **changes)


def count() -> dict[str, Any]:
    """All that the file tells. In a process that has the stand-in."""
    from .plain_path import PIECES, start

    def counted(name: str, arm: str, precision: str, plain: Sequence[str]) -> counts.Counts:
        of = trial(name, arm, precision)
        loop = start(of, of.effective_batch() * (WARMUP + MEASURED + 1), plain=False)
        for piece in plain:
            PIECES[piece](loop)
        return one(loop)

    both = [
        (
            f"{name} {arm}",
            precision,
            counted(name, arm, precision, list(PIECES)),
            counted(name, arm, precision, []),
        )
        for name, arm in TRIALS
        for precision in PRECISIONS
    ]
    names = list(PIECES)
    pieces = {
        arm: [(f"+ {piece}", counted(TRIALS[0][0], arm, "bf16", names[at + 1 :])) for at, piece in enumerate(names)]
        for arm in ("128x1", "16x8")
    }
    return {"both": both, "pieces": pieces}


HEAD = "launches | library calls | copies | of them pageable | waits | events"


def cells(found: counts.Counts) -> str:
    """Its numbers, under HEAD."""
    copies = (found.copies, found.pageable_copies)
    return " | ".join(map(str, (found.launches, found.library_calls, *copies, found.waits, found.events)))


def table(found: dict[str, Any]) -> str:
    """The whole file."""
    known = environment.machine()
    lines = [
        "# What a window asks of a GPU",
        "",
        "Written by `python -m tests.perf.launches`; how, stands at the head of that file. Counted, not timed: per",
        "window, on a stand-in without hardware. Launches are of torch's own kernels; what cuDNN and cuBLAS launch for",
        f"a call is theirs. torch {known['torch']}, accelerate {known['accelerate']}.",
        "",
        f"| trial | precision | path | {HEAD} |",
        "| --- | --- | --- | --: | --: | --: | --: | --: | --: |",
    ]
    for name, precision, before, after in found["both"]:
        for path, each in (("plain", before), ("fast", after)):
            lines.append(f"| {name} | {precision} | {path} | {cells(counts.Counts(*each))} |")
    lines += ["", "Piece by piece, each with those above it, resnet20_accumulation in bf16:", ""]
    lines += [f"| arm | path | {HEAD} |", "| --- | --- | --: | --: | --: | --: | --: | --: |"]
    for arm, rows in found["pieces"].items():
        lines += [f"| {arm} | {piece} | {cells(counts.Counts(*each))} |" for piece, each in rows]
    return "\n".join([*lines, ""])


def main() -> None:
    """Count, and write the file."""
    if sys.argv[1:] == ["--count"]:
        print(json.dumps(count()))
        return
    if reason := build.why_not():
        sys.exit(f"error: {reason}")
    with tempfile.TemporaryDirectory() as folder:
        build.build(Path(folder))
        changes = Standin(Path(folder)).variables(arithmetic=False)
        env = {name: value for name, value in {**os.environ, **changes}.items() if value is not None}
        words = [sys.executable, "-m", "tests.perf.launches", "--count"]
        said = subprocess.run(words, cwd=CHECKOUT, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout
    TABLE.write_text(table(json.loads(said)))
    print(TABLE.read_text())


if __name__ == "__main__":
    main()
