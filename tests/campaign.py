"""Faults at random moments of real sweeps, counted: `python -m tests.campaign --faults 100 --seed 0 --out FAULTS.md`.

A sweep of small trials is hit by one fault or several, by the seed at any moment from its start on; then `--resume
--retry-failed` goes on with it, and is hit as well, until all is well. After each command the books are checked: what
is lost, doubled, damaged or left running, and whether the exit code tells the truth. All of that has to be nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import math
import os
import platform
import random
import resource
import shutil
import signal
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

from launching import Command, alive, is_launcher, named, rows

from bench.machine import environment

RUN = ["-m", "launch", "run", "resnet20_accumulation", "--arm", "16x1", "--model", "resnet8", "--data", "digits"]
RUN += ["--limit-train", "64", "--limit-eval", "50", "--warmup-windows", "1", "--processes", "1,2", "--epochs", "40,41"]
RUN += ["--stall-timeout", "10"]
TRIALS = 4
DISK_BYTES = 400 * 2**20
FLOOD_BYTES = 200 * 2**20
HANG_S = 150.0
CLEAN_S = 40.0
MOST_COMMANDS = 15
PROBLEMS = ("rows lost", "rows doubled", "orphans", "hangs", "damaged files", "wrong exit codes")


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


def fitting(code: int, kinds: set[str], new: list[dict[str, str]]) -> bool:
    """Whether an exit code says what happened. A fault may also come when all was over but for the code."""
    ordinary = max(0, *(row["status"] != "ok" for row in new)) if new else 0
    allowed = {ordinary}
    for kind in kinds:
        allowed |= CODES.get(kind, set())
    return code in allowed


CODES = {
    "kill -9 of the runner": {-signal.SIGKILL},
    "kill -9 of the runner's group": {-signal.SIGKILL},
    "SIGINT": {130},
    "SIGTERM": {130},
    "SIGHUP": {130},
    "full disk": {2},
    "folder deleted": {2},
}
# After these a trial may have no row: then --resume runs it.
ROWLESS = {"kill -9 of the runner", "kill -9 of the runner's group", "full disk", "folder deleted"}


# The faults


@dataclass
class Target:
    """A command under way, and where it writes."""

    command: Command
    out: Path
    rng: random.Random

    def has_begun(self) -> bool:
        """Whether it has the folder to itself. Before that it may be killed by any signal, as any command may."""
        with contextlib.suppress(OSError):
            return f'"pid": {self.command.process.pid},' in (self.out / ".runner").read_text()
        return False

    def pick(self, wanted: Callable[[psutil.Process], bool]) -> psutil.Process | None:
        """One of its processes."""
        found = [process for process in self.command.left() if wanted(process)]
        return self.rng.choice(found) if found else None


def is_rank(process: psutil.Process) -> bool:
    return named(process).startswith("rank ")


def is_warm(process: psutil.Process) -> bool:
    return named(process) == "resbench warm"


def is_guard(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return "launch.group.watchdog" in process.cmdline()
    return False


def sends(wanted: Callable[[psutil.Process], bool], number: int) -> Callable[[Target], bool]:
    """A fault that sends a signal to such a process; it tells whether there was one."""

    def inject(target: Target) -> bool:
        process = target.pick(wanted)
        if process is None:
            return False
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
            return True
        return False

    return inject


def to_runner(number: int) -> Callable[[Target], bool]:
    def inject(target: Target) -> bool:
        target.command.process.send_signal(number)
        return True

    return inject


def kill_group(target: Target) -> bool:
    os.killpg(target.command.process.pid, signal.SIGKILL)
    return True


def fill_disk(target: Target) -> bool:
    with open(target.out.parent / "filler", "ab", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"0" * 2**20):
            pass
    return True


def delete_folder(target: Target) -> bool:
    if not target.out.exists():
        return False
    shutil.rmtree(target.out, ignore_errors=True)
    return True


def starve(target: Target) -> bool:
    """One rank of two may have no more memory than it has, but for a little."""
    process = target.pick(lambda process: named(process) == "rank 1")
    if process is None:
        return False
    with contextlib.suppress(psutil.Error, OSError):
        most = process.memory_info().data + 2**20
        process.rlimit(resource.RLIMIT_DATA, (most, most))
        return True
    return False


def flood(target: Target) -> bool:
    """What a rank prints, printed for it."""
    process = target.pick(is_rank)
    if process is None:
        return False
    with contextlib.suppress(OSError), open(f"/proc/{process.pid}/fd/1", "ab", buffering=0) as log:
        for _ in range(FLOOD_BYTES // 2**20):
            log.write(b"x" * (2**20 - 1) + b"\n")
        return True
    return False


KINDS: dict[str, Callable[[Target], bool]] = {
    "kill -9 of a rank": sends(is_rank, signal.SIGKILL),
    "kill -9 of the launcher": sends(is_launcher, signal.SIGKILL),
    "kill -9 of the warm process": sends(is_warm, signal.SIGKILL),
    "kill -9 of the guard": sends(is_guard, signal.SIGKILL),
    "kill -9 of the runner": to_runner(signal.SIGKILL),
    "kill -9 of the runner's group": kill_group,
    "a rank stopped": sends(is_rank, signal.SIGSTOP),
    "the launcher stopped": sends(is_launcher, signal.SIGSTOP),
    "SIGINT": to_runner(signal.SIGINT),
    "SIGTERM": to_runner(signal.SIGTERM),
    "SIGHUP": to_runner(signal.SIGHUP),
    "full disk": fill_disk,
    "folder deleted": delete_folder,
    "a rank out of memory": starve,
    "a rank that prints 200 MiB": flood,
}
# Each of these takes the time limit and the grace that follow it; the short campaign does without.
SLOW = {"a rank stopped", "the launcher stopped"}


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
    commands: int = 0
    deck: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Sweep after sweep, until all faults are spent or time is up."""
        number = 0
        while self.left > 0 and time.monotonic() < self.until:
            number += 1
            self.sweep(self.disk / f"sweep{number}", cold=self.rng.random() < 0.12)

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
        kinds: set[str] = set()
        sessions: set[int] = set()
        self.commands += 1
        with tempfile.TemporaryDirectory() as scratch, Command(words, Path(scratch)) as command:
            target, leftovers = Target(command, out, self.rng), set[str]()
            for _ in range(faults):
                if (kind := self.hit(target, sessions, leftovers)) is not None:
                    kinds.add(kind)
            code = self.end(command, kinds)
            self.check_processes(command, sessions, leftovers, kinds)
            said = command.stderr.read_text()
        (self.disk / "filler").unlink(missing_ok=True)
        if "folder deleted" in kinds:
            before, logs_before = set(), set()
        trials = rows(out, "trials")
        new = [row for row in trials if row["launch_id"] not in before]
        self.note(kinds, "rows lost", lost(before, trials, launches(out) - logs_before, bool(kinds & ROWLESS)))
        self.note(kinds, "rows doubled", doubled(trials))
        self.note(kinds, "damaged files", damaged(out))
        if not fitting(code, kinds, new) or "Traceback" in said:
            self.note(kinds, "wrong exit codes", 1)
            self.tell(f"exit code {code} after {sorted(kinds)}: {said[-2000:]}")
        return code, kinds

    def draw(self) -> str:
        """The next kind: all of them, shuffled, before one comes again."""
        if not self.deck:
            self.deck = self.rng.sample(self.kinds, len(self.kinds))
        return self.deck.pop()

    def hit(self, target: Target, sessions: set[int], leftovers: set[str]) -> str | None:
        """Inject one fault at a random moment; None: there was nothing to hit in time."""
        kind = self.draw()
        moment = time.monotonic() + self.rng.uniform(0.0, 6.0)
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
                "Faults injected at random moments into real sweeps of one process and two, most of them warm, and "
                "what they cost. `make faults` makes this file anew.",
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


