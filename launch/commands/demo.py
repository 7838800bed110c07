"""Run three experiments in minutes, with tables, a page and charts.

Downloads nothing and needs no GPU. A ResNet-152 with random weights shows times and memory; a ResNet-20 that is trained
here on the digits 0 to 4 and carried over to 5 to 9 shows what freezing and missing skip connections do to accuracy.

Ctrl-C stops the demo with exit code 130. The same command again goes on where it stopped; a demo that is finished shows
its tables and trains nothing. rm -rf RUN_FOLDER begins anew. A folder that other code began is refused.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.arguments import Parser, given_folder
from bench.called import module_command
from bench.errors import INTERRUPTED, UsageError
from bench.failure.causes import Interrupted
from bench.machine import environment
from bench.record.csvfile import write_whole
from bench.terminal import BLANK, paragraph, say
from launch.commands import run as run_command
from launch.group import accelerate_command
from launch.multi_node import compatibility
from launch.sweep import checks, dry_run, study_folder
from launch.sweep import request as run_words
from launch.sweep.estimate import duration
from launch.sweep.request import RunRequest

GROUP = "Run experiments"
EXAMPLES = ("--out runs/demo",)
OUT = Path("runs/demo")
STAMP = "demo.json"  # which code began the folder
TAKES = "a few minutes on two CPUs"
NO_TERMINAL = "100"  # columns of the tables where they go into a pipe: a person is to read them
STOPPED = "The demo is stopped. Run the same command again: it goes on where it stopped."
SMALL = "--data digits --image-size 32 --precision bf16"
COST152 = f"{SMALL} --weights none --limit-train 512 --limit-eval 128 --epochs 1 --micro-batch 16 --no-checkpoint"
TRANSFER20 = f"{SMALL} --model resnet20 --weights {{weights}} --classes 5 6 7 8 9 --augment crop_flip --epochs 10"
TRANSFER20 += " --micro-batch 16"
BLOCKS20 = "layer1.1 layer2.1 layer3.1"


@dataclass(frozen=True)
class Step:
    """One `launch run` of the demo: the question, the words, and by which columns `reports show` finds its rows.

    In the words, {weights} stands for the checkpoint of the step before that has a `folder` of its own.
    """

    question: str
    words: str
    rows: str
    folder: str = ""


STEPS = (
    Step(
        "Three ways to one effective batch: what does accumulation cost in time, and what does it save in memory?",
        f"resnet20_accumulation --arm 16x8,64x2,128x1 {SMALL} --epochs 18",
        "experiment=resnet20_accumulation",
    ),
    Step(
        "How long does an epoch of a frozen ResNet-152 take, and how much memory? (Random weights: no accuracy.)",
        f"resnet152_frozen {COST152}",
        "experiment=resnet152_frozen model=resnet152",
    ),
    Step(
        "What does training five blocks of a ResNet-152 without skip connections cost? (Random weights: no accuracy.)",
        f"resnet152_noskip {COST152}",
        "experiment=resnet152_noskip model=resnet152",
    ),
    Step(
        "None yet: this trains a ResNet-20 on the digits 0 to 4, for the two steps that follow.",
        f"resnet20_accumulation --arm 16x1 {SMALL} --classes 0 1 2 3 4 --epochs 10",
        "experiment=resnet20_accumulation",
        folder="backbone",
    ),
    Step(
        "How accurate is a linear head on that ResNet-20, frozen, on the digits 5 to 9?",
        f"resnet152_frozen --arm as_published,bn_eval {TRANSFER20}",
        "experiment=resnet152_frozen model=resnet20",
    ),
    Step(
        "How much accuracy is lost there when three of its blocks lose their skip connections?",
        f"resnet152_noskip --arm as_published,corrected,control {TRANSFER20} --replace-blocks {BLOCKS20} "
        f"--trainable head {BLOCKS20}",
        "experiment=resnet152_noskip model=resnet20",
    ),
)


def arguments(parser: Parser) -> None:
    parser.add_argument(
        "--out", type=given_folder, default=OUT, metavar="FOLDER", help="run folder (default: runs/demo)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the trials and their commands; start nothing")


def run(options: argparse.Namespace) -> int:
    """Run the steps that are not finished, show each one's table, and write the page and the charts."""
    out: Path = options.out
    if "," in str(out):
        raise UsageError(f"--out is {out}, but a comma separates the values of an axis; give a folder without one")
    gpus = accelerate_command.gpu_count()
    processes = min(2, gpus or 2)
    requests = requests_of(out, processes)
    if options.dry_run:
        for number, (step, request) in enumerate(zip(STEPS, requests, strict=True), start=1):
            print(f"# step {number} of {len(STEPS)}: {step.question}")
            dry_run.show(request)
        return 0
    try:
        check_code(out, processes)
        return demo(out, requests, f"in {processes} process(es) on {f'{gpus} GPU(s)' if gpus else 'CPUs'}")
    except Interrupted:
        say(STOPPED)
        return INTERRUPTED


def requests_of(out: Path, processes: int) -> list[RunRequest]:
    """What each step runs."""
    requests: list[RunRequest] = []
    weights = ""
    for step in STEPS:
        words = [word.format(weights=weights) for word in step.words.split()]
        folder = out / step.folder
        how = ["--processes", str(processes), "--out", str(folder), "--resume", "--retry-failed"]
        requests.append(run_words.read([*words, *how]))
        if step.folder:
            weights = str(folder / "checkpoints" / f"{requests[-1].trials[0].key()}-0.pt")
    return requests


