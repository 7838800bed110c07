"""Runs the checks of `make test-gpu` on the stand-in, for tests that look at what each came to."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

from conftest import CHECKOUT
from launching import Command
from standin_cuda.standin import Standin

FOLDER = CHECKOUT / "tests" / "gpu"
SECONDS = 560  # it ends by itself before


@dataclass(frozen=True)
class Ran:
    """A run of the checks: its exit code, its words, and the lines of the table that it wrote."""

    code: int
    said: str
    lines: tuple[tuple[str, str], ...]

    def results(self, text: str) -> list[str]:
        """How the check with this text ended, in each of its cases."""
        return [result for line, result in self.lines if line == text or line.startswith(f"{text} (")]


def checks(file: str) -> dict[str, tuple[str, bool]]:
    """The checks of a file of tests/gpu: name -> (what they say, whether they want no arithmetic)."""
    body = ast.parse((FOLDER / f"test_gpu_{file}.py").read_text()).body
    found = [node for node in body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    wanting = {node.name for node in found if any("without_arithmetic" in ast.unparse(d) for d in node.decorator_list)}
    return {node.name: ((ast.get_docstring(node) or "").split("\n\n")[0], node.name in wanting) for node in found}


def run(standin: Standin, scratch: Path, gpus: int, arithmetic: bool) -> Ran:
    """The checks that this run of the stand-in can show."""
    out = scratch / "GPU.md"
    words = ["-m", "tests.gpu", "--out", str(out)]
    with Command(words, scratch, env=standin.variables(gpus, arithmetic=arithmetic)) as command:
        code = command.wait(SECONDS)
    rows = [line.strip("| ").split(" | ") for line in out.read_text().splitlines() if line.startswith("| ")]
    lines = tuple((row[0], row[1]) for row in rows[2:])
    return Ran(code, command.stdout.read_text() + command.stderr.read_text(), lines)
