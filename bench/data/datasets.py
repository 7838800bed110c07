"""Reading a trial's data set into uint8 tensors."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor

from bench import own_file
from bench.data import class_folders
from bench.data.dataset import DataSet, Split
from bench.errors import UsageError, reason
from bench.trial import Trial
from models.names import IMAGENET_STATISTICS, OWN, is_imagenet

CIFAR10_STATISTICS = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
# A server that sends nothing for this long is given up; Python by itself would wait for it without end.
SILENT_S = 60.0
CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@contextlib.contextmanager
def download_limits() -> Iterator[None]:
    """While entered, a download fails if its server is silent for SILENT_S, unless the process has another limit."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENT_S if before is None else before)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def load(trial: Trial, root: Path) -> DataSet:
    """The trial's data. Raises UsageError if it is missing or damaged."""
    whole = read(trial, root)
    train, evaluation = (
        choose_classes(trial.data, split, trial.classes, whole.classes) for split in (whole.train, whole.evaluation)
    )
    other = None if trial.evaluate_on == "none" else load_evaluation(trial, root)
    train, validation = set_aside(train, trial.validation)
    train, evaluation = balanced(train, trial.limit_train), balanced(evaluation, trial.limit_eval)
    mean, std = whole.mean, whole.std
    if is_imagenet(trial.model):
        mean, std = IMAGENET_STATISTICS
    names = tuple(whole.names[number] for number in trial.classes) or whole.names
    return DataSet(train, evaluation, len(names), mean, std, names, validation, other)


def read(trial: Trial, root: Path) -> DataSet:
    """The whole data set, whose `names` are as many as its classes. Raises UsageError as `load`."""
    if trial.data == OWN:
        function = own_file.function(trial, "data")
        with own_file.line_named(trial.experiment_file):
            data = function(trial)
        return checked(data, trial.experiment_file)
    if folder := class_folders.of(trial):
        from bench.data import image_files

        return image_files.in_folder(folder, trial.image_size, *IMAGENET_STATISTICS)
    train, evaluation, (mean, std) = READERS[trial.data](root, trial.image_size)
    # Random images have no class names: then those of the other data set are used.
    named = {trial.data, trial.evaluate_on} & {"cifar10", "voc"}
    return DataSet(train, evaluation, 10, mean, std, CIFAR10_NAMES if named else numbers(10))


def class_count(trial: Trial) -> int:
    """How many classes the trial's model tells apart."""
    return len(trial.classes) or (10 if trial.data in READERS else read(trial, Path()).classes)


def numbers(classes: int) -> tuple[str, ...]:
    """Names of classes that have no other."""
    return tuple(map(str, range(classes)))


def checked(data: Any, source: str) -> DataSet:
    """What a file of the user's own loaded. Raises UsageError if it is not what a pipeline takes."""
    where = f"data(trial) in {source}"
    if not isinstance(data, DataSet):
        raise UsageError(f"{where} returns a {type(data).__name__}; return a bench.data.dataset.DataSet")
    for part, split in (("train", data.train), ("evaluation", data.evaluation)):
        images, labels = split.images, split.labels
        if images.dtype != torch.uint8 or len(images.shape) != 4 or images.shape[1] != 3:
            found = f"{images.dtype} of shape {tuple(images.shape)}"
            raise UsageError(f"{where}: the images of {part} are {found}; give torch.uint8 of shape (N, 3, H, W)")
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1] or not len(labels):
            found = f"{labels.dtype} of shape {tuple(labels.shape)}"
            raise UsageError(f"{where}: the labels of {part} are {found}; give torch.int64, one for each image")
        if not 0 <= int(labels.min()) <= int(labels.max()) < data.classes:
            found = f"from {int(labels.min())} to {int(labels.max())}"
            raise UsageError(f"{where}: the labels of {part} are {found}; give 0 to {data.classes - 1}")
    if len(data.names) not in (0, data.classes):
        raise UsageError(f"{where}: {len(data.names)} names for {data.classes} classes; give one each, or none")
    return data if data.names else dataclasses.replace(data, names=numbers(data.classes))


def load_evaluation(trial: Trial, root: Path) -> Split:
    """The evaluation images of the data set --evaluate-on. Raises UsageError as `load`."""
    name = trial.evaluate_on
    if name == "voc":
        from bench.data import voc

        split = voc.objects(root, "val", trial.image_size)  # not voc.load, which takes long to cut out the train images
    else:
        _, split, _ = READERS[name](root, trial.image_size)
    return balanced(choose_classes(name, split, trial.classes, 10), trial.limit_eval)


def _voc(root: Path, size: int) -> tuple[Split, Split, Any]:
    from bench.data import voc

    return *voc.load(root, size), STATISTICS["voc"]


