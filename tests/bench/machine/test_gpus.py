"""GPUs that are found without torch: those of the build that is installed, as far as variables let them through."""

from __future__ import annotations

import json
import re
from pathlib import Path

from launching import is_one_error, python
from vendors import HIP, XPU, plant_amd, plant_torch

# Variables -> the names of three AMD GPUs that are let through.
AMD = [
    ({}, "0 1 2"),
    ({"HIP_VISIBLE_DEVICES": "2,0"}, "2 0"),
    ({"HIP_VISIBLE_DEVICES": "-1"}, ""),
    ({"HIP_VISIBLE_DEVICES": ""}, "0 1 2"),  # as if it were not set
    ({"CUDA_VISIBLE_DEVICES": "1"}, "1"),
    ({"CUDA_VISIBLE_DEVICES": "1", "HIP_VISIBLE_DEVICES": "0"}, "0"),
    ({"ROCR_VISIBLE_DEVICES": "0,2"}, "0 1"),
    ({"ROCR_VISIBLE_DEVICES": "0,2", "HIP_VISIBLE_DEVICES": "1,2"}, "1"),
    ({"ROCR_VISIBLE_DEVICES": "GPU-4b2c1a9f8e7d6c5b"}, "0"),
    ({"ACCELERATE_USE_CPU": "true"}, ""),
]
ASK = """
import json, os, sys
from pathlib import Path
from bench.machine import gpus
from launch.group import accelerate_command
for variables, _ in json.loads(sys.argv[2]):
    os.environ.update(variables)
    print(*gpus.visible(Path(sys.argv[1])))
    for name in variables:
        del os.environ[name]
print(gpus.only(["2", "0"]), accelerate_command.starts_cold(3), accelerate_command.starts_cold(0))
"""


def test_amds_gpus_are_those_that_the_kernel_tells_of(tmp_path: Path) -> None:
    env = plant_torch(tmp_path / "rocm", HIP)
    done = python("-c", ASK, str(plant_amd(tmp_path, 3)), json.dumps(AMD), env=env)
    assert done.returncode == 0, done.stderr
    *found, others = done.stdout.splitlines()
    assert found == [names for _, names in AMD]
    assert others == "{'HIP_VISIBLE_DEVICES': '2,0'} True False"


def test_amds_gpus_are_nothing_to_a_torch_for_others(tmp_path: Path) -> None:
    """As in many a desktop, whose processor has one."""
    env = plant_torch(tmp_path / "cpu")
    accelerate = tmp_path / "cpu" / "accelerate-1.14.0.dist-info"  # an older one starts cold on every GPU
    accelerate.mkdir()
    (accelerate / "METADATA").write_text("Name: accelerate\nVersion: 1.14.0\n")
    done = python("-c", ASK, str(plant_amd(tmp_path, 3)), json.dumps(AMD[:1]), env=env)
    assert done.stdout.splitlines() == ["", "{'CUDA_VISIBLE_DEVICES': '2,0'} False False"], done.stderr


def test_what_has_no_gpu_says_why(tmp_path: Path) -> None:
    for built_for, why in ((HIP, "the kernel shows no AMD GPU.*"), ("", r"torch \S+ is built without CUDA")):
        env = plant_torch(tmp_path / (built_for[:3] or "cpu"), built_for)
        done = python("-m", "launch", "env", env=env)
        assert re.search(rf"trials run on: the CPU \({why}\)", done.stdout), done.stderr
        assert ("AMD GPUs: none, for ROCm 6.4.43482-0f2d60242" in done.stdout) is (built_for == HIP)


def test_a_torch_for_intels_gpus_is_refused_and_trains_on_the_cpu_by_request(tmp_path: Path) -> None:
    words = ["-m", "launch", "run", "resnet_depth", "--preset", "mini", "--dry-run", "--out", str(tmp_path / "runs")]
    env = plant_torch(tmp_path / "xpu", XPU)
    refused = python(*words, env=env)
    assert is_one_error(refused), refused.stderr
    assert "is built for Intel GPUs, which the suite does not measure; give --device cpu" in refused.stderr
    for more, variables in ((["--device", "cpu"], {}), ([], {"ACCELERATE_USE_CPU": "true"})):
        done = python(*words, *more, env={**env, **variables})
        assert done.returncode == 0, done.stderr
        assert "ACCELERATE_USE_CPU=true" in done.stdout
