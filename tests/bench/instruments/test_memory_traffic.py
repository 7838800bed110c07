"""Bytes that operations access, against what is known by hand."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from bench.instruments.memory_traffic import stored_bytes
from bench.instruments.operations import Operations

THERE = torch.ones(10, 10)  # 400 bytes


def accessed(work: Callable[[], Any]) -> int:
    with Operations() as operations:
        work()
    assert set(operations.bytes_accessed) <= {"cpu"}
    return operations.bytes_accessed["cpu"]


@pytest.mark.parametrize(("dtype", "each"), [(torch.float32, 4), (torch.bfloat16, 2)], ids=str)
def test_a_convolution_a_relu_and_an_addition_read_and_write_what_they_have(dtype: torch.dtype, each: int) -> None:
    images, kernels = torch.ones(2, 3, 8, 8, dtype=dtype), torch.ones(5, 3, 3, 3, dtype=dtype)
    bias, other = torch.ones(5, dtype=dtype), torch.ones(2, 5, 8, 8, dtype=dtype)
    into, weights, out = 2 * 3 * 8 * 8, 5 * 3 * 3 * 3, 2 * 5 * 8 * 8
    convolution = into + weights + 5 + out
    relu, addition = 2 * out, 3 * out

    def work() -> None:
        found = F.conv2d(images, kernels, bias, padding=1)
        found.relu_()
        found + other

    assert accessed(work) == each * (convolution + relu + addition)
    assert accessed(work) == accessed(work)


def test_mixed_precision_reads_in_one_format_and_writes_in_the_other() -> None:
    assert accessed(lambda: THERE.bfloat16()) == 400 + 200


def test_a_backward_pass_counts_like_a_forward_pass() -> None:
    """To the weights alone: it reads the gradient (32), the input (32) and the weights (4), and writes theirs (4)."""
    weights = torch.ones(1, 1, 2, 2, requires_grad=True)
    out = F.conv2d(torch.ones(2, 1, 4, 4), weights, stride=2)  # (2, 1, 2, 2)
    gradient = torch.ones_like(out)
    assert accessed(lambda: torch.autograd.grad(out, weights, gradient)) == 4 * (8 + 32 + 4 + 4)


def step_of_sgd(grad_scale: torch.Tensor | None) -> None:
    """One step of SGD with momentum: reads weights, gradients and momentum, and writes the first and the last."""
    weights, gradients, momentum = ([torch.ones(10, 10)] for _ in range(3))
    torch._fused_sgd_(
        weights,
        gradients,
        momentum,
        weight_decay=0.0,
        momentum=0.9,
        lr=0.1,
        dampening=0.0,
        nesterov=False,
        maximize=False,
        is_first_step=False,
        grad_scale=grad_scale,
    )


@pytest.mark.parametrize(
    ("work", "size"),
    [
        (lambda: THERE.view(100)[:50].t().detach().expand(3, 50), 0),
        (lambda: torch.ops.aten._unsafe_view(THERE, [100]), 0),
        (lambda: THERE.t().reshape(100), 800),  # a copy
        (lambda: torch.empty(1000), 0),
        (lambda: torch.empty_like(THERE), 0),
        (lambda: torch.zeros_like(THERE), 400),
        (lambda: THERE.new_full((5,), 2.0), 20),
        (lambda: torch.zeros(10), 40),
        (lambda: THERE + 1, 800),
        (lambda: THERE.clone().add_(THERE), 800 + 1200),
        (lambda: THERE.clone().zero_(), 800 + 400),
        (lambda: THERE.clone().fill_(3), 800 + 400),
        (lambda: THERE.clone().copy_(THERE), 800 + 800),
        (lambda: torch.empty(5).copy_(THERE[0, :5]), 20 + 20),
        (lambda: torch.mm(THERE, THERE, out=torch.empty(10, 10)), 1200),
        (lambda: THERE + THERE[0].expand(10, 10), 400 + 40 + 400),
        (lambda: THERE + torch.ones(()).expand(10, 10), 4 + 400 + 4 + 400),
        (lambda: THERE.sum(), 404),
        (lambda: THERE.sum().item(), 404 + 4),
        (lambda: torch.empty(4, 4).as_strided_((2,), (1,)), 0),
        (lambda: torch.empty(4).resize_(2), 0),
        (lambda: torch._foreach_add_([torch.empty(5), torch.empty(3)], 1), 2 * 32),
        (lambda: torch._foreach_zero_([torch.empty(5), torch.empty(3)]), 32),
        (lambda: step_of_sgd(None), 3 * 400 + 5 * 400),
        (lambda: step_of_sgd(torch.ones(())), 3 * 400 + 6 * 400 + 4 + 4),
    ],
)
def test_what_each_kind_of_operation_accesses(work: Callable[[], Any], size: int) -> None:
    assert accessed(work) == size


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_writes_its_running_statistics_in_training_alone(training: bool) -> None:
    """(2, 5, 3, 3) in and out, four parameters and statistics of 5 in; in training the mean and deviation out, too."""
    images, (mean, variance, weight, bias) = torch.ones(2, 5, 3, 3), torch.ones(4, 5)
    written = 4 * 5 if training else 0
    work = functools.partial(F.batch_norm, images, mean, variance, weight, bias, training)
    assert accessed(work) == 4 * (90 + 20 + 90 + written)


def test_overlapping_windows_are_stored_once() -> None:
    assert stored_bytes(torch.ones(10).as_strided((8, 3), (1, 1))) == 40
    assert stored_bytes(torch.ones(10)[::2]) == 20
    assert stored_bytes(torch.ones(0, 3).expand(4, 0, 3)) == 0


def test_each_device_has_its_own_bytes() -> None:
    """A copy to another device is read here and written there."""
    with Operations() as operations:
        THERE.to("meta")
    assert operations.bytes_accessed == {"cpu": 400, "meta": 400}
