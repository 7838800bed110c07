"""Launches of unlike machines are never one line, what else is unlike is named, and what stands apart is listed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_side_by_side import CPU, OTHER, found, line, of, run, said

from bench.record.columns import columns
from reports import merge

# Which machine, and what else is unlike


def test_two_cpus_are_two_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [run(tmp_path / "a", **CPU), run(tmp_path / "b", **CPU, factor=2, cpu_model="Grace", cpu_count=72)]
    text = said(capsys, *map(str, folders))
    assert line(text, "AMD EPYC")[3] == "1.000"
    assert line(text, "Grace")[3] == "2.000"
    assert "unlike besides: cpu_count 16 against 72\n" in text


def test_a_version_is_a_machine_if_it_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [run(tmp_path / "a"), run(tmp_path / "b", factor=1.25, torch="2.14.1", driver="560.1")]
    text = said(capsys, *map(str, folders), "--by", "torch")
    assert line(text, "torch 2.14.1")[3] == "1.250"
    assert "unlike besides: driver 550.54.15 against 560.1\n" in text


def test_a_setting_may_be_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(tmp_path / "a", {}, {"precision": "bf16", "images_per_s": 4000.0})
    text = said(capsys, str(folder), "--by", "precision")
    assert line(text, "precision bf16")[:2] == ["3", "4000"]
    assert "resnet20_accumulation 16x8\n" in text


@pytest.mark.parametrize("column", [c.name for c in columns("trials") if set(c.roles) & {"machine", "adjustable"}])
def test_unlike_launches_are_never_one_line_and_the_difference_is_named(tmp_path: Path, column: str) -> None:
    """Whatever machine column differs between launches of one device."""
    number = {"int": 73, "float": 0.73}
    kind = next(c.type for c in columns("trials") if c.name == column)
    changed = {column: number.get(kind, "another")}
    folders = [run(tmp_path / "a"), run(tmp_path / "b", factor=0.1, **changed), run(tmp_path / "c", **OTHER)]
    across = found(*map(str, folders))
    each = of(across)
    assert [one["launches"] for one in each.values()] == [3, 3, 3]
    assert sorted(one["images_per_s"] for one in each.values()) == [200, 2000, 2000]
    assert len(each) == 3
    if column != "device_name":
        (difference,) = [text for text in across["trials"][0]["unlike"] if text.startswith(f"{column} ")]
        assert str(changed[column]) in difference
        assert f"NVIDIA H100, {column} {changed[column]}" in each


def test_what_only_the_environments_differ_in_is_named_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, more, capability in (("a", {}, "AVX512"), ("b", OTHER, "DEFAULT")):
        folder = run(tmp_path / name, environment=name, **more)
        about = {"cpu_capability": capability, "torch": name, "command": name, "variables": {"OMP": f"{name}\x1b[31m"}}
        (folder / "environment.json").write_text(json.dumps({name: about}))
    text = said(capsys, str(tmp_path / "a"), str(tmp_path / "b"))
    assert "cpu_capability AVX512 against DEFAULT; OMP a?[31m against b?[31m\n" in text
    assert "command" not in text


def test_a_launch_in_two_folders_counts_once(tmp_path: Path) -> None:
    folders = [run(tmp_path / "h100"), run(tmp_path / "a100", **OTHER)]
    merge.merge(folders, tmp_path / "all")
    each = of(found(*map(str, folders), str(tmp_path / "all")))
    assert [one["launches"] for one in each.values()] == [3, 3]


def test_the_machines_and_ratios_follow_the_order_of_the_runs(tmp_path: Path) -> None:
    each = of(found(str(run(tmp_path / "a100", factor=0.5, **OTHER)), str(run(tmp_path / "h100"))))
    assert list(each) == ["NVIDIA A100", "NVIDIA H100"]
    assert each["NVIDIA H100"]["times_first"] == pytest.approx(2)


# What stands apart


def test_other_settings_and_other_work_are_listed_with_the_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [
        run(tmp_path / "h100", {}, {"precision": "bf16", "lr": 0.5}, {"arm": "64x1"}),
        run(tmp_path / "a100", {}, {"precision": "fp16", "lr": 0.5}, **OTHER),
    ]
    text = said(capsys, *map(str, folders))
    apart = text.partition("Not side by side:\n")[2].splitlines()
    assert [each.strip() for each in apart] == [
        "resnet20_accumulation 16x8 lr=0.5 precision=bf16 on NVIDIA H100: precision bf16 against fp16 on NVIDIA A100",
        "resnet20_accumulation 64x1 lr=0.1 precision=no on NVIDIA H100: no other machine ran this arm",
    ]
    assert text.count("x the") == 1 + 1  # the head of one table, and the legend
