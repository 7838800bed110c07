"""How far the gates can be trusted: many pairs of equal and of slowed launches, and real faults, one by one.

    python -m tests.perf.trust families --minutes 60 --out RUN [--processes 2]    launches, for the next command
    python -m tests.perf.trust report RUN... --budget-pairs N... --out tests/perf/TRUST.md   what the gate makes of it
    python -m tests.perf.trust faults --processes 1 --out tests/perf/TRUST.md     what finds which fault, and says why

Faults are planted in a clone of this checkout, each as a commit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.machine.environment import CHECKOUT
from bench.record.csvfile import write_whole
from bench.record.run_folder import RunFolder
from launch.gate.sides import Side, in_turns
from reports.verdicts import compare, selftest

from . import spread
from .speed import Bystanders, machine_line

# Families of equal and of slowed launches.
EQUAL = "## Equal launches, and slowed ones"
MADE_OF = "## What the spread is made of"
SHORT = ["resnet20_accumulation", "--arm", "16x1", "--data", "synthetic", "--epochs", "1", "--limit-windows", "100"]
SHORT += ["--limit-eval", "16", "--no-checkpoint"]
# Slowed sides in turn: 2% most often, because that is what the gate claims to find.
SHARES = (0.02, 0.03, 0.02, 0.01, 0.02, 0.05, 0.02, 0.1)
MATCHES = """A match has three sides, two of them equal and one slowed, so that a pair takes longer than one of a gate,
which has two. Families in which each pair is used once are few; those that are drawn from the pairs share them. A side
is slowed by a loop after each step, which ends when its thread has spent so much CPU time. That time, as a share of
the CPU time of a step of BASE, names the line: it is known, and not itself measured."""

# Real faults. By processes: the heading.
FAULTY = {1: "## Real faults in one process", 2: "## Real faults between two processes"}
TRIAL = ["resnet20_accumulation", "--arm", "16x4", "--precision", "bf16", "--data", "digits"]
TRIAL += ["--limit-eval", "16", "--no-checkpoint"]
# Loader workers hand over their images by chance in one order or another, which is not the same count each time.
COUNTED = ["--pipeline", "resident", "--limit-train", "512", "--epochs", "1", "--warmup-windows", "3", "--repeats", "2"]
TIMED = ["--pipeline", "loader", "--workers", "2", "--epochs", "3"]


@dataclass(frozen=True)
class Fault:
    """A mistake that somebody might make, as another text in a file."""

    name: str
    file: str
    old: str
    new: str
    processes: int = 1


LOOP, LOADER = "bench/training/loop.py", "bench/data/loader.py"
PASSED = "\n            meter.micro_batch_end(loss_sum.detach(), logits.detach(), labels)\n"
STEPPED = "    training.step()\n\n\ndef kept_casts"
NETWORK = "    model = nn.Sequential(layers)\n"
FAULTS = [
    Fault(
        "`no_sync` lost: each micro-batch shares its gradients",
        LOOP,
        "with contextlib.nullcontext() if synchronises else training.no_sync():",
        "with contextlib.nullcontext():",
        2,
    ),
    Fault("autocast lost", "bench/training/group.py", "mixed_precision=trial.precision", 'mixed_precision="no"'),
    Fault("a `.item()` for each micro-batch", LOOP, PASSED, PASSED + "            loss_sum.item()\n"),
    Fault("`num_workers=0`", LOADER, "num_workers=workers", "num_workers=0"),
    Fault("buckets of 0.1 MiB", "bench/training/group.py", "bucket_cap_mb=trial.bucket_mib", "bucket_cap_mb=0.1", 2),
    Fault(
        "a micro-batch of images leaked each time",
        LOOP,
        PASSED,
        PASSED + '            globals().setdefault("LEAKED", []).append(images)\n',
    ),
    Fault(
        "an extra synchronisation: a barrier after each step",
        LOOP,
        STEPPED,
        STEPPED.replace("step()\n", "step()\n    torch.distributed.barrier()\n"),
        2,
    ),
    Fault(
        "a slower augmentation: each image is cropped nine times",
        LOADER,
        "[v2.RandomCrop(list(size), padding=PAD)] if crop else []",
        "[v2.RandomCrop(list(size), padding=PAD)] * 9 if crop else []",
    ),
    Fault(
        "bf16 lost in one layer: the stem computes in float32",
        "models/stages.py",
        NETWORK,
        "    import torch\n\n"
        "    stem, off = layers['conv1'].forward, torch.autocast('cpu', enabled=False)\n"
        "    layers['conv1'].forward = off(lambda images: stem(images.float()))\n" + NETWORK,
    ),
    Fault(
        "one more BatchNorm",
        "models/stages.py",
        NETWORK,
        "    layers['bn1'] = nn.Sequential(layers['bn1'], nn.BatchNorm2d(widths[0]))\n" + NETWORK,
    ),
]


def slowed(cpu_s: float) -> Fault:
    """So much CPU time more in each step. Nothing else is touched: what is cached stays so."""
    spin = f"""    import time

    until = time.thread_time() + {cpu_s}
    while time.thread_time() < until:
        pass
