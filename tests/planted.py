"""Planted models and data with known answers, and real process groups to run trials in.

The processes are forked from a server that has imported torch and Accelerate once: a gloo group of two ranks takes well
under a second there, and through `accelerate launch` eight.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import itertools
import json
import math
import multiprocessing
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.data import datasets
from bench.data.dataset import DataSet, Split
from bench.data.pipeline import InputPipeline
from bench.experiment import Experiment
from bench.options import Options
from bench.record.run_folder import RunFolder
from bench.training import checkpoint, evaluation
from bench.training.build import model_for
from bench.training.loop import Training, evaluate, train_epoch
from bench.training.meter import Meter
from bench.training.windows import epoch_windows
from bench.trial import Trial
from bench.variables import new_id
from bench.worker import all_probes

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.preloaded"])
EXPERIMENT = Experiment(question="", base=Trial(), arms={"": {}})
TIMEOUT_S = 120.0


# Processes


def group(processes: int, target: Callable[..., Any], *words: Any, said: Path, **variables: str) -> list[int | None]:
    """Run target(*words) in so many processes, with the variables that Accelerate's launcher sets; their exit codes.

    What they print goes to rank0.txt, rank1.txt, ... in the folder `said`. None: it was still running, and is killed.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = []
    for rank in range(processes):
        ours = {"ACCELERATE_USE_CPU": "true", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        if processes > 1:
            ours |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            ours |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
        ranks.append(FORKS.Process(target=_rank, args=(said / f"rank{rank}.txt", ours | variables, target, words)))
    for process in ranks:
        process.start()
    until = time.monotonic() + TIMEOUT_S
    for process in ranks:
        process.join(max(0.0, until - time.monotonic()))
    codes = [process.exitcode for process in ranks]
    for process in ranks:
        process.kill()
        process.join()
    return codes


def _rank(said: Path, variables: dict[str, str], target: Callable[..., Any], words: Sequence[Any]) -> None:
    with open(said, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(variables)
    multiprocessing.set_start_method("fork", force=True)  # what loader workers start by where no test has a server
    # One CPU for each process, and so one thread: two that wait for each other on a busy machine take minutes.
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[(os.getppid() + this_rank()) % len(cpus)]})
    target(*words)


def waiting_for(file: Path) -> list[int]:
    """Processes that wait for a lock on this file."""
    inode = f":{file.stat().st_ino}"
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return [int(line[5]) for line in lines if line[1] == "->" and line[6].endswith(inode)]


