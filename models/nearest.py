"""Which of the names that there are did a misspelt one mean?"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], most: int = 1, cutoff: float = 0.6) -> list[str]:
    """The known names that begin with this one; if none does, those that are spelt most like it, the nearest first.

    `most`: how many of them. `cutoff`: how like they have to be, from 0 (not at all) to 1 (the same).
    """
    names = list(known)
    longer = [each for each in names if name and each.startswith(name)]
    return (longer or difflib.get_close_matches(name, names, most, cutoff))[:most]


def perhaps(name: str, known: Iterable[str], prefix: str = "") -> str:
    """The part of an error's sentence that names the nearest known name, behind `prefix`; empty: none is near."""
    found = nearest(name, known)
    return f"; perhaps you meant {prefix}{found[0]}" if found else ""
