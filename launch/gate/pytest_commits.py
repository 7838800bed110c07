"""Two commits of a project of the user's own against each other: the training steps that its tests time."""

from __future__ import annotations

import functools
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.errors import UsageError
from bench.terminal import say
from launch.gate import measure
from launch.gate.commits import NAMES, verdict
from launch.gate.looks import SHARES, Looks
from launch.gate.out_folder import with_free_folder
from launch.gate.pytest_project import STEP, Project
from launch.gate.pytest_side import PytestSide, kill, launch_file
from launch.gate.request import GateRequest
from launch.gate.worktrees import worktrees


def compare_projects(request: GateRequest, folder: Path, original: Path, commits: Sequence[str]) -> int:
    """Run pairs of launches of both commits, and return the exit code of the verdict on them.

    `folder`: where pytest is run, in the checkout `original`. Raises UsageError if there is nothing to compare.
    """
    within = folder.relative_to(original)
    for word in request.words:
        if str(original) in word:
            raise UsageError(
                f"{word} is in your own checkout, which is not what is compared; give it relative to {folder}"
            )
    with worktrees(original, commits) as trees, tempfile.TemporaryDirectory(prefix="resbench-gate-") as scratch:
        projects = []
        for name, tree in zip(NAMES, trees, strict=True):
            if not (tree / within).is_dir():
                raise UsageError(f"{name} has no folder {within}; run this in one that both commits have")
            (own := Path(scratch) / name).mkdir()
            projects.append(Project(name, tree / within, tree, original, request.words, own))
        tests = common(projects)
        request = with_free_folder(request)
        sides = [side_of(request, *parts, tests) for parts in zip(projects, commits, strict=True)]
        looks = Looks(request.pairs, request.budget_s, (1.0,) if request.all_pairs else SHARES)
        return measure.until_decided(sides, looks, True, functools.partial(verdict, request))


def side_of(request: GateRequest, project: Project, commit: str, tests: Sequence[str]) -> PytestSide:
    """One side, which runs these tests."""
    folder = request.out / project.name

    def command(number: int) -> list[str]:
        return [*project.pytest(str(number), tests), *STEP, f"--benchmark-json={launch_file(folder, number)}"]

    return PytestSide(project.name, commit, project.tree, folder, command, project.variables(), project, tests)


def common(projects: Sequence[Project]) -> list[str]:
    """The tests that use benchmark_step in both commits. Says which are in one alone. UsageError: there is none."""
    processes = []
    try:
        processes += [project.start_collecting() for project in projects]
        codes = [process.wait() for process in processes]
    finally:
        for process in processes:
            kill(process, signal.SIGKILL)
            process.wait()
    found = [project.collected(code) for project, code in zip(projects, codes, strict=True)]
    both = [name for name in found[0] if name in found[1]]
    for project, own in zip(projects, found, strict=True):
        if alone := [name for name in own if name not in both]:
            say(f"only in {project.name}, and not compared: {', '.join(alone)}")
    if not both:
        words = " ".join(projects[0].words)
        raise UsageError(
            f"pytest {words} finds no test in both commits that uses the fixture benchmark_step; "
            "see docs/own-project.md"
        )
    return both
