"""Find change points in the runs of many nights on one machine.

It can draw the runs on a page. Change points alert and block nothing. Needs the extra `history` (pip install -e
'.[history]').

Exit code 0: whatever is found; 2: the request cannot be met; 70: an error that nobody foresaw, whose traceback is in
the file that is named.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from reports.arguments import new_file, share

GROUP = "Did something change"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="run folders, or folders of them")
    parser.add_argument(
        "--margin", type=share, default=0.02, metavar="SHARE", help="a change that matters (default: 2%%)"
    )
    parser.add_argument(
        "-o",
        "--out",
        type=new_file,
        metavar="FILE.html",
        help="also write a page with a chart of each series",
    )


def run(options: argparse.Namespace) -> None:
    from reports.history import change_points

    found = change_points.find(options.folders, options.margin)
    change_points.show(found)
    if options.out is None:
        return
    from reports.history import page as history_page

    history_page.write(found, f"History of {options.folders[0].absolute().name}", options.margin, options.out)
    print(options.out)
