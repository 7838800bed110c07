"""By which command was this process called, and how does it start others? `python -m launch` and `reports`; `resbench`.

Imports no package.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # of our folders: the checkout, or a wheel's resbench/
START = ROOT / ("start.py" if (ROOT / "start.py").is_file() else "resbench/start.py")
# Whether the command was resbench, as it always is in a wheel. Processes of ours then start by START.
by_resbench = START.parent == ROOT or str(START) in sys.orig_argv
OURS = re.compile(r"\bpython\s+-m\s+(launch|reports)\b")


def as_called(text: str) -> str:
    """The text with our commands in the form in which this process was called: in a wheel there is no other."""
    return OURS.sub("resbench", text) if by_resbench else text


def module_words(module: str) -> list[str]:
    """The words behind `python` that run a module: -m MODULE, or START MODULE."""
    return [str(START), module] if by_resbench else ["-m", module]


def module_command(module: str, *words: str) -> list[str]:
    """The command that runs a module of ours in a process of its own."""
    return [sys.executable, *module_words(module), *words]
