"""Data sets as uint8 tensors."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.data.dataset import DataSet, Split
from bench.errors import UsageError
from bench.trial import IMAGENET_MODEL, Trial

IMAGENET_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR10_STATISTICS = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def load(trial: Trial, root: Path) -> DataSet:
    """The trial's data. UsageError: it is missing or damaged, in one sentence."""
    train, evaluation, (mean, std) = READERS[trial.data](root, trial.image_size)
    classes = len(trial.classes) or 10
    train, evaluation = (chosen(trial.data, split, trial.classes) for split in (train, evaluation))
    other = None if trial.evaluate_on == "none" else load_evaluation(trial, root)
    train, validation = set_aside(train, trial.validation)
    train, evaluation = balanced(train, trial.limit_train), balanced(evaluation, trial.limit_eval)
    if IMAGENET_MODEL.fullmatch(trial.model):
        mean, std = IMAGENET_STATISTICS
    # Random images have no classes of their own; what else is evaluated on has the same otherwise.
    real = {trial.data, trial.evaluate_on} & {"cifar10", "voc"}
    names = CIFAR10_NAMES if real else tuple(map(str, range(10)))
    names = tuple(names[number] for number in trial.classes) or names
    return DataSet(train, evaluation, classes, mean, std, names, validation, other)


def load_evaluation(trial: Trial, root: Path) -> Split:
    """The evaluation images of the data set of `evaluate_on`. UsageError: as `load`."""
    name = trial.evaluate_on
    if name == "voc":
        from bench.data import voc

        split = voc.objects(root, "val", trial.image_size)  # cutting out those of the train images too takes long
    else:
        _, split, _ = READERS[name](root, trial.image_size)
    return balanced(chosen(name, split, trial.classes), trial.limit_eval)


def chosen(name: str, split: Split, classes: Sequence[int]) -> Split:
    """As `choose_classes`. UsageError: the data set has no image of them."""
    found = choose_classes(split, classes)
    if not len(found):
        raise UsageError(f"{name} has no image of --classes {' '.join(map(str, classes))}; choose others")
    return found


def _voc(root: Path, size: int) -> tuple[Split, Split, Any]:
    from bench.data import voc

    return *voc.load(root, size), STATISTICS["voc"]


def _cifar10(root: Path, size: int) -> tuple[Split, Split, Any]:
    from torchvision.datasets import CIFAR10

    def split(train: bool) -> Split:
        data = CIFAR10(str(root), train=train, download=not _cifar10_is_whole(root))
        return Split(torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(data.targets))

    try:
        return split(True), split(False), STATISTICS["cifar10"]
    except (OSError, RuntimeError, EOFError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(
            f"cifar10 is not whole in {root} and could not be fetched ({reason}); unpack {CIFAR10.url} "
            f"there (md5 {CIFAR10.tgz_md5}), pass --data-root, or use --data digits, which needs no download"
        ) from error


def _cifar10_is_whole(root: Path) -> bool:
    """Whether every file is there with its checksum, so that nothing needs fetching."""
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    files = [*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])]
    return all(check_integrity(str(root / CIFAR10.base_folder / name), md5) for name, md5 in files)


def _digits(root: Path, size: int) -> tuple[Split, Split, Any]:
    """1797 handwritten digits, 8x8 grey, comes with scikit-learn; here 32x32, every fifth of a class for evaluation."""
    table = torch.from_numpy(numpy.loadtxt(_digits_file(), delimiter=","))  # a row: 8x8 grey values of 0..16, the class
    grey = table[:, :64].float().view(-1, 1, 8, 8) * (255 / 16)
    images = (
        F.interpolate(grey, size=(32, 32), mode="bilinear", align_corners=False).round().byte().expand(-1, 3, -1, -1)
    )
    everything = Split(images.contiguous(), table[:, 64].long())
    order = interleaved(everything.labels)
    aside = max(1, len(order) // 5)
    train, evaluation = take(everything, order[aside:]), take(everything, order[:aside])
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
    """Random images as many as CIFAR-10's. One stored pixel stands for each: the pipeline makes the batch itself."""

    def split(images: int) -> Split:
        generator = torch.Generator().manual_seed(0)
        labels = torch.randint(0, 10, (images,), generator=generator)
        return Split(torch.zeros(1, dtype=torch.uint8).expand(images, 3, 1, 1), labels)

    return split(50_000), split(10_000), STATISTICS["synthetic"]


# For what each data set's images are normalised by, where that does not take the images themselves.
STATISTICS = {"cifar10": CIFAR10_STATISTICS, "voc": IMAGENET_STATISTICS, "synthetic": IMAGENET_STATISTICS}
READERS = {"cifar10": _cifar10, "digits": _digits, "voc": _voc, "synthetic": _synthetic}


def take(split: Split, index: Tensor) -> Split:
    """The images at these positions."""
    return Split(split.images[index], split.labels[index])


def choose_classes(split: Split, classes: Sequence[int]) -> Split:
    """Only these classes, labelled by their place in the list."""
    if not classes:
        return split
    place = torch.full((10,), -1)
    place[list(classes)] = torch.arange(len(classes))
    kept = take(split, torch.nonzero(place[split.labels] >= 0).flatten())
    return Split(kept.images, place[kept.labels])


def interleaved(labels: Tensor) -> Tensor:
    """An order of positions, always the same, in which every prefix holds the classes in balance."""
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    seen: dict[int, int] = {}
    turn = []
    for label in labels[shuffled].tolist():
        turn.append((seen.setdefault(label, 0), label))
        seen[label] += 1
    return shuffled[torch.tensor(sorted(range(len(turn)), key=turn.__getitem__))]


def set_aside(split: Split, share: float) -> tuple[Split, Split | None]:
    """(the rest, this share of the images, the classes in balance). UsageError: one of the two would be empty."""
    if not share:
        return split, None
    order, count = interleaved(split.labels), round(share * len(split))
    if not 0 < count < len(split):
        raise UsageError(f"--validation {share} of {len(split)} images leaves a part empty; give another share")
    return take(split, order[count:]), take(split, order[:count])


def balanced(split: Split, limit: int | None) -> Split:
    """At most `limit` images, the classes in balance."""
    if limit is None or limit >= len(split):
        return split
    return take(split, interleaved(split.labels)[:limit])
