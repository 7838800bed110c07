"""Records: columns and their units, and rows that are whole or absent."""

import json
import re
from pathlib import Path

import pytest
from settings import OTHER

from bench.errors import UsageError
from bench.record.columns import FILES, columns
from bench.record.run_folder import RunFolder

UNITS = {"_s": "s", "_bytes": "bytes", "_j": "J", "_w": "W", "_hz": "Hz", "_c": "°C"}
UNITS |= {"_per_s": "images/s", "_per_j": "images/J"}
UNITS |= {"flops_per_s": "FLOP/s", "bytes_per_s": "bytes/s"}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.prepare()
    return folder


@pytest.mark.parametrize("file", FILES)
def test_column_names_are_unique_and_documented_in_a_sentence(file: str) -> None:
    found = columns(file)
    assert len({column.name for column in found}) == len(found)
    for column in found:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", column.name), column
        assert column.text.endswith("."), column


@pytest.mark.parametrize("file", FILES)
def test_a_name_carries_its_unit(file: str) -> None:
    for column in columns(file):
        quantity = column.name.removesuffix("_per_process").removesuffix("_per_window")
        endings = [ending for ending in UNITS if quantity.endswith(ending)]
        if endings:
            assert column.unit == UNITS[max(endings, key=len)], column
        else:
            assert column.unit not in UNITS.values(), column
        if column.unit == "bytes":
            assert column.type == "int", column


def test_every_field_of_trial_has_a_column_of_its_type() -> None:
    types = {column.name: column.type for column in columns("trials")}
    for name, value in OTHER.items():
        expected = {tuple: "str"}.get(type(value), type(value).__name__)
        assert types[name] == expected, name


def test_the_design_s_columns_are_there() -> None:
    names = {column.name for column in columns("trials")}
    wanted = """trial_key experiment arm repeat status error started_at duration_s effective_batch total_parameters
        trainable_parameters optimizer_steps images_seen warmup_windows images_per_s images_per_s_per_process
        step_time_p50_s step_time_p90_s step_time_p99_s step_time_cv epoch_time_s data_wait_s train_loss train_accuracy
        eval_loss eval_accuracy peak_allocated_bytes peak_reserved_bytes peak_device_bytes peak_rss_bytes device_name
        device_count cpu_model torch cuda driver commit"""
    assert set(wanted.split()) <= names


def test_an_unknown_column_is_an_error_and_nothing_is_written(folder: RunFolder) -> None:
    folder.append("steps", [{"window": 1}])
    before = (folder.path / "steps.csv").read_bytes()
    with pytest.raises(KeyError, match=r"steps.csv has no column \['widnow'\]"):
        folder.append("steps", [{"window": 2}, {"widnow": 3}])
    assert (folder.path / "steps.csv").read_bytes() == before


def test_a_second_run_extends_the_first(folder: RunFolder) -> None:
    folder.append("steps", [{"window": 0}, {"window": 1}])
    RunFolder(folder.path).append("steps", [{"window": 2}])
    assert [row["window"] for row in folder.rows("steps")] == ["0", "1", "2"]


def test_no_file_has_no_rows(folder: RunFolder) -> None:
    assert folder.rows("trials") == []


@pytest.mark.parametrize("where", ["file", "file/below", "file/far/below"])
def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match=r"cannot write to --out .*; choose another folder"):
        RunFolder(tmp_path / where).prepare()
    assert (tmp_path / "file").read_text() == "in the way"


def test_preparing_leaves_no_traces(folder: RunFolder) -> None:
    folder.prepare()
    assert [path.name for path in folder.path.rglob("*")] == ["logs"]


def test_equal_environments_are_kept_once_and_unlike_ones_beside_each_other(folder: RunFolder) -> None:
    for key, value in (("a", {"x": 1}), ("b", {"x": 2}), ("a", {"x": 1})):
        folder.add_environment(key, value)
    assert json.loads((folder.path / "environment.json").read_text()) == {"a": {"x": 1}, "b": {"x": 2}}


@pytest.mark.parametrize("text", ["", '{"a": {"x": 1}, "b": ', "[]", "<<<<<<< HEAD"])
def test_environments_that_cannot_be_read_are_kept_and_named(folder: RunFolder, text: str) -> None:
    path = folder.path / "environment.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"environment.json.*choose another --out"):
        folder.add_environment("a", {"x": 1})
    assert path.read_text() == text
