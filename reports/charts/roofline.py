"""The roofline: FLOP/s of a device against FLOPs for each byte, under what the machine was measured at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from bench.column import digits
from reports.charts import GREY, Chart, Run, colour, kind, kinds, sized
from reports.tables.roofline import Roofline
from reports.tables.summary import Row

ORDER = 5
TERA = 10**12
MARGIN = 2.5  # the roofs reach so many times as far as the outermost point or ridge
X, Y = "arithmetic intensity, FLOP/byte", "TFLOP/s of a device"
AXIS = alt.Axis(format="~g")


def draw(run: Run) -> Chart | None:
    """Of trials whose bytes were counted and whose machine was measured: a point each, and the roofs above them."""
    found = [row for row in run.rows if row["roofline"]]
    if not found:
        return None
    rooflines = [row["roofline"] for row in found]
    points = alt.Chart(pd.DataFrame([point(run, row) for row in found]))
    drawn = points.mark_point(size=90, filled=True, opacity=0.9).encode(
        axis(alt.X, "intensity", X),
        axis(alt.Y, "rate", Y),
        color=colour("arm", run.arms()),
        shape=kinds(found),
        description="tip:N",
    )
    caption = (
        "Points: the model's own FLOP/s, over its FLOPs for each byte that its operations read and write. Roofs: what "
        "copies on the device allow (the slope) and the most that a matrix product or a convolution reached at that "
        "number format (solid; dashed: the lower of the two). Left of a roof's ridge memory is the lower limit, right "
        "of it arithmetic. Bytes are counted as if no cache kept any and nothing were fused: a point above "
        "the slope had its caches serve it."
    )
    drawing = sized(alt.layer(*roofs(rooflines), drawn), 340)
    return Chart("roofline", "Roofline", caption, drawing, [told(run, row) for row in found])


def axis(channel: Any, field: str, title: str) -> Any:
    """A logarithmic axis that begins near the smallest number."""
    return channel(f"{field}:Q", title=title, scale=alt.Scale(type="log", nice=False, padding=20), axis=AXIS)


def point(run: Run, row: Row) -> dict[str, Any]:
    """A trial's figures in the chart."""
    roofline: Roofline = row["roofline"]
    place = {"intensity": roofline.intensity, "rate": roofline.flops_per_s / TERA}
    return {"arm": str(row["arm"]), "kind": kind(row), **place, "tip": told(run, row)}


def told(run: Run, row: Row) -> str:
    """Where a trial lies, in words."""
    roofline: Roofline = row["roofline"]
    side = "below" if roofline.intensity < roofline.ridge() else "above"
    return (
        f"{run.named(row)}: {digits(roofline.intensity)} FLOP/byte, {side} the ridge at {digits(roofline.ridge())}; "
        f"{digits(roofline.flops_per_s / TERA)} TFLOP/s of a device, {roofline.share():.1%} of the "
        f"{digits(roofline.roof_flops_per_s() / TERA)} that {roofline.side()} allows"
    )


def roofs(rooflines: Sequence[Roofline]) -> list[Any]:
    """The layers of the roofs: one for each number format and number of devices, with its name at the right end."""
    ends = [each.intensity for each in rooflines]
    ends += [rate / each.copy_bytes_per_s for each in rooflines for rate in each.ceilings.values()]
    left, right = min(ends) / MARGIN, max(ends) * MARGIN
    lines, names = [], []
    several = len({each.devices for each in rooflines}) > 1
    different = {(each.number_format, each.devices): each for each in rooflines}
    for name, roofline in sorted(different.items(), key=lambda item: max(item[1].ceilings.values())):
        highest = max(roofline.ceilings.values())
        for work, rate in roofline.ceilings.items():
            corner = {"roof": f"{name} {work}", "lower": rate < highest}
            ridge, slope = rate / roofline.copy_bytes_per_s, roofline.copy_bytes_per_s / TERA
            ys = {left: left * slope, ridge: rate / TERA, right: rate / TERA}
            lines += [{**corner, "x": x, "y": y} for x, y in ys.items()]
        names.append({"x": right, "y": highest / TERA, "name": named(roofline, several)})
    x, y = axis(alt.X, "x", X), axis(alt.Y, "y", Y)
    dash = alt.StrokeDash("lower:N", legend=None, scale=alt.Scale(domain=[False, True], range=[[1, 0], [4, 4]]))
    drawn = alt.Chart(pd.DataFrame(lines)).mark_line(color=GREY, strokeWidth=1.5)
    drawn = drawn.encode(x, y, detail="roof:N", strokeDash=dash)
    # The highest roof's name is above its line, the others' are below, since two formats' lines may lie close together.
    text = alt.Chart(pd.DataFrame(names))
    above = text.transform_filter(f"datum.name == '{names[-1]['name']}'").mark_text(align="right", dy=-8)
    below = text.transform_filter(f"datum.name != '{names[-1]['name']}'").mark_text(align="right", dy=12)
    return [drawn, *(each.encode(x, y, text="name:N") for each in (above, below))]


def named(roofline: Roofline, several: bool) -> str:
    """The roof's number format; with several numbers of devices, of how many."""
    devices = f", {roofline.devices} device{'' if roofline.devices == 1 else 's'}" if several else ""
    return f"{roofline.number_format}{devices}"
