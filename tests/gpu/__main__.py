"""Checks the suite on this machine's GPU: `make test-gpu`, or `python -m tests.gpu`, writes tests/GPU.md.

Without a GPU it fails. On the stand-in (`python -m tests.standin_cuda`), which proves nothing of a GPU, it wants --out.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import pytest

from bench.entry import imports_that_stay
from bench.machine import gpus

from .apart import apart
from .sheet import Sheet, machine

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "GPU.md"
# In the order of their value: whoever has a GPU for a minute learns the most.
FILES = ("first", "memory", "windows", "sizes", "levers", "records", "starts", "group", "speed")
MINUTES = 9.0


def main() -> int:
    """Run the checks and write what they found; the exit code is 0 where none failed, 2 without a GPU."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT, help="the file to write")
    parser.add_argument("--only", default="", help="checks whose name has this (pytest -k)")
    chosen = parser.parse_args()
    os.environ.pop("ACCELERATE_USE_CPU", None)  # whoever asks for this means the GPU
    with imports_that_stay():
        import torch  # noqa: F401  # once, and not in each fork
    try:
        found = apart(machine)
    except pytest.fail.Exception as error:
        return refused(f"the GPU cannot be used: {str(error).splitlines()[0]}")
    if not found["gpus"]:
        why = gpus.why_none() or "its driver or the device cannot be used"
        return refused(f"make test-gpu needs a GPU that torch {found['torch']} can use, and it sees none: {why}")
    if found["is_standin"] and chosen.out.resolve() == OUT:
        return refused(f"this is the stand-in, of which {OUT.name} must not speak; give another file with --out")
    if not found["is_standin"]:
        os.environ.pop("STANDIN_CUDA", None)
    sheet = Sheet(chosen.out, found, MINUTES)
    files = [str(HERE / f"test_gpu_{name}.py") for name in FILES]
    words = ["-q", "-m", "gpu", "-p", "no:xdist", "-p", "no:cacheprovider", "-k", chosen.only, *files]
    code = pytest.main(words, plugins=[sheet])
    print(f"{chosen.out}: {sheet.summary()}")
    return int(code)


def refused(why: str) -> int:
    """Say why there is nothing to run."""
    print(f"error: {why}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
