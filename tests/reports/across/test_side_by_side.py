"""Planted throughputs of unlike machines stand side by side with the planted ratio, and nothing unlike is hidden."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from planted_rows import HOSTILE, MACHINE, plant

from bench.record.run_folder import RunFolder
from reports import merge, read
from reports.across import forms, machines, sheets, side_by_side
from reports.across.machines import Line, Trial
from reports.across.side_by_side import NOTHING, Across
from reports.cli import main
from reports.tables.summary import Row

SPEEDS = (2000.0, 2100.0, 1900.0)
OTHER: dict[str, Any] = {"device_name": "NVIDIA A100", "host": "rack"}
TAKEN = "give a column of trials.csv that says the machine (device_name, host, torch, "
CPU: dict[str, Any] = {"device_name": "cpu", "device_count": 0, "driver": None}


def run(folder: Path, *rows: dict[str, Any], factor: float = 1.0, **more: Any) -> Path:
    """A run of three launches for each of these trials, with SPEEDS times the factor."""
    folder.mkdir(exist_ok=True)
    planted = [
        {
            "launch_id": f"{folder.name}-{number}-{repeat}",
            "repeat": repeat,
            "images_per_s": factor * speed,
            "epoch_time_s": 120_000 / (factor * speed),
            **more,
            **row,
        }
        for number, row in enumerate(rows or ({},))
        for repeat, speed in enumerate(SPEEDS)
    ]
    plant(folder, *planted)
    return folder


@pytest.fixture
def two(tmp_path: Path) -> list[str]:
    """The folders of an H100 and of an A100 that is half as fast."""
    return [str(run(tmp_path / "h100")), str(run(tmp_path / "a100", factor=0.5, **OTHER))]


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    main(["across", *words])
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one sentence of a request that cannot be met."""
    with pytest.raises(SystemExit) as ended:
        main(["across", *words])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out, printed.err.count("\n")) == (2, "", 1)
    return printed.err.removeprefix("error: across: ").strip()


def line(text: str, machine: str) -> list[str]:
    """The words of the only line of a machine, without its name and its notes."""
    (found,) = [each for each in text.splitlines() if each.startswith(f" {machine} ")]
    return [word for word in found.removeprefix(f" {machine} ").split() if not word.startswith("[")]


def found(*folders: str, by: str = "device_name", prices: dict[str, float] | None = None) -> dict[str, Any]:
    """What `across` finds, as JSON has it."""
    across = side_by_side.of_folders([Path(folder) for folder in folders], by, prices or {}, ())
    as_read: dict[str, Any] = json.loads(forms.as_json(across), parse_constant=pytest.fail)
    return as_read


def of(across: dict[str, Any]) -> dict[str, Any]:
    """Machine -> its figures, of the only trial."""
    (trial,) = across["trials"]
    return {each["machine"]: each for each in trial["machines"]}


# The figures


