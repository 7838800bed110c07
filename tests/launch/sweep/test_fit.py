"""The search for the largest micro-batch that runs, with planted answers, and once for real."""

import csv
import json
import signal
from pathlib import Path

import pytest
from conftest import Launch
from launching import Command, is_one_error, rows, until

from launch.sweep.fit import search

FIT = ["-m", "launch", "fit", "resnet20_accumulation", "--model", "resnet8", "--data", "synthetic", "--device", "cpu"]


@pytest.mark.parametrize("start", [2, 3, 40, 100, 5000])
@pytest.mark.parametrize("answer", [2, 3, 7, 39, 40, 41, 99, 100])
def test_the_search_ends_at_the_answer_wherever_it_starts(answer: int, start: int) -> None:
    tried: list[int] = []

    def runs(number: int) -> bool:
        tried.append(number)
        return number <= answer

    assert search(start, 100, runs) == answer
    assert len(set(tried)) == len(tried)
    assert all(2 <= number <= 100 for number in tried)


def test_near_the_answer_few_tries_are_enough() -> None:
    tried: list[int] = []

    def runs(number: int) -> bool:
        tried.append(number)
        return number <= 377

    assert search(378, 50_000, runs) == 377
    assert tried == [378, 375, 376, 377]


def test_nothing_that_runs_is_none() -> None:
    assert search(10, 100, lambda number: False) is None


def test_the_largest_micro_batch_that_runs_is_near_the_predicted_one(launch: Launch, tmp_path: Path) -> None:
    done = launch(*FIT[2:], "--memory-limit", "120MiB", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "fit.csv", newline="") as file:
        (answer,) = csv.DictReader(file)
    predicted, measured = int(answer["predicted_micro_batch"]), int(answer["measured_micro_batch"])
    assert f"predicted {predicted}, measured {measured}" in done.stdout
    assert abs(predicted / measured - 1) <= 0.05
    tried = {int(row["micro_batch"]): row["status"] for row in rows(tmp_path, "trials")}
    assert len(tried) == int(answer["tries"])
    assert {size: status == "ok" for size, status in tried.items()} == {size: size <= measured for size in tried}
    assert tried[measured + 1] == "oom"
    assert json.loads(answer["memory_limit_bytes"]) == 120 * 2**20


def test_a_signal_ends_a_fit_and_its_try(tmp_path: Path) -> None:
    with Command([*FIT, "--memory-limit", "1GiB", "--out", str(tmp_path)], tmp_path) as command:
        until(lambda: command.launcher(), "a try")
        command.process.send_signal(signal.SIGTERM)
        assert command.wait(30) == 130
        assert command.left() == []
    row = rows(tmp_path, "trials")[-1]
    assert row["status"] == "interrupted"
    assert "Traceback" not in command.stderr.read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--memory-limit", "1MiB"], "too small for resnet8 at any micro-batch"),
        (["--memory-limit", "1GiB", "--micro-batch", "8"], "leave it out"),
        (["--memory-limit", "1GiB", "--precision", "no,bf16"], "not 2 trials"),
        ([], "fit: the following arguments are required: --memory-limit; see "),
    ],
)
def test_what_cannot_be_fitted_is_one_sentence_and_leaves_nothing(
    words: list[str], said: str, launch: Launch, tmp_path: Path
) -> None:
    done = launch(*FIT[2:], *words, "--out", str(tmp_path / "runs"))
    assert is_one_error(done), done.stderr
    assert said in done.stderr
    assert not (tmp_path / "runs").exists()
