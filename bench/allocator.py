"""The C library's memory allocator, under a model that trains on the CPU."""

from __future__ import annotations

import ctypes

# Of glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """Have malloc keep what is freed for what comes next; whether it took the settings.

    As it is, glibc gives every large tensor back to the kernel and takes it from there again, a page fault every
    4 KiB: a fifth of a ResNet-152's CPU time at a batch of 64. Other C libraries have no mallopt, or ignore it;
    where torch brings an allocator of its own, or one is preloaded, this changes nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, -1))
