"""Every lower bound in pyproject.toml is one that `make test-oldest` installs and tests."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import CHECKOUT
from oldest import SHOWN_BY, constraints, files, floor, project, requirements

READ_ONLY = {"mypy", "ruff", "pandas-stubs", "types-psutil", "types-PyYAML"}
"""What only reads our code."""


def asked(*dependencies: str, **extras: list[str]) -> dict[str, Any]:
    own = {"dependencies": list(dependencies), "optional-dependencies": extras}
    return {"build-system": {"requires": ["setuptools>=64"]}, "project": own}


def test_constraints_are_the_lower_bounds_made_exact() -> None:
    found = asked("rich>=13,<16", "numpy", 'tomli>=2; python_version < "3.11"', dev=["pytest>=8.1"], perf=["rich>=13"])
    assert constraints(found) == ["pytest==8.1", "rich==13", "setuptools==64", 'tomli==2; python_version < "3.11"']


def test_each_lower_bound_has_tests_and_each_requirement_a_lower_bound() -> None:
    """The newest mypy and ruff are the ones that are used, and no run of ours needs them."""
    found = requirements(project())
    assert {each.name for each in found if floor(each) is None} == READ_ONLY
    assert {each.name for each in found if floor(each)} == SHOWN_BY.keys()
    assert [name for name in files() if not (CHECKOUT / name).is_file()] == []


def test_one_package_has_one_lower_bound() -> None:
    """An extra and the developers' list name some packages twice."""
    floors = {(each.name, floor(each)) for each in requirements(project())}
    assert len(floors) == len({name for name, _ in floors})


@pytest.mark.parametrize("name", ["tensorboard==2.16.2", "tyro==1.0", "nvidia-ml-py==12.535.108"])
def test_lower_bounds_that_an_install_or_a_test_has_moved(name: str) -> None:
    """tensorboard before needs a TensorFlow; nvidia-ml-py miscounts processes, tyro repeats the last wrong option."""
    assert name in constraints(project())
