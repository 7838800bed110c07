"""Ceilings: planted times and counts, and a small measurement by two processes of one CPU."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import planted
import pytest
import torch
from launching import python
from standin_cuda.standin import Standin

from bench.ceilings import compute, transfers
from bench.ceilings.measurement import ON_CPU
from bench.ceilings.repetitions import Effort, repeat, repeat_next, row, slowest_of
from bench.machine import environment
from bench.record.run_folder import RunFolder
from bench.trial import Trial

CPU = torch.device("cpu")
FEW = Effort(repetitions=5, fewest=3, repetition_s=0.001, limit_s=0.05)


def test_a_call_that_sleeps_20_ms_takes_at_least_that() -> None:
    times = repeat(lambda: time.sleep(0.02), CPU, Effort(repetitions=4, fewest=2, repetition_s=0.03, limit_s=9.0))
    assert (times.calls, len(times.seconds)) == (2, 4)
    assert min(times.seconds) >= 0.02
    low, middle, high = times.quartiles()
    assert low <= middle <= high


def test_all_ranks_make_as_many_calls_as_the_slowest_needs() -> None:
    """This rank sleeps 1 ms, and hears that another one takes as long as a repetition."""
    times = repeat(
        lambda: time.sleep(0.001), CPU, Effort(repetition_s=0.01, limit_s=0.1), lambda mine: [mine, [0.02] * len(mine)]
    )
    assert (times.calls, len(times.seconds)) == (1, 5)


def test_items_that_were_ready_at_the_start_are_in_no_time() -> None:
    def items() -> Iterator[int]:
        for number in range(7):
            time.sleep(0.005)
            yield number

    times = repeat_next(items(), CPU, FEW, calls=2, skipped=2)  # the seventh is no whole repetition
    assert len(times.seconds) == 2
    assert min(times.seconds) >= 0.005
    endless = repeat_next(itertools.repeat(0), CPU, FEW, calls=2, skipped=2)
    assert FEW.fewest <= len(endless.seconds) <= FEW.repetitions


def test_rates_are_a_call_s_work_over_its_median_time() -> None:
    found = row([0.1, 0.2, 0.4], calls=3, repetitions=5, call_flops=10, call_images=None)
    assert (found["flops_per_s"], found["call_time_p25_s"], found["call_time_p75_s"]) == (50.0, 0.1, 0.4)
    assert "images_per_s" not in found
    assert row([0.0, 0.0, 0.1], calls=1, repetitions=2, call_bytes=9)["bytes_per_s"] is None
    assert slowest_of([[1.0, 2.0], [3.0, 1.0]], 1).seconds == [3.0, 2.0]


@pytest.mark.parametrize("layer", [*compute.SMALL_IMAGES, *compute.LARGE_IMAGES], ids=lambda layer: layer.name())
def test_a_convolution_has_the_flops_of_its_formula(layer: compute.Layer) -> None:
    """Forward, to the input, to the weights: each has two for each of the products, as many as outputs x inputs."""
    _, flops = compute.convolution(layer, 2, "fp32", CPU)
    places = (layer.pixels // layer.stride) ** 2
    assert flops == 3 * 2 * 2 * places * layer.outputs * layer.inputs * layer.kernel**2


def test_a_product_and_a_copy_do_what_they_count() -> None:
    _, flops = compute.matrix_product(8, "bf16", CPU)
    assert flops == 2 * 8**3
    _, size = transfers.device_copy(1024, CPU)
    assert size == 2 * 1024  # read and written


@pytest.mark.parametrize(("processes", "factor"), [(2, 1.0), (4, 1.5), (8, 1.75)])
def test_bus_bandwidth_is_that_of_nccl_tests(processes: int, factor: float) -> None:
    assert transfers.bus_bandwidth(100.0, processes) == 100.0 * factor


def measured(folder: Path) -> None:
    """One rank of a small measurement."""
    from bench.ceilings import __main__ as rank
    from bench.ceilings.measurement import Sizes

    sizes = Sizes(64, 4, 2, 2**16, (1024, 4096), FEW)
    rank.run(Trial(processes=2), RunFolder(folder), "one", sizes)


def test_two_processes_of_a_cpu_measure_one_device_and_their_all_reduces(tmp_path: Path) -> None:
    codes = planted.group(2, measured, tmp_path, said=tmp_path)
    assert codes == [0, 0], "".join(path.read_text() for path in tmp_path.glob("rank*.txt"))
    rows = RunFolder(tmp_path).rows("ceilings")
    kinds = [found["kind"] for found in rows]
    layers = len(compute.SMALL_IMAGES) + len(compute.LARGE_IMAGES)
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "matrix_product": 2,
        "convolution": 2 * layers,
        "device_copy": 1,
        "input": 4,
        "all_reduce": 2,
    }
    for found in rows:
        amount = next(name for name in ("flops", "bytes", "images") if found[f"call_{name}"])
        low, middle, high = (float(found[f"call_time_{name}_s"]) for name in ("p25", "p50", "p75"))
        assert 0 < low <= middle <= high
        assert float(found[f"{amount}_per_s"]) == pytest.approx(int(found[f"call_{amount}"]) / middle)
        assert int(found["repetitions"]) >= FEW.fewest
        assert (found["launch_id"], found["device_name"], found["device_uuid"]) == ("one", "cpu", "")
        assert all(found[name] for name in ("host", "cpu_model", "cpu_count", "torch", "started_at", "environment"))
        shared = found["kind"] == "all_reduce"
        assert (found["rank"], found["measuring"]) == (("", "2") if shared else ("0", "1"))
    assert [found["number_format"] for found in rows if found["kind"] == "matrix_product"] == ["fp32", "bf16"]
    assert [found["call_bytes"] for found in rows if found["kind"] == "all_reduce"] == ["1024", "4096"]
    last = rows[-1]
    assert float(last["bus_bytes_per_s"]) == pytest.approx(float(last["bytes_per_s"]))  # 2(n-1)/n of two


def test_a_row_is_of_its_own_rank_s_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a machine with unlike GPUs, in whose folder rank 1 finds rows of rank 0's device alone."""
    from bench.ceilings import __main__ as rank

    own: dict[str, Any] = {"host": "tower", "cpu_model": "AMD EPYC", "device_index": 0}
    own |= {"variables": "none", "group_variables": "none", "cpu_capability": "AVX2"}
    places = [{**own, "device_name": f"NVIDIA {name}", "device_uuid": f"GPU-{name}"} for name in ("H100", "A100")]
    rows = [{"kind": "convolution", "rank": 0}, {"kind": "convolution", "rank": 1}, {"kind": "all_reduce"}]
    RunFolder(tmp_path).append("trials", [{**environment.machine(), "launch_id": "t", "device_name": "NVIDIA H100"}])
    monkeypatch.setattr(rank.setup, "places", lambda *_: places)
    monkeypatch.setattr(rank, "measure", lambda *_: rows)
    for number in (1, 0):
        group = SimpleNamespace(rank=number, device=CPU, gather=list)
        monkeypatch.setattr(rank, "Group", lambda trial, group=group: group)
        rank.run(Trial(processes=2), RunFolder(tmp_path), "one", ON_CPU)
    found = [(row["rank"], row["device_name"], row["device_uuid"]) for row in RunFolder(tmp_path).rows("ceilings")]
    assert found == [("0", "NVIDIA H100", "GPU-H100"), ("1", "NVIDIA A100", "GPU-A100"), ("", "NVIDIA H100", "")]


