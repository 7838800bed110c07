"""Trial: its checks, its learning rate, its key."""

import dataclasses
import itertools
import math
from typing import Any

import pytest
from settings import OTHER

from bench.errors import UsageError
from bench.experiment import Experiment, Published, departures
from bench.fields import texts
from bench.trial import Trial


def rates(trial: Trial, images: int) -> list[float]:
    per_epoch = trial.windows_per_epoch(images)
    return [trial.learning_rate(window, per_epoch) for window in range(trial.epochs * per_epoch)]


def test_multistep_20_and_40_of_50_epochs() -> None:
    trial = Trial(epochs=50, micro_batch=16, accumulate=8, lr=0.1, milestones=(0.4, 0.8), gamma=0.1)
    by_epoch = [0.1] * 20 + [0.01] * 20 + [0.001] * 10
    expected = [rate for rate in by_epoch for _ in range(391)]  # 50,000 images / 128
    assert rates(trial, 50_000) == pytest.approx(expected, rel=1e-12)


def test_a_run_of_one_epoch_is_not_decayed() -> None:
    assert rates(Trial(epochs=1, micro_batch=8, lr=0.1, milestones=(0.4, 0.8)), 32) == [0.1] * 4


def test_milestones_of_fractions_that_floats_do_not_hold() -> None:
    trial = Trial(epochs=10, micro_batch=1, lr=1.0, milestones=(0.1, 0.3, 0.6, 0.7), gamma=0.5)
    assert rates(trial, 1) == [1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125, 0.0625, 0.0625, 0.0625]


def test_linear_scaling_follows_the_effective_batch() -> None:
    base: dict[str, Any] = {"lr": 0.1, "lr_batch": 128}
    assert Trial(micro_batch=16, accumulate=16, **base).learning_rate(0, 1) == pytest.approx(0.2)
    assert Trial(micro_batch=16, processes=4, **base).learning_rate(0, 1) == pytest.approx(0.05)
    assert Trial(micro_batch=256, lr=0.1).learning_rate(0, 1) == 0.1


def test_the_rate_rises_linearly_over_the_warm_up_and_then_stays() -> None:
    trial = Trial(epochs=2, micro_batch=1, lr=0.8, warmup=0.4)
    assert rates(trial, 5) == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8])


