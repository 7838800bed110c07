"""The rules that hold all over the house, checked over its folders, so that a new file is covered at once."""

from __future__ import annotations

import ast
import dataclasses
import functools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import CHECKOUT
from launching import is_one_error, python

from bench import experiments
from bench.record.columns import FILES as CSV_FILES
from bench.record.columns import probe_modules
from bench.trial import Experiment, Trial, option
from reports import dictionary

HOUSE = ("models", "bench", "launch", "reports")
# What the files of a folder may import of ours; a name stands for all that is below it.
MAY_IMPORT = {
    "models": ("models",),
    "bench": ("bench", "models"),
    "launch": ("launch", "bench", "models"),
    "reports": ("reports", "bench.record"),
}
HEAVY = ("torch", "torchvision", "accelerate", "lightning", "sklearn")
LONGEST_FUNCTION = 60
EXPERIMENTS = experiments.names()
FILES = sorted(path for folder in HOUSE for path in (CHECKOUT / folder).rglob("*.py"))


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(CHECKOUT)) for path in paths]


@functools.cache
def nodes(path: Path) -> list[ast.AST]:
    """All that a file is made of, as Python parses it."""
    return list(ast.walk(ast.parse(path.read_text())))


def imported(path: Path) -> Iterator[str]:
    """Dotted names of all that a file imports, anywhere in it: `from a import b` gives a.b."""
    package = path.relative_to(CHECKOUT).parent.parts
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            start = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{start}.{alias.name}" for alias in node.names)


def is_below(name: str, tops: tuple[str, ...]) -> bool:
    return any(name == top or name.startswith(f"{top}.") for top in tops)


# Security


@pytest.mark.parametrize("path", FILES, ids=names(FILES))
def test_nothing_that_we_load_ourselves_is_a_pickle_to_be_run(path: Path) -> None:
    calls = [node for node in nodes(path) if isinstance(node, ast.Call)]
    for call in calls:
        if ast.unparse(call.func) == "torch.load":
            assert {word.arg: ast.unparse(word.value) for word in call.keywords}.get("weights_only") == "True"
        assert not ast.unparse(call.func).endswith(".read_pickle")
        assert "allow_pickle" not in {word.arg for word in call.keywords}
    assert not [name for name in imported(path) if is_below(name, ("pickle", "joblib", "dill", "torch.load"))]


# Imports


@pytest.mark.parametrize("path", FILES, ids=names(FILES))
def test_imports_run_one_way(path: Path) -> None:
    folder = path.relative_to(CHECKOUT).parts[0]
    ours = [name for name in imported(path) if is_below(name, (*HOUSE, "tests"))]
    assert [name for name in ours if not is_below(name, MAY_IMPORT[folder])] == []


REPORTS = [path for path in FILES if CHECKOUT / "reports" in path.parents]


@pytest.mark.parametrize("path", REPORTS, ids=names(REPORTS))
def test_reports_never_import_torch(path: Path) -> None:
    assert [name for name in imported(path) if is_below(name, HEAVY)] == []


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_is_plain_data(name: str) -> None:
    """All that it may reach for is what a trial is, and, to run, the command line."""
    path = CHECKOUT / "bench" / "experiments" / f"{name}.py"
    assert [found for found in imported(path) if not is_below(found, ("bench.trial", "bench.cli"))] == []


@pytest.mark.parametrize(
    "words",
    [
        ["launch", "list"],
        ["launch", "env"],
        ["launch", "--help"],
        ["launch", "run", "--help"],
        ["launch", "k8s", "resnet20_accumulation", "--image", "a"],
        ["launch", "slurm", "resnet20_accumulation", "--out", "FOLDER/runs"],
        ["launch", "run", "resnet20_accumulation", "--micro-batch", "0"],
        ["launch", "run", "resnet20_accumulation", "--weights", "missing.pt"],
        ["launch", "run", "resnet20_accumulation", "--arm", "no_such_arm"],
        ["launch", "run", "studies/accumulation.toml", "--dry-run", "--out", "FOLDER/new"],
        ["reports", "--help"],
        ["reports", "merge", "FOLDER", "-o", "FOLDER/merged"],
        ["reports", "show", "--help"],
        ["reports", "activations", "--help"],
        ["reports", "show", "FOLDER"],
        ["reports", "page", "FOLDER", "-o", "FOLDER/page.html"],
        ["reports", "plot", "FOLDER"],
        ["reports", "columns", "FOLDER/README.md"],
        *(["launch", "run", name, "--help"] for name in EXPERIMENTS),
    ],
    ids=" ".join,
)
def test_what_trains_nothing_imports_no_torch(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "trials.csv").write_text("launch_id,status,experiment,arm,images_per_s\na,ok,e,x,100.5\n")
    (tmp_path / "README.md").write_text(f"{dictionary.BEGIN}\n{dictionary.END}\n")
    words = [word.replace("FOLDER", str(tmp_path)) for word in words]
    assert without_torch(*words).returncode in (0, 2)


