"""docs/command-line.md: every command of launch and reports with its options, as their own parsers have them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from bench.arguments import Parser, shape, text, usage
from bench.screen import GROUPS
from launch import cli as launching
from launch import commands as launch_commands
from launch.sweep.arguments import AXES, SETTINGS
from launch.sweep.arguments import GROUPS as OF_RUN
from reports import cli as reporting
from reports import commands as reports_commands

PAGE = Path(__file__).resolve().parents[1] / "docs" / "command-line.md"
HEAD = """# The command line

Generated from the parsers of the commands by `make docs-tables`. `python -m launch COMMAND --help` and
`python -m reports COMMAND --help` show the options that are used most; where there are more, `--help-all` shows all. An
installed `resbench COMMAND` is either of them, and `resbench completion bash` prints a script with which a shell
completes all of it.

An option has dashes or underscores in its name, and is given once. A name that does not exist is an error, which
suggests the nearest one; its exit code is 2."""


def parsers() -> dict[str, Parser]:
    """Heading -> parser of each command, in the order of the screens."""
    found = [(launch_commands.load(name).GROUP, name, launching.parser(name)) for name in launch_commands.names()]
    both = {name for _, name, _ in found}
    for name in reports_commands.names():
        heading = f"{name} exact" if name in both else name
        found.append((reports_commands.load(name).GROUP, heading, reporting.parser(name)))
    return {heading: parser for group in GROUPS for own, heading, parser in found if own == group}


def page() -> str:
    """The text of docs/command-line.md."""
    sections = [HEAD, *(command(heading, parser) for heading, parser in parsers().items())]
    run = launching.parser("run")
    (settings,) = [group for group in run._action_groups if group.title == SETTINGS]
    about = (
        "The options of every command that takes an EXPERIMENT. With one before it, `--help-all` shows its own values."
    )
    sections += ["\n\n".join([f"## {SETTINGS.capitalize()}", about, AXES, table(settings._group_actions)])]
    return "\n\n".join(sections) + "\n"


def command(heading: str, parser: Parser) -> str:
    """The section of one command. What is as for `run` is only named."""
    parts = [f"## {heading}", f"```\n{parser.prog} {usage(parser._actions)}\n```", described(parser)]
    of_run = {} if heading == "run" else {action.dest: text(action) for action in launching.parser("run")._actions}
    for group in parser._action_groups:
        actions, title = shown(group._group_actions), group.title or ""
        if title == SETTINGS:
            parts.append(f"And the [{SETTINGS}](#{SETTINGS.replace(' ', '-')}).")
            continue
        alike = [action for action in actions if title in OF_RUN and of_run.get(action.dest) == text(action)]
        if others := [action for action in actions if action not in alike]:
            parts += [*([f"{title.capitalize()}:"] if title not in PLAIN else []), table(others)]
        if alike:
            parts.append(f"{title.capitalize()}, as for [run](#run): {', '.join(map(named, alike))}.")
    if parser.examples:
        parts.append("\n".join(["```", *parser.examples, "```"]))
    return "\n\n".join(parts)


PLAIN = ("positional arguments", "options", "optional arguments")  # argparse's own, by version


def described(parser: Parser) -> str:
    """The description; an example, which is indented, as code."""
    parts = (parser.description or "").split("\n\n")
    return "\n\n".join(f"```\n{part}\n```" if part.startswith(" ") else " ".join(part.split()) for part in parts)


def shown(actions: list[argparse.Action]) -> list[argparse.Action]:
    """Those that a help lists, without --help itself."""
    return [action for action in actions if action.help != argparse.SUPPRESS and action.dest != argparse.SUPPRESS]


def named(action: argparse.Action) -> str:
    """An argument and the values that it takes."""
    spelled = [f"{name} {shape(action)}".strip() for name in action.option_strings] or [shape(action)]
    return ", ".join(f"`{each}`" for each in spelled)


def table(actions: list[argparse.Action]) -> str:
    """A row for each argument."""
    return "\n".join(["| argument | meaning |", "| --- | --- |", *rows(shown(actions))])


def rows(actions: list[argparse.Action]) -> Iterator[str]:
    """The rows of these arguments."""
    for action in actions:
        cells = (named(action), " ".join(text(action).split()))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def undocumented(parser: Parser, written: str) -> list[str]:
    """The arguments of a parser that have no help, or do not stand in the written page."""
    unescaped = written.replace("\\|", "|")
    found = shown(list(parser._actions))
    return [action.dest for action in found if not action.help or named(action) not in unescaped]
