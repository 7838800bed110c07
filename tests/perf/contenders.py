"""Training loops to race against each other, at the same work: the suite's own, and what users write.

A contender is a Loop: given a Trial and the images in an epoch, it sets itself up and returns an epoch, a function from
(its number, how many windows of it to train on) to seconds. Each runs in a process of its own, because Accelerate keeps
one precision for a whole process. All follow the trial in model, images, batch, augmentation and precision. They run on
the GPU where there is one, unless ACCELERATE_USE_CPU says otherwise, and are timed from an idle device to an idle one.
"""

from __future__ import annotations

import contextlib
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from bench.data import datasets
from bench.data.dataset import DataSet, Split
from bench.data.pipeline import PAD, InputPipeline
from bench.machine import environment, malloc
from bench.machine.compiler import compile_model
from bench.training import setup
from bench.training.build import DTYPES, model_for
from bench.training.group import Group
from bench.training.loop import train_epoch
from bench.training.meter import Meter
from bench.training.windows import epoch_windows
from bench.trial import IMAGENET_MODEL, Trial
from bench.worker import all_probes

CLASSES = 10
SIZE = 32
Epoch = Callable[[int, int], float]
Loop = Callable[[Trial, int], Epoch]


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
    return datasets.IMAGENET_STATISTICS if IMAGENET_MODEL.fullmatch(trial.model) else datasets.CIFAR10_STATISTICS


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


def first_windows(loader: DataLoader, trial: Trial, windows: int) -> DataLoader:
    """A loader of so many windows of the same pictures."""
    images = range(min(len(loader.dataset), windows * trial.effective_batch()))  # type: ignore[arg-type]
    return DataLoader(Subset(loader.dataset, images), batch_size=trial.micro_batch, shuffle=True)


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

    def epoch(self, number: int, windows: int) -> float:
        """Train on the first windows of this epoch; the seconds that took, reading the probes included."""
        trial = self.trial
        rows: list[dict[str, Any]] = []
        chosen = list(epoch_windows(self.images, trial.micro_batch, trial.accumulate, 1, 0))[:windows]
        began = seconds_on(self.device)
        batches = self.feed.train(number, [a_pass for window in chosen for a_pass in window.passes])
        train_epoch(self.training, chosen, batches, self.meter, lambda _: trial.lr, rows.extend)
        return seconds_on(self.device) - began


def ours(trial: Trial, images: int) -> Epoch:
    """bench's own loop with all its probes."""
    return Ours(trial, images).epoch


def plain(trial: Trial, images: int) -> Epoch:
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

    def epoch(number: int, windows: int) -> float:
        chosen = first_windows(loader, trial, windows)
        began = seconds_on(device)
        model.train()
        loss_sum, hits = 0.0, 0
        for count, (pictures, labels) in enumerate(chosen, 1):
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
        return seconds_on(device) - began

    return epoch


def accelerate(trial: Trial, images: int) -> Epoch:
    """A script as Accelerate's guide has it: prepare() everything, accumulate(), backward()."""
    from accelerate import Accelerator

    accelerator = Accelerator(mixed_precision=trial.precision, gradient_accumulation_steps=trial.accumulate)
    bare = model_for(trial, CLASSES)
    model, optimizer = accelerator.prepare(bare, sgd_for(trial, bare))
    loader = loader_for(trial, images)

    def epoch(number: int, windows: int) -> float:
        chosen = accelerator.prepare(first_windows(loader, trial, windows))
        began = seconds_on(accelerator.device)
        model.train()
        loss_sum, hits = 0.0, 0
        for pictures, labels in chosen:
            with accelerator.accumulate(model):
                logits = model(pictures)
                loss = F.cross_entropy(logits, labels)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
            loss_sum += loss.item() * len(labels)
            hits += int((logits.argmax(1) == labels).sum().item())
        return seconds_on(accelerator.device) - began

    return epoch


def lightning(trial: Trial, images: int) -> Epoch:
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

    class Stopwatch(pl.Callback):
        """Times the epoch alone: setting up fit() is no training."""

        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            self.began = seconds_on(device)

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            self.seconds = seconds_on(device) - self.began

    quiet: Any = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    precision: Any = {"no": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[trial.precision]
    classifier, loader = Classifier(), loader_for(trial, images)

    def epoch(number: int, windows: int) -> float:
        watch = Stopwatch()
        trainer = pl.Trainer(
            accelerator="cpu" if device.type == "cpu" else "gpu",
            devices=1,
            max_epochs=1,
            precision=precision,
            accumulate_grad_batches=trial.accumulate,
            callbacks=[watch],
            **quiet,
        )
        trainer.fit(classifier, first_windows(loader, trial, windows))
        return watch.seconds

    return epoch


# A process for each.


def serve(calls: Connection, contender: Contender, images: int) -> None:
    """In the contender's process: answer each (epoch, windows) with seconds, until the other end is closed."""
    torch.manual_seed(contender.trial.seed)
    torch.set_num_threads(environment.cpu_count())
    loop: Loop = globals()[contender.loop]
    epoch = loop(contender.trial, images)
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            calls.send(epoch(*calls.recv()))


@contextlib.contextmanager
def process_for(contender: Contender, images: int) -> Iterator[Epoch]:
    """A process that holds the contender, and only works when its epoch is called."""
    context = get_context("spawn")
    ours_end, its_end = context.Pipe()
    process = context.Process(target=serve, args=(its_end, contender, images), daemon=True)
    process.start()
    its_end.close()

    def epoch(number: int, windows: int) -> float:
        try:
            ours_end.send((number, windows))
            return ours_end.recv()
        except (EOFError, OSError) as error:
            raise RuntimeError(f"{contender.name} has ended; its traceback is above") from error

    try:
        yield epoch
    finally:
        ours_end.close()
        process.join()
