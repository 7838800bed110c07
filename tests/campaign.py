"""Faults at random moments of real commands, counted: `python -m tests.campaign --faults 100 --seed 0 --out FAULTS.md`.

A sweep of small trials is hit by one fault or several, by the seed at any moment from its start on; then `--resume
--retry-failed` goes on with it, and is hit as well, until all is well. A gate whose sides, both of this checkout's
commit, take turns is hit too: half of the faults are for gates. After each command the books are checked: what is lost,
doubled, damaged or left, and whether the exit code tells the truth. All of that has to be nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import math
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent))

from faults import CODES, GATE, KINDS, ROWLESS, SIDES, Target, is_guard, is_rank
from launching import Command, alive, is_launcher, named, rows

from bench.errors import UsageError
from bench.machine import environment, repository
from bench.machine.environment import CHECKOUT
from launch.gate.worktrees import TURNS_FILE

RUN = ["-m", "launch", "run", "resnet20_accumulation", "--arm", "16x1", "--model", "resnet8", "--data", "digits"]
RUN += ["--limit-train", "64", "--limit-eval", "50", "--warmup-windows", "1", "--processes", "1,2", "--epochs", "40,41"]
RUN += ["--stall-timeout", "20"]  # on a busy machine a trial may need some seconds to start
TRIALS = 4
GATE_RUN = [
    "-m",
    "launch",
    "gate",
    "HEAD",
    "HEAD",
    *RUN[3 : RUN.index("--processes")],
    "--pairs",
    "3",
    "--epochs",
    "20",
]
GATE_RUN += ["--stall-timeout", "30"]  # two sides start at once
GATE_LOADER = ["--pipeline", "loader", "--workers", "1"]
DISK_BYTES = 400 * 2**20
HANG_S = 600.0  # a command takes a minute or two, but the machine may be busy with other work
CLEAN_S = 40.0
MOST_COMMANDS = 15
PROBLEMS = ("rows lost", "rows doubled", "orphans", "hangs", "damaged files", "wrong exit codes", "folders left")


# The books


def lost(before: set[str], after: list[dict[str, str]], begun: set[str], may_miss: bool) -> int:
    """Launches whose row was there and is not, and those that were begun in vain, where each has to have a row."""
    found = {row["launch_id"] for row in after}
    return len(before - found) + (0 if may_miss else len(begun - found))


def doubled(trials: list[dict[str, str]]) -> int:
    """Rows too many: a launch has one, and a trial one that is ok."""
    launches = Counter(row["launch_id"] for row in trials)
    well = Counter((row["trial_key"], row["repeat"]) for row in trials if row["status"] == "ok")
    return sum(count - 1 for counts in (launches, well) for count in counts.values())


def damaged(folder: Path) -> int:
    """CSV files that do not consist of whole rows of one width."""
    count = 0
    for path in folder.glob("*.csv"):
        text = path.read_text(errors="replace")
        widths = {len(row) for row in csv.reader(text.splitlines())}
        count += bool(text) and (not text.endswith("\n") or len(widths) != 1)
    return count


def fitting(code: int, kinds: set[str], ordinary: int) -> bool:
    """Whether an exit code says what happened. A fault may also come when all was over but for the code: `ordinary`."""
    return code in {ordinary}.union(*(CODES.get(kind, set()) for kind in kinds))


def ordinary_code(new: list[dict[str, str]]) -> int:
    """The exit code of a sweep with these rows."""
    return int(any(row["status"] != "ok" for row in new))


def verdict_code(base: list[dict[str, str]], head: list[dict[str, str]]) -> int:
    """The exit code of a gate of equal commits with these rows (see `python -m reports compare --help`)."""
    ended = [[row for row in side if row["status"] != "interrupted"] for side in (base, head)]
    failed = [sum(row["status"] != "ok" for row in side) for side in ended]
    if failed[0] == len(ended[0]) or not ended[1]:
        return 3
    last = ended[1][-1]
    in_turns = any(row.get("turns_with") for side in ended for row in side)
    if in_turns and failed[1] == 1 and last["status"] == "ok" and not last.get("turns_with"):
        return 0  # launched again alone, it ended well: what failed may have been killed from outside, as here
    return int(failed[1] * len(ended[0]) > failed[0] * len(ended[1]))


def no_gates() -> str:
    """Why this checkout's commit cannot be gated in turns; "": it can."""
    try:
        repository.require_top_level(CHECKOUT)
        theirs = repository.git(CHECKOUT, "show", f"HEAD:{TURNS_FILE}")
    except UsageError as error:
        return str(error)
    ours = (CHECKOUT / TURNS_FILE).read_text()
    protocols = {line for text in (theirs, ours) for line in text.splitlines() if line.startswith("PROTOCOL")}
    return "" if len(protocols) == 1 else "the checkout takes turns in another way than its commit"


