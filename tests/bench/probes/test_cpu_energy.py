"""The energy of trials on a CPU: planted counters that wrap while real groups train, and what the rows say of them."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any

import planted
import pytest
import rapl_zones
import torch
from rapl_zones import TWO_SOCKETS, advance, energy_file
from torch import Tensor, nn

from bench.probes import Span, device
from bench.trial import Trial

# Package 0 is nearly full at first, and takes 0.4 of its range at once: it wraps twice.
WINDOWS, EACH_J, EVALUATION_J, LASTS_S = 5, 0.4 * 262_143.328850, 1000.0, 0.3
TRAINED_J = (WINDOWS - 1) * (EACH_J + 2 * 2.0)  # nothing in the first window, which ranks begin one after the other


def drawing(trial: Trial, classes: int, root: Path) -> nn.Module:
    """`smooth`, of which rank 0's training passes after the first draw power, and its evaluation too."""
    model = planted.smooth(trial, classes)
    passes = iter(range(1_000_000))

    def draw(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if planted.this_rank() == 0 and next(passes) > 0:
            joules = EACH_J if module.training else EVALUATION_J
            advance(root, TWO_SOCKETS, package_0=joules, dram=2.0, psys=9 * joules, core=joules)
            time.sleep(LASTS_S)  # samples are closer

    model.register_forward_pre_hook(draw)
    return model


def on_machine(root: Path, trial: Trial, folder: Path, build: Any, load: Any) -> None:
    """A trial whose device probe reads the machine under `root`."""

    def probes() -> list[Any]:
        return [device.Probe(root) if isinstance(probe, device.Probe) else probe for probe in planted.all_probes()]

    planted._watching(probes)
    planted._work(trial, planted.Options(out=folder), build, load)


def trained(tmp_path: Path, processes: int, **variables: str) -> planted.Ran:
    """A trial of so many processes on a machine of two sockets."""
    root = rapl_zones.plant(tmp_path / "machine", TWO_SOCKETS)
    energy_file(root, "intel-rapl:0").write_text(f"{int(0.9 * TWO_SOCKETS['intel-rapl:0'][1])}\n")
    trial = planted.settings(micro_batch=4, processes=processes)
    load = functools.partial(planted.noise, train=WINDOWS * trial.effective_batch())
    folder = tmp_path / "run"
    folder.mkdir()
    words = (root, trial, folder, functools.partial(drawing, root=root), load)
    codes = planted.group(processes, on_machine, *words, said=folder, **variables)
    return planted.well(planted.Ran(trial, folder, codes))


# Two ranks that each think that they are the first of their machine are two machines.
APART = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}


@pytest.mark.parametrize(
    ("processes", "variables", "machines"), [(1, {}, 1), (2, {}, 1), (2, APART, 2)], ids=["one", "two", "two machines"]
)
def test_the_energy_is_that_of_training_once_for_each_machine(
    tmp_path: Path, processes: int, variables: dict[str, str], machines: int
) -> None:
    """Ranks of one machine share its counters; machines add up, here two that have the same ones."""
    ran = trained(tmp_path, processes, **variables)
    (epoch,) = ran.rows("epochs")
    for row in (ran.row(), epoch):
        joules = float(row["energy_j"])
        assert joules == pytest.approx(machines * TRAINED_J, rel=1e-9)
        assert row["energy_source"] == "rapl"
        images = WINDOWS * ran.trial.effective_batch()
        assert float(row["energy_per_image_j"]) == pytest.approx(joules / images, rel=1e-9)
        assert float(row["images_per_j"]) == pytest.approx(images / joules, rel=1e-9)
        assert 0 < float(row["mean_power_w"]) <= joules / ((WINDOWS - 1) * LASTS_S)
        assert {row[name] for name in ("device_utilisation", "peak_device_bytes", "throttle_reasons")} == {""}


@pytest.mark.parametrize(
    ("partners", "expected"), [((), (5.0, "rapl")), ((1,), (None, None))], ids=["alone", "in turns"]
)
def test_a_trial_that_takes_turns_has_no_energy(tmp_path: Path, partners: tuple[int, ...], expected: Any) -> None:
    root = rapl_zones.plant(tmp_path, TWO_SOCKETS)
    probe = device.Probe(root)
    probe.begin(torch.device("cpu"))
    probe.meet(frozenset(partners))
    probe.epoch_begin()
    advance(root, TWO_SOCKETS, package_1=5.0)
    probe.epoch_end()
    probe.end()
    values = probe.derive(Span(probe.totals(), []))
    assert (values["energy_j"], values["energy_source"]) == expected
