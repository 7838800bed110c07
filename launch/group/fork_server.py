"""Starts trials without their imports: a process that has them forks one process group after another.

It has touched no device and started no thread, so a fork of it is as good as a fresh process. Each trial is a session
of its own, whose first process is its launcher: there Accelerate's notebook_launcher forms the ranks.

It speaks JSON lines over a socket. Requests are what launch.group.warm_starter.WarmStarter.start sends; answers:
{"launch_id", "pid"} when the launcher is forked, {"launch_id", "code"} when it has ended.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import json
import os
import selectors
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

from bench.failure import causes
from bench.machine import procfs
from launch.group import processes

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)
SERVER_NAME, LAUNCHER_NAME = "resbench warm", "launcher"


def load() -> None:
    """Import all that a trial needs. RuntimeError: something started a thread, which no fork would have."""
    # pandas, which others import, takes pyarrow where it is installed, whose threads no fork would have.
    sys.modules.setdefault("pyarrow", None)  # type: ignore[arg-type]
    import accelerate  # noqa: F401
    import sklearn.datasets  # noqa: F401
    import torch.distributed
    import torchvision.transforms.v2  # noqa: F401

    import bench.instruments.operations
    import bench.worker  # noqa: F401

    if torch.distributed.is_available():  # else no trial has several processes
        from launch.group import rendezvous

        rendezvous.register()
    threads = os.listdir("/proc/self/task")
    if len(threads) > 1:
        raise RuntimeError(f"{len(threads)} threads run after the imports; start trials with --cold")


def serve(control: socket.socket) -> None:
    """Fork a launcher for each request, and tell how it ended, until the other side is gone."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        selector.register(reading, selectors.EVENT_READ)
        launched: dict[int, str] = {}
        read = b""
        while True:
            ready = [key.fileobj for key, _ in selector.select()]
            if reading in ready:
                os.read(reading, 4096)
                for pid, code in _ended():
                    _tell(control, launch_id=launched.pop(pid), code=code)
            if control in ready:
                got = control.recv(65536)
                if not got:
                    return
                *lines, read = (read + got).split(b"\n")
                for line in lines:
                    request = json.loads(line)
                    pid = os.fork()
                    if pid == 0:
                        selector.close()
                        for descriptor in (control.fileno(), reading, writing):
                            os.close(descriptor)
                        launch(request)
                    launched[pid] = request["launch_id"]
                    _tell(control, launch_id=request["launch_id"], pid=pid)


def _tell(control: socket.socket, **answer: Any) -> None:
    control.sendall(json.dumps(answer).encode() + b"\n")


def _ended() -> list[tuple[int, int]]:
    found = []
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            found.append((ended[0], os.waitstatus_to_exitcode(ended[1])))
    return found


def launch(request: dict[str, Any]) -> NoReturn:
    """As the launcher of one trial: form its ranks, and exit as they do."""
    code = 1
    try:
        _become_fresh(request)
        form_ranks(request)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # What a rank died of stands above; the launcher's own traceback would only bury it.
        print(f"{LAUNCHER_NAME}: {sys.exc_info()[1]}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def note_deaths(logs: Path, launch_id: str, number: int, frame: object) -> None:
    """Print which ranks a signal killed, and put it on record: torch tells that of the first alone that it looks at.

    The others may not come to it soon: they wait for each other, also on other machines.
    """
    children = Path(f"/proc/self/task/{os.getpid()}/children")  # which a kernel may be built without
    for pid in map(int, children.read_text().split() if children.exists() else ()):
        with contextlib.suppress(ChildProcessError, FileNotFoundError):
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is not None and ended.si_code in (os.CLD_KILLED, os.CLD_DUMPED):
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                number = ended.si_status
                said = f"{LAUNCHER_NAME}: {name} died of signal {number} ({processes.signal_name(number)})"
                os.write(2, said.encode() + b"\n")
                if number == signal.SIGKILL and (rank := name.removeprefix("rank ")).isdecimal():
                    causes.record(logs, launch_id, causes.killed(int(rank), "SIGKILL"))


def form_ranks(request: dict[str, Any]) -> None:
    """Have Accelerate fork the ranks; the only one of this machine runs in this process, as it does there too."""
    from accelerate import notebook_launcher

    meeting = request["meeting"]
    machines = meeting.get("num_nodes", 1)
    here = request["processes"] // machines
    if here == 1 < machines:
        os.environ.update(LOCAL_RANK="0", LOCAL_WORLD_SIZE="1", RANK=str(meeting["node_rank"]))
        os.environ.update(WORLD_SIZE=str(machines), MASTER_ADDR=meeting["master_addr"], MASTER_PORT=meeting["use_port"])
        meeting = {}
    notebook_launcher(
        run_rank,
        (request["experiment"], request["words"]),
        num_processes=here,
        mixed_precision=request["precision"],
        **meeting,
    )


def _become_fresh(request: dict[str, Any]) -> None:
    """Be as a process that was just started with these variables, in a session of its own."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in HANDLED:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    procfs.name_process(LAUNCHER_NAME)
    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    os.environ.clear()
    os.environ.update(request["variables"])
    tempfile.tempdir = request["scratch"]  # for what torch's launcher leaves behind
    signal.signal(signal.SIGCHLD, functools.partial(note_deaths, Path(request["log"]).parent, request["launch_id"]))
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # before the ranks are forked, which inherit it


def run_rank(experiment: str, words: list[str]) -> None:
    """As one rank: what `python -m bench.experiments.NAME WORDS` does."""
    from bench import cli, experiments

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    tempfile.tempdir = None
    sys.argv = [f"{Path(experiments.__file__).parent}/{experiment}.py", *words]
    cli.main(f"{experiment}.py")


if __name__ == "__main__":
    procfs.name_process(SERVER_NAME)
    load()
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        _tell(connection, ready=True)
        serve(connection)
