"""One side of `python -m launch gate --pytest`: which tests run, in which order, and how each ended. Imports no torch.

`--gate-side FILE` names a JSON file: {"tests": [ids] or null for all, "outcomes": a file, "original": the user's
checkout, "tree": that of this side's commit}. Only tests that use the fixture benchmark_step run, in the order of
`tests`, so that both sides run the same one at a time. The outcomes are lines of JSON, written as they come.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from bench.errors import TRACEBACK, one_message, shortened
from bench.pytest_plugins import in_turns
from bench.pytest_plugins.baseline import require_benchmarks

FIXTURE = "benchmark_step"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("benchmark").addoption("--gate-side", type=Path, metavar="FILE", help="set by launch gate")


def pytest_configure(config: pytest.Config) -> None:
    """Raises UsageError if the benchmarks would not run."""
    path = config.getoption("gate_side")
    if path is None:
        return
    require_benchmarks(config)
    config.pluginmanager.register(OneSide(**json.loads(path.read_text(encoding="utf-8"))), "resbench-side")


class OneSide:
    """Chooses the tests, and writes down how they end."""

    def __init__(self, tests: list[str] | None, outcomes: str, original: str, tree: str) -> None:
        self.tests, self.outcomes = tests, Path(outcomes)
        self.original, self.tree = Path(original), Path(tree)
        self.errors: dict[str, str] = {}

    def write(self, **found: Any) -> None:
        with self.outcomes.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        steps = {item.nodeid: item for item in items if FIXTURE in getattr(item, "fixturenames", ())}
        chosen = list(steps) if self.tests is None else [name for name in self.tests if name in steps]
        left = [item for item in items if item.nodeid not in chosen]
        config.hook.pytest_deselected(items=left)
        items[:] = [steps[name] for name in chosen]
        self.write(found=chosen, left_out=len(left))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        self.write(started=item.nodeid)
        result = yield
        self.write(ended=item.nodeid, error=self.errors.get(item.nodeid, ""))
        if in_turns.takes_part(item):
            in_turns.pass_by(item)
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.errors.setdefault(report.nodeid, message(report))

    def pytest_sessionfinish(self) -> None:
        self.write(foreign=self.foreign())

    def foreign(self) -> list[str]:
        """Files of the user's checkout that were imported instead of this commit's, as an editable install does."""
        found = []
        for module in list(sys.modules.values()):
            file = Path(str(getattr(module, "__file__", None) or ""))
            inside = file.is_relative_to(self.original) and not file.is_relative_to(self.tree)
            if inside and (self.tree / file.relative_to(self.original)).exists():
                found.append(str(file))
        return sorted(found)


def message(report: pytest.TestReport) -> str:
    """The error of a test that failed, as one line."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(crash.message if crash is not None else report.longrepr).strip()
    if TRACEBACK not in text:  # of an assertion the first line says what was not so
        text = text.partition("\n")[0]
    return shortened(one_message(text), 300) or "no message"
