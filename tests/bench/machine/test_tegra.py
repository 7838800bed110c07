"""A Jetson's numbers out of its files: planted trees, and what they come to by hand."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import jetsons
import pytest
import torch

from bench.instruments.clock import Clock
from bench.machine import environment, nvml, tegra
from bench.probes import device
from bench.probes import tegra as probe
from bench.training.meter import Meter
from bench.training.windows import Window

KIB = 1024


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (
            jetsons.ORIN_NANO,
            {
                "power_w": 12.0,
                "used_bytes": 3_000_000 * KIB,
                "busy": 0.64,
                "temperature_c": 53.5,
                "clock_hz": 624.75e6,
                "under_voltage": 4,
                "over_current": 8,
            },
        ),
        (
            jetsons.AGX_ORIN,
            {
                "power_w": 34.0,
                "used_bytes": 12_000_000 * KIB,
                "busy": 1.0,
                "temperature_c": 61,
                "clock_hz": 1300.5e6,
                "under_voltage": None,
                "over_current": None,
            },
        ),
        (
            jetsons.THOR,
            {
                "power_w": 72.0,
                "used_bytes": 28_000_000 * KIB,
                "busy": None,
                "temperature_c": 55.1,
                "clock_hz": 1575e6,
                "under_voltage": None,
                "over_current": None,
            },
        ),
    ],
    ids=["orin_nano", "agx_orin", "thor"],
)
def test_gauges_are_the_files_in_plain_units(tmp_path: Path, tree: jetsons.Tree, expected: dict[str, Any]) -> None:
    found = tegra.gauges(jetsons.plant(tmp_path, tree))()
    assert found == {name: value if value is None else pytest.approx(value) for name, value in expected.items()}


@pytest.mark.parametrize(
    ("tree", "board", "mode", "rails"),
    [
        (jetsons.ORIN_NANO, "NVIDIA Jetson Orin Nano Developer Kit", "25W", "VDD_IN"),
        (jetsons.AGX_ORIN, "NVIDIA Jetson AGX Orin Developer Kit", "mode 3", "VDD_GPU_SOC VDD_CPU_CV VIN_SYS_5V0"),
        (jetsons.THOR, "NVIDIA Jetson AGX Thor Developer Kit", "MAXN", "VIN"),
    ],
    ids=["orin_nano", "agx_orin", "thor"],
)
def test_board_mode_and_rails_are_named(tmp_path: Path, tree: jetsons.Tree, board: str, mode: str, rails: str) -> None:
    assert probe.board(jetsons.plant(tmp_path, tree)) == {
        "jetson_board": board,
        "power_mode": mode,
        "power_rails": rails,
    }


def test_without_the_carrier_s_sensor_a_thor_s_rails_are_added_up(tmp_path: Path) -> None:
    tree = {path: text for path, text in jetsons.THOR.items() if "hwmon4" not in path}
    assert tegra.gauges(jetsons.plant(tmp_path, tree))()["power_w"] == pytest.approx(50.0)


def test_rails_that_are_not_known_to_be_the_whole_give_no_power(tmp_path: Path) -> None:
    tree = {path: text.replace("VDD_CPU_CV", "VDD_OTHER") for path, text in jetsons.AGX_ORIN.items()}
    root = jetsons.plant(tmp_path, tree)
    assert tegra.total_rails(root) == {}
    assert tegra.gauges(root)()["power_w"] is None


@pytest.mark.parametrize("content", [None, "", "unreadable"])
@pytest.mark.parametrize(
    ("file", "gauge"),
    [("curr1_input", "power_w"), ("load", "busy"), ("cur_freq", "clock_hz"), ("temp", "temperature_c")],
)
def test_a_file_that_does_not_answer_is_none_and_the_rest_is_still_answered(
    tmp_path: Path, file: str, gauge: str, content: str | None
) -> None:
    found = tegra.gauges(jetsons.plant(tmp_path, jetsons.ORIN_NANO, **{file: content}))()
    assert {name for name, value in found.items() if value is None} == {gauge}


def test_a_jetson_is_known_by_its_chip_where_a_container_hides_the_device_tree(tmp_path: Path) -> None:
    assert environment.is_jetson(jetsons.plant(tmp_path / "a", {"sys/devices/soc0/family": "Tegra"}))
    assert environment.is_jetson(
        jetsons.plant(tmp_path / "b", {"proc/device-tree/compatible": "custom\0nvidia,tegra234\0"})
    )
    for other in ({}, {"proc/device-tree/model": "Raspberry Pi 5\0"}, {"sys/devices/soc0/family": "i.MX"}):
        assert not environment.is_jetson(jetsons.plant(tmp_path / "c", other))


def trained(root: Path, device_type: str = "cpu", images: int = 10, change: dict[str, str] | None = None) -> Any:
    """(the epoch's row, the trial's, the threads while it ran) of a trial on this Jetson, changed in the middle."""
    chosen = device.Probe(root)
    meter = Meter([chosen, probe.Probe(root)], lambda numbers: [numbers], 0, torch.device(device_type))
    meter.clock = Clock()  # the host's: there need be no GPU
    meter.epoch_begin()
    jetsons.plant(root, jetsons.ORIN_NANO, **(change or {}))
    if chosen.sampler is not None:
        while chosen.sampler.totals()[0]["time_s"] == 0:
            chosen.sampler.sample()
    meter.window_end(Window(0, images, []), {})
    row = meter.epoch_end({})[1]
    threads = [thread for thread in threading.enumerate() if thread.name == "sampler"]
    meter.close()
    assert not any(thread.is_alive() for thread in threads)
    return row, meter.trial(), len(threads)


def test_on_its_cpu_a_jetson_tells_the_board_s_energy_and_heat_and_nothing_of_the_gpu(tmp_path: Path) -> None:
    root = jetsons.plant(tmp_path, jetsons.ORIN_NANO)
    row, trial, threads = trained(root)
    assert threads == 1
    assert trial["energy_source"] == "power"
    assert trial["mean_power_w"] == pytest.approx(12.0)
    assert trial["energy_per_image_j"] == pytest.approx(trial["energy_j"] / 10)
    assert (trial["power_rails"], trial["power_mode"]) == ("VDD_IN", "25W")
    assert trial["peak_temperature_c"] == pytest.approx(53.5)
    assert trial["peak_nvmap_bytes"] == row["peak_nvmap_bytes"] == 1_000_000 * KIB
    for name in ("peak_device_bytes", "device_utilisation", "sm_clock_hz", "throttled_share", "throttle_reasons"):
        assert trial[name] is None


def test_on_its_gpu_a_jetson_tells_all_but_what_only_nvml_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.machine import cuda

    monkeypatch.setattr(cuda, "uuid", lambda device: "GPU-none")
    root = jetsons.plant(tmp_path, jetsons.ORIN_NANO)
    _, trial, _ = trained(root, "cuda")
    assert trial["mean_power_w"] == pytest.approx(12.0)
    assert trial["device_utilisation"] == pytest.approx(0.64)
    assert trial["sm_clock_hz"] == pytest.approx(624.75e6)
    assert trial["peak_device_bytes"] == 3_000_000 * KIB
    assert (trial["throttled_share"], trial["other_processes"]) == (None, None)


def test_the_module_s_power_goes_before_the_gpu_s_own_counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where NVML answers too, as on a Thor, energy must not be that of the GPU while power is that of all."""
    of_gpu: dict[str, float | None] = {"energy_j": 5.0, "power_w": 3.0, "busy": 0.5, "temperature_c": 40.0}
    monkeypatch.setattr(nvml, "gauges", lambda uuid: lambda: dict(of_gpu))
    read = device.gauges("GPU-thor", jetsons.plant(tmp_path / "thor", jetsons.THOR))
    assert read is not None
    found = read()
    assert (found["energy_j"], found["power_w"], found["temperature_c"]) == (
        None,
        pytest.approx(72),
        pytest.approx(55.1),
    )
    assert found["busy"] == 0.5
    without = {path: text for path, text in jetsons.THOR.items() if "hwmon" not in path}
    read = device.gauges("GPU-thor", jetsons.plant(tmp_path / "bare", without))
    assert read is not None
    assert (read()["energy_j"], read()["power_w"]) == (5.0, 3.0)


