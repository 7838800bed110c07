"""Every command that README, CONTRIBUTING and docs/ show can be started as written, with no GPU and with one, two and
eight; every link leads somewhere; and the site can be built.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import documents
import pytest
from conftest import CHECKOUT
from documents import Command
from launching import python, two_gpus, with_variables

GPUS = ("0", "1", "2", "8")
# What a command may need, as its mark says, and on how many GPUs it can be started then: up to where it would train,
# a network, a cluster or a run folder is not needed.
NEEDS = {
    "": GPUS,
    "a GPU": ("1", "2", "8"),
    "two GPUs": ("2", "8"),
    "two machines of 8 GPUs": ("8",),
    "Slurm": GPUS,
    "a Kubernetes cluster": GPUS,
    "a checkpoint": GPUS,
    "a folder of images": (),
    "a git history": GPUS,
    "a project of your own": GPUS,
    "a copy of the example, in a repository of its own": (),  # tests/test_examples.py runs it
    "pytest in your project": (),
    "ten runs or more in runs/nights": GPUS,
    "the wheel, or the command of make setup": (),
    "the network, and a GPU to be done within hours": GPUS,
    "the network, for CIFAR-10": GPUS,
    "two run folders": GPUS,
}
PAGES = documents.pages()
COMMANDS = [command for page in PAGES for command in documents.commands(page)]
TARGETS = set(re.findall(r"^([a-z][\w-]*):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
README_LINES = 200
NOT_FOUND = "[gone](nowhere.md) [lost](#no-heading)"


COLUMNS = 84
"""As wide is the box of a block of code in the site, on a screen of 1280 pixels."""


def failures(commands: Sequence[Command], gpus: str, standin_nvml: Path) -> str:
    """What `python -m tests.started` says of commands, on a machine with so many GPUs."""
    words = json.dumps([command.words for command in commands if gpus in NEEDS[command.needs]])
    done = python("-m", "tests.started", words, env=two_gpus(standin_nvml, STANDIN_NVML=gpus))
    # On stderr there is at most what --processes does to the effective batch.
    assert [line for line in done.stderr.splitlines() if not line.startswith("--processes ")] == []
    assert done.returncode == (1 if done.stdout else 0)
    return done.stdout


@pytest.mark.parametrize("gpus", GPUS)
def test_every_command_can_be_started(standin_nvml: Path, gpus: str) -> None:
    started = [command for command in COMMANDS if command.words[0] != "make"]
    assert len(started) > 40
    assert failures(started, gpus, standin_nvml) == ""


def test_a_command_that_cannot_be_started_is_found(standin_nvml: Path) -> None:
    wrong = [
        "python -m launch run resnet20_accumulation --arm 17x8",
        "python -m launch run resnet20_accumulation --processes 2",
        "python -m launch plan orin_batch_limit --memory-limit orin-nano-8gb",
        "python -m launch gate main HEAD resnet20_accumulation --arm 16x1 --budget 5parsecs",
        "python -m launch gate main HEAD resnet20_accumulation --arm 16",
        "python -m launch sheet augmentation --arm sepia",
        "python -m reports show",
        "resbench compare runs/a runs/b --margn 2%",
    ]
    found = failures([Command("", tuple(line.split())) for line in wrong], "1", standin_nvml).splitlines()
    assert [line.partition(": ")[0] for line in found] == wrong


def test_what_a_command_needs_is_known() -> None:
    assert {command.needs for command in COMMANDS} <= NEEDS.keys()


def test_a_mark_is_of_the_block_behind_it_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- needs: a GPU -->\n```\nmake test-gpu\n```\n\ntext\n\n```\nA=b make x | y\n. a\n```\n")
    found = [(command.words, command.needs) for command in documents.commands(page)]
    assert found == [(("make", "test-gpu"), "a GPU"), (("make", "x"), "")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_starts_with_a_command(page: Path) -> None:
    """A reader sees at once what it is about."""
    if page.parent.name == "docs" and page != documents.USAGE:
        head = page.read_text().partition("\n## ")[0]
        assert documents.FENCE.search(head), "no block of commands before its first section"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_reader_types_fits_the_site_s_box(page: Path) -> None:
    assert [line for line in documents.typed(page) if len(line) > COLUMNS] == []


def test_a_line_that_is_too_wide_is_found(tmp_path: Path) -> None:
    page, wide = tmp_path / "page.md", f"make x{' ' * COLUMNS}y"
    page.write_text(f"```\n{wide}\n```\n```\na table\n```\n<!-- needs: a GPU -->\n```\npytest\n```\n")
    assert documents.typed(page) == [wide, "pytest"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_target_and_module_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text()
    assert set(re.findall(r"`make ([a-z][\w-]*)", text)) <= TARGETS
    made = [command.words for command in COMMANDS if command.words[0] == "make" and command.page.endswith(page.name)]
    assert {word for words in made for word in words[1:] if "=" not in word} <= TARGETS
    modules = set(re.findall(r"\bpython -m ((?:tests|launch|reports|bench)[\w.]*)", text))
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []


def test_the_front_page_stays_short() -> None:
    assert len((CHECKOUT / "README.md").read_text().splitlines()) <= README_LINES


def test_every_link_leads_somewhere() -> None:
    assert documents.broken_links(CHECKOUT) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    right = "[ok](docs/a.md#two-words) [ok](#a-b--c) [ok](docs) `[code](x.md)` [web](https://a.b/c)"
    (tmp_path / "README.md").write_text(f"# A `b` & c\n{right}\n{NOT_FOUND}\n")
    wrong = "[gone](../README.md#a)", '<img src="a.png"'
    (tmp_path / "docs" / "a.md").write_text(f"## Two words\n{wrong[0]} {wrong[1]}>\n")
    found = [f"README.md: {link}" for link in NOT_FOUND.split()] + [f"docs/a.md: {link}" for link in wrong]
    assert documents.broken_links(tmp_path) == found


def build(checkout: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """The site of a checkout, built as `make docs` does."""
    words = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(site)]
    env = with_variables({"NO_MKDOCS_2_WARNING": "1"})
    return subprocess.run(words, cwd=checkout, env=env, capture_output=True, text=True, check=False)


def test_the_site_is_built_and_asks_the_network_for_nothing(tmp_path: Path) -> None:
    done = build(CHECKOUT, tmp_path)
    assert done.returncode == 0, done.stderr
    names = {page.stem for page in PAGES if page.parent.name == "docs"} - {"README"} | {"index"}
    assert names <= {path.stem for path in tmp_path.glob("*.html")}
    assert (tmp_path / "repository" / "tests" / "FAULTS.html").is_file()  # a page links to it
    for path in tmp_path.rglob("*.html"):
        text = path.read_text()
        assert re.findall(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=\"?https?:[^>]*>", text) == []
        assert "```" not in re.sub(r"<code>.*?</code>", "", text, flags=re.DOTALL), path.name


def test_a_site_with_a_broken_link_is_not_built(tmp_path: Path) -> None:
    for name in ("docs", "tests", "reports"):
        shutil.copytree(CHECKOUT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.py[co]", "__pycache__"))
    for name in ("mkdocs.yml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, tmp_path / name)
    with open(tmp_path / "docs" / "running.md", "a") as page:
        page.write(f"\n{NOT_FOUND}\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode == 1
    assert "nowhere.md" in done.stderr
    assert "no-heading" in done.stderr
