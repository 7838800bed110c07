"""The command line of one trial: every field is an option, and what cannot be is one sentence."""

import dataclasses
import io
import uuid
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from launching import is_one_error, python
from settings import OTHER

from bench import experiments
from bench.cli import own_options, read_request
from bench.errors import UsageError
from bench.options import Options, TrialRequest, parse_request
from bench.record.run_folder import LAUNCH_ID
from bench.trial import FIXED as NO_OPTIONS
from bench.trial import Trial, option
from bench.variables import new_id

NAME = "resnet20_accumulation"
EXPERIMENT = experiments.load(NAME)
FIXED = {*NO_OPTIONS, "arm"}
LAUNCHER = ("WORLD_SIZE", "ACCELERATE_MIXED_PRECISION")


@pytest.fixture(autouse=True)
def _by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHER:
        monkeypatch.delenv(name, raising=False)


def read(*words: str) -> TrialRequest:
    return read_request(NAME, EXPERIMENT, "16x8", words)


def spelled(value: Any) -> list[str]:
    return [str(part) for part in value] if isinstance(value, tuple) else [str(value)]


@pytest.mark.parametrize("name", sorted(set(OTHER) - FIXED))
def test_every_field_of_a_trial_is_an_option(name: str) -> None:
    needs = {"machines": ["--processes", "2"], "body_dropout": ["--body-dropout-after", "layer2"]}
    needs["stop_at_target"] = ["--target-accuracy", "0.5"]
    needs["features"] = ["--trainable", "head", "--batch-norm", "eval", "--augment", "none"]
    needed = needs.get(name, ["--data", "voc"] if name == "evaluate_on" else [])
    changed = dataclasses.replace(read(*needed).trial, **{name: OTHER[name]})
    assert read(*needed, option(name), *spelled(OTHER[name])).trial == changed


@pytest.mark.parametrize("name", ["replace_blocks", "head", "dropout", "classes", "milestones"])
def test_a_list_can_be_made_empty(name: str) -> None:
    assert getattr(read(option(name)).trial, name) == ()


@pytest.mark.parametrize("name", ["limit_train", "limit_eval", "lr_batch"])
def test_an_optional_number_can_be_none(name: str) -> None:
    assert getattr(read(option(name), "None").trial, name) is None


def test_without_options_a_trial_is_its_arm() -> None:
    assert read().trial == EXPERIMENT.trial(NAME, "16x8")
    assert read().options == Options()


def test_what_the_launcher_set_up_is_the_default_and_options_come_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert (read().trial.processes, read().trial.precision) == (4, "bf16")
    assert read("--precision", "no", "--processes", "2").trial.precision == "no"
    assert read("--processes", "2").trial.processes == 2


