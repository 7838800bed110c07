"""GPUs that are not there, for a command: `python -m tests.standin_cuda 2 make demo`.

Its own options come first: `python -m tests.standin_cuda --no-arithmetic 1 python -m tests.gpu --out GPU.md`. Without a
command it prints the variables for a shell, which then has them: `eval "$(python -m tests.standin_cuda 2)"`.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from . import build
from .standin import Standin

GIB = 2**30


def main() -> int:
    """Build the stand-in and run the command on it, with its exit code, or print the variables."""
    parser = argparse.ArgumentParser(prog="python -m tests.standin_cuda", description=__doc__.splitlines()[0])
    parser.add_argument("gpus", type=int, help="how many; 0: a machine without one")
    parser.add_argument("--capability", default="9.0", help="compute capability")
    parser.add_argument("--gib", type=float, default=80.0, help="memory of each")
    parser.add_argument("--no-arithmetic", action="store_true", help="CUDA's own operations, which compute nothing")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    chosen = parser.parse_args()
    if reason := build.why_not():
        print(f"error: {reason}", file=sys.stderr)
        return 2
    folder = Path(tempfile.gettempdir()) / f"standin_cuda-{os.getuid()}"
    variables = built(folder).variables(
        chosen.gpus, chosen.capability, int(chosen.gib * GIB), arithmetic=not chosen.no_arithmetic
    )
    if not chosen.command:
        print("\n".join(line(name, value) for name, value in variables.items()))
        return 0
    return run(chosen.command, variables)


def run(command: list[str], variables: Mapping[str, str | None]) -> int:
    """The command's exit code."""
    changed = {name: value for name, value in {**os.environ, **variables}.items() if value is not None}
    try:
        return subprocess.run(command, env=changed, check=False).returncode
    except OSError as error:
        print(f"error: cannot run {command[0]}: {error.strerror}", file=sys.stderr)
        return 2


def built(folder: Path) -> Standin:
    """The stand-in, in a folder of this user's own; others' files would be run with this user's rights."""
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} is another user's")
    build.build(folder)
    return Standin(folder)


def line(name: str, value: str | None) -> str:
    """What a shell sets or unsets."""
    return f"unset {name}" if value is None else f"export {name}={shlex.quote(value)}"


if __name__ == "__main__":
    sys.exit(main())
