"""Two folders with a planted difference: it is found where it is, and nothing is told that the rows do not hold."""

from __future__ import annotations

import csv
import math
import shlex
from pathlib import Path
from typing import Any

import pytest
from planted_rows import ARM, NAME, SPREAD, plant, times
from scipy import stats

from bench.record.columns import columns
from bench.record.run_folder import RunFolder
from reports.cli import main
from reports.verdicts import compare, matching


def told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], base: list[Any], head: list[Any], *words: str
) -> tuple[int, list[str]]:
    """(exit code, lines)."""
    for name, rows in (("base", base), ("head", head)):
        (tmp_path / name).mkdir()
        plant(tmp_path / name, *[{"launch_id": f"{name}{number}", **row} for number, row in enumerate(rows)])
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(tmp_path / "base"), str(tmp_path / "head"), *words])
    printed = capsys.readouterr()
    assert printed.err == ""
    assert isinstance(ended.value.code, int)
    return ended.value.code, [line.strip() for line in printed.out.splitlines() if line.strip()]


def line(lines: list[str], *parts: str) -> str:
    (found,) = [line for line in lines if all(part in line for part in parts)]
    return found


def test_equal_launches_are_equivalent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = told(tmp_path, capsys, times(), times(spread=SPREAD[::-1]))
    assert (code, lines[0]) == (0, "6 equivalent")
    assert line(lines, "step_time_p50_s").endswith("equivalent")
    assert "0.0123" in line(lines, "step_time_p50_s")


def test_a_slow_down_is_found_and_named_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = told(tmp_path, capsys, times(), times(0.0123 * 1.05))
    assert (code, lines[0]) == (1, "2 regressed, 4 equivalent")
    slow = line(lines, "step_time_p50_s")
    assert "+5.00" in slow
    assert slow.endswith("regressed")
    assert line(lines, "images_per_s").endswith("regressed")
    assert f"{NAME} {ARM}" in lines[3]
    assert lines[3].endswith("regressed")


def test_a_speed_up_is_an_improvement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = told(tmp_path, capsys, times(), times(0.0123 * 0.9))
    assert (code, lines[0]) == (0, "2 improved, 4 equivalent")


def test_a_wider_margin_lets_more_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = told(tmp_path, capsys, times(), times(0.0123 * 1.05), "--margin", "10%")
    assert (code, lines[0]) == (0, "6 equivalent")
    assert "margin of 0.1;" in lines[-1]


