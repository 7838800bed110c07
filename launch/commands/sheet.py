"""Draw what each arm's augmentation does to its training images, a PNG for each arm.

usage: python -m launch sheet EXPERIMENT [--arm A,B] [-o FOLDER] [options of one trial]

-o  where the pictures go (runs/sheets)
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

from bench.errors import UsageError
from bench.options import take_option
from bench.record.csvfile import write_whole
from launch.sweep import matrix, option_words


def run(words: Sequence[str]) -> None:
    """Write a PNG for each arm and print its path."""
    name, rest = matrix.one_experiment(words, "sheet")
    folder, rest = take_option(rest, "-o")
    arms, rest = take_option(rest, "--arm")
    if axes := option_words.axes(rest):
        raise UsageError(f"sheet draws a picture for each arm: give --{axes[0].replace('_', '-')} one value")
    trials, options = matrix.trials(name, arms, rest)
    from bench.data import augment_sheet, datasets  # imports torch

    for trial in trials:
        if trial.data == "synthetic":
            raise UsageError("--data synthetic has no pictures to augment; give --data digits or cifar10")
        few = dataclasses.replace(trial, limit_train=augment_sheet.IMAGES, evaluate_on="none")
        png = io.BytesIO()
        augment_sheet.draw(trial, datasets.load(few, options.data_root)).save(png, "PNG")
        path = Path(folder or "runs/sheets") / f"{trial.experiment}-{trial.arm}.png"
        write(path, png.getvalue())
        print(path)


def write(path: Path, content: bytes) -> None:
    """Raises UsageError if the folder cannot be made or written to."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; choose another -o") from error
