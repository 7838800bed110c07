"""Real commands for the tests: started as a user starts them, and watched from outside."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import os
import pty
import shutil
import signal
import subprocess
import sys
import termios
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil
from conftest import CHECKOUT

Found = TypeVar("Found")
MARK = "RESBENCH_TEST_MARK"
# Settings of the smallest real training there is: seconds, most of them for starting.
SMALL = ["--model", "resnet8", "--data", "digits", "--limit-train", "64", "--limit-eval", "50", "--warmup-windows", "1"]
# For trials that only have to train: a quarter of the pixels, and of the time.
TINY = [*SMALL, "--image-size", "16"]


Variables = Mapping[str, str | None]


def python(*words: str, env: Variables | None = None, **more: Any) -> subprocess.CompletedProcess[str]:
    """A Python command run to its end in the checkout; variables that are None are unset."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=CHECKOUT,
        env=with_variables(env or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **more,
    )


def with_variables(more: Variables) -> dict[str, str]:
    """This process's environment with these changes."""
    return {name: value for name, value in {**os.environ, **more}.items() if value is not None}


def is_one_error(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether a command ended as a request that cannot be met does: one sentence and nothing else, exit code 2."""
    lines = done.stderr.splitlines()
    return done.returncode == 2 and len(lines) == 1 and lines[0].startswith("error: ") and done.stdout == ""


class Command:
    """A command under way in a process group of its own, as a shell starts one; its words end up in files, or on the
    `terminal` that it is started at.

    Every process that comes of it carries a mark in its environment, by which what it leaves behind is found.
    """

    def __init__(
        self,
        words: Sequence[str],
        scratch: Path,
        env: Variables | None = None,
        ignored: Sequence[int] = (),
        prefix: Sequence[str] = (),
        terminal: int | None = None,
    ) -> None:
        self.mark = uuid.uuid4().hex
        self.stdout, self.stderr = (scratch / f"{self.mark}.{name}" for name in ("out", "err"))

        def signals_as_in_a_shell() -> None:  # a test run in the background ignores SIGINT, and hands that on
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)
            if terminal is not None:
                fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

        with open(self.stdout, "w") as out, open(self.stderr, "w") as err:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, *words],
                cwd=CHECKOUT,
                env=with_variables({**(env or {}), MARK: self.mark}),
                stdin=subprocess.DEVNULL,
                stdout=out if terminal is None else terminal,
                stderr=err if terminal is None else terminal,
                start_new_session=True,
                preexec_fn=signals_as_in_a_shell,
            )

    def __enter__(self) -> Command:
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        """Leave nothing running, whatever failed. pytest shows what the command said beside a test that failed."""
        if failed is not None:
            print(f"exit code: {self.process.poll()}\n{self.stdout.read_text()}\n{self.stderr.read_text()}")
            for process in having(MARK, self.mark):
                with contextlib.suppress(psutil.Error):
                    print(f"still there: {process.pid} {process.name()} ({process.status()}): {process.cmdline()}")
        self.process.kill()
        for process in self.left():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    def wait(self, timeout: float = 120) -> int:
        """The exit code."""
        return self.process.wait(timeout)

    def interrupt(self) -> None:
        """What Ctrl-C does: SIGINT to all processes of its group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def left(self) -> list[psutil.Process]:
        """Living processes that came of it, itself not counted."""
        return [process for process in having(MARK, self.mark) if process.pid != self.process.pid]

    def launcher(self) -> psutil.Process | None:
        """The launcher of the trial that it has under way: a fork of a warm process, or `accelerate launch`."""
        return next((process for process in self.left() if is_launcher(process)), None)

    def rank(self, rank: int) -> psutil.Process | None:
        """The living process of this rank."""
        return next((process for process in self.left() if named(process) == f"rank {rank}"), None)

    def group(self) -> list[psutil.Process]:
        """The trial's processes: its launcher and its ranks."""
        return [process for process in self.left() if is_launcher(process) or named(process).startswith("rank ")]


def named(process: psutil.Process) -> str:
    """What a process calls itself, as ps shows it; "" of one that is gone."""
    with contextlib.suppress(psutil.Error):
        return process.name()
    return ""


def is_launcher(process: psutil.Process) -> bool:
    """Whether this process forms a trial's ranks."""
    with contextlib.suppress(psutil.Error):
        return process.name() == "launcher" or "accelerate.commands.launch" in process.cmdline()
    return False


def alive(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Those that still run."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def having(name: str, value: str) -> list[psutil.Process]:
    """The living processes with this environment variable."""
    wanted, found = f"{name}={value}".encode(), []
    for pid in psutil.pids():
        # Read here, since psutil takes six times as long, and who waits looks twenty times a second.
        with contextlib.suppress(psutil.Error, OSError):
            if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(psutil.Process(pid))
    return found


def until(found: Callable[[], Found], what: str, timeout: float = 120) -> Found:
    """What `found` returns once that is true."""
    deadline = time.monotonic() + timeout
    while not (result := found()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:g} s for {what}")
        time.sleep(0.05)
    return result


def delete(folder: Path) -> None:
    """Delete a folder in which processes still write: a file may come between two steps of rmtree."""
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)


def rows(folder: Path, file: str) -> list[dict[str, str]]:
    """The rows of a CSV file as they stand; none where there is no file yet."""
    try:
        text = (folder / f"{file}.csv").read_text()
    except FileNotFoundError:
        return []
    return list(csv.DictReader(text.splitlines()))


def plant_kernel(root: Path, oom_kills: int, group: str = "/") -> None:
    """A tree of files that stands for the kernel, which has killed so many of this control group's processes."""
    plant(
        root,
        {
            "proc/self/cgroup": f"0::{group}\n",
            "proc/self/mountinfo": "35 24 0:31 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n",
            f"sys/fs/cgroup{group.rstrip('/')}/memory.events": f"low 0\nmax 9\noom 5\noom_kill {oom_kills}\n",
        },
    )


# A container as Docker starts one with --memory 1331m --cpus 1.5, on version 2: what is above its own group is hidden.
CONTAINER = {
    "proc/self/cgroup": "0::/\n",
    "proc/self/mountinfo": "35 24 0:31 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n",
    "sys/fs/cgroup/memory.max": f"{1331 * 2**20}\n",
    "sys/fs/cgroup/memory.current": f"{307 * 2**20}\n",
    "sys/fs/cgroup/memory.stat": f"anon {200 * 2**20}\ninactive_file {51 * 2**20}\n",
    "sys/fs/cgroup/cpu.max": "150000 100000\n",
}


def plant(root: Path, files: Mapping[str, str]) -> Path:
    """Write these files, path -> text, below a root folder that stands for /."""
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def on_a_terminal(code: str) -> str:
    """What the code draws on a terminal."""
    inside, outside = pty.openpty()
    env = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "CI")}
    env |= {"TERM": "xterm", "COLUMNS": "160"}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=CHECKOUT, stderr=outside, env=env)
    os.close(outside)
    drawn = b""
    with contextlib.suppress(OSError):  # how Linux says that nobody is left on the other side
        while True:
            drawn += os.read(inside, 65536)
    os.close(inside)
    assert process.wait() == 0, drawn.decode()
    return drawn.decode()


def two_gpus(standin: Path, **more: str) -> dict[str, str | None]:
    """The environment variables of a machine with two GPUs on which nobody asked for the CPU, as the tests do."""
    unset = dict.fromkeys(("ACCELERATE_USE_CPU", "CUDA_VISIBLE_DEVICES"))
    return {**unset, "LD_LIBRARY_PATH": str(standin), "STANDIN_NVML": "2", **more}


def own_environment() -> dict[str, str]:
    """As a user's: without what the pytest that runs this leaves for its own, by which benchmarks would be off."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return {**kept, "PYTHONPATH": str(CHECKOUT)}
