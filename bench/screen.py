"""One screen that lists the commands, each under the question that it answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.errors import CODES

# A command names one of them as its GROUP.
GROUPS = (
    "Run experiments",
    "What fits",
    "Which machine",
    "Look at a run",
    "Did something change",
    "On a cluster",
    "Your shell",
)


def screen(prog: str, commands: Mapping[str, Any]) -> str:
    """The screen. `prog`: what the commands stand behind. `commands`: name -> module, with its docstring and GROUP."""
    lines = [f"usage: {prog} COMMAND ...; COMMAND --help explains one", ""]
    for group in GROUPS:
        members = {name: module for name, module in commands.items() if group == module.GROUP}
        lines += [group, *(f"  {name:<12} {summary(module)}" for name, module in members.items())] if members else []
    return "\n".join([*lines, "", CODES])


def summary(module: Any) -> str:
    """The first sentence of the command's docstring, without its full stop."""
    return module.__doc__.strip().partition(".\n")[0].rstrip(".")
