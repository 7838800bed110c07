"""Reads the words of a command: argparse's parser, which answers errors with one sentence and shows a short usage.

A command declares its arguments in `arguments(parser)`: in groups, each with a metavar and a text that names its unit
and its default. Imports no torch.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from bench.called import as_called
from bench.errors import UsageError
from models.nearest import perhaps

HELP_ALL = "--help-all"
TWICE = "it is given twice"


class Parser(argparse.ArgumentParser):
    """argparse's parser without abbreviations, for options with dashes or underscores in their names.

    Raises UsageError, in argparse's words, for what it cannot parse, with the nearest option for one that is unknown.
    What it returns has two values more: `given`, the arguments that the command line gave, and `words`, see Words.
    """

    def __init__(self, prog: str, description: str | None = None, add_help: bool = True, **more: Any) -> None:
        super().__init__(
            prog=as_called(prog),
            description=description and description.strip(),
            formatter_class=Formatter,
            allow_abbrev=False,
            add_help=False,
            **more,
        )
        for action, kind in ((None, Once), ("store_true", Flag), ("help", Help)):
            self.register("action", action, kind)
        if add_help:
            self.add_argument("-h", "--help", action="help", help="show this help and exit")
        # Called with what has been parsed before --help; the settings of an experiment become the defaults here.
        self.before_help: Callable[[argparse.Namespace], None] = lambda parsed: None
        self.rare: set[str] = set()  # the options, by dest, that --help-all alone lists
        self.in_short = in_short(self.description or "")  # what --help says of it if some are rare
        self.examples: tuple[str, ...] = ()  # commands, at the end of the help

    def options(self) -> list[str]:
        """Every spelling of every option."""
        return list(self._option_string_actions)

    def parse_args(self, words: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        found, unknown = self.parse_known_args(words, namespace)
        if option := next((word.partition("=")[0] for word in unknown if word.startswith("-")), ""):
            raise UsageError(f"{self.name()} has no option {option!r}{self.perhaps(option)}; see {self.prog} --help")
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found

    def parse_known_args(self, words: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        found = argparse.Namespace(given=set(), words=[]) if namespace is None else namespace
        return super().parse_known_args(words if words is None else [self.dashed(word) for word in words], found)

    def dashed(self, word: str) -> str:
        """The word with dashes in its name if it is an option of this parser with underscores."""
        name, equals, value = word.partition("=")
        known = name.replace("_", "-") in self._option_string_actions
        return name.replace("_", "-") + equals + value if known else word

    def name(self) -> str:
        """The command's."""
        return self.prog.rpartition(" ")[2]

    def perhaps(self, option: str) -> str:
        """The nearest option, as a part of an error's sentence."""
        names = [known.removeprefix("--") for known in self.options() if known.startswith("--")]
        return perhaps(option.removeprefix("--").replace("_", "-"), names, "--")

    def error(self, message: str) -> NoReturn:
        if found := re.fullmatch(r"argument (\S+): (.*)", message, re.DOTALL):
            raise UsageError(self.of_argument(*found.groups()))
        raise UsageError(f"{self.name()}: {message}; see {self.prog} --help")

    def of_argument(self, name: str, message: str) -> str:
        """What argparse says of one argument, as a sentence with the next move. `name`: such as --cold/--no-cold."""
        action = self._option_string_actions.get(name.split("/")[0])
        values = getattr(action, "suggested", None) or getattr(action, "choices", None)
        if message.startswith("expected "):
            choose = f"choose from: {', '.join(values)}" if values else "give one"
            return f"{name} has no value; {getattr(action, 'move', choose)}"
        if message == TWICE:
            return f"{name} is given twice; give it once"
        if found := re.fullmatch(r"invalid choice: (.*) \(choose from (.*)\)", message):
            value, choose = (part.replace("'", "") for part in found.groups())
            return f"{name} is {value!r}{perhaps(value, choose.split(', '))}; choose from: {choose}"
        return f"{name}: {message}; see {self.prog} --help"

    def format_help(self, everything: bool = False) -> str:
        """The help. `everything`: with the arguments that are rare, and with the whole description."""
        formatter = self._get_formatter()
        words = textwrap.wrap(f"{self.prog} {usage(self._actions)}", formatter._width - 7, break_on_hyphens=False)
        formatter.add_usage(f"\n{' ' * 7}".join(words).replace("%", "%%"), self._actions, [])
        formatter.add_text(self.description if everything or not self.rare else self.in_short)
        for group in self._action_groups:
            formatter.start_section(group.title)
            actions = [action for action in group._group_actions if everything or not self.is_rare(action)]
            formatter.add_text(group.description if actions else None)
            formatter.add_arguments(actions)
            formatter.end_section()
        if self.rare and not everything:
            formatter.add_text(f"Settings of a trial, and more options: {self.prog} --help-all")
        if self.examples:
            wrapped = (textwrap.wrap(each, formatter._width - 4, break_on_hyphens=False) for each in self.examples)
            formatter.add_text("\n".join(["Examples:", *("  " + " \\\n    ".join(lines) for lines in wrapped)]))
        return as_called(formatter.format_help())

    def is_rare(self, action: argparse.Action) -> bool:
        """Whether --help-all alone lists it. A positional argument, such as gate's HEAD, may share an option's dest."""
        return bool(action.option_strings) and action.dest in self.rare

    def print_help(self, file: Any = None, everything: bool = False) -> None:
        self._print_message(self.format_help(everything), file or sys.stdout)


