"""All the ways in which a trial starts and gets its data end in the same training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from launching import Command, rows, until

from . import trials
from .device import ON_STANDIN

pytestmark = pytest.mark.gpu
# Of one training on a GPU, whose sums are not always added up in one order.
ALIKE = 0.02
EPOCHS = 16 if ON_STANDIN else 40  # long enough to be interrupted after two


def test_warm_is_cold(figures: dict[str, Any], warm: trials.Swept, cold: trials.Swept) -> None:
    """A trial forked from a warm process is the one that `accelerate launch` starts: losses, peaks of memory"""
    ours, theirs = (swept.row(status="ok") for swept in (warm, cold))
    assert (ours["started_by"], theirs["started_by"]) == ("warm", "cold")
    losses = float(ours["train_loss"]), float(theirs["train_loss"])
    figures |= {
        "loss": "{:.5f} and {:.5f}".format(*losses),
        "startup s": f"{ours['startup_s']} and {theirs['startup_s']}",
    }
    assert losses[0] == pytest.approx(losses[1], rel=0 if ON_STANDIN else ALIKE)
    for name in ("peak_allocated_bytes", "peak_reserved_bytes"):
        assert ours[name] == theirs[name], name
    assert {name for name in ours if ours[name]} == {name for name in theirs if theirs[name]}


def test_the_loader_trains_on_the_same_images(
    figures: dict[str, Any], warm: trials.Swept, loader: trials.Swept
) -> None:
    """Loader workers give the same training as the data set on the device"""
    ours, theirs = (swept.row(status="ok") for swept in (loader, warm))
    assert (ours["input_pipeline"], theirs["input_pipeline"]) == ("loader", "resident")
    first = [swept.rows("steps")[0] for swept in (loader, warm)]
    begun, ended = ([float(each["train_loss"]) for each in pair] for pair in (first, (ours, theirs)))
    figures |= {"first loss": "{:.6f} and {:.6f}".format(*begun), "last": "{:.4f} and {:.4f}".format(*ended)}
    figures["data_wait_s"] = ours["data_wait_s"]
    assert begun[0] == pytest.approx(begun[1], rel=1e-4)
    assert ended[0] == pytest.approx(ended[1], rel=ALIKE)


def test_a_trial_resumes(figures: dict[str, Any], tmp_path: Path) -> None:
    """A trial that is interrupted goes on with `--resume` where it was, and ends with every epoch once"""
    out = tmp_path / "runs"
    words = [*trials.RUN, *trials.words("--epochs", str(EPOCHS))]
    with Command([*words, "--out", str(out)], tmp_path) as command:
        until(lambda: len(rows(out, "epochs")) >= 2, "two epochs")
        command.interrupt()
        assert command.wait() == 130
        assert command.left() == []
    resumed = trials.command([*words, "--resume"], out)
    first, second = resumed.rows()
    epochs = [int(row["epoch"]) for row in resumed.rows("epochs")]
    figures |= {"interrupted in epoch": first["images_seen"], "resumed at": second["resumed_at_epoch"]}
    assert (first["status"], second["status"]) == ("interrupted", "ok"), resumed.said
    assert int(second["resumed_at_epoch"]) >= 1  # the second may have had its row and no checkpoint yet
    assert sorted(set(epochs)) == list(range(EPOCHS))
    assert int(second["images_seen"]) == EPOCHS * int(second["train_images"])
