"""Evaluate a trained checkpoint, class by class, on its own evaluation set or another with the same classes.

usage: python -m launch evaluate CHECKPOINT [--evaluate-on cifar10|digits|voc] [--model NAME] [--limit-eval N]
                  [--data-root FOLDER] [--out RUN_FOLDER]
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.console import Console
from tyro.conf import Positional

from bench import options
from bench.errors import UsageError
from bench.machine import environment
from bench.record.csvfile import write_whole
from bench.record.run_folder import RunFolder
from bench.terminal import WINDOW, Grid, print_grid
from bench.variables import new_id
from models.names import OWN

OWN_HELP = True  # tyro lists the options below
PROG = "python -m launch evaluate"


@dataclass(frozen=True)
class EvaluateOptions:
    """What to evaluate, and on what."""

    checkpoint: Annotated[Path, Positional]
    """A file of RUN/checkpoints, or a state dict."""
    evaluate_on: Literal["cifar10", "digits", "voc"] | None = None
    """The data set whose evaluation images are taken; None: the one that was trained on."""
    model: str | None = None
    """Architecture of a file that does not name it, such as resnet20; of a trial with a model or data of your own, the
    experiment's file, which is run."""
    limit_eval: int | None = None
    """Evaluate on this many images only, the classes kept in balance."""
    data_root: Path = Path("data")
    """Folder of downloaded data sets."""
    out: Path = Path("runs/evaluated")
    """Run folder for per_class.csv; rows are added to an existing one."""


def run(words: Sequence[str]) -> None:
    """Evaluate, print a line for each class and add them to per_class.csv."""
    summary = (__doc__ or "").partition("\n")[0]
    evaluate_options: EvaluateOptions = options.parse(EvaluateOptions(Path()), words, PROG, summary)
    if evaluate_options.checkpoint == Path():
        raise UsageError(f"evaluate needs a checkpoint first, such as RUN/checkpoints/KEY-0.pt; see {PROG} --help")
    from bench.training import checkpoint, checkpoint_evaluation, evaluation  # imports torch
    from models import weights

    # A bare state dict does not say what it was trained on. CIFAR-10 is assumed, unless it is evaluated on digits,
    # whose classes no other data set has.
    digits = "digits" if evaluate_options.evaluate_on == "digits" else None
    trained, model = checkpoint.load_model(evaluate_options.checkpoint, evaluate_options.model, digits)
    trial = checkpoint_evaluation.trial_to_evaluate(trained, evaluate_options.evaluate_on, evaluate_options.limit_eval)
    folder = RunFolder(evaluate_options.out)
    folder.prepare()
    images = checkpoint_evaluation.load_images(trial, evaluate_options.data_root)
    outputs = images.classes if trial.model == OWN else weights.head_classes(model.state_dict())
    if outputs != images.classes:
        raise UsageError(f"{evaluate_options.checkpoint} has {outputs} classes, but the data has {images.classes}")
    result, how = checkpoint_evaluation.evaluate_model(trial, model, images)
    if (accuracy := result.accuracy()) is None:
        raise UsageError(
            f"{evaluate_options.checkpoint} has no accuracy in {how['precision']}: its loss is {result.loss}; "
            f"evaluate an earlier checkpoint, or one of a trial in float32"
        )
    part = "evaluation" if trial.evaluate_on == "none" else "evaluate_on"
    rows = evaluation.per_class({part: result}, trial, images.names)
    launch_id = new_id()
    facts = {"checkpoint": str(evaluate_options.checkpoint), "model": trial.model, "data": rows[0]["data"], **how}
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