ON_TWO_GPUS = """
import os
import sys
from pathlib import Path
from bench.ceilings import compute
from bench.ceilings.__main__ import run
from bench.ceilings.measurement import Sizes
from bench.ceilings.repetitions import Effort
from bench.record.run_folder import RunFolder
from bench.trial import Trial
from bench.variables import STORE

# The CPU computes what these GPUs are asked for.
compute.SMALL_IMAGES, compute.LARGE_IMAGES = compute.SMALL_IMAGES[:1], ()
sizes = Sizes(64, 2, 2, 2**16, (1024, 3 * 2**20), Effort(3, 2, 1e-5, 0.01))
folder = Path(sys.argv[1])
group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
for rank in range(2):
    if os.fork() == 0:
        os.environ.update(group, RANK=str(rank), LOCAL_RANK=str(rank), **{STORE: str(folder / "store")})
        try:
            run(Trial(processes=2), RunFolder(folder), "two", sizes)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
print([os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(2)])
"""


def test_two_gpus_each_measure_themselves_and_their_all_reduces_go_through_nccl(
    standin_cuda: Standin, tmp_path: Path
) -> None:
    done = python("-W", "ignore", "-c", ON_TWO_GPUS, str(tmp_path), env=standin_cuda.variables(gpus=2))
    assert done.stdout == "[0, 0]\n", done.stderr
    rows = RunFolder(tmp_path).rows("ceilings")
    assert {(found["backend"], found["device_count"], found["launch_id"]) for found in rows} == {("nccl", "2", "two")}
    own = [found for found in rows if found["kind"] != "all_reduce"]
    devices = {(found["rank"], found["device_uuid"]) for found in own if found["rank"]}
    assert sorted(rank for rank, _ in devices) == ["0", "1"]
    assert len({uuid for _, uuid in devices}) == 2
    assert all(uuid.startswith("GPU-") for _, uuid in devices)
    assert [found["rank"] for found in own] == ["0", "1"] * (len(own) // 2)
    assert {found["kind"] for found in own} == {
        *("matrix_product", "convolution", "device_copy", "host_to_device", "input")
    }
    shared = [found for found in rows if found["kind"] == "all_reduce"]
    assert [found["call_bytes"] for found in shared] == ["1024", str(3 * 2**20)]
    for found in shared:
        assert (found["rank"], found["device_uuid"], found["measuring"]) == ("", "", "2")
        seconds = float(found["call_time_p50_s"])
        bus = 2 * (2 - 1) / 2 * int(found["call_bytes"]) / seconds
        assert float(found["bus_bytes_per_s"]) == pytest.approx(bus)
    assert [found["work"] for found in shared] == ["1 KiB of each of 2 processes", "3 MiB of each of 2 processes"]


ON_A_GPU = """
import sys
from pathlib import Path
from bench.ceilings.__main__ import run
from bench.ceilings.measurement import Sizes
from bench.ceilings.repetitions import Effort
from bench.record.run_folder import RunFolder
from bench.trial import Trial
sizes = Sizes(64, 4, 2, 2**16, (1024,), Effort(3, 2, 1e-5, 0.01))
run(Trial(), RunFolder(Path(sys.argv[1])), "one", sizes)
"""


def test_a_gpu_has_all_number_formats_and_a_copy_to_it(standin_cuda: Standin, tmp_path: Path) -> None:
    done = python("-W", "ignore", "-c", ON_A_GPU, str(tmp_path), env=standin_cuda.variables(arithmetic=False))
    assert done.returncode == 0, done.stderr
    rows = RunFolder(tmp_path).rows("ceilings")
    products = [found["number_format"] for found in rows if found["kind"] == "matrix_product"]
    assert products == ["fp32", "tf32", "fp16", "bf16"]
    assert [found["call_bytes"] for found in rows if found["kind"] == "host_to_device"] == [str(2**16)]
    assert {found["device_count"] for found in rows} == {"1"}
    assert all(found["device_uuid"].startswith("GPU-") for found in rows)
