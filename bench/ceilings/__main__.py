"""What every process of `python -m launch ceilings` runs: form the group, measure, and on rank 0 write ceilings.csv."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bench.ceilings.comparison import machine_of
from bench.ceilings.measurement import Sizes, measure, sizes_for
from bench.errors import UsageError
from bench.failure import signals
from bench.failure.ending import Ending
from bench.instruments.collectives import in_group
from bench.machine import environment, malloc, tegra
from bench.record.rows import time_stamp
from bench.record.run_folder import RunFolder
from bench.training import setup
from bench.training.group import Group
from bench.trial import Trial
from bench.variables import LAUNCH_ID, new_id


def main(words: Sequence[str] | None = None) -> None:
    """Measure and write the rows, or record why not, as a trial's process does."""
    parser = argparse.ArgumentParser(prog="python -m bench.ceilings")
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args(words).out
    signals.raise_interrupted()
    trial = Trial(processes=int(os.environ.get("WORLD_SIZE", "1")))
    launch_id = os.environ.get(LAUNCH_ID) or new_id()
    ending = Ending(trial, launch_id, RunFolder(out).logs(), int(os.environ.get("RANK", "0")), lambda cause: None)
    signals.end_if_stuck(ending.end)
    try:
        run(trial, RunFolder(out), launch_id)
    except BaseException as error:
        signals.ignore_all()
        ending.end(error)
    if in_group():
        torch.distributed.destroy_process_group()


def run(trial: Trial, folder: RunFolder, launch_id: str, sizes: Sizes | None = None) -> None:
    """Measure in this process's group. Raises UsageError if the folder holds rows of another machine alone."""
    began = time_stamp()
    folder.prepare()
    group = Group(trial)
    accepted = malloc.keep_freed_memory() if group.device.type == "cpu" else False
    ranks = setup.places(trial, group)
    described, entry = setup.describe(trial, group, ranks, accepted)
    machine = {**environment.machine(), **described, "power_mode": tegra.power_mode()}
    check_folder(folder, machine | {"device_name": ranks[0]["device_name"]})  # on all ranks alike
    rows = measure(group.rank, trial.processes, group.device, group.gather, sizes or sizes_for(group.device))
    if group.rank == 0:
        key = environment.key(entry)
        machine |= {"environment": key, "log": f"logs/{launch_id}.log"}
        head = {"launch_id": launch_id, "started_at": began}
        folder.add_environment(key, entry)
        folder.append("ceilings", [{**head, **row, **machine, **device_of(row, ranks)} for row in rows])


def device_of(row: Mapping[str, Any], ranks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a row of one rank says of its device, which need not be rank 0's; of a row of all ranks, nothing."""
    rank = row.get("rank")
    return {} if rank is None else {name: ranks[rank][name] for name in ("device_name", "device_uuid")}


def check_folder(folder: RunFolder, machine: dict[str, Any]) -> None:
    """Raises UsageError if the folder has rows, and none of them was made on this machine."""
    rows = [row for file in ("trials", "ceilings") for row in folder.rows(file) if row["device_name"]]
    here = machine_of(machine)
    if rows and all(machine_of(row) != here for row in rows):
        raise UsageError(
            f"--out {folder.path} has rows of {' '.join(machine_of(rows[-1]))}, and this is {' '.join(here)}; give "
            f"another folder"
        )


if __name__ == "__main__":
    main()
