"""RAPL's counters: planted zones, and the joules that these have by hand."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import rapl_zones
from rapl_zones import AMD, DIES, TWO_SOCKETS, Zones, advance, energy_file

from bench.machine import rapl
from bench.probes import device

RANGES = {name: most / 1e6 for name, most in TWO_SOCKETS.values()}
NOBODY = 65534


@pytest.mark.parametrize(
    ("zones", "took", "expected"),
    [
        (
            TWO_SOCKETS,
            {"package_0": 1.0, "package_1": 20.0, "dram": 300.0, "core": 4e3, "uncore": 5e4, "psys": 6e4},
            1.0 + 20.0 + 2 * 300.0,
        ),
        (AMD, {"package_0": 7.5, "core": 4.0}, 7.5),
        (DIES, {"package_0_die_0": 2.0, "package_0_die_1": 3.0}, 5.0),
    ],
    ids=["two sockets", "AMD", "dies"],
)
def test_packages_and_their_memory_are_added_up_and_nothing_twice(
    tmp_path: Path, zones: Zones, took: dict[str, float], expected: float
) -> None:
    """Of cores, of a whole board, and of the same package by another door, nothing."""
    read = rapl.counter(rapl_zones.plant(tmp_path, zones))
    assert read is not None
    assert read() == 0.0
    for times in (1, 2):
        advance(tmp_path, zones, **took)
        assert read() == pytest.approx(times * expected)


def test_a_counter_that_wraps_goes_on(tmp_path: Path) -> None:
    """In each of five readings a package takes most of its range and the memory half of its own."""
    read = rapl.counter(rapl_zones.plant(tmp_path, TWO_SOCKETS))
    assert read is not None
    raw = []
    for times in range(1, 6):
        advance(tmp_path, TWO_SOCKETS, package_0=0.9 * RANGES["package-0"], dram=0.5 * RANGES["dram"])
        raw.append(int(energy_file(tmp_path, "intel-rapl:0").read_text()))
        assert read() == pytest.approx(times * (0.9 * RANGES["package-0"] + RANGES["dram"]), rel=1e-9)
    assert sorted(raw) != raw, "nothing wrapped"


def test_after_a_pause_in_which_a_counter_may_have_wrapped_twice_the_energy_is_unknown_once(tmp_path: Path) -> None:
    """At 1 kW the memory's range of 65,713 J lasts 65.713 s."""
    times = iter([0.0, 65.0, 131.0, 132.0])
    read = rapl.counter(rapl_zones.plant(tmp_path, TWO_SOCKETS), lambda: next(times))
    assert read is not None
    found = []
    for _ in range(3):
        advance(tmp_path, TWO_SOCKETS, package_0=10.0)
        found.append(read())
    assert found == [10.0, None, 20.0]


@pytest.mark.parametrize("content", [None, "", "none"])
def test_a_counter_that_does_not_answer_leaves_the_sum_unknown(tmp_path: Path, content: str | None) -> None:
    read = rapl.counter(rapl_zones.plant(tmp_path, TWO_SOCKETS))
    assert read is not None
    file = energy_file(tmp_path, "intel-rapl:1")
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    assert read() is None


# Where it cannot be read


@pytest.mark.parametrize(
    ("zones", "why"),
    [
        ({}, "no RAPL counter of a CPU package in /sys/class/powercap, as in most virtual machines"),
        ({"intel-rapl:0": ("psys", 1)}, "no RAPL counter of a CPU package in /sys/class/powercap"),
        ({"intel-rapl-mmio:0": ("package-0", 1)}, "no RAPL counter of a CPU package in /sys/class/powercap"),
    ],
    ids=["no zone", "psys alone", "another door alone"],
)
def test_a_machine_without_a_package_s_counter_has_no_energy_and_that_is_the_reason(
    tmp_path: Path, zones: Zones, why: str
) -> None:
    root = rapl_zones.plant(tmp_path, zones)
    assert (rapl.why_not(root) or "").startswith(why)
    assert rapl.counter(root) is None
    assert rapl.counter(tmp_path / "nothing") is None


def test_without_a_range_no_wrap_is_known_and_there_is_no_energy(tmp_path: Path) -> None:
    root = rapl_zones.plant(tmp_path, AMD)
    (energy_file(root, "intel-rapl:0").parent / "max_energy_range_uj").unlink()
    assert rapl.why_not(root) == (
        "cannot read /sys/class/powercap/intel-rapl:0/max_energy_range_uj: No such file or directory"
    )
    assert rapl.counter(root) is None


@pytest.fixture
def closed() -> Iterator[Path]:
    """A machine whose counters only root may read, in a folder that anybody can enter."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        root = rapl_zones.plant(Path(folder), AMD)
        energy_file(root, "intel-rapl:0").chmod(0o400 if os.geteuid() == 0 else 0o000)
        yield root


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """As a user who is not root."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


def test_what_only_root_may_read_is_said_with_how_to_allow_it_and_breaks_nothing(
    closed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    with as_nobody():
        assert rapl.counter(closed) is None
        assert device.gauges(None, closed) is None
        reasons = device.unreadable(closed)
    for name in ("energy_j", "energy_source", "mean_power_w", "energy_per_image_j", "images_per_j"):
        assert reasons[name].startswith(
            "needs a CUDA device: ACCELERATE_USE_CPU is set; of the CPU: only root may read "
            "/sys/class/powercap/intel-rapl:0/energy_uj; sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj "
            "allows it until the next start"
        )
    assert "root" not in reasons["peak_temperature_c"]


def test_where_it_can_be_read_the_energy_columns_can_and_the_gpu_s_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    reasons = device.unreadable(rapl_zones.plant(tmp_path, TWO_SOCKETS))
    energy = {"energy_j", "energy_source", "mean_power_w", "energy_per_image_j", "images_per_j"}
    assert set(reasons) == {column.name for column in device.TRIALS} - energy