def test_clocks_that_were_cut_because_of_the_supply_are_said(tmp_path: Path) -> None:
    _, trial, _ = trained(jetsons.plant(tmp_path, jetsons.ORIN_NANO), change={"oc3_event_cnt": "5"})
    assert trial["throttle_reasons"] == "over_current"


def test_a_rail_that_fails_in_the_middle_leaves_the_energy_unknown(tmp_path: Path) -> None:
    _, trial, _ = trained(jetsons.plant(tmp_path, jetsons.ORIN_NANO), change={"curr1_input": ""})
    assert [trial[name] for name in ("energy_j", "energy_source", "mean_power_w", "images_per_j")] == [None] * 4
    assert trial["peak_temperature_c"] == pytest.approx(53.5)


def test_elsewhere_there_is_no_thread_and_no_column(tmp_path: Path) -> None:
    row, trial, threads = trained_elsewhere(tmp_path)
    assert threads == 0
    for name in [column.name for module in (device, probe) for column in module.TRIALS]:
        assert trial[name] is None
    assert row["energy_j"] is None


def trained_elsewhere(root: Path) -> Any:
    """As `trained`, on a machine that is no Jetson."""
    meter = Meter([device.Probe(root), probe.Probe(root)], lambda numbers: [numbers], 0, torch.device("cpu"))
    meter.epoch_begin()
    meter.window_end(Window(0, 10, []), {})
    row, threads = meter.epoch_end({})[1], sum(thread.name == "sampler" for thread in threading.enumerate())
    meter.close()
    return row, meter.trial(), threads


def test_what_a_jetson_does_not_tell_is_named(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    missing = probe.unreadable(jetsons.plant(tmp_path / "agx", jetsons.AGX_ORIN))
    assert missing == {"peak_nvmap_bytes": "no NvMapMemUsed in /proc/meminfo"}
    assert probe.unreadable(jetsons.plant(tmp_path / "nano", jetsons.ORIN_NANO)) == {}
    elsewhere = probe.unreadable(tmp_path / "none")
    assert set(elsewhere) == {column.name for column in probe.TRIALS}
    assert set(elsewhere.values()) == {"no /proc/device-tree/model: not a Jetson"}
    pi = probe.unreadable(jetsons.plant(tmp_path / "pi", {"proc/device-tree/model": "Raspberry Pi 5\0"}))
    assert set(pi.values()) == {"Raspberry Pi 5: not a Jetson"}


def test_on_the_cpu_of_a_jetson_its_energy_can_be_read_and_its_gpu_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "ACCELERATE_USE_CPU", "true")
    missing = device.unreadable(jetsons.plant(tmp_path, jetsons.ORIN_NANO))
    assert not {"energy_j", "energy_per_image_j", "peak_temperature_c", "throttle_reasons"} & set(missing)
    assert missing["device_utilisation"].startswith("needs a CUDA device: ACCELERATE_USE_CPU is set")
