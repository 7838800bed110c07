"""How much faster is a head on a frozen ResNet-152 trained if the backbone is computed once? Whole trainings, in turns.

    python -m tests.perf.features [--images 640] [--image-size 224] [--rounds 3]

Five epochs, with a test after each: the loop of the source in fp32, whose backbone is in training mode; ours with the
backbone in evaluation mode, in bf16; and the same with features that are computed once. Each round has another seed.
Images are handwritten digits, mirrored by chance, a sixth of them to test on. Weights are random, with the running
statistics of these images: pretrained ones would have to be downloaded, and change no time.

Each contender is a process of its own. They take turns at equal shares of their own work, in an order drawn by chance,
so that all span the same time. A contender's time is the sum of its turns: all but building model and data.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn
from torch.utils.data import DataLoader

from bench import experiments
from bench.data import datasets
from bench.data.dataset import DataSet, Split
from bench.data.pipeline import InputPipeline
from bench.features.compute import compute
from bench.features.pipeline import FeaturePipeline
from bench.instruments.turns import Turns, TurnsEnded
from bench.machine import environment, malloc
from bench.training import evaluation, setup
from bench.training.build import model_for
from bench.training.group import Group
from bench.training.loop import train_epoch
from bench.training.meter import Meter
from bench.training.windows import epoch_windows
from bench.trial import Trial
from bench.worker import all_probes

from . import contenders, speed
from .contenders import CLASSES, Contender, Pictures, device_for, seconds_on, sgd_for
from .contenders import statistics as channels

TURNS = 5
OnBatch = Callable[[], None]
"""Called after each batch that has gone through the backbone."""
Train = Callable[[], float]
"""Trains to the end. Returns the accuracy of the last test."""


@dataclass(frozen=True)
class Result:
    """What a training took, without the turns of others; its last accuracy; batches that went through the backbone."""

    seconds: float
    accuracy: float
    batches: int


def digits(trial: Trial, images: int) -> DataSet:
    """So many handwritten digits in colour, the classes in balance, a sixth of them to test on."""
    found = datasets.load(Trial(data="digits", limit_train=images - images // 6, limit_eval=images // 6), Path())
    mean, std = channels(trial)
    return DataSet(found.train, found.evaluation, CLASSES, mean, std)


def random_weights(trial: Trial, data: DataSet, path: Path) -> None:
    """Write a state dict of random weights, whose running statistics are those of a batch of these images."""
    model = model_for(dataclasses.replace(trial, weights="none"), CLASSES)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            module.train()
    feed = InputPipeline(dataclasses.replace(trial, pipeline="resident"), data, torch.device("cpu"))
    with torch.no_grad():
        model(next(feed.train(0, [(0, min(trial.micro_batch, len(data.train)))]))[0].contiguous())
    torch.save(model.state_dict(), path)


def plain(trial: Trial, data: DataSet, on_batch: OnBatch) -> Train:
    """What the source has: PIL pictures, contiguous, loss and hits read with .item(); a test after each epoch."""
    from torchvision import transforms

    device = device_for()
    model, criterion = model_for(trial, CLASSES).to(device), nn.CrossEntropyLoss()
    model.register_forward_hook(lambda *_: on_batch())
    optimizer = sgd_for(trial, model)
    finish = [transforms.Resize(trial.image_size), transforms.ToTensor(), transforms.Normalize(*channels(trial))]

    def loader(split: Split, trains: bool) -> DataLoader:
        flip = [transforms.RandomHorizontalFlip()] if trains else []
        pictures = Pictures(split, transforms.Compose([*flip, *finish]))
        return DataLoader(pictures, batch_size=trial.micro_batch, shuffle=trains)

    def train() -> float:
        hits = 0
        for _ in range(trial.epochs):
            model.train()
            loss_sum = 0.0
            for pictures, labels in loader(data.train, trains=True):
                optimizer.zero_grad()
                loss = criterion(model(pictures.to(device)), labels.to(device))
                loss.backward()
                optimizer.step()
                loss_sum += loss.item()
            model.eval()
            hits = 0
            with torch.no_grad():
                for pictures, labels in loader(data.evaluation, trains=False):
                    hits += int((model(pictures.to(device)).argmax(1) == labels.to(device)).sum().item())
        return hits / len(data.evaluation)

    return train


def ours(trial: Trial, data: DataSet, on_batch: OnBatch) -> Train:
    """The suite's training, set up as its worker does, with its probes and its test after each epoch."""
    malloc.keep_freed_memory()
    group = Group(trial)
    training = setup.training(trial, group, model_for, CLASSES)
    training.module.register_forward_hook(lambda *_: on_batch())
    feed = (FeaturePipeline if trial.features == "once" else InputPipeline)(trial, data, group.device)
    windows = list(epoch_windows(len(data.train), trial.micro_batch, 1, 1, 0))

    def train() -> float:
        if isinstance(feed, FeaturePipeline):
            compute(trial, feed, training, group, Path(tempfile.gettempdir()))
        meter = Meter(all_probes(), group.gather, 0, group.device)
        accuracy: float | None = None
        with contextlib.closing(meter):
            for epoch in range(trial.epochs):
                batches = feed.train(epoch, [a_pass for window in windows for a_pass in window.passes])
                train_epoch(training, windows, batches, meter, lambda _: trial.lr, lambda rows: None)
                accuracy = evaluation.after_epoch(trial, training.part, feed, group, epoch)["evaluation"].accuracy()
        feed.confirm()
        assert accuracy is not None
        return accuracy

    return train


