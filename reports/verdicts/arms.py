"""Two arms of one run, or two values of a setting, against each other: what does the one cost, save and change?

Trials are compared that are equal but for the arm and what the experiment's arms are about, or but for the setting.
Their launches with all seeds are put together, as over_seeds.py does. A time to the target depends on the seed, as an
accuracy does, so that there, too, the seeds are the repetition.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UsageError
from bench.record import experiment_lookup, to_target
from bench.record.columns import columns
from bench.record.csvfile import cell
from reports import read
from reports.tables.summary import Row, in_words
from reports.tables.table import machine_line
from reports.tables.to_target import left_out, with_target
from reports.typed import UNREADABLE
from reports.verdicts import compare, comparison, matching, over_seeds, significance
from reports.verdicts.comparison import Comparison
from reports.verdicts.matching import SETTINGS, Side
from reports.verdicts.report import ComparisonReport

METRICS: tuple[str, ...] = (
    "epoch_time_s",
    "images_per_s",
    "peak_allocated_bytes",
    "peak_reserved_bytes",
    "peak_rss_bytes",
)
METRICS += (compare.ENERGY,)
TO_TARGET = ("time_to_target_s", "time_to_target_with_evaluation_s", "energy_to_target_j")
# What follows from the number of processes; trials side by side do not, and they disturb each other.
OF_PROCESSES = {column.name for column in columns("trials") if "launch" in column.roles} - {"parallel"}
SEVERAL = ("processes", "machines")
STUDY = "resnet20_accumulation"
PLAN = {"arm", "micro_batch", "accumulate"}  # how an effective batch is made up
MARGIN, LEVEL = 0.02, significance.LEVEL


@dataclass(frozen=True)
class Pair:
    """Trials that are equal but for what is asked about: `head` against `base`, by these names, under `where`."""

    names: tuple[str, str]
    where: str
    head: Side
    base: Side

    def title(self) -> str:
        return f"{self.names[0]} against {self.names[1]}{self.where}"

    def batches(self) -> tuple[int, int]:
        """The effective batches, head's first."""
        return self.head.rows[0]["effective_batch"], self.base.rows[0]["effective_batch"]


def compare_within(
    folder: Path,
    setting: str,
    values: Sequence[str],
    margin: float,
    level: float,
    strict: bool,
    points: float,
    target: float | None = None,
) -> ComparisonReport:
    """Compare the first of two values of a setting, such as `arm`, with the second, within one run.

    `points`: the margin of accuracies. `target`: the accuracy to reach; None: that of each trial. The exit code is that
    of `compare.compare_runs`. Raises UsageError if the run does not have both, or never under like settings, or if rows
    that are needed cannot be read.
    """
    trials = read.trials(folder)
    if target is not None:
        trials = with_target(trials, read.every_epoch(folder), target)
    sides = list(matching.sides(map(over_seeds.row_of_any_seed, trials.to_dict("records"))).values())
    found, problems = pairs(sides, setting, values, folder)
    judged = compare.judged([*problems, *of_pairs(found)], margin, level, points)
    unequal = {pair.batches(): pair for pair in found if len(set(pair.batches())) > 1}
    cautions = [
        f"Effective batches differ: {pair.names[0]} has {one} images in a step and {pair.names[1]} {other}, which "
        "is not the same training done in another way."
        for (one, other), pair in unequal.items()
    ]
    cautions.append(f"head: {values[0]}, base: {values[1]}")
    machine, code = machine_line(sides[0].rows[0]), compare.exit_code(judged, strict)
    title = f"{values[0]} against {values[1]} in {folder}"
    said = sentences(found, judged, points)
    asked = ["--arms", ",".join(values)] if setting == "arm" else ["--setting", f"{setting}={','.join(values)}"]
    words = [str(folder), *asked, "--accuracy-margin", f"{points:g}"]
    words += [] if target is None else ["--target-accuracy", f"{target:g}"]
    report = ComparisonReport(title, machine, judged, code, margin, level, strict, points, words=words)
    return dataclasses.replace(report, cautions=cautions, conclusions=said)