class Formatter(argparse.HelpFormatter):
    """argparse's, which keeps the paragraphs of a description, and breaks no option at its dashes."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """A paragraph with an indented line, such as an example, is kept as it is."""
        parts = text.split("\n\n")
        filled = (part if "\n  " in f"\n{part}" else "\n".join(unbroken(part, width)) for part in parts)
        return textwrap.indent("\n\n".join(filled), indent)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return unbroken(text, width)


def unbroken(text: str, width: int) -> list[str]:
    """The lines of a text, broken at spaces alone."""
    return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


def in_short(description: str) -> str:
    """Of a description, the first paragraph and the exit codes."""
    first, *others = description.split("\n\n")
    return "\n\n".join([first, *(part for part in others if part.startswith("Exit code"))])


def usage(actions: Iterable[argparse.Action]) -> str:
    """The positional arguments and the required options, which a command needs, and that there are others."""
    needed = [action for action in actions if not action.option_strings or action.required]
    words = [" ".join([*action.option_strings[-1:], shape(action)]) for action in needed]
    return " ".join([*words, "[options]"])


def shape(action: argparse.Action) -> str:
    """The values that an argument takes, such as N or [NAME ...]; empty: none."""
    metavar = action.metavar or ("{%s}" % ",".join(map(str, action.choices)) if action.choices else action.dest.upper())
    forms = {None: "{}", "?": "[{}]", "*": "[{} ...]", "+": "{} [{} ...]", 0: ""}
    return forms.get(action.nargs, "{}").replace("{}", str(metavar))


def text(action: argparse.Action) -> str:
    """The help of an argument, with its values filled in."""
    return (action.help or "") % vars(action)


class Help(argparse.Action):
    """Prints the help and exits. --help-all prints what is rare too."""

    def __init__(self, option_strings: Sequence[str], dest: str, **more: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=more["help"])

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        parser.before_help(namespace)
        parser.print_help(everything=option_string == HELP_ALL)
        parser.exit()


class Once(argparse.Action):
    """Stores the value of an argument; an option that is given twice is an error, where argparse would forget the
    first."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if option_string is not None and self.dest in namespace.given:
            raise argparse.ArgumentError(self, TWICE)
        if values or option_string is not None:
            namespace.given.add(self.dest)
        setattr(namespace, self.dest, values)


class Flag(Once):
    """True if the option is given."""

    def __init__(self, option_strings: Sequence[str], dest: str, default: bool = False, **more: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, default=default, **more)

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        super().__call__(parser, namespace, True, option_string)


class Words(Once):
    """Stores the value, and adds the option and its values, as they are, to `words`: another parser reads these."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        super().__call__(parser, namespace, values, option_string)
        given = [] if values is None else [values] if isinstance(values, str) else values
        namespace.words = [*namespace.words, option_string, *given]


class Switch(Words):
    """An option --NAME with its opposite --no-NAME, whose name is added to `words`."""

    def __init__(self, option_strings: Sequence[str], dest: str, **more: Any) -> None:
        opposite = option_strings[-1].replace("--", "--no-", 1)
        super().__init__([*option_strings, opposite], dest, nargs=0, **more)

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        super().__call__(parser, namespace, [], option_string)
        setattr(namespace, self.dest, option_string in self.option_strings[:-1])


def given_folder(text: str) -> Path:
    """A folder. Raises ArgumentTypeError for an empty text, which would be the current one."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty, which would be the current folder; give a folder")
    return Path(text)


def at_least(least: int) -> Callable[[str], int]:
    """A function that reads whole numbers from `least` on."""

    def whole(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} on")
        return int(text)

    return whole
