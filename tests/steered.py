"""GPUs that are steered while they are sampled: `python -m tests.steered SCENARIO` prints what the probe made of them.

A process of its own, since only one that starts with LD_LIBRARY_PATH finds the stand-in for NVIDIA's library. Without a
scenario it imports torch once, and forks a process for each line of JSON that it reads: a scenario, the variables that
it has, and a folder for what it prints. It answers each with the exit code.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch

from bench.instruments.clock import Clock
from bench.instruments.turns import Turns
from bench.machine import cuda, gpus
from bench.probes import device
from bench.training.meter import Meter
from bench.training.windows import Window

BY_CUDA = 5 * 2**30  # what CUDA itself says is in use
SLEPT_S = 0.6
Row = dict[str, Any]


def steer(**values: float) -> None:
    """What the stand-in answers from now on; `gpu1_power_mw` is one GPU's own power_mw."""
    lines = [f"{name.replace('gpu1_', '1.')} {value:.0f}" for name, value in values.items()]
    path = Path(os.environ["STANDIN_NVML_STATE"])
    path.with_suffix(".new").write_text("\n".join(lines))
    path.with_suffix(".new").replace(path)


def probe(number: int = 0) -> device.Probe:
    """A probe as the rank of this number on its machine has it."""
    cuda.uuid = lambda device: f"GPU-{device.index or 'known'}"
    cuda.in_use = lambda device: BY_CUDA
    os.environ["LOCAL_RANK"] = str(number)
    return device.Probe(Path(tempfile.mkdtemp()))


def alone(chosen: device.Probe) -> Meter:
    """A Meter with this probe alone, which has begun."""
    return on_the_host(Meter([chosen], lambda numbers: [numbers], 0, torch.device("cuda", 0)))


def on_the_host(meter: Meter) -> Meter:
    """The meter with the host's clock: there is no GPU whose events it could record."""
    meter.clock = Clock()
    return meter


def samplers() -> int:
    """Sampling threads of this process."""
    return sum(thread.name == "sampler" for thread in threading.enumerate())


def sampled(chosen: device.Probe, **values: float) -> None:
    """Steer so, and see that it is sampled."""
    steer(**values)
    assert chosen.sampler is not None
    chosen.sampler.sample()


def whole() -> Any:
    """Two epochs of 16 images and 15 J and 5 J, between which an evaluation takes 100 J."""
    steer(energy_mj=1000)
    chosen = probe()
    meter = alone(chosen)
    steer(energy_mj=10_000)
    meter.epoch_begin()
    sampled(chosen, energy_mj=12_000, celsius=71, used_mib=5000, reasons=0x5)
    steer(energy_mj=25_000)
    meter.window_end(Window(0, 16, []), {})
    first = meter.epoch_end({})[1]
    sampled(chosen, energy_mj=125_000, reasons=0x40)
    meter.epoch_begin()
    steer(energy_mj=130_000, mhz=1500)
    meter.window_end(Window(0, 16, []), {})
    second = meter.epoch_end({})[1]
    running = samplers()
    meter.close()
    return {"epochs": [first, second], "trial": meter.trial(), "threads": [running, samplers()]}


def two() -> Any:
    """GPUs of 30 J and 12 J, 100 W and 50 W, the second hotter, fuller, and held back."""
    steer(energy_mj=0, gpu1_energy_mj=0)
    other = probe(1)
    other.begin(torch.device("cuda", 1))

    def gather(mine: list[float]) -> list[list[float]]:
        totals = [-math.inf if value is None else value for value in other.totals().values()]
        totals.append(0.0)  # the meter's own
        return [mine, totals if len(mine) == len(totals) else mine]

    meter = on_the_host(Meter([probe(0)], gather, 0, torch.device("cuda", 0)))
    other.epoch_begin()
    meter.epoch_begin()
    steer(energy_mj=30_000, gpu1_energy_mj=12_000, gpu1_celsius=80, gpu1_used_mib=4096, gpu1_busy=25, gpu1_reasons=0x40)
    other.window_end(21, True)  # images of both
    meter.window_end(Window(0, 21, []), {})
    other.epoch_end()
    meter.epoch_end({})
    other.end()
    meter.close()
    return meter.trial()


def by_power() -> Any:
    """100 W, and no counter of energy."""
    steer(energy_mj=-3, power_mw=100_000)
    meter = alone(probe())
    meter.epoch_begin()
    time.sleep(SLEPT_S)
    meter.window_end(Window(0, 10, []), {})
    row = meter.epoch_end({})[1]
    meter.close()
    return row


def slowed() -> Any:
    """The hardware slows the device down, at its power limit, before and throughout."""
    chosen = probe()
    meter = alone(chosen)
    sampled(chosen, reasons=0xC)
    meter.epoch_begin()
    time.sleep(SLEPT_S)
    row = meter.epoch_end({})[1]
    meter.close()
    return row


def lost() -> Any:
    """A device that falls off the bus in the second epoch, and is back in the third: what it did then is unknown."""
    chosen = probe()
    meter, rows = alone(chosen), []
    for gone in (0, 1, 0):
        meter.epoch_begin()
        sampled(chosen, lost=gone, energy_mj=20_000)
        time.sleep(SLEPT_S)
        rows.append(meter.epoch_end({})[1])
    alive = chosen.sampler is not None and chosen.sampler.thread.is_alive()
    meter.close()
    return {"epochs": rows, "alive": alive}


def processes() -> Any:
    """Beside two strangers, alone, in another namespace twice, beside a sibling: stranger, rank, partner in turns."""
    me, sibling, found = os.getpid(), int(sys.argv[2]), []
    cases = [([me, 1, 2], 1), ([me], 1), ([1, 2], 1), ([], 1), ([me, sibling], 1), ([me, sibling], 2)]
    for pids, ranks in cases:
        os.environ["LOCAL_WORLD_SIZE"] = str(ranks)
        Path(os.environ["STANDIN_NVML_STATE"]).write_text("".join(f"pid {pid}\n" for pid in pids))
        meter = alone(probe())
        found.append(meter.trial()["other_processes"])
        meter.close()
    os.environ["LOCAL_WORLD_SIZE"] = "1"
    meter = alone(probe())  # as in a trial, the partner is there before it is known
    turns = Turns.__new__(Turns)
    turns.windows, turns.pids = 1, frozenset({sibling})
    meter.take_turns(turns)
    found.append(meter.trial()["other_processes"])
    meter.close()
    return found


def nothing() -> Any:
    """Whatever STANDIN_NVML makes of the library: an epoch, the threads, and the reasons given."""
    meter = alone(probe())
    meter.epoch_begin()
    meter.window_end(Window(0, 10, []), {})
    row, running = meter.epoch_end({})[1], samplers()
    meter.close()
    return {"epoch": row, "threads": running, "unreadable": why()}


def why() -> dict[str, str]:
    """What cannot be read, where trials run on CUDA."""

    def one_is_there(root: Path = Path("/")) -> str | None:
        return None

    gpus.why_none = one_is_there
    return device.unreadable(Path(tempfile.mkdtemp()))


def serve() -> None:
    """Run each scenario that is asked for in a process of its own."""
    for line in sys.stdin:
        asked = json.loads(line)
        if (pid := os.fork()) == 0:
            for number, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(f"{asked['folder']}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            os.environ.update(asked["variables"])
            print(json.dumps(globals()[asked["scenario"]]()), flush=True)
            os._exit(0)  # an error has its traceback, and another exit code
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps(globals()[sys.argv[1]]()))
    else:
        serve()