def check_code(out: Path, processes: int) -> None:
    """Note which code begins the folder. Raises UsageError if other code did, since its rows would stand beside new
    ones."""
    code = compatibility.fingerprint(())
    here = {"commit": environment.machine()["commit"], "processes": processes, **code["versions"], **code["code"]}
    path, anew = out / STAMP, f"to begin anew: {remove(out)}, then the same command; to keep it, give another --out"
    if not path.exists():
        if (out / "trials.csv").exists():
            raise UsageError(f"{out} holds a run that is none of this demo; {anew}")
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot write to --out {out}: {error.strerror}; choose another folder") from error
        write_whole(path, json.dumps(here, indent=1) + "\n")
        return
    before = stamped(path)
    unlike = [name for name in {**here, **before} if before.get(name) != here.get(name)]
    if unlike:
        name, more = unlike[0], f" and {len(unlike) - 1} more" if len(unlike) > 1 else ""
        values = "" if name in code["code"] else f" ({before.get(name)}, now {here.get(name)})"
        changed = f"{name}{values}{more} changed since {out} was begun"
        raise UsageError(f"{changed}, and its rows must not stand beside new ones; {anew}")


def remove(out: Path) -> str:
    """The command that removes the folder."""
    return f"rm -rf {shlex.quote(str(out))}"


def stamped(path: Path) -> dict[str, Any]:
    """What a stamp says. Raises UsageError if it cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}; to begin anew: {remove(path.parent)}") from error
    return found if isinstance(found, dict) else {}


def demo(out: Path, requests: Sequence[RunRequest], where: str) -> int:
    """Run what is left of the demo; returns the exit code."""
    console, began = Console(), time.monotonic()
    trials, left = sum(len(each.trials) for each in requests), sum(map(how_many_left, requests))
    if left:
        introduce(console, trials, left, len(requests), where)
    else:
        paragraph(console, f"The demo in {out} is finished: its {trials} trials have their rows. Nothing is trained.\n")
    for number, (step, request) in enumerate(zip(STEPS, requests, strict=True), start=1):
        name = request.trials[0].experiment
        paragraph(console, f"Step {number} of {len(requests)}, {name}: {step.question}\n")
        if how_many_left(request):
            checks.check(request)  # only now are the weights there that a step before has trained
            code = run_command.run_trials(request)
            if code == INTERRUPTED:
                say(STOPPED)
            elif code:
                say(f"Step {number} did not end well, as is said above. The same command again tries it once more.")
            if code:
                return code
        if code := report(["show", str(out / step.folder), "--where", *step.rows.split()]):
            return code
    if left or not (out / "report.html").exists():
        paragraph(console, "Writing the page and the charts.")
        for form in ("plot", "page"):  # the page last: where it is, so are the charts
            if code := report([form, str(out)], stdout=subprocess.DEVNULL):  # the paths, which are said below
                return code
    conclude(console, out, f" It took {duration(time.monotonic() - began)}." if left else "")
    return 0


def introduce(console: Console, trials: int, left: int, steps: int, where: str) -> None:
    """Say what comes, and for how long."""
    machine = f"{environment.cpu_count()} CPUs {environment.cpu_model() or ''}".strip()
    paragraph(console, f"The demo runs {trials} trials in {steps} steps, {where}; this machine has {machine}.")
    if left < trials:
        paragraph(console, f"{trials - left} of them have their rows already, so it goes on with the other {left}.")
    else:
        paragraph(console, f"It takes {TAKES}. The time left is said as soon as the first trial of a step has ended.")
    paragraph(console, "Ctrl-C stops it; the same command goes on from there.\n")


def conclude(console: Console, out: Path, took: str) -> None:
    """Say where everything is, and what to do next."""
    paragraph(console, f"The demo is finished.{took}")
    for what, path in (("page", "report.html"), ("charts", "plots"), ("rows", "trials.csv")):
        paragraph(console, f"{what + ':':<8}{out / path}".replace(" ", BLANK), "  ")
    paragraph(console, "What to do next:")
    for what, command in (
        ("every column of these tables", f"python -m reports show {shlex.quote(str(out))} --wide"),
        ("the experiments that there are", "python -m launch list"),
        ("one of them, in minutes", "python -m launch run resnet_depth --preset mini"),
        ("the demo anew", f"{remove(out)}, then the same command"),
    ):
        paragraph(console, f"{what + ':':<32}{command}".replace(" ", BLANK), "  ")


def how_many_left(request: RunRequest) -> int:
    """How many of its trials have no row that says ok."""
    done = study_folder.finished(study_folder.read_rows(request.options.out), retry_failed=True)
    return sum(study_folder.identity(trial) not in done for trial in request.trials)


def report(words: Sequence[str], stdout: int | None = None) -> int:
    """Run a command of `reports`; returns its exit code."""
    width = {} if sys.stdout.isatty() else {"COLUMNS": NO_TERMINAL}
    variables = {**width, **os.environ}
    return subprocess.run(module_command("reports", *words), env=variables, stdout=stdout, check=False).returncode
