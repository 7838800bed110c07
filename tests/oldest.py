"""The oldest versions that pyproject.toml allows, for `make test-oldest`, and the tests that show that they will do.

`python -m tests.oldest constraints` prints each lower bound made exact, for pip, and `python -m tests.oldest tests` the
test files. What has no lower bound only reads our code (mypy, ruff, types): its newest version is the one in use.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CHECKOUT = Path(__file__).resolve().parents[1]
# Requirement -> the test files that use it most. Those of pytest's own parts are all of them.
SHOWN_BY = {
    "accelerate": ["bench/training/test_loop.py", "launch/group/test_warm_start.py"],
    "altair": ["reports/history/test_history_page.py", "reports/test_page.py"],
    "jinja2": ["reports/test_page.py"],
    "kubeflow-trainer-api": ["launch/cluster/test_k8s.py"],
    "lightning": ["perf/test_perf_speed.py"],
    "mkdocs": ["test_docs.py"],
    "mkdocs-material": ["test_docs.py"],
    "numpy": ["bench/data/test_augment.py", "bench/data/test_datasets.py"],
    "nvidia-ml-py": ["bench/machine/test_nvml.py", "bench/probes/test_device.py"],
    "pandas": ["reports/test_read.py", "reports/test_merge.py", "reports/verdicts/test_compare.py"],
    "pillow": ["bench/data/test_datasets.py", "bench/data/test_voc.py"],
    "playwright": ["reports/test_page_browser.py"],
    "psutil": ["launch/group/test_processes.py", "bench/failure/test_explain.py", "bench/data/test_pipeline.py"],
    "pyarrow": ["reports/tables/test_export.py"],
    "pytest": [],
    "pytest-benchmark": ["bench/pytest_plugins/test_baseline.py", "bench/pytest_plugins/test_step_commit.py"],
    "pytest-timeout": [],
    "pytest-xdist": [],
    "pyyaml": ["launch/cluster/test_k8s.py", "test_workflows.py"],
    "rich": ["reports/tables/test_table.py"],
    "ruptures": ["reports/history/test_history.py"],
    "safetensors": ["models/test_weights.py"],
    "scikit-learn": ["bench/data/test_datasets.py"],
    "scipy": ["reports/verdicts/test_significance.py"],
    "setuptools": [],
    "shtab": ["test_command_line.py"],
    "tensorboard": ["bench/record/test_experiment_trackers.py", "reports/tables/test_export.py"],
    "timm": ["models/test_from_timm.py", "models/test_families.py"],
    "tomli": ["test_oldest.py"],
    "torch": ["bench/training/test_build.py", "bench/training/test_checkpoint.py", "models/test_weights.py"],
    "torchvision": ["models/test_imagenet.py", "bench/data/test_augment.py"],
    "tyro": ["bench/test_trial_cli.py"],
    "vl-convert-python": ["reports/test_page.py"],
}


def project() -> dict[str, Any]:
    """What pyproject.toml says."""
    return tomllib.loads((CHECKOUT / "pyproject.toml").read_text())


def requirements(found: Mapping[str, Any]) -> list[Requirement]:
    """All that the project needs: to be built, to run, and for each extra."""
    own = found["project"]
    extras = [text for extra in own["optional-dependencies"].values() for text in extra]
    return [Requirement(text) for text in (*found["build-system"]["requires"], *own["dependencies"], *extras)]


def floor(requirement: Requirement) -> str | None:
    """The version after >=; None: it has none."""
    return next((each.version for each in requirement.specifier if each.operator == ">="), None)


def constraints(found: Mapping[str, Any]) -> list[str]:
    """A line for each requirement with a lower bound, such as tomli==2.0; python_version < "3.11"."""
    floors = [(each, floor(each)) for each in requirements(found)]
    lines = {f"{each.name}=={at}" + (f"; {each.marker}" if each.marker else "") for each, at in floors if at}
    return sorted(lines)


def files() -> list[str]:
    """The files of SHOWN_BY, each once. Those of perf come last, as in `make test`."""
    found = {f"tests/{name}" for names in SHOWN_BY.values() for name in names}
    return sorted(found, key=lambda name: (name.startswith("tests/perf/"), name))


if __name__ == "__main__":
    if sys.argv[1:] not in (["constraints"], ["tests"]):
        raise SystemExit("error: say constraints or tests")
    print("\n".join(files() if sys.argv[1] == "tests" else constraints(project())))
