"""What the experiments of this checkout say of a row: its question, the source's figures, how to run it again.

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
    """The experiment of this name; None: this checkout has none, as for a row of another one."""
    return experiments.load(str(name)) if name in experiments.names() else None


def question(name: object) -> str | None:
    """What the experiment asks."""
    found = experiment(name)
    return found.question if found else None


def published(name: object, arm: object) -> Published | None:
    """What a source reports for the arm."""
    found = experiment(name)
    return found.published.get(str(arm)) if found else None


def arm_settings(name: object) -> set[str]:
    """The settings that the experiment's arms differ in by design."""
    found = experiment(name)
    return {setting for changes in found.arms.values() for setting in changes} if found else set()


def command(row: Mapping[str, Any]) -> str | None:
    """The shell command that runs the row's trial again in this checkout; None: it has no such arm."""
    found = experiment(row["experiment"])
    if found is None or row["arm"] not in found.arms:
        return None
    own = found.trial(str(row["experiment"]), str(row["arm"]))
    words = ["python", "-m", "launch", "run", own.experiment, "--arm", own.arm]
    for name in own.settings():
        text = cell(row.get(name))
        if not text and isinstance(getattr(own, name), bool):  # no such setting then
            continue
        if name not in ("experiment", "arm", "repeat") and text != own_text(own, name, row):
            words += [option(name), *spelt(text, many=isinstance(getattr(own, name), tuple))]
    return shlex.join(words)


def spelt(text: str, many: bool) -> list[str]:
    """A cell as the words that an option takes."""
    if many:
        return text.split()
    return [text.capitalize() if text in ("true", "false") else text or "None"]


def own_text(own: Trial, name: str, row: Mapping[str, Any]) -> str:
    """An arm's own setting as it stands in a row; of a micro-batch that is shared out, a process's part."""
    value = getattr(own, name)
    shared = name == "micro_batch" and row.get("batch_is_shared") and row.get("processes")
    return cell(value // int(row["processes"]) if shared else value)
