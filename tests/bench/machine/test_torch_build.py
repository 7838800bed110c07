"""A torch that was built without distributed: one process trains, several are refused."""

from __future__ import annotations

from pathlib import Path

from launching import SMALL, is_one_error, python, rows
from vendors import plant_torch

# The functions by which torch's own Python finds out what was built are gone before it asks.
WITHOUT_DISTRIBUTED = """
import sys

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "torch.distributed":
            for function in ("_c10d_init", "_rpc_init", "_dist_autograd_init"):
                delattr(sys.modules["torch._C"], function)

sys.meta_path.insert(0, Finder)
"""


def test_one_process_trains_without_distributed_however_it_is_started(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_DISTRIBUTED)
    env = {"PYTHONPATH": str(tmp_path)}
    names = "import torch; print(torch.distributed.is_available(), hasattr(torch.distributed, 'is_initialized'))"
    assert python("-c", names, env=env).stdout == "False False\n"
    out = tmp_path / "runs"
    trial = ["resnet20_accumulation", "--arm", "16x1", *SMALL, "--epochs", "1", "--no-checkpoint", "--out", str(out)]
    for more in ([], ["--cold"]):
        done = python("-m", "launch", "run", *trial, *more, env=env)
        assert done.returncode == 0, done.stderr
    warm, cold = rows(out, "trials")
    assert (warm["started_by"], cold["started_by"], warm["backend"]) == ("warm", "cold", "")
    assert warm["train_loss"] == cold["train_loss"] != ""
    several = python("-m", f"bench.experiments.{trial[0]}", *trial[1:], "--processes", "2", env=env)
    assert is_one_error(several), several.stderr
    assert "--processes is 2 but torch" in several.stderr
    assert "is built without distributed; give 1" in several.stderr


def test_a_launcher_refuses_several_processes_before_it_imports_torch(tmp_path: Path) -> None:
    words = ["-m", "launch", "run", "resnet_depth", "--preset", "mini", "--dry-run", "--out", str(tmp_path / "runs")]
    for distributed, code in ((False, 2), (True, 0)):
        env = plant_torch(tmp_path / str(distributed), distributed=distributed)
        done = python(*words, "--processes", "1,2", env=env)
        assert done.returncode == code, done.stderr
        assert ("--processes is 2 but torch" in done.stderr) is not distributed
        assert python(*words, env=env).returncode == 0
