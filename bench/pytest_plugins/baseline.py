"""For pytest-benchmark in CI: a run that cannot be compared with its baseline fails. Imports no torch.

`-p bench.pytest_plugins.baseline --benchmark-baseline FILE`, with this checkout on PYTHONPATH, checks a run against the
JSON of an earlier one, a file or a folder of them. It fails if a benchmark is missing on either side, if benchmarks are
switched off, if the machines differ or the baseline does not say its own, or if the baseline is missing or none.
pytest-benchmark itself accepts all of that silently. `python -m reports compare` says whether something got slower.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

OFF = ("benchmark_disable", "benchmark_skip")
COMMON = ("node", "machine", "python_version", "resbench")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("benchmark")
    group.addoption(
        "--benchmark-baseline", type=Path, metavar="FILE", help="fail if the run cannot be compared with it"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Raises UsageError if the benchmarks would not run, or if the baseline is none."""
    path = config.getoption("benchmark_baseline")
    if path is None:
        return
    require_benchmarks(config)
    config.pluginmanager.register(Baseline(path, load(path)), "resbench-baseline")


def require_benchmarks(config: pytest.Config) -> None:
    """Raises UsageError if the benchmarks would not run."""
    if not config.pluginmanager.has_plugin("benchmark"):
        raise pytest.UsageError("there is no pytest-benchmark; run pip install pytest-benchmark")
    for option in OFF:
        if config.getoption(option):
            raise pytest.UsageError(f"--{option.replace('_', '-')} switches the benchmarks off; leave it out")
    if config.getoption("numprocesses", None):
        raise pytest.UsageError("pytest-xdist switches the benchmarks off; give -n 0")


def load(path: Path) -> list[dict[str, Any]]:
    """The runs in a JSON file of pytest-benchmark, or in all of a folder. Raises UsageError if there are none."""
    files = sorted(each for each in path.rglob("*.json") if each.is_file()) if path.is_dir() else [path]
    if not files:
        raise pytest.UsageError(f"{path} has no JSON file in it; save one with --benchmark-json")
    return [load_one(file) for file in files]


def load_one(path: Path) -> dict[str, Any]:
    """One run. Raises UsageError if the file is none of pytest-benchmark's."""
    try:
        run = json.loads(path.read_bytes())
        names = [each["fullname"] for each in run["benchmarks"]]
        if not all(isinstance(name, str) for name in names):
            raise TypeError("a name is no text")
        if not isinstance(run.setdefault("machine_info", {}), dict):
            raise TypeError("the machine is no object")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise pytest.UsageError(f"{path} is no JSON of pytest-benchmark: {type(error).__name__}") from error
    if not names:
        raise pytest.UsageError(f"{path} has no benchmark in it; save one of a run that has some")
    return run


class Baseline:
    """Checks at the end of a session whether it can be compared with the baseline."""

    def __init__(self, path: Path, runs: list[dict[str, Any]]) -> None:
        self.path, self.runs = path, runs
        self.complaints: list[str] = []

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: Any) -> None:
        benchmarks = session.config._benchmarksession
        ran = {each.fullname for each in benchmarks.benchmarks if not each.has_error}
        expected = {each["fullname"] for run in self.runs for each in run["benchmarks"]}
        self.complaints += [f"{name} is in the baseline and did not run" for name in sorted(expected - ran)]
        self.complaints += [f"{name} is not in the baseline" for name in sorted(ran - expected)]
        here = benchmarks.get_machine_info()
        for run in self.runs:
            for name in COMMON:
                was, now = run["machine_info"].get(name), here.get(name)
                if was is None and now is not None:
                    self.complaints.append(f"the baseline does not say its machine's {name}, here {now!r}")
                else:
                    self.complaints += [
                        f"the baseline is of another machine: {each}" for each in unlike(name, was, now)
                    ]
        self.complaints = list(dict.fromkeys(self.complaints))
        if self.complaints and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        for text in self.complaints:
            # A name in the baseline could hold escape codes that rewrite the terminal.
            printable = "".join(letter if letter.isprintable() else "?" for letter in text)
            terminalreporter.write_line(f"benchmark baseline {self.path}: {printable}", red=True)


def unlike(name: str, was: Any, now: Any) -> list[str]:
    """In what two machines differ. What one of them does not say, as that of an older version, may be the same."""
    if isinstance(was, dict) and isinstance(now, dict):
        both = [key for key in was if was[key] is not None and now.get(key) is not None]
        return [each for key in both for each in unlike(f"{name} {key}", was[key], now[key])]
    return [f"{name} {was!r}, here {now!r}"] if was != now else []
