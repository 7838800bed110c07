"""The C library's memory allocator, under a model that trains on the CPU."""

from __future__ import annotations

import ctypes

# Of glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_MMAP_MAX = -4
LARGE = 128 * 2**10  # bytes; glibc's own mark until it sees large blocks freed


def keep_freed_memory() -> bool:
    """Have malloc keep what is freed for what comes next; whether it took the settings.

    As it is, glibc gives every large tensor back to the kernel and takes it from there again, a page fault every
    4 KiB: a fifth of a ResNet-152's CPU time at a batch of 64. Other C libraries have no mallopt, or ignore it;
    where torch brings an allocator of its own, or one is preloaded, this changes nothing.
    """
    return _set({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1})


def return_freed_memory() -> bool:
    """Have malloc give each large tensor's memory back to the kernel when it is freed; whether it took the settings.

    Under a limit what is freed must be free. As it is, glibc raises its mark for large blocks to the largest one that
    was freed, up to 32 MiB, and cuts later ones out of a heap whose holes stay its own.
    """
    return _set({M_MMAP_THRESHOLD: LARGE, M_TRIM_THRESHOLD: LARGE})


def _set(settings: dict[int, int]) -> bool:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(name, value) for name, value in settings.items())
