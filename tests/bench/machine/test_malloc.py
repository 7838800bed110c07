"""Large tensors are freed and taken again without page faults."""

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch
from bench.machine import malloc

def of_ten_tensors() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(2**24)  # 64 MiB, more than glibc keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

of_ten_tensors()
before, kept = of_ten_tensors(), malloc.keep_freed_memory()
of_ten_tensors()  # the first ones still take memory from the kernel
print(before, kept, of_ten_tensors())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is set")
def test_what_is_freed_is_used_again():
    # In a process of its own, because there is no way back.
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "LD_"))}
    done = subprocess.run([sys.executable, "-c", FAULTS], env=env, capture_output=True, text=True, check=True)
    before, kept, after = done.stdout.split()
    assert kept == "True"
    if int(before) < 10 * 64 / 2:
        pytest.skip("this torch's own allocator keeps what is freed")
    assert int(after) < int(before) / 10
