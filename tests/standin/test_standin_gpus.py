"""The checks of `make test-gpu` that need two GPUs, on two stand-ins."""

from __future__ import annotations

import pytest
from gpu_on_standin import Ran, checks, run
from standin_cuda.standin import Standin

CHECKS = checks("group")


@pytest.fixture(scope="module")
def ran(standin_cuda: Standin, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """One run of them."""
    return run(standin_cuda, tmp_path_factory.mktemp("gpus"), 2, arithmetic=True, only="group")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", CHECKS)
def test_what_two_gpus_have_to_show_two_stand_ins_show(ran: Ran, name: str) -> None:
    results = ran.results(CHECKS[name][0])
    assert set(results) == {"ok"}, ran.said
