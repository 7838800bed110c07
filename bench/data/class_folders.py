"""Which images do class folders on a disk hold (--data folder:PATH), and what tells them from others? Imports no torch.

PATH/train/CLASS/ has the training images and PATH/val/CLASS/ the evaluation images, or else PATH/test/CLASS/, as
torchvision's ImageFolder takes each; folders inside a class folder belong to it. There is no split by chance: a folder
without both parts is refused.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UsageError
from bench.trial import FOLDER, Trial

LAYOUT = "train/CLASS/*.jpg and val/CLASS/*.jpg (or test/)"
SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # those of ImageFolder
# How the files of these formats begin.
BEGINNING = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|BM|P[1-6]\s|II\*\0|MM\0\*|II\+\0|MM\0\+|RIFF....WEBP", re.DOTALL
)
MOST_OPENED = 100_000  # before a trial starts; of more, the rest is seen when it is read


@dataclass(frozen=True)
class Part:
    """The images of one part in order: paths, and the number of each one's class."""

    paths: tuple[str, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class ClassFolders:
    """What the folder holds. `contents` tells it from another: counts, and a hash of all names and sizes."""

    names: tuple[str, ...]
    train: Part
    evaluation: Part
    contents: str


def of(trial: Trial) -> Path | None:
    """The absolute path of the folder of the trial's data; None: it has none."""
    return _absolute(trial.data.removeprefix(FOLDER)) if trial.data.startswith(FOLDER) else None


def absolute(word: str) -> str:
    """A word of a command line, where a value of --data has absolute paths; any other word unchanged."""
    name, equals, value = word.partition("=") if word.startswith("--data=") else ("", "", word)
    if not value.startswith(FOLDER):
        return word
    parts = [each.partition(FOLDER) for each in value.split(",")]
    return name + equals + ",".join(head + mark + (str(_absolute(path)) if mark else "") for head, mark, path in parts)


def _absolute(path: str) -> Path:
    return Path(os.path.abspath(os.path.expanduser(path)))


def check(trial: Trial) -> None:
    """Raises UsageError if a file among the trial's images is none, by how it begins."""
    if folder := of(trial):
        _check(str(folder))


@functools.cache
def _check(folder: str) -> None:
    found = scan(folder)
    for path in (*found.train.paths, *found.evaluation.paths)[:MOST_OPENED]:
        try:
            with open(path, "rb") as file:
                start = file.read(16)
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}; check whose it is") from error
        if not BEGINNING.match(start):
            raise UsageError(f"{path} is no image; remove it, or get it again")


@functools.cache
def scan(folder: str) -> ClassFolders:
    """What is in the folder, read once. Raises UsageError if it is not laid out as LAYOUT, or cannot be read."""
    try:
        return _scan(Path(folder))
    except OSError as error:  # nobody may enter it, or a link leads to nothing, or to itself
        raise UsageError(f"--data: cannot read {error.filename}: {error.strerror}; mend it, or remove it") from error


def _scan(root: Path) -> ClassFolders:
    if not root.is_dir():
        raise UsageError(f"--data: no folder {root}; give one with {LAYOUT}")
    second = next((name for name in ("val", "test") if (root / name).is_dir()), "val")
    for part in ("train", second):
        if not (root / part).is_dir():
            raise UsageError(f"--data: {root} has no folder {part}; it needs {LAYOUT}")
    names, evaluated = (_class_names(root / part) for part in ("train", second))
    if names != evaluated:
        other = sorted(set(names) ^ set(evaluated))[0]
        raise UsageError(
            f"--data: only one of train and {second} in {root} has the class {other!r}; give both the same"
        )
    digest = hashlib.sha256()
    train, evaluation = (_part(root, part, names, digest) for part in ("train", second))
    count = len(train.paths) + len(evaluation.paths)
    return ClassFolders(names, train, evaluation, f"{count} images in {len(names)} classes ({digest.hexdigest()[:12]})")


def _class_names(part: Path) -> tuple[str, ...]:
    with os.scandir(part) as entries:
        seen = [(entry.name, entry.stat().st_mode) for entry in entries if not entry.name.startswith(".")]
    names = tuple(sorted(name for name, mode in seen if stat.S_ISDIR(mode)))
    if len(names) < 2:
        found = "no class folder" if not names else f"one class folder, {names[0]}"
        raise UsageError(f"--data: {part} has {found}; give two or more, as {LAYOUT}")
    return names


def _part(root: Path, part: str, names: tuple[str, ...], digest: hashlib._Hash) -> Part:
    paths: list[str] = []
    labels: list[int] = []
    above = [_identity(root), _identity(root / part)]
    for label, name in enumerate(names):
        before = len(paths)
        for path, size in _files(root / part / name, above):
            if not path.lower().endswith(SUFFIXES):
                raise UsageError(f"--data: {path} is no image, by its name; remove it")
            digest.update(f"{os.path.relpath(path, root)}\0{size}\n".encode(errors="surrogateescape"))
            paths.append(path)
            labels.append(label)
        if len(paths) == before:
            raise UsageError(
                f"--data: the class folder {root / part / name} has no image; fill it, or remove the class"
            )
    return Part(tuple(paths), tuple(labels))


def _files(folder: Path, above: list[tuple[int, int]]) -> Iterator[tuple[str, int]]:
    """(path, size) of all files below, in one order on every machine; without those whose names begin with a dot.

    `above`: the folders that this one is in.
    """
    if (own := _identity(folder)) in above:
        raise UsageError(f"--data: {folder} is a link to a folder that it is in; remove it")
    with os.scandir(folder) as entries:
        inside = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in inside:
        if entry.is_dir():
            yield from _files(Path(entry.path), [*above, own])
        else:
            yield entry.path, entry.stat().st_size


def _identity(folder: Path) -> tuple[int, int]:
    """What tells the folder from all others of this machine, under whichever path."""
    found = folder.stat()
    return found.st_dev, found.st_ino