@dataclass(frozen=True)
class Ran:
    """What a trial left behind."""

    trial: Trial
    folder: Path
    codes: list[int | None]

    def rows(self, file: str) -> list[dict[str, str]]:
        """All rows of a file, of earlier launches into the folder too."""
        return RunFolder(self.folder).rows(file)

    def row(self) -> dict[str, str]:
        """The trial's one row."""
        (row,) = self.rows("trials")
        return row

    def column(self, file: str, name: str) -> list[float]:
        """A column's numbers."""
        return [float(row[name]) for row in self.rows(file)]

    def state(self) -> dict[str, Any]:
        """What the checkpoint holds."""
        return torch.load(checkpoint.path_for(self.folder, self.trial), weights_only=True)

    def said(self) -> str:
        """What the ranks printed, rank 0 first."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("rank*.txt")))

    def seen(self) -> list[dict[str, Any]]:
        """What the model noted, pass by pass, rank 0 first; a Reader: rank, training, ids."""
        files = sorted(self.folder.glob("seen*.jsonl"))
        return [json.loads(line) for path in files for line in path.read_text().splitlines()]


def well(ran: Ran) -> Ran:
    """The same, if all its processes ended well."""
    assert set(ran.codes) == {0}, ran.said()
    return ran


def refused(ran: Ran) -> str:
    """The one line that all ranks of a request that cannot be met end with."""
    assert set(ran.codes) == {2}, ran.said()
    errors = [line for line in ran.said().splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, ran.said()
    assert "Traceback" not in ran.said()
    return errors[0]


def run(
    folder: Path,
    trial: Trial,
    build: Callable[[Trial, int], nn.Module] = model_for,
    load: Callable[[Trial, Path], DataSet] = datasets.load,
    resume: bool = False,
    processes: int | None = None,
    trace: bool = False,
    **variables: str,
) -> Ran:
    """Run a trial as its launcher would, in a real group."""
    folder.mkdir(exist_ok=True)
    options = Options(out=folder, resume=resume, trace=trace)
    codes = group(processes or trial.processes, _work, trial, options, build, load, said=folder, **variables)
    return Ran(trial, folder, codes)


def _work(trial: Trial, options: Options, build: Any, load: Any) -> None:
    from bench import worker

    os.environ["PLANTED_FOLDER"] = str(options.out)
    # All ranks of a launch have one id; the port is the launch's own too.
    launch_id = f"port{os.environ['MASTER_PORT']}" if "RANK" in os.environ else new_id()
    worker.run(trial, options, EXPERIMENT, launch_id, build, load)


def after_holding(folder: Path, size: int) -> None:
    """A trial in a process that has held so many bytes before, and let them go."""
    held = bytearray(size)
    del held
    _work(settings(micro_batch=4), Options(out=folder, resume=False), smooth, noise)


def noting_the_end(folder: Path, build: Any) -> None:
    """A trial with one more probe, which leaves a file `ended` when it is told that nothing more is read."""
    from bench import worker
    from bench.probes import Probe

    class Ends(Probe):
        def end(self) -> None:
            (folder / "ended").touch()

    probes = worker.all_probes
    worker.all_probes = lambda: [*probes(), Ends()]
    _work(settings(micro_batch=4), Options(out=folder, resume=False), build, noise)


def _watching(probes: Callable[[], list[Any]]) -> None:
    from bench import worker

    worker.all_probes = probes


def without_probe(name: str, trial: Trial, folder: Path, build: Any, load: Any) -> None:
    """A trial without the probe of this module."""
    _watching(lambda: [probe for probe in all_probes() if not type(probe).__module__.endswith(f".{name}")])
    _work(trial, Options(out=folder), build, load)


def without_no_sync(trial: Trial, folder: Path, build: Any, load: Any) -> None:
    """A trial that shares gradients in each pass."""
    from bench.training import setup

    make: Any = setup.training

    def training(*words: Any) -> Training:
        return dataclasses.replace(make(*words), no_sync=contextlib.nullcontext)

    setup.training = training  # type: ignore[assignment]
    _work(trial, Options(out=folder), build, load)


def without_autocast(trial: Trial, folder: Path, build: Any, load: Any) -> None:
    """A trial whose model lost the mixed precision that Accelerate gave it."""
    from bench.training import setup

    make: Any = setup.training

    def training(*words: Any) -> Training:
        made: Any = make(*words)
        made.model.forward = made.model._original_forward
        return made

    setup.training = training  # type: ignore[assignment]
    _work(trial, Options(out=folder), build, load)


def without_bf16(trial: Trial, folder: Path, build: Any, load: Any) -> None:
    """A trial on a backend that cannot add up bf16."""
    share = torch.distributed.all_reduce

    def all_reduce(tensor: Tensor, *words: Any, **more: Any) -> Any:
        if tensor.dtype == torch.bfloat16:
            raise RuntimeError("Invalid scalar type")
        return share(tensor, *words, **more)

    torch.distributed.all_reduce = all_reduce
    _work(trial, Options(out=folder), build, load)


def pipeline_by_rank(trial: Trial, available: Sequence[int], folder: Path) -> None:
    """Print what makes micro-batches on this rank, whose kernel says that so many KiB are available."""
    from bench.data import pipeline as module
    from bench.training.group import Group
    from bench.worker import Worker

    root = folder / f"root{this_rank()}"
    (root / "proc").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: {2**30} kB\nMemAvailable: {available[this_rank()]} kB\n")
    module.free_bytes = functools.partial(module.free_bytes, root=root)
    worker = Worker(trial, Options(out=folder), EXPERIMENT, "id")
    _, pipeline = worker.load_data(Group(trial), datasets.load)
    print(pipeline.pipeline)


# Data


def settings(**changes: Any) -> Trial:
    """A trial on small planted images, nothing random but their order."""
    common: dict[str, Any] = {"image_size": 4, "augment": "none", "memory_format": "contiguous", "pipeline": "resident"}
    return Trial(**{**common, "warmup_windows": 0, "workers": 0, **changes})


def small(**changes: Any) -> Trial:
    """resnet8 on a few digits."""
    common: dict[str, Any] = {"model": "resnet8", "data": "digits", "image_size": 8, "limit_train": 22, "limit_eval": 7}
    return Trial(**{**common, "micro_batch": 8, "warmup_windows": 0, "lr": 0.05, "workers": 2, **changes})


def split(m: int, k: int, p: int) -> dict[str, int]:
    """Settings that make up a window of m x k x p images."""
    return {"micro_batch": m, "accumulate": k, "processes": p}


def plain_data(train: Split, evaluation: Split, classes: int = 10) -> DataSet:
    """Data that reaches the model as the very numbers stored."""
    return DataSet(train, evaluation, classes, (0.0,) * 3, (1 / 255,) * 3)


def numbered(trial: Trial, root: Path, train: int = 20, evaluation: int = 10) -> DataSet:
    """Images that carry their own number and a class, which is the label's of every third image and else the next."""

    def split(count: int) -> Split:
        number = torch.arange(count)
        labels = number % 10
        carried = torch.where(number % 3 == 0, labels, (labels + 1) % 10)
        pixels = torch.stack((number % 256, number // 256, carried), 1).byte()
        return Split(pixels[:, :, None, None].repeat(1, 1, 4, 4), labels)

    return plain_data(split(train), split(evaluation))


FIRST = {"evaluation": 0, "validation": 101, "evaluate_on": 202}


def evaluated_on(trial: Trial, root: Path, sizes: dict[str, int]) -> DataSet:
    """`numbered` with images set aside, and those of another data set: how many of each part, from FIRST on."""
    whole = numbered(trial, root, evaluation=300).evaluation
    aside, other = (
        datasets.take(whole, torch.arange(first, first + sizes[part])) for part, first in FIRST.items() if first
    )
    return dataclasses.replace(numbered(trial, root, evaluation=sizes["evaluation"]), validation=aside, other=other)


def thirds(images: int) -> float:
    """The share of `numbered` images whose carried class is their label."""
    return math.ceil(images / 3) / images


def noise(trial: Trial, root: Path, train: int = 20, evaluation: int = 4) -> DataSet:
    """Random images and labels, always the same."""

    def split(count: int) -> Split:
        generator = torch.Generator().manual_seed(1)
        images = torch.randint(0, 256, (count, 3, 4, 4), generator=generator, dtype=torch.uint8)
        return Split(images, torch.randint(0, 10, (count,), generator=generator))

    return DataSet(split(train), split(evaluation), 10, (0.5,) * 3, (0.25,) * 3)


class Stalling:
    """Images of which each takes `each[rank]` seconds to read, and the first one `first` seconds."""

    def __init__(self, images: Tensor, each: Sequence[float], first: float) -> None:
        self.images, self.shape = images, images.shape
        self.first, self.each = first, each[this_rank() % len(each)]

    def __getitem__(self, index: Any) -> Tensor:
        time.sleep(self.first or self.each)
        self.first = 0.0
        return self.images[index]


def stalling(trial: Trial, root: Path, each: Sequence[float], train: int, first: float = 0.0) -> DataSet:
    """Training images that stall the loader that reads them."""
    found = noise(trial, root, train)
    slow: Any = Stalling(found.train.images, each, first)
    return plain_data(Split(slow, found.train.labels), found.evaluation)


# Models


def this_rank() -> int:
    return int(os.environ.get("RANK", "0"))


def note(facts: dict[str, Any]) -> None:
    """Keep a line for `Ran.seen`."""
    with open(Path(os.environ["PLANTED_FOLDER"]) / f"seen{this_rank()}.jsonl", "a") as file:
        print(json.dumps(facts), file=file)


class Reader(nn.Module):
    """Answers with the class that the image carries, and notes which images it was shown.

    The logit of that class is `MARGIN` above the others, whose only parameter starts at 0.
    """

    MARGIN = 4.0

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(10))

    def forward(self, images: Tensor) -> Tensor:
        low, high, carried = images[:, :, 0, 0].round().long().unbind(1)
        note({"rank": this_rank(), "training": self.training, "ids": (low + 256 * high).tolist()})
        return nn.functional.one_hot(carried, 10) * self.MARGIN + self.bias


def reader(trial: Trial, classes: int) -> nn.Module:
    return Reader()


def read_loss(accuracy: float) -> float:
    """The mean cross-entropy of a Reader that is right so often."""
    return math.log(math.exp(Reader.MARGIN) + 9) - Reader.MARGIN * accuracy


def smooth(trial: Trial, classes: int, batch_norm: bool = False) -> nn.Module:
    """A small network without BatchNorm, or with it."""
    torch.manual_seed(trial.seed)
    norm = nn.BatchNorm2d(6) if batch_norm else nn.Identity()
    return nn.Sequential(nn.Conv2d(3, 6, 3), norm, nn.GELU(), nn.Flatten(), nn.Linear(24, classes))


class Switched(nn.Module):
    """A small network with a switch that torch.compile takes for fixed."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.network, self.switch = nn.Sequential(nn.Flatten(), nn.Linear(48, classes)), False

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        return logits * 1.0 if self.switch else logits


def switched(trial: Trial, classes: int, after: int) -> nn.Module:
    """A network whose code changes after so many steps."""
    model = Switched(classes)
    steps = itertools.count(1)

    def stepped(*_: Any) -> None:
        model.switch = model.switch or next(steps) == after

    register_optimizer_step_post_hook(stepped)
    return model


class Sleeper(nn.Module):
    """Sleeps in each training pass; seconds(rank, pass) says how long."""

    def __init__(self, seconds: Callable[[int, int], float]) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(10))
        self.seconds, self.passes = seconds, 0

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            time.sleep(self.seconds(this_rank(), self.passes))
            self.passes += 1
        return self.bias.expand(len(images), -1)


def sleeper(trial: Trial, classes: int, each: Sequence[float] = (0.0,), first: Sequence[float] = ()) -> nn.Module:
    """Sleeps `each[rank]` seconds in a pass, or `first[pass]` in the first ones."""
    return Sleeper(lambda rank, number: first[number] if number < len(first) else each[rank % len(each)])


def hoarder(trial: Trial, classes: int, sizes: Sequence[int]) -> nn.Module:
    """Takes sizes[rank] bytes in its third training pass, writes to them, and gives them back."""
    model = smooth(trial, classes)
    passes = iter(range(1_000_000))

    def hoard(*_: Any) -> None:
        if model.training and next(passes) == 2:
            torch.ones(sizes[this_rank()], dtype=torch.uint8)

    model.register_forward_pre_hook(hoard)
    return model


def failing(trial: Trial, classes: int, at: int, how: str, build: Any = model_for, rank: int = 0) -> nn.Module:
    """A model whose training pass number `at` breaks: "raise" an error, or answer "nan"."""
    model = build(trial, classes)
    passes = iter(range(1_000_000))

    def fail(module: nn.Module, _: Any, logits: Tensor) -> Tensor | None:
        if not module.training or next(passes) != at or this_rank() != rank:
            return None
        if how == "raise":
            raise RuntimeError('planted failure,\nin "two" lines')
        return logits * math.nan

    model.register_forward_hook(fail)
    return model


class Greedy(torch.autograd.Function):
    """Hands its input on, and takes so many bytes in the backward pass."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, asked: int) -> Tensor:
        ctx.asked = asked
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        torch.empty(ctx.asked, dtype=torch.uint8)
        return gradients[0], None


def greedy(trial: Trial, classes: int, phase: str, asked: int, rank: int = 0) -> nn.Module:
    """`smooth`, of which this rank asks for so many bytes in this phase, in training in its third pass."""
    model = smooth(trial, classes)
    if this_rank() != rank:
        return model

    def take(*_: Any) -> None:
        torch.empty(asked, dtype=torch.uint8)

    passes = iter(range(1_000_000))
    if phase == "setup":
        take()
    elif phase == "forward":
        model.register_forward_pre_hook(lambda *_: take() if model.training and next(passes) == 2 else None)
    elif phase == "evaluation":
        model.register_forward_pre_hook(lambda *_: None if model.training else take())
    elif phase == "backward":
        model.register_forward_hook(
            lambda m, _, logits: Greedy.apply(logits, asked) if m.training and next(passes) == 2 else logits
        )
    elif phase == "optimizer":
        register_optimizer_step_pre_hook(take)
    return model


def greedy_noise(trial: Trial, root: Path, asked: int, rank: int = 0) -> DataSet:
    """`noise`, for whose images this rank asks for so many bytes."""
    if this_rank() == rank:
        torch.empty(asked, dtype=torch.uint8)
    return noise(trial, root)


class Filling(nn.Module):
    """Takes memory in the first pass, in pieces too small to give any back, until there is none."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(10))

    def forward(self, images: Tensor) -> Tensor:
        taken = []
        while True:
            taken.append(bytes(1000))


def filling(trial: Trial, classes: int) -> nn.Module:
    return Filling()


class Costly:
    """Images of which each takes so many bytes to read."""

    def __init__(self, images: Tensor, cost: int) -> None:
        self.images, self.shape, self.cost = images, images.shape, cost

    def numel(self) -> int:
        return self.images.numel()

    def __getitem__(self, index: Any) -> Tensor:
        torch.ones(self.cost, dtype=torch.uint8)
        return self.images[index]


def costly(trial: Trial, root: Path, cost: int) -> DataSet:
    found = noise(trial, root)
    dear: Any = Costly(found.train.images, cost)
    return plain_data(Split(dear, found.train.labels), found.evaluation)


class Telling(nn.Module):
    """Notes in what number format and memory layout it works."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        values = self.conv(images)
        logits = self.fc(values.mean((2, 3)))
        layouts = [tensor.is_contiguous(memory_format=torch.channels_last) for tensor in (images, self.conv.weight)]
        types = [str(tensor.dtype) for tensor in (images, values, logits, self.fc.weight)]
        note({"channels_last": layouts, "types": types, "training": self.training})
        return logits


def note_if_uncompiled(*_: Any) -> None:
    if not torch.compiler.is_compiling():
        note({"compiled": False})


def watched(trial: Trial, classes: int) -> nn.Module:
    """The trial's own model, which notes each pass that Python itself ran through."""
    model = model_for(trial, classes)
    model.get_submodule("layer1").register_forward_pre_hook(note_if_uncompiled)
    return model


def telling(trial: Trial, classes: int) -> nn.Module:
    return Telling()


def starved(trial: Trial, classes: int, room: int) -> nn.Module:
    """resnet8, in a process that from here on cannot write files of more than `room` bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    return model_for(trial, classes)


def late(trial: Trial, classes: int, seconds: float) -> nn.Module:
    """`smooth`, of which rank 1 has its last gradient so many seconds after rank 0 has all of its own."""
    model = smooth(trial, classes)
    passes = iter(range(1_000_000))

    def hold(gradient: Tensor) -> None:
        computed = Path(os.environ["PLANTED_FOLDER"]) / f"computed{next(passes)}"
        if this_rank() == 0:
            # Called after what was queued before, and before DDP waits, which queues itself when it has this gradient.
            torch.autograd.Variable._execution_engine.queue_callback(computed.touch)
            return
        while not computed.exists():
            time.sleep(0.001)
        time.sleep(seconds)

    next(model.parameters()).register_hook(hold)
    return model


def chatty(trial: Trial, classes: int, at: int) -> nn.Module:
    """`smooth`, which shares one more number in the training pass with this number."""
    model = smooth(trial, classes)
    passes = iter(range(1_000_000))

    def share(*_: Any) -> None:
        if model.training and next(passes) == at:
            torch.distributed.all_reduce(torch.ones(1))

    model.register_forward_pre_hook(share)
    return model


class CountCollectives(TorchDispatchMode):
    """Writes down each training pass, and the numbers in each collective of this process."""

    def __init__(self) -> None:
        super().__init__()
        self.file = open(Path(os.environ["PLANTED_FOLDER"]) / f"calls{this_rank()}.txt", "a")  # noqa: SIM115

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            numbers = sum(leaf.numel() for leaf in tree_leaves(args[0]) if isinstance(leaf, Tensor))
            self.write(f"{func._schema.name.split('::')[1]} {numbers}")
        return func(*args, **(kwargs or {}))

    def write(self, line: str) -> None:
        print(line, file=self.file, flush=True)


def counted(trial: Trial, classes: int) -> nn.Module:
    """`smooth` with BatchNorm, in a process whose collectives are counted from here on."""
    model = smooth(trial, classes, batch_norm=True)
    mode = CountCollectives()
    contextlib.ExitStack().enter_context(mode)  # never left: it goes with the process
    model.register_forward_pre_hook(lambda *_: mode.write("pass") if model.training else None)
    return model


# The loop without the worker


def _join() -> tuple[int, int]:
    """(this process's rank, the ranks there are), in a gloo group where there are several."""
    if "RANK" in os.environ:
        torch.distributed.init_process_group("gloo")
    return this_rank(), int(os.environ.get("WORLD_SIZE", "1"))


def noting_patience(folder: Path) -> None:
    """Join as a trial does, and note for how many seconds the ranks of the group wait for each other."""
    from bench.training.group import join

    os.environ["PLANTED_FOLDER"] = str(folder)
    join(settings(processes=int(os.environ["WORLD_SIZE"])))
    limit = torch.distributed.distributed_c10d._get_default_group()._get_backend(torch.device("cpu")).options._timeout
    note({"patience_s": limit.total_seconds()})
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def stuck(folder: Path) -> None:
    """Be told to end inside C, where no handler runs; before that a forked child is, as a loader worker may be."""
    from bench.failure import signals

    os.environ["PLANTED_FOLDER"] = str(folder)
    signals.STUCK_S = 0.5
    signals.raise_interrupted()
    signal.signal(signal.SIGCHLD, lambda *_: None)  # as DataLoader has it

    def end(error: BaseException) -> None:
        note({"ends": str(error)})
        os._exit(3)

    signals.end_if_stuck(end)
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            time.sleep(60.0)
        os._exit(0)
    time.sleep(0.5)
    os.kill(child, signal.SIGTERM)
    os.waitpid(child, 0)
    time.sleep(1.5)
    note({"ends": ""})
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    mutex = ctypes.create_string_buffer(64)
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(mutex)


def evaluations(folder: Path, cases: Sequence[tuple[int, int, str]]) -> None:
    """Evaluate a Reader on so many images, in micro-batches of this size, from this pipeline; case by case."""
    os.environ["PLANTED_FOLDER"] = str(folder)
    rank, processes = _join()

    def add_up(values: Tensor) -> Tensor:
        if processes > 1:
            torch.distributed.all_reduce(values)
        return values

    results = []
    for images, micro_batch, pipeline in cases:
        trial = settings(micro_batch=micro_batch, processes=processes, pipeline=pipeline)
        feed = InputPipeline(trial, numbered(trial, folder, evaluation=images), torch.device("cpu"))
        found = evaluate(Reader(), feed.evaluate, images, micro_batch, rank, processes, add_up, 10)
        results.append(evaluation.cells({"evaluation": found}, "epochs"))
    (folder / f"results{rank}.json").write_text(json.dumps(results))


def ending_badly(folder: Path) -> None:
    """End as a thread does that finds its process stuck, where the row cannot be written and nobody foresaw why."""
    from bench.failure.ending import Ending

    def write_row(_: Any) -> None:
        raise ValueError("planted: no row")

    ending = Ending(settings(), "id", folder, 0, write_row)
    thread = threading.Thread(target=ending.end, args=(RuntimeError("first"),))
    thread.start()
    thread.join()
    ending.end(RuntimeError("second"))


class Breaking(nn.Module):
    """A small network that breaks a helper of its process in its third pass, and then takes a second."""

    def __init__(self, classes: int, number: int) -> None:
        super().__init__()
        self.network, self.number, self.passes = nn.Sequential(nn.Flatten(), nn.Linear(48, classes)), number, 0

    def forward(self, images: Tensor) -> Tensor:
        self.passes += 1
        if self.passes == 3:
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, self.number)
            time.sleep(1.0)
        return self.network(images)


def breaking(trial: Trial, classes: int, number: int) -> nn.Module:
    """A network that sends this signal to the loader workers; 0: none."""
    return Breaking(classes, number)


class Leaving:
    """Images of which reading any but the first few ends the process that reads, without an error."""

    def __init__(self, images: Tensor) -> None:
        self.images, self.shape, self.left = images, images.shape, 6

    def __getitem__(self, index: Any) -> Tensor:
        self.left -= 1
        if self.left < 0 and multiprocessing.parent_process() is not None:
            os._exit(0)
        return self.images[index]


def leaving(trial: Trial, root: Path) -> DataSet:
    """Training images at which a loader worker leaves."""
    found = noise(trial, root, train=64)
    images: Any = Leaving(found.train.images)
    return plain_data(Split(images, found.train.labels), found.evaluation)


def broken_helper(folder: Path, build: Any, load: Any, sensor: bool = False) -> None:
    """A trial with a loader worker, where torch's waits and ours are short; and with a sensor that fails later on."""
    from bench.data import loader
    from bench.instruments import sampler
    from bench.probes import device

    def read() -> dict[str, float | None]:
        if threading.current_thread().name == "sampler":
            raise OSError("planted: the sensor is gone")
        return {"power_w": 1.0}

    loader.LOOK_S, loader.HUNG_S, sampler.INTERVAL_S = 0.3, 3.0, 0.05
    if sensor:
        device.gauges = lambda *_: read
    _work(settings(micro_batch=2, pipeline="loader", workers=1), Options(out=folder), build, load)


def left_over(folder: Path, patience_s: float, stops: int = 0) -> None:
    """A trial in whose environment a group is set up that nobody else comes to. `stops`: a signal that it gets."""
    from bench.training import forming

    forming.FORM_S, forming.SAY_AFTER_S = patience_s, patience_s / 4
    if stops:
        threading.Timer(2.0, os.kill, (os.getpid(), stops)).start()
    _work(settings(processes=2), Options(out=folder), smooth, noise)


def without_ddp(folder: Path, seconds: Sequence[float], waits: bool = False, writing: float = 0.0) -> None:
    """Train ranks that share no gradients, and wait for each other in each pass or never.

    Each rank sleeps seconds[rank] in a pass, and rank 0 takes `writing` seconds for rows. 20 images, 2 at once in each
    process: 5 windows for two processes.
    """
    rank, processes = _join()

    def gather(numbers: list[float]) -> list[list[float]]:
        everyone: list[list[float]] = [[]] * processes
        torch.distributed.all_gather_object(everyone, numbers)
        return everyone

    model = sleeper(settings(), 10, seconds)
    if waits:
        model.register_forward_hook(lambda *_: torch.distributed.barrier())
    training = Training(model, model, torch.optim.SGD(model.parameters(), lr=0.0), processes)
    windows = list(epoch_windows(20, 2, 1, processes, rank))
    batches = ((torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.long)) for _ in windows)
    meter = Meter(all_probes(), gather, 0, torch.device("cpu"))
    train_epoch(training, windows, batches, meter, lambda w: 0.0, lambda rows: time.sleep(writing * (rank == 0)))
    (folder / f"results{rank}.json").write_text(json.dumps(meter.trial()))
