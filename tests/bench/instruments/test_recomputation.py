"""A forward pass that a backward pass runs again is told apart from both, and so is its memory."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from bench.instruments.recomputation import in_backward, recomputing
from bench.instruments.storage_tracker import StorageTracker


def test_what_runs_again_is_neither_a_forward_pass_nor_a_backward_one() -> None:
    seen: list[tuple[bool, bool]] = []

    def note(*_: Tensor) -> None:
        seen.append((in_backward(), recomputing()))

    def work(x: Tensor) -> Tensor:
        note()
        return x.exp().cos()

    value = torch.ones(1, requires_grad=True)
    value.register_hook(note)
    checkpoint(work, value, use_reentrant=False).backward()
    note()
    assert seen == [(False, False), (True, True), (True, False), (False, False)]


def test_a_sum_that_runs_again_has_memory_of_its_own_as_the_first_time() -> None:
    """Only autograd adds up gradients in place. Here the first summand is released right after the sum."""
    value = torch.ones(100, requires_grad=True)
    with StorageTracker() as tracker:
        checkpoint(lambda x: (x * 2 + 1).cos(), value, use_reentrant=False).sum().backward()
    assert tracker.same_as == {}
