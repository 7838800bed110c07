"""Charts of several machines: throughput of each trial, memory against throughput, and price against time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from reports.across.machines import Line, Trial
from reports.across.measures import price_of_epoch, times_first
from reports.charts import COLOURS, GREY, NARROW, PUBLISHED, SHAPES, Chart, sized
from reports.charts.memory import GIB, frontier
from reports.tables.summary import GPU_MEMORY, memory_column

OURS = [colour for colour in COLOURS if colour != GREY]
BAR, GAP = 16, 10  # pixels: of a machine's bar, and between trials


def draw(trials: Sequence[Trial]) -> list[Chart]:
    """The charts of one experiment's trials, as far as their lines have the figures."""
    machines = list(dict.fromkeys(line.machine for each in trials for line in each.lines if line.published is None))
    found = (throughput(trials, machines), memory(trials, machines), price(trials, machines))
    return [chart for chart in found if chart is not None]


def throughput(trials: Sequence[Trial], machines: Sequence[str]) -> Chart | None:
    """A bar for each machine of each trial."""
    found = [
        {**named(trial, line), "images": speed, "low": low, "high": high, "tip": tip(trial, line)}
        for trial in trials
        for line in trial.lines
        if (speed := line.row["images_per_s"])
        for low, high in [line.row["spread"].get("images_per_s", (speed, speed))]
    ]
    if not found:
        return None
    order = [*machines, *dict.fromkeys(each["line"] for each in found if each["machine"] == PUBLISHED)]
    base = alt.Chart(pd.DataFrame(found)).encode(
        y=alt.Y("trial:N", title=None, sort=list(dict.fromkeys(each["trial"] for each in found))),
        yOffset=alt.YOffset("line:N", sort=order, scale=alt.Scale(paddingInner=0.15)),
        description="tip:N",
    )
    bars = base.mark_bar().encode(x=alt.X("images:Q", title="images/s"), color=colours(found, machines))
    spread = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title="images/s"), x2="high:Q")
    height = sum(BAR * len({each["line"] for each in found}) + GAP for _ in {each["trial"] for each in found})
    caption = "A bar for each machine. Line: the lowest and the highest of several launches."
    caption += " Grey: published, another code." if len(order) > len(machines) else ""
    drawing = sized(alt.layer(bars, spread), height)
    return Chart("across_throughput", "Throughput by machine", caption, drawing, [each["tip"] for each in found])


def memory(trials: Sequence[Trial], machines: Sequence[str]) -> Chart | None:
    """Of two lines or more: memory of tensors on GPUs; of processes, if there are CPUs alone."""
    lines = [(trial, line) for trial in trials for line in trial.lines if line.row["images_per_s"]]
    name = memory_column([line.row for _, line in lines])
    found = [
        {
            **named(trial, line),
            "memory": line.row[name] / GIB,
            "images": line.row["images_per_s"],
            "tip": f"{tip(trial, line)}, {line.row[name] / GIB:.4g} GiB",
        }
        for trial, line in lines
        if line.row[name]
    ]
    if len(found) < 2:
        return None
    title = "most memory of a GPU's tensors, GiB" if name == GPU_MEMORY else "most memory of a process, GiB"
    caption = "A colour for each machine, a shape for each trial: high is fast, left is small."
    without = list(dict.fromkeys(line.machine for _, line in lines if line.published is None and not line.row[name]))
    caption += f" Not drawn, since it has no such memory: {', '.join(without)}." if without else ""
    drawing = points(
        found, machines, alt.X("memory:Q", title=title, **near()), alt.Y("images:Q", title="images/s", **near())
    )
    return Chart("across_memory", "Memory against throughput", caption, sized(drawing, 320), figures(found))


def price(trials: Sequence[Trial], machines: Sequence[str]) -> Chart | None:
    """Of two priced lines or more, with those that no other is as cheap as in as little time."""
    found = [
        {
            **named(trial, line),
            "price": money,
            "seconds": line.row["epoch_time_s"],
            "tip": f"{short(trial)} on {line.machine}: {money:.4g} in {line.row['epoch_time_s']:.4g} s",
        }
        for trial in trials
        for line in trial.lines
        if (money := price_of_epoch(line, line)) is not None and line.row["epoch_time_s"]
    ]
    if len(found) < 2:
        return None
    best = frontier([(each["price"], -each["seconds"]) for each in found])
    x = alt.X("seconds:Q", title="time of an epoch, s", **near())
    y = alt.Y("price:Q", title="price of an epoch", **near())
    line = alt.Chart(pd.DataFrame([found[number] for number in sorted(best)]))
    drawn = line.mark_line(interpolate="step-after", strokeDash=[2, 3], color=GREY).encode(x, y, order="seconds:Q")
    caption = "Dotted: the frontier, below which no epoch is cheaper in as little time "
    caption += f"({'; '.join(found[number]['tip'] for number in sorted(best))})."
    drawing = sized(alt.layer(drawn, points(found, machines, x, y)), 320)
    return Chart("across_price", "Price against time", caption, drawing, figures(found))


def near() -> dict[str, Any]:
    """An axis that begins near the smallest number, not at 0."""
    return {"scale": alt.Scale(zero=False, padding=20), "axis": alt.Axis(format=".4~g")}


def named(trial: Trial, line: Line) -> dict[str, str]:
    """Which trial and machine a mark is of; the published ones are one colour."""
    machine = line.machine if line.published is None else PUBLISHED
    return {"trial": short(trial), "line": line.machine, "machine": machine}


def short(trial: Trial) -> str:
    """The trial's title without its experiment, which is that of the whole chart."""
    return trial.title.removeprefix(f"{trial.row()['experiment']} ")


def tip(trial: Trial, line: Line) -> str:
    """The throughput in words, also as a multiple of the first machine's."""
    ratio = times_first(line, trial.lines[0])
    multiple = f", {ratio[0]:.3f} x {trial.lines[0].machine}" if ratio and line is not trial.lines[0] else ""
    return f"{short(trial)} on {line.machine}: {line.row['images_per_s']:.4g} images/s{multiple}"


def figures(found: Sequence[dict[str, Any]]) -> list[str]:
    return [str(each["tip"]) for each in found]


def colours(found: Sequence[dict[str, Any]], machines: Sequence[str]) -> Any:
    """A colour for each machine; grey for what is published."""
    shades = {name: OURS[number % len(OURS)] for number, name in enumerate(machines)}
    if any(each["machine"] == PUBLISHED for each in found):
        shades[PUBLISHED] = GREY
    scale = alt.Scale(domain=list(shades), range=list(shades.values()))
    return alt.Color("machine:N", title=None, scale=scale, legend=alt.Legend(columns=1, labelLimit=NARROW - 60))


def points(found: Sequence[dict[str, Any]], machines: Sequence[str], x: Any, y: Any) -> Any:
    """A mark for each line: its colour is the machine's, its shape the trial's."""
    titles = list(dict.fromkeys(each["trial"] for each in found))
    shapes = alt.Scale(domain=titles, range=[SHAPES[number % len(SHAPES)] for number in range(len(titles))])
    legend = alt.Legend(orient="bottom", columns=1) if len(titles) > 1 else None
    marks = alt.Chart(pd.DataFrame(found)).mark_point(size=90, filled=True, opacity=0.9)
    shape = alt.Shape("trial:N", title=None, scale=shapes, legend=legend)
    return marks.encode(x, y, color=colours(found, machines), shape=shape, description="tip:N")
