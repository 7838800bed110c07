"""Which rank was slow? The columns of ranks.csv, and the rule by which one rank is named. Imports no torch.

Under DDP the step of every rank takes equally long: in it, all wait for the slowest. A rank's own time of a step is
that time less its exposed communication: until it has computed all its gradients, and from when they are shared until
the optimizer has stepped. On a CPU the host waits there, on a GPU the device's stream; the clock is on that time line.
CPU time does not tell: a rank that is held up takes none, and on a GPU it is mostly waiting.

A slow link is in no rank's own time, because all ranks wait for it alike. It is in exposed_communication_s, of the rank
that waits least too, and that does not say whose link it is.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bench.column import Column

FEWEST_WINDOWS = 10  # of fewer, a 90th percentile is little more than the slowest one
LEAST_EXCESS = 0.01  # what two decimals show

RANKS = [
    Column("launch_id", "str", "", "", "Unique to one launch; joins the rows of the files."),
    Column("rank", "int", "", "", "Number of the process in its group, from 0."),
    Column("host", "str", "", "", "Name of the machine that it ran on."),
    Column("cpu_model", "str", "", "", "Model name of that machine's CPU."),
    Column("device_name", "str", "", "", "Accelerator that it used, or cpu."),
    Column("device_index", "int", "", "", "Number of that GPU in its machine, as nvidia-smi has it."),
    Column("device_uuid", "str", "", "", "Its UUID, which names it wherever it is."),
    Column("variables", "str", "", "", "Its environment variables that change speed, as in trials.csv."),
    Column("group_variables", "str", "", "", "Those that change the speed of communication, likewise."),
    Column("windows", "int", "", "", "Measured full steps, which the following three are of."),
    Column(
        "own_step_time_p50_s",
        "float",
        "s",
        "",
        "Median of the rank's own time of the measured full steps: of each, its step time less its "
        "exposed_communication_s, in which it waits for others.",
    ),
    Column("own_step_time_p90_s", "float", "s", "", "Its 90th percentile."),
    Column(
        "slowest_share",
        "float",
        "1",
        "",
        "Share of these steps in which the rank's own time was the longest; equal ranks have equal shares. Empty for "
        "one process.",
    ),
    Column(
        "data_wait_s", "float", "s", "", "The rank's mean wait for data per measured step; it is part of its own time."
    ),
    Column(
        "exposed_communication_s",
        "float",
        "s",
        "",
        "The rank's mean time per measured step in which it had all its own gradients and not yet the shared ones. A "
        "fast rank waits for a slow one in it; the least of all ranks is communication. Empty for one process.",
    ),
    Column("peak_allocated_bytes", "int", "bytes", "", "Peak of the tensors' bytes on its CUDA device."),
    Column("peak_reserved_bytes", "int", "bytes", "", "Peak that CUDA's caching allocator held for them."),
    Column("peak_rss_bytes", "int", "bytes", "", "Peak resident memory of its process."),
]
SLOWEST = [
    Column(
        "slowest_rank",
        "int",
        "",
        "",
        "The rank with the longest own_step_time_p50_s of ranks.csv, if it stands apart: that is above the "
        "own_step_time_p90_s of every other rank, of at least 10 windows, and slowest_rank_excess is at least 0.01. "
        "Empty if none does, and for one process.",
    ),
    Column(
        "slowest_rank_excess",
        "float",
        "1",
        "",
        "Longest own_step_time_p50_s of the ranks / the median of the other ranks' - 1, whether that rank stands apart "
        "or not. Empty for one process.",
    ),
    Column("slowest_rank_device", "str", "", "", "Machine and device of slowest_rank."),
]


def slowest(ranks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """SLOWEST of a trial with these rows of ranks.csv, rank 0 first; what is not there is empty."""
    medians = [rank["own_step_time_p50_s"] for rank in ranks if "own_step_time_p50_s" in rank]
    if len(ranks) < 2 or len(medians) < len(ranks):
        return {}
    longest = max(medians)
    first = medians.index(longest)
    others = [rank for number, rank in enumerate(ranks) if number != first]
    usual = statistics.median(rank["own_step_time_p50_s"] for rank in others)
    excess = longest / usual - 1 if usual > 0 else None
    apart = ranks[0]["windows"] >= FEWEST_WINDOWS and longest > max(rank["own_step_time_p90_s"] for rank in others)
    found: dict[str, Any] = {"slowest_rank_excess": excess}
    if apart and excess is not None and excess >= LEAST_EXCESS:
        found |= {"slowest_rank": first, "slowest_rank_device": place(ranks[first])}
    return found


def place(rank: Mapping[str, Any]) -> str:
    """Where a rank ran: "b, GPU 3"; without that number "b, GPU-1234..."; on a CPU "b, CPU"."""
    if rank["device_uuid"] is None:
        return f"{rank['host']}, CPU"
    gpu = rank["device_uuid"] if rank["device_index"] is None else f"GPU {rank['device_index']}"
    return f"{rank['host']}, {gpu}"
