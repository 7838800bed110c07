"""[tool.resbench.gate] in a project's pyproject.toml: the gate's options, so that the command needs none."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from bench.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE, TABLE = "pyproject.toml", "[tool.resbench.gate]"


def read(folder: Path) -> dict[str, Any]:
    """The table's keys and values; {}: there is none. Raises UsageError if the file is no TOML or has no such table."""
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        found: Any = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read: {' '.join(str(error).split())}; correct it there") from error
    for name in ("tool", "resbench", "gate"):
        found = found.get(name, {})
        if not isinstance(found, dict):
            raise UsageError(f"{path}: {name} is {found!r}; write a table {TABLE}")
    return dict(found)


def as_options(
    table: dict[str, Any], words_key: str, values: tuple[str, ...], flags: tuple[str, ...]
) -> dict[str, Any]:
    """Its keys as options and their values as text, the words for pytest as a list. UsageError: one is not known."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        option = "--" + key.replace("_", "-")
        if key == words_key:
            words = [value] if isinstance(value, str) else value
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                raise UsageError(f'{key} in {TABLE} is {value!r}; write {key} = ["tests/perf"]')
            found[key] = list(words)
        elif option in flags and isinstance(value, bool):
            found |= {option: ""} if value else {}
        elif option in values and isinstance(value, (str, int, float)) and not isinstance(value, bool):
            found[option] = str(value)
        else:
            names = ", ".join(each.removeprefix("--") for each in (words_key, *values, *flags))
            raise UsageError(f"{key} = {value!r} in {TABLE} is none of its options; choose from: {names}")
    return found
