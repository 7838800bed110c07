"""An experiment in a file of the user's own: what it may define, what is refused, and what tells two versions apart."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from launching import is_one_error, python

from bench import experiments, own_file
from bench.data import datasets
from bench.errors import UsageError
from bench.memory import prediction
from bench.record import experiment_lookup
from bench.record.rows import first_row
from bench.training import build, checkpoint
from bench.trial import Trial
from launch.gate import request as gate
from launch.group import accelerate_command
from launch.sweep import request

STUDY = '''"""Which of two is it?"""
import torch
from torch import nn
from bench.data.dataset import DataSet, Split
from bench.experiment import Experiment
from bench.trial import Trial

EXPERIMENT = Experiment(
    "Which of two is it?", Trial(image_size=8, lr=0.5), {"narrow": {}, "wide": {"micro_batch": 8}, "slow": {"lr": 0.1}}
)


def model(trial, classes):
    width = 6 if trial.arm == "wide" else 2
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


def data(trial):
    labels = torch.arange(12) % 3
    images = (labels * 50).byte()[:, None, None, None].expand(12, 3, 8, 8)
    return DataSet(Split(images, labels), Split(images[:6], labels[:6]), 3, (0.0,) * 3, (1.0,) * 3, ("a", "b", "c"))
'''


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "my_study.py"
    path.write_text(STUDY)
    return path


def trials(path: Path, *words: str) -> list[Trial]:
    return request.read([str(path), "--device", "cpu", *words]).trials


def test_its_arms_are_trials_with_its_own_model_and_data(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = trials(study, "--lr", "0.2,0.4")
    assert [(t.arm, t.lr) for t in asked] == [(a, lr) for a in ("narrow", "wide", "slow") for lr in (0.2, 0.4)]
    assert {(t.experiment, t.experiment_file, t.model, t.data) for t in asked} == {
        ("my_study", str(study), "own", "own")
    }
    monkeypatch.chdir(study.parent)
    assert trials(Path("./my_study.py"), "--lr", "0.2,0.4") == asked
    with pytest.raises(UsageError, match="no experiment 'my_study'"):  # no name is looked up in the current folder
        trials(Path("my_study"))
    assert {t.data for t in trials(study, "--preset", "mini")} == {"own"}


def test_its_network_and_its_images_are_what_trains(study: Path) -> None:
    narrow, wide, _ = trials(study)
    data = datasets.load(dataclasses.replace(narrow, classes=(2, 0), limit_eval=2), Path())
    assert (data.classes, data.names, data.train.labels.tolist()) == (2, ("c", "a"), [1, 0] * 4)
    assert data.train.images[:2, 0, 0, 0].tolist() == [0, 100]
    assert len(data.evaluation) == 2
    models = [build.model_for(trial, 3) for trial in (narrow, wide)]
    assert [sum(p.numel() for p in model.parameters()) for model in models] == [65, 189]  # 28 w + 3 w + 3
    again = build.model_for(narrow, 3)
    assert all(torch.equal(one, other) for one, other in zip(models[0].parameters(), again.parameters(), strict=True))
    assert prediction.predict(wide, "cpu").parts["weights"] == 4 * 189


def test_the_path_of_an_experiment_of_ours_is_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(experiments.__file__).parent)
    for path in ("dropout.py", experiments.__path__[0] + "/dropout.py"):
        assert request.read([path, "--device", "cpu"]).trials == request.read(["dropout", "--device", "cpu"]).trials
    assert gate.read(["a", "b", "dropout.py"]).words[0] == "dropout"


def test_another_version_of_it_is_another_trial_and_the_old_one_is_not_run_in_its_place(study: Path) -> None:
    before = trials(study)[0]
    study.write_text(STUDY.replace("lr=0.5", "lr=0.5 "))
    after = trials(study)[0]
    assert before.experiment_hash != after.experiment_hash
    assert before.key() != after.key()
    moved = study.with_name("elsewhere")
    moved.mkdir()
    assert trials(study.rename(moved / study.name))[0].key() == after.key()
    # Of a version that this process never saw, there is nothing to run.
    unseen = dataclasses.replace(after, experiment_hash="0" * 12, experiment_file=str(moved / study.name))
    with pytest.raises(UsageError, match=r"my_study\.py is not what it was when this began"):
        experiments.of(unseen)


def test_a_rank_is_started_with_the_path_and_the_key(study: Path) -> None:
    wide = trials(study, "--arm", "wide")[0]
    words = accelerate_command.work_of(wide, request.read([str(study)]).options)
    assert (words.module, words.words[:3]) == ("bench.cli", [str(study), "--trial-key", wide.key()])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("lr=0.5", "lr=0.5!", r"my_study.py, line 9: SyntaxError: .*; correct it there"),
        ("import torch\n", "import torc\n", r"my_study.py, line 2: ModuleNotFoundError: No module named 'torc'"),
        ("lr=0.5", "learning=0.5", r"my_study.py, line 9: TypeError: .*unexpected keyword argument 'learning'"),
        ("lr=0.5", "lr=-1.0", r"my_study.py, line 9: UsageError: --lr is -1.0"),
        ("EXPERIMENT =", "STUDY =", r"my_study.py defines no EXPERIMENT"),
        ('{"lr": 0.1}', '{"rate": 0.1}', r"my_study.py: arm slow has 'rate', which is no setting"),
        ('{"lr": 0.1}', '{"lr": "fast"}', r"my_study.py: arm slow has lr='fast'; give a value of the type float"),
        ('{"lr": 0.1}', '{"tf32": 1}', r"arm slow has tf32=1; give a value of the type bool"),
        ('{"lr": 0.1}', '{"classes": (0, "1")}', r"arm slow has classes=\(0, '1'\); .* type tuple\[int, \.\.\.\]"),
        ('{"lr": 0.1}', '{"eval_batch": 8.0}', r"arm slow has eval_batch=8.0; give a value of the type int \| None"),
        ('{"lr": 0.1}', '["lr"]', r"arm slow is a list; give a dict of settings"),
        ("lr=0.5", "tf32=1", r"my_study.py: base has tf32=1"),
        ('"slow"', "3", r"the name 3 is not of letters"),
        ('"slow"', '"slow,fast"', r"the name 'slow,fast' is not of letters"),
        ("lr=0.5", 'data="digits"', r"base has data='digits' and the file defines data\(\)"),
        ('{"lr": 0.1}', '{"head": (4,)}', r"--head is \(4,\), which a model of your own does not get"),
        ("def model(", "def network(", None),
    ],
)
def test_what_is_wrong_in_it_is_said_with_its_place(study: Path, old: str, new: str, said: str | None) -> None:
    assert old in STUDY
    study.write_text(STUDY.replace(old, new))
    if said is None:
        assert {t.model for t in trials(study)} == {Trial.model}
        with pytest.raises(UsageError, match=r"--model is own, but .*my_study.py defines no model\(trial, classes\)"):
            own_file.check(dataclasses.replace(trials(study)[0], model="own"))
        return
    with pytest.raises(UsageError, match=said) as caught:
        trials(study)
    assert "\n" not in str(caught.value)


def test_whole_numbers_and_lists_make_the_trials_that_floats_and_tuples_make(study: Path) -> None:
    study.write_text(STUDY.replace("lr=0.5", "lr=1, dropout=[]").replace('"lr": 0.1', '"lr": 2, "milestones": [0]'))
    narrow, _, slow = trials(study)
    assert [repr(each) for each in (narrow.lr, narrow.dropout, slow.lr, slow.milestones)] == [
        "1.0",
        "()",
        "2.0",
        "(0.0,)",
    ]
    words = ["--lr", "2.0", "--milestones", "0.0", "--dropout"]
    assert trials(study, "--arm", "slow", *words)[0].key() == slow.key()


def test_a_preset_that_it_cannot_have_is_refused_when_it_is_asked_for(study: Path) -> None:
    study.write_text(STUDY.replace('"slow": {"lr": 0.1}}', '"slow": {}}, mini={"lr": -1}'))
    assert len(trials(study)) == 3
    with pytest.raises(UsageError, match=r"--lr is -1\.0"):
        trials(study, "--preset", "mini")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("nn.Linear(width, classes)", "nn.Linear(width, 10)", r"makes \(2, 10\) of 2 images; .* shape \(N, 3\)"),
        ("", "\ndef model(trial, classes):\n    return []\n", "returns a list; return a torch.nn.Module"),
        (".byte()[", "[", r"images of train are torch.int64 of shape \(12, 3, 8, 8\); give torch.uint8"),
        (
            "    width = 6",
            "    width = 1 / 0\n    width = 6",
            "my_study.py, line 14: ZeroDivisionError: .*; correct it there",
        ),
        ("nn.Linear(width,", "nn.Linear(9,", "my_study.py: RuntimeError: mat1 and mat2 .*; correct it there"),
        (
            "    labels = ",
            "    raise SystemExit(3)\n    labels = ",
            "my_study.py, line 19: SystemExit: 3; correct it there",
        ),
        ("% 3", "% 4", "labels of train are from 0 to 3; give 0 to 2"),
        ('("a", "b", "c")', '("a", "b")', "2 names for 3 classes"),
    ],
)
def test_what_its_functions_return_is_looked_at(study: Path, old: str, new: str, said: str) -> None:
    study.write_text(STUDY.replace(old, new) if old else STUDY + new)
    trial = trials(study)[0]

    def built() -> None:
        build.model_for(trial, datasets.load(trial, Path()).classes)

    with pytest.raises(UsageError, match=said):
        built()


def test_without_such_a_file_nothing_is_own() -> None:
    with pytest.raises(UsageError, match="--model is own, which only an experiment in a file of your own has"):
        accelerate_command.check(request.read(["resnet20_accumulation", "--model", "own"]).trials[0], 0)
    with pytest.raises(UsageError, match=r"cannot read the experiment /nowhere/x\.py: No such file"):
        trials(Path("/nowhere/x.py"))


def test_a_row_says_what_the_file_asked_and_looking_at_it_runs_no_file(study: Path) -> None:
    trial = trials(study)[0]
    row = first_row(trial, experiments.of(trial), "x")
    study.write_text("raise SystemExit('run')")
    assert experiment_lookup.question(row) == "Which of two is it?"
    assert experiment_lookup.arm_settings(row) == {"lr", "micro_batch"}
    assert experiment_lookup.command(row) is None
    # Nor is it taken for the experiment of ours that has its name.
    row["experiment"] = "resnet_depth"
    assert experiment_lookup.question(row) == "Which of two is it?"
    assert experiment_lookup.published({**row, "arm": "residual_20"}) is None


def test_a_checkpoint_of_it_is_read_with_the_file_that_is_given_and_no_other(study: Path, tmp_path: Path) -> None:
    trial = trials(study, "--arm", "wide")[0]
    model = build.model_for(trial, 3)
    path = tmp_path / "own.pt"
    torch.save({"settings": trial.settings(), "model": model.state_dict()}, path)
    with pytest.raises(UsageError, match=r"my_study\.py, which is not run unless it is given; add --model FILE"):
        checkpoint.load_model(path)
    moved = tmp_path / "moved.py"
    moved.write_text(STUDY + "\n")
    with pytest.raises(UsageError, match=f"not {trial.experiment_hash}; give the file of then"):
        checkpoint.load_model(path, str(moved))
    moved.write_text(STUDY)
    found, loaded = checkpoint.load_model(path, str(moved))
    assert found == dataclasses.replace(trial, experiment_file=str(moved))
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in model.state_dict().items())
    assert build.model_for(dataclasses.replace(trial, weights=str(path), seed=1), 3).state_dict().keys()


def test_a_rank_refuses_to_be_another_trial_than_it_was_asked_to_be(tmp_path: Path) -> None:
    path = tmp_path / "ours.py"
    text = "from bench.experiment import Experiment, Trial\nEXPERIMENT = Experiment('?', Trial(), {'a': {}})\n"
    path.write_text(text)
    (trial,) = trials(path)
    path.write_text(text + "# later\n")
    done = python(
        "-m", "bench.cli", str(path), "--trial-key", trial.key(), "--arm", "a", "--out", str(tmp_path / "run")
    )
    assert is_one_error(done), done.stderr
    assert f"the sweep asked for trial {trial.key()}" in done.stderr
    assert not (tmp_path / "run").exists()


def test_both_sides_of_a_gate_run_the_file_and_the_images_that_are_here(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(study.parent)
    words = gate.read(["a", "b", "my_study.py", "dropout", "--data", "folder:mine"]).words
    assert words[:4] == [str(study), "dropout", "--data", f"folder:{study.parent / 'mine'}"]
