"""Print a script with which bash or zsh completes these commands.

It completes commands, their options, the names of experiments and other choices:

  eval "$(resbench completion bash)"

Needs the extra `completion` (pip install 'resbench[completion]').
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping
from typing import Any

from bench.arguments import Parser, shape
from bench.errors import UsageError
from bench.screen import summary

GROUP = "Your shell"
SHELLS = ("bash", "zsh")
# What a metavar has that stands for a path.
PATHS = ("FILE", "FOLDER", "PATH", "RUN", "CHECKPOINT", "IMAGE", ".csv", ".md")


def arguments(parser: Parser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="whose script is printed")


def script(shell: str, commands: Mapping[str, Any]) -> str:
    """The script, which shtab makes of the commands' parsers. `commands`: name -> module."""
    try:
        shtab = importlib.import_module("shtab")
    except ModuleNotFoundError as error:
        raise UsageError("completion needs shtab, which is not here; pip install 'resbench[completion]'") from error
    return shtab.complete(parser(commands, shtab.FILE), shell)


def parser(commands: Mapping[str, Any], file: Any) -> argparse.ArgumentParser:
    """The parser of `resbench`, with a subparser for each command. `file`: what completes a path."""
    found = argparse.ArgumentParser(prog="resbench")
    below = found.add_subparsers(parser_class=Parser)
    for name, module in commands.items():
        if " " in name:  # gate exact: its options are some of gate's
            continue
        one = below.add_parser(name, help=summary(module))
        module.arguments(one)
        for action in one._actions:
            action.choices = getattr(action, "suggested", None) or action.choices
            if not action.choices and any(path in shape(action) for path in PATHS):
                action.complete = file  # type: ignore[attr-defined]
    return found
