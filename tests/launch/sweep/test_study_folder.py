"""A run folder holds the rows of one study, or of none in particular."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Launch
from launching import SMALL, is_one_error, rows

from bench import experiments
from bench.errors import UsageError
from bench.record.rows import first_row
from bench.record.run_folder import RunFolder
from bench.trial import Trial
from launch.sweep import request
from launch.sweep.study_folder import check_folder, keep

NAME = "resnet20_accumulation"
STUDY = f'experiments = ["{NAME}"]\narm = ["16x1", "16x4"]\nseed = [0, 1]\nrepeats = 2\n'


@pytest.fixture
def study(tmp_path: Path) -> str:
    path = tmp_path / "s.toml"
    path.write_text(STUDY)
    return str(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "runs"
    (path / "logs").mkdir(parents=True)
    return path


def put(folder: Path, *trials: Trial) -> None:
    made = [{**first_row(trial, experiments.load(trial.experiment), "x"), "status": "ok"} for trial in trials]
    RunFolder(folder).append("trials", made)


def refused(folder: Path, *words: str) -> str:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(UsageError) as caught:
        check_folder(folder, request.read(words))
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert str(folder) in str(caught.value)
    assert "choose another --out" in str(caught.value)
    return str(caught.value)


def test_a_study_goes_into_a_new_folder_an_empty_one_and_among_its_own_rows(study: str, folder: Path) -> None:
    asked = request.read([study])
    check_folder(folder / "missing", asked)
    assert not (folder / "missing").exists()
    check_folder(folder, asked)
    put(folder, *asked.trials)
    check_folder(folder, asked)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--arm", "16x8"], "16x8, repeat 0"),
        (["--arm", "16x4", "--seed", "2"], "16x4, repeat 0"),
        (["--arm", "16x4", "--repeat", "2"], "16x4, repeat 2"),
    ],
)
def test_a_study_is_not_put_among_others_rows(study: str, folder: Path, words: list[str], named: str) -> None:
    put(folder, request.read([study]).trials[0], *request.read([NAME, *words]).trials)
    assert f"holds a row of {NAME} {named}" in refused(folder, study)


def test_a_study_with_options_over_it_is_another(study: str, folder: Path) -> None:
    put(folder, *request.read([study]).trials)
    refused(folder, study, "--epochs", "7")
    check_folder(folder, request.read([study, "--timeout", "7", "--resume", "--order", "sequential"]))


def test_a_command_may_add_to_a_folder_of_no_study(folder: Path) -> None:
    put(folder, *request.read([NAME, "--arm", "16x8"]).trials)
    check_folder(folder, request.read([NAME, "--arm", "16x4"]))


def test_a_command_may_run_a_studys_trials_in_its_folder_and_no_others(study: str, folder: Path) -> None:
    asked = request.read([study])
    assert asked.study is not None
    keep(folder, asked.study)
    assert (folder / "study.toml").read_text() == STUDY
    check_folder(folder, request.read([NAME, "--arm", "16x4", "--repeats", "2"]))
    assert f"{NAME} 16x8, repeat 0" in refused(folder, NAME, "--arm", "16x4,16x8")
    assert f"{NAME} 16x4, repeat 2" in refused(folder, NAME, "--arm", "16x4", "--repeat", "1,2")


def test_the_copy_runs_as_the_study_did_and_says_if_that_was_another_way(study: str, folder: Path) -> None:
    asked = request.read([study, "--epochs", "3", "--out", str(folder)])
    assert asked.study is not None
    keep(folder, asked.study)
    first, rest = (folder / "study.toml").read_text().split("\n", 1)
    assert first == "# Not as it stands here: run with --epochs 3"
    assert rest == STUDY


def test_a_copy_is_not_written_again(study: str, folder: Path) -> None:
    asked = request.read([study])
    assert asked.study is not None
    keep(folder, asked.study)
    before = (folder / "study.toml").stat()
    keep(folder, asked.study)
    assert (folder / "study.toml").stat().st_ino == before.st_ino


@pytest.mark.parametrize("content", [b"\xff\xff\n", b"a,b\n1,2\n", b"launch_id\n" + b"x" * 200_000 + b"\n"])
def test_a_folder_with_another_table_is_refused(study: str, folder: Path, content: bytes) -> None:
    (folder / "trials.csv").write_bytes(content)
    refused(folder, study)


def test_a_damaged_copy_is_named(study: str, folder: Path) -> None:
    (folder / "study.toml").write_text("seed = = 1")
    with pytest.raises(UsageError, match=r"study\.toml is no TOML"):
        check_folder(folder, request.read([NAME]))


def test_a_study_runs_keeps_itself_and_refuses_what_is_not_its_own(launch: Launch, tmp_path: Path) -> None:
    """The commands themselves, with a real training between."""
    study, out = tmp_path / "s.toml", tmp_path / "runs"
    study.write_text(
        f'experiments = "{NAME}"\narm = "16x4"\nmodel = "resnet8"\ndata = "digits"\nlimit_train = 64\n'
        f'limit_eval = 50\nwarmup_windows = 1\nout = "{out}"\n'
    )
    done = launch("run", str(study))
    assert done.returncode == 0, done.stderr
    assert (out / "study.toml").read_text() == study.read_text()
    (row,) = rows(out, "trials")
    assert (row["arm"], row["status"]) == ("16x4", "ok")
    for words in ([str(study), "--seed", "9"], [NAME, "--arm", "16x8", *SMALL, "--out", str(out)]):
        done = launch("run", *words)
        assert is_one_error(done), done.stderr
        assert str(out) in done.stderr
    assert rows(out, "trials") == [row]


OWN = """from pathlib import Path
from bench.experiment import Experiment, Trial
Path(__file__).with_suffix(".ran").touch()
EXPERIMENT = Experiment("?", Trial(), {"a": {}})
"""


def test_a_file_that_only_the_folders_study_names_is_not_run(tmp_path: Path, folder: Path) -> None:
    theirs = tmp_path / "theirs.py"
    theirs.write_text(OWN)
    (folder / "study.toml").write_text(f'experiments = ["{NAME}", "{theirs}"]\narm = ["16x1", "a"]\n')
    assert f"{theirs}, which is not run unless it is given" in refused(folder, NAME, "--arm", "16x1")
    assert not theirs.with_suffix(".ran").exists()
    check_folder(folder, request.read([str(theirs)]))


def test_a_path_in_a_study_is_one_from_its_folder_and_its_copy_runs_the_same(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "own.py").write_text(OWN)
    path = tmp_path / "mine" / "s.toml"
    path.write_text(f"# with ./own.py\nexperiments = ['./own.py', \"{NAME}\"]\narm = ['a', '16x1']\n")
    monkeypatch.chdir(tmp_path)
    asked = request.read(["mine/s.toml"])
    assert {trial.experiment_file for trial in asked.trials} == {str(tmp_path / "mine" / "own.py"), ""}
    assert asked.study is not None
    keep(folder, asked.study)
    copied = request.read([str(folder / "study.toml")])
    assert copied.trials == asked.trials
    assert copied.study is not None
    assert copied.study.text == asked.study.text
    path.write_text('experiment = "./\\u006fwn.py"\n')
    with pytest.raises(UsageError, match=r"s\.toml, line 1: experiment has '\./own\.py' in a spelling of its own"):
        request.read(["mine/s.toml"])
