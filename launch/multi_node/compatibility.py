"""What has to be the same on all machines of a trial: code, versions and trials. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from bench.machine import environment
from bench.trial import Trial
from models.names import is_timm

FOLDERS = ("bench", "models", "launch")
PACKAGES = ("torch", "torchvision", "accelerate", "numpy")


def fingerprint(trials: Sequence[Trial], resume: bool = False, trace: bool = False) -> dict[str, Any]:
    """This machine's code (file -> hash), versions (package -> version) and trials (a hash), as JSON."""
    files = sorted(path for folder in FOLDERS for path in (environment.CHECKOUT / folder).rglob("*.py"))
    code = {str(path.relative_to(environment.CHECKOUT)): _short_hash(path.read_bytes()) for path in files}
    packages = (*PACKAGES, *(["timm"] if any(is_timm(trial.model) for trial in trials) else []))
    versions = {"Python": platform.python_version(), **{name: environment.version(name) for name in packages}}
    keys = [[trial.key(), trial.repeat, resume, trace] for trial in trials]
    return {"code": code, "versions": versions, "trials": _short_hash(json.dumps(keys).encode())}


def _short_hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def difference(name: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str | None:
    """A sentence that says how the machine of this name differs from machine 0; None if it does not.

    Versions come first: another version is the likelier reason, and the shorter sentence.
    """
    for package, version in ours["versions"].items():
        if (other := theirs["versions"].get(package)) != version:
            return f"{name} has {package} {other} where machine 0 has {version}; install the same on both"
    files = sorted(ours["code"].keys() | theirs["code"].keys())
    if unlike := [path for path in files if ours["code"].get(path) != theirs["code"].get(path)]:
        more = f" and {len(unlike) - 1} more files" if len(unlike) > 1 else ""
        return f"{name} has other code than machine 0, in {unlike[0]}{more}; check out the same commit on both"
    if ours["trials"] != theirs["trials"]:
        return f"{name} is to run other trials than machine 0; give both the same command"
    return None
