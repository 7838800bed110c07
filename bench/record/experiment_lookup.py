"""A row's experiment, if this checkout has it: its question, the source's figures, the command that runs it again.

Imports no torch.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from bench import experiments
from bench.experiment import Experiment, Published
from bench.record.csvfile import cell
from bench.trial import Trial, option


def experiment(name: object) -> Experiment | None:
    """The experiment of this name; None if only another checkout has it."""
    return experiments.load(str(name)) if name in experiments.names() else None


def question(name: object) -> str | None:
    """The question that the experiment asks."""
    found = experiment(name)
    return found.question if found else None


def published(name: object, arm: object) -> Published | None:
    """The figures that a source reports for the arm."""
    found = experiment(name)
    return found.published.get(str(arm)) if found else None


def arm_settings(name: object) -> set[str]:
    """The settings in which the experiment's arms differ."""
    found = experiment(name)
    return {setting for changes in found.arms.values() for setting in changes} if found else set()


def command(row: Mapping[str, Any]) -> str | None:
    """The shell command that runs the row's trial again.

    None: this checkout has no such arm, or cells of the row cannot be read, as its "unreadable" says.
    """
    found = experiment(row["experiment"])
    if found is None or row.get("unreadable") or row["arm"] not in found.arms:
        return None
    own = found.trial(str(row["experiment"]), str(row["arm"]))
    words = ["python", "-m", "launch", "run", own.experiment, "--arm", own.arm]
    for name in own.settings():
        text = cell(row.get(name))
        if not text and isinstance(getattr(own, name), bool):  # an older version's row, which has no such setting
            continue
        if name not in ("experiment", "arm", "repeat") and text != own_text(own, name, row):
            words += [option(name), *spelt(text, many=isinstance(getattr(own, name), tuple))]
    return shlex.join(words)


def spelt(text: str, many: bool) -> list[str]:
    """A cell as the words of an option's value."""
    if many:
        return text.split()
    return [text.capitalize() if text in ("true", "false") else text or "None"]


def own_text(own: Trial, name: str, row: Mapping[str, Any]) -> str:
    """An arm's own setting as a cell; of a micro-batch that is shared out, one process's part."""
    value = getattr(own, name)
    shared = name == "micro_batch" and row.get("batch_is_shared") and row.get("processes")
    return cell(value // int(row["processes"]) if shared else value)
