"""Real faults, one by one planted in a clone of this checkout: which of the gates finds which.

    python -m tests.perf.trust --out tests/perf/TRUST.md

What the file says before that, on false alarms and power, is `python -m reports selftest` of equal launches.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.machine.environment import CHECKOUT
from bench.record.csvfile import write_whole

from .speed import Bystanders, machine_line

HEADING = "## Real faults\n"
NOTE = """Metrics of the timing gate that are not named are equivalent. The input pipeline is not counted: loader
workers hand their images over in an order of chance, so that a fault there can only show in time."""
TRIAL = ["resnet20_accumulation", "--arm", "16x4", "--precision", "bf16", "--processes", "2", "--data", "digits"]
TRIAL += ["--limit-eval", "16", "--no-checkpoint"]
# Loader workers hand over their images by chance in one order or another, which is not the same count each time.
COUNTED = ["--pipeline", "resident", "--limit-train", "512", "--epochs", "1", "--warmup-windows", "3", "--repeats", "2"]
TIMED = ["--pipeline", "loader", "--workers", "2", "--limit-train", "1280", "--epochs", "2"]


@dataclass(frozen=True)
class Fault:
    """A mistake that somebody might make, as another text in a file."""

    name: str
    file: str
    old: str
    new: str


PASSED = "        meter.micro_batch_end(loss_sum.detach(), logits.detach(), labels)\n"
FAULTS = [
    Fault(
        "`no_sync` lost: each micro-batch shares its gradients",
        "bench/training/loop.py",
        "with contextlib.nullcontext() if synchronises else training.no_sync():",
        "with contextlib.nullcontext():",
    ),
    Fault("autocast lost", "bench/training/group.py", "mixed_precision=trial.precision", 'mixed_precision="no"'),
    Fault("a `.item()` for each micro-batch", "bench/training/loop.py", PASSED, PASSED + "        loss_sum.item()\n"),
    Fault("`num_workers=0`", "bench/data/pipeline.py", "num_workers=self.trial.workers", "num_workers=0"),
    Fault("buckets of 0.1 MiB", "bench/training/group.py", "bucket_cap_mb=trial.bucket_mib", "bucket_cap_mb=0.1"),
    Fault(
        "a micro-batch of images leaked each time",
        "bench/training/loop.py",
        PASSED,
        PASSED + '        globals().setdefault("LEAKED", []).append(images)\n',
    ),
]


def main() -> None:
    """Measure, and write the report's last section anew."""
    parser = argparse.ArgumentParser(prog="python -m tests.perf.trust", description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=6, help="pairs before each of the gate's looks (default: 6)")
    parser.add_argument("--out", type=Path, required=True, help="the Markdown file")
    asked: Any = parser.parse_args()
    before = asked.out.read_text().partition(HEADING)[0]
    bystanders = Bystanders()
    with tempfile.TemporaryDirectory() as scratch:
        lines = faults(Path(scratch), asked.pairs)
    text = [HEADING, f"`{' '.join(TRIAL)}`; counted with `{' '.join(COUNTED)}`,"]
    text += [f"timed with `{' '.join(TIMED)}` in {asked.pairs} + {asked.pairs} pairs.", "", NOTE, ""]
    text += ["| fault | `reports gate exact` | `launch gate` |", "| --- | --- | --- |", *lines, ""]
    text += [f"{machine_line()}. Other processes took {bystanders.share():.0%} of the CPUs meanwhile.", ""]
    write_whole(asked.out, before + "\n".join(text))


def python(tree: Path, *words: str, codes: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
    """A module's run in a checkout. RuntimeError: it ended with another exit code than these."""
    done = subprocess.run([sys.executable, "-m", *words], cwd=tree, capture_output=True, text=True, check=False)
    if done.returncode not in codes:
        raise RuntimeError(f"python -m {' '.join(words)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done


def git(tree: Path, *words: str) -> None:
    """RuntimeError: git fails."""
    subprocess.run(["git", "-C", str(tree), *words], check=True, capture_output=True)


def faults(scratch: Path, pairs: int) -> list[str]:
    """A table's line for each fault."""
    tree = scratch / "clone"
    subprocess.run(["git", "clone", "--quiet", str(CHECKOUT), str(tree)], check=True)
    git(tree, "tag", "sound")
    baseline = scratch / "exact.csv"
    counted(tree, scratch / "sound", baseline)
    baseline.with_name("exact.csv.new").rename(baseline)
    lines = [
        f"| none | {counted(tree, scratch / 'sound', baseline)} | {timed(tree, 'sound', scratch / 'none', pairs)} |"
    ]
    print(lines[-1], file=sys.stderr)
    for number, fault in enumerate(FAULTS):
        plant(tree, fault)
        exact = counted(tree, scratch / f"counted{number}", baseline)
        lines.append(f"| {fault.name} | {exact} | {timed(tree, 'HEAD', scratch / f'timed{number}', pairs)} |")
        print(lines[-1], file=sys.stderr)
    return lines


def plant(tree: Path, fault: Fault) -> None:
    """Commit the fault, and no other. RuntimeError: the code has no place for it any more."""
    git(tree, "checkout", "--quiet", "sound")
    path = tree / fault.file
    text = path.read_text()
    if text.count(fault.old) != 1:
        raise RuntimeError(f"{fault.file} has {text.count(fault.old)} places for the fault {fault.name!r}; adapt it")
    path.write_text(text.replace(fault.old, fault.new))
    git(tree, "-c", "user.name=trust", "-c", "user.email=trust@localhost", "commit", "--quiet", "-am", fault.name)


def counted(tree: Path, run: Path, baseline: Path) -> str:
    """What the exact gate says of the clone as it is."""
    if not run.exists():
        python(tree, "launch", "run", *TRIAL, *COUNTED, "--device", "cpu", "--out", str(run))
    done = python(tree, "reports", "gate", "exact", str(run), str(baseline), codes=(0, 1, 2, 3))
    said = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
    if done.returncode == 1:
        return "found: " + finding(said[1:])
    return "passes" if done.returncode == 0 else said[0]


def finding(lines: list[str]) -> str:
    """The first difference that is no kind of operation, without the trial's name, and how many others there are."""
    told = [line.partition(": ")[2] for line in lines]
    first = next((line for line in told if not line.startswith("operation_kinds")), told[0])
    return f"`{first}`" + (f" and {len(told) - 1} more" if len(told) > 1 else "")


def timed(tree: Path, ref: str, out: Path, pairs: int) -> str:
    """What the paired gate says of a commit of the clone."""
    found = out.with_suffix(".json")
    words = [*TRIAL, *TIMED, "--pairs", str(pairs), "--out", str(out), "--json", str(found)]
    python(tree, "launch", "gate", "sound", ref, *words, "--data-root", str(CHECKOUT / "data"), codes=(0, 1))
    told = [each for each in json.loads(found.read_text())["comparisons"] if each["verdict"] != "equivalent"]
    return "; ".join(map(verdict, told)) or "passes"


def verdict(comparison: dict[str, Any]) -> str:
    """A metric's verdict, with its change and that one's 95% interval; or why it has none."""
    change = f"({comparison['why']})"
    if comparison["interval"]:
        low, high = comparison["interval"]
        change = f"{comparison['change']:+.1%} ({low:+.1%} .. {high:+.1%})"
    return f"{comparison['verdict']}: `{comparison['metric']}` {change}"


if __name__ == "__main__":
    main()