def pairs(
    sides: Sequence[Side], setting: str, values: Sequence[str], folder: Path
) -> tuple[list[Pair], list[Comparison]]:
    """(what can be compared, what cannot since an arm ran in several ways). Raises UsageError if nothing can."""
    if not sides:
        raise UsageError(f"no trial has ended in {folder}; give the folder of a run")
    known = {spelled(side.rows[0], setting) for side in sides}
    if missing := [value for value in values if value not in known]:
        raise UsageError(f"no {setting} {missing[0]!r} in {folder}; it has: {', '.join(sorted(known))}")
    one, other = ([side for side in sides if spelled(side.rows[0], setting) == value] for value in values)
    free = {setting}
    if setting == "arm":
        free |= {name for side in (*one, *other) for name in experiment_lookup.arm_settings(side.rows[0])}
    by_key = {key: (alike(one, key, free), alike(other, key, free)) for key in (likeness(s.rows[0], free) for s in one)}
    both = [found for found in by_key.values() if found[1]]
    if not both:
        differ = [name for name in SETTINGS if name not in free and one[0].rows[0][name] != other[0].rows[0][name]]
        unlike = ", ".join(f"{name} {one[0].rows[0][name]} against {other[0].rows[0][name]}" for name in differ)
        raise UsageError(f"{' and '.join(values)} never ran with like settings in {folder}: {unlike}; run both alike")
    varying = [n for n in SETTINGS if n not in free and len({heads[0].rows[0][n] for heads, _ in both}) > 1]
    found, problems = [], []
    for heads, bases in both:
        where = "".join(f" {in_words(name, heads[0].rows[0][name])}" for name in varying)
        pair = Pair((label(heads[0].rows[0], setting), label(bases[0].rows[0], setting)), where, heads[0], bases[0])
        if len(heads) == len(bases) == 1:
            found.append(pair)
        else:
            several = sorted(
                name for name in free if any(len({s.rows[0][name] for s in own}) > 1 for own in (heads, bases))
            )
            why = f"one of them ran with several values of {', '.join(several)}"
            problems.append(Comparison(pair.title(), "not comparable", why=why))
    return found, problems


def spelled(row: Row, setting: str) -> str:
    """A setting's value as the command line has it: True, bf16, None."""
    text = cell(row[setting]) or "None"
    return text.capitalize() if text in ("true", "false") else text


def label(row: Row, setting: str) -> str:
    """What a side is called in a sentence: 16x16, bf16, 2 processes."""
    return str(row["arm"]) if setting == "arm" else in_words(setting, row[setting])


def alike(sides: Sequence[Side], key: Hashable, free: set[str]) -> list[Side]:
    return [side for side in sides if likeness(side.rows[0], free) == key]


def likeness(row: Row, free: set[str]) -> Hashable:
    """A key that is equal for trials that differ in the `free` settings alone."""
    shared = row["processes"] if row["batch_is_shared"] and "processes" in free else 1  # the micro-batch of all of them
    key = {name: row[name] for name in SETTINGS if name not in free}
    return tuple({**key, "micro_batch": key.get("micro_batch") and key["micro_batch"] * shared}.items())


def of_pairs(found: Sequence[Pair]) -> list[Comparison]:
    """All comparisons of these pairs, before their verdicts."""
    return [each for pair in found for each in of_pair(pair)]


def of_pair(pair: Pair) -> list[Comparison]:
    """Time, memory, energy, accuracy over seeds unless it is where training stopped, and what the target took."""
    free = {name for name in OF_PROCESSES if any(pair.head.rows[0][n] != pair.base.rows[0][n] for n in SEVERAL)}
    free |= {"input_pipeline"} if pair.head.rows[0]["pipeline"] != pair.base.rows[0]["pipeline"] else set()
    machine = [name for name in compare.MACHINE if name not in free]
    found = compare.of_trial(pair.title(), pair.base, pair.head, True, METRICS, machine)
    if any(not each.metric and each.verdict == "not comparable" for each in found):
        return found
    return found + [each for metric in TO_TARGET for each in of_target(pair, metric)]


