"""Training loops to race against each other, at the same work: the suite's own, and what users write.

A contender is a Loop: given a Trial and the images in an epoch, it sets itself up and returns a function that trains,
epoch after epoch, and calls back after each window. Each runs in a process of its own, because Accelerate keeps one
precision for a whole process. All follow the trial in model, images, batch, augmentation and precision. They run on the
GPU where there is one, unless ACCELERATE_USE_CPU says otherwise.

They take turns as the sides of a gate do (bench.instruments.turns), and are timed from an idle device to an idle one.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from bench.data import datasets
from bench.data.dataset import DataSet, Split
from bench.data.pipeline import PAD, InputPipeline
from bench.instruments.turns import Turns, TurnsEnded
from bench.machine import environment, malloc
from bench.machine.compiler import compile_model
from bench.training import setup
from bench.training.build import DTYPES, model_for
from bench.training.group import Group
from bench.training.loop import train_epoch
from bench.training.meter import Meter
from bench.training.windows import Window, epoch_windows
from bench.trial import Trial
from bench.worker import all_probes
from launch.gate.referee import referee
from models.names import is_imagenet

CLASSES = 10
SIZE = 32
TURN_S = 0.2  # longer than the gate's: ours reads its probes in each
POLL_S = 0.1
OnWindow = Callable[[], int]
"""Called after each window; returns how many windows the turn has. Raises Enough when it was the last."""
Train = Callable[[OnWindow], None]
Loop = Callable[[Trial, int], Train]


class Enough(Exception):
    """All turns have been taken."""


@dataclass(frozen=True)
class Contender:
    """A loop and its work. `loop` names a function of this file."""

    name: str
    loop: str
    trial: Trial


# The data: random pixels of CIFAR-10's shape, since no loop here is faster on real ones.


def random_split(images: int) -> Split:
    """So many images (N, 3, 32, 32), the same ones in every process."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    return Split(pixels, torch.randint(0, CLASSES, (images,), generator=generator))


def statistics(trial: Trial) -> Any:
    """(mean, standard deviation) of the channels, as bench.data.datasets.load chooses them."""
    return datasets.IMAGENET_STATISTICS if is_imagenet(trial.model) else datasets.CIFAR10_STATISTICS


class Pictures(Dataset):
    """The same images as torchvision's CIFAR10 gives them: one PIL picture at a time, transformed."""

    def __init__(self, split: Split, transform: Callable[[Any], Tensor]) -> None:
        self.pixels, self.labels = split.images.permute(0, 2, 3, 1).numpy(), split.labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def loader_for(trial: Trial, images: int) -> DataLoader:
    """DataLoader over PIL pictures, with its default of no workers, as in the sources."""
    from torchvision import transforms

    crop, flip = trial.augmentation()
    steps: list[Any] = [transforms.Resize(trial.image_size)] if trial.image_size != SIZE else []
    steps += [transforms.RandomCrop(SIZE, padding=PAD)] if crop else []
    steps += [transforms.RandomHorizontalFlip()] if flip else []
    steps += [transforms.ToTensor(), transforms.Normalize(*statistics(trial))]
    pictures = Pictures(random_split(images), transforms.Compose(steps))
    return DataLoader(pictures, batch_size=trial.micro_batch, shuffle=True)


def endless(loader: DataLoader) -> Iterator[tuple[int, Any]]:
    """(number in its epoch, from 1; batch), epoch after epoch."""
    while True:
        yield from enumerate(loader, 1)


