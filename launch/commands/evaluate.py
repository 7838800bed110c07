"""`python -m launch evaluate`: a trained checkpoint on an evaluation set, class by class."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from bench import options
from bench.errors import UsageError
from bench.machine import environment
from bench.record.csvfile import write_whole
from bench.record.run_folder import RunFolder
from bench.trial import Trial

if TYPE_CHECKING:
    from torch import nn

    from bench.data.dataset import DataSet
    from bench.data.pipeline import Batch, Passes
    from bench.training.loop import Evaluation

PROG = "python -m launch evaluate"


@dataclass(frozen=True)
class Asked:
    """What to evaluate, and on what."""

    checkpoint: Annotated[Path, Positional]
    """A file of RUN/checkpoints, or a state dict."""
    evaluate_on: Literal["cifar10", "digits", "voc"] | None = None
    """The data set whose evaluation images are taken; None: the one that was trained on."""
    model: str | None = None
    """Architecture of a file that does not say it, such as resnet20."""
    limit_eval: int | None = None
    """Evaluate on this many images only, the classes kept in balance."""
    data_root: Path = Path("data")
    """Folder of downloaded data sets."""
    out: Path = Path("runs/evaluated")
    """Run folder for per_class.csv; an existing one is added to."""


def run(words: Sequence[str]) -> int:
    """Evaluate, print a line for each class and add them to per_class.csv. UsageError: it cannot be done."""
    asked: Asked = options.parse(Asked(Path()), words, PROG, "Evaluate a trained checkpoint, class by class.")
    if asked.checkpoint == Path():
        raise UsageError(f"evaluate needs a checkpoint first, such as RUN/checkpoints/KEY-0.pt; see {PROG} --help")
    from bench.training import checkpoint, evaluation
    from models import weights

    # Of the images that a bare state dict was trained on, only digits can be told by what it is evaluated on.
    digits = "digits" if asked.evaluate_on == "digits" else None
    trained, model = checkpoint.load_model(asked.checkpoint, asked.model, digits)
    trial = evaluated(trained, asked)
    folder = RunFolder(asked.out)
    folder.prepare()
    found = images(trial, asked.data_root)
    told = weights.head_classes(model.state_dict())
    if told != found.classes:
        raise UsageError(f"{asked.checkpoint} tells {told} classes apart, but there are {found.classes} in the data")
    result, how = measured(trial, model, found)
    part = "evaluation" if trial.evaluate_on == "none" else "evaluate_on"
    rows = evaluation.per_class({part: result}, trial, found.names)
    launch_id = options.new_id()
    facts = {"checkpoint": str(asked.checkpoint), "model": trial.model, "data": rows[0]["data"], **how}
    facts |= {"images": result.images(), "accuracy": result.accuracy(), "loss": result.loss, **environment.machine()}
    folder.append("per_class", [{"launch_id": launch_id, **row} for row in rows])
    write_whole(folder.logs() / f"{launch_id}.json", json.dumps(facts, indent=1) + "\n")
    show(rows)
    print("{model} on {data} at {image_size} pixels in {precision} on {device}: ".format(**facts), end="")
    print(f"{100 * result.accuracy():.2f}% of {result.images()} images; loss {result.loss:.4f}")
    print(f"{folder.path / 'per_class.csv'} has it as launch {launch_id}, of which logs/{launch_id}.json says more")
    return 0


def measured(trial: Trial, model: nn.Module, found: DataSet) -> tuple[Evaluation, dict[str, Any]]:
    """(how the model does on the evaluation images, how that was computed).

    In the trial's precision, as training evaluates; on a CPU fp16's is float32.
    """
    import torch

    from bench.data.pipeline import InputPipeline
    from bench.machine import backends
    from bench.machine.devices import uses_cuda
    from bench.training.build import DTYPES, place
    from bench.training.loop import evaluate

    device = torch.device("cuda" if uses_cuda() else "cpu")
    dtype = None if trial.precision == "fp16" and device.type == "cpu" else DTYPES.get(trial.precision)
    if device.type == "cuda":
        backends.apply(trial)
    model = place(model, trial, device)
    if dtype is not None:
        model.forward = torch.autocast(device.type, dtype)(model.forward)
    feed = InputPipeline(dataclasses.replace(trial, pipeline="resident"), found, device)

    def batches(passes: Passes) -> Iterator[Batch]:
        return feed.evaluate(passes, found.evaluation)  # where the trial's own are random images too

    count = len(found.evaluation)
    result = evaluate(model, batches, count, trial.evaluation_batch(), 0, 1, lambda sums: sums, found.classes)
    precision = "fp32" if dtype is None else trial.precision
    return result, {"image_size": trial.image_size, "precision": precision, "device": device.type}


def evaluated(trained: Trial, asked: Asked) -> Trial:
    """The trial, with what it is to be evaluated on. UsageError: that has other classes."""
    changes: dict[str, Any] = {"evaluate_on": "none"}
    if asked.limit_eval is not None:
        changes["limit_eval"] = asked.limit_eval
    if asked.evaluate_on not in (None, trained.data):
        changes["evaluate_on"] = asked.evaluate_on
    elif trained.data == "synthetic":
        raise UsageError("the checkpoint was trained on random images; give --evaluate-on cifar10, digits or voc")
    return dataclasses.replace(trained, **changes)


def images(trial: Trial, root: Path) -> DataSet:
    """The evaluation images, to be normalised as those that were trained on, which are not looked at."""
    from bench.data import datasets

    other = trial.evaluate_on != "none"
    own: dict[str, Any] = {"data": trial.evaluate_on} if other else {}
    found = datasets.load(dataclasses.replace(trial, **own, evaluate_on="none", validation=0.0, limit_train=1), root)
    if not other or datasets.IMAGENET_MODEL.fullmatch(trial.model):
        return found
    mean, std = datasets.STATISTICS[trial.data]
    return dataclasses.replace(found, mean=mean, std=std)


def show(rows: Sequence[dict[str, Any]]) -> None:
    """A line for each class: its accuracy, and what its images were most often taken for instead."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("class", "images", "accuracy %", "most often taken for"):
        table.add_column(column, justify="right" if column in ("images", "accuracy %") else "left", no_wrap=True)
    for row in rows:
        if not row["images"]:
            continue
        others = {label: count for label, count in enumerate(row["predicted"]) if label != row["label"]}
        label = max(others, key=lambda each: others[each])
        mistaken = f"{rows[label]['class_name']} ({others[label]})" if others[label] else ""
        table.add_row(str(row["class_name"]), str(row["images"]), f"{100 * row['accuracy']:.1f}", mistaken)
    Console().print(table)
