"""`python -m launch` for tests of what trials leave, and not of how a command starts: without seconds of imports.

The command runs in the test's own process. Its trials are forked off a server, as always (launch.group.fork_server),
but off one that goes on for the next command: each trial is started as all but the first of a sweep are.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.variables import new_id
from launch import cli
from launch.group import run_context
from launch.group.warm_starter import WarmStarter


class SharedStarter(WarmStarter):
    """A starter whose server outlives a command. It ends with this process, which holds the other end of its pipe."""

    def close(self) -> None:
        pass


def launch_with(log: Path, at_once: bool = False) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function that runs a command to its end, and returns what subprocess.run() would. `log`: the server's words.

    `at_once`: the server is started now, and serves forks of this process, one at a time; otherwise when first needed.
    """
    starter = SharedStarter(new_id(), log)
    if at_once:
        starter.ensure_server()

    def launch(*words: str) -> subprocess.CompletedProcess[str]:
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            patch.setattr(run_context, "WarmStarter", lambda runner_id, log: starter)
            with pytest.raises(SystemExit) as ended:
                cli.main(words)
        code = ended.value.code
        assert isinstance(code, int)
        return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())

    return launch
