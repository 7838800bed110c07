"""The table says what trials.csv says: in its units, nothing left out that tells rows apart, nothing put together that
is unlike."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from planted_rows import ARM, MACHINE, MEASURED, NAME, plant, rows_of, shown, tables

from bench.experiment import Experiment, Published
from bench.record.columns import columns
from bench.record.rows import first_row
from bench.record.run_folder import RunFolder
from bench.trial import Trial
from reports import read
from reports.cli import main

# Figures


def test_figures_are_those_of_the_file_in_the_units_of_the_head(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(tmp_path, {})
    text = shown(tmp_path, capsys)
    expected = "16x8 ok 12346 12.35 0.05 61.23 25 1.50 2.25 0.50 87.7 91.1"
    assert rows_of(text) == [expected.split()]
    head = " ".join(text.partition("─")[0].split())
    for words in ("step ms", "epoch s", "wait %", "GiB", "acc %"):
        assert all(word in head.split() for word in words.split())
    assert "on tower: NVIDIA H100, torch 2.9.0, driver 550.54.15" in text


def test_what_was_not_measured_is_left_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nothing = dict.fromkeys(MEASURED) | {"status": "ok"}
    plant(tmp_path, {}, nothing | {"eval_accuracy": 0.0, "images_per_s": 0.0, "commit": "1" * 12})
    measured, unmeasured = rows_of(shown(tmp_path, capsys))
    assert len(measured) == 13
    assert unmeasured == ["16x8", "1" * 12, "ok", "0", "0.0"]


def test_what_no_row_has_gets_no_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant(
        tmp_path, {"device_name": "cpu", "device_count": 0, "peak_allocated_bytes": None, "peak_reserved_bytes": None}
    )
    text = shown(tmp_path, capsys)
    assert "GPU" not in text
    assert "published" not in text
    assert "16 CPUs AMD EPYC" in text
    assert "driver" not in text


def test_energy_is_shown_where_there_is_any(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant(tmp_path, {})
    assert "J per" not in shown(tmp_path, capsys)
    plant(tmp_path, {"energy_per_image_j": 0.123456, "seed": 1, "images_per_s": 2})
    text = shown(tmp_path, capsys)
    assert "J per" in text
    assert [words[11:12] for words in rows_of(text)] == [["87.7"], ["0.1235"]]


def test_a_jetson_s_power_mode_stands_beneath_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant(tmp_path, {"power_mode": "25W"}, {"power_mode": "15W"})
    text = shown(tmp_path, capsys)
    assert [mode for mode in ("25W", "15W") if f"power mode {mode}" in text] == ["25W", "15W"]
    assert tables(text) == 2


def test_the_variables_that_change_speed_stand_beneath_its_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(tmp_path, {"variables": "none"}, {"variables": "ONEDNN_MAX_CPU_ISA=AVX2 PYTHONMALLOC=malloc"})
    text = shown(tmp_path, capsys)
    assert tables(text) == 2
    assert text.count(", with ") == text.count(", with ONEDNN_MAX_CPU_ISA=AVX2 PYTHONMALLOC=malloc\n") == 1


def test_a_gpu_s_power_limit_stands_beneath_its_table_and_how_much_it_held_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capped = {"throttled_share": 0.0, "power_capped_share": 0.973, "throttle_reasons": "sw_power_cap"}
    plant(tmp_path, {"power_limit_w": 312.5, **capped})
    text = shown(tmp_path, capsys)
    assert "power limit 312.5 W" in text
    assert rows_of(text)[0][10] == "97"
    assert "[1]" not in text


def test_rows_from_before_tf32_was_a_setting_are_not_said_to_be_float32_where_they_were_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(
        tmp_path,
        "launch_id,trial_key,status,experiment,arm,precision,tf32,cuda,images_per_s",
        "a,k1,ok,e,16x8,no,,13.0,100",
        "b,k2,ok,e,16x8,no,false,13.0,300",
        "c,k3,ok,e,16x8,bf16,,13.0,400",
        "d,k4,ok,e,16x8,bf16,false,13.0,600",
    )
    found = [row[:4] for row in rows_of(shown(tmp_path, capsys))]
    assert found == [["16x8", "bf16", "False", "ok"], ["16x8", "no", "False", "ok"], ["16x8", "no", "ok", "100"]]


def test_a_narrow_window_cuts_no_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path, {}, {"precision": "bf16"})
    figures = rows_of(shown(tmp_path, capsys))
    monkeypatch.setenv("COLUMNS", "40")
    text = shown(tmp_path, capsys)
    assert rows_of(text) == [row[:4] for row in figures]
    assert "…" not in text
    main(["show", str(tmp_path), "--wide"])
    assert rows_of(capsys.readouterr().out) == figures


# Published figures


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "published by Some Paper, table 6"),
        ({"lr": 0.5}, "not comparable with the published figure (Some Paper, table 6): here lr=0.5"),
    ],
)
def test_published_figures_stand_beside_ours_and_what_differs_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], said: str
) -> None:
    published = Published(train_accuracy=0.8361, where="Some Paper, table 6")
    experiment = Experiment(question="", base=Trial(), arms={ARM: {}}, published={ARM: published})
    trial = dataclasses.replace(Trial(experiment=NAME, arm=ARM), **change)
    RunFolder(tmp_path).append("trials", [first_row(trial, experiment, "x") | MACHINE | MEASURED])
    text = shown(tmp_path, capsys)
    assert rows_of(text)[0][-3:] == ["83.6", "/", "-"]
    assert said in text
    assert ("not comparable" in text) == bool(change)


# Warnings

SLOW_RANK = {"slowest_rank": 1, "slowest_rank_excess": 0.314, "slowest_rank_device": "b, GPU 3"}


@pytest.mark.parametrize(
    ("change", "said", "warned"),
    [
        ({"measured_windows": 10}, "fewer than 10 measured windows", False),
        ({"measured_windows": 9}, "fewer than 10 measured windows", True),
        ({"measured_windows": None}, "fewer than 10 measured windows", True),
        ({"step_time_cv": 0.2}, "spread by more than 20%", False),
        ({"step_time_cv": 0.201}, "spread by more than 20%", True),
        ({"weights": "none", "trainable": "head"}, "accuracy says nothing", True),
        ({"weights": "none", "trainable": "all"}, "accuracy says nothing", False),
        ({"weights": "IMAGENET1K_V1", "trainable": "head"}, "accuracy says nothing", False),
        ({"status": "oom", "error": "2 GiB asked, 1 free"}, "oom: 2 GiB asked, 1 free", True),
        (
            {"throttled_share": 0.35, "throttle_reasons": "sw_power_cap hw_thermal_slowdown"},
            "held back for 35% of the time: sw_power_cap hw_thermal_slowdown",
            True,
        ),
        ({"throttled_share": 0.35, "throttle_reasons": "hw_slowdown"}, "held back for 35%", True),
        ({"throttled_share": 0.01, "throttle_reasons": "hw_slowdown"}, "held back", False),
        ({"throttled_share": 0.98, "throttle_reasons": "sw_power_cap"}, "held back", False),  # an older version's
        ({"throttled_share": 0.0, "power_capped_share": 0.98, "throttle_reasons": "sw_power_cap"}, "held back", False),
        ({"energy_source": "module"}, "energy is the whole module's", True),
        ({"energy_source": "counter"}, "energy is", False),
        ({"energy_source": "rapl"}, "energy is of whole CPU packages: what other processes took", True),
        ({"throttled_share": 0.0, "throttle_reasons": "none"}, "held back", False),
        ({"throttle_reasons": "over_current"}, "clocks held back: over_current", True),
        ({"throttle_reasons": "none"}, "held back", False),
        (
            {"processes": 8, **SLOW_RANK},
            "rank 1 (host b, GPU 3) took 1.31 times as long as the median of the other ranks, which wait for it",
            True,
        ),
        (
            {"processes": 2, **SLOW_RANK},
            "rank 1 (host b, GPU 3) took 1.31 times as long as rank 0, which waits for it; of two ranks, no majority",
            True,
        ),
        ({"processes": 8, "slowest_rank_excess": 0.314}, "times as long as", False),  # none stands apart
        ({"other_processes": 2}, "beside 2 other process(es)", True),
        ({"other_processes": 0}, "other process(es)", False),
    ],
)
def test_a_weak_figure_says_that_it_is_weak(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], said: str, warned: bool
) -> None:
    plant(tmp_path, change, {"precision": "bf16", "images_per_s": 77.0})
    text = shown(tmp_path, capsys)
    assert (said in text) == warned
    marked = {" 77 " in line: "[1]" in line for line in text.splitlines() if line.startswith(" 16x8 ")}
    assert marked == {False: warned, True: False}


# Launches of one trial, and their order


def test_repeats_are_one_line_of_medians_with_their_spread(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    each = [(2000.0, 0.9), (2100.0, 0.95), (1900.0, 0.91)]
    plant(tmp_path, *[{"repeat": n, "images_per_s": s, "eval_accuracy": a} for n, (s, a) in enumerate(each)])
    text = shown(tmp_path, capsys)
    (row,) = rows_of(text)
    assert row[:5] == ["16x8", "ok", "3", "2000", "(1900..2100)"]
    assert row[-2:] == ["91.0", "(90.0..95.0)"]
    assert "repeat" not in text


def test_the_fastest_is_first_and_what_failed_is_last_each_on_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = {"status": "crashed", "images_per_s": 9999.0, "error": "killed"}
    plant(tmp_path, failed, failed, {"lr": 0.2, "images_per_s": 100.0}, {"lr": 0.3, "images_per_s": 300.0}, {"lr": 0.4})
    words = [row[1:3] for row in rows_of(shown(tmp_path, capsys))]
    assert words == [["0.4", "ok"], ["0.3", "ok"], ["0.2", "ok"], ["0.1", "crashed"], ["0.1", "crashed"]]


def test_a_warning_of_one_launch_of_several_is_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant(tmp_path, {"other_processes": 0}, {"repeat": 1, "other_processes": 2}, {"repeat": 2, "other_processes": 0})
    assert "[1] measured beside 2 other process(es)" in shown(tmp_path, capsys)


# Rows that are unlike


@pytest.mark.parametrize(
    "column",
    [
        *("experiment", "host", "device_name", "cpu_model", "cpu_count", "torch", "driver", "power_mode"),
        *("power_limit_w", "application_sm_clock_hz", "cpu_capability", "variables"),
    ],
)
def test_rows_of_unlike_machines_stand_in_tables_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], column: str
) -> None:
    plant(tmp_path, {}, {})
    assert tables(shown(tmp_path, capsys)) == 1
    number = column.endswith(("_count", "_w", "_hz"))
    plant(tmp_path, {column: 99 if number else "another"})
    assert tables(shown(tmp_path, capsys)) == 2


def test_a_row_of_stored_features_says_what_its_times_are_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(tmp_path, {}, {"features": "once", "feature_pass_s": 12.5})
    text = shown(tmp_path, capsys)
    said = "times, energy and images/s are of the head alone, on stored features, which the backbone had computed in"
    assert text.count(f"[1] {said} 12.5 s\n") == 1
    assert [word for word in text.split() if word in ("feature", "12.5")][:2] == ["feature", "12.5"]


OTHER: dict[str, Any] = {
    "commit": "fedcba987654",
    "shortcut": "none",
    "precision": "bf16",
    "weights": "IMAGENET1K_V1",
    "batch_norm": "eval",
    "optimizer_holds": "another_model",
    "data": "digits",
    "augment": "flip",
    "pipeline": "loader",
    "memory_format": "contiguous",
    "model": "resnet56",
}


def other(column: str, kind: str) -> Any:
    """Another value than the planted rows have."""
    if column in OTHER:
        return OTHER[column]
    return {"int": 73, "float": 0.73, "bool": column != "replaced_skip", "str": "7 3"}[kind]


SETTINGS = [column for column in columns("trials") if column.name in {f.name for f in dataclasses.fields(Trial)}]
SETTINGS = [column for column in SETTINGS if column.name not in ("experiment", "experiment_file", "arm", "repeat")]


@pytest.mark.parametrize("column", SETTINGS, ids=lambda column: column.name)
def test_rows_of_one_arm_that_differ_in_a_setting_do_not_look_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], column: Any
) -> None:
    value = other(column.name, column.type)
    # What stop_at_target makes of the work is in a column of its own.
    more = {"stop_accuracy": 0.73} if column.name == "stop_at_target" else {}
    plant(tmp_path, {}, {column.name: value, **more})
    text = shown(tmp_path, capsys)
    assert column.name in text
    assert str(value) in text
    first, second, *_ = rows_of(text)
    assert tables(text) == 2 or first != second


def test_an_arms_own_settings_need_no_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant(tmp_path, {"micro_batch": 16, "accumulate": 4}, {"arm": "64x1", "micro_batch": 64, "accumulate": 1})
    head = shown(tmp_path, capsys).partition("─")[0]
    assert "micro_batch" not in head


def test_the_commit_under_a_table_is_every_rows_commit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant(tmp_path, {}, {"commit": "fedcba987654"})
    first, second = rows_of(shown(tmp_path, capsys))
    assert "0123456789ab" in first
    assert "fedcba987654" in second


# Rows of others


def write(folder: Path, *lines: str) -> None:
    (folder / "trials.csv").write_text("".join(f"{line}\n" for line in lines))


def test_a_file_of_an_older_version_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "launch_id,status,experiment,arm,images_per_s,dropped", "a,ok,old_one,16x8,100.25,1")
    text = shown(tmp_path, capsys)
    assert "old_one" in text
    assert rows_of(text) == [["16x8", "ok", "100.2"]]
    write(tmp_path, "launch_id", "a")
    assert "no status" in shown(tmp_path, capsys)


def test_half_a_row_at_the_end_is_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "trials.csv"
    plant(tmp_path, {})
    whole = shown(tmp_path, capsys)
    plant(tmp_path, {})
    path.write_bytes(path.read_bytes()[:-20])
    assert shown(tmp_path, capsys) == whole


def test_cells_are_text_and_never_orders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wild = {"status": "[/red]s[i]", "error": "[/] <script>alert(1)</script> \x1b[31m\x07", "experiment": "[bold]e"}
    plant(tmp_path, wild | {"arm": "[link=http://x]a", "host": "[blink]h", "data": "[i]d"})
    text = shown(tmp_path, capsys)
    for cell in ("[/red]s[i]", "[/] <script>alert(1)</script>", "[bold]e", "[link=http://x]a", "[blink]h", "[i]d"):
        assert cell in text
    assert [character for character in text if ord(character) < 32 and character != "\n"] == []


@pytest.mark.parametrize(
    "cell", ["nan", "inf", "-inf", "1e400", "1e30", "99999999999999999999999", "fast", "1 2", "0x10"]
)
def test_numbers_that_are_none_do_no_harm(tmp_path: Path, capsys: pytest.CaptureFixture[str], cell: str) -> None:
    numbers = [column.name for column in columns("trials") if column.type in ("int", "float", "bool")]
    write(
        tmp_path,
        ",".join(["launch_id", "status", "arm", *numbers]),
        ",".join(["a", "ok", "16x8", *[cell] * len(numbers)]),
    )
    main(["show", str(tmp_path)])
    printed = capsys.readouterr()
    (words,) = rows_of(printed.out)
    assert words[0] == "16x8"
    assert "nan" not in words
    *notes, more = printed.err.splitlines()
    assert len(notes) == read.MOST_NAMED
    assert all(note.endswith("cannot be read; that is unknown, not a default") for note in notes)
    assert "more columns of trials.csv; they are unknown too" in more


def test_a_trial_that_ended_before_it_had_a_device_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant(tmp_path, {"status": "interrupted", "device_name": None})
    words = " ".join(shown(tmp_path, capsys).split())
    assert "device not recorded (the trial ended before it had one)" in words


@pytest.mark.parametrize("command", ["show", "page"])
def test_a_folder_without_rows_is_no_run_to_look_at(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for content in ("", "launch_id,status\n", "launch_id,sta"):
        (tmp_path / "trials.csv").write_text(content)
        with pytest.raises(SystemExit) as ended:
            main([command, str(tmp_path)])
        said = f"error: no trial has ended in {tmp_path} yet; wait for the first, or give "
        assert ended.value.code == 2
        assert capsys.readouterr().err.startswith(said)
        assert [path.name for path in tmp_path.iterdir()] == ["trials.csv"]


def test_a_trial_out_of_memory_says_at_what_and_of_how_much(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = {"oom_phase": "backward", "oom_requested_bytes": 5 * 2**19, "oom_held_bytes": 3 * 2**30}
    plant(tmp_path, {"status": "oom", "error": "no room", **said}, {"status": "oom", "error": "killed"}, {})
    text = shown(tmp_path, capsys)
    assert "oom in backward, asked for 2.5 MiB, held 3 GiB: no room" in text
    assert "oom: killed" in text
    (tmp_path / "partly").mkdir()
    plant(tmp_path / "partly", {"status": "oom", "error": "none", "oom_held_bytes": 0})
    assert "oom, held 0 bytes: none" in shown(tmp_path / "partly", capsys)


def test_a_trial_over_its_limit_says_what_was_predicted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant(tmp_path, {"status": "over_limit", "error": "predicted 3.00 GiB, of a limit of 2.00 GiB"})
    assert "over_limit: predicted 3.00 GiB, of a limit of 2.00 GiB" in shown(tmp_path, capsys)


def test_rows_from_before_a_setting_are_of_the_trial_with_its_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after `reports merge` of an older folder and a newer one."""
    write(
        tmp_path,
        "launch_id,trial_key,status,experiment,arm,validation,evaluate_on,images_per_s",
        "a,k1,ok,e,16x8,,,100",
        "b,k2,ok,e,16x8,0.0,none,300",
        "c,k3,ok,e,16x8,0.2,none,500",
    )
    text = shown(tmp_path, capsys)
    assert [row[:4] for row in rows_of(text)] == [["16x8", "0.2", "ok", "500"], ["16x8", "0.0", "ok", "2"]]
    assert "200 (100..300)" in text