def test_a_shared_batch_is_shared_by_the_processes_that_were_launched_or_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By hand under Accelerate's launcher, and in a sweep; a micro-batch that is given is each process's own."""
    scaling = experiments.load("process_scaling")

    def micro_batch(arm: str, *words: str) -> int:
        return read_request("process_scaling", scaling, arm, words).trial.micro_batch

    def swept(*words: str) -> int:
        default = TrialRequest(scaling.trial("process_scaling", "resnet20_strong"))
        return parse_request(default, words, "launch run", "").trial.micro_batch

    assert [micro_batch(arm, "--processes", "4") for arm in ("resnet20_strong", "resnet20_weak")] == [32, 128]
    for words in (["--micro-batch", "128"], ["--micro-batch=128"], ["--micro_batch", "128"]):
        assert micro_batch("resnet20_strong", "--processes", "4", *words) == 128
    assert [swept("--processes", processes) for processes in ("1", "2", "8")] == [128, 64, 16]
    assert swept("--processes", "2", "--micro-batch", "16") == 16
    with pytest.raises(UsageError, match="--processes is 3, which cannot share the 128 images of resnet20_strong"):
        swept("--processes", "3")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert micro_batch("resnet20_strong") == 64


def test_options_of_the_launch_are_no_settings_of_the_trial() -> None:
    request = read("--out", "a b/c", "--data-root", "/d", "--resume", "--no-checkpoint")
    assert request.options == Options(Path("a b/c"), Path("/d"), resume=True, checkpoint=False)
    assert request.trial.key() == read().trial.key()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--micro-batsh", "4"], ("--micro-batsh", "--micro-batch")),
        (["--lr", "fast"], ("--lr", "fast")),
        (["--epochs", "2.5"], ("--epochs", "2.5")),
        (["--epochs"], ("--epochs",)),
        (["--precision", "fp8"], ("--precision", "fp8", "bf16")),
        (["--shortcut", "C"], ("--shortcut", "C")),
        (["--replaced-skip", "perhaps"], ("--replaced-skip", "perhaps")),
        (["--compile", "True"], ("--compile", "True", "default", "reduce-overhead")),
        (["--head", "12", "wide"], ("--head", "wide")),
        (["--arm-of-the-law", "1"], ("--arm-of-the-law",)),
        (["stray"], ("stray",)),
        (["--micro-batch", "0"], ("--micro-batch is 0; give 1 or more",)),
        (["--accumulate", "-3"], ("--accumulate is -3",)),
        (["--model", "resnt20"], ("no model 'resnt20'; the nearest is resnet20; choose from: ",)),
    ],
    ids=" ".join,
)
def test_what_cannot_be_is_one_sentence_with_the_value(words: list[str], said: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        read(*words)
    sentence = str(caught.value)
    assert all(part in sentence for part in said), sentence
    assert "\n" not in sentence
    assert len(sentence) < 400


def test_a_precision_that_only_the_launcher_knows_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp8")
    with pytest.raises(UsageError, match="--precision is 'fp8'; choose from: no, bf16, fp16"):
        read()


def test_unknown_and_missing_arms_are_named_with_those_there_are() -> None:
    with pytest.raises(
        UsageError, match="no arm '16x9' in resnet20_accumulation; perhaps you meant 16x8; choose from: 16x4, 64x1"
    ):
        read_request(NAME, EXPERIMENT, "16x9", [])
    with pytest.raises(UsageError, match="resnet20_accumulation needs --arm; choose from: 16x4, 64x1"):
        read_request(NAME, EXPERIMENT, None, ["--epochs", "2"])


def test_an_unknown_experiment_is_named_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"no experiment 'resnt20'; choose from: augmentation, .*, resnet_depth$"):
        experiments.load("resnt20")


@pytest.mark.parametrize("words", [["--out", ""], ["--out="], ["--seed", "1", "--data-root", "", "--resume"]])
def test_an_empty_folder_is_not_the_current_one(words: list[str]) -> None:
    with pytest.raises(UsageError, match=r"^--(out|data-root) is empty, which would be the current folder; give"):
        parse_request(TrialRequest(EXPERIMENT.trial(NAME, "128x1")), words, "x", "y")


def test_the_arm_is_taken_out_of_the_words() -> None:
    def taken(*words: str) -> tuple[str | None, list[str]]:
        own, rest = own_options(NAME, words)
        return own.arm, rest

    others = ["--epochs", "2", "--head", "1", "2"]
    assert taken("--epochs", "2", "--arm", "a", "--head", "1", "2") == ("a", others)
    assert taken("--arm=a,b") == ("a,b", [])
    assert taken("--arms", "a") == (None, ["--arms", "a"])
    with pytest.raises(UsageError, match="--arm has no value; give one"):
        taken("--epochs", "1", "--arm")
    with pytest.raises(UsageError, match="--arm is given twice; give it once"):
        taken("--arm", "a", "--arm", "b")


def test_launches_have_ids_of_their_own() -> None:
    ids = {new_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(LAUNCH_ID.fullmatch(one) for one in ids)


@pytest.mark.parametrize(
    "drawn", ["123456789012", "000000000042", "12e345678901", "1e5000000000", "dec1dec1dec1", "1" * 12]
)
def test_no_launch_id_can_be_read_as_a_number_or_a_date(drawn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is drawn: a spreadsheet makes 1.23E+11 of the first and infinity of the third."""
    monkeypatch.setattr("bench.variables.uuid.uuid4", lambda: uuid.UUID(hex=drawn + "0" * 20))
    one = new_id()
    assert one.endswith(drawn)
    for number in (int, float, complex):
        with pytest.raises(ValueError, match=r"invalid|could not|malformed"):
            number(one)
    assert not one[0].isdigit()
    assert one[0] not in "-+.,=#abcdefijmnostx"  # what begins a number, a formula, or a month in some language
    saved = pd.read_csv(io.StringIO(pd.DataFrame({"launch_id": [one]}).to_csv(index=False)))
    assert saved["launch_id"].tolist() == [one]


@pytest.mark.parametrize(
    "words",
    [[], ["--arm"], ["--arm", "16x9"], ["--arm", "16x8", "--micro-batch", "0"], ["--arm", "16x8", "--lrr", "0.1"]],
    ids=" ".join,
)
def test_a_wrong_command_ends_with_one_line_and_exit_code_2_and_leaves_nothing(
    words: list[str], tmp_path: Path
) -> None:
    done = python("-m", f"bench.experiments.{NAME}", *words, *(["--out", str(tmp_path / "run")] if words[1:] else []))
    assert is_one_error(done), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_needs_no_arm_and_lists_the_arms_and_every_field() -> None:
    done = python("-m", f"bench.experiments.{NAME}", "--help")
    assert done.returncode == 0
    assert "16x16_scaled" in done.stdout
    assert all(option(name) in done.stdout for name in set(Trial().settings()) - FIXED)


def test_random_images_are_evaluated_on_alone_unless_asked_otherwise() -> None:
    experiment = experiments.load("resnet50_transfer")

    def other(*words: str) -> str:
        return read_request("resnet50_transfer", experiment, "v1_all", words).trial.evaluate_on

    assert other() == "voc"
    assert other("--data", "synthetic") == "none"
    assert other("--data", "synthetic", "--evaluate-on", "voc") == "voc"
