"""Draw what each arm's augmentation does to its training images.

It writes a PNG for each arm. Each setting has one value.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
from pathlib import Path

from bench.arguments import Parser
from bench.errors import UsageError
from bench.record.csvfile import write_whole
from launch.sweep import arguments as declared
from launch.sweep import matrix, option_words

GROUP = "Run experiments"
EXAMPLES = ("resnet20_accumulation --arm 16x8",)


def arguments(parser: Parser) -> None:
    declared.experiments_argument(parser, several=False)
    declared.options(parser.add_argument_group(declared.WHICH), ("arm", "preset"))
    folders = parser.add_argument_group("folders")
    folders.add_argument(
        "-o",
        dest="folder",
        type=Path,
        default=Path("runs/sheets"),
        metavar="FOLDER",
        help="where the pictures go (default: %(default)s)",
    )
    declared.options(folders, ("data_root",))
    declared.settings(parser)


def run(options: argparse.Namespace) -> None:
    """Write a PNG for each arm and print its path."""
    words = option_words.without(options.words, {"arm", "preset"})
    if axes := option_words.axes(words):
        raise UsageError(f"sheet draws a picture for each arm: give --{axes[0].replace('_', '-')} one value")
    trials, launch = matrix.trials(options.experiment, options.arm, words, options.preset)
    from bench.data import augment_sheet, datasets  # imports torch

    for trial in trials:
        if trial.data == "synthetic":
            raise UsageError("--data synthetic has no pictures to augment; give --data digits or cifar10")
        few = dataclasses.replace(trial, limit_train=augment_sheet.IMAGES, evaluate_on="none")
        png = io.BytesIO()
        augment_sheet.draw(trial, datasets.load(few, launch.data_root)).save(png, "PNG")
        path = options.folder / f"{trial.experiment}-{trial.arm}.png"
        write(path, png.getvalue())
        print(path)


def write(path: Path, content: bytes) -> None:
    """Raises UsageError if the folder cannot be made or written to."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; choose another -o") from error
