"""Footprints of many trials, predicted side by side in helper processes: the command itself imports no torch."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver, get_context
from typing import Any, TypeVar

import psutil

from bench.errors import UsageError
from bench.failure import signals
from bench.machine import environment, procfs
from bench.trial import Trial
from launch.memory.devices import Budget
from launch.memory.footprint_cache import Prediction

ALIKE = 2  # neighbouring jobs, of one micro-batch: the helper of the first knows most operations of the second
WORTHWHILE = 20  # tasks of some 10 ms, for which forks are started
T = TypeVar("T")


def predict_all(jobs: Sequence[Trial], budget: Budget) -> list[Prediction]:
    """What each trial takes, predicted in parallel by forks of a process with torch."""
    context = get_context("forkserver")
    # Without -P, that process would take a `bench` in the current folder for ours.
    preload = ["launch.memory.helper_imports"] if sys.version_info >= (3, 11) else []
    context.set_forkserver_preload(preload)
    # Ctrl-C reaches the helpers too, and each would print a traceback. They ignore it, and are ended below.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    with set_for_a_start(PYTHONSAFEPATH="1", PYTHONPATH=os.pathsep.join(filter(None, sys.path))):
        forkserver.ensure_running()
    signal.signal(signal.SIGINT, handler)
    pool = ProcessPoolExecutor(min(len(jobs), environment.cpu_count()), context, _end_with_parent)
    try:
        return list(pool.map(functools.partial(_predict, budget), jobs, chunksize=ALIKE))
    except BrokenProcessPool as error:
        raise UsageError(
            "a process that predicts memory was killed; if not by you, memory ran out: see dmesg and python -m launch "
            "env, and give this command more of it"
        ) from error
    except BaseException:
        for helper in psutil.Process().children(recursive=True):  # also those that the pool does not know yet
            with contextlib.suppress(psutil.NoSuchProcess):
                if "forkserver" in " ".join(helper.cmdline()):
                    helper.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def side_by_side(work: Callable[..., T], arguments: Sequence[tuple[Any, ...]]) -> list[T]:
    """What `work` returns for each of these arguments, computed by forks of this process, which has no threads."""
    if len(arguments) < WORTHWHILE or environment.cpu_count() == 1:
        return [work(*each) for each in arguments]
    with ProcessPoolExecutor(environment.cpu_count(), get_context("fork"), _stay_silent) as pool:
        return list(pool.map(work, *zip(*arguments, strict=True), chunksize=ALIKE))


@contextlib.contextmanager
def set_for_a_start(**variables: str) -> Iterator[None]:
    """While entered, a process that is started has these variables."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _stay_silent() -> None:
    """Have this fork print nothing of a signal, which the command answers, and end with it."""
    for number in signals.SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    procfs.end_with_parent(signal.SIGKILL)


def _end_with_parent() -> None:
    """Have the kernel kill this helper when its parent, the fork server, ends; that ends with the command."""
    procfs.end_with_parent(signal.SIGKILL)
    if os.getppid() == 1:  # the parent had ended before the call
        os._exit(1)


def _predict(budget: Budget, trial: Trial) -> Prediction:
    from bench.memory.prediction import limits_alike, predict, shapes

    # last_window=False: the short last window is no linear function of the micro-batch.
    footprint = predict(trial, budget.backend, capability=budget.capability, last_window=False)
    return Prediction(footprint, len(shapes(trial).train), limits_alike(trial))
