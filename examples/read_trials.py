"""Reads a run folder's trials.csv with pandas alone, and draws memory against throughput with altair.

    python examples/read_trials.py runs/mine memory.svg

A row is a launch of a trial. Launches with one trial_key have equal settings; their median is drawn. An empty cell was
not measured: pandas reads it as NaN, which is not 0. The chart is a .svg, .png or .html file.
"""

from __future__ import annotations

import sys
from pathlib import Path

import altair as alt
import pandas as pd

TRIAL = ["device_name", "experiment", "arm", "precision", "processes", "trial_key"]
GIB = 2**30


def trials(folder: Path) -> pd.DataFrame:
    """A row for each trial that ended well: the medians of its launches, and how many there are."""
    # Keys are text: of one that is all digits, or has an e between them, pandas would make a number.
    launches = pd.read_csv(folder / "trials.csv", dtype={"launch_id": str, "trial_key": str, "commit": str})
    print(launches["status"].value_counts().to_string(header=False))
    good = launches[launches["status"] == "ok"]
    found = good.groupby(TRIAL, dropna=False).agg(
        launches=("launch_id", "count"),
        images_per_s=("images_per_s", "median"),
        reserved=("peak_reserved_bytes", "median"),
        resident=("peak_rss_bytes", "median"),
    )
    return found.reset_index()


def chart(found: pd.DataFrame) -> alt.Chart:
    """A point for each trial: fast is right, lean is down."""
    # A GPU's memory is what its allocator reserved; a trial on a CPU has no such cell, but the process's own peak.
    on_gpu = bool(found["reserved"].notna().all())
    title = "GPU memory reserved, GiB" if on_gpu else "host memory per process, GiB"
    table = found.assign(gib=found["reserved" if on_gpu else "resident"] / GIB)
    return (
        alt.Chart(table, width=480, height=320)
        .mark_point(filled=True, size=90)
        .encode(
            x=alt.X("images_per_s", title="images/s"),
            y=alt.Y("gib", title=title),
            color="arm",
            shape=alt.Shape("precision"),
            tooltip=[*TRIAL, "launches", "images_per_s", "gib"],
        )
    )


if __name__ == "__main__":
    run, picture = sys.argv[1:]
    found = trials(Path(run))
    print(found.to_string(index=False))
    chart(found).save(picture)
