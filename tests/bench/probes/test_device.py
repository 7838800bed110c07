"""What the device probe makes of GPUs that a stand-in for NVIDIA's library plays, loaded by the real pynvml."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import CHECKOUT
from launching import python, with_variables
from steered import BY_CUDA, SLEPT_S

from bench.probes import device

MEASURED = [column.name for column in device.TRIALS if column.name != "peak_device_bytes"]


Steered = Callable[..., Any]


@pytest.fixture(scope="module")
def server(standin_nvml: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has imported torch, and from which scenarios are forked."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.steered"],
        cwd=CHECKOUT,
        env=with_variables({"LD_LIBRARY_PATH": str(standin_nvml)}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


@pytest.fixture
def steered(server: subprocess.Popen[str], tmp_path: Path) -> Steered:
    """What a scenario of steered.py prints; it must not complain."""
    (tmp_path / "state").touch()
    assert server.stdin is not None
    assert server.stdout is not None
    asking, answers = server.stdin, server.stdout

    def steered(scenario: str, behaviour: str = "2", **more: str) -> Any:
        variables = {"STANDIN_NVML": behaviour, "STANDIN_NVML_STATE": str(tmp_path / "state"), **more}
        asked = {"scenario": scenario, "variables": variables, "folder": str(tmp_path)}
        print(json.dumps(asked), file=asking, flush=True)
        assert (answers.readline(), (tmp_path / "err").read_text()) == ("0\n", "")
        return json.loads((tmp_path / "out").read_text())

    return steered


def test_a_gpu_s_energy_is_its_counter_s_over_training_alone(steered: Steered) -> None:
    found = steered("whole")
    first, second = found["epochs"]
    trial = found["trial"]
    assert [row["energy_j"] for row in (first, second, trial)] == pytest.approx([15.0, 5.0, 20.0])
    assert {row["energy_source"] for row in (first, second, trial)} == {"counter"}
    assert [row["energy_per_image_j"] for row in (first, second, trial)] == pytest.approx([15 / 16, 5 / 16, 20 / 32])
    assert trial["images_per_j"] == pytest.approx(32 / 20)
    assert trial["mean_power_w"] > 0


def test_load_clock_heat_and_memory_are_what_was_seen(steered: Steered) -> None:
    found = steered("whole")
    trial = found["trial"]
    assert trial["device_utilisation"] == pytest.approx(0.75)
    assert trial["sm_clock_hz"] == pytest.approx(1.5e9)
    assert trial["peak_temperature_c"] == 71
    assert trial["peak_device_bytes"] == 5000 * 2**20
    assert isinstance(found["epochs"][0]["peak_device_bytes"], int)


def test_throttling_counts_while_training_and_an_idle_or_loaded_device_is_none(steered: Steered) -> None:
    """In the first epoch the power cap held, and idle was told too; heat held the clocks back between the epochs."""
    found = steered("whole")
    first, second = found["epochs"]
    assert first["throttle_reasons"] == "sw_power_cap"
    assert (first["throttled_share"], second["power_capped_share"]) == (0, 0)
    assert 0 < first["power_capped_share"] < 1
    assert second["throttled_share"] > 0
    assert "sw_power_cap" not in second["throttle_reasons"]
    assert "sw_power_cap" in found["trial"]["throttle_reasons"]


def test_a_slow_down_of_the_hardware_throttles_where_it_lasts(steered: Steered) -> None:
    row = steered("slowed")
    assert row["throttle_reasons"] == "sw_power_cap hw_slowdown"
    assert 0.5 < row["throttled_share"] <= 1


def test_a_module_s_counter_is_no_gpu_s(steered: Steered) -> None:
    name = {"STANDIN_NVML_NAME": "NVIDIA GH200 480GB"}
    assert steered("whole", **name)["trial"]["energy_source"] == "module"
    row = steered("by_power", **name)
    assert row["energy_source"] == "power"  # NVML's power there is the GPU's


def test_the_sampling_thread_is_gone_after_the_trial(steered: Steered) -> None:
    assert steered("whole")["threads"] == [1, 0]


def test_over_two_gpus_energy_is_added_up_and_peaks_are_the_highest(steered: Steered) -> None:
    trial = steered("two")
    assert trial["energy_j"] == pytest.approx(42.0)
    assert trial["energy_per_image_j"] == pytest.approx(2.0)
    assert trial["peak_temperature_c"] == 80
    assert trial["peak_device_bytes"] == 4096 * 2**20
    assert 0.25 < trial["device_utilisation"] < 0.75
    assert trial["throttle_reasons"] == "hw_thermal_slowdown"
    assert 0 < trial["throttled_share"] < 0.5


def test_without_a_counter_a_constant_power_gives_its_energy(steered: Steered) -> None:
    row = steered("by_power")
    assert row["energy_source"] == "power"
    assert row["mean_power_w"] == pytest.approx(100.0)
    assert row["energy_j"] >= 100.0 * SLEPT_S
    assert row["energy_per_image_j"] == pytest.approx(row["energy_j"] / 10)


def test_a_gpu_that_falls_off_the_bus_is_unknown_from_then_on_and_nothing_stops(steered: Steered) -> None:
    found = steered("lost")
    before, during, after = found["epochs"]
    assert before["energy_j"] == pytest.approx(13.0)
    assert before["peak_temperature_c"] == 60
    for row in (during, after):
        assert [row[name] for name in (*MEASURED, "peak_device_bytes")] == [None] * (len(MEASURED) + 1)
    assert found["alive"]


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        ("jetson", "NVML: Not Supported"),
        ("mismatch", "NVML: RM has detected an NVML/RM version mismatch"),
        ("0", "NVML sees no GPU"),
    ],
)
def test_a_library_that_tells_nothing_costs_nothing_and_is_named_as_the_reason(
    steered: Steered, behaviour: str, why: str
) -> None:
    found = steered("nothing", behaviour=behaviour)
    assert [found["epoch"][name] for name in MEASURED] == [None] * len(MEASURED)
    assert found["epoch"]["peak_device_bytes"] == BY_CUDA
    assert found["threads"] == 0
    assert found["unreadable"] == dict.fromkeys(MEASURED, why)


def test_one_answer_that_is_refused_leaves_the_others_and_is_named(steered: Steered, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("celsius -3\n")
    found = steered("nothing")
    assert found["unreadable"] == {"peak_temperature_c": "NVML: Not Supported"}
    assert found["epoch"]["peak_temperature_c"] is None
    assert found["epoch"]["device_utilisation"] == pytest.approx(0.75)


def test_strangers_are_counted_and_the_group_and_another_namespace_are_none(standin_nvml: Path, tmp_path: Path) -> None:
    """A process that the same parent started is of the group where that has several processes, else a stranger."""
    variables = {
        "LD_LIBRARY_PATH": str(standin_nvml),
        "STANDIN_NVML": "2",
        "STANDIN_NVML_STATE": str(tmp_path / "state"),
    }
    sibling = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        done = python("-m", "tests.steered", "processes", str(sibling.pid), env=variables)
    finally:
        sibling.communicate(b"\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == [2, 0, None, None, 1, 0, 0]


def test_a_rank_beside_the_one_that_reads_changes_no_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setitem(os.environ, "LOCAL_RANK", "1")
    probe = device.Probe()
    probe.begin(torch.device("cpu"))
    probe.window_end(12, True)
    assert set(probe.totals().values()) == {0.0, 12.0}
    assert probe.sampler is None