def without_torch(*words: str) -> subprocess.CompletedProcess[str]:
    """A command run to its end, which must not have imported torch.

    Python itself lists what it imports, in the command and in every Python that it starts.
    """
    done = python("-m", *words, env={"PYTHONPROFILEIMPORTTIME": "1"})
    modules = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
    assert "runpy" in modules
    assert [module for module in modules if is_below(module, HEAVY)] == []
    return done


# Experiments


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_asks_a_question_and_its_arms_are_trials(name: str) -> None:
    experiment = experiments.load(name)
    assert isinstance(experiment, Experiment)
    assert experiment.question.endswith("?")
    assert experiment.arms
    for arm in experiment.arms:
        trial = experiment.trial(name, arm)
        assert (trial.experiment, trial.arm) == (name, arm)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_file_begins_with_its_docstring(name: str) -> None:
    docstring = ast.get_docstring(ast.parse((CHECKOUT / "bench" / "experiments" / f"{name}.py").read_text()))
    assert docstring
    assert "?" in docstring.splitlines()[0]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_published_figures_belong_to_arms_and_name_their_source(name: str) -> None:
    experiment = experiments.load(name)
    assert set(experiment.published) <= set(experiment.arms)
    for published in experiment.published.values():
        assert published.where
        accuracies = [a for a in (published.train_accuracy, published.eval_accuracy) if a is not None]
        assert all(0 < accuracy < 1 for accuracy in accuracies)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_run_by_hand_takes_every_field_of_a_trial(name: str) -> None:
    done = without_torch(f"bench.experiments.{name}", "--help")
    assert done.returncode == 0, done.stderr
    assert all(arm in done.stdout for arm in experiments.load(name).arms)
    fields = {field.name for field in dataclasses.fields(Trial)} - {"experiment", "arm"}
    assert [field for field in fields if option(field) not in done.stdout] == []


def test_list_shows_every_experiment_and_arm() -> None:
    shown = python("-m", "launch", "list", env={"COLUMNS": "200"}).stdout
    words = shown.replace(",", " ").split()
    for name in EXPERIMENTS:
        assert {name, *experiments.load(name).arms} <= set(words)


# Probes


def test_no_two_probes_have_a_total_of_one_name() -> None:
    """They travel together."""
    totals = [name for module in probe_modules() for name in module.Probe.TOTALS]
    assert sorted(totals) == sorted(set(totals))


def test_a_probe_gives_reasons_for_columns_of_its_own() -> None:
    for module in probe_modules():
        own = {column.name for file in CSV_FILES for column in getattr(module, file.upper(), ())}
        why = module.unreadable() if hasattr(module, "unreadable") else {}
        assert set(why) <= own, module.__name__
        assert all(why.values())


# Files


def test_the_readme_holds_the_columns_as_they_are() -> None:
    text = (CHECKOUT / "README.md").read_text()
    assert text.count(dictionary.BEGIN) == text.count(dictionary.END) == 1
    written = text.partition(dictionary.BEGIN)[2].partition(dictionary.END)[0].strip()
    assert written == dictionary.markdown(), "run: python -m reports columns README.md"


@pytest.mark.parametrize("path", FILES, ids=names(FILES))
def test_functions_stay_short(path: Path) -> None:
    functions = [node for node in nodes(path) if isinstance(node, ast.FunctionDef)]
    lengths = {function.name: (function.end_lineno or 0) - function.lineno + 1 for function in functions}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION} == {}


def old_python() -> str | None:
    """A Python that is too old for us, if this machine has one that runs."""
    pyenv = sorted((Path.home() / ".pyenv" / "versions").glob("3.[6-9].*/bin/python"), reverse=True)
    on_path = [shutil.which(name) for name in ("python3.9", "python3.8", "python3.7")]
    for old in [*on_path, *map(str, pyenv)]:
        if old and subprocess.run([old, "-c", ""], capture_output=True, check=False).returncode == 0:
            return old
    return None


@pytest.mark.parametrize("words", [["launch", "list"], ["launch"], ["reports", "show", "x"]], ids=" ".join)
def test_an_old_python_gets_one_sentence(words: list[str]) -> None:
    old = old_python()
    if old is None:
        pytest.skip("no Python older than 3.10 on this machine")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([old, "-m", *words], cwd=CHECKOUT, env=clean, capture_output=True, text=True, check=False)
    assert is_one_error(done), done.stderr
    assert "3.10" in done.stderr