# The campaign


@dataclass
class Campaign:
    """Faults to inject, and what came of them, by kind."""

    rng: random.Random
    left: int
    disk: Path
    kinds: list[str]
    tell: Callable[[str], None] = print
    injected: Counter[str] = field(default_factory=Counter)
    problems: Counter[tuple[str, str]] = field(default_factory=Counter)
    until: float = math.inf
    gates: float = 0.5
    """Share of the faults that are for gates."""
    commands: int = 0
    decks: dict[bool, list[str]] = field(default_factory=lambda: {True: [], False: []})

    def run(self) -> None:
        """Command after command, until all faults are spent or time is up."""
        number = 0
        while self.left > 0 and time.monotonic() < self.until:
            number += 1
            in_gates = sum(count for kind, count in self.injected.items() if kind.startswith(GATE))
            if self.gates and in_gates <= self.gates * self.injected.total():
                self.gate(self.disk / f"gate{number}")
            else:
                self.sweep(self.disk / f"sweep{number}", cold=self.rng.random() < 0.12)

    def gate(self, out: Path) -> None:
        """One gate of this commit against itself, hit by a fault, or by two."""
        words = [*GATE_RUN, "--processes", self.rng.choice("122"), *(GATE_LOADER if self.rng.random() < 0.3 else [])]
        code, kinds, said = self.attack(
            [*words, "--out", str(out)], out, min(self.left, self.rng.choice([1, 1, 2])), True
        )
        sides = [rows(out / name, "trials") for name in SIDES]
        for name, trials in zip(SIDES, sides, strict=True):
            self.check_rows(out / name, trials, set(), set(), kinds)
        self.check_code(code, kinds, said, verdict_code(*sides))
        shutil.rmtree(out, ignore_errors=True)

    def sweep(self, out: Path, cold: bool) -> None:
        """One sweep, hit until it has had its share of faults, and resumed until all is well."""
        share, code, kinds = self.rng.randint(3, 7), -1, set[str]()
        for number in range(MOST_COMMANDS):
            words = [*RUN, *(["--cold"] if cold else []), "--out", str(out)]
            words += ["--resume", "--retry-failed"] if number else []
            faults = min(share, self.left, self.rng.randint(1, 3)) if number < MOST_COMMANDS - 3 else 0
            code, kinds = self.command(words, out, faults)
            share -= len(kinds)
            if code == 0 and share <= 0:
                break
            if code == 0:  # there is nothing to hit any more
                break
        well = {(row["trial_key"], row["repeat"]) for row in rows(out, "trials") if row["status"] == "ok"}
        self.note(kinds, "rows lost", TRIALS - len(well))
        shutil.rmtree(out, ignore_errors=True)

    def command(self, words: list[str], out: Path, faults: int) -> tuple[int, set[str]]:
        """Run one command and hit it; (its exit code, the kinds that hit it)."""
        before = {row["launch_id"] for row in rows(out, "trials")}
        logs_before = launches(out)
        code, kinds, said = self.attack(words, out, faults, False)
        if "folder deleted" in kinds:
            before, logs_before = set(), set()
        trials = rows(out, "trials")
        self.check_rows(out, trials, before, logs_before, kinds)
        self.check_code(code, kinds, said, ordinary_code([row for row in trials if row["launch_id"] not in before]))
        return code, kinds

    def attack(self, words: list[str], out: Path, faults: int, gate: bool) -> tuple[int, set[str], str]:
        """Run a command and hit it: (its exit code, the kinds that hit it, what it said)."""
        kinds: set[str] = set()
        sessions: set[int] = set()
        self.commands += 1
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            with Command(words, scratch, {"TMPDIR": folder}) as command:
                target, leftovers = Target(command, out, self.rng, scratch), set[str]()
                for _ in range(faults):
                    if (kind := self.hit(target, sessions, leftovers, gate)) is not None:
                        kinds.add(kind)
                code = self.end(command, kinds)
                self.check_processes(command, sessions, leftovers, kinds)
                said = command.stderr.read_text()
            left = clear(scratch)
            # Only a gate that is killed leaves its worktrees, which `git worktree prune` forgets.
            self.note(kinds, "folders left", 0 if "gate: kill -9 of the gate" in kinds else len(left))
        (self.disk / "filler").unlink(missing_ok=True)
        return code, kinds, said

    def check_rows(
        self, folder: Path, trials: list[dict[str, str]], before: set[str], logs_before: set[str], kinds: set[str]
    ) -> None:
        """Each launch has its row, and the files are whole."""
        may_miss = bool(kinds & ROWLESS)
        self.note(kinds, "rows lost", lost(before, trials, launches(folder) - logs_before, may_miss))
        self.note(kinds, "rows doubled", doubled(trials))
        self.note(kinds, "damaged files", damaged(folder))

    def check_code(self, code: int, kinds: set[str], said: str, ordinary: int) -> None:
        """The exit code tells the truth, and no traceback is printed. `ordinary`: the code by the rows alone."""
        if not fitting(code, kinds, ordinary) or "Traceback" in said:
            self.note(kinds, "wrong exit codes", 1)
            self.tell(f"exit code {code}, not {ordinary}, after {sorted(kinds)}: {said[-2000:]}")

    def draw(self, gate: bool) -> str:
        """The next kind: all of them, shuffled, before one comes again."""
        if not self.decks[gate]:
            kinds = [kind for kind in self.kinds if kind.startswith(GATE) == gate]
            self.decks[gate] = self.rng.sample(kinds, len(kinds))
        return self.decks[gate].pop()

    def hit(self, target: Target, sessions: set[int], leftovers: set[str], gate: bool) -> str | None:
        """Inject one fault at a random moment; None: there was nothing to hit in time."""
        kind = self.draw(gate)
        moment = time.monotonic() + self.rng.uniform(0.0, 20.0 if gate else 6.0)
        while target.command.process.poll() is None and time.monotonic() < moment + 20.0:
            if time.monotonic() >= moment and target.has_begun():
                for process in target.command.left():
                    with contextlib.suppress(psutil.Error, OSError):
                        if is_launcher(process) or is_rank(process):
                            sessions |= {os.getsid(process.pid), os.getpgid(process.pid)}
                        if is_guard(process):
                            leftovers.add(process.cmdline()[-1])
                if KINDS[kind](target):
                    self.injected[kind] += 1
                    self.left -= 1
                    return kind
            time.sleep(0.05)
        return None

    def end(self, command: Command, kinds: set[str]) -> int:
        """The command's exit code; a hang is one that never comes by itself."""
        try:
            return command.wait(HANG_S)
        except subprocess.TimeoutExpired:
            self.note(kinds, "hangs", 1)
            self.tell(f"hangs after {sorted(kinds)}: {command.stderr.read_text()[-2000:]}")
            command.process.kill()
            return command.wait()

    def check_processes(self, command: Command, sessions: set[int], leftovers: set[str], kinds: set[str]) -> None:
        """Nothing of a command runs, by its mark, session or process group; its scratch folder is gone."""

        def found() -> list[psutil.Process]:
            members = {p.pid: p for p in command.left()}
            for process in psutil.process_iter():
                with contextlib.suppress(OSError):
                    if {os.getsid(process.pid), os.getpgid(process.pid)} & sessions:
                        members[process.pid] = process
            return alive(list(members.values()))

        until = time.monotonic() + CLEAN_S
        while (orphans := found()) and time.monotonic() < until:
            time.sleep(0.2)
        self.note(kinds, "orphans", len(orphans) + sum(Path(path).exists() for path in leftovers))
        if orphans:
            self.tell(f"left after {sorted(kinds)}: {[named(process) for process in orphans]}")

    def note(self, kinds: set[str], problem: str, count: int) -> None:
        """Count a problem with each kind that can have caused it."""
        if count:
            self.tell(f"{problem}: {count} after {sorted(kinds)}")
            for kind in kinds or {"none"}:
                self.problems[kind, problem] += count

    def table(self, seed: int, lasted_s: float) -> str:
        """What was injected and what came of it, as Markdown."""
        head = ["kind of fault", "injected", *PROBLEMS]
        lines = [f"| {' | '.join(head)} |", "| --- |" + " ---: |" * (len(head) - 1)]
        kinds = [kind for kind in [*KINDS, "none"] if self.injected[kind] or any(k == kind for k, _ in self.problems)]
        for kind in kinds:
            cells = [str(self.problems[kind, problem]) for problem in PROBLEMS]
            lines.append(f"| {kind} | {self.injected[kind]} | {' | '.join(cells)} |")
        totals = [str(sum(n for (_, p), n in self.problems.items() if p == problem)) for problem in PROBLEMS]
        lines.append(f"| **all** | **{sum(self.injected.values())}** | {' | '.join(totals)} |")
        known = environment.machine()
        machine = f"{known['cpu_count']} CPU{'s' * (known['cpu_count'] != 1)} {known['cpu_model']}, "
        machine += f"torch {known['torch']}, Python {platform.python_version()}, commit {known['commit']}"
        return "\n".join(
            [
                "# Faults",
                "",
                "Faults injected at random moments into real sweeps and gates of one process and two, most of them "
                "warm, and what they cost. `make faults` makes this file anew.",
                "",
                *lines,
                "",
                f"{self.commands} commands, seed {seed}, {lasted_s / 60:.0f} minutes; {machine}.",
                "",
            ]
        )


