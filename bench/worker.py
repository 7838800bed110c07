"""What every process of a trial runs: form the group, train, measure, record."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import psutil
import torch

from bench.data import datasets
from bench.data.pipeline import InputPipeline, free_bytes, mix
from bench.data.split import DataSet
from bench.errors import UsageError
from bench.experiment import Experiment
from bench.failure import causes, crash_handler, explain, signals
from bench.failure.causes import Cause, Diverged, Interrupted
from bench.instruments.collectives import in_group
from bench.machine import environment, malloc, memory_limit, procfs
from bench.machine.backends import configure
from bench.options import Options
from bench.probes import Probe, probe_modules
from bench.probes.memory import forget_peak_rss
from bench.record.csvfile import write_whole
from bench.record.experiment_trackers import ExperimentTrackers
from bench.record.progress import ProgressWriter, beat, state_after
from bench.record.rows import first_row
from bench.record.run_folder import RunFolder
from bench.terminal import say
from bench.training import checkpoint, evaluation, setup
from bench.training.build import Build, model_for
from bench.training.group import Group
from bench.training.loop import Training, train_epoch
from bench.training.meter import Meter
from bench.training.windows import epoch_windows, some
from bench.trial import Trial
from bench.variables import HOW, LAUNCH_ID
from models import surgery

Load = Callable[[Trial, Path], DataSet]
ORPHANED_S = 0.5
KEEP_S, KEEP_RATIO = 1.0, 100.0


def all_probes() -> list[Probe]:
    """One of each probe there is."""
    return [module.Probe() for module in probe_modules()]


def run(
    trial: Trial,
    options: Options,
    experiment: Experiment,
    launch_id: str,
    build: Build = model_for,
    load: Load = datasets.load,
) -> None:
    """Run the trial in this process and its group, leave its rows, and exit.

    Exit codes: 0 well, 1 the trial failed (its row says how), 2 the request cannot be met, 130 interrupted.
    """
    signals.raise_interrupted()
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # a launcher asks so where a rank is that goes on no more
    procfs.name_process(f"rank {os.environ.get('RANK', '0')}")
    worker = Worker(trial, options, experiment, launch_id)
    signals.end_if_stuck(worker.end)
    try:
        worker.work(build, load)
        signals.ignore()
        worker.finish(Cause("ok", ""))
        worker.end_trackers()
    except BaseException as error:
        # The launcher stops all ranks as soon as one has ended; rank 0 has its row to write first.
        signals.ignore()
        worker.end(error)
    if in_group():
        torch.distributed.destroy_process_group()


@dataclass
class Counts:
    """How far training has come, earlier launches included."""

    epoch: int = 0
    optimizer_steps: int = 0
    images_seen: int = 0


class Worker:
    """One process of a trial. Rank 0 keeps the record."""

    def __init__(self, trial: Trial, options: Options, experiment: Experiment, launch_id: str) -> None:
        self.trial, self.options, self.launch_id = trial, options, launch_id
        self.folder = RunFolder(options.out)
        self.rank = int(os.environ.get("RANK", "0"))
        self.began, self.launcher = time.monotonic(), os.getppid()
        self.meter: Meter | None = None
        self.trackers: ExperimentTrackers | None = None
        self.training: Training | None = None
        self.counts = Counts()
        self.skipped = 0
        self.recorded = False
        self.ending = threading.Lock()
        self.keep_at = 0.0
        self.evaluated: dict[str, Any] = {}
        self.group: Group | None = None
        self.limit: memory_limit.Limit | None = None
        self.how: dict[str, Any] = json.loads(os.environ.get(HOW, "{}"))
        self.row = first_row(trial, experiment, launch_id)
        self.row |= {name: self.how.get(name) for name in ("started_by", "parallel")}
        if not os.environ.get(LAUNCH_ID):
            self.row["log"] = None  # by hand, what a rank prints goes to the terminal

    def work(self, build: Build, load: Load) -> None:
        """Train and measure. Raises whatever ends the trial otherwise than well."""
        forget_peak_rss()
        self.folder.prepare()
        group = self.group = Group(self.trial)
        self.rank = group.rank
        configure(self.trial, group.device)
        if requested := self.how.get("requested_at"):
            self.row["startup_s"] = round(time.time() - requested, 3)
        # What they import and keep is none of the trial's memory.
        self.trackers = ExperimentTrackers(self.options.log_with, group.accelerator, self.options.out, self.launch_id)
        self.trackers.begin(self.trial)
        beat()
        self.mallopt_accepted = group.device.type == "cpu" and self.set_malloc()
        self.limit = memory_limit.hold(self.trial, group.device)
        if self.limit.bytes is not None and self.limit.base_bytes is not None and os.environ.get(LAUNCH_ID):
            crash_handler.stay(self.folder.logs(), self.launch_id, self.rank, self.limit.bytes, self.limit.base_bytes)
        self.row["base_rss_bytes"] = procfs.rss_bytes()
        found, feed = self.feed(group, load)
        beat()
        training = self.training = setup.training(self.trial, group, build, found.classes)
        self.describe(group, training, feed, found)
        resumed = self.resume(training)
        if len({epoch for (epoch,) in group.gather([float(resumed)])}) > 1:
            raise UsageError(
                f"the ranks resume at unlike epochs: not all machines have the checkpoint in {self.options.out}; "
                f"put it there on each, or run without --resume"
            )
        windows = min(self.trial.windows_per_epoch(len(found.train)), self.trial.limit_windows or math.inf)
        windows *= self.trial.epochs - resumed
        self.meter = Meter(all_probes(), group.gather, self.trial.warmup_windows, group.device, windows)
        title = f"{self.trial.experiment} {self.trial.arm}"
        said = ProgressWriter(title) if self.rank == 0 else contextlib.nullcontext()
        with contextlib.closing(self.meter), said as teller:
            for epoch in range(resumed, self.trial.epochs):
                self.epoch(epoch, training, feed, teller)

    def set_malloc(self) -> bool:
        """What is freed is kept for what comes next, or under a limit given back; whether malloc took the setting."""
        limited = self.trial.memory_limit_bytes is not None
        return malloc.return_freed_memory() if limited else malloc.keep_freed_memory()

    def feed(self, group: Group, load: Load) -> tuple[DataSet, InputPipeline]:
        """The data set, and the pipeline that makes micro-batches of it, which on all ranks is what fits on each."""
        found = group.first_fetches(lambda: load(self.trial, self.options.data_root))
        free = min(bytes for (bytes,) in group.gather([free_bytes(self.trial, group.device)]))
        return found, InputPipeline(self.trial, found, group.device, free)

    def describe(self, group: Group, training: Training, feed: InputPipeline, found: DataSet) -> None:
        """Fill in what is known of the machine and the trial before it trains."""
        facts, described = setup.describe(self.trial, group, self.mallopt_accepted)
        self.row |= {**facts, "environment": environment.key(described)}
        self.row |= {"input_pipeline": feed.pipeline, "train_images": len(found.train)}
        self.row |= {
            "total_parameters": surgery.total_parameters(training.module),
            "trainable_parameters": surgery.trainable_parameters(training.module),
        }
        self.train_images, self.eval_images = len(found.train), len(found.evaluation)
        if self.trial.limit_windows is not None:
            passes = self.trial.limit_windows * self.trial.micro_batch * self.trial.processes
            self.eval_images = min(self.eval_images, passes)
        if self.rank == 0:
            self.folder.add_environment(self.row["environment"], described)
            self.keep()

    def resume(self, training: Training) -> int:
        """Go on from the trial's checkpoint where that is asked for and there is one; the epoch to start with."""
        path = checkpoint.path_for(self.options.out, self.trial)
        if not (self.options.resume and path.exists()):
            return 0
        if os.environ.get(LAUNCH_ID) and checkpoint.epoch(path) >= self.trial.epochs:
            return 0  # a launcher starts no trial that has its row: this one was killed just before
        self.counts = Counts(**checkpoint.restore(path, training))
        self.row["resumed_at_epoch"] = self.counts.epoch
        if self.counts.epoch >= self.trial.epochs:
            raise UsageError(f"all {self.trial.epochs} epochs are in {path}; nothing is left to resume")
        return self.counts.epoch

    def epoch(self, epoch: int, training: Training, feed: InputPipeline, teller: ProgressWriter | None) -> None:
        """Train an epoch, evaluate, record, keep a checkpoint."""
        trial, meter, group = self.trial, self.meter, self.group
        assert meter is not None
        assert group is not None
        torch.manual_seed(mix(trial.seed, epoch, self.rank))  # dropout and loader workers
        per_epoch = trial.windows_per_epoch(self.train_images)
        every = epoch_windows(self.train_images, trial.micro_batch, trial.accumulate, trial.processes, self.rank)
        windows = some(list(every), trial.limit_windows)
        batches = feed.train(epoch, [a_pass for window in windows for a_pass in window.passes])
        facts = {"launch_id": self.launch_id, "epoch": epoch}

        def on_rows(rows: list[dict[str, Any]]) -> None:
            self.count(rows, training)
            if teller is not None:
                self.folder.append("steps", [facts | row for row in rows])
                self.keep()
                teller.tell(state_after(rows, epoch, trial.epochs, per_epoch))

        row = train_epoch(
            training,
            windows,
            batches,
            meter,
            lambda w: trial.learning_rate(epoch * per_epoch + w, per_epoch),
            on_rows,
        )
        group.share_buffers(training.module)
        last = epoch + 1 == trial.epochs
        found = evaluation.after_epoch(trial, training.module, feed, group, self.eval_images, last)
        self.evaluated = evaluation.cells(found, "trials")
        self.counts.epoch = epoch + 1
        if teller is not None:
            whole = {**facts, **row, "images": sum(w.images for w in windows), **evaluation.cells(found, "epochs")}
            self.folder.append("epochs", [whole])
            if last:
                rows = evaluation.per_class(found, trial, feed.data.names)
                self.folder.append("per_class", [{"launch_id": self.launch_id, **row} for row in rows])
            assert self.trackers is not None
            self.trackers.tell(whole, epoch)
            if self.options.checkpoint:
                checkpoint.save(checkpoint.path_for(self.options.out, trial), trial, training, vars(self.counts))
            teller.tell({"epoch": epoch + 1, "epochs": trial.epochs, "window": 0, "windows": per_epoch, **row})
        group.accelerator.wait_for_everyone()

    def count(self, rows: list[dict[str, Any]], training: Training) -> None:
        """Add windows whose rows were read, for which the device was waited for."""
        skipped = training.skipped_steps() - self.skipped
        self.skipped += skipped
        self.counts.optimizer_steps += len(rows) - skipped
        self.counts.images_seen += sum(row["images"] for row in rows)

    def so_far(self) -> dict[str, Any]:
        """The trial's row from what was measured so far, but for why it ends. Involves no other rank."""
        measured = self.meter.trial() if self.meter else {}
        rate = measured.get("images_per_s")
        return {
            **self.row,
            **measured,
            "images_per_s_per_process": rate and rate / self.trial.processes,
            **self.evaluated,
            "duration_s": round(time.monotonic() - self.began, 3),
            "optimizer_steps": self.counts.optimizer_steps,
            "images_seen": self.counts.images_seen,
            "skipped_steps": self.skipped if self.trial.precision == "fp16" else None,
        }

    def keep(self) -> None:
        """Leave the row so far for whoever has to write it if this process cannot; off the clock, and seldom."""
        began = time.monotonic()
        if self.rank == 0 and began >= self.keep_at and os.environ.get(LAUNCH_ID):
            write_whole(self.folder.logs() / f"{self.launch_id}.row.json", json.dumps(self.so_far()))
            self.keep_at = began + max(KEEP_S, KEEP_RATIO * (time.monotonic() - began))

    def finish(self, cause: Cause) -> None:
        """Rank 0 writes the trial's row, once."""
        if self.rank != 0 or self.recorded:
            return
        error = cause.error and cause.error + (f" ({self.row['log']})" if self.row["log"] else "")
        row = {**self.so_far(), **cause.columns(), "error": error or None}
        if cause.silent and os.environ.get(LAUNCH_ID):  # what it died of, only the launcher can find out
            write_whole(self.folder.logs() / f"{self.launch_id}.row.json", json.dumps(row))
            return
        self.folder.append("trials", [row])
        self.recorded = True
        (self.folder.logs() / f"{self.launch_id}.row.json").unlink(missing_ok=True)
        if not os.environ.get(LAUNCH_ID):
            folder = self.folder.path
            say(f"{cause.status}: {folder}/trials.csv has its row; python -m reports show {folder}", sys.stdout)

    def end_trackers(self) -> None:
        """After the row, which must not wait for a service."""
        if self.trackers is not None:
            self.trackers.end()

    def orphaned(self) -> bool:
        """Whether the launcher is gone, of which torch has the kernel tell a rank by SIGINT, a moment before it is."""
        until = time.monotonic() + ORPHANED_S
        while os.getppid() == self.launcher and time.monotonic() < until:
            time.sleep(0.02)
        return os.getppid() != self.launcher

    def end(self, error: BaseException) -> NoReturn:
        """End this process, whichever of its threads asks first."""
        self.ending.acquire()
        code = self.fail(error)
        for child in psutil.Process().children(recursive=True):  # loader workers
            child.kill()
        # Not sys.exit: with another rank gone, the group's destructors would wait for it.
        os._exit(code)

    def fail(self, error: BaseException) -> int:
        """Put the cause on record, and as rank 0 write the row; the exit code."""
        held = self.limit.let_go() if self.limit is not None else None
        logs = self.folder.logs()
        peers = self.group.peers if self.group else {}
        limited = self.trial.memory_limit_bytes is not None
        explained = explain.explain(error, peers, logs, self.launch_id, self.rank, limited, held)
        if explained.status == "interrupted" and self.trial.processes > 1 and self.orphaned():
            explained = Cause("crashed", "the launcher was killed: it is gone and left no word (see the kernel's log)")
        cause, first = causes.put(logs, self.launch_id, explained)
        if first and not isinstance(error, (UsageError, Diverged, Interrupted)):
            say("".join(traceback.format_exception(error)).rstrip())
        if first:
            say(f"error: {cause.error}")
        if cause.usage:
            return 2
        try:
            self.finish(cause)
        except UsageError as full:  # the disk: the row is for the launcher to write, or is lost, and said so
            say(f"error: {full}")
            return 2
        return 130 if cause.status == "interrupted" else 1
