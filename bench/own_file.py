"""An experiment in a file of the user's own, loaded from its path and known by the hash of what it holds.

The file holds what one in bench/experiments/ holds. It may also define `model(trial, classes)`, which returns the
network to train, and `data(trial)`, which returns a bench.data.dataset.DataSet without `validation` and `other`; then
`--model own` and `--data own` are the defaults. It is alone: the hash knows nothing of another file that it imports.
Imports no torch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from bench.errors import UsageError, one_line
from bench.experiment import Experiment
from bench.trial import Trial, option
from models.names import OWN

FUNCTIONS = {"model": "model(trial, classes)", "data": "data(trial)"}
# Settings that are carried out on a network of ours alone; those that a model of one's own may have.
OF_OUR_MODELS = ("shortcut", "replace_blocks", "head", "dropout")
OURS = Path(__file__).resolve().parent / "experiments"
NAME = re.compile(r"[\w.+-]+")  # of what becomes part of a path, or stands between commas


def is_path(name: str) -> bool:
    """Whether this word is the path of such a file, and no name of an experiment."""
    return name.endswith(".py")


def absolute(names: Iterable[str]) -> list[str]:
    """The names of experiments with the paths among them absolute, for processes that run in another folder.

    The path of an experiment of ours becomes its name.
    """
    return [name_or_path(os.path.abspath(name)) if is_path(name) else name for name in names]


def name_or_path(path: str) -> str:
    """The name of the experiment in this file if it is one of ours, else the path."""
    return Path(path).stem if Path(path).resolve().parent == OURS else path


def load(path: str) -> Experiment:
    """The experiment in this file. Raises UsageError, with file and line, if it does not load."""
    absolute = os.path.abspath(path)
    return _experiment(absolute, _hash(_read(absolute)))


def of(trial: Trial) -> Experiment:
    """The experiment of a trial with such a file. Raises UsageError if the file has changed meanwhile."""
    return _experiment(trial.experiment_file, trial.experiment_hash)


def function(trial: Trial, name: str) -> Callable[..., Any]:
    """The file's own `model` or `data`. Raises UsageError if it defines none."""
    if not trial.experiment_file:
        raise UsageError(f"{option(name)} is own, which only an experiment in a file of your own has; choose another")
    found = getattr(_module(trial.experiment_file, trial.experiment_hash), name, None)
    if not callable(found):
        raise UsageError(f"{option(name)} is own, but {trial.experiment_file} defines no {FUNCTIONS[name]}; define it")
    return found


def check(trial: Trial) -> None:
    """Raises UsageError if the trial asks for what its file does not define, or cannot do."""
    for name in FUNCTIONS:
        if getattr(trial, name) == OWN:
            function(trial, name)
    for name in OF_OUR_MODELS if trial.model == OWN else ():
        if (value := getattr(trial, name)) != getattr(Trial, name):
            raise UsageError(f"{option(name)} is {value}, which a model of your own does not get; leave it out")
    if trial.model == OWN and trial.weights.startswith("IMAGENET"):
        raise UsageError(f"--weights is {trial.weights}, which a model of your own has none of; give none or a path")


