"""Starts the commands that pages show, each up to the point where it would train, measure or read rows.

`python -m tests.started COMMANDS`, a list of words each, as JSON: all in this process, since all that is looked at is
what each ends with. Those that fail are printed, and the exit code is 1.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from unittest import mock

from bench.errors import Ended, UsageError
from launch import cli as launching
from launch import commands as launch_commands
from launch.commands import bisect
from launch.commands import run as launch_run
from launch.gate import request
from reports import arguments
from reports import commands as reports_commands

# Of a command that would run long, what it calls once its words are read and found to make sense.
WORK = {
    "plan": "launch.memory.plan.plans",
    "fit": "launch.sweep.fit.largest",
    "ceilings": "launch.commands.ceilings.run_context",
    "slurm": "launch.cluster.slurm.write",
}
# Of a command whose work begins with an import of torch, what reads its words.
READ = {"evaluate": "bench.options.parse", "sheet": "launch.sweep.matrix.trials"}


def start(words: Sequence[str]) -> None:
    """Start a command. Raises UsageError or SystemExit if its words are refused."""
    program, rest = (words[2], words[3:]) if words[0] == "python" else (words[0], words[1:])
    of_launch = program == "launch" or (program == "resbench" and rest[0] in launch_commands.names())
    if of_launch and list(rest[:2]) != ["gate", "exact"]:
        start_launch(rest[0], list(rest[1:]))
    else:
        parse_of_reports(rest[0], rest[1:])


def parse_of_reports(name: str, words: Sequence[str]) -> None:
    """Parse the words of a command of `python -m reports`."""
    command = reports_commands.load(name)
    parser = arguments.Parser(name, command.__doc__)
    command.arguments(parser)
    parser.parse_args(words)


def start_launch(name: str, words: list[str]) -> None:
    """Start a command of `python -m launch`."""
    if "--help" in words:
        launching.main([name, *words])
    elif name == "run":
        launch_run.run([*(word for word in words if word != "--dry-run"), "--dry-run"])
    elif name in ("gate", "bisect"):
        start_gate(name, [word for word in words if word != bisect.BY_TIME])
    else:
        with stopped(name):
            launch_commands.load(name).run([word for word in words if word != "--submit"])


def start_gate(name: str, words: list[str]) -> None:
    """Read the words as the gate does, and start what it would launch."""
    asked = request.read(words, name)
    parse_of_reports("compare", ["BASE", "HEAD", *asked.judged])
    if not asked.pytest:
        launch_run.run([*asked.words, "--dry-run"])


@contextlib.contextmanager
def stopped(name: str) -> Iterator[None]:
    """While entered, a command ends where its work would begin."""
    with contextlib.ExitStack() as stack:
        if place := WORK.get(name):
            stack.enter_context(mock.patch(place, side_effect=Ended(0)))
        if place := READ.get(name):
            stack.enter_context(mock.patch(place, side_effect=then_end(place)))
        yield


def then_end(place: str) -> Callable[..., None]:
    """What calls the function at this place, and ends."""
    module, _, name = place.rpartition(".")
    function = getattr(sys.modules.get(module) or __import__(module, fromlist=[name]), name)

    def end(*values: object, **named: object) -> None:
        function(*values, **named)
        raise Ended(0)

    return end


def main() -> int:
    """Start all of them."""
    failed = 0
    for words in json.loads(sys.argv[1]):
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
                start(words)
        except UsageError as error:
            said.write(str(error))
        except SystemExit as ended:
            if not ended.code:
                continue
        else:
            continue
        failed = 1
        print(f"{' '.join(words)}: {said.getvalue().strip()}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
