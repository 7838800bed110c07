"""The options of `launch run` as words: which there are, which field each sets, and which values stand behind it."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import Any, get_origin, get_type_hints

from bench.options import Options
from bench.trial import FIXED, Trial
from launch.run_options import RunOptions

TRIAL_TYPES = get_type_hints(Trial)
# Options that are fields of none of the three dataclasses.
OTHERS: dict[str, Any] = {
    "arm": str,
    "preset": str,
    "device": str,
    "memory_limit": str | int,
    "reserve": str | int,
    "skip_over_limit": bool,
}
# Options that may have several values, each of which is a trial of its own.
SEVERAL = {*TRIAL_TYPES, "arm", "memory_limit"}


def kinds() -> dict[str, Any]:
    """Every option as the field that it sets, and the field's type."""
    fields = {**TRIAL_TYPES, **get_type_hints(Options), **get_type_hints(RunOptions), **OTHERS}
    return {name: kind for name, kind in fields.items() if name not in FIXED}


# Options that are switched on by their name alone, and off by --no-NAME.
SWITCHES = {name for name, kind in kinds().items() if kind is bool and name not in SEVERAL}


def grouped(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Each option with the words behind it. Words before the first option stand under ""."""
    groups: list[tuple[str, list[str]]] = []
    for word in words:
        if word.startswith("--"):  # and not "-", which negative numbers begin with
            option, equals, value = word.partition("=")
            groups.append((option, [value] if equals else []))
        elif groups:
            groups[-1][1].append(word)
        else:
            groups.append(("", [word]))
    return groups


def dashed(word: str) -> str:
    """An option with dashes in its name, as in --micro-batch=16; any other word unchanged."""
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if word.startswith("--") else word


def field_of(option: str) -> str:
    """The field that --NAME or --no-NAME sets, with dashes or underscores."""
    name = option.removeprefix("--").replace("-", "_")
    return name.removeprefix("no_") if name.removeprefix("no_") in SWITCHES else name


def fields(words: Sequence[str]) -> list[str]:
    """The fields that the options among these words set."""
    return [field_of(option) for option, _ in grouped(words)]


def select(words: Sequence[str], wanted: Collection[str]) -> list[str]:
    """The options that set one of these fields, with their values."""
    groups = [[*filter(None, [option]), *values] for option, values in grouped(words) if field_of(option) in wanted]
    return list(itertools.chain.from_iterable(groups))


def value(words: Sequence[str], field: str) -> str | None:
    """The value of the option that sets this field; None: it is not given."""
    return next((" ".join(values) for option, values in grouped(words) if field_of(option) == field), None)


def without(words: Sequence[str], unwanted: Collection[str]) -> list[str]:
    """The options that set none of these fields, with their values."""
    return select(words, set(fields(words)) - {*unwanted})


def is_scalar(field: str) -> bool:
    """Whether this is a field of Trial that holds one value, so that values with commas between them are an axis."""
    return field in TRIAL_TYPES and get_origin(TRIAL_TYPES[field]) is not tuple


def axes(words: Sequence[str]) -> list[str]:
    """The fields of Trial for which several values are given."""
    by_field = [(field_of(option), values) for option, values in grouped(words)]
    return [field for field, values in by_field if is_scalar(field) and any("," in value for value in values)]
