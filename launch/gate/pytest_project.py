"""One commit of a project whose training steps pytest-benchmark times: its checkout, and how pytest is started in it.

bench.pytest_plugins.side is what runs there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import UsageError
from bench.machine.environment import CHECKOUT
from bench.machine.repository import without_repository
from bench.terminal import say

SIDE = ("-p", "bench.pytest_plugins.side")
STEP = ("-p", "bench.pytest_plugins.step")
PASSED, NO_TEST = 0, 5
COLLECTED = "collected"


@dataclass(frozen=True)
class Project:
    """`tree`: the folder that pytest runs in, in the `checkout` of the commit. `original`: the user's own checkout.

    `words`: for pytest. `scratch`: a folder of this commit for what is read once.
    """

    name: str
    tree: Path
    checkout: Path
    original: Path
    words: Sequence[str]
    scratch: Path

    def pytest(self, name: str, tests: Sequence[str] | None) -> list[str]:
        """The words of a pytest that runs these tests, or all, and writes how they end under this name."""
        outcomes, settings = self.scratch / name, self.scratch / f"{name}.settings"
        outcomes.unlink(missing_ok=True)
        parts = {"outcomes": outcomes, "original": self.original, "tree": self.checkout}
        settings.write_text(
            json.dumps({"tests": tests, **{key: str(path) for key, path in parts.items()}}), encoding="utf-8"
        )
        # The ids of tests are relative to its root. A file behind a blank would count as a test when pytest seeks that.
        own = [f"--rootdir={self.tree}", f"--gate-side={settings}"]
        return [sys.executable, "-m", "pytest", *SIDE, *own, *self.words]

    def outcomes(self, name: str) -> list[dict[str, Any]]:
        """The lines that pytest wrote under this name; a last one that is not whole is left out."""
        path = self.scratch / name
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def variables(self) -> dict[str, str]:
        """Where pytest imports from: this commit's own folders first, and of this suite `bench` alone.

        Raises UsageError if the project has a `bench` of its own.
        """
        moved = [self.moved(Path(entry)) for entry in sys.path if entry and Path(entry).is_relative_to(self.original)]
        given = [Path(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
        outside = [path for path in given if path.is_absolute() and not path.is_relative_to(self.original)]
        folders = [self.tree, *moved, *(path for path in outside if path.resolve() != CHECKOUT)]
        folders = [path for path in dict.fromkeys(folders) if path.is_dir()]
        for own in (folder / name for folder in folders for name in ("bench.py", "bench/__init__.py")):
            if own.exists():
                raise UsageError(
                    f"{self.name} has a package bench of its own, {own}, which pytest would import for this suite's; "
                    "rename it"
                )
        suite = self.scratch / "path"
        suite.mkdir(exist_ok=True)
        if not (suite / "bench").is_symlink():
            (suite / "bench").symlink_to(CHECKOUT / "bench")
        # Started by a test under xdist, pytest-benchmark would take this pytest for one of its workers, and do nothing.
        return {"PYTHONPATH": os.pathsep.join(map(str, [*folders, suite])), "PYTEST_XDIST_WORKER": ""}

    def moved(self, path: Path) -> Path:
        """The same place in this commit's checkout."""
        return self.checkout / path.relative_to(self.original)

    def start_collecting(self) -> subprocess.Popen[bytes]:
        """Start a pytest that only finds the tests."""
        with open(self.scratch / "collected.txt", "w", encoding="utf-8") as output:
            return subprocess.Popen(
                [*self.pytest(COLLECTED, None), "--collect-only", "-q"],
                cwd=self.tree,
                env={**without_repository(), **self.variables()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def collected(self, code: int) -> list[str]:
        """The ids of the tests that use benchmark_step. Raises UsageError if pytest did not end well."""
        outcomes = self.outcomes(COLLECTED)
        found = next((each["found"] for each in outcomes if "found" in each), None)
        if code not in (PASSED, NO_TEST) or found is None:
            say((self.scratch / "collected.txt").read_text(errors="replace", encoding="utf-8"))
            raise UsageError(f"{self.name}: pytest {' '.join(self.words)} finds no tests; see above")
        self.refuse_foreign(outcomes)
        return list(found)

    def refuse_foreign(self, outcomes: Sequence[Mapping[str, Any]]) -> None:
        """Raises UsageError if the tests imported files of the user's checkout: both sides would run the same code."""
        for path in (path for each in outcomes for path in each.get("foreign", [])):
            raise UsageError(
                f"{self.name} imports {path}, which is no file of its commit's checkout but of yours, as an editable "
                'install does; add pythonpath = ["src"], or where else your package is, to [tool.pytest.ini_options]'
            )
