"""Markdown for the summary of a CI job: the verdict first, what needs attention in a table, all else folded."""

from __future__ import annotations

from collections.abc import Sequence

from reports.markdown import escaped, row
from reports.verdicts.comparison import HEADS, OPERATION_HEADS, Comparison, Reasons, cells
from reports.verdicts.report import ComparisonReport, notes

HELP = "write a summary as Markdown; the file is replaced, but $GITHUB_STEP_SUMMARY is added to"
MOST_BYTES = 900_000  # GitHub shows summaries of up to 1 MiB
FOLDED = ("improved", "equivalent")
OUTCOMES = {0: "Nothing got worse", 1: "Something got worse", 3: "Not comparable", 4: "Inconclusive"}


def render(report: ComparisonReport) -> str:
    """The Markdown, below GitHub's size limit: lines beyond it are counted instead."""
    outcome = "Counts changed" if "changed" in report.counts() else OUTCOMES[report.code]
    text = [f"## {outcome}: {report.summary()}", "", escaped(report.title), ""]
    text += [part for each in (*report.cautions, *report.conclusions) for part in (escaped(each), "")]
    left = MOST_BYTES - sum(len(line.encode()) + 1 for line in text) - 1000
    first = [each for each in report.comparisons if each.verdict not in FOLDED]
    lines, left = table(first, report, left)
    text += lines
    for number, why in enumerate(report.reasons):
        lines = reasons(why)
        left -= sum(len(line.encode()) + 1 for line in lines)
        if left < 0:
            text += [f"The reasons of {len(report.reasons) - number} trials are left out: they would be too long.", ""]
            break
        text += lines
    rest, left = table([each for each in report.comparisons if each.verdict in FOLDED], report, left)
    if rest:
        text += ["<details><summary>What did not get worse</summary>", "", *rest, "</details>", ""]
    text += [escaped(report.machine), ""]
    if report.margin is not None and report.level is not None:
        text += [
            f"Regressed, improved: by more than {report.margin:.3g}; equivalent: within it. The chance that any line "
            f"is wrong is at most {report.level:.3g}. Could show: a change that so many launches find 4 times in 5.",
            "",
        ]
    for note in notes(report):
        text += [note, ""]
    return "\n".join(text)


def reasons(why: Reasons) -> list[str]:
    """Why a trial's results may be what they are."""
    summary, *said = map(escaped, why.lines())
    lines = [f"Why, {escaped(why.trial)}: {summary}", "", *(f"- {each}" for each in said)]
    if why.operations:
        lines += ["", f"Time of an operation itself, {escaped(why.about_times)}:", "", row(OPERATION_HEADS)]
        lines += [row(["---", *["---:"] * (len(OPERATION_HEADS) - 1)])]
        lines += [row(list(map(escaped, each.cells()))) for each in why.operations]
    return [*lines, ""]


def table(found: Sequence[Comparison], report: ComparisonReport, room: int) -> tuple[list[str], int]:
    """(a table of at most `room` bytes, the bytes that are left)."""
    if not found:
        return [], room
    lines = [row(HEADS), row(["---"] * 2 + ["---:"] * 6 + ["---"])]
    for number, each in enumerate(found):
        line = row(list(map(escaped, cells(each, report.margin_of(each), report.level_of(each)))))
        room -= len(line.encode()) + 1
        if room < 0:
            return [
                *lines,
                "",
                f"{len(found) - number} more lines are left out: the summary would be too large.",
                "",
            ], 0
        lines.append(line)
    return [*lines, ""], room
