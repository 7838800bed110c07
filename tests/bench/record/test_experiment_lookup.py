"""What the experiments say of a row: the command that is shown for it runs that very trial."""

from __future__ import annotations

import dataclasses
import shlex
from typing import Any

import pytest

from bench import experiments
from bench.errors import UsageError
from bench.record import experiment_lookup
from bench.record.rows import first_row
from launch.sweep import request

CHANGED: dict[str, Any] = {
    "trainable": ("head", "layer4"),
    "replaced_skip": True,
    "compile": "max-autotune",
    "tf32": True,
    "cudnn_benchmark": True,
    "limit_train": 100,
    "milestones": (0.1, 0.9),
    "warmup": 0.2,
    "lr_batch": 64,
    "memory_limit_bytes": 2**31,
    "processes": 2,
    "bucket_mib": 5.0,
}


@pytest.mark.parametrize("name", experiments.names())
def test_the_command_of_a_row_asks_for_its_very_trial(name: str) -> None:
    """As it would be pasted into a shell. Of each arm, one setting is changed; of the first one, each in turn."""
    experiment = experiments.load(name)
    fields = list(CHANGED)
    asked = [(arm, fields[n % len(fields)]) for n, arm in enumerate(experiment.arms)]
    tried = 0
    for arm, field in dict.fromkeys([*asked, *((asked[0][0], field) for field in fields)]):
        try:
            changed = dataclasses.replace(experiment.trial(name, arm), **{field: CHANGED[field]})
            trial = experiment.shared_out(changed)
        except UsageError:  # no such model
            continue
        words = shlex.split(experiment_lookup.command(first_row(trial, experiment, "x")) or "")
        assert words[:4] == ["python", "-m", "launch", "run"]
        assert request.read(words[4:]).trials == [trial]
        tried += 1
    assert tried


def test_a_row_of_no_arm_of_this_checkout_has_no_command() -> None:
    row = {"experiment": "resnet20_accumulation", "arm": "16x8"}
    assert experiment_lookup.command(row | {"experiment": "../../x"}) is None
    assert experiment_lookup.command(row | {"arm": "$(reboot)"}) is None


def test_a_row_of_before_a_setting_has_a_command_too() -> None:
    trial = experiments.load("resnet20_accumulation").trial("resnet20_accumulation", "16x8")
    row = first_row(trial, experiments.load("resnet20_accumulation"), "x") | {"tf32": None}
    assert experiment_lookup.command(row) == "python -m launch run resnet20_accumulation --arm 16x8"


def test_what_a_row_holds_is_one_word_of_its_command() -> None:
    trial = experiments.load("resnet20_accumulation").trial("resnet20_accumulation", "16x8")
    row = first_row(trial, experiments.load("resnet20_accumulation"), "x") | {"data": "$(reboot); true"}
    command = experiment_lookup.command(row)
    assert command is not None
    assert "--data '$(reboot); true'" in command
