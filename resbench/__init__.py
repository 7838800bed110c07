"""What does an installed resbench start with? The command `resbench`; a wheel has the other folders below this one.

Their names, such as `launch` and `models`, are first on the path of its own processes alone, so that they collide with
nobody's. In a checkout these folders stand beside this one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE if (HERE / "bench").is_dir() else HERE.parent


def main() -> None:
    """Run a command of `python -m launch` or of `python -m reports`, and exit with its code."""
    sys.path.insert(0, str(ROOT))
    if ROOT != HERE:  # an editable install: processes that are started by -m have to find the checkout too
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    from bench import entry  # first: bench/__init__.py refuses a Python older than 3.10

    entry.by_start = True
    with entry.guarded():
        run(sys.argv[1:])


def run(words: Sequence[str]) -> None:
    """The command of this name. Both folders have a `gate`: that of reports is `gate exact`."""
    from bench.errors import Ended, UsageError
    from launch import cli as launching
    from launch import commands as launch_commands
    from reports import cli as reporting
    from reports import commands as reports_commands

    name = words[0] if words else "--help"
    if name in ("-h", "--help"):
        print(usage())
        raise Ended(0 if words else 2)
    if name not in (known := sorted({*launch_commands.names(), *reports_commands.names()})):
        raise UsageError(f"no command {name!r}; choose from: {', '.join(known)}")
    of_reports = name not in launch_commands.names() or list(words[:2]) == ["gate", "exact"]
    (reporting if of_reports else launching).main(words)


def usage() -> str:
    """A line for each command."""
    from bench.errors import CODES
    from launch import commands as launch_commands
    from reports import commands as reports_commands

    lines = []
    for folder in (launch_commands, reports_commands):
        for name in folder.names():
            both = name in launch_commands.names() and folder is reports_commands
            summary = folder.load(name).__doc__.strip().partition(".\n")[0].rstrip(".")
            lines.append(f"resbench {f'{name} exact' if both else name:<12}  {summary}")
    return "\n".join(["usage: resbench COMMAND ...; resbench COMMAND --help explains it", "", *lines, "", CODES])
