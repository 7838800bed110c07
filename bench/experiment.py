"""Experiment: one question, its arms, and the figures that its source published."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import UsageError
from bench.trial import Trial
from models.nearest import perhaps

PRESETS = ("full", "mini")
MINI = {"data": "digits", "precision": "bf16"}  # of every preset mini: no download, and faster on a CPU


@dataclass(frozen=True)
class Published:
    """The figures that a source reports for an arm: after its last epoch, and by epoch from the first.

    Accuracies are fractions; None or empty: not reported. `unlike`: why ours cannot be compared with them even at the
    arm's own settings, as the end of a sentence that begins with "here".
    """

    train_accuracy: float | None = None
    eval_accuracy: float | None = None
    validation_accuracy: float | None = None
    evaluate_on_accuracy: float | None = None
    epoch_time_s: float | None = None
    where: str = ""
    unlike: str = ""
    train_accuracies: tuple[float, ...] = ()
    eval_accuracies: tuple[float, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """One question: its arms as changes to a base trial, and what the source reports for them.

    `shared_batch`: arms whose micro-batch is divided among the processes.
    `mini`: changes besides MINI that make the base small, for the preset that runs in minutes on two CPUs. An arm's own
    changes still apply, and after them those of `mini_arms`.
    `source`: where the question comes from. `faults`: what is wrong with the source's figures.
    """

    question: str
    base: Trial
    arms: dict[str, dict[str, Any]]
    published: dict[str, Published] = field(default_factory=dict)
    shared_batch: tuple[str, ...] = ()
    mini: dict[str, Any] = field(default_factory=dict)
    mini_arms: dict[str, dict[str, Any]] = field(default_factory=dict)
    source: str = ""
    faults: str = ""

    def trial(self, name: str, arm: str, preset: str = "full") -> Trial:
        """The arm's trial in the preset "full" or "mini". `name`: the experiment's, or the path of its file.

        Raises UsageError if there is no such arm or preset.
        """
        if arm not in self.arms:
            raise UsageError(f"no arm {arm!r} in {name}{perhaps(arm, self.arms)}; choose from: {', '.join(self.arms)}")
        if preset not in PRESETS:
            raise UsageError(f"no preset {preset!r}{perhaps(preset, PRESETS)}; choose from: {', '.join(PRESETS)}")
        mini, mini_arm = (MINI | self.mini, self.mini_arms.get(arm, {})) if preset == "mini" else ({}, {})
        changes = {**mini, **self.arms[arm], **mini_arm}
        return dataclasses.replace(self.base, **{"experiment": Path(name).stem, "arm": arm, **changes})

    def shared_out(self, trial: Trial) -> Trial:
        """The trial with its micro-batch divided among the processes, if its arm is one of `shared_batch`.

        Raises UsageError if the processes cannot share it evenly.
        """
        if trial.arm not in self.shared_batch:
            return trial
        if trial.micro_batch % trial.processes:
            raise UsageError(
                f"--processes is {trial.processes}, which cannot share the {trial.micro_batch} images of {trial.arm} "
                f"evenly; give a divisor of {trial.micro_batch}, or each process's --micro-batch"
            )
        return dataclasses.replace(trial, micro_batch=trial.micro_batch // trial.processes)


# Settings that a published accuracy does not depend on: they change speed or memory, or repeat the training.
FREE = {"repeat", "pipeline", "workers", "seed", "processes", "machines", "precision", "memory_format", "compile"}
FREE |= {"tf32", "cudnn_benchmark", "warmup_windows", "micro_batch", "accumulate", "eval_batch", "memory_limit_bytes"}
FREE |= {"bucket_mib", "target_accuracy", "checkpoint_activations", "features"}


def departures(trial: Trial, published: Trial) -> str:
    """How the trial differs from the published settings, such as "lr=0.2, epochs=5"; empty: comparable.

    Of the batch, only its effective size counts.
    """
    ours, theirs = trial.settings(), published.settings()
    changed = [f"{name}={_plain(name, ours[name])}" for name in ours if name not in FREE and ours[name] != theirs[name]]
    if trial.effective_batch() != published.effective_batch():
        changed.append(f"effective_batch={trial.effective_batch()}")
    return ", ".join(changed)


def _plain(name: str, value: Any) -> str:
    text = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return Path(text).name if name == "weights" else text  # a path; a model's name may have a slash too
