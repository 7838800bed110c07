"""Two run folders against each other: what got worse, what did not, and what needs more launches.

Launches are compared if their settings are equal and their machines and versions are not known to differ. For all other
launches the report says what differs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import UsageError
from bench.record import to_target
from bench.record.columns import kept_apart
from reports.tables.summary import Row, row_of
from reports.tables.table import machine_line
from reports.verdicts import likeness, over_seeds, reasons, significance, turns
from reports.verdicts.comparison import VERDICTS, Comparison, interval, levels
from reports.verdicts.likeness import listed
from reports.verdicts.matching import (
    Side,
    disturbed_of,
    leaving_out,
    not_ended,
    out_of,
    sides,
    titles,
    unmatched,
)
from reports.verdicts.pytest_benchmark import launches
from reports.verdicts.report import ComparisonReport

STEP_TIME, CPU_TIME, ENERGY = "step_time_p50_s", "step_cpu_time_p50_s", "energy_per_image_j"
# Column -> whether more of it is worse.
METRICS = {
    STEP_TIME: True,
    CPU_TIME: True,
    "images_per_s": False,
    "peak_allocated_bytes": True,
    "peak_reserved_bytes": True,
    "peak_rss_bytes": True,
    ENERGY: True,
    "eval_accuracy": False,
}
# Those of two arms of one run, too (arms.py).
MORE_IS_WORSE = {**METRICS, "epoch_time_s": True, **dict.fromkeys(to_target.SUMS, True)}
MACHINE = kept_apart("verdict")
SEEDED = "eval_accuracy"  # on one machine equal to the last digit in each launch of one seed


def compare_runs(
    before: Path, after: Path, margin: float, level: float, strict: bool, accuracy_margin: float | None = None
) -> ComparisonReport:
    """Compare two run folders; with an `accuracy_margin`, in points, over their seeds (see over_seeds.py).

    The exit code is 1 if a metric regressed, else 3 if a trial or metric is missing or not comparable, else 4 if a
    comparison is inconclusive and `strict` is set, else 0. Raises UsageError if there is nothing to compare.
    """
    folders = (before, after)
    read = row_of if accuracy_margin is None else over_seeds.row_of_any_seed
    base, head = (by_settings(launches(folder), read) for folder in folders)
    ids = [{row["launch_id"] for each in side.values() for row in each.rows} for side in (base, head)]
    if both := ids[0] & ids[1]:
        raise UsageError(f"launch {min(map(str, both))} is in both folders; give two runs")
    for folder, side in zip(folders, (base, head), strict=True):
        turns.attach((row for each in side.values() for row in each.rows), folder)
    if not base or not head:
        raise UsageError(f"no trial has ended in {folders[0] if not base else folders[1]}; give the folder of a run")
    found = compare(base, head, margin, level, accuracy_margin)
    rows = [[row for side in each.values() for row in side.rows] for each in (base, head)]
    commits = [" and ".join(sorted({str(row["commit"] or "unknown") for row in each})) for each in rows]
    title = f"{after} (commit {commits[1]}) against {before} (commit {commits[0]})"
    names = titles([*rows[0], *rows[1]])
    sides = {names(base[key].rows[0]): (base[key].good(), head[key].good()) for key in base if key in head}
    why = reasons.of_trials(found, sides, before, after)
    machine, code = machine_line(rows[1][0]), exit_code(found, strict)
    said = over_seeds.cautions({name: [*before, *after] for name, (before, after) in sides.items()})
    words = [str(before), str(after)]
    words += [] if accuracy_margin is None else ["--over", "seed", "--accuracy-margin", f"{accuracy_margin:g}"]
    return ComparisonReport(
        title, machine, found, code, margin, level, strict, accuracy_margin, why, cautions=said, words=words
    )


def exit_code(found: Sequence[Comparison], strict: bool) -> int:
    """The exit code that these verdicts come to (see `compare_runs`)."""
    seen = {each.verdict for each in found}
    if "regressed" in seen:
        return 1
    if "not comparable" in seen:
        return 3
    return 4 if strict and "inconclusive" in seen else 0


def by_settings(table: pd.DataFrame, read: Callable[[Mapping[Any, Any]], Row] = row_of) -> dict[Hashable, Side]:
    """Settings -> their launches, each once, in the order in which they began; interrupted launches are left out."""
    return sides(map(read, table.to_dict("records")))


def compare(
    base: Mapping[Hashable, Side],
    head: Mapping[Hashable, Side],
    margin: float,
    level: float,
    accuracy_margin: float | None = None,
) -> list[Comparison]:
    """All comparisons, in the order of VERDICTS. The verdicts allow for how many comparisons are made at once."""
    seeds = accuracy_margin is not None
    names = titles([side.rows[0] for side in (*base.values(), *head.values())])
    both = [(names(base[key].rows[0]), base[key], head[key]) for key in base if key in head]
    found = [each for trial in both for each in of_trial(*trial, seeds)]
    rows = [{key: side.rows[0] for key, side in each.items()} for each in (base, head)]
    return judged([*found, *unmatched(rows[0], rows[1], names)], margin, level, accuracy_margin or 0.0)


def judged(found: Sequence[Comparison], margin: float, level: float, points: float) -> list[Comparison]:
    """These comparisons with their verdicts, in the order of VERDICTS; `points`: the margin of accuracies."""
    measured = [each for each in found if each.change is not None]
    margins = [points if each.seeds else margin for each in measured]
    tried = zip(measured, margins, strict=True)
    answers = [each.change.answer(by, MORE_IS_WORSE[each.metric]) for each, by in tried if each.change is not None]
    alone = levels(measured, level)
    needed = significance.holm([chance for _, chance in answers], [alone[bool(each.seeds)] for each in measured])
    tested = {
        id(each): of_answer(each, *answer, at, len(measured))
        for each, answer, at in zip(measured, answers, needed, strict=True)
    }
    found = [tested.get(id(each), each) for each in found]
    found = [over_seeds.with_seeds_needed(each, points, alone[True]) for each in found]
    return sorted(found, key=lambda each: VERDICTS.index(each.verdict))


def of_answer(each: Comparison, answer: str, chance: float, needed: float, lines: int) -> Comparison:
    """The comparison with its answer if that holds at the level `needed`, else as it was made: inconclusive.

    Where the 95% interval in the table would decide, it says what a verdict needs among so many lines.
    """
    if chance <= needed:
        return dataclasses.replace(each, verdict=answer)
    if each.change is None or chance > significance.LEVEL:
        return each
    among = f"{lines} line{'s' * (lines != 1)}"
    wider = f"the {100 * (1 - needed):.6g}% interval (Holm), {interval(each.change, needed)}"
    return noted(each, f"95% is not enough: a verdict on {among} needs {wider}")


def of_trial(
    name: str,
    base: Side,
    head: Side,
    seeds: bool,
    metrics: Sequence[str] = tuple(METRICS),
    machine: Sequence[str] = MACHINE,
) -> list[Comparison]:
    """One trial's comparisons. Those with a `change` are inconclusive until it is tested for significance.

    `machine`: the columns in which launches must not differ. No accuracy is compared that a target decided.
    """
    if not base.good():
        return [Comparison(name, "not comparable", why="no launch in BASE ended well")]
    # A launch that failed early may know no device; where it is known to be on another machine, that may be why.
    if why := unlike(base.good(), head.good(), machine) if head.good() else differing(base.good(), head.rows, machine):
        return [Comparison(name, "not comparable", why=why)]
    found = []
    if failed := head.failed():
        # Failing more often is a regression, however few launches there are: a failure is no noise. But one that
        # took turns, and was launched again alone and ended well, may have been killed from outside.
        more = len(failed) * len(base.rows) > len(base.failed()) * len(head.rows) and not ended_well_alone(base, head)
        last = f"{failed[-1]['status']}: {failed[-1]['error']}"
        why = f"{len(failed)} of {len(head.rows)} launches in HEAD failed, {len(base.failed())} of {len(base.rows)} in "
        found.append(Comparison(name, "regressed" if more else "inconclusive", why=f"{why}BASE; {last}"))
    if head.good():
        left = len(base.good()) + len(head.good()) - len(base.undisturbed()) - len(head.undisturbed())
        half = half_known(base.good(), head.good(), machine)
        stop = over_seeds.stop([*base.rows, *head.rows])
        out = not_ended(base, head)
        if seeds and not stop:  # disturbed launches too: they are slower, not less accurate
            accuracies = over_seeds.accuracy(name, base.good(), head.good())
            found += [noted(leaving_out(each, out), half) for each in accuracies]
        out += disturbed_of(base, head)
        base, head = Side(base.undisturbed()), Side(head.undisturbed())
        note = f"{left} launches that were throttled, resumed or not alone on their device are left out" if left else ""
        note = "; ".join(filter(None, (note, half)))
        pairs = turns.paired(base.rows, head.rows)
        before, after = map(Side, pairs) if pairs else (base, head)
        out += out_of("have no partner in a pair", base.rows, before.rows, head.rows, after.rows)
        answered = [SEEDED] * (seeds or stop)
        left_over = [metric for metric in metrics if metric not in answered]
        each_of = [each for metric in left_over for each in of_metric(name, metric, before, after, pairs is not None)]
        found += [noted(leaving_out(each, out), note) for each in each_of]
        if STEP_TIME in metrics and STEP_TIME not in {each.metric for each in each_of}:
            why = note or "no window was timed; train more images, or with fewer --warmup-windows"
            found.append(Comparison(name, "inconclusive", STEP_TIME, why=why))
    return found or [Comparison(name, "not comparable", why="nothing was measured in BASE and HEAD")]


def noted(each: Comparison, note: str) -> Comparison:
    """The comparison with a note after its `why`."""
    return dataclasses.replace(each, why="; ".join(filter(None, (each.why, note))))


def ended_well_alone(base: Side, head: Side) -> bool:
    """Whether HEAD failed once, and ended well when the gate launched it again, alone (launch.gate.measure)."""
    in_turns = any(row["turns_with"] for row in (*base.rows, *head.rows))
    last = head.rows[-1]
    return in_turns and len(head.failed()) == 1 and last["status"] == "ok" and not last["turns_with"]


def of_metric(name: str, metric: str, base: Side, head: Side, pairs: bool) -> list[Comparison]:
    """One metric's comparison; none if neither side has the metric. With a `change` it is still to be tested."""
    before, after = base.values(metric), head.values(metric)
    if not before and not after:
        return []
    if not before or not after:
        where = "HEAD" if before else "BASE"
        return [Comparison(name, "not comparable", metric, why=f"it was not measured in {where}")]
    if metric == ENERGY and (why := differing(base.good(), head.good(), ("energy_source",))):
        return [Comparison(name, "not comparable", metric, why=why)]
    change, why, verdict, in_turns = None, "", "inconclusive", False
    missing = len(base.good()) + len(head.good()) - len(before) - len(after)
    if missing:
        why = f"it is missing in {missing} of {len(base.good()) + len(head.good())} launches"
    elif min(before) > 0 and not max(after) > 0:
        verdict, why = ("improved" if MORE_IS_WORSE[metric] else "regressed"), "it is 0 in HEAD"
    elif min(*before, *after) <= 0:
        why = "some launches have 0, and a change is a ratio"
    elif metric == SEEDED and len(set(before)) == len(set(after)) == 1 and before[0] != after[0]:
        why = "each side is one seed's result, launched again and again; give several, and --over seed"
    elif pairs and len(before) > 1 and (ratios := turns.changes(metric, base.good(), head.good())) is not None:
        change, in_turns = significance.of_pairs(ratios), True
    elif (change := significance.change(before, after, pairs)) is None:
        why = f"{len(before)} and {len(after)} launches have no spread; give --repeats"
    elif metric in turns.METRICS and turns.partners(base.rows, head.rows):
        why = f"some have fewer than {turns.FEWEST} measured turns, so whole launches are compared; give more steps"
    return [Comparison(name, verdict, metric, before, after, pairs, in_turns, change, why)]


def unlike(base: Sequence[Row], head: Sequence[Row], machine: Sequence[str] = MACHINE) -> str:
    """Why launches that ended well are not comparable: their machines, versions or commits; "": they are."""
    found = [part for part in [differing(base, head, machine)] if part]
    found += [f"{name} is not known" for name in likeness.unidentified([*base, *head])]
    for side, rows in (("BASE", base), ("HEAD", head)):
        if len(commits := {row["commit"] for row in rows}) > 1:
            found.append(f"{side} has launches of commits {listed(commits)}")
    return "; ".join(found)


def differing(base: Sequence[Row], head: Sequence[Row], names: Sequence[str]) -> str:
    """In which of these columns the rows have unlike values; "": in none."""
    return "; ".join(likeness.against(base, head, name) for name in likeness.unlike([*base, *head], names))


def half_known(base: Sequence[Row], head: Sequence[Row], machine: Sequence[str]) -> str:
    """Which machine columns one side does not know, as that of an older version; "": none. They are taken for equal."""
    names = likeness.half_known(base, head, machine)
    sides = [(name, "HEAD" if likeness.values(base, name) else "BASE") for name in names]
    return ", ".join(f"{name} is not known in {side}" for name, side in sides)
