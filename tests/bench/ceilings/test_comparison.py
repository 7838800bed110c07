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


def machine(draw: random.Random, devices: int, **slow: float) -> list[dict[str, Any]]:
    """Devices without noise, 0.63% apart at each of four number formats; those of `slow` (by host) this much longer."""
    return [
        device(host, 0.01 * draw.gauss(1, 0.0063) * slow.get(host, 1.0), noise=0, number_format=number_format)
        for number_format in ("fp32", "tf32", "fp16", "bf16")
        for host in "abcdefgh"[:devices]
    ]


@pytest.mark.parametrize("devices", [2, 3, 8])
def test_of_healthy_machines_about_those_of_three_sigma_are_named_and_all_that_are_10_percent_slow(
    devices: int,
) -> None:
    """0.135% of 2000 machines are 2.7; more than 8 of them would be drawn once in 400 times."""
    draw = random.Random(0)
    assert sum(bool(slow_devices(machine(draw, devices))) for _ in range(2000)) <= 8
    for _ in range(50):
        assert set(names(*machine(draw, devices, b=LONGER))) == {"b"}


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
    "other",
    [
        *({name: "another"} for name in ("device_name", "work", "number_format", "torch", "cuda", "driver")),
        *({name: "another"} for name in ("cpu_model", "power_limit_w", "application_sm_clock_hz", "power_mode")),
        {"measuring": "8"},
    ],
    ids=str,
)
def test_what_is_no_like_is_not_compared(other: dict[str, Any]) -> None:
    assert names(device("a"), device("b"), device("c", 0.02, **other)) == []
    cpus = [device(host, device_name="cpu", cpu_model="one", cpu_count="2") for host in "ab"]
    assert names(*cpus, device("c", 0.02, device_name="cpu", cpu_model="another", cpu_count="2")) == []


def test_of_a_device_measured_twice_the_last_counts() -> None:
    assert names(device("a", 0.02), device("b"), device("c"), device("a")) == []


def test_a_gpu_is_known_by_its_uuid_and_not_by_its_rank_or_host() -> None:
    rows = [device("a", 0.02, rank="0", device_uuid="GPU-1"), device("a", rank="3", device_uuid="GPU-1")]
    assert names(*rows, device("b", device_uuid="GPU-1")) == []
    assert len(unlike(rows)) == 1
    # The last of it counts here too, and another GPU at the same rank is another one.
    assert names(*rows, device("a", 0.02, rank="3", device_uuid="GPU-2")) == ["a"]


def test_a_device_alone_is_said_to_be() -> None:
    name = "NVIDIA H100 80GB HBM3"
    assert unlike([device("a"), device("a", number_format="fp32")]) == [name]
    assert unlike([device("a"), device("b")]) == []
    rows = [device("a"), device("b"), device("c", torch="2", driver="3"), device("d", torch="2", driver="4")]
    assert unlike(rows) == [f"{name} (the nearest of its name differs in driver)"] * 2
    others = [device(host, device_name="NVIDIA A100") for host in "bc"]
    assert unlike([device("a"), *others]) == [name]