"""
    return Fault(f"{cpu_s} s of CPU time", LOOP, STEPPED, STEPPED.replace("step()\n", "step()\n" + spin))


def main() -> None:
    """Run the chosen command."""
    parser = argparse.ArgumentParser(prog="python -m tests.perf.trust", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    each = commands.add_parser("families", help="run pairs of equal and of slowed launches")
    each.add_argument("--minutes", type=float, required=True)
    each.add_argument("--processes", type=int, default=1)
    each.add_argument("--out", type=Path, required=True, help="the folder of the launches")
    each = commands.add_parser("report", help="say what the gate makes of them")
    each.add_argument("runs", type=Path, nargs="+", help="the folders of the launches")
    held = "pairs of two sides that five minutes hold, in each of these runs"
    each.add_argument("--budget-pairs", type=int, nargs="+", required=True, help=held)
    each.add_argument("--note", default="", help="a sentence on what else the machine did")
    each.add_argument("--conclusion", default="", help="a sentence on what the spread is made of")
    each.add_argument("--out", type=Path, required=True, help="the Markdown file")
    each = commands.add_parser("faults", help="plant real faults")
    each.add_argument("--processes", type=int, choices=FAULTY, required=True, help="those of so many processes")
    each.add_argument("--pairs", type=int, default=32, help="as for the gate (32)")
    each.add_argument("--budget", default="5min", help="as for the gate (5min)")
    each.add_argument("--out", type=Path, required=True, help="the Markdown file")
    asked: Any = parser.parse_args()
    {"families": families, "report": report, "faults": faults}[asked.command](asked)


def families(asked: Any) -> None:
    """Match after match of two equal sides and a slowed one, until the time is up."""
    if asked.out.exists():  # what is planted anew is another commit
        sys.exit(f"error: {asked.out} is there already; choose another --out, or remove it")
    until = time.monotonic() + 60 * asked.minutes
    words = [*SHORT, "--processes", str(asked.processes), "--device", "cpu"]
    with clone() as tree, tempfile.TemporaryDirectory() as scratch:
        step_s = cpu_time_of_a_step(tree, Path(scratch), words)
        planted = {part: round(part * step_s, 6) for part in SHARES}
        trees = {0.0: tree} | {part: worktree(tree, slowed(cpu_s), f"{part:g}") for part, cpu_s in planted.items()}
        asked.out.mkdir(parents=True, exist_ok=True)
        truth = {f"{part:.0%}": cpu_s for part, cpu_s in planted.items()}
        write_whole(asked.out / "truth.json", json.dumps({"planted_cpu_s": truth}))
        number = 0
        while time.monotonic() < until:
            part = SHARES[number % len(SHARES)]
            sides = [side(asked.out / name, trees[0.0], words) for name in ("base", "head")]
            sides.append(side(asked.out / f"slowed-{part:.0%}", trees[part], words))
            codes, broken = in_turns(sides, number)
            print(f"match {number}: exit codes {codes} {broken}", file=sys.stderr, flush=True)
            number += 1


def side(folder: Path, tree: Path, words: Sequence[str]) -> Side:
    """A side whose launches write into this folder."""

    def command(number: int) -> list[str]:
        how = ["--fail-fast", "--out", str(folder.absolute()), "--repeat", str(number)]
        return [sys.executable, "-m", "launch", "run", *words, *how]

    return Side(folder.name, "", tree, folder, command, {})


def cpu_time_of_a_step(tree: Path, scratch: Path, words: Sequence[str]) -> float:
    """Its median in one launch: near enough to plant shares of about this size."""
    python(tree, "launch", "run", *words, "--out", str(scratch / "plain"))
    return float(RunFolder(scratch / "plain").rows("trials")[0][compare.CPU_TIME])


def report(asked: Any) -> None:
    """Write the file's sections on families anew."""
    if len(asked.runs) != len(asked.budget_pairs):
        sys.exit(f"error: {len(asked.runs)} runs, but {len(asked.budget_pairs)} --budget-pairs; give one for each run")
    text = [EQUAL, "", MATCHES, asked.note, ""]
    made_of, draw = [MADE_OF, "", spread.TEXT, "", spread.HEAD, spread.RULE], random.Random(0)
    for number, (run, most) in enumerate(zip(asked.runs, asked.budget_pairs, strict=True), 1):
        path = run / "truth.json"  # the folder of a gate on equal commits has none
        truth = json.loads(path.read_text()) if path.exists() else {"planted_cpu_s": {}}
        equal = gate_of(run, "head")
        step_s = statistics.median(row[compare.CPU_TIME] for row, _ in selftest.pairs_of(equal))
        planted = {
            f"{cpu_s / step_s:.2%}": gate_of(run, f"slowed-{name}") for name, cpu_s in truth["planted_cpu_s"].items()
        }
        text += [f"### Run {number}", ""]
        text += [selftest.report(equal, planted, selftest.Gate(32, 0.01, most), 0), ""]
        made_of += spread.lines(str(number), selftest.pairs_of(equal), draw)
    text += [f"{machine_line()}.", ""]
    replace(asked.out, EQUAL, "\n".join(text))
    replace(asked.out, MADE_OF, "\n".join([*made_of, "", asked.conclusion, ""]))


