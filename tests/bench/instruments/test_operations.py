"""Operations counted against what is known by hand, and the same each time."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import planted
import pytest
import torch
import torch.nn.functional as F

from bench.instruments.compilations import compilations
from bench.instruments.operations import Operations
from bench.probes.operations import Probe
from bench.training.build import model_for
from bench.trial import Trial

COUNTS = (
    "flops_per_window",
    "accessed_bytes_per_window",
    "operations_per_window",
    "casts_per_window",
    "waits_per_window",
    "peak_bytes_per_window",
)
# Of planted.smooth on 4x4 images, two for each multiply-add: 3x3 convolution from 3 to 6 channels at 2x2 places, 24x10
# matrix; backward the weights' gradients of both, and the input's of the matrix alone.
CONVOLUTION, MATRIX = 2 * 6 * 4 * 27, 2 * 24 * 10
FLOPS = 2 * CONVOLUTION + 3 * MATRIX


def counted(work: Callable[[], Any]) -> Operations:
    with Operations() as operations:
        work()
    return operations


def test_products_and_convolutions_have_the_flops_of_their_multiply_adds() -> None:
    assert counted(lambda: torch.ones(2, 3) @ torch.ones(3, 4)).flops == 2 * 2 * 3 * 4
    images, kernels = torch.ones(2, 3, 8, 8), torch.ones(5, 3, 3, 3)
    assert counted(lambda: F.conv2d(images, kernels, padding=1)).flops == 2 * 2 * 5 * 64 * 27
    assert counted(lambda: images + images).flops == 0


@pytest.mark.parametrize("groups", [1, 4, 8])
@pytest.mark.parametrize("kind", [torch.nn.Conv2d, torch.nn.ConvTranspose2d])
def test_the_gradients_of_a_convolution_with_groups_have_the_flops_of_its_output_each(kind: Any, groups: int) -> None:
    """torch's own formula counts the weights' gradient as if there was one group."""
    layer, images = kind(8, 16, 3, groups=groups), torch.ones(2, 8, 6, 6, requires_grad=True)
    places = 6 * 6 if kind is torch.nn.ConvTranspose2d else 4 * 4
    forward = 2 * 2 * places * 8 * 16 * 9 // groups
    assert counted(lambda: layer(images)).flops == forward
    assert counted(lambda: layer(images).sum().backward()).flops == 3 * forward
    assert counted(lambda: layer(images.detach()).sum().backward()).flops == 2 * forward


@pytest.mark.parametrize(
    ("work", "casts"),
    [
        (lambda x: x.to(torch.bfloat16), 1),
        (lambda x: x.float(), 0),
        (lambda x: x.to(torch.bfloat16).float(), 2),
        (lambda x: x.clone(), 0),
        (lambda x: x.to("cpu", copy=True), 0),
        (lambda x: torch.empty(4, dtype=torch.bfloat16).copy_(x), 1),
        (lambda x: torch.empty(4).copy_(x), 0),
        (lambda x: x.double() + x.double(), 2),
    ],
)
def test_a_change_of_number_format_is_a_cast_and_nothing_else(work: Callable[[Any], Any], casts: int) -> None:
    assert counted(lambda: work(torch.ones(4))).casts == casts


def test_waiting_for_a_number_is_counted() -> None:
    assert counted(lambda: torch.ones(4).sum()).waits == 0
    assert counted(lambda: (torch.ones(4).sum().item(), float(torch.ones(())))).waits == 2


def test_kinds_are_listed_in_order_with_their_number() -> None:
    tensor = torch.ones(4)
    assert counted(lambda: (tensor.mul(2), tensor + 1, tensor + 2)).by_kind() == "add 2, mul 1"


def test_the_peak_is_of_what_operations_made_and_is_held_at_once() -> None:
    there = torch.ones(1000)

    def work() -> None:
        made = there + 1  # 4000 bytes
        made += 1
        made.view(10, 100)[0].zero_()
        (made.double() + 1).sum()  # 8000 and 8000 more, and 8 once the first of them is gone
        there.mul(2)

    assert counted(work).peak_bytes == 20000
    assert counted(lambda: there.add_(1)).peak_bytes == 0


def test_what_the_compiler_did_is_counted() -> None:
    from torch._dynamo.utils import counters

    def broken(x: torch.Tensor) -> torch.Tensor:
        x = x + 1
        torch._dynamo.graph_break()
        return x * 2

    torch._dynamo.reset()
    counters.clear()
    assert compilations() == {"compiled_graphs": None, "graph_breaks": None}
    torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2))
    assert compilations() == {"compiled_graphs": 1.0, "graph_breaks": 0.0}
    torch.compile(broken, backend="eager")(torch.ones(2))
    assert compilations() == {"compiled_graphs": 3.0, "graph_breaks": 1.0}


def test_what_compiled_kernels_access_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    made = {"stats": {"unique_graphs": 0}, "graph_break": {}}
    monkeypatch.setitem(sys.modules, "torch._dynamo.utils", SimpleNamespace(counters=made))
    probe, there = Probe(), torch.ones(10, 10)
    probe.begin(torch.device("cpu"))
    for warmup_left in (3, 2):
        probe.window_begin(4, warmup_left)
        there.mul(2)
        probe.window_end(4, measured=False)
    assert (found := probe.totals())["accessed_bytes_per_window"] == 800
    made["stats"]["unique_graphs"] = 1
    unknown = dict.fromkeys(("accessed_bytes_per_window", "recomputed_flops_per_window"))
    assert probe.totals() == {**found, **unknown, "compiled_graphs": 1, "graph_breaks": 0}


@pytest.mark.parametrize("unit", ["block", "stage"])
def test_what_a_step_recomputes_is_counted_apart_and_is_not_the_model_s_own_work(
    unit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {"stats": {"unique_graphs": 0}, "graph_break": {}}  # whatever an earlier test has compiled
    monkeypatch.setitem(sys.modules, "torch._dynamo.utils", SimpleNamespace(counters=made))
    images, first = 2, 16 * 16 * 9 * 32 * 32  # multiply-adds of the first stage's convolutions, of which there are two
    # Twice the channels at a quarter of the places: in the other two stages the first has half of them, the second has
    # as many, and the shortcut's kernel has 1 place instead of 9.
    multiply_adds = first * (2 + 2 * (0.5 + 1 + 0.5 / 9))
    probes, steps = [], []
    for checkpoint in ("none", unit):
        model = model_for(Trial(model="resnet8", checkpoint_activations=checkpoint), 10)
        probes.append(Probe())
        steps.append(functools.partial(lambda model: model(torch.ones(images, 3, 32, 32)).sum().backward(), model))
    for probe, step in zip(probes, steps, strict=True):
        probe.begin(torch.device("cpu"))
        for warmup_left in (3, 2):
            probe.window_begin(images, warmup_left)
            step()
            probe.window_end(images, measured=False)
    plain, found = ({name: value or 0.0 for name, value in probe.totals().items()} for probe in probes)
    assert plain["recomputed_flops_per_window"] == 0
    assert found["recomputed_flops_per_window"] == pytest.approx(2 * images * multiply_adds)
    assert found["flops_per_window"] == plain["flops_per_window"] + found["recomputed_flops_per_window"]
    assert found["flops_of_all_ranks"] == plain["flops_of_all_ranks"] == plain["flops_per_window"]


def row(folder: Path, windows: int = 5, target: Any = None, **changes: Any) -> dict[str, str]:
    """The row of a trial of planted.smooth, three windows of which warm up."""
    trial = planted.settings(**{"micro_batch": 4, "warmup_windows": 3, **changes})
    load = functools.partial(planted.noise, train=windows * trial.effective_batch())
    if target is None:
        return planted.well(planted.run(folder, trial, planted.smooth, load)).row()
    folder.mkdir(exist_ok=True)
    codes = planted.group(trial.processes, target, trial, folder, planted.smooth, load, said=folder)
    return planted.well(planted.Ran(trial, folder, codes)).row()


@pytest.mark.parametrize("changes", [{}, {"processes": 2}, {"warmup_windows": 5, "windows": 7}], ids=str)
def test_a_windows_flops_are_those_of_its_images(changes: dict[str, Any], tmp_path: Path) -> None:
    found = row(tmp_path, **changes)
    assert found["flops_per_window"] == str(4 * FLOPS)
    assert found["waits_per_window"] == "0"
    # Of all ranks, in the time that images_per_s is from; no peak of a CPU is published.
    assert float(found["model_flops_per_s"]) == pytest.approx(FLOPS * float(found["images_per_s"]))
    assert found["mfu"] == ""
    kinds = dict(part.rsplit(" ", 1) for part in found["operation_kinds"].split(", "))
    assert (kinds["convolution"], kinds["convolution_backward"]) == ("1", "1")
    assert sum(map(int, kinds.values())) == int(found["operations_per_window"])


def test_each_micro_batch_counts(tmp_path: Path) -> None:
    once, thrice = (row(tmp_path / str(k), accumulate=k) for k in (1, 3))
    assert int(thrice["flops_per_window"]) == 3 * int(once["flops_per_window"])
    # The optimizer's step counts once, however many there are.
    one, three = (int(each["accessed_bytes_per_window"]) for each in (once, thrice))
    assert one < three < 3 * one


def test_counts_are_the_same_each_time(tmp_path: Path) -> None:
    one, other = (row(tmp_path / name, accumulate=2, precision="bf16") for name in "ab")
    names = (*COUNTS, "operation_kinds")
    assert {name: one[name] for name in names} == {name: other[name] for name in names}
    assert all(one[name] for name in names)


def test_mixed_precision_shows_in_its_casts(tmp_path: Path) -> None:
    plain, mixed = (row(tmp_path / name, precision=name) for name in ("no", "bf16"))
    assert (plain["casts_per_window"], mixed["flops_per_window"]) == (
        "0",
        plain["flops_per_window"],
    )  # uint8 to float goes with a subtraction
    assert int(mixed["casts_per_window"]) > 5


@pytest.mark.parametrize("changes", [{"warmup_windows": 0}, {"warmup_windows": 2}], ids=str)
def test_where_nothing_was_counted_there_is_no_count(changes: dict[str, Any], tmp_path: Path) -> None:
    found = row(tmp_path, **changes)
    assert [found[name] for name in (*COUNTS, "operation_kinds", "model_flops_per_s")] == [""] * 8
