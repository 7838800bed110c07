"""The rules that hold all over the house, checked over its folders, so that a new file is covered at once."""

from __future__ import annotations

import ast
import dataclasses
import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import docs_tables
import pytest
from conftest import CHECKOUT
from house import HOUSE, MAY_IMPORT, ROOMS
from launching import is_one_error, python

from bench import experiments
from bench.experiment import Experiment
from bench.probes import probe_modules
from bench.record.columns import FILES as CSV_FILES
from bench.screen import summary
from bench.trial import FIXED, Trial, option
from launch import cli as launching
from launch import commands
from reports import dictionary

HEAVY = ("torch", "torchvision", "accelerate", "lightning", "sklearn")
LONGEST_FUNCTION = 60
MOST_FILES = 14
EXPERIMENTS = experiments.names()
COMMANDS = commands.names()
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


def dotted(path: Path) -> str:
    """bench.machine.nvml of bench/machine/nvml.py."""
    return ".".join(path.relative_to(CHECKOUT).with_suffix("").parts)


def room_of(name: str) -> str | None:
    """The room of a dotted name of ours; None: the folder itself, or another's."""
    folder, _, rest = name.partition(".")
    return next((room for room in ROOMS.get(folder, ()) if rest and is_below(rest, (room,))), None)


def wrong_way(path: Path, imports: Iterable[str]) -> list[str]:
    """The imports of ours that this file may not have."""
    folder = path.relative_to(CHECKOUT).parts[0]
    ours = [name for name in imports if is_below(name, (*HOUSE, "tests"))]
    room = room_of(dotted(path))
    if room is None:  # models, or the __init__ of a folder
        return [name for name in ours if not is_below(name, (folder, *MAY_IMPORT[folder]))]
    allowed = (room, *ROOMS[folder][room])
    inside = {name for name in ours if is_below(name, (folder,)) and room_of(name) in (None, *allowed)}
    return [name for name in ours if name not in inside and not is_below(name, MAY_IMPORT[folder])]


@pytest.mark.parametrize("path", FILES, ids=names(FILES))
def test_imports_run_one_way(path: Path) -> None:
    found = wrong_way(path, imported(path))
    if CHECKOUT / "bench" / "experiments" in path.parents:  # to run itself
        found = [name for name in found if name != "bench.cli.main"]
    assert found == [], "see ROOMS in tests/house.py"


@pytest.mark.parametrize(
    ("file", "imports"),
    [
        ("models/cifar.py", "bench.trial.Trial"),
        ("bench/machine/nvml.py", "bench.probes.Probe"),
        ("bench/machine/nvml.py", "launch.cli.main"),
        ("bench/trial.py", "bench.worker"),
        ("launch/group/watchdog.py", "launch.sweep.runner"),
        ("launch/sweep/runner.py", "launch.commands.run"),
        ("reports/tables/table.py", "reports.verdicts.compare"),
        ("reports/tables/table.py", "bench.machine.nvml"),
        ("reports/page.py", "tests.conftest"),
    ],
)
def test_an_import_that_runs_the_wrong_way_is_found(file: str, imports: str) -> None:
    assert wrong_way(CHECKOUT / file, [*imported(CHECKOUT / file), imports]) == [imports]


def test_a_room_may_import_only_rooms_that_stand_before_it() -> None:
    for rooms in ROOMS.values():
        order = list(rooms)
        assert [
            room for room, others in rooms.items() if any(o not in order[: order.index(room)] for o in others)
        ] == []


def test_every_file_stands_in_a_room() -> None:
    inside = [path for path in FILES if path.name != "__init__.py" and CHECKOUT / "models" not in path.parents]
    assert [str(path) for path in inside if room_of(dotted(path)) is None] == []


def test_a_room_says_what_it_answers_and_is_small() -> None:
    for folder, rooms in ROOMS.items():
        for room in rooms:
            if (package := CHECKOUT / folder / room).is_dir():
                assert ast.get_docstring(ast.parse((package / "__init__.py").read_text())), package
                assert len(list(package.glob("*.py"))) <= MOST_FILES + 1, package


