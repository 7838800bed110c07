"""Which trials do two runs have in common, what are they called, how do the others differ, and which launches count?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.record.columns import kept_apart
from reports.tables.summary import Row
from reports.tables.table import held_back
from reports.verdicts.comparison import Comparison, LeftOut
from reports.verdicts.likeness import listed

SETTINGS = kept_apart("trial")


@dataclass
class Side:
    """All launches of one trial in one folder."""

    rows: list[Row] = field(default_factory=list)
    interrupted: int = 0
    """Launches that somebody stopped, which say nothing."""
    copies: int = 0
    """Rows of a launch that has one already."""

    def good(self) -> list[Row]:
        return [row for row in self.rows if row["status"] == "ok"]

    def failed(self) -> list[Row]:
        return [row for row in self.rows if row["status"] != "ok"]

    def began(self) -> str:
        """When the first launch that ended well began."""
        return self.good()[0]["started_at"] or ""

    def undisturbed(self) -> list[Row]:
        """The launches that ended well and that nothing else slowed down or cut short."""
        return [row for row in self.good() if not disturbed(row)]

    def values(self, metric: str) -> list[float]:
        """A metric of the launches that ended well, in their order; missing and infinite values are left out."""
        found = (row[metric] for row in self.good())
        return [float(value) for value in found if value is not None and math.isfinite(value)]


def sides(rows: Iterable[Row]) -> dict[Hashable, Side]:
    """The same, from rows."""
    found: dict[Hashable, Side] = {}
    seen: set[Any] = set()
    for row in rows:
        side = found.setdefault(tuple(row[name] for name in SETTINGS), Side())
        if row["launch_id"] in seen:
            side.copies += 1
        elif row["status"] == "interrupted":
            side.interrupted += 1
        else:
            side.rows.append(row)
        seen.add(row["launch_id"])
    for side in found.values():
        side.rows.sort(key=lambda row: row["started_at"] or "")
    return {settings: side for settings, side in found.items() if side.rows}


def disturbed(row: Row) -> bool:
    """Whether something else slowed the launch down, or it trained only the rest of an earlier one."""
    return held_back(row) or (row["other_processes"] or 0) > 0 or row["resumed_at_epoch"] is not None


def not_ended(base: Side, head: Side) -> list[LeftOut]:
    """The launches that did not end well, and the rows that are no launch of their own."""
    counts = {
        "did not end well": (len(base.failed()), len(head.failed())),
        "were interrupted": (base.interrupted, head.interrupted),
        "have a second row, which does not count": (base.copies, head.copies),
    }
    return [LeftOut(why, *both) for why, both in counts.items() if any(both)]


def out_of(
    why: str, base: Sequence[Row], kept: Sequence[Row], head: Sequence[Row], left: Sequence[Row]
) -> list[LeftOut]:
    """The launches of BASE and HEAD that are not among those `kept` and `left`; none: all are."""
    both = len(base) - len(kept), len(head) - len(left)
    return [LeftOut(why, *both)] if any(both) else []


def disturbed_of(base: Side, head: Side) -> list[LeftOut]:
    """The launches that ended well and that something else slowed down or cut short."""
    why = "were throttled, resumed or not alone on their device"
    return out_of(why, base.good(), base.undisturbed(), head.good(), head.undisturbed())


def leaving_out(each: Comparison, out: Sequence[LeftOut]) -> Comparison:
    """The comparison, with these launches before those that it leaves out itself."""
    return dataclasses.replace(each, left_out=[*out, *each.left_out])


def unmatched(
    base: Mapping[Hashable, Row], head: Mapping[Hashable, Row], names: Callable[[Row], str]
) -> list[Comparison]:
    """Trials that only one run has. Two of the same arm are reported together, with the settings that differ.

    `base`, `head`: settings -> a row of the trial.
    """
    found = []
    new = {key: row for key, row in head.items() if key not in base}
    for key, row in base.items():
        if key in head:
            continue
        near = [k for k, other in new.items() if (other["experiment"], other["arm"]) == (row["experiment"], row["arm"])]
        if not near:
            found.append(Comparison(names(row), "not comparable", why="it is missing in HEAD"))
            continue
        # Of several trials of the arm, the one with the fewest other settings.
        nearest = min(near, key=lambda k: len(differences(row, new[k])))
        found.append(Comparison(names(row), "not comparable", why="; ".join(differences(row, new.pop(nearest)))))
    return found + [Comparison(names(row), "not comparable", why="it is missing in BASE") for row in new.values()]


def differences(base: Row, head: Row, names: Sequence[str] = SETTINGS) -> list[str]:
    """Those of these settings in which two rows differ."""
    return [
        f"{name} {listed({base[name]})} against {listed({head[name]})}" for name in names if base[name] != head[name]
    ]


def titles(rows: Sequence[Row]) -> Callable[[Row], str]:
    """A function from a row to its trial's name: the arm, and the settings in which trials of that arm differ."""
    arms = {(row["experiment"], row["arm"]) for row in rows}
    varying = [
        name
        for name in SETTINGS
        if any(len({row[name] for row in rows if (row["experiment"], row["arm"]) == arm}) > 1 for arm in arms)
    ]
    return lambda row: " ".join([f"{row['experiment']} {row['arm']}", *(f"{name}={row[name]}" for name in varying)])
