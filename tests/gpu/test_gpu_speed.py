"""Images per second against the loops that users write, at equal work, as ratios measured in turn."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import pytest
from perf.contenders import Contender
from perf.speed import Pair, Race, Row, run_race, small

from .device import on_silicon

pytestmark = pytest.mark.gpu
ROUNDS = 3
# Name -> the loop of contenders.py, and its mode of torch.compile.
OTHERS: dict[str, tuple[str, Any]] = {
    "plain": ("plain", "none"),
    "compiled": ("plain", "default"),
    "Lightning": ("lightning", "none"),
}


@pytest.fixture(scope="session")
def ratios() -> dict[str, Row]:
    """Ours over each of the others: ResNet-20 at a batch of 128 in bf16."""
    on_silicon("nothing takes time on it")
    there = [name for name in OTHERS if name != "Lightning" or find_spec("lightning")]
    trial = small(128, "bf16", "contiguous")
    theirs = [Contender(name, OTHERS[name][0], replace(trial, compile=OTHERS[name][1])) for name in there]
    race = Race([Contender("ours", "ours", small(128, "bf16")), *theirs], [Pair("ours", name) for name in there], 24, 4)
    return dict(zip(there, run_race("gpu", race, ROUNDS, lambda _: None), strict=True))


@pytest.mark.timeout(180)
@pytest.mark.parametrize("other", OTHERS)
def test_the_suite_s_loop_beside_another(figures: dict[str, Any], ratios: dict[str, Row], other: str) -> None:
    """Images per second of the suite's loop over another's, ResNet-20, 128 images in bf16, in turns"""
    if other not in ratios:
        pytest.skip("Lightning is not installed: pip install -e '.[perf]'")
    row = ratios[other]
    figures |= {"ratio": f"{row.ratio:.2f}", "95% interval": f"{row.low:.2f} .. {row.high:.2f}"}
    assert 0 < row.low <= row.ratio <= row.high
