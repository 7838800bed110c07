"""An effective batch that grows with --processes, at the same learning rate, is told once, and only then."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Launch

from launch.sweep.request import read

NAME = "resnet20_accumulation"


def note(*words: str) -> str | None:
    return read([*words, "--device", "cpu"]).note


def test_it_says_what_the_batch_becomes_and_what_keeps_it() -> None:
    said = note(NAME, "--arm", "16x16", "--processes", "2")
    assert said == (
        "with --processes 2 the effective batch is 512 (16x16), not 256; the learning rate is unchanged; "
        "--micro-batch 8 keeps the effective batch"
    )
    assert note(NAME, "--arm", "16x16", "--processes", "2", "--micro-batch", "8") is None
    (trial,) = read([NAME, "--arm", "16x16", "--processes", "2", "--micro-batch", "8", "--device", "cpu"]).trials
    assert trial.effective_batch() == 256


def test_of_several_arms_and_counts_four_are_named_and_the_others_counted() -> None:
    said = note(NAME, "--arm", "16x8,128x1", "--processes", "2") or ""
    named = "256 (16x8), not 128, 256 (128x1), not 128"
    assert said.startswith(f"with --processes 2 the effective batches are {named}; the learning rate is unchanged; ")
    assert said.endswith("; a smaller --micro-batch keeps the effective batch")
    said = note(NAME, "--arm", "16x16,128x1", "--processes", "1,2,4,8") or ""
    assert said.startswith("with --processes 2,4,8 the effective batches are 512 (16x16), not 256, ")
    assert "(128x1), not 128, and 2 more; the learning rate is unchanged" in said


@pytest.mark.parametrize(
    "words",
    [
        [NAME, "--arm", "16x16"],
        [NAME, "--arm", "16x16", "--processes", "1"],
        [NAME, "--arm", "16x16_scaled", "--processes", "2"],  # its learning rate follows
        [NAME, "--arm", "16x16", "--processes", "2", "--lr", "0.2"],
        [NAME, "--arm", "16x16", "--processes", "2", "--accumulate", "8"],
        ["process_scaling", "--arm", "resnet20_strong", "--processes", "2"],
    ],
    ids=" ".join,
)
def test_it_says_nothing_where_the_batch_is_kept_or_chosen(words: list[str]) -> None:
    assert note(*words) is None


def test_a_study_s_processes_count_too(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(f'experiments = ["{NAME}"]\narm = "16x16"\nprocesses = 2\n')
    assert "is 512 (16x16), not 256" in (note(str(tmp_path / "study.toml")) or "")


def test_a_sweep_says_it_once_on_stderr(launch: Launch, tmp_path: Path) -> None:
    words = [NAME, "--arm", "16x16", "--processes", "2", "--seed", "0,1,2", "--device", "cpu", "--dry-run"]
    done = launch("run", *words, "--out", str(tmp_path))
    assert done.returncode == 0
    assert done.stderr == (note(NAME, "--arm", "16x16", "--processes", "2") or "") + "\n"
    assert "effective batch" not in done.stdout
