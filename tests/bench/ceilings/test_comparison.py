"""One slow device among its likes is named, and noise alone names none."""

from __future__ import annotations

import random
from typing import Any

import pytest

from bench.ceilings.comparison import slow_devices, unlike

LONGER = 1 / 0.9  # for 10% less


def device(host: str, seconds: float = 0.01, noise: float = 0.002, **more: Any) -> dict[str, Any]:
    """A matrix product whose quartiles lie this share of the median below and above it."""
    times = {f"call_time_p{q}_s": seconds * (1 + sign * noise) for q, sign in ((25, -1), (50, 0), (75, 1))}
    head = {"kind": "matrix_product", "work": "8192 x 8192", "number_format": "bf16", "rank": "0", "device_uuid": ""}
    return {**head, "host": host, "device_name": "NVIDIA H100 80GB HBM3", **times, **more}


def names(*rows: dict[str, Any]) -> list[str]:
    return [slow.device.host for slow in slow_devices(rows)]


@pytest.mark.parametrize("slow", ["a", "b", "c"])
def test_one_of_three_that_gives_10_percent_less_is_named(slow: str) -> None:
    rows = [device(host, 0.01 * (LONGER if host == slow else 1)) for host in "abc"]
    (found,) = slow_devices(rows)
    assert (found.device.host, found.likes) == (slow, 2)
    assert found.share == pytest.approx(LONGER - 1)
    assert f"{slow}, device 0 takes 11.1% longer for a matrix product in bf16 than the other 2" in str(found)


def test_three_equal_ones_with_the_spread_of_the_field_name_none() -> None:
    """Drawn 200 times with 0.63% between devices; the rule allows for 3 standard deviations and their repetitions'."""
    draw = random.Random(0)
    named = [names(*(device(host, 0.01 * draw.gauss(1, 0.0063)) for host in "abc")) for _ in range(200)]
    assert sum(map(bool, named)) <= 2


def test_of_a_noisy_measurement_10_percent_are_no_more_than_its_noise() -> None:
    assert names(device("a", 0.01 * LONGER, 0.05), device("b", noise=0.05), device("c", noise=0.05)) == []
    assert names(device("a", 0.01 * LONGER), device("b", noise=0.05), device("c", noise=0.05)) == []
    # The median of its likes' noise counts: one noisy machine hides no slow one.
    assert names(device("a", 0.01 * LONGER), device("b", noise=0.2), device("c"), device("d")) == ["a"]


def test_a_slow_device_of_one_machine_is_named_by_its_number() -> None:
    rows = [
        device("a", 0.01 * (LONGER if rank == 5 else 1), rank=str(rank), device_uuid=f"GPU-{rank}") for rank in range(8)
    ]
    assert [str(slow.device) for slow in slow_devices(rows)] == ["a, device 5 (GPU-5)"]


@pytest.mark.parametrize(
    "other", [{"device_name": "NVIDIA A100"}, {"work": "2048 x 2048"}, {"number_format": "fp32"}], ids=str
)
def test_what_is_no_like_is_not_compared(other: dict[str, Any]) -> None:
    assert names(device("a"), device("b"), device("c", 0.02, **other)) == []
    cpus = [device(host, device_name="cpu", cpu_model="one", cpu_count="2") for host in "ab"]
    assert names(*cpus, device("c", 0.02, device_name="cpu", cpu_model="another", cpu_count="2")) == []


def test_of_a_device_measured_twice_the_last_counts() -> None:
    assert names(device("a", 0.02), device("b"), device("c"), device("a")) == []


def test_a_device_alone_is_said_to_be() -> None:
    assert unlike([device("a"), device("a", number_format="fp32")]) == ["NVIDIA H100 80GB HBM3"]
    assert unlike([device("a"), device("b")]) == []
