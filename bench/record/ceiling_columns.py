"""The columns of ceilings.csv before those of the machine, and the number formats that its rows are of."""

from __future__ import annotations

from bench.column import Column

# What its column device_name says, which in trials.csv is of the trial.
OF_RANK = "Accelerator of the row's rank, or cpu; of a row of all ranks, rank 0's."
PRECISIONS = {"bf16": "bf16", "fp16": "fp16"}


def in_number_format(precision: str | None, tf32: bool | None) -> str | None:
    """What a trial's convolutions and matrix products compute in: fp32, tf32, fp16 or bf16; None: not known."""
    if precision == "no" and tf32 is not None:
        return "tf32" if tf32 else "fp32"
    return PRECISIONS.get(precision or "")


CEILING = [
    Column("started_at", "str", "", "", "When the measurement began (UTC, ISO 8601)."),
    Column(
        "kind",
        "str",
        "",
        "",
        "What was measured: matrix_product, convolution (forward and backward), device_copy, host_to_device, "
        "all_reduce, or input (micro-batches of the suite's own input pipelines).",
    ),
    Column("work", "str", "", "", "What one call did, in words: its sizes, or the network's layer."),
    Column("number_format", "str", "", "", "fp32, tf32, fp16 or bf16; empty: it computes nothing."),
    Column("rank", "int", "", "", "Rank whose device did it; empty: all together."),
    Column("device_uuid", "str", "", "", "Its GPU, as NVML names it; empty on a CPU."),
    Column("measuring", "int", "", "", "Processes that measured at the same time, each on its device."),
    Column("repetitions", "int", "", "", "How often it was timed."),
    Column("calls", "int", "", "", "Calls in each repetition, so that it is long enough to be timed."),
    Column("call_time_p25_s", "float", "s", "", "Lower quartile of the repetitions' times / calls."),
    Column("call_time_p50_s", "float", "s", "", "Their median; of an all-reduce, each time is the slowest rank's."),
    Column("call_time_p75_s", "float", "s", "", "Their upper quartile."),
    Column("call_flops", "int", "", "", "Floating-point operations of a call, two for each multiply-add."),
    Column(
        "call_bytes",
        "int",
        "bytes",
        "",
        "Bytes of a call: of a copy on the device read and written; or a message's size.",
    ),
    Column("call_images", "int", "images", "", "Images of a call."),
    Column("flops_per_s", "float", "FLOP/s", "", "call_flops / call_time_p50_s."),
    Column(
        "bytes_per_s", "float", "bytes/s", "", "call_bytes / call_time_p50_s; of an all-reduce the algorithm bandwidth."
    ),
    Column(
        "bus_bytes_per_s",
        "float",
        "bytes/s",
        "",
        "Bus bandwidth of an all-reduce of n processes: bytes_per_s x 2(n-1)/n (NVIDIA nccl-tests, PERFORMANCE.md).",
    ),
    Column("images_per_s", "float", "images/s", "", "call_images / call_time_p50_s."),
]