def sgd_for(trial: Trial, model: nn.Module) -> torch.optim.Optimizer:
    """SGD with its defaults over what trains."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.SGD(trained, lr=trial.lr, momentum=trial.momentum, weight_decay=trial.weight_decay)


def device_for() -> torch.device:
    """Where the loops run."""
    cuda = torch.cuda.is_available() and not environment.flag("ACCELERATE_USE_CPU")
    return torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")


def seconds_on(device: torch.device) -> float:
    """The host's time, once the device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Pace:
    """An OnWindow that times a training turn by turn. `seconds`: of one window, in each turn.

    Without `turns`, a turn has so many `windows` and follows the last one at once.
    """

    def __init__(self, device: torch.device, wanted: int, turns: Turns | None = None, windows: int = 1) -> None:
        self.device, self.wanted, self.turns, self.windows = device, wanted, turns, windows
        self.seconds: list[float] = []
        self._begin()

    def __call__(self) -> int:
        self.count += 1
        if self.count == self.windows:
            self.seconds.append((seconds_on(self.device) - self.began) / self.count)
            if len(self.seconds) == self.wanted:
                raise Enough
            if self.turns is not None:
                self.turns.hand_over(self.seconds[-1])
                self.windows = self.turns.windows
            self._begin()
        return self.windows

    def _begin(self) -> None:
        self.count, self.began = 0, seconds_on(self.device)


# The loops.


@dataclass
class Ours:
    """The suite's training, set up as its worker does; `meter` measures, and may be exchanged."""

    trial: Trial
    images: int

    def __post_init__(self) -> None:
        split = random_split(self.images)
        found = DataSet(split, split, CLASSES, *statistics(self.trial))
        malloc.keep_freed_memory()
        group = Group(self.trial)
        self.training = setup.training(self.trial, group, model_for, CLASSES)
        self.feed = InputPipeline(self.trial, found, group.device)
        self.meter = Meter(all_probes(), group.gather, 0, group.device)
        self.rank, self.device, self.accelerator = group.rank, group.device, group.accelerator

    def train(self, on_window: OnWindow) -> None:
        """Train, and read the probes in each turn: more often than usual, since a median leaves out what is rare."""
        trial = self.trial
        chosen = list(epoch_windows(self.images, trial.micro_batch, trial.accumulate, 1, 0))
        self.meter.block = 1

        def windows() -> Iterator[Window]:
            for window in chosen:
                yield window  # trained, read and written down when the next one is asked for
                self.meter.block = on_window()

        for number in itertools.count():
            batches = self.feed.train(number, [a_pass for window in chosen for a_pass in window.passes])
            train_epoch(self.training, windows(), batches, self.meter, lambda _: trial.lr, lambda rows: None)


def ours(trial: Trial, images: int) -> Train:
    """bench's own loop with all its probes."""
    return Ours(trial, images).train


def plain(trial: Trial, images: int) -> Train:
    """What the sources have: contiguous, loss and hits read with .item() after every micro-batch; compiled if asked."""
    device = device_for()
    model = model_for(trial, CLASSES).to(device)
    compile_model(model, trial)
    optimizer, criterion = sgd_for(trial, model), nn.CrossEntropyLoss()
    scaler = torch.amp.GradScaler(device.type, enabled=trial.precision == "fp16")

    def casts() -> contextlib.AbstractContextManager[Any]:
        mixed = trial.precision != "no"
        return torch.autocast(device.type, DTYPES[trial.precision]) if mixed else contextlib.nullcontext()

    loader = loader_for(trial, images)

    def train(on_window: OnWindow) -> None:
        model.train()
        loss_sum, hits = 0.0, 0
        for count, (pictures, labels) in endless(loader):
            pictures, labels = pictures.to(device), labels.to(device)
            with casts():
                logits = model(pictures)
                loss = criterion(logits, labels)
            scaler.scale(loss / trial.accumulate).backward()
            if count % trial.accumulate == 0:
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
            loss_sum += loss.item() * len(labels)
            hits += int((logits.argmax(1) == labels).sum().item())
            if count % trial.accumulate == 0:
                on_window()

    return train


