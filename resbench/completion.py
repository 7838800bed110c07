"""Print a script with which bash or zsh completes these commands.

It completes commands, their options, the names of experiments and other choices:

  eval "$(resbench completion bash)"

Needs the extra `completion` (pip install 'resbench[completion]').
"""

from __future__ import annotations

import argparse
import importlib
from typing import Any

from bench.arguments import Parser, shape
from bench.errors import UsageError

GROUP = "Your shell"
SHELLS = ("bash", "zsh")
# What a metavar has that stands for a path.
PATHS = ("FILE", "FOLDER", "PATH", "RUN", "CHECKPOINT", "IMAGE", ".csv", ".md")


def arguments(parser: Parser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="whose script is printed")


def run(options: argparse.Namespace) -> None:
    """Print the script. shtab makes it, from the parsers of all commands."""
    try:
        shtab = importlib.import_module("shtab")
    except ModuleNotFoundError as error:
        raise UsageError("completion needs shtab, which is not here; pip install 'resbench[completion]'") from error
    print(shtab.complete(parser(shtab.FILE), options.shell))


def parser(file: Any) -> argparse.ArgumentParser:
    """The parser of `resbench`, with a subparser for each command. `file`: what completes a path."""
    from resbench import commands

    found = argparse.ArgumentParser(prog="resbench")
    below = found.add_subparsers(parser_class=Parser)
    for name, module in commands().items():
        if " " in name:  # gate exact: its options are some of gate's
            continue
        one = below.add_parser(name, help=module.__doc__.strip().partition(".\n")[0].replace("%", "%%"))
        module.arguments(one)
        for action in one._actions:
            action.choices = getattr(action, "suggested", None) or action.choices
            if not action.choices and any(path in shape(action) for path in PATHS):
                action.complete = file  # type: ignore[attr-defined]
    return found
