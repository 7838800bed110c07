"""What an exception tells of running out of memory: that it is one, at what, and how much was asked for."""

from __future__ import annotations

import errno
import re
import traceback
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

BENCH = Path(__file__).resolve().parents[1]

OUT_OF_MEMORY = re.compile(
    r"out of memory|(can't|cannot) allocate memory|NVML_SUCCESS == r INTERNAL ASSERT"
    # cuBLAS, cuSOLVER, cuFFT; cuDNN of the host and of the device, cuRAND; NCCL (its src/include/alloc.h).
    r"|std::bad_alloc|_ALLOC_FAILED|_ALLOCATION_FAILED|failed to (cuda |cuda host )?[mc]?alloc( async)? \d+ bytes",
    re.IGNORECASE,
)
# How oneDNN, Python's threads and cuDNN put it; without a limit it may be anything.
UNDER_A_LIMIT = re.compile(
    r"could not create a (primitive(?! desc)|memory)|can't start new thread|unable to find an engine"
)
ASKED = re.compile(
    r"(?:tried to allocate|unable to mmap|alloc(?: async)?) (\d+(?:\.\d+)?) ?(bytes|[KMG]iB)", re.IGNORECASE
)
UNITS = {"bytes": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30}
# (file in bench/, function) -> what is done in it. Of the functions that were under way the innermost counts.
PHASES = {
    ("worker.py", "work"): "setup",
    ("worker.py", "feed"): "data",
    ("worker.py", "epoch"): None,
    ("data/pipeline.py", "train"): "data",
    ("training/meter.py", "timed"): "data",
    ("training/loop.py", "forward"): "forward",
    ("training/loop.py", "backward"): "backward",
    ("training/loop.py", "step"): "optimizer",
    ("training/group.py", "share_buffers"): "evaluation",
    ("training/loop.py", "evaluate"): "evaluation",
}


def chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, and those that it was raised in answer to."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)


def shortage(error: BaseException, limited: bool) -> BaseException | None:
    """The exception of the chain that says that memory ran out. `limited`: this process was held to a limit."""
    return next((found for found in chain(error) if _is_shortage(found, limited)), None)


def _is_shortage(error: BaseException, limited: bool) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    said = isinstance(error, (RuntimeError, OSError, ImportError)) and str(error)
    return bool(said and (OUT_OF_MEMORY.search(said) or (limited and UNDER_A_LIMIT.search(said))))


def phase(error: BaseException) -> str | None:
    """What was under way, told by the functions that the exception came through; None: none of PHASES."""
    # An exception goes on where the one that answers it was raised.
    codes = [frame.f_code for part in chain(error) for frame, _ in traceback.walk_tb(part.__traceback__)]
    return phase_of((code.co_filename, code.co_name) for code in codes)


def phase_of(frames: Iterable[tuple[str, str]]) -> str | None:
    """The same, from (file, function) of what was under way, the innermost last."""
    found = None
    for file, function in frames:
        if Path(file).is_relative_to(BENCH):
            found = PHASES.get((str(Path(file).relative_to(BENCH)), function), found)
    return found


def requested_bytes(error: str) -> int | None:
    """What was asked for, as the error puts it, which may be rounded; None: it does not say."""
    said = ASKED.search(error)
    return round(Fraction(said[1]) * UNITS[said[2].lower()]) if said else None
