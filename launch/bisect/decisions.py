"""What a bisect has decided so far: a file in its folder, written whole after each decision, from which it goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import UsageError
from bench.record.csvfile import write_whole
from bench.record.run_folder import RunFolder
from bench.variables import new_id
from launch.group import folder_lock

FILE = "bisect.json"


@dataclass(frozen=True)
class Decision:
    """What was found of one commit. `word`: good, bad or skip, as `git bisect` has them."""

    commit: str
    word: str
    why: str


@dataclass
class Log:
    """The decisions of one task, in their order, and the comparisons of two commits that they rest on."""

    path: Path
    task: dict[str, Any]
    decisions: dict[str, Decision] = field(default_factory=dict)
    comparisons: dict[str, Any] = field(default_factory=dict)

    def add(self, decision: Decision) -> None:
        """Keep a decision."""
        self.decisions[decision.commit] = decision
        self.write()

    def write(self) -> None:
        """Write the file. Raises UsageError if that fails."""
        decisions = [dataclasses.asdict(each) for each in self.decisions.values()]
        found = {"task": self.task, "comparisons": self.comparisons, "decisions": decisions}
        write_whole(self.path, json.dumps(found, indent=1) + "\n")


@contextlib.contextmanager
def open_log(folder: Path, task: dict[str, Any]) -> Iterator[Log]:
    """The log in this folder, which nobody else bisects in meanwhile; a new one if there is none.

    Raises UsageError if the folder has another task's log, or something else.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write to --out {folder}: {error.strerror}; choose another folder") from error
    path = folder / FILE
    if not path.exists() and any(not each.name.startswith(".") for each in folder.iterdir()):
        raise UsageError(f"{folder} is there already and has no {FILE}; choose another --out, or remove it")
    with folder_lock.claim(RunFolder(folder), new_id()):
        yield read(path, task) if path.exists() else Log(path, task)


def read(path: Path, task: dict[str, Any]) -> Log:
    """The log in this file. Raises UsageError if it is another task's, or none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        was, comparisons = dict(found["task"]), dict(found["comparisons"])
        decisions = [Decision(**each) for each in found["decisions"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no log of a bisect ({error}); choose another --out, or remove it") from error
    for name in sorted(was.keys() | task.keys()):
        if (before := was.get(name)) != (now := task.get(name)):
            what = f"{name.replace('_', ' ')} {shown(before)}, not {shown(now)}"
            raise UsageError(f"{path} is of another bisect: {what}; choose another --out, or remove {path.parent}")
    return Log(path, task, {each.commit: each for each in decisions}, comparisons)


def shown(value: Any) -> str:
    """A task's value as a person writes it."""
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
