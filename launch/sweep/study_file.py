"""A study file: TOML whose keys are the options of `python -m launch run`, under the same names."""

from __future__ import annotations

import json
import re
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from bench import own_file
from bench.errors import UsageError
from bench.trial import option
from launch.sweep.option_words import OTHERS, SEVERAL, kinds
from models.nearest import perhaps

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXPERIMENTS = ("experiments", "experiment")
HELP = "python -m launch run --help"


@dataclass(frozen=True)
class Study:
    """A study file, parsed."""

    path: Path
    text: str
    experiments: tuple[str, ...]
    words: tuple[str, ...]
    """Its other keys, as options of the command line."""
    replaced: tuple[str, ...] = ()
    """The options of the command line that replace some of them, if they change the trials."""


def read(path: Path) -> Study:
    """Raises UsageError if the file cannot be read or a key is unknown, given twice, empty or of another type.

    An experiment's relative path starts at the study's folder. In `text`, which may be kept elsewhere, it is absolute.
    """
    table, text = parse(path)
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
            for name in listed(value, str, where):
                names += own_file.absolute([str(path.parent / name) if own_file.is_path(name) else name])
                text = with_path(text, name, names[-1], where)
        elif field in fields:
            words += as_words(field, value, fields[field], where)
        else:
            raise UsageError(f"{where} is no option{perhaps(field, [*fields, *EXPERIMENTS]) or '; see ' + HELP}")
    if not names:
        raise UsageError(f'{path} names no experiment; add a line such as experiments = ["resnet20_accumulation"]')
    return Study(path, text, tuple(names), tuple(words))


def with_path(text: str, name: str, path: str, where: str) -> str:
    """The study's text with this path in place of an experiment's name. Raises UsageError if it spells it otherwise."""
    if name == path:
        return text
    spelled = [quote + name + quote for quote in "\"'" if quote + name + quote in text]
    if not spelled:
        raise UsageError(f"{where} has {name!r} in a spelling of its own; give it as it is, between quotes")
    for each in spelled:
        text = text.replace(each, json.dumps(path, ensure_ascii=False))
    return text


def parse(path: Path) -> tuple[dict[str, Any], str]:
    """The file's table and text. Raises UsageError if there is no such file or it is no TOML."""
    text = ""
    try:
        text = path.read_bytes().decode("utf-8-sig")  # some editors begin a file with a byte-order mark
        return tomllib.loads(text), text
    except OSError as error:
        raise UsageError(f"cannot read the study {path}: {error.strerror}; give a file as those in studies/") from error
    except (ValueError, RecursionError) as error:  # no UTF-8, no TOML, or brackets nested too deep
        end = f"at the end, line {len(text.splitlines())}"
        problem = " ".join(str(error).split()).replace("at end of document", end)
        raise UsageError(f"{path} is no TOML: {problem}; correct it there") from error


def line_of(key: str, text: str) -> int:
    """The line of a key at the top level, for error messages: tomllib does not tell it."""
    start = re.compile(rf"""\s*\[*\s*["']?{re.escape(key)}["']?\s*[].=]""")
    return next((number for number, line in enumerate(text.split("\n"), 1) if start.match(line)), 1)


def as_words(field: str, value: Any, kind: Any, where: str) -> list[str]:
    """A key as words of the command line. Raises UsageError if its value is of another type, or an empty list."""
    if kind is bool and field not in SEVERAL:
        (on,) = listed(value, kind, where, several=False)
        if field in OTHERS:  # --no-NAME exists for fields of a dataclass only
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
    """The values of a key as a list. Raises UsageError if there is none, one of another type, or too many."""
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
    """Whether a value can stand in a field of this type. TOML has no null, so "None" stands for None."""
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
    """A type, as an error message asks for it."""
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(in_words(each) for each in get_args(kind))
    if get_origin(kind) is Literal:
        return f"a string: {', '.join(get_args(kind))}"
    names = {int: "a whole number", float: "a number", bool: "true or false", type(None): '"None"'}
    return names.get(kind, "a string")
