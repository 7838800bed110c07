"""What the installed torch was built for and with, from its files, since importing it takes seconds."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import mmap
import re
from pathlib import Path


@functools.cache
def built_for() -> dict[str, str]:
    """cuda, hip (AMD) or xpu (Intel) and its version; {}: the CPU alone.

    A build of one's own, or a vendor's, need not have it in its version.
    """
    folder = _folder()
    text = (folder / "version.py").read_text() if folder else ""
    return dict(re.findall(r"^(cuda|hip|xpu)\b[^'\n]*'(.+)'$", text, re.MULTILINE))


@functools.cache
def has_distributed() -> bool:
    """Whether it can form groups: by the name of the function by which torch itself finds that out.

    Some builds for Jetsons cannot (dusty-nv/jetson-containers#315).
    """
    with (
        contextlib.suppress(OSError, ValueError),
        open(f"{_folder()}/lib/libtorch_python.so", "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as library,
    ):
        return library.find(b"_c10d_init") >= 0
    return True  # no such file: torch will tell


def _folder() -> Path | None:
    spec = importlib.util.find_spec("torch")
    return Path(spec.origin).parent if spec and spec.origin else None
