"""Which trials do two runs have in common, what are they called, and how do the others differ?"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

from bench.record.columns import kept_apart
from reports.tables.summary import Row
from reports.verdicts.comparison import Comparison
from reports.verdicts.likeness import listed

SETTINGS = kept_apart("trial")


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
