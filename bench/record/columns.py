"""The columns of the CSV files: those of every row, the settings of a trial, and what the probes measure.

What a column takes part in, and how a table shows it, it says itself (see bench/column.py). Imports no torch.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from bench.column import Column, Shown, Use, percent
from bench.probes import probe_modules
from bench.record import to_target
from bench.record.ceiling_columns import CEILING, OF_RANK
from bench.record.rank_columns import RANKS, SLOWEST
from bench.record.settings import settings_columns

STATUSES = ("ok", "oom", "over_limit", "timeout", "crashed", "diverged", "interrupted")
OOM_PHASES = ("setup", "data", "forward", "backward", "optimizer", "evaluation")
PARTS = ("train", "eval", "validation", "evaluate_on")  # that a source may report an accuracy of
ACCURACIES = tuple(f"{part}_accuracy" for part in PARTS)
# What no text of ours looks like: numbers that spreadsheets make of ids, also of twelve digits without their first
# zeros, and dates as they write them.
ID = r"(?!\d+[.,]\d*$).+"
KEY = COMMIT = r"(?!\d{1,11}$|\d+[.,]\d*$).+"
TIME = r"(?!\d+[./-]\d+[./-]\d+( .*)?$|[\d.,]+$).+"
FILES = ("trials", "epochs", "steps", "ranks", "per_class", "ceilings", "rounds")


def _column(name: str, type: str, text: str, unit: str = "", ranks: str = "", **more: Any) -> Column:
    return Column(name, type, unit, ranks, text, **more)  # type: ignore[arg-type]


IDENTITY = [
    _column("launch_id", "str", "Unique to one launch; joins the rows of the files.", form=ID),
]
TRIAL_HEAD = [
    *IDENTITY,
    _column("trial_key", "str", "Hash of all settings but repeat: equal for equal work.", form=KEY),
    _column("status", "str", "How the trial ended: " + ", ".join(STATUSES) + ".", shown=Shown("status", order=0)),
    _column("error", "str", "Why it did not end well, in one line, with the path of its log."),
    _column(
        "oom_phase",
        "str",
        "What the process that ran out of memory was doing: " + ", ".join(OOM_PHASES) + "; empty: none of these.",
    ),
    _column("oom_requested_bytes", "int", "Size of the allocation that failed, if the error says it.", "bytes"),
    _column(
        "oom_held_bytes",
        "int",
        "Memory of its tensors when the error reached the worker; on a CPU only known under a limit.",
        "bytes",
    ),
    _column("started_at", "str", "When the process group began to work (UTC, ISO 8601).", form=TIME),
    _column("duration_s", "float", "From started_at to the trial's end, set-up and evaluation included.", "s"),
    _column(
        "startup_s",
        "float",
        "From the runner's request until the group had formed, before data and model are loaded.",
        "s",
    ),
    _column(
        "started_by",
        "str",
        "warm: forked from a process that has its imports; cold: by accelerate launch; empty: by hand.",
    ),
    _column(
        "parallel",
        "int",
        "Trials that may run at the same time, each on GPUs of its own; empty: by hand.",
        roles=("launch",),
    ),
]
TRIAL_DERIVED = [
    _column(
        "turns_with",
        "str",
        "Launch ids of the trials with which it took turns on this machine, as python -m launch gate has it.",
    ),
    _column(
        "effective_batch",
        "int",
        "Images in a full optimizer step: micro_batch x accumulate x processes.",
        "images",
        roles=("stated",),
    ),
    _column(
        "stop_accuracy",
        "float",
        "target_accuracy of a trial that ends there (stop_at_target); empty: it trains all its epochs.",
        "1",
        roles=("setting",),
    ),
    _column("question", "str", "What an experiment in a file of your own asks; empty: bench/experiments/ has it."),
    _column("arm_settings", "str", "Settings in which the arms of such an experiment differ."),
    _column("batch_is_shared", "bool", "Whether the processes share the arm's micro-batch: strong scaling."),
    _column("total_parameters", "int", "Parameters of the model."),
    _column("trainable_parameters", "int", "Parameters of the model that are not frozen."),
    _column(
        "input_pipeline",
        "str",
        "The input pipeline that ran: resident, loader, fixed (synthetic), or features (of features once).",
        roles=("input", "stated"),
    ),
    _column("train_images", "int", "Images in the training set.", "images"),
    _column(
        "feature_pass_s",
        "float",
        "Time, before the first epoch, in which the backbone computed all features (features once), of the training "
        "images and of those evaluated on; in no step's and no epoch's time.",
        "s",
        "max",
        shown=Shown("feature\npass s", order=14),
    ),
    _column("feature_bytes", "int", "Size of the features that a process keeps.", "bytes", "max"),
    _column("feature_place", "str", "Where it keeps them: device, host (memory), or file.", roles=("input",)),
    _column(
        "base_rss_bytes",
        "int",
        "Resident memory before data and model were loaded: imports, threads. peak_rss_bytes less this is the trial's.",
        "bytes",
        "rank 0",
    ),
    _column("resumed_at_epoch", "int", "First epoch that this launch trained, if it went on from a checkpoint."),
    _column(
        "epochs_trained",
        "int",
        "Epochs trained, including those of earlier launches: fewer than epochs if it stopped at its target or failed.",
    ),
    _column(
        "optimizer_steps",
        "int",
        "Optimizer steps taken, including those of earlier launches, without those that fp16 skipped.",
    ),
    _column("skipped_steps", "int", "Optimizer steps that fp16's loss scaling skipped."),
    _column(
        "images_seen",
        "int",
        "Training images put through the model, including those of earlier launches; with features once, through its "
        "head.",
        "images",
    ),
]
TRIAL_RESULT = [
    _column("eval_loss", "float", "Mean cross-entropy over the evaluation set after the last epoch."),
    _column(
        "eval_accuracy",
        "float",
        "Share of the evaluation set classified correctly after the last epoch.",
        "1",
        shown=percent("eval\nacc %", 41),
    ),
    _column("validation_loss", "float", "Mean cross-entropy over the images set aside, after the last epoch."),
    _column(
        "validation_accuracy",
        "float",
        "Share of the images set aside classified correctly, likewise.",
        "1",
        shown=percent("valid.\nacc %", 42),
    ),
    _column("validation_images", "int", "Images set aside for validation.", "images"),
    _column("evaluate_on_loss", "float", "Mean cross-entropy over the data set of evaluate_on, after the last epoch."),
    _column(
        "evaluate_on_accuracy",
        "float",
        "Share of that data set classified correctly, likewise.",
        "1",
        shown=percent("other data\nacc %", 43),
    ),
    _column("evaluate_on_images", "int", "Images of that data set.", "images"),
    *(
        _column(
            f"published_{part}_accuracy", "float", "What the source reports for this arm; see published_differs.", "1"
        )
        for part in PARTS
    ),
    _column("published_epoch_time_s", "float", "What the source reports, on its machine.", "s"),
    _column("published_where", "str", "The source of the published figures."),
    _column(
        "published_differs",
        "str",
        "Settings that differ from the arm's own, or why the arm is not comparable; empty: comparable with the source.",
    ),
]
MACHINE = [
    _column("host", "str", "Name of the machine that rank 0 ran on.", roles=("machine", "identity")),
    _column("device_name", "str", "Accelerator that rank 0 used, or cpu.", roles=("machine", "identity")),
    _column("device_count", "int", "Accelerators that the group used; 0 on a CPU.", roles=("launch",)),
    _column(
        "devices",
        "str",
        "The devices of each machine of the group: its name, their number and their name.",
        roles=("launch",),
    ),
    _column(
        "power_limit_w",
        "float",
        "Enforced power limit of the GPUs, the lowest of the group.",
        "W",
        roles=("adjustable",),
    ),
    _column(
        "application_sm_clock_hz",
        "float",
        "Clock of the GPUs' multiprocessors that is set for applications, if it can be set; the lowest of the group.",
        "Hz",
        roles=("adjustable",),
    ),
    _column(
        "max_sm_clock_hz",
        "float",
        "Highest possible clock of the GPUs' multiprocessors, the lowest of the group.",
        "Hz",
        roles=("launch",),
    ),
    _column("cpu_model", "str", "Model name of the CPU.", roles=("machine",)),
    _column(
        "cpu_count",
        "int",
        "CPUs that rank 0 could run on, at most its control group's quota rounded down.",
        roles=("machine",),
    ),
    _column("threads", "int", "CPU threads that each process computed with.", roles=("launch",)),
    _column(
        "cpu_capability",
        "str",
        "Instruction set of the CPU that torch's own kernels used, by torch: DEFAULT, AVX2, AVX512, ...",
        roles=("adjustable",),
    ),
    _column(
        "variables",
        "str",
        "Environment variables that change speed, as a shell writes them, such as ONEDNN_MAX_CPU_ISA=AVX2; none: none "
        "is set. Where the ranks differ, those of each, separated by a vertical bar.",
        roles=("adjustable",),
    ),
    _column(
        "group_variables",
        "str",
        "The same of those that change the speed of communication; empty for one process.",
        roles=("launch",),
    ),
    _column(
        "backend", "str", "Communication between processes: gloo, nccl, or empty for one process.", roles=("launch",)
    ),
    _column("torch", "str", "Version of torch.", roles=("machine", "identity")),
    _column("torchvision", "str", "Version of torchvision.", roles=("machine",)),
    _column("timm", "str", "Version of timm; empty: the model is not timm's.", roles=("machine",)),
    _column("accelerate", "str", "Version of accelerate.", roles=("machine",)),
    _column("cuda", "str", "CUDA version that torch was built for, if the trial ran on CUDA.", roles=("adjustable",)),
    _column("driver", "str", "NVIDIA driver version.", roles=("adjustable",)),
    _column(
        "commit",
        "str",
        "Commit of this checkout, or that a wheel was built of; -dirty: with uncommitted changes; empty: it is none.",
        roles=("code", "stated"),
        form=COMMIT,
    ),
    _column("resbench", "str", "Version of the wheel that ran it; empty: a checkout did.", roles=("code", "stated")),
    _column("environment", "str", "Key of this launch's entry in environment.json."),
    _column("log", "str", "The trial's log, relative to the run folder."),
]
EPOCH_HEAD = [
    *IDENTITY,
    _column("epoch", "int", "Number of the epoch, from 0."),
    _column("windows", "int", "Optimizer steps in the epoch, warm-up included."),
    _column("images", "int", "Training images in the epoch.", "images"),
    _column("learning_rate", "float", "Learning rate of the epoch's last step."),
    _column(
        "feature_pass_s",
        "float",
        "Time of the pass that computed features before the launch's first epoch (features once); empty: none did.",
        "s",
        "max",
    ),
]
EPOCH_RESULT = [
    _column("eval_loss", "float", "Mean cross-entropy over the evaluation set after the epoch."),
    _column("eval_accuracy", "float", "Share of the evaluation set classified correctly after the epoch.", "1"),
    _column("eval_images", "int", "Evaluation images counted, each once.", "images", "sum"),
    _column(
        "eval_time_s",
        "float",
        "Time for the evaluation set after the epoch, until all ranks have ended.",
        "s",
        "rank 0",
    ),
    _column("validation_loss", "float", "Mean cross-entropy over the images set aside, after the epoch."),
    _column("validation_accuracy", "float", "Share of the images set aside classified correctly, likewise.", "1"),
]
PER_CLASS = [
    *IDENTITY,
    _column("part", "str", "What was evaluated after the last epoch: evaluation, validation, or evaluate_on."),
    _column("data", "str", "Its data set."),
    _column("label", "int", "Number of the class, from 0."),
    _column("class_name", "str", "Its name."),
    _column("images", "int", "Its images.", "images", "sum"),
    _column("accuracy", "float", "Share of them classified correctly; empty if there are none.", "1"),
    _column(
        "predicted", "str", "How many of them were classified as each class, by number: a row of the confusion matrix."
    ),
]
STEP_HEAD = [
    *IDENTITY,
    _column("epoch", "int", "Number of the epoch, from 0."),
    _column("window", "int", "Number of the optimizer step in its epoch, from 0."),
    _column("images", "int", "Images of all processes in the step.", "images"),
    _column("measured", "bool", "Whether the step is measured; it is not among unmeasured_windows then."),
    _column("learning_rate", "float", "Learning rate of the step."),
    _column("turn", "int", "Number of the turn that the step is part of, if the trial took turns; see turns_with."),
]
ROUNDS = [
    *IDENTITY,
    _column(
        "round",
        "str",
        "Round that it was made in: launches of one round ran in turns or one after the other, to be compared.",
    ),
]

# Counts of a step's work, equal in each launch of one commit on one machine; operation_kinds has one for each kind.
COUNTS: tuple[str, ...] = ("total_parameters", "trainable_parameters", "flops_per_window", "operations_per_window")
COUNTS += ("casts_per_window", "waits_per_window", "allreduces_per_window", "allreduce_bytes_per_window")
COUNTS += ("accessed_bytes_per_window", "peak_bytes_per_window", "compiled_graphs", "graph_breaks")

# What earlier versions wrote for a setting's value.
OLDER = {"compile": {"true": "default", "false": "none"}}


def columns(file: str) -> list[Column]:
    """The columns of one of FILES, those of the probes included."""
    measured = [column for module in probe_modules() for column in getattr(module, file.upper(), ())]
    if file == "trials":
        known = [*TRIAL_HEAD, *settings_columns(), *TRIAL_DERIVED]
        return [*known, *measured, *SLOWEST, *TRIAL_RESULT, *to_target.TRIALS, *MACHINE]
    if file == "epochs":
        return [*EPOCH_HEAD, *measured, *EPOCH_RESULT]
    if file in (own := {"ranks": RANKS, "per_class": PER_CLASS, "rounds": ROUNDS}):
        return own[file]
    if file == "ceilings":
        probed = (column for module in probe_modules() for column in module.TRIALS)
        machine = [dataclasses.replace(c, text=OF_RANK) if c.name == "device_name" else c for c in MACHINE]
        return [*IDENTITY, *CEILING, *machine, *(column for column in probed if column.keeps_apart("baseline"))]
    return [*STEP_HEAD, *measured]


def kept_apart(use: Use) -> list[str]:
    """The columns of trials.csv in which rows must not differ for this use (see bench/column.py), in their order."""
    return [column.name for column in columns("trials") if column.keeps_apart(use)]
