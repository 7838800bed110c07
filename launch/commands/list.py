"""All experiments as a Markdown table, as README has it: question, source, its figures, its faults, command."""

from __future__ import annotations

from bench import experiments
from bench.experiment import Experiment, Published

FIGURES = {
    "train_accuracy": "train",
    "validation_accuracy": "validation",
    "eval_accuracy": "test",
    "evaluate_on_accuracy": "other data",
}


def table() -> str:
    """A row for each experiment."""
    lines = [
        "| question | source | published | what the source got wrong | `python -m launch run` |",
        "|" + " --- |" * 5,
    ]
    for name in experiments.names():
        each = experiments.load(name)
        cells = (each.question, each.source or "our own", published(each), each.faults, f"`{name}`")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def published(experiment: Experiment) -> str:
    """The accuracies that the source reports, by arm."""
    return "; ".join(f"{arm} {figures(found)}" for arm, found in experiment.published.items())


def figures(found: Published) -> str:
    """Of one arm: train 83.6%, test 84.3%."""
    known = ((label, getattr(found, name)) for name, label in FIGURES.items())
    return ", ".join(f"{label} {100 * value:.4g}%" for label, value in known if value is not None)
