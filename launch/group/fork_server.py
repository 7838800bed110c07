"""A process that does the imports once and then forks one trial after another: the server of WarmStarter.

The server uses no device and starts no thread, so a fork of it behaves like a fresh process. For each trial it forks a
launcher, in a session of its own, where Accelerate's notebook_launcher forks the ranks; a single rank runs in the
launcher itself. The launcher records which rank was killed.

Messages are JSON over a socket. Requests are what launch.group.warm_starter.WarmStarter.start sends; answers are
{"launch_id", "pid"} once the launcher is forked and {"launch_id", "exit_code"} once it has ended.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import json
import os
import runpy
import selectors
import signal
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from bench.entry import imports_that_stay
from bench.failure import causes, last_phase
from bench.machine import procfs
from launch.group import processes

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SERVER_NAME, LAUNCHER_NAME = "resbench warm", "launcher"


def load() -> None:
    """Import all that a trial needs. Raises RuntimeError if that started a thread, which a fork would lack."""
    # pandas, which others import, imports pyarrow where it is installed, and that starts threads.
    sys.modules.setdefault("pyarrow", None)  # type: ignore[arg-type]
    with imports_that_stay():  # nor do the forks look through them, which would copy their memory
        import accelerate  # noqa: F401
        import torch.distributed
        import torchvision.transforms.v2  # noqa: F401

        import bench.instruments.operations
        import bench.worker  # noqa: F401

        if torch.distributed.is_available():  # without it no trial has several processes
            from launch.group import rendezvous

            rendezvous.register()
    threads = os.listdir("/proc/self/task")
    if len(threads) > 1:
        raise RuntimeError(f"{len(threads)} threads run after the imports; start trials with --cold")


def serve(control: Connection) -> None:
    """Fork a launcher for each request and answer how it ended, until the other side closes the connection."""
    # A signal writes a byte into this pipe, so that select() returns when a child ends, with no race.
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    for number in STOP_SIGNALS:  # it is the runner that ends the trials, in order
        signal.signal(number, signal.SIG_IGN)
    launched: dict[int, str] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        selector.register(reading, selectors.EVENT_READ)
        while True:
            ready = [key.fileobj for key, _ in selector.select()]
            if reading in ready:
                os.read(reading, 4096)
                for pid, exit_code in _ended_children():
                    _answer(control, launch_id=launched.pop(pid), exit_code=exit_code)
            if control in ready:
                try:
                    request = json.loads(control.recv_bytes())
                except (EOFError, ConnectionError):
                    return
                pid = os.fork()
                if pid == 0:
                    selector.close()
                    control.close()
                    os.close(reading)
                    os.close(writing)
                    launch(request)
                launched[pid] = request["launch_id"]
                _answer(control, launch_id=request["launch_id"], pid=pid)


def _answer(control: Connection, **answer: Any) -> None:
    control.send_bytes(json.dumps(answer).encode())


def _ended_children() -> list[tuple[int, int]]:
    """(process id, exit code) of each child that has ended since the last call."""
    ended = []
    with contextlib.suppress(ChildProcessError):
        while (child := os.waitpid(-1, os.WNOHANG))[0]:
            ended.append((child[0], os.waitstatus_to_exitcode(child[1])))
    return ended


def launch(request: dict[str, Any]) -> NoReturn:
    """As the launcher of one trial, fork its ranks and exit with their exit code."""
    exit_code = 1
    try:
        _become_fresh(request)
        form_ranks(request)
        exit_code = 0
    except SystemExit as error:
        exit_code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # One line: the rank's own traceback, above it in the log, is the one that matters.
        print(f"{LAUNCHER_NAME}: {sys.exc_info()[1]}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)  # the server's own clean-up, which would run now, is not ours


def record_killed_ranks(logs: Path, launch_id: str, number: int, frame: object) -> None:
    """SIGCHLD in the launcher: print which ranks a signal has ended, and record it as the cause.

    Torch reports only the first failed rank that it looks at. The others may hang in a collective with the killed one,
    also on other machines, and then end as this cause is known (Launch.watch).
    """
    children = Path(f"/proc/self/task/{os.getpid()}/children")  # missing in kernels built without CONFIG_PROC_CHILDREN
    for pid in map(int, children.read_text(encoding="utf-8").split() if children.exists() else ()):
        with contextlib.suppress(ChildProcessError, FileNotFoundError):
            # WNOWAIT leaves the zombie for torch, which waits for it itself.
            child = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if child is not None and child.si_code in (os.CLD_KILLED, os.CLD_DUMPED):
                name = processes.name(pid)
                cause = f"signal {child.si_status} ({processes.signal_name(child.si_status)})"
                os.write(2, f"{LAUNCHER_NAME}: {name} died of {cause}\n".encode())
                # A signal that asks to stop has its cause with whoever sent it.
                if child.si_status not in STOP_SIGNALS and (rank := name.removeprefix("rank ")).isdecimal():
                    signal_name = processes.signal_name(child.si_status)
                    phase = last_phase.of(launch_id, int(rank))
                    causes.record(logs, launch_id, causes.killed(int(rank), signal_name, phase))


def form_ranks(request: dict[str, Any]) -> None:
    """Have Accelerate fork the ranks. If one machine has only one rank, that runs in this process."""
    from accelerate import notebook_launcher

    rendezvous = request["rendezvous"]
    machines = rendezvous.get("num_nodes", 1)
    per_machine = request["processes"] // machines
    if per_machine == 1 < machines:  # notebook_launcher would ignore the other machines
        variables = {"LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "RANK": rendezvous["node_rank"], "WORLD_SIZE": machines}
        variables |= {"MASTER_ADDR": rendezvous["master_addr"], "MASTER_PORT": rendezvous["use_port"]}
        os.environ.update({name: str(value) for name, value in variables.items()})
        rendezvous = {}
    notebook_launcher(
        run_rank,
        (request["module"], request["words"]),
        num_processes=per_machine,
        mixed_precision=request["precision"],
        **rendezvous,
    )


def _become_fresh(request: dict[str, Any]) -> None:
    """Make this fork like a process that was just started with these variables, in a session of its own."""
    os.setsid()  # by its session the group is found (processes.in_session), and Ctrl-C does not reach it
    signal.set_wakeup_fd(-1)
    for number in (*STOP_SIGNALS, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as Python sets it when it starts
    procfs.name_process(LAUNCHER_NAME)
    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    os.environ.clear()
    os.environ.update(request["variables"])
    tempfile.tempdir = request["scratch"]  # torch's launcher leaves files in it
    handler = functools.partial(record_killed_ranks, Path(request["log"]).parent, request["launch_id"])
    signal.signal(signal.SIGCHLD, handler)
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # before the ranks are forked, which inherit it


def run_rank(module: str, words: list[str]) -> None:
    """As one rank, do what `python -m MODULE WORDS` does."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    tempfile.tempdir = None
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    procfs.name_process(SERVER_NAME)
    load()
    with Connection(int(sys.argv[1])) as connection:
        _answer(connection, ready=True)
        serve(connection)
