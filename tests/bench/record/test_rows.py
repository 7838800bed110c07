"""A trial's first row: why a published figure is no measure of it."""

import dataclasses

from bench.experiment import Experiment, Published
from bench.record.rows import first_row
from bench.trial import Trial

EXPERIMENT = Experiment(
    "?",
    Trial(),
    {"like": {}, "unlike": {}, "silent": {}},
    {"like": Published(0.9, where="W"), "unlike": Published(0.9, where="W", unlike="frogs are left out")},
)


def differs(arm: str, **changes: int) -> str | None:
    trial = dataclasses.replace(EXPERIMENT.trial("e", arm), **changes)  # type: ignore[arg-type]
    return first_row(trial, EXPERIMENT, "x")["published_differs"]


def test_what_is_unlike_by_nature_stands_behind_the_settings_that_differ() -> None:
    assert differs("like") == ""
    assert differs("like", epochs=7) == "epochs=7"
    assert differs("unlike") == "frogs are left out"
    assert differs("unlike", epochs=7) == "epochs=7, frogs are left out"
    assert differs("silent") is None