def test_the_files_that_a_room_names_are_there() -> None:
    for package in (path.parent for path in FILES if path.name == "__init__.py"):
        text = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""
        named = re.findall(r"^ *([\w/]+\.py)\b", text, re.MULTILINE)
        assert [name for name in named if not (package / name).exists() and not (CHECKOUT / name).exists()] == []


def test_the_tests_lie_in_the_same_rooms() -> None:
    folders = {path.parent.relative_to(CHECKOUT / "tests") for path in (CHECKOUT / "tests").rglob("test_*.py")}
    rooms = {Path(folder, room) for folder in HOUSE for room in ROOMS[folder]} | set(map(Path, HOUSE))
    assert {folder for folder in folders if folder.parts and folder.parts[0] in HOUSE} <= rooms


def test_no_two_files_import_each_other() -> None:
    modules = {
        ".".join(path.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES
    }
    of = {
        path: {
            modules[found] for name in imported(path) for found in (name, name.rpartition(".")[0]) if found in modules
        }
        for path in FILES
    }
    assert [(str(one), str(other)) for one in FILES for other in of[one] if other != one and one in of[other]] == []


REPORTS = [path for path in FILES if CHECKOUT / "reports" in path.parents]


@pytest.mark.parametrize("path", REPORTS, ids=names(REPORTS))
def test_reports_never_import_torch(path: Path) -> None:
    assert [name for name in imported(path) if is_below(name, HEAVY)] == []


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_is_plain_data(name: str) -> None:
    """All that it may import is what a trial and an experiment are, and, to run, the command line."""
    path = CHECKOUT / "bench" / "experiments" / f"{name}.py"
    allowed = ("bench.trial", "bench.experiment", "bench.cli")
    assert [
        found for found in imported(path) if found != "__future__.annotations" and not is_below(found, allowed)
    ] == []


@pytest.mark.parametrize(
    "words",
    [
        ["launch", "list"],
        ["launch", "env"],
        ["launch", "--help"],
        *(["launch", name, "--help"] for name in COMMANDS),
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
        ["reports", "across", "--help"],
        ["reports", "across", "FOLDER", "--with-published"],
        ["reports", "show", "FOLDER"],
        ["reports", "page", "FOLDER", "-o", "FOLDER/page.html"],
        ["reports", "plot", "FOLDER"],
        ["reports", "columns", "FOLDER/columns.md"],
        *(["launch", "run", name, "--help"] for name in EXPERIMENTS),
        ["launch", "run", "resnet20_accumulation", "--help-all"],
    ],
    ids=" ".join,
)
def test_what_trains_nothing_imports_no_torch(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "trials.csv").write_text("launch_id,status,experiment,arm,images_per_s\na,ok,e,x,100.5\n")
    (tmp_path / "columns.md").write_text("\n".join(dictionary.marks("columns")) + "\n")
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
    fields = {field.name for field in dataclasses.fields(Trial)} - {*FIXED, "arm"}
    assert [field for field in fields if option(field) not in done.stdout] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_s_help_begins_with_its_usage_and_a_line(name: str) -> None:
    assert "\n" not in summary(commands.load(name))
    shown = launching.parser(name).format_help()
    assert shown.startswith(f"usage: python -m launch {name}")
    assert f"\n\n{summary(commands.load(name))}." in shown


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


@pytest.mark.parametrize("name", docs_tables.PARTS)
def test_the_docs_hold_their_generated_parts_as_they_are(name: str) -> None:
    text = docs_tables.path(name).read_text()
    assert [text.count(mark) for mark in dictionary.marks(name)] == [1, 1]
    parts = dictionary.part(text, name)
    assert parts is not None
    assert parts[1].strip() == docs_tables.PARTS[name][1]().strip(), "run: make docs-tables"


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
