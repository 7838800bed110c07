"""A study as a file: TOML whose keys are the options of `python -m launch run`, under the same names."""

from __future__ import annotations

import difflib
import re
import sys
import types
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from bench.errors import UsageError
from bench.options import Options
from bench.trial import Trial, option
from launch.run_options import RunOptions

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXPERIMENTS = ("experiments", "experiment")
# Options of `run` that are fields of none of the three.
OTHERS: dict[str, Any] = {
    "arm": str,
    "preset": str,
    "device": str,
    "memory_limit": str | int,
    "reserve": str | int,
    "skip_over_limit": bool,
}
SEVERAL = {*get_type_hints(Trial), "arm", "memory_limit"}


@dataclass(frozen=True)
class Study:
    """A study file as it was read."""

    path: Path
    text: str
    experiments: tuple[str, ...]
    words: tuple[str, ...]
    """Its other keys as options of the command line."""
    replaced: tuple[str, ...] = ()
    """What the command line put in place of them and makes other trials."""


def kinds() -> dict[str, Any]:
    """The options of `run`, each as the field that it sets, and the field's type."""
    fields = {**get_type_hints(Trial), **get_type_hints(Options), **get_type_hints(RunOptions), **OTHERS}
    del fields["experiment"]
    return fields


def nearest(name: str, known: Iterable[str]) -> str:
    """The next move for who wrote a name that is none of these."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f"perhaps you meant {close[0]}" if close else "see python -m launch run EXPERIMENT --help"


def read(path: Path) -> Study:
    """UsageError: there is no such file, it is no TOML, or a key is unknown, twice, empty or of another type."""
    table, text = parsed(path)
    fields, seen = kinds(), set()
    names: list[str] = []
    words: list[str] = []
    for key, value in table.items():
        field = "experiments" if key in EXPERIMENTS else key.replace("-", "_")
        where = f"{path}, line {line_of(key, text)}: {key if key.isprintable() else repr(key)}"
        if field in seen:
            raise UsageError(f"{where} is given a second time, in another spelling; leave one of them")
        seen.add(field)
        if field == "experiments":
            names += listed(value, str, where)
        elif field in fields:
            words += as_words(field, value, fields[field], where)
        else:
            raise UsageError(f"{where} is no option; {nearest(field, [*fields, *EXPERIMENTS])}")
    if not names:
        raise UsageError(f'{path} names no experiment; add a line such as experiments = ["resnet20_accumulation"]')
    return Study(path, text, tuple(names), tuple(words))


def parsed(path: Path) -> tuple[dict[str, Any], str]:
    """The file's table and text."""
    text = ""
    try:
        text = path.read_bytes().decode()
        return tomllib.loads(text), text
    except OSError as error:
        raise UsageError(f"cannot read the study {path}: {error.strerror}; give a file as those in studies/") from error
    except (ValueError, RecursionError) as error:
        end = f"at the end, line {len(text.splitlines())}"
        said = " ".join(str(error).split()).replace("at end of document", end)
        raise UsageError(f"{path} is no TOML: {said}; correct it there") from error


def line_of(key: str, text: str) -> int:
    """The line on which a key of the top level stands."""
    start = re.compile(rf"""\s*\[*\s*["']?{re.escape(key)}["']?\s*[].=]""")
    return next((number for number, line in enumerate(text.split("\n"), 1) if start.match(line)), 1)


def as_words(field: str, value: Any, kind: Any, where: str) -> list[str]:
    """A key as on the command line. UsageError: its value is of another type, or an empty list."""
    if kind is bool and field not in SEVERAL:
        (on,) = listed(value, kind, where, several=False)
        if field in OTHERS:  # has no opposite
            return [option(field)] if on else []
        return [option(field if on else f"no_{field}")]
    if get_origin(kind) is tuple:
        if value == []:
            return [option(field)]
        if not isinstance(value, list):
            raise UsageError(f"{where} is {value!r:.80}; give the list of all its parts")
        return [option(field), *map(str, listed(value, get_args(kind)[0], where))]
    return [option(field), ",".join(map(str, listed(value, kind, where, several=field in SEVERAL)))]


def listed(value: Any, kind: Any, where: str, several: bool = True) -> list[Any]:
    """A value, or a list of them if there may be several. UsageError: there is none, or one of another type."""
    if isinstance(value, list) and not several:
        raise UsageError(f"{where} is {value!r:.80}; give one value, not a list")
    values = value if isinstance(value, list) else [value]
    if not values:
        raise UsageError(f"{where} has no values; give one or more, or leave it out")
    for each in values:
        if not is_of(each, kind):
            raise UsageError(f"{where} has {each!r:.80}; give {in_words(kind)}")
    return values


def is_of(value: Any, kind: Any) -> bool:
    """Whether a value of TOML, which knows no None but "None", can stand in a field of this type."""
    if get_origin(kind) in (Union, types.UnionType):
        return any(is_of(value, each) for each in get_args(kind))
    if kind is type(None):
        return value == "None"
    if kind is float:
        return type(value) in (int, float)
    if kind in (int, bool):
        return type(value) is kind
    return isinstance(value, str)


def in_words(kind: Any) -> str:
    """A type for the reader who has to give a value of it."""
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(in_words(each) for each in get_args(kind))
    if get_origin(kind) is Literal:
        return f"a string: {', '.join(get_args(kind))}"
    names = {int: "a whole number", float: "a number", bool: "true or false", type(None): '"None"'}
    return names.get(kind, "a string")
