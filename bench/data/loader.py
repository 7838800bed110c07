"""DataLoader workers: what they do to an image, and how the trial waits for them.

torch notices a worker that has ended, and one that raised, but none that is stopped or hangs. It then waits without
end for a batch, or for the worker to hand over the memory of one.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bench.data.dataset import Split
from bench.errors import UsageError, one_message
from bench.machine import memory_limit

PAD = 4  # pixels on each side before a random crop (He et al. 2015, section 4.2)
# While a batch is waited for, the workers are looked at so often.
LOOK_S = 5.0
# No micro-batch takes a worker that long: it hangs, as on a lock or on a disk that is gone.
HUNG_S = 600.0
GONE = "gone"
BY_ITSELF = "loader worker {} ended by itself, before its last batch"

Batch = tuple[Tensor, Tensor]


class Images(Dataset):
    """A split as a data set of single images, as DataLoader's workers take them."""

    def __init__(self, split: Split, transform: Callable[[Any], Any] | None) -> None:
        self.split, self.transform = split, transform

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Batch:
        image = self.split.images[index]
        return (self.transform(image) if self.transform else image), self.split.labels[index]


def augmenter(crop: bool, flip: bool, size: Sequence[int]) -> Callable[[Any], Any] | None:
    """torchvision's transforms for one uint8 image (3, H, W) of this size; None: nothing to do."""
    from torchvision.transforms import v2

    steps: list[Any] = [v2.RandomCrop(list(size), padding=PAD)] if crop else []
    steps += [v2.RandomHorizontalFlip()] if flip else []
    return v2.Compose([v2.ToImage(), *steps, v2.ToPureTensor()]) if steps else None


def load(
    split: Split, order: Sequence[Tensor], augment: tuple[bool, bool], workers: int, pinned: bool, limited: bool
) -> Iterator[Batch]:
    """(images uint8 (N, 3, H, W), labels (N,)) of each tensor of positions in `order`, on the CPU.

    `augment`: (whether to crop, whether to flip). `limited`: this process has a memory limit, which workers drop.
    Raises RuntimeError if a worker or the thread that pins ends, if a worker stays stopped, or if none answers.
    """
    loader = DataLoader(
        Images(split, augmenter(*augment, size=split.images.shape[-2:])),
        batch_sampler=[batch.tolist() for batch in order],
        num_workers=workers,
        pin_memory=pinned,
        worker_init_fn=functools.partial(_begin_worker, limited=limited),
    )
    if loader.num_workers != workers:
        raise UsageError(f"--workers is {workers}, but the loader has {loader.num_workers}")
    return watched(loader) if workers else iter(loader)


def watched(loader: DataLoader) -> Iterator[Batch]:
    """The batches of a DataLoader with workers, which are watched meanwhile."""
    before = multiprocessing.active_children()
    batches = iter(loader)
    watch = Watch([child for child in multiprocessing.active_children() if child not in before])
    try:
        while True:
            watch.waiting_since = time.monotonic()
            try:
                batch = next(batches, None)
            except UsageError as error:  # a worker's: its traceback stands before it
                raise UsageError(one_message(str(error)).rpartition("UsageError: ")[2]) from error
            except (RuntimeError, OSError, EOFError) as error:
                if (why := _explained(error, watch)) is error:
                    raise
                raise why from error
            watch.waiting_since = None
            if batch is None:
                return
            yield batch
    finally:
        watch.ended.set()


def _explained(error: Exception, watch: Watch) -> Exception:
    """Why no batch came: what ended the worker, rather than that a connection to it broke."""
    if not isinstance(error, RuntimeError):
        try:
            time.sleep(1.0)  # for torch's handler of SIGCHLD, which raises how a worker ended
        except RuntimeError as ended:
            error = ended
        for worker in watch.workers:
            if worker.exitcode == 0:  # of which torch says nothing at once
                error = RuntimeError(BY_ITSELF.format(worker.pid))
    return RuntimeError(watch.reason) if watch.reason else error


class Watch:
    """A thread that ends loader workers which will not give a batch, so that torch raises in the thread that waits.

    `waiting_since`: when that thread began to wait; None: it does not. `reason`: why a worker was ended.
    """

    def __init__(self, workers: Sequence[BaseProcess]) -> None:
        self.workers = workers
        self.pids = [worker.pid for worker in workers if worker.pid is not None]
        self.waiting_since: float | None = None
        self.reason: str | None = None
        self.ended = threading.Event()
        threading.Thread(target=self._run, name="loader watch", daemon=True).start()

    def _run(self) -> None:
        stopped_before: set[int] = set()
        to_end = self.pids[0]
        while not self.ended.wait(LOOK_S) and self.reason is None:
            since = self.waiting_since
            waited_s = 0.0 if since is None else time.monotonic() - since
            states = {pid: _state(pid) for pid in self.pids} if waited_s > LOOK_S else {}
            stopped = {pid for pid, state in states.items() if state == psutil.STATUS_STOPPED}
            # Twice: who stops a whole trial and continues it may continue this process first.
            if still := stopped & stopped_before:
                to_end = min(still)
                self.reason = f"loader worker {to_end} was stopped, and no batch came for {waited_s:.0f} s"
            elif waited_s > HUNG_S:
                found = ", ".join(f"{pid} {state}" for pid, state in states.items())
                left = [pid for pid, state in states.items() if state in (psutil.STATUS_ZOMBIE, GONE)]
                hung = f"no batch came from the loader workers for {waited_s:.0f} s ({found})"
                self.reason = BY_ITSELF.format(left[0]) if left else hung
            stopped_before = stopped
        if self.reason is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(to_end, signal.SIGKILL)  # one alone: torch raises for each


def _state(pid: int) -> str:
    try:
        return psutil.Process(pid).status()
    except psutil.NoSuchProcess:
        return GONE


def _begin_worker(worker: int, limited: bool) -> None:
    """Set up a loader worker, which is forked from the process that trains."""
    torch.set_num_threads(1)  # it augments single images: more threads would take cores from training
    if limited:
        memory_limit.remove()  # the limit is one on the process that trains
        # That process pauses when it crashes (see bench/failure/crash_handler.py). A worker has to end.
        signal.signal(signal.SIGABRT, signal.SIG_DFL)
