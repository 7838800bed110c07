"""One sentence on arms whose effective batch grows with --processes, but not their learning rate. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from bench import experiments
from bench.trial import Trial

# With one of them the user has chosen a batch, or the learning rate for it.
CHOSEN = {"micro_batch", "accumulate", "lr", "lr_batch"}
MOST_NAMED = 4  # effective batches: more are counted


def note(trials: Sequence[Trial], given: Collection[str], preset: str | None) -> str | None:
    """The sentence; None: --processes changes no effective batch, or the learning rate follows it.

    `given`: the options of the command line and the study.
    """
    if "processes" not in given or CHOSEN & {*given}:
        return None
    own = {trial: own_batch(trial, preset) for trial in trials if not trial.lr_batch}
    changed = [trial for trial, batch in own.items() if trial.effective_batch() != batch]
    if not changed:
        return None
    counts = sorted({trial.processes for trial in changed})
    arms = dict.fromkeys(f"{trial.effective_batch()} ({trial.arm}), not {own[trial]}" for trial in changed)
    named, more = list(arms)[:MOST_NAMED], len(arms) - MOST_NAMED
    several = "effective batches are" if len(arms) > 1 else "effective batch is"
    said = f"with --processes {','.join(map(str, counts))} the {several} {', '.join(named)}"
    said += f", and {more} more" if more > 0 else ""
    said += "; the learning rate is unchanged"
    first = changed[0]
    kept, rest = divmod(first.micro_batch * own[first], first.effective_batch())
    if len({(trial.micro_batch, trial.processes) for trial in changed}) > 1:
        return f"{said}; a smaller --micro-batch keeps the effective batch"
    return f"{said}; --micro-batch {kept} keeps the effective batch" if kept and not rest else said


def own_batch(trial: Trial, preset: str | None) -> int:
    """The effective batch of the trial's arm without options."""
    name = trial.experiment_file or trial.experiment
    return experiments.of(trial).trial(name, trial.arm, preset or "full").effective_batch()
