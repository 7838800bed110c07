"""What the checks share: a process for each, and the figures that it leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .apart import apart, apart_with
from .sheet import machine


@pytest.fixture
def figures() -> dict[str, Any]:
    """What a check puts in here stands in its line, whether it passes or not."""
    return {}


@pytest.fixture(scope="session")
def known() -> dict[str, Any]:
    """This machine."""
    return apart(machine)


@pytest.fixture(scope="session")
def standin(known: dict[str, Any]) -> bool:
    """Whether the GPU is not there: then small sizes are enough."""
    return known["is_standin"]


@pytest.fixture(scope="session")
def on_silicon(standin: bool) -> Callable[[str], None]:
    """Skips, on the stand-in, what it cannot show, and says why."""

    def skip(why: str) -> None:
        if standin:
            pytest.skip(f"the stand-in cannot show it: {why}")

    return skip


@pytest.fixture(autouse=True, scope="session")
def no_settings_of_the_other_tests() -> Iterator[None]:
    """The other tests train on the CPU, on one thread."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ACCELERATE_USE_CPU", "OMP_NUM_THREADS"):
            patch.delenv(name, raising=False)
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool:
    """Call the check apart."""
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    found = arguments.pop("figures", {})
    try:
        apart_with(found, pyfuncitem.obj, arguments)
    finally:
        pyfuncitem.user_properties += list(found.items())
    return True