def test_half_the_throughput_is_half_with_its_interval_over_launches(
    two: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    stats = pytest.importorskip("scipy.stats")
    text = said(capsys, *two)
    assert line(text, "NVIDIA H100")[:4] == ["3", "2000", "(1900..2100)", "1.000"]
    assert line(text, "NVIDIA A100")[:4] == ["3", "1000", "(950..1050)", "0.500"]
    each = of(found(*two))
    logs = [[math.log(factor * speed) for speed in SPEEDS] for factor in (0.5, 1)]
    interval = stats.ttest_ind(*logs, equal_var=False).confidence_interval(0.95)
    known = [math.exp(limit) for limit in interval]
    a100 = each["NVIDIA A100"]
    assert [a100["times_first_low"], a100["times_first_high"]] == pytest.approx(known)
    assert a100["times_first"] == pytest.approx(0.5)
    assert each["NVIDIA H100"]["times_first"] == 1
    assert "regressed" not in text


def test_one_launch_of_a_machine_has_a_ratio_and_no_interval(tmp_path: Path) -> None:
    base = run(tmp_path / "h100")
    (tmp_path / "a100").mkdir()
    plant(tmp_path / "a100", {**OTHER, "launch_id": "only", "images_per_s": 500.0})
    a100 = of(found(str(base), str(tmp_path / "a100")))["NVIDIA A100"]
    assert a100["times_first"] == pytest.approx(500 / math.prod(SPEEDS) ** (1 / 3))
    assert (a100["times_first_low"], a100["times_first_high"]) == (None, None)


def test_an_epoch_costs_the_price_of_all_devices_for_its_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a CPU, the device is the machine."""
    folders = [
        run(tmp_path / "gpus", device_count=4, processes=4, epoch_time_s=90.0),
        run(tmp_path / "cpus", **CPU, processes=4, epoch_time_s=3600.0),
    ]
    prices = {"NVIDIA H100": 2.0, "AMD EPYC": 0.5}
    each = of(found(*map(str, folders), prices=prices))
    assert each["NVIDIA H100"]["price_of_epoch"] == pytest.approx(2.0 * 4 * 90 / 3600)
    assert each["AMD EPYC"]["price_of_epoch"] == pytest.approx(0.5)
    text = said(capsys, *map(str, folders), "--price", "NVIDIA H100=2")
    assert "price of" in text
    assert "0.2" in line(text, "NVIDIA H100")
    assert "0.5" not in line(text, "AMD EPYC")
    assert "price of" not in said(capsys, *map(str, folders))


def test_memory_energy_and_what_held_it_back_are_each_machine_s_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held: dict[str, Any] = {"throttled_share": 0.35, "throttle_reasons": "hw_thermal_slowdown", "other_processes": 2}
    figures: dict[str, Any] = {"peak_device_bytes": 5 * 2**30, "energy_per_image_j": 0.25, "images_per_j": 4.0}
    folders = [
        str(run(tmp_path / "h100", **figures, other_processes=0)),
        str(run(tmp_path / "a100", **OTHER, **held, data_wait_s=0.01)),
    ]
    each = of(found(*folders))
    names = ("peak_allocated_bytes", "peak_device_bytes", "images_per_j", "throttled_share", "other_processes")
    assert [each["NVIDIA H100"][name] for name in names] == [3 * 2**29, 5 * 2**30, 4.0, None, 0]
    assert [each["NVIDIA A100"][name] for name in names] == [3 * 2**29, None, None, 0.35, 2]
    # 400 windows in 8 s are steps of 20 ms.
    assert [each[name]["data_wait_share"] for name in ("NVIDIA H100", "NVIDIA A100")] == pytest.approx([0.25, 0.5])
    text = said(capsys, *folders)
    assert "[1] clocks held back for 35% of the time: hw_thermal_slowdown" in text
    assert "[2] measured beside 2 other process(es)" in text
    assert "NVIDIA A100 [1][2]" in text


def test_the_share_of_the_peak_is_read_where_there_is_a_column_of_it() -> None:
    row: Row = {**NOTHING, **MACHINE, "images_per_s": 100.0, "mfu": 0.41, "model_flops_per_s": 2e14}
    row["each"] = [row]
    without = {name: value for name, value in row.items() if name not in ("mfu", "model_flops_per_s")}
    trial = Trial("t", [Line("a", row), Line("b", {**without, "each": [without]})], [])
    records = [forms.record(each, trial) for each in trial.lines]
    assert [(each["mfu"], each["model_flops_per_s"]) for each in records] == [(0.41, 2e14), (None, None)]


def test_a_machine_where_launches_failed_says_how_many_and_of_what(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a failed launch measured counts in no number."""
    oom: dict[str, Any] = {"status": "oom", "error": "no room", "images_per_s": 9e9, "peak_allocated_bytes": 2**40}
    base = run(tmp_path / "h100")
    other = run(tmp_path / "a100", factor=0.5, **OTHER)
    plant(other, {**OTHER, **oom, "launch_id": "more"})
    third = run(tmp_path / "small", device_name="RTX", **oom)
    text = said(capsys, str(base), str(other), str(third))
    assert line(text, "NVIDIA A100")[:5] == ["3", "of", "4", "ok", "1000"]
    assert line(text, "RTX") == ["0", "of", "3", "ok"]
    assert "oom: no room" in text


def test_a_launch_that_failed_before_it_knew_its_device_is_no_other_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    early: dict[str, Any] = {"status": "crashed", "error": "no driver", "device_name": None}
    base, broken = run(tmp_path / "h100"), run(tmp_path / "broken", **early)
    assert "all launches are of one machine, NVIDIA H100; give" in refused(capsys, str(base), str(broken))
    text = said(capsys, str(base), str(run(tmp_path / "a100", **OTHER)), str(broken))
    assert line(text, "no device_name") == ["0", "of", "3", "ok"]
    assert "crashed: no driver" in text


def test_numbers_that_are_none_do_no_harm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = {"images_per_s": 1e-300, "epoch_time_s": 1e308, "data_wait_s": 1e308, "measured_time_s": 1e-300}
    for folder, numbers in (("a", {"images_per_s": 1e300}), ("b", {**OTHER, **tiny}), ("c", {"device_name": "zero"})):
        (tmp_path / folder).mkdir()
        zero = {"images_per_s": 0.0, "measured_time_s": 0.0} if folder == "c" else {}
        plant(tmp_path / folder, {"launch_id": folder, **zero, **numbers})
    folders = [str(tmp_path / folder) for folder in "abc"]
    each = of(found(*folders, prices={"NVIDIA A100": 1e8}))
    assert 0 <= each["NVIDIA A100"]["times_first"] < 1e-300
    assert each["NVIDIA A100"]["price_of_epoch"] is None
    assert each["zero"]["times_first"] is None
    text = said(capsys, *folders, "--price", "NVIDIA A100=1e8", "-o", str(tmp_path / "page.html"))
    assert line(text, "zero")[:2] == ["1", "0"]


# What cannot be


@pytest.mark.parametrize(
    ("words", "error"),
    [
        *((["--by", name], f"--by takes no {name!r}; {TAKEN}") for name in ("colour", "images_per_s", "launch_id")),
        (
            ["--price", "TPU=2"],
            "no launch ran on 'TPU', which has a --price; give NVIDIA H100 or NVIDIA A100",
        ),
        (["--price", "NVIDIA H100"], "--price: 'NVIDIA H100' is not DEVICE=PRICE, such as 'NVIDIA H100=2.49'"),
        (["--price", "NVIDIA H100=nan"], "'NVIDIA H100=nan' is not DEVICE=PRICE"),
        (["--price", "NVIDIA H100=-1"], "'NVIDIA H100=-1' is not DEVICE=PRICE"),
        (["--price", "NVIDIA H100=1", "NVIDIA H100=2"], "--price: 'NVIDIA H100' is given twice; give it once"),
        (
            ["--by", "torch"],
            "all launches are of one machine, torch 2.9.0; give the runs of others too; or --by host, ",
        ),
    ],
)
def test_what_cannot_be_is_one_sentence(
    two: list[str], words: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert error in refused(capsys, *two, *words)


def test_runs_of_nothing_in_common_are_refused_with_what_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [run(tmp_path / "h100"), run(tmp_path / "a100", lr=0.7, **OTHER)]
    assert refused(capsys, *map(str, folders)) == (
        "no trial ran on two of NVIDIA H100, NVIDIA A100 (resnet20_accumulation 16x8 lr=0.1 on NVIDIA H100: "
        "lr 0.1 against 0.7 on NVIDIA A100); launch it with equal settings on both"
    )
    (tmp_path / "empty").mkdir()
    RunFolder(tmp_path / "empty").append("trials", [])
    assert "no trial has ended in" in refused(capsys, str(tmp_path / "empty"))


# A run that holds several machines


def test_a_merged_run_has_the_section_by_itself(
    two: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in two:
        main(["show", folder])
        assert "Across machines" not in capsys.readouterr().out
    merge.merge([Path(folder) for folder in two], tmp_path / "all")
    capsys.readouterr()
    main(["show", str(tmp_path / "all")])
    text = capsys.readouterr().out
    section = text.partition("Across machines, by device_name:\n")[2]
    assert line(section, "NVIDIA A100")[3] == "0.500"
    main(["page", str(tmp_path / "all")])
    page = (tmp_path / "all" / "report.html").read_text()
    assert '<h2 id="across">Across machines</h2>' in page
    assert "16x8 on NVIDIA A100: 1000 images/s, 0.500 x NVIDIA H100" in page


def test_the_section_is_by_what_the_machines_differ_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "all", {}, {"host": "rack"})
    main(["show", str(tmp_path / "all")])
    assert "Across machines, by host:\n" in capsys.readouterr().out
    one_host = read.trials(tmp_path / "all").assign(host="tower")
    assert side_by_side.of_run(one_host, tmp_path) is None


def test_what_rows_hold_is_no_mark_up_for_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [
        run(tmp_path / "a", device_name="[bold]x", host="[i]h"),
        run(tmp_path / "b", device_name="[red]z"),
        run(tmp_path / "c", device_name=HOSTILE, arm="[/]y"),
    ]
    text = said(capsys, *map(str, folders))
    assert "[bold]x" in text
    assert "[red]z" in text
    assert "[/]y" in text
    assert "host [i]h" in text


def test_sheets_of_nothing_are_none() -> None:
    assert list(sheets.sheets(Across("host", [], []))) == []
    assert machines.trials([], "host") == {}
