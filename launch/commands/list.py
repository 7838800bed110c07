"""List the experiments, their questions and arms."""

from __future__ import annotations

import argparse

from rich.console import Console

from bench import experiments
from bench.arguments import Parser
from bench.experiment import Experiment, Published
from bench.terminal import paragraph

GROUP = "Run experiments"
FIGURES = {
    "train_accuracy": "train",
    "validation_accuracy": "validation",
    "eval_accuracy": "test",
    "evaluate_on_accuracy": "other data",
}


def arguments(parser: Parser) -> None:
    parser.add_argument(
        "--markdown",
        action="store_true",
        help="as a Markdown table: also each experiment's source, the figures that it reports, and its mistakes",
    )


def run(options: argparse.Namespace) -> None:
    """Print the experiments."""
    if options.markdown:
        print(markdown(), end="")
        return
    console = Console()
    for name in experiments.names():
        experiment = experiments.load(name)
        paragraph(console, name)
        paragraph(console, experiment.question, "  ")
        paragraph(console, f"arms: {', '.join(experiment.arms)}\n", "  ")


def markdown() -> str:
    """A row for each experiment: question, source, its figures, its mistakes, command."""
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
    return "; ".join(f"{arm} {figures(of_arm)}" for arm, of_arm in experiment.published.items())


def figures(reported: Published) -> str:
    """The accuracies of one arm: train 83.6%, test 84.3%."""
    values = ((label, getattr(reported, name)) for name, label in FIGURES.items())
    return ", ".join(f"{label} {100 * value:.4g}%" for label, value in values if value is not None)
