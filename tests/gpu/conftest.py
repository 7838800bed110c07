"""What the checks share: a process for each, and the figures that it leaves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from shared_server import launch_with

from . import trials
from .apart import apart, apart_with
from .device import ON_STANDIN, WITH_ARITHMETIC
from .sheet import machine
from .trials import Swept, sweep, words

PLAIN = words("--augment", "none", "--no-checkpoint")


@pytest.fixture
def figures() -> dict[str, Any]:
    """What a check puts in here stands in its line, whether it passes or not."""
    return {}


@pytest.fixture(scope="session")
def known() -> dict[str, Any]:
    """This machine."""
    return apart(machine)


@pytest.fixture
def without_arithmetic() -> None:
    """On the stand-in, a check that has this looks at CUDA's own operations and wants no numbers; others want them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On the stand-in, keep the checks that this run of it can show: it has arithmetic, or it has not."""
    if ON_STANDIN:
        wanting = {item for item in items if "without_arithmetic" in getattr(item, "fixturenames", ())}
        items[:] = [item for item in items if (item in wanting) != WITH_ARITHMETIC]


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """A short trial forked from a warm process, with the data set on the device."""
    return sweep([*PLAIN, "--pipeline", "resident"], tmp_path_factory.mktemp("warm"))


@pytest.fixture(scope="session")
def cold(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """The same, by an `accelerate launch`."""
    return sweep([*PLAIN, "--pipeline", "resident", "--cold"], tmp_path_factory.mktemp("cold"))


@pytest.fixture(scope="session")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """The same again, whose images come by loader workers."""
    return sweep([*PLAIN, "--pipeline", "loader"], tmp_path_factory.mktemp("loader"))


@pytest.fixture(autouse=True, scope="session")
def no_settings_of_the_other_tests() -> Iterator[None]:
    """The other tests train on the CPU, on one thread."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ACCELERATE_USE_CPU", "OMP_NUM_THREADS"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(autouse=True, scope="session")
def one_server(no_settings_of_the_other_tests: None, tmp_path_factory: pytest.TempPathFactory) -> None:
    """On the stand-in, where a check looks at what trials leave and not at how a command starts."""
    if ON_STANDIN and WITH_ARITHMETIC:
        trials.shared.append(launch_with(tmp_path_factory.mktemp("server") / "warm.log", at_once=True))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool:
    """Call the check apart."""
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    found: dict[str, Any] = pyfuncitem.funcargs.get("figures", {})  # type: ignore[assignment]
    try:
        apart_with(found, pyfuncitem.obj, arguments)
    finally:
        pyfuncitem.user_properties += list(found.items())
    return True
