"""The script that plants faults: that the code still has a place for each, or TRUST.md could not be made anew."""

from __future__ import annotations

import pytest

from bench.machine.environment import CHECKOUT

from .trust import FAULTS, Fault, slowed


@pytest.mark.parametrize("fault", [*FAULTS, slowed(0.001)], ids=lambda fault: fault.name)
def test_every_fault_has_its_one_place(fault: Fault) -> None:
    assert (CHECKOUT / fault.file).read_text().count(fault.old) == 1
    assert fault.new != fault.old
