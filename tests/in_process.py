"""`python -m reports`, which a command starts to judge, in the test's own process, for tests of what comes of it."""

from __future__ import annotations

import contextlib
import io
import subprocess
from typing import Any

import pytest

from reports.cli import main as reports


def judge_in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m reports` in this process, which has imported pandas: each start of another one takes a second."""
    real = subprocess.run

    def run(command: Any, **how: Any) -> subprocess.CompletedProcess[Any]:
        if list(command[1:3]) != ["-m", "reports"]:
            return real(command, **how)
        code: Any = 0
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            try:
                reports(command[3:])
            except SystemExit as ended:
                code = ended.code or 0
        if how.get("stdout") is None:
            print(printed.getvalue(), end="")
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(subprocess, "run", run)
