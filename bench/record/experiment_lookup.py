"""A row's experiment, if this checkout has it: its question, the source's figures, the command that runs it again.

Imports no torch.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from bench import experiments
from bench.called import as_called
from bench.experiment import Experiment, Published
from bench.record.csvfile import cell
from bench.trial import FIXED, Trial, option


def experiment(row: Mapping[str, Any]) -> Experiment | None:
    """The row's experiment; None if only another checkout has it, or a file of the user's own.

    That file is not loaded: rows may be another user's, and to look at them must not run what they name.
    """
    name = row.get("experiment")
    return experiments.load(str(name)) if name in experiments.names() and not told(row, "experiment_hash") else None


def told(row: Mapping[str, Any], name: str) -> str:
    """The text in this cell, "" if there is none."""
    value = row.get(name)
    return value if isinstance(value, str) else ""


def question(row: Mapping[str, Any]) -> str | None:
    """The question that the row's experiment asks."""
    found = experiment(row)
    return found.question if found else told(row, "question") or None


def published(row: Mapping[str, Any]) -> Published | None:
    """The figures that a source reports for the row's arm."""
    found = experiment(row)
    return found.published.get(str(row.get("arm"))) if found else None


def arm_settings(row: Mapping[str, Any]) -> set[str]:
    """The settings in which the arms of the row's experiment differ."""
    found = experiment(row)
    return changed(found) if found else set(told(row, "arm_settings").split())


def changed(experiment: Experiment) -> set[str]:
    """The settings in which the experiment's arms differ."""
    return {setting for changes in experiment.arms.values() for setting in changes}


def command(row: Mapping[str, Any]) -> str | None:
    """The shell command that runs the row's trial again.

    None: this checkout has no such arm, or cells of the row cannot be read, as its "unreadable" says.
    """
    found = experiment(row)
    if found is None or row.get("unreadable") or row["arm"] not in found.arms:
        return None
    own = found.trial(str(row["experiment"]), str(row["arm"]))
    words = [own.experiment, "--arm", own.arm]
    for name in own.settings():
        text = cell(row.get(name))
        if not text and isinstance(getattr(own, name), bool):  # an older version's row, which has no such setting
            continue
        if name not in (*FIXED, "arm", "repeat") and text != own_text(own, name, row):
            words += [option(name), *spelt(text, many=isinstance(getattr(own, name), tuple))]
    return as_called(f"python -m launch run {shlex.join(words)}")


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
