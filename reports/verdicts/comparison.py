"""The result of one comparison with its line in a table, in words, and the reasons for a trial's results."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports.verdicts.significance import LEVEL, Change, Difference

# What a reader has to act on comes first.
VERDICTS = ("regressed", "changed", "not comparable", "inconclusive", "improved", "equivalent")


HEADS = ("trial", "metric", "base", "head", "change", "95% interval", "could show", "launches", "verdict")


@dataclass(frozen=True)
class LeftOut:
    """So many launches of BASE and of HEAD do not count, and why."""

    why: str
    base: int
    head: int

    def __str__(self) -> str:
        return f"{self.base} of BASE and {self.head} of HEAD {self.why}"


@dataclass(frozen=True)
class Comparison:
    """One metric of one trial; or a trial that cannot be compared, without a metric, and `why`.

    `base` and `head` hold one value per launch, in the metric's own unit; or, where `seeds` are given, one per seed in
    their order: the mean of its launches. `in_turns`: the change is that of the pairs' turns (see turns.py), not of
    these values. `left_out`: the launches that none of these values is of. `launches`: how many of each side count,
    where a value is of several.
    """

    trial: str
    verdict: str
    metric: str = ""
    base: Sequence[float] = ()
    head: Sequence[float] = ()
    paired: bool = False
    in_turns: bool = False
    change: Difference | None = None
    why: str = ""
    seeds: Sequence[int] = ()
    left_out: Sequence[LeftOut] = ()
    launches: tuple[int, int] | None = None

    def counting(self) -> tuple[int, int]:
        """How many launches of BASE and of HEAD count."""
        return self.launches or (len(self.base), len(self.head))

    def count(self) -> str:
        """In words: 5 and 4; 5 pairs in turns; 3 seeds of 6 and 6 launches; with what is left out."""
        base, head = self.counting()
        found = f"{len(self.base)} pairs{' in turns' if self.in_turns else ''}" if self.paired else f"{base} and {head}"
        if self.seeds or self.launches:
            several = f" of {base} and {head} launches" if (base, head) != (len(self.base), len(self.head)) else ""
            found = f"{len(self.base)} seeds{several}"
        out = [sum(each.base for each in self.left_out), sum(each.head for each in self.left_out)]
        return f"{found}; {out[0]} and {out[1]} left out" if any(out) else found


def levels(found: Sequence[Comparison], level: float) -> dict[bool, float]:
    """What one line may spend by itself of the level of all: True: an accuracy over seeds, False: another metric.

    Who compares over seeds asks two things, how good it is and what it costs: each has half of the level, in equal
    parts. Otherwise a loss would be the harder to show, the more other metrics there are.
    """
    counts = Counter(bool(each.seeds) for each in found if each.change is not None)
    return {kind: level / max(1, len(counts) * counts[kind]) for kind in (True, False)}


def cells(each: Comparison, margin: float, level: float) -> list[str]:
    """One line of the table; margin (that of this line) and level as in ComparisonReport, for what could be shown."""
    verdict = f"{each.verdict}: {each.why}" if each.why else each.verdict
    if not each.base:
        return [each.trial, each.metric, "", "", "", "", "", "", verdict]
    before, after = statistics.median(each.base), statistics.median(each.head)
    count = each.count()
    if each.change is None:
        return [each.trial, each.metric, f"{before:.5g}", f"{after:.5g}", "", "", "", count, verdict]
    factor, unit = (100, "%") if each.change.UNIT == "share" else (1, f" {each.change.UNIT}")
    shown = factor * each.change.smallest_shown(margin, level)
    return [
        each.trial,
        each.metric,
        f"{before:.5g}",
        f"{after:.5g}",
        f"{factor * each.change.size():+.2f}{unit}",
        interval(each.change),
        f"{shown:.3g}{unit}" if shown < 1000 else "nothing",
        count,
        verdict,
    ]


def interval(change: Difference, level: float = LEVEL) -> str:
    """The confidence limits of a change at 1 - level, in percent or points: +1.20 .. +3.40."""
    factor = 100 if change.UNIT == "share" else 1
    limits = [factor * limit for limit in change.limits(level)]
    return " .. ".join(f"{limit:+.2f}" if abs(limit) < 1e6 else f"{limit:+.3g}" for limit in limits)


MEMORY = {"peak_allocated_bytes": "memory", "peak_rss_bytes": "host memory"}  # of these the first that was measured

# Fewer launches, or an interval that spans a larger factor: it is not worth its numbers in a sentence.
FEW, WIDEST = 3, 10


def in_words(head: str, base: str, found: Mapping[str, Comparison], points: float, target: str) -> str:
    """What these comparisons (metric -> its comparison) say of `head` against `base`, and no more; "": nothing.

    In brackets are 95% intervals. `points`: the margin of accuracies, `target`: the accuracy to reach, in percent.
    """
    if (whole := found.get("")) is not None and whole.verdict == "not comparable":
        return f"{head} and {base} could not be compared: {whole.why}"
    parts = resources_in_words(head, base, found)
    if (accuracy := found.get("eval_accuracy")) is not None:
        parts.append(accuracy_in_words(accuracy, points))
    if (until := found.get("time_to_target_s")) is not None:
        share = times(until, "the time", "seed")
        parts.append(f"to {target} it takes {share}" if share else f"the time to {target} is not known: {until.why}")
    if whole is not None and parts:  # launches failed
        parts.append(whole.why)
    return "; ".join(parts)


def resources_in_words(head: str, base: str, found: Mapping[str, Comparison]) -> list[str]:
    """The clauses about the time of an epoch and about memory."""
    memory = [(name, f"the {word}", f"the {word}") for name, word in MEMORY.items() if name in found][:1]
    known: list[str] = []
    unknown: list[str] = []
    for metric, what, plain in [("epoch_time_s", f"as long as one of {base}", "the time of an epoch"), *memory]:
        if (each := found.get(metric)) is not None:
            share = times(each, what)
            (known if share else unknown).append(share or f"{plain} could not be told: {each.why}")
    return ([f"an epoch of {head} takes {' and '.join(known)}"] if known else []) + unknown


def times(each: Comparison, what: str, repetition: str = "launch") -> str:
    """How many times what the base takes: 1.22 times (1.19 .. 1.25) the memory; "": it could not be told."""
    if isinstance(each.change, Change):
        low, high = (1 + limit for limit in each.change.limits())
        count = min(len(each.base), len(each.head))
        if each.verdict == "inconclusive" and (count < FEW or low * WIDEST < high):
            few = f"{'two' if count == 2 else count} {repetition}{'es' if repetition == 'launch' else 's'}"
            return f"{1 + each.change.size():.3g} times ({few} cannot tell) {what}"
        unsure = ", which cannot be told from 1" if each.verdict == "inconclusive" and low < 1 < high else ""
        return f"{1 + each.change.size():.3g} times ({low:.3g} .. {high:.3g}{unsure}) {what}"
    if len(each.base) == len(each.head) == 1 and min(*each.base, *each.head) > 0:
        alone = f"one {repetition} of each, which tells nothing of the spread"
        return f"{each.head[0] / each.base[0]:.3g} times ({alone}) {what}"
    return ""


def accuracy_in_words(each: Comparison, points: float) -> str:
    """An accuracy over seeds; only as sure as its verdict."""
    if each.change is None:
        return f"accuracy could not be told: {each.why}"
    low, high = each.change.limits()
    size, seeds = each.change.size(), f"over {len(each.seeds)} seeds"
    interval = f"({low:+.2f} .. {high:+.2f})"
    if each.verdict == "equivalent":
        return f"accuracy is equivalent within {points:g} points {seeds} {interval}"
    if each.verdict in ("regressed", "improved"):
        way = "lower" if size < 0 else "higher"
        return f"accuracy is {way} by more than {points:g} points {seeds}: {size:+.2f} {interval}"
    return f"whether accuracy differs by more than {points:g} points could not be told {seeds}: {size:+.2f} {interval}"


OPERATION_HEADS = ("operation", "base ms", "head ms", "difference ms", "calls")


@dataclass(frozen=True)
class OperationTime:
    """What one operation took in a traced step: seconds in each launch of BASE and HEAD, and its calls on each side."""

    operation: str
    base: Sequence[float]
    head: Sequence[float]
    calls: tuple[int, int]

    def difference_s(self) -> float:
        """The difference of the medians."""
        return statistics.median(self.head) - statistics.median(self.base)

    def cells(self) -> list[str]:
        """Its line in a table with OPERATION_HEADS."""
        before, after = self.calls
        calls = f"{before}" if before == after else f"{before} -> {after}"
        difference = self.difference_s()
        sign = "+" if difference > 0 else "-" if difference < 0 else ""
        return [self.operation, with_range(self.base), with_range(self.head), f"{sign}{in_ms(abs(difference))}", calls]


def with_range(times: Sequence[float]) -> str:
    """The median of these seconds in ms; of several, with the lowest and the highest."""
    middle, low, high = map(in_ms, (statistics.median(times), min(times), max(times)))
    return middle if len(times) == 1 else f"{middle} ({low} .. {high})"


def in_ms(seconds: float) -> str:
    """In ms, with four digits or all before the point."""
    return f"{1e3 * seconds:.0f}" if seconds >= 1 else f"{1e3 * seconds:.4g}"


@dataclass(frozen=True)
class Reasons:
    """Why a trial's metrics may have changed. `summary` says it of the exact counts, `counts` has those that differ.

    `operations`: those whose time differs most in the traced steps; none without traces. `about_times` says what these
    times are, `notes` what is not known.
    """

    trial: str
    summary: str
    counts: Sequence[Comparison] = ()
    notes: Sequence[str] = ()
    operations: Sequence[OperationTime] = ()
    about_times: str = ""

    def lines(self) -> list[str]:
        """The summary, then each count that differs, as the exact gate prints it, and each note."""
        counts = [f"{each.metric} {each.why}" for each in self.counts]
        return [self.summary or "no exact counts", *counts, *self.notes]