@pytest.mark.parametrize("column", ["peak_allocated_bytes", "peak_rss_bytes"])
def test_more_memory_is_a_regression(column: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = told(tmp_path, capsys, times(), [{**row, column: 2**31} for row in times()])
    assert code == 1
    assert line(lines, column).endswith("regressed")


def test_less_accuracy_is_a_regression(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seeds = [{**row, "eval_accuracy": 0.9 + 0.001 * n} for n, row in enumerate(times())]
    code, lines = told(tmp_path, capsys, seeds, [{**row, "eval_accuracy": row["eval_accuracy"] - 0.1} for row in seeds])
    assert code == 1
    assert line(lines, "eval_accuracy").endswith("regressed")


@pytest.mark.parametrize(("words", "code"), [([], 0), (["--fail-inconclusive"], 4)])
def test_what_nobody_can_tell_is_no_pass(
    words: list[str], code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = [0.2, -0.1, 0.05, -0.2, 0.1]
    ended, lines = told(tmp_path, capsys, times(spread=wide), times(spread=wide[::-1]), *words)
    assert ended == code
    assert lines[0] == "2 inconclusive, 4 equivalent"
    assert line(lines, "step_time_p50_s").endswith("inconclusive")


@pytest.mark.parametrize(
    ("mean", "level", "ending"),
    [(1.09, "5%", "needs"), (1.09, "30%", "regressed"), (1.0, "5%", "inconclusive")],
    ids=["beyond the margin for one line alone", "beyond it for all", "on both sides of it"],
)
def test_an_interval_that_decides_for_one_line_alone_says_what_all_lines_need(
    mean: float, level: str, ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of six lines, those of memory and accuracy are equivalent, so that Holm tests the step time at level / 2."""
    wide = [0.05, -0.05, 0.0, 0.03, -0.03]
    base, head = times(spread=wide), times(0.0123 * mean, spread=wide)
    _, lines = told(tmp_path, capsys, base, head, "--level", level)
    said = line(lines, "step_time_p50_s")
    logs = [[math.log(row["step_time_p50_s"]) for row in rows] for rows in (head, base)]

    def interval(share: float) -> str:
        found = stats.ttest_ind(*logs, equal_var=False).confidence_interval(share)
        return f"{100 * math.expm1(found.low):+.2f} .. {100 * math.expm1(found.high):+.2f}"

    assert interval(0.95) in said
    needs = f"inconclusive: 95% is not enough: a verdict on 6 lines needs the 97.5% interval (Holm), {interval(0.975)}"
    assert said.endswith(needs if ending == "needs" else ending)


@pytest.mark.parametrize(("width", "has_values"), [(80, False), (200, True)])
def test_the_legend_explains_what_is_shown_and_a_command_prints_the_rest(
    width: int,
    has_values: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    slow = times(0.0123 * 1.09, spread=[0.05, -0.05, 0.0, 0.03, -0.03])
    _, lines = told(tmp_path, capsys, times(), slow, "--margin", "1%", "--level", "0.01")
    text = " ".join(" ".join(lines).split())
    assert ("base and head: medians" in text) == has_values
    assert ("could show: the change" in text) == has_values
    head, _, command = text.partition(" All columns: python -m reports ")
    assert bool(command) == (not has_values)
    if command:
        assert "of 7 columns; the last line has the command that prints all" in head
        monkeypatch.delenv("COLUMNS")
        with pytest.raises(SystemExit):
            main(shlex.split(command))
        wide = capsys.readouterr().out
        assert "could show: the change" in wide
        assert "margin of 0.01;" in wide
        assert "0.01 (Holm)" in wide


def test_where_no_time_was_measured_it_is_no_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    none = times(step_time_p50_s=None, images_per_s=None)
    code, lines = told(tmp_path, capsys, none, none, "--fail-inconclusive")
    assert (code, lines[0]) == (4, "1 inconclusive, 4 equivalent")
    assert "no window was timed; train more images" in line(lines, "step_time_p50_s")


def test_one_launch_each_tells_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = told(tmp_path, capsys, times()[:1], times(0.0246)[:1])
    assert (code, lines[0]) == (0, "6 inconclusive")
    assert "1 and 1 launches have no spread; give --repeats" in line(lines, "step_time_p50_s")


def at(row: dict[str, Any], minute: int) -> dict[str, Any]:
    return {**row, "started_at": f"2026-01-01T10:{minute:02}:00.000+00:00"}


def test_one_folder_after_the_other_is_not_in_turn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = [at(row, number) for number, row in enumerate(times())]
    after = [at(row, 30 + number) for number, row in enumerate(times())]
    _, lines = told(tmp_path, capsys, before, after)
    assert "5 and 5" in line(lines, "step_time_p50_s")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"torch": "2.10.0"}, "torch 2.9.0 against 2.10.0"),
        ({"device_name": "NVIDIA A100"}, "device_name NVIDIA H100 against NVIDIA A100"),
        ({"host": "lab", "threads": 3}, "host tower against lab; threads 2 against 3"),
        ({"micro_batch": 32}, "micro_batch 16 against 32"),
        ({"cpu_capability": "DEFAULT"}, "cpu_capability AVX512 against DEFAULT"),
        ({"variables": "ONEDNN_MAX_CPU_ISA=AVX2 PYTHONMALLOC=malloc"}, "ONEDNN_MAX_CPU_ISA not set against AVX2"),
        (
            {"variables": "MALLOC_CONF='narenas:1, lg_tcache_max:0' PYTHONMALLOC=debug"},
            "MALLOC_CONF not set against narenas:1, lg_tcache_max:0; PYTHONMALLOC malloc against debug",
        ),
        ({"variables": "none"}, "PYTHONMALLOC malloc against not set"),
        ({"variables": "don't"}, "PYTHONMALLOC malloc against not set; variables not set against don't"),
        ({"group_variables": "NCCL_ALGO=Tree"}, "NCCL_ALGO Ring against Tree"),
    ],
)
def test_what_is_unlike_is_not_compared_and_said_in_what(
    change: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    speed: dict[str, Any] = {
        "cpu_capability": "AVX512",
        "variables": "PYTHONMALLOC=malloc",
        "group_variables": "NCCL_ALGO=Ring",
    }
    base = times(micro_batch=16, threads=2, **speed)
    code, lines = told(tmp_path, capsys, base, [{**row, **change} for row in base])
    assert code == 3
    assert line(lines, "not comparable: ").endswith(f"not comparable: {said}")
    assert "step_time_p50_s" not in "".join(lines)


def test_a_trial_that_is_gone_or_new_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = told(tmp_path, capsys, times() + times(arm="64x2"), times() + times(arm="128x1"))
    assert code == 3
    assert line(lines, f"{NAME} 64x2").endswith("not comparable: it is missing in HEAD")
    assert line(lines, f"{NAME} 128x1").endswith("not comparable: it is missing in BASE")


def test_a_trial_that_only_fails_now_has_regressed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = told(tmp_path, capsys, times(), times(status="oom", error="out of [b]memory"))
    assert code == 1
    assert line(lines, NAME).endswith(
        "regressed: 5 of 5 launches in HEAD failed, 0 of 5 in BASE; oom: out of [b]memory"
    )


def test_some_that_fail_now_are_a_regression_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = times()[:2] + times(status="oom", error="no")[2:]
    code, lines = told(tmp_path, capsys, times(), head)
    assert code == 1
    assert line(lines, "failed").endswith("regressed: 3 of 5 launches in HEAD failed, 0 of 5 in BASE; oom: no")


def test_what_failed_as_often_before_is_no_regression(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = times()[:4] + times(status="oom", error="no")[4:]
    code, lines = told(tmp_path, capsys, rows, rows)
    assert code == 0
    assert "inconclusive: 1 of 5 launches in HEAD failed, 1 of 5 in BASE" in line(lines, "failed")


def test_a_failure_on_another_machine_is_not_comparable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = times(status="oom", error="no", host="lab", device_name=None)
    code, lines = told(tmp_path, capsys, times(), head)
    assert (code, lines[0]) == (3, "1 not comparable")
    assert not any("chance that any of" in each for each in lines)  # nothing was measured
    assert line(lines, NAME).endswith("not comparable: host tower against lab")


def test_interrupted_launches_do_not_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = told(tmp_path, capsys, times(), times() + times(status="interrupted", error="SIGINT"))
    assert (code, lines[0]) == (0, "6 equivalent")


@pytest.mark.parametrize(
    ("base", "head", "code", "said"),
    [
        ([0.62] * 5, [0.60] * 5, 0, "inconclusive: each side is one seed's result"),
        ([0.62] * 5, [0.0] * 5, 1, "regressed: it is 0 in HEAD"),
        ([0.0, 0.9, 0.9, 0.9, 0.9], [0.9] * 5, 0, "inconclusive: some launches have 0"),
        ([0.9] * 5, [0.9, None, 0.9, 0.9, 0.9], 0, "inconclusive: it is missing in 1 of 10 launches"),
    ],
)
def test_an_accuracy_that_tells_nothing_says_why(
    base: list[Any], head: list[Any], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sides = [[{**row, "eval_accuracy": v} for row, v in zip(times(), side, strict=True)] for side in (base, head)]
    ended, lines = told(tmp_path, capsys, sides[0], sides[1])
    assert ended == code
    assert said in line(lines, "eval_accuracy")


def test_a_launch_whose_row_is_there_twice_counts_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twice = [{**row, "launch_id": f"head{number}"} for number, row in enumerate(times())] * 2
    _, lines = told(tmp_path, capsys, times(), twice)
    assert "5 and 5; 0 and 5 left out" in line(lines, "step_time_p50_s")


def test_a_run_held_against_itself_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant(tmp_path, *times())
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(tmp_path), str(tmp_path)])
    assert ended.value.code == 2
    assert "launch launch0 is in both folders" in capsys.readouterr().err


def test_what_was_measured_on_one_side_alone_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = told(tmp_path, capsys, times(), times(eval_accuracy=None))
    assert code == 3
    assert line(lines, "eval_accuracy").endswith("not comparable: it was not measured in HEAD")


def test_a_machine_that_is_not_known_is_not_taken_for_equal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = told(tmp_path, capsys, times(host=None), times(host=None))
    assert code == 3
    assert "host is not known" in line(lines, NAME)


@pytest.mark.parametrize("side", ["BASE", "HEAD"])
def test_a_column_that_one_side_does_not_know_is_not_unlike_and_is_named(
    side: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sides = (times(), times(0.0123 * 1.05, power_mode="15W"))
    code, lines = told(tmp_path, capsys, *(sides if side == "BASE" else sides[::-1]))
    assert (code, lines[0]) == ((1, "2 regressed, 4 equivalent") if side == "BASE" else (0, "2 improved, 4 equivalent"))
    assert line(lines, "step_time_p50_s").endswith(f": power_mode is not known in {side}")


def test_a_side_of_two_machines_is_not_comparable_even_if_the_other_knows_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = [{**row, "power_mode": mode} for row, mode in zip(times(), ("15W", "15W", "30W", None, None), strict=True)]
    code, lines = told(tmp_path, capsys, times(), head)
    assert code == 3
    assert line(lines, NAME).endswith("not comparable: power_mode nothing against 15W and 30W")


@pytest.mark.parametrize("side", ["base", "head"])
@pytest.mark.parametrize("column", ["host", "device_name", "torch"])
def test_an_identity_that_one_side_does_not_know_is_not_comparable(
    column: str, side: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unknown = [{**row, column: None} for row in times()]
    code, lines = told(tmp_path, capsys, *((unknown, times()) if side == "base" else (times(), unknown)))
    assert code == 3
    assert line(lines, NAME).endswith(f"not comparable: {column} is not known")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "compare: the following arguments are required: BASE"),
        (["a"], "compare needs two runs, BASE and HEAD; or RUN --arms A,B for two arms of one run"),
        (["a", "b", "--target-accuracy", "0.9"], "--target-accuracy is for two arms of one run"),
        (["a", "b", "--arms", "x,y"], "--arms compares within one run; give one run"),
        (["a", "--arms", "x,y", "--setting", "precision=no,bf16"], "--setting compares within one run; give one run"),
        (["a", "--arms", "16x16"], "--arms is '16x16'; give two different ones, such as 16x16,256x1"),
        (["a", "--arms", "x,x"], "--arms is 'x,x'; give two different ones"),
        (
            ["a", "--setting", "precision"],
            "--setting is 'precision'; give two different ones, such as precision=bf16,no",
        ),
        (["a", "--setting", "seed=1,2"], "--setting cannot compare 'seed'; choose from: accumulate, arm,"),
        (["a", "--setting", "colour=1,2"], "--setting cannot compare 'colour'"),
        (["a", "--arms", "x,y", "--over", "seed"], "--over seed goes without saying with --arms; leave it out"),
        (["a", "--arms", "x,y", "--target-accuracy", "90"], "'90' is no share from 0 to 1; give 0.9 for 90%"),
        (["nowhere", "--arms", "x,y"], "no nowhere/trials.csv"),
        (["a", "b", "c"], "unrecognized arguments: c"),
        (["a", "b", "--margin", "x"], "--margin: 'x' is no share between 0 and 1"),
        (["a", "b", "--margin", "2"], "--margin: '2' is no share"),
        (["a", "b", "--margin"], "--margin has no value; give one"),
        (["a", "b", "--level=0"], "--level: '0' is no share"),
        (["a", "b", "--fast"], "compare has no option '--fast'; see "),
        (["a", "b", "--level", "1%", "--level=5%"], "--level is given twice"),
        (["a", "b", "--mar", "1%"], "compare has no option '--mar'; perhaps you meant --margin; see "),
        (["nowhere", "b"], "no nowhere/trials.csv"),
    ],
)
def test_what_cannot_be_is_one_sentence(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["compare", *words])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (2, "")
    assert printed.err.startswith("error: ")
    assert said in printed.err
    assert printed.err.count("\n") == 1


def test_a_run_in_which_nothing_has_ended_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, rows in (("base", times()), ("head", [])):
        (tmp_path / name).mkdir()
        RunFolder(tmp_path / name).append("trials", [])
        plant(tmp_path / name, *rows)
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(tmp_path / "base"), str(tmp_path / "head")])
    assert ended.value.code == 2
    assert f"no trial has ended in {tmp_path / 'head'}" in capsys.readouterr().err


def test_every_metric_is_a_column() -> None:
    assert {*compare.METRICS, *compare.MACHINE, *matching.SETTINGS} <= {column.name for column in columns("trials")}


@pytest.mark.parametrize(
    "change",
    [
        {"throttled_share": 0.5},
        {"throttled_share": 0.5, "throttle_reasons": "sw_power_cap hw_thermal_slowdown"},
        {"throttled_share": 0.5, "throttle_reasons": "hw_slowdown"},
        {"other_processes": 1},
        {"resumed_at_epoch": 1},
    ],
    ids=str,
)
def test_launches_that_were_disturbed_are_left_out_and_counted(
    change: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = [{**row, "step_time_p50_s": 0.05, **change} for row in times()[:2]]
    code, lines = told(tmp_path, capsys, times(), [*times(), *slow])
    assert code == 0
    assert line(lines, "step_time_p50_s").endswith(
        "equivalent: 2 launches that were throttled, resumed or not alone on their device are left out"
    )
    assert "5 and 5" in line(lines, "step_time_p50_s")


@pytest.mark.parametrize("share", ["power_capped_share", "throttled_share"])  # as an older version has it
def test_a_gpu_at_its_power_limit_is_as_gpus_are(
    share: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded: dict[str, Any] = {share: 0.95, "throttle_reasons": "sw_power_cap"}
    code, lines = told(tmp_path, capsys, times(**loaded), times(0.0123 * 1.05, **loaded))
    assert (code, lines[0]) == (1, "2 regressed, 4 equivalent")
    assert "left out" not in " ".join(lines)
    assert "5 and 5" in line(lines, "step_time_p50_s")


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("power_limit_w", 400.0, 300.0),
        ("application_sm_clock_hz", 1.41e9, 1.2e9),
        ("max_sm_clock_hz", 1.98e9, 1.41e9),
        ("tf32", False, True),
        ("cudnn_benchmark", False, True),
    ],
)
def test_how_a_gpu_is_set_is_its_machine_or_the_trial_s_setting(
    name: str, before: Any, after: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines = told(tmp_path, capsys, times(**{name: before}), times(**{name: after}))
    assert (code, lines[0]) == (3, "1 not comparable")
    assert f"{name} {before} against {after}" in line(lines, NAME)


def test_energy_of_a_module_is_not_held_against_a_gpu_s(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, head = (times(energy_per_image_j=0.5, energy_source=source) for source in ("counter", "module"))
    code, lines = told(tmp_path, capsys, base, head)
    assert (code, lines[0]) == (3, "1 not comparable, 6 equivalent")
    assert "energy_source counter against module" in line(lines, "energy_per_image_j")


def test_where_all_were_disturbed_nothing_can_be_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, lines = told(
        tmp_path, capsys, times(), [{**row, "other_processes": 3} for row in times()], "--fail-inconclusive"
    )
    assert "equivalent" not in lines[0]
    assert "regressed" not in lines[0]


def test_several_commits_in_one_folder_are_not_comparable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = [{**row, "commit": f"{number % 2:012}"} for number, row in enumerate(times())]
    code, lines = told(tmp_path, capsys, times(), head)
    assert code == 3
    assert "HEAD has launches of commits 000000000000 and 000000000001" in line(lines, NAME)


def test_a_base_from_before_a_setting_is_comparable_with_its_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for side in ("base", "head"):
        (tmp_path / side).mkdir()
        plant(tmp_path / side, *[{"launch_id": f"{side}{n}", **row} for n, row in enumerate(times())])
    rows = list(csv.reader((tmp_path / "base" / "trials.csv").read_text().splitlines()))
    gone = [rows[0].index(name) for name in ("bucket_mib", "gradient_compression", "machines")]
    kept = [[cell for place, cell in enumerate(row) if place not in gone] for row in rows]
    (tmp_path / "base" / "trials.csv").write_text("\n".join(map(",".join, kept)) + "\n")
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(tmp_path / "base"), str(tmp_path / "head")])
    assert (ended.value.code, capsys.readouterr().out.splitlines()[0]) == (0, "6 equivalent")
