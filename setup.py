"""Builds the wheel: resbench/ with bench/, models/, launch/ and reports/ below it, and the commit in built.json.

All else is in pyproject.toml.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

CHECKOUT = Path(__file__).resolve().parent
FOLDERS = ("bench", "models", "launch", "reports")
FOUND = find_packages(str(CHECKOUT), include=[pattern for name in FOLDERS for pattern in (name, f"{name}.*")])


def git(*words: str) -> str | None:
    """What git prints in the checkout; None: it fails, or there is none."""
    try:
        done = subprocess.run(["git", "-C", str(CHECKOUT), *words], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return None if done.returncode else done.stdout.strip()


def commit() -> dict[str, object]:
    """The commit and whether nothing is uncommitted; None where this folder is no checkout."""
    top = git("rev-parse", "--show-toplevel")
    known = top is not None and CHECKOUT.samefile(top)
    changes = git("status", "--porcelain") if known else None
    return {"commit": git("rev-parse", "HEAD") if known else None, "clean": None if changes is None else not changes}


class BuildPy(build_py):
    """As setuptools', from an empty folder, with built.json."""

    def run(self) -> None:
        if self.editable_mode:
            super().run()
            return
        built = Path(self.build_lib, "resbench")
        shutil.rmtree(built, ignore_errors=True)  # modules of an earlier build that are gone since
        super().run()
        facts = {"version": self.distribution.get_version(), **commit()}
        (built / "built.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")


setup(
    packages=["resbench", *(f"resbench.{name}" for name in FOUND)],
    package_dir={"resbench": "resbench", **{f"resbench.{name}": name for name in FOLDERS}},
    package_data={"": ["*.csv", "*.json", "*.yaml"], "resbench.reports": ["pages/*"]},
    cmdclass={"build_py": BuildPy},
)
