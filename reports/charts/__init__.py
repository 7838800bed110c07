"""What does a run look like? Each file here is a chart, found by its name.

`draw(run)` returns the chart, a list of them, or None if the run has no figures for it; ORDER orders the charts. On a
page a chart is an SVG in the page's own colour of text (currentColor), so that one drawing is readable on light and on
dark.
"""

from __future__ import annotations

import io
import itertools
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd

from bench import discovery
from bench.record.to_target import DIVERGED
from reports.tables.summary import Row, in_words, titles

# Okabe and Ito's colours, told apart by colour-blind readers too, without the yellow that is too light for paper.
COLOURS = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8c8c8c", "#7a5195"]
BLUE, ORANGE, GREEN, RED, GREY = COLOURS[0], COLOURS[1], COLOURS[2], COLOURS[3], COLOURS[6]
WIDTH, NARROW, ROW_HEIGHT = 560, 330, 24  # NARROW: on a phone, so that letters keep their size
INK = "#1a1a1a"
SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left"]
PUBLISHED = "published"
# Room for a browser's letters, which may be wider than those that the layout was computed with.
PADDING = {"left": 24, "right": 24, "top": 5, "bottom": 5}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
SVG = "http://www.w3.org/2000/svg"
SAFE_TAGS = {f"{{{SVG}}}{tag}" for tag in ("svg", "g", "path", "text", "tspan", "rect", "line", "clipPath", "defs")}


@dataclass(frozen=True)
class Run:
    """The data of the charts: the summarised rows of one table that ended well, and the epochs and steps of those.

    `named` gives a row's short name (see `titles`). `diverged`: the rows of launches that diverged, which count where a
    target was to be reached.
    """

    rows: Sequence[Row]
    epochs: pd.DataFrame
    steps: pd.DataFrame
    named: Callable[[Row], str]
    diverged: Sequence[Row] = ()

    def arms(self) -> list[str]:
        """Each arm once, so that it has one colour in all charts."""
        return list(dict.fromkeys(str(row["arm"]) for row in self.rows))

    def launches(self) -> dict[str, Row]:
        """Launch -> its summarised row."""
        return {launch["launch_id"]: row for row in self.rows for launch in row["each"]}


@dataclass(frozen=True)
class Chart:
    """A drawing. `kind` names its file, `title` and `text` explain it, `figures` has the same figures as text."""

    kind: str
    title: str
    text: str
    drawing: Any
    figures: Sequence[str] = ()

    def svg(self, width: int = WIDTH) -> str:
        """The SVG, which goes into a page as it is. Raises ValueError if it has scripts, links or styles."""
        text = io.StringIO()
        configured(self.drawing.properties(width=width), "currentColor", width).save(text, format="svg")
        root = ElementTree.fromstring(text.getvalue())
        for element in root.iter():
            unsafe = [name for name in element.attrib if name.startswith("on") or name.endswith("href")]
            if element.tag not in SAFE_TAGS or unsafe:
                raise ValueError(f"the chart {self.kind} has an element {element.tag} {unsafe}")
        ElementTree.register_namespace("", SVG)
        return ElementTree.tostring(root, encoding="unicode")

    def files(self) -> dict[str, bytes]:
        """File ending -> content, on a white background."""
        drawing = configured(self.drawing, INK).properties(background="white")
        png, svg = io.BytesIO(), io.StringIO()
        drawing.save(png, format="png", scale_factor=2)
        drawing.save(svg, format="svg")
        return {"png": png.getvalue(), "svg": svg.getvalue().encode()}


def draw(rows: Sequence[Row], epochs: pd.DataFrame, steps: pd.DataFrame) -> list[Chart]:
    """All charts of the summarised rows of one table, as far as the rows have the figures."""
    good = [row for row in rows if row["status"] == "ok"]
    run = Run(good, epochs, steps, titles(good), [row for row in rows if row["status"] == DIVERGED])
    found = (module.draw(run) for module in sorted(discovery.load_all(__name__), key=lambda module: module.ORDER))
    charts = [each if isinstance(each, list) else [each] for each in found]
    return [chart for chart in itertools.chain.from_iterable(charts) if chart is not None]


def configured(drawing: Any, ink: str, width: int = WIDTH) -> Any:
    """The drawing with the page's colours and font."""
    words = {"labelColor": ink, "titleColor": ink, "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": 500}
    lines = {"gridColor": ink, "gridOpacity": 0.12, "domainColor": ink, "domainOpacity": 0.4, "tickColor": ink}
    symbols = {"symbolBaseFillColor": ink, "symbolBaseStrokeColor": ink, "symbolOpacity": 1}
    return (
        drawing.configure(background="transparent", font=FONT)
        .configure_view(stroke=None)
        .configure_axis(**words, **lines, tickOpacity=0.4, labelLimit=width // 2, labelOverlap=True, labelSeparation=8)
        .configure_axisY(titlePadding=14)
        .configure_legend(**words, labelLimit=width // 2, orient="top", columns=2, columnPadding=18, **symbols)
        .configure_rule(color=ink)
        .configure_text(color=ink)
    )


def kinds(rows: Sequence[Row]) -> Any:
    """A shape of marks for each precision and number of processes; published curves are dashed instead."""
    found = sorted({kind(row) for row in rows})
    shapes = alt.Scale(
        domain=[*found, PUBLISHED], range=[SHAPES[n % len(SHAPES)] for n in range(len(found))] + ["circle"]
    )
    # Below the chart: with wider letters than computed it would run into the legend above.
    legend = alt.Legend(values=found, orient="bottom") if len(found) > 1 else None
    return alt.Shape("kind:N", title=None, scale=shapes, legend=legend)


def kind(row: Row) -> str:
    """Precision and processes."""
    return ", ".join(in_words(name, row[name]) for name in ("precision", "processes"))


def colour(field: str, values: Sequence[str]) -> Any:
    """A colour for each of these, in their order; they repeat after eight."""
    domain = list(dict.fromkeys(values))
    colours = [COLOURS[index % len(COLOURS)] for index in range(len(domain))]
    return alt.Color(f"{field}:N", title=None, scale=alt.Scale(domain=domain, range=colours))


def sized(drawing: Any, height: int) -> Any:
    """The drawing in the width of all charts, and at least as high as its axes need."""
    whole = alt.AutoSizeParams(type="fit-x", contains="padding")
    return drawing.properties(width=WIDTH, height=max(height, 60), autosize=whole, padding=PADDING)
