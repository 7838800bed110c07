"""Whether the GPU is a real one, or the stand-in: there small sizes are enough, and some checks have nothing to see."""

from __future__ import annotations

import os
import sys

import pytest
import torch

ON_STANDIN = "STANDIN_CUDA" in os.environ
# Which comes with torch.
WITH_ARITHMETIC = bool(torch) and "standin_arithmetic" in sys.modules


def on_silicon(why: str) -> None:
    """Skip, on the stand-in, what it cannot show, and say why."""
    if ON_STANDIN:
        pytest.skip(f"the stand-in cannot show it: {why}")