def gate_of(run: Path, head: str) -> Path:
    """A folder as a gate leaves it, of the side `base` and this one."""
    folder = run / "gates" / head
    folder.mkdir(parents=True, exist_ok=True)
    for name, target in (("base", "base"), ("head", head)):
        if not (folder / name).exists():
            os.symlink((run / target).absolute(), folder / name)
    return folder


def faults(asked: Any) -> None:
    """Write the file's section on real faults of so many processes anew."""
    bystanders, machine = Bystanders(), machine_line()
    trial = [*TRIAL, "--processes", str(asked.processes), "--device", "cpu"]
    planted = [None, *(fault for fault in FAULTS if fault.processes == asked.processes)]
    with clone() as tree, tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        baseline = scratch / "exact.csv"
        counted(tree, trial, scratch / "sound", baseline)
        baseline.with_name("exact.csv.new").rename(baseline)
        lines = []
        for number, fault in enumerate(planted):
            if fault is not None:
                plant(tree, fault)
            exact = counted(tree, trial, scratch / f"counted{number}", baseline)
            found = timed(tree, trial, scratch / f"timed{number}", asked)
            lines.append(f"| {fault.name if fault else 'none'} | {exact} | {found} |")
            print(lines[-1], file=sys.stderr, flush=True)
    text = [FAULTY[asked.processes], "", f"`{' '.join(trial)}`; counted with `{' '.join(COUNTED)}`,"]
    text += [f"timed with `{' '.join(TIMED)}`, at most {asked.pairs} pairs in {asked.budget}.", ""]
    text += ["| fault | `reports gate exact` | `launch gate` | reason as printed by the gate |"]
    text += ["| --- | --- | --- | --- |", *lines, ""]
    text += ["Metrics of the timing gate that are not named are equivalent. The input pipeline is not counted where"]
    text += ["loader workers hand their images over in an order of chance: a fault there can only show in time."]
    text += ["No trial runs where what was set up is not what the settings say: it is checked first.", ""]
    text += [f"{machine}. Other processes took {bystanders.share():.0%} of the CPUs meanwhile.", ""]
    replace(asked.out, FAULTY[asked.processes], "\n".join(text))


@contextmanager
def clone() -> Iterator[Path]:
    """A clone of this checkout, whose commit is tagged `sound`."""
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(CHECKOUT), str(tree)], check=True)
        git(tree, "tag", "sound")
        yield tree


def worktree(tree: Path, fault: Fault, name: str) -> Path:
    """A checkout beside the clone that has the fault."""
    other = tree.with_name(f"worktree-{name}")
    git(tree, "worktree", "add", "--quiet", "--detach", str(other), "sound")
    plant(other, fault)
    return other


