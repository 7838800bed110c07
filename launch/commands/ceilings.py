"""Measure what this machine gives at most, and find slow devices.

Matrix products and the networks' convolutions at each precision, copies, all-reduces, and micro-batches of the suite's
input pipelines, in under two minutes. Written to ceilings.csv of the run folder, where python -m reports show and page
hold its trials against them. All GPUs are compared with each other, and with those of other run folders' ceilings
(--against): the exit code is 1 if one of them is slow. bench/ceilings/comparison.py has the rule. 70: the measurement
failed.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from bench.arguments import Parser, given_folder
from bench.ceilings import comparison
from bench.column import digits
from bench.errors import UNFORESEEN, UsageError
from bench.failure import causes
from bench.machine.gpus import has_distributed
from bench.options import Options
from bench.record.run_folder import RunFolder
from bench.terminal import WINDOW, Grid, print_grid, say
from bench.trial import Trial
from bench.variables import COMMAND, LAUNCH_ID, RUNNER_ID, new_id
from launch.group import accelerate_command
from launch.group.accelerate_command import Work
from launch.group.run_context import RunContext, remove_working_files, run_context
from launch.group.starter import StartRequest, head_line, run_to_end
from launch.group.trial_launch import GRACE_S
from launch.run_options import RunOptions

GROUP = "Which machine"
EXAMPLES = ("--out runs/mine",)
PROG = "python -m launch ceilings"
# Amount of a call -> its unit and factor.
RATES = {"flops": ("TFLOP/s", 1e-12), "bytes": ("GB/s", 1e-9), "images": ("images/s", 1.0)}


def arguments(parser: Parser) -> None:
    parser.add_argument(
        "--out",
        type=given_folder,
        default=Options().out,
        metavar="FOLDER",
        help="run folder for ceilings.csv; rows are added to an existing one (default: %(default)s)",
    )
    parser.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="GPUs to measure, or processes on a CPU (default: all GPUs; two processes on a CPU)",
    )
    parser.add_argument(
        "--against",
        type=Path,
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="other run folders with a ceilings.csv, whose devices are compared with those here (default: none)",
    )


def run(asked: argparse.Namespace) -> int:
    """Measure, print the table, and name the devices that are slow."""
    others = [row for folder in asked.against for row in rows_of(folder)]
    gpus = accelerate_command.gpu_count()
    usual = gpus or (2 if has_distributed() else 1)
    trial = Trial(processes=usual if asked.processes is None else asked.processes)
    accelerate_command.check(trial, gpus)
    launch_id = new_id()
    with run_context(Options(out=asked.out), gpus, RunOptions()) as context:
        failed = measure(context, trial, launch_id)
    if failed:
        say(f"error: {failed}")
        return UNFORESEEN
    rows = [row for row in RunFolder(asked.out).rows("ceilings") if row["launch_id"] == launch_id]
    show(rows)
    print(f"written to {asked.out / 'ceilings.csv'} as launch {launch_id}")
    slow = comparison.slow_devices([*others, *rows])
    for line in slow:
        print(line)
    for name in comparison.unlike([*others, *rows]):
        print(f"one {name} alone: compared with no other; --against takes run folders of machines like this one")
    return 1 if slow else 0


def rows_of(folder: Path) -> list[dict[str, str]]:
    """The rows of a folder's ceilings.csv. Raises UsageError if it has none, or one that cannot be compared."""
    path, rerun = folder / "ceilings.csv", f"run {PROG} --out FOLDER on that machine, with a new folder"
    try:
        found = RunFolder(folder).rows("ceilings")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} for --against is no text; {rerun}") from error
    if not found:
        raise UsageError(f"no rows in {path} for --against; run {PROG} --out {folder} on that machine")
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]  # what is behind the last line end is half-written
    if lost := len([line for line in whole.split("\n")[1:] if line.strip(",;\r")]) - len(found):
        raise UsageError(f"{path} for --against has {lost} lines that are no rows; {rerun}")
    for number, row in enumerate(found, start=1):
        if not comparison.readable(row):
            raise UsageError(f"row {number} of {path} for --against has a time that is no number; {rerun}")
    return found


def measure(context: RunContext, trial: Trial, launch_id: str) -> str:
    """Have a process group write its rows. Why it did not, as a sentence; "": it did. UsageError: it refuses."""
    folder = RunFolder(context.options.out)
    log = folder.logs() / f"{launch_id}.log"
    variables = {
        LAUNCH_ID: launch_id,
        RUNNER_ID: context.runner_id,
        COMMAND: os.environ.get(COMMAND, shlex.join(sys.orig_argv)),
    }
    work = Work("bench.ceilings", ["--out", str(folder.path)])
    request = StartRequest(launch_id, trial, context.options, context.gpus, variables, log, context.scratch, work=work)
    log.write_text(head_line(request), encoding="utf-8", errors="backslashreplace")
    on = f"{trial.processes} GPU(s)" if context.gpus else f"the CPU, with {trial.processes} process(es)"
    say(f"measuring on {on}; about a minute")
    code, cause = run_to_end(context.starter, request, GRACE_S), causes.recorded(folder.logs(), launch_id)
    remove_working_files(folder, f"{launch_id}.")
    if cause is not None and cause.usage:
        raise UsageError(cause.error)
    return f"{cause.error if cause else 'the measurement ended without a result'}; see {log}" if code else ""


def show(rows: Sequence[Mapping[str, str]]) -> None:
    """Print a line for each piece of work, and each kind of device if there are several: the median device's rate, and
    the quartiles of the slowest and fastest."""
    several = len({row["device_name"] for row in rows if row["rank"]}) > 1
    pieces: dict[tuple[str, ...], list[Mapping[str, str]]] = {}
    for row in rows:
        device = [row["device_name"] if row["rank"] else ""] if several else []
        pieces.setdefault((row["kind"].replace("_", " "), row["work"], row["number_format"], *device), []).append(row)
    telling = ("measured", "work", "format", *(["device"] * several))
    lines = [[*piece, str(len(devices)), *rates(devices)] for piece, devices in pieces.items()]
    grid = Grid(
        (*telling, "devices", "rate", "quartiles", "unit"),
        lines,
        len(telling),
        important=("rate", "unit", "quartiles"),
        left=(*telling, "unit"),
    )
    print_grid(Console(highlight=False), grid, more=WINDOW)


def rates(devices: Sequence[Mapping[str, str]]) -> tuple[str, str, str]:
    """(the median device's rate, the quartiles of the slowest and the fastest, the unit); of no rate, empty texts."""
    amount = next(name for name in RATES if devices[0][f"call_{name}"])
    unit, factor = RATES[amount]
    column = f"{amount}_per_s"
    if devices[0]["bus_bytes_per_s"]:
        unit, column = "GB/s of bus", "bus_bytes_per_s"
    if not all(row[column] for row in devices):  # too short for the clock
        return "", "", unit
    middle = sorted(devices, key=lambda row: float(row[column]))[len(devices) // 2]
    scale = factor * float(middle[column]) * float(middle["call_time_p50_s"])
    low = scale / max(float(row["call_time_p75_s"]) for row in devices)
    high = scale / min(float(row["call_time_p25_s"]) for row in devices)
    return digits(factor * float(middle[column])), f"{digits(low)}..{digits(high)}", unit
