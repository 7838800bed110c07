"""Can the gate be trusted on a machine? It judges launches that are all alike, and launches with a planted slow-down.

Many launches of one trial are split into families. A family is judged as `python -m launch gate` judges two commits:
neighbours make a pair, a coin decides which of them is BASE, the first verdict is given on half of the pairs and,
unless it is a pass, a second one on all of them. Whatever such a family finds is a false alarm. A slow-down is planted
by making the steps of all launches of HEAD slower by that share.
"""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UsageError
from reports.read import trials
from reports.tables.summary import Row
from reports.verdicts import compare
from reports.verdicts.compare import Side

LEVEL = 0.01  # that of `launch gate`
SLOWER = (0.01, 0.02, 0.03, 0.05, 0.1)
MEASURED, PERMUTED, INJECTED = 300, 1000, 300  # families
FEWEST_PAIRS = 3
SPEED = "step_time_p50_s"

Pair = tuple[Row, Row]


@dataclass(frozen=True)
class Gate:
    """How a family is judged: pairs before each of the two looks, and the margin."""

    pairs: int
    margin: float

    def launches(self) -> int:
        """Launches in a family: two looks at `pairs` pairs each."""
        return 4 * self.pairs

    def verdict(self, family: Sequence[Pair]) -> str:
        """regressed, inconclusive or passed, as the gate's exit code says."""
        first = self._look(family[: self.pairs])
        return first if first == "passed" else self._look(family)

    def _look(self, pairs: Sequence[Pair]) -> str:
        seen = {each.verdict for each in self._compared(pairs)}
        if unlike := seen & {"not comparable"}:
            raise UsageError(f"these launches are {unlike.pop()}; give launches of one machine and one version")
        return next((verdict for verdict in ("regressed", "inconclusive") if verdict in seen), "passed")

    def could_show(self, family: Sequence[Pair]) -> float:
        """The slow-down that the gate claims this family would have shown."""
        found = self._compared(family)
        measured = [each for each in found if each.change is not None]
        (change,) = [each.change for each in measured if each.metric == SPEED]
        assert change is not None
        return change.smallest_shown(self.margin, LEVEL / len(measured))

    def _compared(self, pairs: Sequence[Pair]) -> list[compare.Comparison]:
        sides = [Side([{**pair[side], "repeat": n} for n, pair in enumerate(pairs)]) for side in (0, 1)]
        return compare.compare({"": sides[0]}, {"": sides[1]}, self.margin, LEVEL)


def launches(folder: Path) -> list[Row]:
    """The launches of the run's only trial that ended well, in the order in which they began.

    Raises UsageError if the run has several trials or too few launches.
    """
    found = compare.by_settings(trials(folder))
    if len(found) != 1:
        raise UsageError(f"{folder} has {len(found)} trials; give a run of one, launched again and again (--repeats)")
    (side,) = found.values()
    rows = [row for row in side.good() if row[SPEED]]
    if len(rows) < 4 * FEWEST_PAIRS:
        raise UsageError(f"{folder} has {len(rows)} launches that ended well; give {4 * FEWEST_PAIRS} or more")
    return rows


def family(rows: Sequence[Row], coin: random.Random) -> list[Pair]:
    """Pairs of neighbours (base, head). A coin decides the order of every second pair; the next has the reverse.

    As base head, head base: a machine that grows steadily slower then slows both sides down alike.
    """
    pairs: list[Pair] = []
    base_first = True
    for number, (one, other) in enumerate(zip(rows[::2], rows[1::2], strict=True)):
        base_first = not base_first if number % 2 else coin.random() < 0.5
        pairs.append((one, other) if base_first else (other, one))
    return pairs


def measured(rows: Sequence[Row], gate: Gate, coin: random.Random) -> Iterator[list[Pair]]:
    """Families in which each launch is used once."""
    size = gate.launches()
    for start in range(0, len(rows) - size + 1, size):
        yield family(rows[start : start + size], coin)


def permuted(rows: Sequence[Row], gate: Gate, coin: random.Random, count: int) -> Iterator[list[Pair]]:
    """Families of consecutive launches from a random start; a launch may be in several families."""
    for _ in range(count):
        start = coin.randrange(len(rows) - gate.launches() + 1)
        yield family(rows[start : start + gate.launches()], coin)


