"""Can the gate be trusted on a machine? It judges launches that are all alike, and launches with a planted slow-down.

The pairs of a run, in which launches took turns, are made into families. A family is judged as `python -m launch gate`
judges two commits: at a quarter, a half and all of its pairs, until a look decides. Of launches that are all alike, a
family that is called slower is a false alarm. Families in which each pair is used once are few; families that are drawn
from all pairs, with repetition, are many. A slow-down is planted in the numbers, by making all turns of HEAD longer by
that share; runs whose HEAD really is slower may be given as well.
"""

from __future__ import annotations

import datetime
import itertools
import math
import random
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UsageError
from reports.read import trials
from reports.tables.summary import Row
from reports.verdicts import compare, significance, turns
from reports.verdicts.matching import Side

LEVEL = 0.02  # that of `launch gate`, for both directions; false alarms are half of it
LOOKS = (0.25, 0.5, 1.0)  # likewise
SLOWER = (0.01, 0.02, 0.03, 0.05, 0.1)
DRAWN, PLANTED = 1000, 300  # families
BUDGET_S = 300.0
FEWEST_DRAWN = 12  # pairs; families drawn from fewer are all alike
SPEED = "step_time_p50_s"

Pair = tuple[Row, Row]


@dataclass(frozen=True)
class Gate:
    """How a family is judged: the most pairs, the margin, and after how many pairs its time is up (None: it is not)."""

    pairs: int
    margin: float
    budget_pairs: int | None = None

    def looks(self) -> dict[int, float]:
        """After how many pairs it looks -> the share of all that it then sees. The last look sees all."""
        most = min(self.pairs, self.budget_pairs or self.pairs)
        at = {max(3, round(share * self.pairs)) for share in LOOKS}
        return {pairs: pairs / self.pairs for pairs in sorted(at) if pairs < most} | {most: 1.0}

    def verdict(self, next_pair: Callable[[], Pair]) -> tuple[str, int]:
        """(regressed, inconclusive or passed, the pairs that this took)."""
        family: list[Pair] = []
        before = 0.0
        for pairs, share in self.looks().items():
            family += [next_pair() for _ in range(pairs - len(family))]
            level = significance.spent(share, LEVEL) - significance.spent(before, LEVEL)
            before = share
            if (answer := self._look(family, level)) != "inconclusive":
                break
        return answer, len(family)

    def _look(self, family: Sequence[Pair], level: float) -> str:
        sides = [Side([pair[side] for pair in family]) for side in (0, 1)]
        found = compare.compare({"": sides[0]}, {"": sides[1]}, self.margin, level)
        seen = {each.verdict for each in found}
        if "not comparable" in seen:
            raise UsageError(f"these launches are not comparable: {found[0].why}; give launches of one version")
        return next((verdict for verdict in ("regressed", "inconclusive") if verdict in seen), "passed")


@dataclass
class Numbered:
    """Rows of the same launch, each time as another one: a launch may be drawn into a family several times."""

    count: int = 0

    def __call__(self, pair: Pair) -> Pair:
        self.count += 1
        names = f"base{self.count}", f"head{self.count}"
        one, other = ({**row, "launch_id": name, "repeat": self.count} for row, name in zip(pair, names, strict=True))
        return {**one, "turns_with": names[1]}, {**other, "turns_with": names[0]}


def pairs_of(folder: Path) -> list[Pair]:
    """The pairs of a gate's folder, with BASE and HEAD in it, whose launches took turns and ended well.

    Raises UsageError if it has several trials, or no such pairs.
    """
    sides: list[list[Row]] = []
    for name in ("base", "head"):
        found = compare.by_settings(trials(folder / name))
        if len(found) != 1:
            raise UsageError(f"{folder / name} has {len(found)} trials; give the --out folder of a gate on one")
        (side,) = found.values()
        turns.attach(side.good(), folder / name)
        sides.append([row for row in side.good() if row[SPEED]])
    if (partners := turns.partners(*sides)) is None:
        raise UsageError(f"no launches in {folder} took turns; give the --out folder of python -m launch gate")
    return list(zip(*partners, strict=True))


def in_order(pairs: Sequence[Pair], gate: Gate) -> Iterator[tuple[str, int]]:
    """The verdicts on families in which each pair is used once, as long as there are enough."""
    rest = list(pairs)
    while len(rest) >= max(gate.looks()):
        verdict, used = gate.verdict(iter(rest).__next__)
        del rest[:used]
        yield verdict, used


def drawn(pairs: Sequence[Pair], gate: Gate, coin: random.Random, count: int) -> Iterator[tuple[str, int]]:
    """The verdicts on families of pairs that are drawn from all."""
    numbered = Numbered()
    for _ in range(count):
        yield gate.verdict(lambda: numbered(coin.choice(pairs)))


def slower(pair: Pair, share: float) -> Pair:
    """The same pair with the turns of HEAD longer by this share."""
    base, head = pair
    times = {name: {turn: s * (1 + share) for turn, s in each.items()} for name, each in head[turns.TURNS].items()}
    return base, {**head, turns.TURNS: times}


def interval(hits: int, count: int) -> tuple[float, float]:
    """The 95% confidence interval of the share hits / count (Clopper and Pearson 1934, Biometrika 26)."""
    from scipy import special

    low = special.betaincinv(hits, count - hits + 1, 0.025) if hits else 0.0
    high = special.betaincinv(hits + 1, count - hits, 0.975) if hits < count else 1.0
    return float(low), float(high)


