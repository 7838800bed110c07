"""The arguments that commands share, and the types of their values."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import Any

from bench.arguments import Once
from bench.errors import UsageError


def run_folder(text: str) -> Path:
    """The folder of a run. Raises UsageError for an empty text, which would be the current folder."""
    if not text:
        raise UsageError("RUN is empty; give the --out folder of a run")
    return Path(text)


def new_file(text: str) -> Path:
    """A file that will be written. Raises UsageError if it cannot be, before the work rather than after it."""
    path = Path(text)
    if path.is_dir():
        raise UsageError(f"cannot write {text!r}: it is a folder; give the name of a file")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write {text!r}: {path.parent} is no folder that you may write to; give another")
    return path


def share(text: str) -> float:
    """0.02 for 2% or 0.02. Raises ArgumentTypeError if it is no share between 0 and 1."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share between 0 and 1, such as 0.02 or 2%")
    return value


def portion(text: str) -> float:
    """A share that may also be 0 or 1."""
    return float(text) if text in ("0", "0.0", "1", "1.0") else share(text)


def target(text: str) -> float:
    """0.9 for an accuracy of 90%. Raises ArgumentTypeError if it is no share from 0 to 1."""
    try:
        return portion(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no share from 0 to 1; give 0.9 for 90%") from error


def target_argument(parser: argparse._ActionsContainer) -> None:
    """Declare --target-accuracy."""
    parser.add_argument(
        "--target-accuracy", type=target, metavar="SHARE", help="say what this accuracy took, such as 0.9"
    )


def wide_argument(parser: argparse.ArgumentParser) -> None:
    """Declare --wide."""
    parser.add_argument("--wide", action="store_true", help="print every column, also those wider than the terminal")


DEAREST = 1e9  # an hour of a device; what costs more is a slip


def price(text: str) -> tuple[str, float]:
    """DEVICE=PRICE. Raises ArgumentTypeError if a part is missing or if the price is no number from 0 to DEAREST."""
    device, _, number = text.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not device or not 0 <= value < DEAREST:
        raise argparse.ArgumentTypeError(f"{text!r} is not DEVICE=PRICE, such as 'NVIDIA H100=2.49'")
    return device, value


class Prices(Once):
    """Stores device -> price; a device that is given twice is an error."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        devices = [device for device, _ in values]
        if twice := [device for device in devices if devices.count(device) > 1]:
            raise argparse.ArgumentError(self, f"{twice[0]!r} is given twice; give it once")
        super().__call__(parser, namespace, dict(values), option_string)


def price_argument(parser: argparse.ArgumentParser) -> None:
    """Declare --price; its value is device -> price of an hour."""
    parser.add_argument(
        "--price",
        type=price,
        nargs="+",
        action=Prices,
        default={},
        metavar="DEVICE=PRICE",
        help="of an hour of one such device: says what epochs and targets cost",
    )


def points(text: str) -> float:
    """0.5 for half a percentage point. Raises ArgumentTypeError if it is no number of points between 0 and 100."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 100:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of percentage points between 0 and 100, such as 0.5")
    return value
