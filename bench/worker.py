"""What every process of a trial runs: form the group, load data, build the model, train, record.

`run` is the entry. `Worker.work` goes through the trial in order; bench/training/__init__.py names the files that do
the parts.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import math
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench.data import datasets
from bench.data.dataset import DataSet
from bench.data.pipeline import InputPipeline, free_for, mix
from bench.errors import UsageError
from bench.experiment import Experiment
from bench.failure import crash_handler, last_phase, signals
from bench.failure.causes import Cause, Diverged
from bench.failure.ending import Ending
from bench.features.compute import compute
from bench.features.pipeline import FeaturePipeline
from bench.instruments import turns
from bench.instruments.collectives import in_group
from bench.machine import environment, malloc, memory_limit, procfs
from bench.machine.backends import configure
from bench.options import Options
from bench.probes import Probe, probe_modules
from bench.probes.memory import forget_peak_rss
from bench.record.columns import ACCURACIES
from bench.record.experiment_trackers import ExperimentTrackers
from bench.record.progress import ProgressWriter, beat, state_after
from bench.record.run_folder import RunFolder
from bench.training import checkpoint, confirm, evaluation, setup, traced_window
from bench.training.build import Build, model_for
from bench.training.group import Group
from bench.training.loop import Training, train_epoch
from bench.training.meter import Meter
from bench.training.trial_row import Counts, TrialRow
from bench.training.windows import epoch_windows, some
from bench.trial import Trial
from models import surgery

Load = Callable[[Trial, Path], DataSet]


def all_probes() -> list[Probe]:
    """One instance of every probe."""
    return [module.Probe() for module in probe_modules()]


def run(
    trial: Trial,
    options: Options,
    experiment: Experiment,
    launch_id: str,
    build: Build = model_for,
    load: Load = datasets.load,
) -> None:
    """Run the trial in this process and its group, write its rows, and exit.

    Exit codes: 0 ok, 1 the trial failed (its row says why), 2 the request cannot be met, 130 interrupted.
    """
    signals.raise_interrupted()
    # The runner (launch/) sends SIGUSR1 to a rank that makes no progress, so that its stack is in the log.
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    procfs.name_process(f"rank {os.environ.get('RANK', '0')}")
    worker = Worker(trial, options, experiment, launch_id)
    signals.end_if_stuck(worker.ending.end)
    try:
        worker.work(build, load)
        signals.ignore_all()
        worker.row.write(Cause("ok", ""))
        # After the row, which must not wait for a tracker's service.
        if worker.trackers is not None:
            worker.trackers.end()
    except BaseException as error:
        # torch's launcher stops all ranks as soon as one has ended; rank 0 has to write its row first.
        signals.ignore_all()
        worker.ending.end(error)
    if options.trace and worker.trace is not None:
        worker.trace()
    for child in multiprocessing.active_children():  # Python would wait for a loader worker that is stopped
        child.kill()
    if in_group():
        torch.distributed.destroy_process_group()


class Worker:
    """One process of a trial. Rank 0 writes the rows."""

    def __init__(self, trial: Trial, options: Options, experiment: Experiment, launch_id: str) -> None:
        self.trial, self.options, self.launch_id = trial, options, launch_id
        self.folder = RunFolder(options.out)
        rank = int(os.environ.get("RANK", "0"))
        self.row = TrialRow(trial, experiment, launch_id, self.folder, rank)
        self.ending = Ending(trial, launch_id, self.folder.logs(), rank, self.row.write)
        self.trackers: ExperimentTrackers | None = None
        self.trace: Callable[[], None] | None = None
        self.mark: Callable[[str], None] = last_phase.unmarked
        self.first_step: confirm.FirstStep

    def work(self, build: Build, load: Load) -> None:
        """Train and measure. Any exception ends the trial (see `run`)."""
        forget_peak_rss()  # what this process held before is not the trial's
        self.folder.prepare()
        group = self.form_group()
        if self.row.has_launcher:
            self.mark = last_phase.marker(self.launch_id, group.rank)
        self.mark("setup")
        # Before the memory limit: what a tracker imports and keeps is not the trial's memory.
        self.trackers = ExperimentTrackers(self.options.log_with, group.accelerator, self.options.out, self.launch_id)
        self.trackers.begin(self.trial)
        beat()  # the runner ends a trial without a sign of life (--stall-timeout)
        mallopt_accepted = self.limit_memory(group)
        self.mark("data")
        data, pipeline = self.load_data(group, load)
        beat()
        self.mark("setup")
        training = setup.training(self.trial, group, build, data.classes)
        training.mark = self.mark
        self.describe(group, training, pipeline, mallopt_accepted)
        confirm.setup(self.trial, group, training, self.ending.limit)
        self.first_step = confirm.FirstStep(self.trial, training, group.device)
        first_epoch = self.resume(training, group)
        if isinstance(pipeline, FeaturePipeline):
            self.row.values |= compute(self.trial, pipeline, training, group, self.folder.path)
            self.row.values["input_pipeline"] = pipeline.pipeline
        windows = min(self.trial.windows_per_epoch(len(data.train)), self.trial.limit_windows or math.inf)
        windows *= self.trial.epochs - first_epoch
        meter = Meter(all_probes(), group.gather, self.trial.warmup_windows, group.device, windows)
        self.row.meter = meter
        on_rank_0 = ProgressWriter(self.trial.title()) if group.rank == 0 else contextlib.nullcontext()
        with contextlib.closing(meter), on_rank_0 as progress:
            order = self.take_turns(meter)
            for epoch in range(first_epoch, self.trial.epochs):
                if self.run_epoch(epoch, training, pipeline, group, meter, progress):
                    break
            if order is not None:
                order.leave()
        name = self.folder.traces() / self.launch_id
        self.trace = functools.partial(traced_window.trace, self.trial, training, pipeline, group, name, self.ending)

    def take_turns(self, meter: Meter) -> turns.Turns | None:
        """Wait for this trial's first turn if it takes turns with another one on this machine."""
        if (order := turns.from_environment(beat)) is None:
            return None
        order.begin(self.launch_id, self.trial.key(), self.row.rank, self.trial.processes)
        meter.take_turns(order)
        self.row.values["turns_with"] = " ".join(order.partners)
        return order

    def form_group(self) -> Group:
        """The process group, with torch set up on this rank's device."""
        group = Group(self.trial)
        self.row.rank = self.ending.rank = group.rank  # under mpirun there is no RANK
        self.ending.peers = group.peers
        configure(self.trial, group.device)
        self.row.group_formed()
        return group

    def limit_memory(self, group: Group) -> bool:
        """Apply the trial's memory limit, before data and model take any. Whether malloc accepted its settings."""
        mallopt_accepted = False
        if group.device.type == "cpu":
            # Keeping freed memory is faster, but under a limit it has to be free for others.
            limited = self.trial.memory_limit_bytes is not None
            mallopt_accepted = malloc.return_freed_memory() if limited else malloc.keep_freed_memory()
        limit = self.ending.limit = memory_limit.apply(self.trial, group.device)
        if limit.bytes is not None and limit.base_bytes is not None and self.row.has_launcher:
            crash_handler.install(self.folder.logs(), self.launch_id, group.rank, limit.bytes, limit.base_bytes)
        self.row.values["base_rss_bytes"] = procfs.rss_bytes()
        return mallopt_accepted

    def load_data(self, group: Group, load: Load) -> tuple[DataSet, InputPipeline]:
        """The data set, and the pipeline that makes micro-batches of it."""
        with group.accelerator.local_main_process_first():  # only one process of each machine downloads
            data = load(self.trial, self.options.data_root)
        # All ranks have to choose the same pipeline: one that fits on each.
        free = min(rank_bytes for (rank_bytes,) in group.gather([free_for(self.trial, data, group.device)]))
        pipeline = FeaturePipeline if self.trial.features == "once" else InputPipeline
        return data, pipeline(self.trial, data, group.device, free)

    def describe(self, group: Group, training: Training, pipeline: InputPipeline, mallopt_accepted: bool) -> None:
        """Fill in the columns about the machine and the model, and save the environment."""
        self.row.places = setup.places(self.trial, group)
        columns, entry = setup.describe(self.trial, group, self.row.places, mallopt_accepted)
        key = environment.key(entry)
        self.row.values |= {
            **columns,
            "environment": key,
            "input_pipeline": pipeline.pipeline,
            "train_images": len(pipeline.data.train),
            "total_parameters": surgery.total_parameters(training.module),
            "trainable_parameters": surgery.trainable_parameters(training.module),
        }
        if group.rank == 0:
            self.folder.add_environment(key, entry)
            self.row.save()  # for a trial that is killed before its first steps are read

    def resume(self, training: Training, group: Group) -> int:
        """Restore the trial's checkpoint if --resume was given and there is one. Returns the epoch to start with."""
        path = checkpoint.path_for(self.options.out, self.trial)
        if self.options.resume and checkpoint.is_to_resume(path, self.trial, self.row.has_launcher):
            self.row.counts = Counts(**checkpoint.restore(path, training, self.trial))
            self.row.values["resumed_at_epoch"] = self.row.counts.epoch
        epoch = self.row.counts.epoch
        if len({rank_epoch for (rank_epoch,) in group.gather([float(epoch)])}) > 1:
            raise UsageError(
                f"the ranks resume at different epochs: not all machines have the checkpoint in {self.options.out}; "
                f"put it there on each, or run without --resume"
            )
        return epoch

    def run_epoch(
        self,
        epoch: int,
        training: Training,
        pipeline: InputPipeline,
        group: Group,
        meter: Meter,
        progress: ProgressWriter | None,
    ) -> bool:
        """Train an epoch, and what `evaluate_epoch` does. Returns whether it is the last one.

        `progress`: rank 0's, which writes the rows.
        """
        trial, data = self.trial, pipeline.data
        torch.manual_seed(mix(trial.seed, epoch, group.rank))  # of dropout and loader workers
        per_epoch = trial.windows_per_epoch(len(data.train))
        every = epoch_windows(len(data.train), trial.micro_batch, trial.accumulate, trial.processes, group.rank)
        windows = some(list(every), trial.limit_windows)
        batches = pipeline.train(epoch, [a_pass for window in windows for a_pass in window.passes])
        batches = self.first_step.watched(batches)

        def learning_rate(window: int) -> float:
            return trial.learning_rate(epoch * per_epoch + window, per_epoch)

        def on_rows(rows: list[dict[str, Any]]) -> None:
            self.first_step.check()
            pipeline.confirm()
            self.row.count(rows, training.skipped_steps())
            if progress is not None:
                self.folder.append("steps", [{"launch_id": self.launch_id, "epoch": epoch, **row} for row in rows])
                self.row.save()
                progress.publish(state_after(rows, epoch, trial.epochs, per_epoch))

        self.mark("data")  # whose first batch comes before the first window
        trained = train_epoch(training, windows, batches, meter, learning_rate, on_rows)
        trained["images"] = sum(window.images for window in windows)
        self.mark("evaluation")
        # Each rank has running statistics of its own; the checkpoint has rank 0's.
        group.share_buffers(training.module)
        is_last = self.evaluate_epoch(epoch, trained, training, pipeline, group, progress)
        if progress is not None:
            progress.publish({"epoch": epoch + 1, "epochs": trial.epochs, "window": 0, "windows": per_epoch, **trained})
        # No rank trains on while rank 0 writes: its windows would wait for rank 0 and look slow.
        group.accelerator.wait_for_everyone()
        return is_last

    def evaluate_epoch(
        self,
        epoch: int,
        trained: dict[str, Any],
        training: Training,
        pipeline: InputPipeline,
        group: Group,
        progress: ProgressWriter | None,
    ) -> bool:
        """Evaluate what an epoch trained, record both, save a checkpoint. Returns whether the epoch is the last one.

        Raises Diverged if something is not finite; the epoch has its row then, and the last checkpoint stays.
        """
        trial, data = self.trial, pipeline.data
        evaluations = evaluation.after_epoch(trial, training.part, pipeline, group, epoch)
        pipeline.confirm()
        self.mark("")
        not_finite = evaluation.not_finite(training, evaluations)
        row = {"epoch": epoch, **trained, **evaluation.cells(evaluations, "epochs")}
        if not self.row.epochs:
            row["feature_pass_s"] = self.row.values.get("feature_pass_s")
        if not_finite is not None:
            # An infinite weight may hide behind a ReLU, and the model have an accuracy all the same.
            row |= {name: None for name in ACCURACIES if name in row}
        # All ranks decide alike: each has the same sums of whole numbers.
        is_last = trial.is_last(epoch, evaluations["evaluation"].accuracy())
        self.row.evaluated = evaluation.cells(evaluations, "trials")
        self.row.epochs.append(row)
        self.row.counts.epoch = epoch + 1
        self.row.counts.at_target = is_last and epoch + 1 < trial.epochs
        if progress is not None:
            ends_well = is_last and not_finite is None
            self.row.append_epoch(row, evaluation.per_class(evaluations, trial, data.names) if ends_well else [])
            assert self.trackers is not None
            self.trackers.log({"launch_id": self.launch_id, **row}, epoch)
        if not_finite is not None:
            raise Diverged(f"after epoch {epoch}, {not_finite}; try a smaller --lr")
        if progress is not None and self.options.checkpoint:
            path = checkpoint.path_for(self.options.out, trial)
            checkpoint.save(path, trial, training, vars(self.row.counts))
        return is_last