def report(equal: Path, slowed: Mapping[str, Path], gate: Gate, seed: int) -> str:
    """The report, as Markdown. `slowed`: what was planted -> the folder of a gate on it.

    Raises UsageError if there are too few pairs or several trials.
    """
    coin, found = random.Random(seed), pairs_of(equal)
    if len(found) < (most := max(gate.looks())):
        raise UsageError(
            f"{len(found)} pairs are too few for a family of {most}; run more pairs, or give fewer --budget-pairs"
        )
    ones = [line_of_alarms("measured, each pair used once", in_order(found, gate))]
    ones.append(line_of_alarms("drawn from all pairs", drawn(found, gate, coin, DRAWN)))
    powers = []
    for share in SLOWER:
        planted = [slower(pair, share) for pair in found]
        powers.append(line_of_power(f"{share:.0%}, in the numbers", drawn(planted, gate, coin, PLANTED)))
    for name, folder in slowed.items():
        really = pairs_of(folder)
        what = f"{name}, {len(really)} pairs: {spreads(really)}"
        powers.append(line_of_power(f"{what}; each pair used once", in_order(really, gate)))
        if len(really) >= FEWEST_DRAWN:
            powers.append(line_of_power(f"{name}, drawn from these", drawn(really, gate, coin, PLANTED)))
    return "\n".join(
        [
            head(found, gate),
            "",
            "| families of equal launches | false alarms | share (95% interval) | claimed | inconclusive | passed "
            "| pairs until decided |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
            *ones,
            "",
            "| slow-down | families | found (95% interval) | inconclusive | passed | pairs until decided |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
            *powers,
            "",
            f"A slow-down within the margin of {gate.margin:.0%} should pass. Families that are drawn from all pairs "
            "share launches, so their interval is too narrow.",
        ]
    )


def head(pairs: Sequence[Pair], gate: Gate) -> str:
    """What was launched, where, how much pairs differ, and how many of them five minutes hold."""
    first = pairs[0][0]
    on_cpu = first["device_name"] == "cpu"
    machine = f"{first['cpu_count']} CPUs {first['cpu_model']}" if on_cpu else first["device_name"]
    began = [datetime.datetime.fromisoformat(row["started_at"]) for row, _ in pairs]
    pair_s = statistics.median((b - a).total_seconds() for a, b in itertools.pairwise(began))
    step = statistics.median(row[SPEED] for row, _ in pairs)
    return (
        f"{len(pairs)} pairs of launches of {first['experiment']} {first['arm']}, {first['processes']} process(es), on "
        f"{machine}, torch {first['torch']}, commit {first['commit']}. A step takes {1000 * step:.3g} ms in its turns. "
        f"Change from BASE to HEAD, mean over pairs and their standard deviation: {spreads(pairs)}. A pair "
        f"takes {pair_s:.3g} s, so that five minutes hold {math.floor(BUDGET_S / pair_s)}. Looks after "
        f"{', '.join(map(str, gate.looks()))} pairs, level {LEVEL:.0%} over all of them and both directions, "
        f"margin {gate.margin:.2g}."
    )


def spreads(pairs: Sequence[Pair]) -> str:
    """The change of the step time and, where there is one, of its CPU time: means over pairs, standard deviations."""
    cpu = f", CPU time {spread(pairs, compare.CPU_TIME)}" if pairs[0][0][compare.CPU_TIME] else ""
    return f"step time {spread(pairs, SPEED)}{cpu}"


def spread(pairs: Sequence[Pair], metric: str) -> str:
    """The change of a metric: its mean over the pairs and their standard deviation."""
    changes = turns.changes(metric, *map(list, zip(*pairs, strict=True)))
    if changes is None:
        raise UsageError(f"{metric} was not measured in the turns of every pair; give a run of this version")
    return f"{math.expm1(statistics.fmean(changes)):+.2%} +- {statistics.stdev(changes):.2%}"


def line_of_alarms(name: str, verdicts: Iterable[tuple[str, int]]) -> str:
    """How often the gate called families of equal launches slower."""
    counts, used = tally(verdicts)
    low, high = interval(counts["regressed"], counts.total())
    share = f"{counts['regressed'] / counts.total():.2%} ({low:.2%} .. {high:.2%}) | at most {LEVEL / 2:.0%}"
    parts = " | ".join(f"{counts[answer] / counts.total():.0%}" for answer in ("inconclusive", "passed"))
    return f"| {name} | {counts['regressed']} of {counts.total()} | {share} | {parts} | {used} |"


def line_of_power(name: str, verdicts: Iterable[tuple[str, int]]) -> str:
    """The verdicts on families whose head is slower."""
    counts, used = tally(verdicts)
    if not counts:
        return f"| {name} | 0 | | | | |"
    low, high = interval(counts["regressed"], counts.total())
    parts = [f"{counts[answer] / counts.total():.0%}" for answer in ("inconclusive", "passed")]
    share = f"{counts['regressed'] / counts.total():.0%} ({low:.0%} .. {high:.0%})"
    return f"| {name} | {counts.total()} | {share} | {' | '.join(parts)} | {used} |"


def tally(verdicts: Iterable[tuple[str, int]]) -> tuple[Counter[str], str]:
    """(how often each verdict was given, the median number of pairs it took and the most)."""
    found = list(verdicts)
    used = [pairs for _, pairs in found]
    return Counter(
        verdict for verdict, _ in found
    ), f"{statistics.median(used):.0f}, at most {max(used)}" if used else ""