def _cifar10(root: Path, size: int) -> tuple[Split, Split, Any]:
    from torchvision.datasets import CIFAR10

    def split(train: bool) -> Split:
        data = CIFAR10(str(root), train=train, download=True)  # if not all files are there
        return Split(torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(data.targets))

    try:
        with download_limits():
            return split(True), split(False), STATISTICS["cifar10"]
    except (OSError, RuntimeError, EOFError) as error:
        raise UsageError(
            f"cifar10 is incomplete in {root} and could not be downloaded ({reason(error)}); unpack {CIFAR10.url} "
            f"there (md5 {CIFAR10.tgz_md5}), give --data-root, or use --data digits, which needs no download"
        ) from error


def _digits(root: Path, size: int) -> tuple[Split, Split, Any]:
    """scikit-learn's 1797 handwritten digits of 8x8 grey pixels, as 32x32 RGB; a fifth of each class for evaluation."""
    table = torch.from_numpy(numpy.loadtxt(_digits_file(), delimiter=","))  # a row: 8x8 grey values of 0..16, the class
    grey = table[:, :64].float().view(-1, 1, 8, 8) * (255 / 16)
    images = (
        F.interpolate(grey, size=(32, 32), mode="bilinear", align_corners=False).round().byte().expand(-1, 3, -1, -1)
    )
    everything = Split(images.contiguous(), table[:, 64].long())
    order = interleaved(everything.labels)  # scikit-learn gives no split; the first fifth of this order is one
    fifth = max(1, len(order) // 5)
    train, evaluation = take(everything, order[fifth:]), take(everything, order[:fifth])
    values = train.images.float() / 255
    return train, evaluation, ([float(values.mean())] * 3, [float(values.std())] * 3)


def _digits_file() -> Path:
    """The file in scikit-learn's package. Importing scikit-learn instead takes a third of the time that torch takes.

    Raises UsageError if the installed version has no such file.
    """
    spec = importlib.util.find_spec("sklearn")
    for folder in (spec.submodule_search_locations if spec else None) or ():
        if (path := Path(folder) / "datasets" / "data" / "digits.csv.gz").is_file():
            return path
    raise UsageError("--data digits needs the digits.csv.gz of scikit-learn; try: pip install scikit-learn")


def _synthetic(root: Path, size: int) -> tuple[Split, Split, Any]:
    """As many images as CIFAR-10 has, one pixel in memory for all: the pipeline makes the random batch itself."""

    def split(images: int) -> Split:
        generator = torch.Generator().manual_seed(0)
        labels = torch.randint(0, 10, (images,), generator=generator)
        return Split(torch.zeros(1, dtype=torch.uint8).expand(images, 3, 1, 1), labels)

    return split(50_000), split(10_000), STATISTICS["synthetic"]


# (mean, standard deviation) with which images are normalised. Those of the digits are computed when they are read.
STATISTICS = {"cifar10": CIFAR10_STATISTICS, "voc": IMAGENET_STATISTICS, "synthetic": IMAGENET_STATISTICS}
READERS = {"cifar10": _cifar10, "digits": _digits, "voc": _voc, "synthetic": _synthetic}


def take(split: Split, index: Tensor) -> Split:
    """The images at these positions."""
    return Split(split.images[index], split.labels[index])


def choose_classes(name: str, split: Split, classes: Sequence[int], of: int) -> Split:
    """Only these of the data set's classes, `of` in all, labelled by their index in the list; of an empty list, all.

    Raises UsageError if there is no such class, or if no image is left.
    """
    if max(classes, default=0) >= of:
        raise UsageError(f"--classes has {max(classes)}, but {name} has the classes 0 to {of - 1}; choose among them")
    if classes:
        new_label = torch.full((of,), -1)
        new_label[list(classes)] = torch.arange(len(classes))
        split = take(split, torch.nonzero(new_label[split.labels] >= 0).flatten())
        split = Split(split.images, new_label[split.labels])
    if not len(split):
        raise UsageError(f"{name} has no image of --classes {' '.join(map(str, classes))}; choose others")
    return split


def interleaved(labels: Tensor) -> Tensor:
    """An order of the images, always the same, in which every prefix has the classes in balance.

    First the first image of each class in a shuffled order, then the second of each, and so on.
    """
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    one_hot = F.one_hot(labels[shuffled])
    number = one_hot.cumsum(0)[one_hot.bool()]  # of each image within its class
    return shuffled[(number * one_hot.shape[1] + labels[shuffled]).argsort()]


def set_aside(split: Split, share: float) -> tuple[Split, Split | None]:
    """(the rest, this share of the images with the classes in balance). Raises UsageError if one of them is empty."""
    if not share:
        return split, None
    order, count = interleaved(split.labels), round(share * len(split))
    if not 0 < count < len(split):
        raise UsageError(f"--validation {share} of {len(split)} images leaves a part empty; give another share")
    return take(split, order[count:]), take(split, order[:count])


def balanced(split: Split, limit: int | None) -> Split:
    """At most `limit` images, with the classes in balance."""
    if limit is None or limit >= len(split):
        return split
    return take(split, interleaved(split.labels)[:limit])