@functools.cache
def _experiment(path: str, digest: str) -> Experiment:
    module = _module(path, digest)
    experiment = getattr(module, "EXPERIMENT", None)
    if not isinstance(experiment, Experiment):
        raise UsageError(f"{path} defines no EXPERIMENT of bench.experiment.Experiment; see bench/experiments/")
    for name in (Path(path).stem, *experiment.arms):
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise UsageError(f"{path}: the name {name!r} is not of letters, digits and _ . + - alone; rename it")
    if not experiment.arms:
        raise UsageError(f"{path}: EXPERIMENT has no arms; give one or more")
    own: dict[str, Any] = {name: OWN for name in FUNCTIONS if callable(getattr(module, name, None))}
    for name in own:
        if (value := getattr(experiment.base, name)) not in (OWN, getattr(Trial, name)):
            raise UsageError(f"{path}: base has {name}={value!r} and the file defines {name}(); leave one of them out")
    own |= {"experiment_file": path, "experiment_hash": digest}
    base = dataclasses.replace(experiment.base, **{**_typed(experiment.base.settings(), f"{path}: base"), **own})
    mini = {**{name: OWN for name in own if name == "data"}, **_typed(experiment.mini, f"{path}: mini")}
    arms, mini_arms = (
        {arm: _typed(changes, f"{path}: {what} {arm}") for arm, changes in changed.items()}
        for what, changed in (("arm", experiment.arms), ("mini_arms", experiment.mini_arms))
    )
    experiment = dataclasses.replace(experiment, base=base, arms=arms, mini=mini, mini_arms=mini_arms)
    for arm in arms:  # as they are in full: not every experiment has a miniature
        _check_arm(experiment, path, arm)
    return experiment


def _check_arm(experiment: Experiment, path: str, arm: str) -> None:
    try:
        check(experiment.trial(path, arm))
    except UsageError as error:
        raise UsageError(f"{path}: arm {arm}: {error}") from error


def _typed(settings: Any, where: str) -> dict[str, Any]:
    """The settings in the types of Trial's fields. Of 1 and 1.0, or [] and (), trials would have different keys."""
    if not isinstance(settings, dict):
        raise UsageError(f"{where} is a {type(settings).__name__}; give a dict of settings")
    types = get_type_hints(Trial)
    found = {}
    for name, value in settings.items():
        if name not in types:
            raise UsageError(f"{where} has {name!r}, which is no setting; see --help")
        try:
            found[name] = _as(types[name], value)
        except (TypeError, OverflowError) as error:
            kind = str(next(f.type for f in dataclasses.fields(Trial) if f.name == name))
            raise UsageError(f"{where} has {name}={value!r:.80}; give a value of the type {kind}") from error
    return found


def _as(kind: Any, value: Any) -> Any:
    """The value in this type: an int as a float, a list as a tuple. Raises TypeError if it is of another."""
    if get_origin(kind) is Literal:
        kind = str
    if get_origin(kind) is tuple:
        if isinstance(value, (tuple, list)):
            return tuple(_as(get_args(kind)[0], each) for each in value)
    elif type(None) in get_args(kind):
        return None if value is None else _as(get_args(kind)[0], value)
    elif kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif type(value) is kind:
        return value
    raise TypeError


@functools.cache
def _module(path: str, digest: str) -> ModuleType:
    content = _read(path)
    if _hash(content) != digest:
        raise UsageError(f"{path} is not what it was when this began (hash {digest}); start anew")
    module = ModuleType(f"own_{digest}")
    module.__file__ = path
    sys.modules[module.__name__] = module  # where dataclasses and torch look for the module of a class
    try:
        with line_named(path):
            exec(compile(content, path, "exec", dont_inherit=True), module.__dict__)
    except UsageError:
        del sys.modules[module.__name__]
        raise
    return module


@contextlib.contextmanager
def line_named(path: str) -> Iterator[None]:
    """Around what runs the code of this file. Whatever it raises becomes a UsageError with the line of the file."""
    try:
        yield
    except (Exception, SystemExit) as error:
        line = _line(error, path)
        what = one_line(error).replace(f" ({Path(path).name}, line {line})", "")
        raise UsageError(f"{path}{f', line {line}' if line else ''}: {what}; correct it there") from error


def _line(error: BaseException, path: str) -> int | None:
    """The line of the file where the error came from; None: from code that no line of it called."""
    if isinstance(error, SyntaxError) and error.filename == path:
        return error.lineno
    lines, frame = [], error.__traceback__
    while frame is not None:
        lines += [frame.tb_lineno] if frame.tb_frame.f_code.co_filename == path else []
        frame = frame.tb_next
    return lines[-1] if lines else None


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the experiment {path}: {error.strerror}; check the path") from error


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
