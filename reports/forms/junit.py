"""A test case for each trial and metric, as CI systems show them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

from reports.verdicts.comparison import HEADS, Comparison, cells
from reports.verdicts.report import ComparisonReport

HELP = "write a test case for each trial and metric, as JUnit XML"
# Characters that XML 1.0 cannot hold.
FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(report: ComparisonReport) -> str:
    """regressed is a failure, not comparable an error; inconclusive is skipped, or if strict a failure."""
    suite = ElementTree.Element("testsuite", name=clean(report.title), tests=str(len(report.comparisons)))
    kinds = [kind(each, report.strict) for each in report.comparisons]
    for attribute, of in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(attribute, str(kinds.count(of)))
    for each, of in zip(report.comparisons, kinds, strict=True):
        case = ElementTree.SubElement(
            suite, "testcase", classname=clean(each.trial), name=clean(each.metric or "trial")
        )
        if of:
            ElementTree.SubElement(case, of, message=clean(f"{each.verdict}: {each.why}" if each.why else each.verdict))
        ElementTree.SubElement(case, "system-out").text = clean(figures(each, report))
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def kind(each: Comparison, strict: bool) -> str:
    """The element that says how a case ended; "": it passed."""
    inconclusive = "failure" if strict else "skipped"
    bad = {"regressed": "failure", "changed": "failure", "not comparable": "error", "inconclusive": inconclusive}
    return bad.get(each.verdict, "")


def figures(each: Comparison, report: ComparisonReport) -> str:
    """The comparison's figures in a line."""
    shown = cells(each, report.margin_of(each), report.level_of(each))[2:-1]
    parts = [f"{head}: {cell}" for head, cell in zip(HEADS[2:-1], shown, strict=True) if cell]
    return "; ".join([*parts, *(f"left out: {out}" for out in each.left_out)]) or each.verdict


def clean(text: str) -> str:
    """The text with a ? for each character that XML cannot hold."""
    return FORBIDDEN.sub("?", text)
