"""What the gate times and counts: each test that uses benchmark_step."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from my_training import network, train_step


@pytest.mark.parametrize("batch", [32])
def test_train_step(batch: int, benchmark_step: Callable[[Callable[[], object]], None]) -> None:
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = network().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    images = torch.randn(batch, 3, 32, 32, device=device)
    labels = torch.randint(10, (batch,), device=device)
    benchmark_step(lambda: train_step(model, optimizer, images, labels))