def accelerate(trial: Trial, images: int) -> Train:
    """A script as Accelerate's guide has it: prepare() everything, accumulate(), backward()."""
    from accelerate import Accelerator

    accelerator = Accelerator(mixed_precision=trial.precision, gradient_accumulation_steps=trial.accumulate)
    bare = model_for(trial, CLASSES)
    model, optimizer = accelerator.prepare(bare, sgd_for(trial, bare))
    loader = accelerator.prepare(loader_for(trial, images))

    def train(on_window: OnWindow) -> None:
        model.train()
        loss_sum, hits = 0.0, 0
        for count, (pictures, labels) in endless(loader):
            with accelerator.accumulate(model):
                logits = model(pictures)
                loss = F.cross_entropy(logits, labels)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
            loss_sum += loss.item() * len(labels)
            hits += int((logits.argmax(1) == labels).sum().item())
            if count % trial.accumulate == 0:
                on_window()

    return train


def lightning(trial: Trial, images: int) -> Train:
    """A LightningModule and a Trainer, without logger, progress bar and checkpoints, which would only slow it."""
    import lightning.pytorch as pl

    device = device_for()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")  # that more loader workers would help

    class Classifier(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model_for(trial, CLASSES)

        def training_step(self, batch: Any, index: int) -> Tensor:
            pictures, labels = batch
            logits = self.model(pictures)
            loss = F.cross_entropy(logits, labels)
            self.log("train_loss", loss)
            self.log("train_accuracy", (logits.argmax(1) == labels).float().mean(), on_step=False, on_epoch=True)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return sgd_for(trial, self.model)

    class CallBack(pl.Callback):
        def __init__(self, on_window: OnWindow) -> None:
            self.on_window = on_window

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if (batch_idx + 1) % trial.accumulate == 0:
                self.on_window()

    quiet: Any = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    precision: Any = {"no": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[trial.precision]
    classifier, loader = Classifier(), loader_for(trial, images)

    def train(on_window: OnWindow) -> None:
        trainer = pl.Trainer(
            accelerator="cpu" if device.type == "cpu" else "gpu",
            devices=1,
            max_epochs=-1,
            precision=precision,
            accumulate_grad_batches=trial.accumulate,
            callbacks=[CallBack(on_window)],
            **quiet,
        )
        trainer.fit(classifier, loader)

    return train


# A process for each.


def compete(results: Connection, address: str, contender: Contender, images: int, wanted: int) -> None:
    """In the contender's process: take so many turns, and send the seconds that a window took in each."""
    torch.manual_seed(contender.trial.seed)
    torch.set_num_threads(environment.cpu_count())
    loop: Loop = globals()[contender.loop]
    train = loop(contender.trial, images)
    with contextlib.suppress(TurnsEnded):  # another contender has failed, and says why itself
        turns = Turns(address)
        turns.begin(contender.name, "a race")
        pace = Pace(device_for(), wanted, turns)
        with contextlib.suppress(Enough):
            train(pace)
        turns.leave()
        results.send(pace.seconds)


def in_turns(
    contenders: Sequence[Contender], images: int, wanted: int, target: Callable[..., None] = compete
) -> dict[str, Any]:
    """By name, the seconds that a window took in each of so many turns; turns of one position are neighbours in time.

    Starts a process for each contender. `target`: what it runs, and sends what is returned here. Raises RuntimeError if
    one fails.
    """
    context = get_context("spawn")
    with referee([str(number) for number in range(len(contenders))], turn_s=TURN_S) as judge:
        pipes = [context.Pipe(duplex=False) for _ in contenders]
        processes = [
            context.Process(target=target, args=(its_end, str(side.address), contender, images, wanted), daemon=True)
            for (_, its_end), side, contender in zip(pipes, judge.sides, contenders, strict=True)
        ]
        try:
            for process in processes:
                process.start()
            while any(process.is_alive() for process in processes):
                judge.serve(POLL_S)
                for process, contender in zip(processes, contenders, strict=True):
                    if process.exitcode:
                        judge.end(f"{contender.name} has ended; its traceback is above")
        finally:
            for process in processes:
                process.kill()
                process.join()
    if judge.broken:
        raise RuntimeError(judge.broken)
    return {contender.name: own_end.recv() for contender, (own_end, _) in zip(contenders, pipes, strict=True)}