def plant(tree: Path, fault: Fault) -> None:
    """Commit the fault, and no other. RuntimeError: the code has no place for it any more."""
    git(tree, "checkout", "--quiet", "--detach", "sound")
    path = tree / fault.file
    text = path.read_text()
    if text.count(fault.old) != 1:
        raise RuntimeError(f"{fault.file} has {text.count(fault.old)} places for the fault {fault.name!r}; adapt it")
    path.write_text(text.replace(fault.old, fault.new))
    git(tree, "-c", "user.name=trust", "-c", "user.email=trust@localhost", "commit", "--quiet", "-am", fault.name)


def replace(path: Path, heading: str, section: str) -> None:
    """Write a section of the file anew: from its heading to the next one of its level."""
    text = path.read_text() if path.exists() else "# How far the gates can be trusted\n\n"
    pattern = re.compile(rf"^{re.escape(heading)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    whole = f"{section.rstrip()}\n\n"
    text = pattern.sub(lambda _: whole, text) if pattern.search(text) else f"{text.rstrip()}\n\n{whole}"
    write_whole(path, f"{text.rstrip()}\n")


def python(tree: Path, *words: str, codes: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
    """A module's run in a checkout. RuntimeError: it ended with another exit code than these."""
    done = subprocess.run([sys.executable, "-m", *words], cwd=tree, capture_output=True, text=True, check=False)
    if done.returncode not in codes:
        raise RuntimeError(f"python -m {' '.join(words)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done


def git(tree: Path, *words: str) -> None:
    """RuntimeError: git fails."""
    subprocess.run(["git", "-C", str(tree), *words], check=True, capture_output=True)


def counted(tree: Path, trial: Sequence[str], run: Path, baseline: Path) -> str:
    """What the exact gate says of the clone as it is; or why its trials refuse to run."""
    if python(tree, "launch", "run", *trial, *COUNTED, "--out", str(run), codes=(0, 2)).returncode:
        return f"no trial runs: {error(run)}"
    done = python(tree, "reports", "gate", "exact", str(run), str(baseline), codes=(0, 1, 2, 3))
    said = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
    if done.returncode == 1:
        return "found: " + finding(said[1:])
    return "passes" if done.returncode == 0 else said[0]


def error(run: Path) -> str:
    """Why its first trial did not run, without the log's name."""
    why = RunFolder(run).rows("trials")[0]["error"]
    return f"`{why.partition(' (logs/')[0]}`"


def finding(lines: list[str]) -> str:
    """The first difference that is no kind of operation, without the trial's name, and how many others there are."""
    told = [line.partition(": ")[2] for line in lines]
    first = next((line for line in told if not line.startswith("operation_kinds")), told[0])
    return f"`{first}`" + (f" and {len(told) - 1} more" if len(told) > 1 else "")


def timed(tree: Path, trial: Sequence[str], out: Path, asked: Any) -> str:
    """What the gate in turns says of the clone as it is, and its reasons, as two cells."""
    found = out.with_suffix(".json")
    words = [*trial, *TIMED, "--pairs", str(asked.pairs), "--budget", asked.budget]
    words += ["--out", str(out), "--json", str(found), "--data-root", str(CHECKOUT / "data")]
    done = python(tree, "launch", "gate", "sound", "HEAD", *words, codes=(0, 1, 2))
    if done.returncode == 2:
        return f"{done.stderr.splitlines()[-1].partition(';')[0]} | {error(out / 'head')}"
    judged = json.loads(found.read_text())
    told = [each for each in judged["comparisons"] if each["verdict"] != "equivalent"]
    reasons = [each["summary"] for each in judged["reasons"]]
    reasons += [f"`{count['metric']} {count['change']}`" for each in judged["reasons"] for count in each["counts"]]
    return f"{'; '.join(map(verdict, told)) or 'passes'} | {'<br>'.join(reasons[:4])}"


def verdict(comparison: dict[str, Any]) -> str:
    """A metric's verdict, with its change and that one's 95% interval; or why it has none."""
    change = f"({comparison['why']})"
    if comparison["interval"]:
        low, high = comparison["interval"]
        change = f"{comparison['change']:+.1%} ({low:+.1%} .. {high:+.1%})"
    return f"{comparison['verdict']}: `{comparison['metric']}` {change}"


if __name__ == "__main__":
    main()
