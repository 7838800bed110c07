"""What does an installed resbench start with? The command `resbench`; a wheel has the other folders below this one.

Their names, such as `launch` and `models`, are first on the path of its own processes alone, so that they collide with
nobody's. In a checkout these folders stand beside this one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE if (HERE / "bench").is_dir() else HERE.parent


def main() -> None:
    """Run a command of `python -m launch` or of `python -m reports`, and exit with its code."""
    sys.path.insert(0, str(ROOT))
    if ROOT != HERE:  # an editable install: processes that are started by -m have to find the checkout too
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    from bench import called, entry  # first: bench/__init__.py refuses a Python older than 3.10

    called.by_resbench = True
    with entry.guarded():
        run(sys.argv[1:])


def run(words: Sequence[str]) -> None:
    """The command of this name. Both folders have a `gate`: that of reports is `gate exact`."""
    from bench.arguments import Parser
    from bench.errors import Ended, UsageError
    from bench.screen import screen
    from launch import cli as launching
    from launch import commands as launch_commands
    from models.nearest import perhaps
    from reports import cli as reporting
    from reports import commands as reports_commands

    name = words[0] if words else "--help"
    if name in ("-h", "--help"):
        print(screen("resbench", commands()))
        raise Ended(0 if words else 2)
    if name == "completion":
        from resbench import completion

        parser = Parser("resbench completion", completion.__doc__)
        completion.arguments(parser)
        print(completion.script(parser.parse_args(words[1:]).shell, commands()))
        return
    if name not in (known := sorted({*launch_commands.names(), *reports_commands.names(), "completion"})):
        raise UsageError(f"no command {name!r}{perhaps(name, known)}; choose from: {', '.join(known)}")
    of_reports = name not in launch_commands.names() or list(words[:2]) == ["gate", "exact"]
    (reporting if of_reports else launching).main(words)


def commands() -> dict[str, Any]:
    """Name -> module of every command."""
    from launch import commands as of_launch
    from reports import commands as of_reports
    from resbench import completion

    found = {name: of_launch.load(name) for name in of_launch.names()}
    found |= {f"{name} exact" if name in found else name: of_reports.load(name) for name in of_reports.names()}
    return {**found, "completion": completion}
