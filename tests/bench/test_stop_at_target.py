"""Trials with a target: where it is reached they say what that took, and they end there if they are to."""

import dataclasses
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import planted
import pytest

from bench.data import datasets
from bench.data.dataset import DataSet
from bench.trial import Trial
from reports import read
from reports.tables import to_target

EPOCHS = 8
TO_TARGET = ("epochs_to_target", "time_to_target_s", "time_to_target_with_evaluation_s", "images_to_target")


def digits(**more: Any) -> Trial:
    return planted.small(epochs=EPOCHS, limit_train=64, limit_eval=40, augment="none", **more)


def crossing(ran: planted.Ran) -> tuple[int, float]:
    """(how many epochs it took, the accuracy): the first epoch that was better than all before."""
    found = ran.column("epochs", "eval_accuracy")
    return next((n + 1, share) for n, share in enumerate(found) if n and share > max(found[:n]))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> planted.Ran:
    """Two processes, all epochs, no target."""
    trial = digits(processes=2, micro_batch=4)
    return planted.well(planted.run(tmp_path_factory.mktemp("whole"), trial))


def test_all_ranks_stop_with_the_epoch_that_reaches_the_target(whole: planted.Ran, tmp_path: Path) -> None:
    """Until there it trains as without a target, and the row has the sums of its epochs."""
    epochs, target = crossing(whole)
    trial = dataclasses.replace(whole.trial, target_accuracy=target, stop_at_target=True)
    ran = planted.well(planted.run(tmp_path, trial))
    for name in ("eval_accuracy", "train_loss", "images"):
        assert ran.column("epochs", name) == whole.column("epochs", name)[:epochs], name
    row = ran.row()
    assert (row["status"], row["epochs"], row["epochs_trained"]) == ("ok", str(EPOCHS), str(epochs))
    assert (row["epochs_to_target"], row["images_to_target"]) == (str(epochs), str(64 * epochs))
    assert float(row["time_to_target_s"]) == sum(ran.column("epochs", "epoch_time_s"))
    evaluations = sum(ran.column("epochs", "eval_time_s"))
    assert evaluations > 0
    both = float(row["time_to_target_with_evaluation_s"])
    assert both == pytest.approx(float(row["time_to_target_s"]) + evaluations)
    assert (float(row["best_eval_accuracy"]), row["epochs_to_best"]) == (target, str(epochs))
    assert float(row["stop_accuracy"]) == target
    assert {each["part"] for each in ran.rows("per_class")} == {"evaluation"}
    assert whole.row()["epochs_trained"] == str(EPOCHS)
    assert {whole.row()[name] for name in (*TO_TARGET, "stop_accuracy")} == {""}
    finished_is_left_alone(ran, tmp_path / "again")


def finished_is_left_alone(stopped: planted.Ran, folder: Path) -> None:
    """Resumed from its last checkpoint, it does not train on: by hand it is refused, launched it is run once more."""
    again = planted.run(stopped.folder, stopped.trial, resume=True)
    assert "has reached already; run without --resume" in planted.refused(again)
    shutil.copytree(stopped.folder / "checkpoints", folder / "checkpoints")
    launched = planted.well(planted.run(folder, stopped.trial, resume=True, RESBENCH_LAUNCH_ID="a1"))
    for name in ("epochs_trained", "epochs_to_target", "eval_accuracy"):
        assert launched.row()[name] == stopped.row()[name]


def test_a_target_alone_changes_nothing_and_has_the_key_of_a_trial_without(whole: planted.Ran, tmp_path: Path) -> None:
    epochs, target = crossing(whole)
    ran = planted.well(planted.run(tmp_path, dataclasses.replace(whole.trial, target_accuracy=target)))
    assert ran.column("epochs", "train_loss") == whole.column("epochs", "train_loss")
    assert ran.row()["trial_key"] == whole.row()["trial_key"]
    assert (ran.row()["epochs_trained"], ran.row()["epochs_to_target"]) == (str(EPOCHS), str(epochs))
    assert ran.row()["stop_accuracy"] == ""
    recorded = read.trials(ran.folder)
    for asked in (target, 0.0001, 0.9999):
        afterwards = to_target.with_target(recorded, read.epochs(ran.folder)[0], asked)
        assert (target == asked) == afterwards.equals(recorded)


def test_a_resumed_trial_leaves_empty_what_an_earlier_launch_may_have_reached(tmp_path: Path) -> None:
    """Broken in its third epoch of 8 steps. Any accuracy is enough, so that the first epoch had reached it."""
    trial = digits(target_accuracy=0.0001)
    broken = planted.run(tmp_path, trial, partial(planted.failing, at=20, how="raise"))
    assert broken.codes == [1], broken.said()
    resumed = planted.well(planted.run(tmp_path, trial, resume=True))
    first, second = resumed.rows("trials")
    assert (first["status"], first["epochs_to_target"], first["epochs_trained"]) == ("crashed", "1", "2")
    assert (second["resumed_at_epoch"], second["epochs_trained"]) == ("2", str(EPOCHS))
    assert {second[name] for name in (*TO_TARGET, "best_eval_accuracy")} == {""}


def with_another_set(trial: Trial, root: Path) -> DataSet:
    data = datasets.load(trial, root)
    return dataclasses.replace(data, other=data.evaluation)


def test_another_data_set_is_evaluated_on_where_it_stops(tmp_path: Path) -> None:
    trial = digits(target_accuracy=0.0001, stop_at_target=True)

    ran = planted.well(planted.run(tmp_path, trial, load=with_another_set))
    assert (ran.row()["epochs_trained"], ran.row()["evaluate_on_images"]) == ("1", "40")
    assert {each["part"] for each in ran.rows("per_class")} == {"evaluation", "evaluate_on"}
