"""Out of memory: whether an exception says so, in which phase it was raised, and how many bytes were requested."""

from __future__ import annotations

import errno
import re
import traceback
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

from bench.errors import chain

BENCH = Path(__file__).resolve().parents[1]

OUT_OF_MEMORY = re.compile(
    r"out of memory|(can't|cannot) allocate memory|NVML_SUCCESS == r INTERNAL ASSERT"
    # cuBLAS, cuSOLVER, cuFFT; cuDNN of the host and of the device, cuRAND; NCCL (its src/include/alloc.h).
    r"|std::bad_alloc|_ALLOC_FAILED|_ALLOCATION_FAILED|failed to (cuda |cuda host )?[mc]?alloc( async)? \d+ bytes",
    re.IGNORECASE,
)
# Texts of oneDNN, Python's threads and cuDNN. Without a memory limit these errors can have other reasons.
UNDER_A_LIMIT = re.compile(
    r"could not create a (primitive(?! desc)|memory)|can't start new thread|unable to find an engine"
)
REQUESTED = re.compile(
    r"(?:tried to allocate|unable to mmap|alloc(?: async)?) (\d+(?:\.\d+)?) ?(bytes|[KMG]iB)", re.IGNORECASE
)
UNITS = {"bytes": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30}
# (file in bench/, function) -> the phase that it stands for. The innermost of these functions on the stack decides.
PHASES = {
    ("worker.py", "work"): "setup",
    ("worker.py", "load_data"): "data",
    ("worker.py", "run_epoch"): None,
    ("data/pipeline.py", "train"): "data",
    ("training/meter.py", "timed"): "data",
    ("training/loop.py", "forward"): "forward",
    ("training/loop.py", "backward"): "backward",
    ("training/loop.py", "step"): "optimizer",
    ("training/group.py", "share_buffers"): "evaluation",
    ("training/loop.py", "evaluate"): "evaluation",
}


def shortage(error: BaseException, limited: bool) -> BaseException | None:
    """The exception in the chain that says that memory ran out. `limited`: the process had a memory limit."""
    return next((link for link in chain(error) if _is_shortage(link, limited)), None)


def _is_shortage(error: BaseException, limited: bool) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    # Only types that libraries raise: a UsageError may quote the words from a user's option.
    text = str(error) if isinstance(error, (RuntimeError, OSError, ImportError)) else ""
    return bool(OUT_OF_MEMORY.search(text) or (limited and UNDER_A_LIMIT.search(text)))


def phase(error: BaseException) -> str | None:
    """The phase in which the exception was raised; None: no function of PHASES is on its traceback."""
    # The stack of a chained exception continues the one in whose handler it was raised.
    codes = [frame.f_code for link in chain(error) for frame, _ in traceback.walk_tb(link.__traceback__)]
    return phase_of((code.co_filename, code.co_name) for code in codes)


def phase_of(frames: Iterable[tuple[str, str]]) -> str | None:
    """The same from the (file, function) pairs of a stack, the innermost last."""
    innermost = None
    for file, function in frames:
        if Path(file).is_relative_to(BENCH):
            innermost = PHASES.get((str(Path(file).relative_to(BENCH)), function), innermost)
    return innermost


def requested_bytes(error: str) -> int | None:
    """The requested bytes in the error's text, which may be rounded; None: it has none."""
    match = REQUESTED.search(error)
    return round(Fraction(match[1]) * UNITS[match[2].lower()]) if match else None