def batches_of(trial: Trial, data: DataSet) -> int:
    """How many batches go through the backbone in the whole training."""
    train, test, batch = len(data.train), len(data.evaluation), trial.micro_batch
    if trial.features == "once":
        return -(-2 * train // batch) + -(-test // batch)
    return trial.epochs * (-(-train // batch) + -(-test // batch))


class Clock:
    """Adds up the time of a training's own turns: it hands over TURNS - 1 times, after equal numbers of batches."""

    def __init__(self, batches: int, hand_over: Callable[[float], None]) -> None:
        self.ends = {round(batches * turn / TURNS) for turn in range(1, TURNS)}
        self.device, self.hand_over = device_for(), hand_over
        self.spent, self.done = 0.0, 0

    def start(self) -> None:
        """The turn begins."""
        self.began = seconds_on(self.device)

    def stop(self) -> float:
        """The turn is over. Returns what all have taken."""
        self.spent += seconds_on(self.device) - self.began
        return self.spent

    def on_batch(self) -> None:
        """An OnBatch."""
        self.done += 1
        if self.done in self.ends:
            self.hand_over(self.stop() / self.done)
            self.start()


def timed(contender: Contender, data: DataSet, begin: Callable[[], None], hand_over: Callable[[float], None]) -> Result:
    """Set up, wait for the first turn, and train to the end."""
    loop: Callable[[Trial, DataSet, OnBatch], Train] = globals()[contender.loop]
    clock = Clock(batches_of(contender.trial, data), hand_over)
    train = loop(contender.trial, data, clock.on_batch)
    begin()
    clock.start()
    accuracy = train()
    return Result(clock.stop(), accuracy, clock.done)


def compete(results: Connection, address: str, contender: Contender, images: int, turns: int) -> None:
    """In the contender's process: train in turns, and send the result."""
    torch.manual_seed(contender.trial.seed)
    torch.set_num_threads(environment.cpu_count())
    data = digits(contender.trial, images)
    with contextlib.suppress(TurnsEnded):
        order = Turns(address)
        result = timed(contender, data, lambda: order.begin(contender.name, "a race"), order.hand_over)
        order.leave()
        results.send(result)


def race(weights: Path, **changes: Any) -> list[Contender]:
    """The contenders, at the settings of the experiment."""

    def trial(arm: str, **more: Any) -> Trial:
        base = experiments.load("resnet152_frozen").trial("resnet152_frozen", arm)
        return dataclasses.replace(base, weights=str(weights), **{**more, **changes})

    trials = (
        trial("as_published", memory_format="contiguous"),
        trial("bn_eval", precision="bf16"),
        trial("features_once", precision="bf16"),
    )
    loops = ("plain", "ours", "ours")
    return [Contender(*each) for each in zip(NAMES, loops, trials, strict=True)]


NAMES = PLAIN, BN_EVAL, ONCE = "plain fp32", "ours bn_eval bf16", "ours features_once bf16"
TARGETS = {PLAIN: 12.0, BN_EVAL: 2.4}


def rows_of(rounds: Sequence[Mapping[str, Result]]) -> list[speed.Row]:
    """How many times as long each of the others took as features_once, round by round."""
    rows = []
    for name, target in TARGETS.items():
        ratios = [found[name].seconds / found[ONCE].seconds for found in rounds]
        middle, what = statistics.median(ratios), f"features_once / {name}, five epochs and tests"
        met = middle >= target
        rows.append(speed.Row("features", what, middle, min(ratios), max(ratios), f">= {target:g}", met, "rounds"))
    return rows


def main() -> None:
    """Race and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.perf.features", description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=640, help="images, a sixth of them to test on (default: 640)")
    parser.add_argument("--image-size", type=int, default=224, help="their side in pixels (default: 224)")
    parser.add_argument("--rounds", type=int, default=3, help="starts of each contender, seeds from 0 on (default: 3)")
    chosen = parser.parse_args()
    console, bystanders = Console(stderr=True), speed.Bystanders()
    torch.set_num_threads(environment.cpu_count())
    with tempfile.TemporaryDirectory() as folder:
        weights, seeds = Path(folder) / "weights.pt", range(max(1, chosen.rounds))
        races = [race(weights, seed=seed, image_size=chosen.image_size) for seed in seeds]
        random_weights(races[0][0].trial, digits(races[0][0].trial, chosen.images), weights)
        rounds = [contenders.in_turns(each, chosen.images, TURNS, target=compete) for each in races]
    Console(width=None if sys.stdout.isatty() else speed.WIDTH).print(speed.table(rows_of(rounds), bystanders.share()))
    for seed, results in zip(seeds, rounds, strict=True):
        for name, result in results.items():
            times = f"{result.seconds / results[ONCE].seconds:.2f} times as long as {ONCE}"
            console.print(f"seed {seed}, {name}: accuracy {result.accuracy:.3f}, {result.batches} batches, {times}")


if __name__ == "__main__":
    main()
