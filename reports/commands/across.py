"""Set runs of unlike machines or versions side by side.

Their settings are equal. A table for each trial, a line for each machine; what else is unlike between them is said
beneath it. No line is good or bad: that is for `compare`, on one machine. --by says what a machine is: by default its
device, and for a CPU its model, so that two CPUs are two machines; or a version or a setting of it, such as torch,
driver, cuda, power_mode, cpu_model, host, commit. With --with-published, throughputs that others published
(reports/reference.csv) stand beside ours.

  python -m reports across runs/h100 runs/rtx3090 --price 'NVIDIA H100 80GB HBM3=2.49' -o across.html
  python -m reports across runs/torch-2.9 runs/torch-2.14 --by torch
"""

from __future__ import annotations

import argparse

from reports.arguments import new_file, price_argument, run_folder, wide_argument

GROUP = "Which machine"
FORMS = ("csv", "json", "latex", "markdown")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", type=run_folder, nargs="+", metavar="RUN", help="the --out folder of a run")
    parser.add_argument(
        "--by",
        default="device_name",
        metavar="COLUMN",
        help="setting, machine, version or commit: a machine is a value of it",
    )
    price_argument(parser)
    wide_argument(parser)
    parser.add_argument("--with-published", action="store_true", help="beside what others published")
    parser.add_argument("-o", "--out", type=new_file, metavar="FILE.html", help="also write a page with charts")
    for name in FORMS:
        parser.add_argument(f"--{name}", type=new_file, metavar="FILE", help=f"also write the tables as {name}")


def run(options: argparse.Namespace) -> None:
    from bench.record.csvfile import write_whole
    from reports.across import forms, reference, sheets, side_by_side

    figures = reference.published() if options.with_published else []
    found = side_by_side.of_folders(options.runs, options.by, options.price, figures)
    for name in FORMS:
        if (path := getattr(options, name)) is not None:
            write_whole(path, forms.FORMS[name](found))
    if options.out is not None:
        from reports.across import page

        page.write(found, options.out)
    sheets.show(found, wide=options.wide)