@pytest.mark.parametrize(("epochs", "windows"), [(3, 10), (6, 10), (7, 100), (50, 391)])
def test_the_warm_up_takes_its_fraction_of_the_windows_rounded_up(epochs: int, windows: int) -> None:
    trial = Trial(epochs=epochs, micro_batch=1, lr=1.0, warmup=0.1)
    assert sum(rate < 1 for rate in rates(trial, windows)) == -(-epochs * windows // 10) - 1


def test_warm_up_goes_on_across_epochs() -> None:
    assert rates(Trial(epochs=4, micro_batch=1, lr=0.4, warmup=0.5), 2)[:4] == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_the_schedule_does_not_depend_on_how_an_effective_batch_is_made_up() -> None:
    more: dict[str, Any] = {"epochs": 10, "lr_batch": 32, "warmup": 0.15, "milestones": (0.5,)}
    splits = [m for m in itertools.product((1, 2, 4, 8), repeat=3) if math.prod(m) == 64]
    schedules = [rates(Trial(micro_batch=m, accumulate=k, processes=p, **more), 1000) for m, k, p in splits]
    assert len(schedules) > 5
    assert all(schedule == schedules[0] for schedule in schedules)


def test_effective_batch_and_windows() -> None:
    trial = Trial(micro_batch=16, accumulate=8, processes=2)
    assert trial.effective_batch() == 256
    assert [trial.windows_per_epoch(n) for n in (1, 255, 256, 257, 512)] == [1, 1, 1, 2, 2]


def test_digits_are_cropped_and_never_mirrored() -> None:
    assert Trial(data="digits", augment="crop_flip").augmentation() == (True, False)
    assert Trial(data="digits", augment="flip").augmentation() == (False, False)
    assert Trial(data="cifar10", augment="crop_flip").augmentation() == (True, True)
    assert Trial(data="cifar10", augment="flip").augmentation() == (False, True)
    assert Trial(data="cifar10", augment="none").augmentation() == (False, False)
    assert Trial(data="cifar10", augment="blur").augmentation() == (False, False)


def test_the_key_depends_on_every_setting_but_the_repeat() -> None:
    assert set(OTHER) == set(Trial().settings())
    # Of four processes two machines can have half each; a rate of dropout needs a place, another data set its pair.
    base = Trial(processes=4, body_dropout_after=("layer2",))
    needs: dict[str, Any] = {"evaluate_on": {"data": "voc"}, "stop_at_target": {"target_accuracy": 0.5}}
    needs["features"] = {"trainable": ("head",), "batch_norm": "eval", "augment": "none"}
    keys = {
        name: dataclasses.replace(base, **{name: value, **needs.get(name, {})}).key() for name, value in OTHER.items()
    }
    assert keys.pop("repeat") == keys.pop("target_accuracy") == keys.pop("experiment_file") == base.key()
    assert len({*keys.values(), base.key()}) == len(keys) + 1


def test_a_trial_without_a_target_has_the_key_that_it_had_before_there_were_targets() -> None:
    assert Trial().key() == Trial(target_accuracy=0.9).key() == "cf4453de8816"
    stops = [Trial(target_accuracy=share, stop_at_target=True).key() for share in (0.8, 0.9)]
    assert len({*stops, Trial().key()}) == 3


def test_a_trial_without_checkpointing_has_the_key_that_it_had_before_there_was_any() -> None:
    keys = [Trial(checkpoint_activations=unit).key() for unit in ("none", "block", "stage")]
    assert keys[0] == "cf4453de8816"
    assert len(set(keys)) == 3


def test_a_trial_that_computes_features_in_each_epoch_has_the_key_that_it_had_before_there_was_a_choice() -> None:
    trial = Trial(trainable=("head",), batch_norm="eval", augment="none")
    assert trial.key() == "c2cf5e7ce3f3"
    assert dataclasses.replace(trial, features="once").key() != trial.key()


def test_equal_settings_have_equal_keys() -> None:
    settings = {**OTHER, "features": "each_epoch"}  # once does not go with all the others
    assert Trial(**settings).key() == Trial(**settings).key()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"micro_batch": 0}, "--micro-batch is 0; give 1 or more"),
        ({"accumulate": -1}, "--accumulate is -1; give 1 or more"),
        ({"eval_batch": 0}, "--eval-batch is 0; give 1 or more"),
        ({"processes": 0}, "--processes is 0"),
        ({"memory_limit_bytes": 0}, "--memory-limit-bytes is 0; give 1 or more"),
        ({"epochs": 0}, "--epochs is 0"),
        ({"image_size": 0}, "--image-size is 0"),
        ({"limit_train": 0}, "--limit-train is 0"),
        ({"target_accuracy": 90.0}, "--target-accuracy is 90; give a share from 0 to 1, such as 0.9 for 90%"),
        ({"target_accuracy": -0.1}, "--target-accuracy is -0.1; give a share"),
        ({"target_accuracy": math.nan}, "--target-accuracy is nan; give a share"),
        ({"stop_at_target": True}, "--stop-at-target needs a target; give --target-accuracy too"),
        ({"lr_batch": 0}, "--lr-batch is 0"),
        ({"lr": -0.1}, "--lr is -0.1"),
        ({"lr": math.nan}, "--lr is nan"),
        ({"lr": math.inf}, "--lr is inf"),
        ({"bucket_mib": 0.0}, "--bucket-mib is 0.0; give MiB above 0 and at most 1048576"),
        ({"bucket_mib": math.inf}, "--bucket-mib is inf"),
        ({"bucket_mib": math.nan}, "--bucket-mib is nan"),
        ({"gradient_compression": "fp16"}, "--gradient-compression is 'fp16'; choose from: none, bf16"),
        ({"workers": -1}, "--workers is -1"),
        ({"seed": -1}, "--seed is -1"),
        ({"seed": 2**53}, "--seed is 9007199254740992; give less than 2\\*\\*53"),
        ({"epochs": 2**64}, "--epochs is 18446744073709551616; give less"),
        ({"precision": "fp8"}, "--precision is 'fp8'; choose from: no, bf16, fp16"),
        ({"batch_norm": "evla"}, "--batch-norm is 'evla'; choose from: train, eval"),
        ({"model": "resnt20"}, "no model 'resnt20'; the nearest is resnet20; choose from: resnet8, resnet20"),
        ({"model": "resnet201"}, "no model 'resnet201'; the nearest is resnet20; "),
        ({"model": "resnext50"}, "no model 'resnext50'; the nearest is resnext50_32x4d; .*, regnet_y_400mf, "),
        ({"model": "timm/resnet50D"}, "no model 'timm/resnet50D'; the nearest is timm/resnet50d; "),
        ({"model": "timm/../resnet50d"}, "no model 'timm/../resnet50d'; the nearest is timm/resnet50d; "),
        ({"model": "vgg11"}, "no model 'vgg11'; the nearest is "),
        ({"model": ""}, "no model ''; the nearest is "),
        ({"milestones": (0.5, 20.0)}, "--milestones has 20.0; give fractions"),
        ({"warmup": 1.0}, "--warmup has 1.0"),
        ({"head": (4,), "dropout": (1.0,)}, "--dropout has 1.0"),
        ({"head": (8, 0)}, "--head has 0"),
        ({"classes": (1, 1)}, "--classes is \\[1, 1\\]; give different numbers from 0 to 9"),
        ({"classes": (3, 10)}, "--classes is \\[3, 10\\]"),
        ({"body_dropout": 1.5}, "--body-dropout has 1.5; give fractions from 0 to below 1"),
        ({"body_dropout": 0.1}, "--body-dropout is 0.1; give --body-dropout-after too"),
        ({"body_dropout_after": ("layer1", "layer1")}, "give each module once"),
        ({"validation": 1.0}, "--validation has 1.0"),
        (
            {"evaluate_on": "cifar10"},
            "--evaluate-on is cifar10, which is not another data set with the classes of cifar10",
        ),
        (
            {"data": "digits", "evaluate_on": "voc"},
            "--evaluate-on is voc, which is not another data set with the classes of digits",
        ),
        (
            {"model": "resnet18", "shortcut": "A"},
            "--shortcut is A, which resnet18 cannot have, only B; give B, or --model resnet34_handbuilt or a",
        ),
        ({"augment": "blurr"}, "--augment is 'blurr'; choose from: none, flip, crop_flip, rotation"),
        ({"checkpoint_activations": "layer"}, "--checkpoint-activations is 'layer'; choose from: none, block, stage"),
        (
            {"checkpoint_activations": "block", "trainable": ("head",)},
            "^--trainable is head, so no block keeps anything for a backward pass; leave --checkpoint-activations b",
        ),
        ({"checkpoint_activations": "stage", "trainable": ("fc.0", "head")}, "--trainable is fc.0 head, so no block"),
        ({"classes": (3,)}, "--classes is \\[3\\]; give two classes"),
    ],
)
def test_a_setting_that_cannot_be_is_named_with_its_value(setting: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Trial(**setting)


def test_every_field_is_documented_in_a_sentence() -> None:
    said = texts(Trial)
    assert set(said) == set(Trial().settings())
    assert all(text[0].isupper() and text.endswith(".") for text in said.values())


def test_an_unknown_arm_is_named_with_those_there_are() -> None:
    experiment = Experiment("?", Trial(), {"16x8": {}, "64x2": {"micro_batch": 64}})
    with pytest.raises(UsageError, match="no arm '16x9' in e; perhaps you meant 16x8; choose from: 16x8, 64x2"):
        experiment.trial("e", "16x9")
    assert experiment.trial("e", "64x2") == Trial(experiment="e", arm="64x2")


def test_a_shared_batch_is_shared_out_evenly_or_not_at_all() -> None:
    experiment = Experiment("?", Trial(micro_batch=12), {"strong": {}, "weak": {}}, shared_batch=("strong",))
    for processes in (1, 2, 3, 4):
        strong, weak = (dataclasses.replace(experiment.trial("e", arm), processes=processes) for arm in experiment.arms)
        assert experiment.shared_out(strong).micro_batch == 12 // processes
        assert experiment.shared_out(strong).effective_batch() == 12
        assert experiment.shared_out(weak).micro_batch == 12
    with pytest.raises(UsageError, match="--processes is 5, which cannot share the 12 images of strong evenly"):
        experiment.shared_out(dataclasses.replace(experiment.trial("e", "strong"), processes=5))


def test_departures_are_the_settings_that_a_published_accuracy_depends_on() -> None:
    published = Trial(micro_batch=16, accumulate=8)
    assert departures(published, published) == ""
    same = dataclasses.replace(published, micro_batch=64, accumulate=1, processes=2, precision="bf16", seed=3)
    assert departures(same, published) == ""
    assert departures(dataclasses.replace(published, bucket_mib=1.0), published) == ""
    rounded = dataclasses.replace(published, gradient_compression="bf16")
    assert departures(rounded, published) == "gradient_compression=bf16"
    other = dataclasses.replace(published, epochs=3, data="digits", processes=2, head=(8, 4), dropout=(0.1,))
    assert departures(other, published) == "head=8 4, dropout=0.1, data=digits, epochs=3, effective_batch=256"


def test_published_figures_are_unknown_until_given() -> None:
    assert dataclasses.astuple(Published()) == (None, None, None, None, None, "", "", (), ())
