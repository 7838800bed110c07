"""Activation checkpointing as it runs: what is a forward pass, and what one that the backward pass runs again?"""

from __future__ import annotations

import torch


def in_backward() -> bool:
    """Whether what runs now is part of a backward pass."""
    return torch._C._current_graph_task_id() != -1


def recomputing() -> bool:
    """Whether what runs now is a forward pass that a backward pass runs again."""
    return in_backward() and torch.is_grad_enabled()  # gradients are disabled in the rest of a backward pass