def slower(pairs: Sequence[Pair], share: float) -> list[Pair]:
    """The same pairs with the steps of the head slower by this share."""
    return [
        (base, {**head, SPEED: head[SPEED] * (1 + share), "images_per_s": (head["images_per_s"] or 0) / (1 + share)})
        for base, head in pairs
    ]


def interval(hits: int, count: int) -> tuple[float, float]:
    """The 95% confidence interval of the share hits / count (Clopper and Pearson 1934, Biometrika 26)."""
    from scipy import special

    low = special.betaincinv(hits, count - hits + 1, 0.025) if hits else 0.0
    high = special.betaincinv(hits + 1, count - hits, 0.975) if hits < count else 1.0
    return float(low), float(high)


def report(folder: Path, pairs: int, margin: float, seed: int) -> str:
    """The report, as Markdown. Raises UsageError if the launches are too few or not of one trial."""
    rows = launches(folder)
    gate = Gate(pairs, margin)
    if len(rows) < gate.launches():
        raise UsageError(f"{len(rows)} launches are too few for --pairs {pairs}; give {gate.launches()} or more")
    coin = random.Random(seed)
    small = Gate(max(FEWEST_PAIRS, min(pairs, len(rows) // (4 * MEASURED))), margin)
    alarms = [
        line_of_alarms("measured, each launch used once", small, measured(rows, small, coin)),
        line_of_alarms("permuted", gate, permuted(rows, gate, coin, PERMUTED)),
    ]
    powers = []
    for share in SLOWER:
        slowed = (slower(each, share) for each in permuted(rows, gate, coin, INJECTED))
        powers.append(line_of_power(f"{share:.0%}", gate, slowed))
    families = list(permuted(rows, gate, coin, INJECTED))
    claims = [gate.could_show(each) for each in families]
    claimed = line_of_power(
        f"what each family claims it could show: {statistics.median(claims):.1%} "
        f"({min(claims):.1%} .. {max(claims):.1%})",
        gate,
        (slower(each, share) for each, share in zip(families, claims, strict=True)),
    )
    return "\n".join(
        [
            *head(rows, margin),
            "",
            "| families of equal launches | pairs | false alarms | share (95% interval) | claimed |",
            "| --- | ---: | ---: | ---: | ---: |",
            *alarms,
            "",
            f"| injected slow-down, {INJECTED} families each, {gate.pairs} + {gate.pairs} pairs "
            "| found | inconclusive | passed |",
            "| --- | ---: | ---: | ---: |",
            *powers,
            claimed,
            "",
            "Permuted families share launches, so their interval is too narrow. A slow-down within the margin of "
            f"{margin:.0%} should pass. What a family claims to show, it should find four times out of five.",
        ]
    )


def head(rows: Sequence[Row], margin: float) -> list[str]:
    """What was launched, where, and how much neighbouring launches differ."""
    first = rows[0]
    ratios = [math.log(b[SPEED] / a[SPEED]) for a, b in zip(rows[::2], rows[1::2], strict=False)]
    on_cpu = first["device_name"] == "cpu"
    machine = f"{first['cpu_count']} CPUs {first['cpu_model']}" if on_cpu else first["device_name"]
    step = statistics.median(row[SPEED] for row in rows)
    return [
        f"{len(rows)} launches of {first['experiment']} {first['arm']} on {machine}, torch {first['torch']}, commit "
        f"{first['commit']}. A step takes {1000 * step:.3g} ms; those of neighbours differ by "
        f"{statistics.stdev(ratios):.2%} (standard deviation). Level {LEVEL:.0%} over all, margin {margin:.2g}.",
    ]


def line_of_alarms(name: str, gate: Gate, families: Iterator[list[Pair]]) -> str:
    """How often the gate called families of equal launches slower."""
    verdicts = Counter(gate.verdict(each) for each in families)
    count, hits = verdicts.total(), verdicts["regressed"]
    low, high = interval(hits, count)
    share = f"{hits / count:.2%} ({low:.2%} .. {high:.2%})"
    return f"| {name} | {gate.pairs} + {gate.pairs} | {hits} of {count} | {share} | at most {LEVEL:.0%} |"


def line_of_power(name: str, gate: Gate, families: Iterator[list[Pair]]) -> str:
    """The verdicts on families whose head is slower."""
    verdicts = Counter(gate.verdict(each) for each in families)
    parts = [f"{verdicts[answer] / verdicts.total():.0%}" for answer in ("regressed", "inconclusive", "passed")]
    return f"| {name} | {' | '.join(parts)} |"
