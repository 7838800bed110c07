"""Settings of glibc's malloc, which holds the tensors of a model that trains on the CPU."""

from __future__ import annotations

import ctypes

# Of glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_MMAP_MAX = -4
LARGE_BYTES = 128 * 2**10  # glibc's own threshold for large blocks, until it sees one freed


def keep_freed_memory() -> bool:
    """Make malloc keep freed memory for later requests. Returns whether malloc accepted the settings.

    By default glibc returns every large tensor to the kernel and gets it back with a page fault for every 4 KiB: a
    fifth of a ResNet-152's CPU time at a batch of 64. Other C libraries have no mallopt, or ignore it. If torch uses
    another allocator, its own or a preloaded one, this changes nothing.
    """
    return _set({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1})


def return_freed_memory() -> bool:
    """Make malloc return large blocks to the kernel when they are freed. Returns whether malloc accepted the settings.

    Under a limit, freed memory has to be free. By default glibc raises its threshold for large blocks to the largest
    one that was freed, up to 32 MiB. It then cuts later ones out of its heap and keeps the holes.
    """
    return _set({M_MMAP_THRESHOLD: LARGE_BYTES, M_TRIM_THRESHOLD: LARGE_BYTES})


def _set(settings: dict[int, int]) -> bool:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(name, value) for name, value in settings.items())