@contextlib.contextmanager
def disk() -> Iterator[tuple[Path, list[str]]]:
    """A small file system, and the faults that can be had on it; without root any folder, which is never full."""
    with tempfile.TemporaryDirectory(prefix="campaign-") as folder:
        words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", folder]
        mounted = subprocess.run(words, capture_output=True, check=False).returncode == 0
        try:
            yield Path(folder), [kind for kind in KINDS if mounted or kind != "full disk"]
        finally:
            if mounted:
                subprocess.run(["umount", "-l", folder], check=True)


def main() -> None:
    """Run the campaign and print its table. Exit code 1: something was lost, doubled, left or wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no sweep later than this")
    parser.add_argument("--out", type=Path, help="file for the table; default: the terminal alone")
    chosen = parser.parse_args()
    os.environ.setdefault("ACCELERATE_USE_CPU", "true")
    console, began = Console(stderr=True, markup=False, highlight=False), time.monotonic()
    with disk() as (folder, kinds):
        until = began + 60 * chosen.minutes
        campaign = Campaign(random.Random(chosen.seed), chosen.faults, folder, kinds, console.print, until=until)
        campaign.run()
    text = campaign.table(chosen.seed, time.monotonic() - began)
    print(text)
    if chosen.out:
        chosen.out.write_text(text)
    sys.exit(1 if campaign.problems else 0)


if __name__ == "__main__":
    main()