def launches(out: Path) -> set[str]:
    """The launches that have begun, by their logs."""
    return {path.stem for path in (out / "logs").glob("*.log") if "." not in path.stem}


def clear(scratch: Path) -> list[str]:
    """What a gate has left in this folder: worktrees, which are removed, and folders of its own."""
    listed = repository.git(CHECKOUT, "worktree", "list", "--porcelain").splitlines() if not no_gates() else []
    trees = [line.partition(" ")[2] for line in listed if line.startswith(f"worktree {scratch.resolve()}/")]
    found = [*trees, *map(str, scratch.glob("resbench-gate-*")), *map(str, scratch.glob("resbench-turns-*"))]
    for tree in trees:
        repository.remove(CHECKOUT, Path(tree))
    return found


@contextlib.contextmanager
def disk() -> Iterator[tuple[Path, list[str]]]:
    """A small file system, and the faults that can be had on it; without root any folder, which is never full."""
    with tempfile.TemporaryDirectory(prefix="campaign-") as folder:
        words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", folder]
        mounted = subprocess.run(words, capture_output=True, check=False).returncode == 0
        try:
            yield Path(folder), [kind for kind in KINDS if mounted or "full disk" not in kind]
        finally:
            if mounted:
                subprocess.run(["umount", "-l", folder], check=True)


def main() -> None:
    """Run the campaign and print its table. Exit code 1: something was lost, doubled, left or wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no sweep later than this")
    parser.add_argument("--gates", type=float, default=0.5, help="share of the faults that are for gates (0.5)")
    parser.add_argument("--out", type=Path, help="file for the table; default: the terminal alone")
    chosen = parser.parse_args()
    os.environ.setdefault("ACCELERATE_USE_CPU", "true")
    console, began = Console(stderr=True, markup=False, highlight=False), time.monotonic()
    with disk() as (folder, kinds):
        until = began + 60 * chosen.minutes
        campaign = Campaign(random.Random(chosen.seed), chosen.faults, folder, kinds, console.print, until=until)
        campaign.gates = chosen.gates
        if why := no_gates():
            campaign.gates = 0
            console.print(f"sweeps alone: {why}")
        campaign.run()
    text = campaign.table(chosen.seed, time.monotonic() - began)
    print(text)
    if chosen.out:
        chosen.out.write_text(text)
    sys.exit(1 if campaign.problems else 0)


if __name__ == "__main__":
    main()
