"""What the stand-in GPU was asked for by this process so far."""

from __future__ import annotations

import ctypes
from typing import NamedTuple


class Counts(NamedTuple):
    """As in runtime.h. `launches`: kernels of torch's own; `library_calls`: of cuDNN and cuBLAS, that compute."""

    launches: int
    library_calls: int
    waits: int
    copies: int
    pageable_copies: int
    events: int
    allocations: int
    tf32_convolutions: int
    tf32_products: int

    def since(self, before: Counts) -> Counts:
        """What came after `before`."""
        return Counts(*(now - then for now, then in zip(self, before, strict=True)))


def read() -> Counts:
    """AttributeError: no stand-in is preloaded."""
    numbers = ctypes.c_longlong * len(Counts._fields)
    return Counts(*numbers.in_dll(ctypes.CDLL(None), "standin_counted"))
