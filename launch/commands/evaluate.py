"""Evaluate a trained checkpoint, class by class.

On its own evaluation set, or on another with the same classes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.arguments import Parser, given_folder
from bench.entry import imports_that_stay
from bench.errors import UsageError
from bench.machine import environment
from bench.record.csvfile import write_whole
from bench.record.run_folder import RunFolder
from bench.terminal import WINDOW, Grid, print_grid
from bench.variables import new_id
from models.names import OWN

GROUP = "Run experiments"
EXAMPLES = ("runs/mine/checkpoints/KEY-0.pt --evaluate-on voc",)


def arguments(parser: Parser) -> None:
    parser.add_argument(
        "checkpoint", type=Path, metavar="CHECKPOINT", help="a file of RUN/checkpoints, or a state dict"
    )
    what = parser.add_argument_group("what is evaluated")
    what.add_argument(
        "--evaluate-on",
        choices=("cifar10", "digits", "voc"),
        help="the data set whose evaluation images are taken (default: the one that was trained on)",
    )
    what.add_argument(
        "--model",
        metavar="NAME",
        help="architecture of a file that does not name it, such as resnet20; of a trial with a model or data of your "
        "own, the experiment's file, which is run (default: what the file says)",
    )
    what.add_argument(
        "--limit-eval",
        type=int,
        metavar="N",
        help="evaluate on this many images only, the classes kept in balance (default: all)",
    )
    folders = parser.add_argument_group("folders")
    folders.add_argument(
        "--data-root",
        type=given_folder,
        default=Path("data"),
        metavar="FOLDER",
        help="folder of downloaded data sets (default: %(default)s)",
    )
    folders.add_argument(
        "--out",
        type=given_folder,
        default=Path("runs/evaluated"),
        metavar="FOLDER",
        help="run folder for per_class.csv; rows are added to an existing one (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> None:
    """Evaluate, print a line for each class and add them to per_class.csv."""
    with imports_that_stay():
        from bench.training import checkpoint, checkpoint_evaluation, evaluation  # imports torch
        from models import weights

    # A bare state dict does not say what it was trained on. CIFAR-10 is assumed, unless it is evaluated on digits,
    # whose classes no other data set has.
    digits = "digits" if options.evaluate_on == "digits" else None
    trained, model = checkpoint.load_model(options.checkpoint, options.model, digits)
    trial = checkpoint_evaluation.trial_to_evaluate(trained, options.evaluate_on, options.limit_eval)
    folder = RunFolder(options.out)
    folder.prepare()
    images = checkpoint_evaluation.load_images(trial, options.data_root)
    outputs = images.classes if trial.model == OWN else weights.head_classes(model.state_dict())
    if outputs != images.classes:
        raise UsageError(f"{options.checkpoint} has {outputs} classes, but the data has {images.classes}")
    result, how = checkpoint_evaluation.evaluate_model(trial, model, images)
    if (accuracy := result.accuracy()) is None:
        raise UsageError(
            f"{options.checkpoint} has no accuracy in {how['precision']}: its loss is {result.loss}; "
            f"evaluate an earlier checkpoint, or one of a trial in float32"
        )
    part = "evaluation" if trial.evaluate_on == "none" else "evaluate_on"
    rows = evaluation.per_class({part: result}, trial, images.names)
    launch_id = new_id()
    facts = {"checkpoint": str(options.checkpoint), "model": trial.model, "data": rows[0]["data"], **how}
    facts |= {"images": result.images(), "accuracy": accuracy, "loss": result.loss, **environment.machine()}
    folder.append("per_class", [{"launch_id": launch_id, **row} for row in rows])
    write_whole(folder.logs() / f"{launch_id}.json", json.dumps(facts, indent=1) + "\n")
    show(rows)
    print("{model} on {data} at {image_size} pixels in {precision} on {device}: ".format(**facts), end="")
    print(f"{100 * accuracy:.2f}% of {result.images()} images; loss {result.loss:.4f}")
    print(f"written to {folder.path / 'per_class.csv'} as launch {launch_id}; details in logs/{launch_id}.json")


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print a line for each class: its accuracy, and the class that its images were most often mistaken for."""
    lines = []
    for row in rows:
        if not row["images"]:
            continue
        others = {label: count for label, count in enumerate(row["predicted"]) if label != row["label"]}
        label = max(others, key=lambda each: others[each])
        mistaken = f"{rows[label]['class_name']} ({others[label]})" if others[label] else ""
        lines.append([str(row["class_name"]), str(row["images"]), f"{100 * row['accuracy']:.1f}", mistaken])
    words = "most often mistaken for"
    print_grid(Console(), Grid(("class", "images", "accuracy %", words), lines, left=(words,)), more=WINDOW)
