"""All that is measured of one machine, in which sizes and in which order: the rows of ceilings.csv."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from bench.ceilings import compute, inputs, transfers
from bench.ceilings.repetitions import Effort, Gather, Times, alone, repeat, row, slowest_of
from bench.machine import environment
from bench.record.run_folder import size as size_in_words

MIB = 2**20
Row = dict[str, Any]
Call = Callable[[], Any]


@dataclass(frozen=True)
class Sizes:
    """How much work a call is. `messages`: bytes of the all-reduces."""

    matrix: int
    batch: int
    large_batch: int
    copy_bytes: int
    messages: tuple[int, ...]
    effort: Effort = field(default_factory=Effort)


# Large enough to fill the device and to leave its caches, and small enough for a Jetson of 4 GB.
ON_GPU = Sizes(8192, 512, 64, 256 * MIB, tuple(4**n * 1024 for n in range(1, 10)))
ON_CPU = Sizes(2048, 128, 16, 256 * MIB, tuple(4**n * 1024 for n in range(1, 8)))


def sizes_for(device: torch.device) -> Sizes:
    """The sizes for this kind of device."""
    return ON_GPU if device.type == "cuda" else ON_CPU


def measure(rank: int, processes: int, device: torch.device, gather: Gather, sizes: Sizes) -> list[Row]:
    """The rows of all ranks, on every rank. All of the group call it.

    On GPUs each rank measures its own, all at the same time, as in a trial. The ranks of a CPU share it: rank 0
    measures alone, with all threads, while the others wait; only all-reduces are of all.
    """
    rows: list[Row] = []
    if device.type == "cuda":
        # In its first second a GPU's clocks rise (see WARMUP_S of bench/training/meter.py): these times are not kept.
        call, _ = compute.matrix_product(sizes.matrix, compute.number_formats(device)[0], device)
        repeat(call, device, dataclasses.replace(sizes.effort, repetition_s=2 * sizes.effort.repetition_s), gather)
        rows += of_devices(device, gather, processes, sizes)
    elif rank == 0:
        threads = torch.get_num_threads()
        torch.set_num_threads(environment.cpu_count())
        rows += of_devices(device, alone, 1, sizes)
        torch.set_num_threads(threads)
    gather([0.0])  # on a CPU, the others have waited here
    if processes > 1:
        rows += all_reduces(device, gather, processes, sizes)
    return rows


def of_devices(device: torch.device, gather: Gather, measuring: int, sizes: Sizes) -> Iterator[Row]:
    """What each device does by itself: a row for each piece of work and each rank of `gather`."""

    def rows(kind: str, work: str, times: Times, **more: Any) -> Iterator[Row]:
        mine = [float(times.calls), float(len(times.seconds)), *times.quartiles()]
        for rank, (calls, repetitions, *quartiles) in enumerate(gather(mine)):
            head = {"kind": kind, "work": work, "rank": rank, "measuring": measuring}
            yield row(quartiles, calls=int(calls), repetitions=int(repetitions), **head, **more)

    for number_format in compute.number_formats(device):
        compute.allow(number_format, device)
        call, flops = compute.matrix_product(sizes.matrix, number_format, device)
        times = repeat(call, device, sizes.effort, gather)
        work = f"{sizes.matrix} x {sizes.matrix}"
        yield from rows("matrix_product", work, times, number_format=number_format, call_flops=flops)
        del call  # and with it its matrices
        batches = ((compute.SMALL_IMAGES, sizes.batch), (compute.LARGE_IMAGES, sizes.large_batch))
        for layer, batch in ((layer, batch) for layers, batch in batches for layer in layers):
            call, flops = compute.convolution(layer, batch, number_format, device)
            times = repeat(call, device, sizes.effort, gather)
            work = f"{layer.name()}, batch {batch}"
            yield from rows("convolution", work, times, number_format=number_format, call_flops=flops)
    copies = [("device_copy", transfers.device_copy)]
    copies += [("host_to_device", transfers.host_to_device)] if device.type == "cuda" else []
    for kind, copy in copies:
        call, size = copy(sizes.copy_bytes, device)
        times = repeat(call, device, sizes.effort, gather)
        yield from rows(kind, size_in_words(sizes.copy_bytes), times, call_bytes=size)
    for trial in inputs.trials(sizes.batch, sizes.large_batch):
        times = inputs.take(trial, device, sizes.effort)
        yield from rows("input", inputs.name(trial), times, call_images=trial.micro_batch)


def all_reduces(device: torch.device, gather: Gather, processes: int, sizes: Sizes) -> Iterator[Row]:
    """A row for each size of message. All ranks call it."""
    for size in sizes.messages:
        call, sent = transfers.all_reduce(size, device)
        mine = repeat(call, device, sizes.effort, gather)
        times = slowest_of(gather(mine.seconds), mine.calls)
        work = f"{size_in_words(sent)} of each of {processes} processes"
        head = {"kind": "all_reduce", "work": work, "measuring": processes}
        found = row(times.quartiles(), calls=times.calls, repetitions=len(times.seconds), call_bytes=sent, **head)
        rate = found["bytes_per_s"]
        yield found | {"bus_bytes_per_s": None if rate is None else transfers.bus_bandwidth(rate, processes)}
