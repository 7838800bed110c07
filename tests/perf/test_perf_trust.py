"""The script that plants faults: that the code still has a place for each, or TRUST.md could not be made anew."""

from __future__ import annotations

import pytest

from bench.machine.environment import CHECKOUT

from .trust import BLOCK, FAULTS, Fault, share_added


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_fault_has_its_one_place(fault: Fault) -> None:
    assert (CHECKOUT / fault.file).read_text().count(fault.old) == 1
    assert fault.new != fault.old


def test_what_is_planted_in_every_second_block_of_steps_is_what_comes_out() -> None:
    """The machine halves its speed on the way, and each block's first step is still slow from the one before it."""
    times = {}
    for window in range(3, 40 * BLOCK):
        block = window // BLOCK
        times[window] = (0.03 if block < 20 else 0.06) * (1.05 if block % 2 else 1.0) * (1 if window % BLOCK else 1.5)
    assert share_added(times) == pytest.approx(0.05)
