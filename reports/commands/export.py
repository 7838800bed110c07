"""Write a run's trials for other programs and papers.

markdown, latex: the tables of `show`; json, parquet: every column of every launch, typed (parquet needs the extra
`parquet`, and -o).
"""

from __future__ import annotations

import argparse

from reports.arguments import new_file, run_folder

GROUP = "Look at a run"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=run_folder, metavar="RUN", help="the --out folder of a run")
    parser.add_argument(
        "--format", required=True, choices=["json", "latex", "markdown", "parquet"], help="what is written"
    )
    parser.add_argument("-o", "--out", type=new_file, metavar="FILE", help="where to, in place of standard output")


def run(options: argparse.Namespace) -> None:
    from bench.errors import UsageError
    from bench.record.csvfile import write_whole
    from reports import read
    from reports.tables import export, table

    if options.format == "parquet" and options.out is None:
        raise UsageError("export: parquet is binary; give -o FILE")
    trials, skipped = read.readable_trials(options.run)
    content: str | bytes
    if options.format in export.OF_TABLES:
        content = export.OF_TABLES[options.format](table.sheets(trials, read.ceilings(options.run)))
    else:
        content = export.OF_COLUMNS[options.format](trials)
    read.say_lost(skipped, "trials")
    if options.out is not None:
        write_whole(options.out, content)
    else:
        print(content, end="")
