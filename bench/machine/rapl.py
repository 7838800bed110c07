"""The energy of this machine's CPU packages and of their memory, by RAPL's counters. None where there are none.

Intel's and AMD's are under one name. A counter holds microjoules, of all processes, and wraps around. Read below
`root`, which is / but in tests. Source: the kernel's Documentation/power/powercap/powercap.rst, and for what a domain
covers Intel's Software Developer's Manual, volume 3, "Platform Specific Power Management Support".
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

FOLDER = "sys/class/powercap"
# A package is a socket, or one of its dies. "core" and "uncore" are parts of a package, and "psys" is the whole board,
# packages included: adding them would count twice. So would the zones "intel-rapl-mmio:*", other doors to the packages.
ADDED_UP = re.compile(r"package-\d+(-die-\d+)?|dram")
MOST_W = 1000.0  # more than any package draws
CHANGE = f"sudo chmod a+r /{FOLDER}/intel-rapl:*/energy_uj"
HOW_TO_ALLOW = f"{CHANGE} allows it until the next start (why it is not allowed: CVE-2020-8694)"


def zones(root: Path = Path("/")) -> list[Path]:
    """The folders of the domains to add up: of each socket its package, and its memory if that is counted."""
    folders = sorted((root / FOLDER).glob("intel-rapl:*"))
    return [folder for folder in folders if ADDED_UP.fullmatch(_text(folder / "name") or "")]


def why_not(root: Path = Path("/")) -> str | None:
    """Why the energy cannot be read; None: it can."""
    found = zones(root)
    if not any((_text(zone / "name") or "").startswith("package") for zone in found):
        return f"no RAPL counter of a CPU package in /{FOLDER}, as in most virtual machines"
    for path in (zone / file for zone in found for file in ("energy_uj", "max_energy_range_uj")):
        shown = f"/{path.relative_to(root)}"
        try:
            if not re.fullmatch(r"\d+\s*", path.read_text(errors="replace", encoding="utf-8")):
                return f"{shown} holds no number"
        except PermissionError:
            return f"only root may read {shown}; {HOW_TO_ALLOW}"
        except OSError as error:
            return f"cannot read {shown}: {error.strerror}"
    return None


def counter(root: Path = Path("/"), clock: Callable[[], float] = time.monotonic) -> Callable[[], float | None] | None:
    """A function that returns the joules since this call, over all sockets; None where `why_not` has a reason.

    It returns None if a counter does not answer, and if it was not called for so long that a counter may have wrapped
    twice: at 1 kW, a range of 65 kJ, the smallest that is usual, takes a minute. After that it counts on.
    """
    if why_not(root) is not None:
        return None
    ranges = {zone / "energy_uj": _number(zone / "max_energy_range_uj") or 0 for zone in zones(root)}
    longest_s = min(ranges.values()) / 1e6 / MOST_W
    last_s, last, joules = clock(), {path: _number(path) for path in ranges}, 0.0

    def read() -> float | None:
        nonlocal last_s, last, joules
        before_s, before = last_s, last
        last_s, last = clock(), {path: _number(path) for path in ranges}
        gained = [_gained(before[path], last[path], ranges[path]) for path in ranges]
        known = [microjoules for microjoules in gained if microjoules is not None]
        if len(known) < len(gained) or last_s - before_s > longest_s:
            return None
        joules += sum(known) / 1e6
        return joules

    return read


def _gained(before: int | None, after: int | None, range_uj: int) -> int | None:
    """Microjoules between two readings, at most one range apart."""
    if before is None or after is None:
        return None
    return after - before if after >= before else after - before + range_uj


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace", encoding="utf-8").strip()
    except OSError:
        return None


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text is not None and text.isdecimal() else None