def test_rows_from_before_compile_was_a_mode_are_of_the_trial_with_that_mode(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(
        tmp_path,
        "launch_id,trial_key,status,experiment,arm,compile,images_per_s",
        "a,k1,ok,e,16x8,false,100",
        "b,k2,ok,e,16x8,none,300",
        "c,k3,ok,e,16x8,true,500",
        "d,k4,ok,e,16x8,default,700",
        "e,k5,ok,e,16x8,max-autotune,900",
    )
    text = shown(tmp_path, capsys)
    found = [row[:4] for row in rows_of(text)]
    assert found == [["16x8", "max-autotune", "ok", "900"], ["16x8", "default", "ok", "2"], ["16x8", "none", "ok", "2"]]
    assert "600 (500..700)" in text
    assert "200 (100..300)" in text


def test_what_the_arms_are_about_stands_in_one_table_and_other_work_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = "launch_id,trial_key,status,experiment,arm,model,image_size,images_per_s"
    depth = ["a,k,ok,resnet_depth,plain_20,resnet20,32,300", "b,k,ok,resnet_depth,plain_56,resnet56,32,100"]
    write(tmp_path, head, *depth)
    text = shown(tmp_path, capsys)
    assert tables(text) == 1
    assert rows_of(text, "plain_20") == [["plain_20", "resnet20", "ok", "300"]]
    assert rows_of(text, "plain_56") == [["plain_56", "resnet56", "ok", "100"]]
    write(tmp_path, head, *(line.replace("resnet_depth", "resnet20_accumulation") for line in depth))
    assert tables(shown(tmp_path, capsys)) == 2
    write(tmp_path, head, depth[0], depth[1].replace(",32,", ",64,"))
    assert tables(shown(tmp_path, capsys)) == 2
