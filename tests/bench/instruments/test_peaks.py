"""Published peaks: each with its source, none where a name does not tell, and MFU as a share of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.experiment import Experiment
from bench.instruments import peaks
from bench.instruments.peaks import FORMATS, Peaks, known_peaks, peak, share_of_peak
from bench.probes import Span
from bench.probes.operations import Probe
from bench.record.run_folder import RunFolder
from bench.training.trial_row import TrialRow
from bench.trial import Trial


def test_each_device_has_a_source_and_plausible_peaks() -> None:
    for name, found in known_peaks().items():
        assert "NVIDIA" in found.source, name
        assert any(word in found.source for word in ("data sheet", "white paper")), name
        rates = found.flops_per_s
        assert set(rates) <= set(FORMATS), name
        assert 1e12 < rates["fp32"] <= rates["fp16"] < 2e15, name
        assert ("tf32" in rates) == ("bf16" in rates), name  # both since Ampere
        assert rates.get("bf16", rates["fp16"]) == rates["fp16"], name


@pytest.mark.parametrize(
    ("name", "number_format", "rate"),
    [
        ("NVIDIA A100-SXM4-80GB", "fp32", 19.5e12),
        ("NVIDIA A100-SXM4-80GB", "tf32", 156e12),
        ("NVIDIA A100-SXM4-80GB", "bf16", 312e12),
        ("NVIDIA H100 80GB HBM3", "fp16", 989.4e12),
        ("Tesla V100-SXM2-16GB", "bf16", None),
        # Names of several devices, of a part of one, and of none.
        ("Orin", "fp16", None),
        ("NVIDIA H100", "fp16", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "fp16", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "fp16", None),
        ("cpu", "fp32", None),
        (None, "fp32", None),
        ("NVIDIA A100-SXM4-80GB", None, None),
    ],
)
def test_a_peak_is_that_of_the_whole_name_and_the_format(name: str, number_format: str, rate: float | None) -> None:
    assert peak(name, number_format) == rate


@pytest.fixture
def planted_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = {"planted": Peaks({"fp32": 1e12, "tf32": 4e12, "bf16": 8e12}, "a test")}
    monkeypatch.setattr(peaks, "known_peaks", lambda: planted)


class Measured:
    """A meter that has measured this rate."""

    def __init__(self, rate: float | None) -> None:
        self.rate = rate

    def trial(self) -> dict[str, Any]:
        return {"images_per_s": 640.0, "model_flops_per_s": self.rate}

    def ranks(self) -> list[dict[str, Any]]:
        return []


@pytest.mark.parametrize(
    ("settings", "devices", "share"),
    [
        ({}, 1, 0.01),  # 1e9 FLOPs a window, 10 windows a second, of 1e12
        ({"processes": 2}, 2, 0.005),
        ({"tf32": True}, 1, 0.0025),
        ({"precision": "bf16"}, 1, 0.00125),
        ({"precision": "bf16", "tf32": True}, 1, 0.00125),
        ({"precision": "fp16"}, 1, None),
        ({}, 0, None),
    ],
    ids=str,
)
def test_mfu_is_a_share_of_the_peak_of_all_devices(
    planted_peak: None, settings: dict[str, Any], devices: int, share: float | None, tmp_path: Path
) -> None:
    probe = Probe()
    probe.first_images = 64
    totals = {"flops_of_all_ranks": 1e9, "measured_images": 640.0, "measured_time_s": 1.0, "compiled_graphs": None}
    rate = probe._model_flops_per_s(Span(totals, []))
    assert rate == pytest.approx(1e10)
    assert probe._model_flops_per_s(Span({**totals, "compiled_graphs": 1.0}, [])) is None
    trial = Trial(**settings)
    row = TrialRow(trial, Experiment("", Trial(), {"": {}}), "id", RunFolder(tmp_path), 0)
    row.values |= {"device_name": "planted", "device_count": devices}
    row.meter = Measured(rate)  # type: ignore[assignment]
    found = row.current()["mfu"]
    assert found == (share if share is None else pytest.approx(share))
    row.places = [{"host": "a", "device_name": "planted"}] * 2
    assert row.current()["mfu"] == found
    row.places[1] = {"host": "a", "device_name": "another"}  # in one machine
    assert row.current()["mfu"] is None


def test_without_a_rate_there_is_no_share(planted_peak: None) -> None:
    assert share_of_peak(None, "planted", 1, "fp32") is None
    assert share_of_peak(5e11, "planted", 1, "fp32") == 0.5
