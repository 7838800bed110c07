"""Set runs of unlike machines or versions side by side, at equal settings.

A table for each trial, a line for each machine; what else is unlike between them is said beneath it. No line is good or
bad: that is for `compare`, on one machine. --by says what a machine is: by default its device, and for a CPU its model,
so that two CPUs are two machines; or a version or a setting of it, such as torch, driver, cuda, power_mode, cpu_model,
host, commit. With --with-published, throughputs that others published (reports/reference.csv) stand beside ours.

  python -m reports across runs/h100 runs/rtx3090 --price 'NVIDIA H100 80GB HBM3=2.49' -o across.html
  python -m reports across runs/torch-2.9 runs/torch-2.14 --by torch
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from reports.arguments import new_file

FORMS = ("csv", "json", "latex", "markdown")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="the --out folder of a run")
    parser.add_argument(
        "--by",
        default="device_name",
        metavar="COLUMN",
        help="setting, machine, version or commit: a machine is a value of it",
    )
    parser.add_argument(
        "--price", type=price, nargs="+", default=[], metavar="DEVICE=PRICE", help="of an hour of one such device"
    )
    parser.add_argument("--with-published", action="store_true", help="beside what others published")
    parser.add_argument("-o", "--out", type=new_file, metavar="FILE.html", help="also write a page with charts")
    for name in FORMS:
        parser.add_argument(f"--{name}", type=new_file, metavar="FILE", help=f"also write the tables as {name}")


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


def run(options: argparse.Namespace) -> None:
    from bench.errors import UsageError
    from bench.record.csvfile import write_whole
    from reports.across import forms, reference, sheets, side_by_side

    devices = [device for device, _ in options.price]
    if twice := [device for device in devices if devices.count(device) > 1]:
        raise UsageError(f"across: --price of {twice[0]!r} is given twice; give it once")
    figures = reference.published() if options.with_published else []
    found = side_by_side.of_folders(options.runs, options.by, dict(options.price), figures)
    for name in FORMS:
        if (path := getattr(options, name)) is not None:
            write_whole(path, forms.FORMS[name](found))
    if options.out is not None:
        from reports.across import page

        page.write(found, options.out)
    sheets.show(found)
