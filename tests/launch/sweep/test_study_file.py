"""A study file is the command line in a file: the same trials come of it, and what is wrong in it is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import CHECKOUT, Launch
from launching import is_one_error

from bench.errors import UsageError
from launch.sweep import request, study_file

STUDIES = sorted((CHECKOUT / "studies").glob("*.toml"))
ALL = """
experiments = ["resnet20_accumulation", "resnet152_frozen"]
arm = ["16x8", "bn_eval"]
repeats = 2
precision = ["no", "bf16"]
micro-batch = 8
classes = [0, 1, 2]
milestones = []
lr = 1
replaced_skip = false
compile = "default"
limit_train = ["None", 64]
resume = true
checkpoint = false
timeout = 600
stall-timeout = "None"
fail_fast = true
device = "cpu"
out = "runs/a,b"
"""
SAME = (
    "resnet20_accumulation resnet152_frozen --arm 16x8,bn_eval --repeats 2 --precision no,bf16 --micro-batch 8 "
    "--classes 0 1 2 --milestones --lr 1 --replaced-skip False --compile default --limit-train None,64 --resume "
    "--no-checkpoint --timeout 600 --stall-timeout None --fail-fast --device cpu --out runs/a,b"
)


def written(folder: Path, text: str) -> str:
    path = folder / "s.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_every_study_there_is_gives_trials(path: Path) -> None:
    asked = request.read([str(path)])
    assert asked.trials
    assert len(set(asked.trials)) == len(asked.trials)


def test_every_study_there_is_names_a_folder_of_its_own() -> None:
    assert len(STUDIES) >= 3
    words = [study_file.read(path).words for path in STUDIES]
    outs = [own[own.index("--out") + 1] for own in words]
    assert len(set(outs)) == len(outs)


def test_a_study_asks_for_what_the_same_options_ask_for(tmp_path: Path) -> None:
    ours, theirs = request.read([written(tmp_path, ALL)]), request.read(SAME.split())
    assert len(ours.trials) == 2 * 2 * 2 * 2
    for name in ("trials", "options", "run_options", "gpus", "axes", "skip_over_limit"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert theirs.study is None
    assert ours.study is not None
    assert ours.study.text == ALL


def test_the_command_line_replaces_what_the_file_says(tmp_path: Path) -> None:
    path = written(tmp_path, ALL)
    asked = request.read(
        [path, "--precision=fp16", "--micro_batch", "4", "--no-resume", "--no-fail-fast", "--timeout", "5"]
    )
    assert {(trial.precision, trial.micro_batch, trial.classes) for trial in asked.trials} == {("fp16", 4, (0, 1, 2))}
    assert (asked.options.resume, asked.options.checkpoint) == (False, False)
    assert (asked.run_options.fail_fast, asked.run_options.timeout, asked.run_options.repeats) == (False, 5, 2)
    assert asked.study is not None
    assert asked.study.replaced == ("--precision", "fp16", "--micro-batch", "4")


ONE = 'experiment = "resnet20_accumulation"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ONE + "\n\nmicro_bach = 3", "line 4: micro_bach is no option; perhaps you meant micro_batch"),
        (ONE + "xyzzy = 3", "line 2: xyzzy is no option; see"),
        (ONE + "[epochs]\nx = 1", "line 2: epochs has {'x': 1}; give a whole number"),
        (ONE + "[[trial]]\nx = 1", "line 2: trial is no option"),
        (ONE + '"new\\nline" = 1', "line 1: 'new\\nline' is no option"),
        (ONE + "epochs = 1.5", "line 2: epochs has 1.5; give a whole number"),
        (ONE + 'epochs = "3"', "line 2: epochs has '3'; give a whole number"),
        (ONE + "epochs = true", "line 2: epochs has True; give a whole number"),
        (ONE + "epochs = 2024-01-01", "line 2: epochs has datetime.date(2024, 1, 1)"),
        (ONE + 'lr = ["None"]', "line 2: lr has 'None'; give a number"),
        (ONE + "replaced_skip = 1", "line 2: replaced_skip has 1; give true or false"),
        (ONE + "compile = true", "line 2: compile has True; give a string: none, default, reduce-overhead"),
        (ONE + "precision = false", "line 2: precision has False; give a string: no, bf16, fp16"),
        (ONE + 'limit_train = "all"', "line 2: limit_train has 'all'; give a whole number or \"None\""),
        (ONE + "resume = [true]", "line 2: resume is [True]; give one value, not a list"),
        (ONE + "repeats = [1, 2]", "line 2: repeats is [1, 2]; give one value, not a list"),
        (ONE + "classes = 1", "line 2: classes is 1; give the list of all its parts"),
        (ONE + 'classes = [0, "1"]', "line 2: classes has '1'; give a whole number"),
        (ONE + "out = 5", "line 2: out has 5; give a string"),
        (ONE + "\nprecision = []", "line 3: precision has no values"),
        (ONE + "arm = []", "line 2: arm has no values"),
        (ONE + 'precision = [""]', "--precision is empty; choose from: no, bf16, fp16"),
        (ONE + "micro-batch = 3\nmicro_batch = 4", "line 3: micro_batch is given a second time"),
        (ONE + 'experiments = ["resnet152_frozen"]', "line 2: experiments is given a second time"),
        (ONE + "epochs = 0", "--epochs is 0; give 1 or more"),
        (ONE + 'precision = "int8"', "int8"),
        (ONE + 'arm = "16x9"', "no arm '16x9'"),
        ("epochs = 3", "names no experiment"),
        ("", "names no experiment"),
        ("experiments = []", "line 1: experiments has no values"),
        ("experiments = [3]", "line 1: experiments has 3; give a string"),
        ('experiments = ["resnt20"]', "no experiment 'resnt20'"),
        (ONE + "epochs = = 3", "line 2"),
        (ONE + "epochs = no", "line 2"),
        (ONE + "epochs = 3\nepochs = 4", "line 3"),
        ("x = " + "[" * 5000, "is no TOML"),
        ("\0", "is no TOML"),
    ],
)
def test_what_is_wrong_in_a_study_is_named_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        request.read([path])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_a_study(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_bytes(b"\xef\xbb\xbf" + (ONE + "epochs = 3").encode())
    assert study_file.read(path).text == ONE + "epochs = 3"


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b'experiments = ["\xff"]'])
def test_a_file_of_bytes_is_no_study(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "s.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"s\.toml is no TOML"):
        request.read([str(path)])


def test_a_study_that_is_not_there_or_a_folder_is_refused(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    for name in ("missing.toml", "folder.toml"):
        done = launch("run", str(tmp_path / name), "--out", str(tmp_path / "runs"))
        assert is_one_error(done), done.stderr
        assert str(tmp_path / name) in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["folder.toml"]


def test_the_line_of_a_key_is_that_on_which_it_begins() -> None:
    text = "# epochs = 1\nseed = [\n  1,\n]\n  'epochs'=2\n[ out ]\nlr.x = 1"
    assert [study_file.line_of(key, text) for key in ("seed", "epochs", "out", "lr")] == [2, 5, 6, 7]
