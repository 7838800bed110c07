"""The workflows run only what there is."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import CHECKOUT
from oldest import project

from bench.arguments import Parser
from bench.errors import UsageError
from launch.commands import gate
from launch.sweep import request
from reports import commands

WORKFLOWS = sorted((CHECKOUT / ".github" / "workflows").glob("*.yml"))


def jobs(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())["jobs"]


def lines() -> list[str]:
    """All that the workflows run of ours."""
    steps = [step for path in WORKFLOWS for job in jobs(path).values() for step in job["steps"]]
    return [line for step in steps for line in step.get("run", "").splitlines() if "python -m" in line]


def test_there_are_some() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "perf.yml"]
    assert len(lines()) > 5


@pytest.mark.parametrize("line", lines())
def test_what_a_workflow_runs_is_a_command_of_ours(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CHECKOUT)
    start, _, rest = line.partition("python -m ")
    assert start == ".venv/bin/"
    house, name, *words = shlex.split(rest.partition(" | ")[0])
    if house == "reports":
        parser = Parser(name, "")
        commands.load(name).arguments(parser)
        parser.parse_args(words)
        with pytest.raises(UsageError):
            parser.parse_args([*words, "--no-such-option"])
    elif name == "gate":
        asked = gate.read(words)
        assert request.read([*asked.words, "--out", "runs/x"]).trials
    else:
        assert (house, name) == ("launch", "run")
        assert request.read(words).trials


def test_what_a_workflow_makes_is_a_target() -> None:
    steps = [step.get("run", "") for path in WORKFLOWS for job in jobs(path).values() for step in job["steps"]]
    made = {word for run in steps for line in run.splitlines() if line.startswith("make ") for word in line.split()[1:]}
    (targets,) = re.findall(r"^\.PHONY: (.*)", (CHECKOUT / "Makefile").read_text(), flags=re.MULTILINE)
    assert made <= set(targets.split())
    assert "test-oldest" in made


def test_the_oldest_versions_are_tested_on_the_oldest_python_and_the_newest_on_a_newer_one() -> None:
    found = jobs(CHECKOUT / ".github" / "workflows" / "ci.yml")
    oldest = project()["project"]["requires-python"].removeprefix(">=")
    (python,) = [step["with"]["python-version"] for step in found["oldest"]["steps"] if "with" in step]
    assert python == oldest
    assert oldest in found["test"]["strategy"]["matrix"]["python"]
    assert len(found["test"]["strategy"]["matrix"]["python"]) > 1


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_text_of_others_is_put_into_a_shell(path: Path) -> None:
    steps = [step for job in jobs(path).values() for step in job["steps"]]
    expressions = [step["run"] for step in steps if "${{" in step.get("run", "")]
    assert expressions == []
    assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_action_is_of_a_third_party(path: Path) -> None:
    used = [step["uses"] for job in jobs(path).values() for step in job["steps"] if "uses" in step]
    assert [action for action in used if not action.startswith("actions/")] == []


def test_one_job_may_write_comments_and_runs_no_code_of_the_pull_request() -> None:
    own = {name: job for path in WORKFLOWS for name, job in jobs(path).items() if "permissions" in job}
    assert list(own) == ["comment"]
    job = own["comment"]
    assert job["permissions"] == {"pull-requests": "write"}
    for condition in (
        "!cancelled()",  # a run that a newer commit ended has nothing to say
        "github.event_name == 'pull_request'",
        "github.event.pull_request.head.repo.full_name == github.repository",  # a fork's token may not write
        "github.actor != 'dependabot[bot]'",
    ):
        assert condition in job["if"].split(" && ")
    download, comment = job["steps"]
    assert download["uses"] == "actions/download-artifact@v4"  # of the text; nothing is checked out
    assert set(comment) == {"env", "run"}
    assert "pull_request_target" not in (CHECKOUT / ".github" / "workflows" / "perf.yml").read_text()


def test_the_comment_has_the_text_that_the_other_jobs_upload() -> None:
    found = jobs(CHECKOUT / ".github" / "workflows" / "perf.yml")
    uploads = {
        step["with"]["name"]: step["with"]["path"].split()
        for name in found["comment"]["needs"]
        for step in found[name]["steps"]
        if step.get("uses", "").startswith("actions/upload-artifact@") and step["with"]["name"].startswith("markdown-")
    }
    assert uploads == {"markdown-exact": ["exact.md", "compiled.md"], "markdown-paired": ["paired.md"]}
    written = [line.split()[line.split().index("--markdown") + 1] for line in lines() if "--markdown" in line]
    assert set(written) == {"exact.md", "compiled.md", "paired.md"}
    assert found["comment"]["steps"][0]["with"] == {"pattern": "markdown-*", "merge-multiple": True, "path": "markdown"}


def commented(folder: Path, texts: dict[str, str], commit: str = "abc") -> tuple[list[str], str]:
    """Run the script of the comment with a gh that keeps what it was given: (its arguments, the comment)."""
    (folder / "markdown").mkdir()
    for name, text in texts.items():
        (folder / "markdown" / name).write_text(text)
    tool = folder / "bin" / "gh"
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > asked\n')
    tool.chmod(0o755)
    script = jobs(CHECKOUT / ".github" / "workflows" / "perf.yml")["comment"]["steps"][1]["run"]
    github = {"SERVER_URL": "https://github.com", "REPOSITORY": "me/mine", "RUN_ID": "5"}
    environment = {"PATH": f"{tool.parent}:{os.environ['PATH']}", "PULL_REQUEST": "7", "COMMIT": commit}
    environment |= {f"GITHUB_{name}": value for name, value in github.items()}
    subprocess.run(["bash", "-e", "-c", script], cwd=folder, env=environment, check=True)  # as a runner starts it
    return (folder / "asked").read_text().splitlines(), (folder / "comment.md").read_text()


def test_one_comment_is_kept_up_to_date(tmp_path: Path) -> None:
    asked, text = commented(tmp_path, {"exact.md": "## Counts changed: 1\n", "paired.md": "## Inconclusive: 2\n"})
    said = "pr comment 7 --repo me/mine --edit-last --create-if-none --body-file comment.md"
    assert " ".join(asked) == said
    head = "Commit abc, [its run](https://github.com/me/mine/actions/runs/5):\n\n"
    assert text == head + "## Counts changed: 1\n## Inconclusive: 2\n"


def test_a_run_without_a_verdict_says_so_instead_of_leaving_the_last_one(tmp_path: Path) -> None:
    _, text = commented(tmp_path, {})
    assert text.splitlines()[2:] == ["There is no verdict: the run ended before it. Its log says why."]


def test_of_more_than_github_takes_the_verdicts_are_left(tmp_path: Path) -> None:
    rows = "| a row | of a table |\n" * 5000
    _, text = commented(
        tmp_path, {"exact.md": f"## Counts changed: 1\n{rows}", "paired.md": f"## Inconclusive: 2\n{rows}"}
    )
    assert "## Counts changed: 1\n## Inconclusive: 2\n\nThe tables are too large for a comment" in text
    assert len(text) < 1000


def test_what_stands_in_the_environment_is_no_command(tmp_path: Path) -> None:
    _, text = commented(tmp_path, {"exact.md": "$(touch a) `touch b`\n"}, commit="$(touch c) %s `touch d`; touch e")
    assert "Commit $(touch c) %s `touch d`; touch e, [" in text
    assert not [name for name in "abcde" if (tmp_path / name).exists()]
