"""The worker: whole trials in real process groups of one and two, and what they leave behind."""

import collections
import fcntl
import functools
import importlib.metadata
import itertools
import json
import math
import os
import platform
import shutil
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import planted
import pytest
import torch
import torch.nn.functional as F

from bench.data.datasets import load
from bench.data.pipeline import InputPipeline
from bench.options import Options
from bench.training.build import model_for

CPU = torch.device("cpu")
SPLITS = [(6, 2, 1), (3, 2, 2)]  # micro_batch, accumulate, processes: windows of 12


# What the model is shown, and what is said of it


@pytest.fixture(scope="module", params=itertools.product(SPLITS, ("resident", "loader")), ids=str)
def shown(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> planted.Ran:
    """A Reader that does not learn is shown 102 images, in two epochs of 8 full windows and one of 6 images."""
    how, pipeline = request.param
    trial = planted.settings(**planted.split(*how), pipeline=pipeline, workers=2, epochs=2, lr=0.0)
    load = functools.partial(planted.numbered, train=102, evaluation=37)
    return planted.well(planted.run(tmp_path_factory.mktemp("shown"), trial, planted.reader, load))


def training_passes(ran: planted.Ran) -> list[list[list[int]]]:
    """Rank -> pass -> images."""
    notes = [note for note in ran.seen() if note["training"]]
    return [[n["ids"] for n in notes if n["rank"] == rank] for rank in range(ran.trial.processes)]


def windows_shown(ran: planted.Ran, images: int) -> list[list[int]]:
    """The images of each window, all ranks together, sorted. The last window has half the passes."""
    together = [sorted(itertools.chain(*passes)) for passes in zip(*training_passes(ran), strict=True)]
    lengths = [*[2] * (images // 12), 1] * ran.trial.epochs
    passes = iter(together)
    return [sorted(itertools.chain(*itertools.islice(passes, length))) for length in lengths]


def test_an_epoch_can_be_cut_to_its_first_windows_and_its_short_last_one(tmp_path: Path) -> None:
    trial = planted.settings(**planted.split(3, 2, 2), limit_windows=3, epochs=1, lr=0.0)
    load = functools.partial(planted.numbered, train=102, evaluation=37)
    ran = planted.well(planted.run(tmp_path, trial, planted.reader, load))
    assert [(row["window"], row["images"]) for row in ran.rows("steps")] == [("0", "12"), ("1", "12"), ("8", "6")]
    (epoch,) = ran.rows("epochs")
    assert (epoch["windows"], epoch["images"], epoch["eval_images"]) == ("3", "30", "18")
    assert (ran.row()["images_seen"], ran.row()["train_images"]) == ("30", "102")


def test_each_training_image_is_shown_once_an_epoch(shown: planted.Ran) -> None:
    windows = windows_shown(shown, 102)
    for epoch in (windows[:9], windows[9:]):
        assert [len(window) for window in epoch] == [12] * 8 + [6]
        assert sorted(itertools.chain(*epoch)) == list(range(102))


def test_the_ranks_make_equal_numbers_of_passes_and_share_each_evenly(shown: planted.Ran) -> None:
    micro_batch = shown.trial.micro_batch
    for passes in training_passes(shown):
        assert [len(ids) for ids in passes] == ([micro_batch] * 16 + [6 // shown.trial.processes]) * 2


def test_each_epoch_has_an_order_of_its_own(shown: planted.Ran) -> None:
    passes = training_passes(shown)[0]
    assert passes[:17] != passes[17:]
    assert passes[0] != sorted(passes[0])


def test_each_evaluation_image_is_shown_once_after_each_epoch(shown: planted.Ran) -> None:
    ids = [image for note in shown.seen() if not note["training"] for image in note["ids"]]
    assert collections.Counter(ids) == dict.fromkeys(range(37), 2)


def test_the_order_of_images_does_not_depend_on_split_or_pipeline(tmp_path: Path, shown: planted.Ran) -> None:
    trial = planted.settings(micro_batch=12, epochs=2, lr=0.0)
    load = functools.partial(planted.numbered, train=102, evaluation=1)
    one = planted.well(planted.run(tmp_path, trial, planted.reader, load))
    assert [sorted(ids) for (ids,) in zip(*training_passes(one), strict=True)] == windows_shown(shown, 102)


def test_known_accuracies_and_losses_are_reported(shown: planted.Ran) -> None:
    trained, evaluated = planted.thirds(102), planted.thirds(37)
    for row in (shown.row(), *shown.rows("epochs")):
        assert float(row["train_accuracy"]) == pytest.approx(trained, abs=1e-12)
        assert float(row["train_loss"]) == pytest.approx(planted.read_loss(trained), rel=1e-5)
        assert float(row["eval_accuracy"]) == pytest.approx(evaluated, abs=1e-12)
        assert float(row["eval_loss"]) == pytest.approx(planted.read_loss(evaluated), rel=1e-5)


def test_each_window_s_accuracy_is_that_of_its_images(shown: planted.Ran) -> None:
    for ids, row in zip(windows_shown(shown, 102), shown.rows("steps"), strict=True):
        right = sum(image % 3 == 0 for image in ids)
        assert float(row["train_accuracy"]) == pytest.approx(right / len(ids), abs=1e-12)
        assert float(row["train_loss"]) == pytest.approx(planted.read_loss(right / len(ids)), rel=1e-5)
        assert int(row["images"]) == len(ids)


def test_the_rows_count_what_was_done(shown: planted.Ran) -> None:
    row = shown.row()
    assert (row["images_seen"], row["optimizer_steps"], row["train_images"]) == ("204", "18", "102")
    assert (row["status"], row["error"], row["skipped_steps"], row["resumed_at_epoch"]) == ("ok", "", "", "")
    assert (row["total_parameters"], row["trainable_parameters"]) == ("10", "10")
    assert (row["effective_batch"], row["input_pipeline"]) == ("12", shown.trial.pipeline)
    assert row["backend"] == ("gloo" if shown.trial.processes == 2 else "")
    assert (row["device_name"], row["device_count"], row["cuda"]) == ("cpu", "0", "")
    assert row["trial_key"] == shown.trial.key()
    epochs, steps = shown.rows("epochs"), shown.rows("steps")
    assert [(r["epoch"], r["windows"], r["images"], r["eval_images"]) for r in epochs] == [
        ("0", "9", "102", "37"),
        ("1", "9", "102", "37"),
    ]
    assert [(r["epoch"], r["window"]) for r in steps] == [(str(e), str(w)) for e in range(2) for w in range(9)]
    assert {r["launch_id"] for r in (*epochs, *steps)} == {row["launch_id"]}


def test_the_environment_is_kept_under_the_key_in_the_row(shown: planted.Ran) -> None:
    kept = json.loads((shown.folder / "environment.json").read_text())
    environment = kept[shown.row()["environment"]]
    assert environment["threads"] == int(shown.row()["threads"])
    assert environment["packages"]["torch"] == shown.row()["torch"] == importlib.metadata.version("torch")
    assert environment["variables"]["ACCELERATE_USE_CPU"] == "true"
    assert environment["memory_bytes"] > 2**28
    assert environment["mallopt_accepted"] is (platform.libc_ver()[0] == "glibc")
    assert list((shown.folder / "logs").glob("*.row.json")) == []


@pytest.mark.parametrize("pipeline", ["resident", "loader"])
@pytest.mark.parametrize("how", SPLITS, ids=str)
def test_what_fills_up_the_last_pass_counts_nowhere(how: tuple[int, int, int], pipeline: str, tmp_path: Path) -> None:
    """97 images: the last window holds one, of which one process makes two, and of two processes one has none."""
    trial = planted.settings(**planted.split(*how), pipeline=pipeline, lr=0.0)
    load = functools.partial(planted.numbered, train=97, evaluation=1)
    ran = planted.well(planted.run(tmp_path, trial, planted.reader, load))
    accuracy = planted.thirds(97)
    assert float(ran.row()["train_accuracy"]) == pytest.approx(accuracy, abs=1e-12)
    assert float(ran.row()["train_loss"]) == pytest.approx(planted.read_loss(accuracy), rel=1e-5)
    assert ran.row()["images_seen"] == "97"
    last = [passes[-1] for passes in training_passes(ran)]
    assert [len(ids) for ids in last] == [2] * trial.processes
    before = {image for passes in training_passes(ran) for ids in passes[:-1] for image in ids}
    assert before | {last[0][0]} == set(range(97))
    assert float(ran.rows("steps")[-1]["train_accuracy"]) == (last[0][0] % 3 == 0)


# Training


@pytest.fixture(scope="module", params=[1, 2])
def frozen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, planted.Ran]:
    """Two epochs with a frozen backbone, in both modes of its BatchNorm, and with the optimizer of another model."""
    arms: dict[str, dict[str, Any]] = {
        "eval": {"trainable": ("head",), "batch_norm": "eval"},
        "train": {"trainable": ("head",), "batch_norm": "train"},
        "another": {"optimizer_holds": "another_model", "weight_decay": 0.1},
        "all": {},
    }
    folder = tmp_path_factory.mktemp("frozen")
    common = {"epochs": 2, "processes": request.param, "micro_batch": 8 // request.param}
    return {arm: planted.well(planted.run(folder / arm, planted.small(**common, **more))) for arm, more in arms.items()}


def moved(ran: planted.Ran) -> set[str]:
    before, after = model_for(ran.trial, 10).state_dict(), ran.state()["model"]
    assert set(before) == set(after)
    return {name for name in before if not torch.equal(before[name], after[name])}


def names(ran: planted.Ran) -> tuple[set[str], set[str]]:
    """(parameters, buffers)"""
    model = model_for(ran.trial, 10)
    return {name for name, _ in model.named_parameters()}, {name for name, _ in model.named_buffers()}


def test_nothing_but_the_head_moves_with_batch_norm_in_eval_mode(frozen: dict[str, planted.Ran]) -> None:
    assert moved(frozen["eval"]) == {"fc.weight", "fc.bias"}


def test_all_running_statistics_move_with_batch_norm_in_train_mode_and_no_frozen_parameter(
    frozen: dict[str, planted.Ran],
) -> None:
    _, buffers = names(frozen["train"])
    assert len(buffers) > 10
    assert moved(frozen["train"]) == {"fc.weight", "fc.bias"} | buffers


def test_an_optimizer_of_another_model_leaves_every_parameter_untouched(frozen: dict[str, planted.Ran]) -> None:
    _, buffers = names(frozen["another"])
    assert moved(frozen["another"]) == buffers
    assert frozen["another"].row()["optimizer_steps"] == "6"


def test_everything_moves_where_nothing_is_frozen(frozen: dict[str, planted.Ran]) -> None:
    parameters, buffers = names(frozen["all"])
    assert moved(frozen["all"]) == parameters | buffers


def test_the_columns_of_parameters_say_what_trains(frozen: dict[str, planted.Ran]) -> None:
    counts = {arm: (ran.row()["total_parameters"], ran.row()["trainable_parameters"]) for arm, ran in frozen.items()}
    total = str(sum(p.numel() for p in model_for(planted.small(), 10).parameters()))
    assert counts["eval"] == counts["train"] == (total, str(64 * 10 + 10))
    assert counts["another"] == counts["all"] == (total, total)


@pytest.mark.parametrize("arm", ["train", "all"])
def test_the_evaluation_is_of_the_model_in_the_checkpoint(arm: str, frozen: dict[str, planted.Ran]) -> None:
    """Two ranks have running statistics of their own: all evaluate with rank 0's, and these are kept."""
    ran = frozen[arm]
    model = model_for(ran.trial, 10).eval()
    model.load_state_dict(ran.state()["model"])
    data = load(ran.trial, ran.folder)
    images, labels = next(InputPipeline(ran.trial, data, CPU).evaluate([(0, 7)]))
    with torch.no_grad():
        logits = model(images)
    assert float(ran.row()["eval_loss"]) == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-4)
    assert float(ran.row()["eval_accuracy"]) == pytest.approx((logits.argmax(1) == labels).double().mean().item())


def test_equal_seeds_give_equal_runs_and_others_others(tmp_path: Path) -> None:
    load = functools.partial(planted.noise, train=24)
    trials = [planted.settings(seed=seed, augment="crop_flip", micro_batch=4) for seed in (0, 0, 1)]
    ran = [planted.well(planted.run(tmp_path / str(n), trial, planted.smooth, load)) for n, trial in enumerate(trials)]
    losses = [one.column("steps", "train_loss") for one in ran]
    assert losses[0] == losses[1]
    assert not set(losses[0]) & set(losses[2])


# Ends


@pytest.mark.parametrize("processes", [1, 2])
def test_a_loss_that_is_not_finite_ends_the_trial_as_diverged_and_its_rows_stay(processes: int, tmp_path: Path) -> None:
    """One rank's loss is nan in window 2 of the second epoch, of four windows of 4 images each."""
    trial = planted.settings(micro_batch=4 // processes, processes=processes, epochs=3)
    build = functools.partial(planted.failing, at=6, how="nan", build=planted.smooth, rank=processes - 1)
    ran = planted.run(tmp_path, trial, build, functools.partial(planted.noise, train=16))
    assert ran.codes == [1] * processes, ran.said()
    row = ran.row()
    assert row["status"] == "diverged"
    assert row["error"] == "the training loss is nan in step 2; try a smaller --lr"
    losses = ran.column("steps", "train_loss")
    assert all(map(math.isfinite, losses[:6]))
    assert math.isnan(losses[6])
    assert [r["epoch"] for r in ran.rows("epochs")] == ["0"]
    assert "Traceback" not in ran.said()
    assert ran.said().count("error: the training loss is nan") == 1


def test_a_rate_that_is_too_high_diverges(tmp_path: Path) -> None:
    trial = planted.settings(micro_batch=4, lr=1e30, epochs=3)
    ran = planted.run(tmp_path, trial, planted.smooth, functools.partial(planted.noise, train=16))
    assert (ran.codes, ran.row()["status"]) == ([1], "diverged")


def test_a_trial_that_ends_badly_counts_the_windows_that_were_read(tmp_path: Path) -> None:
    trial = planted.settings(micro_batch=4)
    build = functools.partial(planted.failing, at=1, how="nan", build=planted.smooth)
    ran = planted.run(tmp_path, trial, build, functools.partial(planted.noise, train=16))
    row, steps = ran.row(), ran.rows("steps")
    assert row["status"] == "diverged"
    assert int(row["optimizer_steps"]) == len(steps) >= 2
    assert int(row["images_seen"]) == sum(int(step["images"]) for step in steps)


@pytest.mark.parametrize("ends", ["ok", "diverged"])
def test_a_signal_while_the_row_is_written_costs_no_row_and_adds_none(ends: str, tmp_path: Path) -> None:
    """The launcher stops the other ranks as soon as one has ended: rank 0 may then be waiting for the file."""
    file = tmp_path / "trials.csv"
    stopped = threading.Event()

    def stop_when_it_waits() -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until and not stopped.is_set():
            for pid in planted.waiting_for(file):
                time.sleep(0.2)
                os.kill(pid, 15)
                stopped.set()
            time.sleep(0.02)
        time.sleep(0.3)
        fcntl.flock(held, fcntl.LOCK_UN)

    with open(file, "a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        watcher = threading.Thread(target=stop_when_it_waits)
        watcher.start()
        trial = planted.settings(micro_batch=4)
        build = functools.partial(planted.failing, at=3 if ends == "diverged" else -1, how="nan", build=planted.smooth)
        ran = planted.run(tmp_path, trial, build, functools.partial(planted.noise, train=16))
        watcher.join()
    assert stopped.is_set()
    assert ran.codes == [0 if ends == "ok" else 1], ran.said()
    assert ran.row()["status"] == ends


# Requests that cannot be met


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    trial, options = planted.settings(), Options(out=tmp_path / "file" / "run")
    codes = planted.group(1, planted._work, trial, options, planted.smooth, planted.noise, said=tmp_path)
    assert "cannot write to --out" in planted.refused(planted.Ran(trial, tmp_path, codes))


@pytest.mark.parametrize("processes", [1, 2])
def test_a_disk_that_fills_up_is_one_sentence_and_no_half_file(processes: int, tmp_path: Path) -> None:
    """Room for the rows and not for the checkpoint."""
    trial = planted.small(limit_train=8, processes=processes, micro_batch=4)
    ran = planted.run(tmp_path, trial, functools.partial(planted.starved, room=20_000))
    assert "cannot write checkpoint" in planted.refused(ran)
    assert list((tmp_path / "checkpoints").iterdir()) == []
    assert len(ran.rows("epochs")) == 1


def test_a_wrong_name_in_the_model_is_refused_on_all_ranks(tmp_path: Path) -> None:
    ran = planted.run(tmp_path, planted.small(trainable=("layer9",), processes=2))
    assert "no module 'layer9'; the nearest are: " in planted.refused(ran)


# The compiler


needs_compiler = pytest.mark.skipif(
    not shutil.which(os.environ.get("CXX", "g++")), reason="torch.compile needs a C++ compiler"
)


@needs_compiler
def test_a_compiled_model_trains_as_the_same_model_uncompiled(tmp_path: Path) -> None:
    trials = [planted.small(compile=mode, limit_train=8, limit_eval=8) for mode in ("none", "default")]
    ran = (planted.run(tmp_path / trial.compile, trial, planted.watched) for trial in trials)
    plain, compiled = map(planted.well, ran)
    assert plain.seen() == [{"compiled": False}] * 2
    assert compiled.seen() == []
    assert [(ran.row()["compiled_graphs"], ran.row()["graph_breaks"]) for ran in (plain, compiled)] == [
        ("", ""),
        ("1", "0"),
    ]
    for column in ("train_loss", "eval_loss"):
        ours, theirs = float(compiled.row()[column]), float(plain.row()[column])
        assert ours == pytest.approx(theirs, rel=1e-2), column


@needs_compiler
def test_a_window_in_which_torch_compiled_is_not_measured_and_no_code_is_for_any_size(tmp_path: Path) -> None:
    """Each epoch has windows of 4, 4, 4 and 2 images; after the first window of the third, what is compiled is void."""
    trial = planted.settings(micro_batch=4, epochs=3, warmup_windows=1, compile="default")
    build = functools.partial(planted.switched, after=9)
    ran = planted.well(planted.run(tmp_path, trial, build, functools.partial(planted.noise, train=14, evaluation=6)))
    steps, row = ran.rows("steps"), ran.row()
    by_epoch = [[step["measured"] == "true" for step in steps if step["epoch"] == str(epoch)] for epoch in range(3)]
    assert by_epoch == [[False, True, True, False], [True] * 4, [True, False, True, False]]
    measured = [float(step["step_time_s"]) for step in steps if step["measured"] == "true"]
    full = [float(step["step_time_s"]) for step in steps if step["measured"] == "true" and step["images"] == "4"]
    assert (row["measured_windows"], row["unmeasured_windows"], row["measured_images"]) == ("8", "4", "30")
    assert float(row["measured_time_s"]) == pytest.approx(sum(measured))
    assert float(row["step_time_p50_s"]) == pytest.approx(statistics.median(full))
    assert float(row["step_time_p99_s"]) <= max(full)
    # Training on 4 and 2 images, evaluation on 4 and 2, and training on 4 and 2 anew; code for any size is made once.
    assert row["compiled_graphs"] == "6"


def test_compiling_into_cuda_graphs_is_refused_where_there_is_no_cuda(tmp_path: Path) -> None:
    ran = planted.run(tmp_path, planted.settings(compile="reduce-overhead"), planted.smooth, planted.noise)
    assert "--compile reduce-overhead records CUDA graphs" in planted.refused(ran)


# What else it is evaluated on


@pytest.mark.parametrize("processes", [1, 2])
def test_what_is_set_aside_and_another_data_set_are_evaluated_on_class_by_class(processes: int, tmp_path: Path) -> None:
    """A Reader is right in every third image, and else answers with the next class."""
    trial = planted.settings(micro_batch=4, processes=processes, epochs=2, lr=0.0)
    sizes = {"evaluation": 37, "validation": 11, "evaluate_on": 7}
    load = functools.partial(planted.evaluated_on, sizes=sizes)
    ran = planted.well(planted.run(tmp_path, trial, planted.reader, load))
    cut = planted.settings(micro_batch=2, processes=processes, limit_windows=2, lr=0.0)
    row = planted.well(planted.run(tmp_path / "cut", cut, planted.reader, load)).row()
    assert (row["validation_images"], row["evaluate_on_images"]) == (str(4 * processes), str(min(7, 4 * processes)))
    prefix = {"evaluation": "eval", "validation": "validation", "evaluate_on": "evaluate_on"}
    numbers = {part: range(planted.FIRST[part], planted.FIRST[part] + count) for part, count in sizes.items()}
    accuracies = {part: sum(n % 3 == 0 for n in found) / len(found) for part, found in numbers.items()}
    assert len(set(accuracies.values())) == 3
    for part, accuracy in accuracies.items():
        assert float(ran.row()[f"{prefix[part]}_accuracy"]) == pytest.approx(accuracy, abs=1e-12)
        loss = planted.read_loss(accuracy)
        assert float(ran.row()[f"{prefix[part]}_loss"]) == pytest.approx(loss, rel=1e-5)
    assert [float(row["validation_accuracy"]) for row in ran.rows("epochs")] == [accuracies["validation"]] * 2
    assert (ran.row()["validation_images"], ran.row()["evaluate_on_images"]) == ("11", "7")
    rows = ran.rows("per_class")
    assert [(row["part"], int(row["label"])) for row in rows] == list(itertools.product(sizes, range(10)))
    assert {row["launch_id"] for row in rows} == {ran.row()["launch_id"]}
    for row in rows:
        label = int(row["label"])
        own = [number for number in numbers[row["part"]] if number % 10 == label]
        right = sum(number % 3 == 0 for number in own)
        expected = [0] * 10
        expected[label], expected[(label + 1) % 10] = right, len(own) - right
        assert row["predicted"] == " ".join(map(str, expected))
        assert int(row["images"]) == len(own)
        assert row["accuracy"] == "" if not own else float(row["accuracy"]) == pytest.approx(right / len(own))