def of_target(pair: Pair, metric: str) -> list[Comparison]:
    """What the target took, in pairs of one seed, each the geometric mean of its launches; none without a target.

    A launch that diverged never reached it.
    """
    title = pair.title()
    asked = [[*side.undisturbed(), *diverged(side)] for side in (pair.base, pair.head)]
    base, head = ([row for row in side if to_target.is_known(row)] for side in asked)
    rows = [*base, *head]
    targets = {row["target_accuracy"] for side in asked for row in side}
    if targets <= {None}:
        return []
    if len(targets) > 1:
        return [Comparison(title, "not comparable", metric, why="the launches have several targets; give one")]
    if not (base and head) and (why := "; ".join(left_out([*asked[0], *asked[1]]))):
        return [Comparison(title, "inconclusive", metric, why=why)] if metric == TO_TARGET[0] else []
    if not all(map(to_target.reached, rows)):
        why = ", ".join(f"{reached(own)} {name} reached it" for own, name in zip((head, base), pair.names, strict=True))
        return [Comparison(title, "inconclusive", metric, why=why)] if metric == TO_TARGET[0] else []
    if missing := sum(row[metric] is None for row in rows):
        why = f"it is missing in {missing} of {len(rows)} launches"
        return [Comparison(title, "inconclusive", metric, why=why)] if missing < len(rows) else []
    before, after = by_seed(base, metric), by_seed(head, metric)
    both = sorted(before.keys() & after.keys())
    sides = [before[seed] for seed in both], [after[seed] for seed in both]
    counting = [[row for row in own if over_seeds.seed_of(row) in both] for own in (base, head)]
    out = [
        *matching.disturbed_of(pair.base, pair.head),
        *matching.out_of("do not say what the target took", asked[0], base, asked[1], head),
        *matching.out_of(over_seeds.ALONE, base, counting[0], head, counting[1]),
    ]
    launches = len(counting[0]), len(counting[1])
    if len(both) < significance.FEWEST:
        why = f"only seed {both[0]} is in both" if both else "no seed is in both"
        why, paired = f"{why}; {over_seeds.NEXT}", bool(both)
        return [Comparison(title, "inconclusive", metric, *sides, paired, why=why, left_out=out, launches=launches)]
    change = significance.of_pairs([math.log(b / a) for a, b in zip(*sides, strict=True)])
    return [Comparison(title, "inconclusive", metric, *sides, True, change=change, left_out=out, launches=launches)]


def diverged(side: Side) -> list[Row]:
    return [row for row in side.failed() if row["status"] == to_target.DIVERGED]


def reached(rows: Sequence[Row]) -> str:
    """How many launches reached their target: 3 of 8 launches of."""
    return f"{sum(map(to_target.reached, rows))} of {len(rows)} launches of"


def by_seed(rows: Sequence[Row], metric: str) -> dict[int, float]:
    """Seed -> the geometric mean of its launches."""
    found: dict[int, list[float]] = {}
    for row in rows:
        found.setdefault(over_seeds.seed_of(row), []).append(math.log(row[metric]))
    return {seed: math.exp(statistics.fmean(logs)) for seed, logs in found.items()}


def sentences(found: Sequence[Pair], judged: Sequence[Comparison], points: float) -> list[str]:
    """What the comparisons of each pair say, in words."""
    said = [
        sentence(pair, {each.metric: each for each in judged if each.trial == pair.title()}, points) for pair in found
    ]
    return list(filter(None, said))


def sentence(pair: Pair, own: Mapping[str, Comparison], points: float) -> str:
    """One pair's, with its effective batch."""
    one, other = pair.batches()
    at = f"an effective batch of {one}" if one == other else f"effective batches of {one} against {other}"
    targets = {row["target_accuracy"] for side in (pair.head, pair.base) for row in side.good()} - {None}
    target = to_target.share(min(targets)) if targets else ""
    words = comparison.in_words(*pair.names, own, points, target)
    if words and over_seeds.stop([*pair.head.rows, *pair.base.rows]) and any(own):  # something was compared
        words += "; accuracy is not compared, since training stops at the target"
    return f"At {at}{',' if not pair.where else f' ({pair.where.strip()}),'} {words}." if words else ""


def conclusions(rows: Sequence[Row]) -> list[str]:
    """Of the accumulation study's launches: each plan that accumulates against one batch of that size, in words."""
    readable = [row for row in rows if row["experiment"] == STUDY and row[UNREADABLE] is None]
    own = list(map(over_seeds.row_of_any_seed, readable))
    groups: dict[Hashable, list[Side]] = {}
    for side in matching.sides(own).values():
        row = side.rows[0]
        groups.setdefault((row["effective_batch"], likeness(row, PLAN)), []).append(side)
    found = []
    for sides in groups.values():
        whole = [side for side in sides if side.rows[0]["accumulate"] == 1]
        plans = [side for side in sides if side.rows[0]["accumulate"] > 1]
        found += [Pair(plan_names(plan, base), "", plan, base) for base in whole for plan in plans]
    judged = compare.judged(of_pairs(found), MARGIN, LEVEL, over_seeds.MARGIN)
    return sentences(found, judged, over_seeds.MARGIN)


def plan_names(plan: Side, base: Side) -> tuple[str, str]:
    """The arms, with what two groups of the study may differ in."""
    more = [
        in_words(name, plan.rows[0][name]) for name in ("processes", "precision") if plan.rows[0][name] not in (1, "no")
    ]
    return " ".join([str(plan.rows[0]["arm"]), *more]), " ".join([str(base.rows[0]["arm"]), *more])
