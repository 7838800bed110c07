"""How the installed torch was built, read from its files, since importing it takes seconds."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import mmap
import re
from pathlib import Path


@functools.cache
def built_for() -> dict[str, str]:
    """{"cuda", "hip" (AMD) or "xpu" (Intel): its version}; empty for a build for the CPU only.

    Not from torch's own version, which need not name it in a vendor's build.
    """
    folder = _folder()
    text = (folder / "version.py").read_text(encoding="utf-8", errors="replace") if folder else ""
    return dict(re.findall(r"^(cuda|hip|xpu)\b[^'\n]*'(.+)'$", text, re.MULTILINE))


@functools.cache
def has_distributed() -> bool:
    """Whether torch can form process groups. Some builds for Jetsons cannot (dusty-nv/jetson-containers#315).

    torch itself looks for the function _c10d_init; here its name is searched in the library's file.
    """
    with (
        contextlib.suppress(OSError, ValueError),
        open(f"{_folder()}/lib/libtorch_python.so", "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as library,
    ):
        return library.find(b"_c10d_init") >= 0
    return True  # no such file: importing torch will tell


def _folder() -> Path | None:
    spec = importlib.util.find_spec("torch")
    return Path(spec.origin).parent if spec and spec.origin else None
