"""One sweep on several machines: two runners on this one, and two hosts made of network namespaces."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from conftest import CHECKOUT, Launch
from launching import TINY, Command, is_one_error, rows, until

from bench import experiments
from bench.errors import UsageError
from bench.options import Options
from bench.trial import Trial
from launch.group.run_context import RunContext
from launch.multi_node import address, compatibility, coordinator, join, store
from launch.multi_node.store import StoreConnection
from launch.run_options import RunOptions

RUN = ["-m", "launch", "run", "resnet20_accumulation", "--arm", "16x1", *TINY, "--no-checkpoint"]
SOON_S = 90.0


def free_port() -> int:
    """A port that is free, and the one behind it as far as one can tell."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return min(probe.getsockname()[1], 65000)


@dataclass
class Two:
    """What came of a sweep on two machines."""

    folders: tuple[Path, Path]
    codes: list[int]
    said: list[str]
    trials: list[dict[str, str]]
    left: int


@contextlib.contextmanager
def two(
    scratch: Path, words: Sequence[str], rendezvous: str, prefixes: Sequence[Sequence[str]] = ((), ()), **options: Any
) -> Iterator[tuple[Two, list[Command]]]:
    """The same command as machines 0 and 1, each with a folder of its own; at the end, what came of it."""
    folders = (scratch / "machine0", scratch / "machine1")
    found = Two(folders, [], [], [], 0)
    common = [*RUN, *words, "--machines", "2", "--rendezvous", rendezvous]
    with contextlib.ExitStack() as stack:
        commands = [
            stack.enter_context(
                Command([*common, "--machine-rank", str(n), "--out", str(folders[n])], scratch, prefix=prefixes[n])
            )
            for n in (0, 1)
        ]
        yield found, commands
        found.codes = [command.wait(SOON_S) for command in commands]
        found.said = [command.stderr.read_text() for command in commands]
        found.trials = rows(folders[0], "trials")
        found.left = sum(len(command.left()) for command in commands)


# Two runners on this machine


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Two:
    """Three trials of four processes; in the middle of the second, machine 1's rank 2 is killed, and in that of the
    third, machine 0 itself."""
    words = ["--processes", "4", "--epochs", "2,100000,100001"]
    with two(tmp_path_factory.mktemp("here"), words, f"127.0.0.1:{free_port()}") as (found, commands):
        until(lambda: len(rows(found.folders[0], "trials")) == 1 and rank(commands[1], 2), "the second trial")
        until(lambda: launches(found) == 2, "training to begin")
        rank(commands[1], 2).kill()
        until(lambda: launches(found) == 3, "the third trial")
        commands[0].process.kill()
        until(lambda: not commands[0].left(), "its ranks to end")
    return found


def launches(found: Two) -> int:
    """How many launches have trained for an epoch."""
    return len({row["launch_id"] for row in rows(found.folders[0], "epochs")})


def rank(command: Command, number: int) -> Any:
    """The rank's process, which has to be there."""
    return until(lambda: command.rank(number), f"rank {number}")


def test_a_trial_over_two_machines_is_one_group_with_one_row(here: Two) -> None:
    row = here.trials[0]
    assert row["status"] == "ok", here.said
    assert (row["processes"], row["machines"], row["backend"], row["images_seen"]) == ("4", "2", "gloo", "128")
    assert [part.split(": ")[1].split(" x ")[0] for part in row["devices"].split("; ")] == ["2", "2"]


def test_what_happens_on_another_machine_is_told_by_its_row(here: Two) -> None:
    row = here.trials[1]
    assert row["status"] == "crashed"
    assert row["error"].startswith("machine 1 (")
    assert "rank 2 was killed" in row["error"]


def test_the_end_of_machine_0_ends_what_runs_on_the_others(here: Two) -> None:
    """It alone keeps rows, and nothing is left."""
    assert not (here.folders[1] / "trials.csv").exists()
    assert (here.codes, here.left) == ([-signal.SIGKILL, 1], 0)
    *parts, ended = here.said[1].splitlines()
    assert ended == "error: machine 0 (127.0.0.1) closed its connection; what ran here is ended"
    assert len(parts) == 3  # one for each trial, and no C++ stack
    assert all(part.endswith(": this machine's part of it") for part in parts), parts


@pytest.mark.parametrize("code", [0, 1])
def test_the_others_end_as_machine_0_does(code: int, tmp_path: Path) -> None:
    rendezvous = f"127.0.0.1:{free_port()}"
    gathering = Gathering(rendezvous, 2, compatibility.fingerprint([]))
    ending = threading.Thread(target=lambda: gathering.connection().publish(exit_code=code))
    ending.start()
    unused: Any = None
    watchdog: Any = SimpleNamespace(ensure_running=lambda: None)
    options = RunOptions(machine_rank=1, rendezvous=rendezvous)
    context = RunContext("x", unused, watchdog, unused, tmp_path, Options(out=tmp_path), options, 0)
    assert coordinator.run_as_other_machine(context, []) == code
    ending.join()
    gathering.connection().close()


def test_the_end_of_another_machine_is_in_the_row(tmp_path: Path) -> None:
    """Its launcher and its ranks are killed, so that it cannot say why."""
    with two(tmp_path, ["--processes", "2", "--epochs", "100000"], f"127.0.0.1:{free_port()}") as (found, commands):
        until(lambda: rows(found.folders[0], "epochs"), "training to begin")
        commands[1].process.kill()
    (row,) = found.trials
    assert (found.codes, found.left) == ([1, -signal.SIGKILL], 0)
    assert row["status"] == "crashed"
    assert re.match(r"machine 1 \(.+\) is lost: no heartbeat for 15 s", row["error"]), row["error"]


def test_gloo_and_nccl_take_the_interface_that_leads_to_machine_0_unless_one_was_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.delenv(name, raising=False)
    leading = address.interface_to("127.0.0.1")
    assert leading
    expected = {"GLOO_SOCKET_IFNAME": leading, "NCCL_SOCKET_IFNAME": f"={leading}"}
    assert address.interface_variables("127.0.0.1") == expected
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib0")
    assert address.interface_variables("127.0.0.1") == {"GLOO_SOCKET_IFNAME": leading}


# Two hosts


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[str, str]]:
    """Two network namespaces with a link between them."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("two hosts are made by root with iproute2's ip")
    names = (f"rb{os.getpid()}a", f"rb{os.getpid()}b")
    made = subprocess.run(["ip", "netns", "add", names[0]], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no network namespaces here: {made.stderr.strip()}")
    try:
        ip("netns", "add", names[1])
        ip("link", "add", "v0", "netns", names[0], "type", "veth", "peer", "name", "v1", "netns", names[1])
        for number, name in enumerate(names):
            ip("-n", name, "addr", "add", f"10.77.0.{number + 1}/24", "dev", f"v{number}")
            for device in ("lo", f"v{number}"):
                ip("-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@pytest.fixture(scope="module")
def cut(hosts: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Two:
    """A trial over both hosts; then one in whose middle the link between them is cut, and one that never begins."""
    prefixes = [["ip", "netns", "exec", name] for name in hosts]
    words = ["--processes", "2", "--epochs", "2,100000,3"]
    with two(tmp_path_factory.mktemp("hosts"), words, "10.77.0.1:29500", prefixes) as (found, _):
        until(lambda: len({row["launch_id"] for row in rows(found.folders[0], "steps")}) == 2, "the second trial")
        ip("-n", hosts[1], "link", "set", "v1", "down")
    return found


def test_a_trial_over_two_hosts_has_its_row(cut: Two) -> None:
    row = cut.trials[0]
    assert (row["status"], row["machines"], row["images_seen"], row["backend"]) == ("ok", "2", "128", "gloo"), cut.said


def test_a_link_that_is_cut_ends_the_trial_and_the_sweep(cut: Two) -> None:
    assert [row["epochs"] for row in cut.trials] == ["2", "100000"]
    assert cut.trials[1]["status"] == "crashed"
    assert "machine 1" in cut.trials[1]["error"]
    assert "no heartbeat for 15 s" in cut.trials[1]["error"]
    assert "no other trial is started" in cut.said[0]
    assert "machine 0 (10.77.0.1) is lost" in cut.said[1]
    assert (cut.codes, cut.left) == ([2, 1], 0)


# Machines that do not go together


def test_a_machine_with_other_code_is_refused_by_the_file(tmp_path: Path) -> None:
    for folder in (*compatibility.FOLDERS, "reports"):
        shutil.copytree(CHECKOUT / folder, tmp_path / "other" / folder, ignore=shutil.ignore_patterns("__pycache__"))
    with open(tmp_path / "other" / "bench" / "training" / "loop.py", "a") as file:
        file.write("# another version\n")
    elsewhere = [["env", "-C", str(CHECKOUT)], ["env", "-C", str(tmp_path / "other")]]
    with two(tmp_path, ["--processes", "2"], f"127.0.0.1:{free_port()}", elsewhere) as (found, _):
        pass
    for said in found.said:
        assert said.splitlines()[-1].startswith("error: machine 1 (")
        assert "has other code than machine 0, in bench/training/loop.py; check out the same commit" in said
    assert (found.codes, found.trials, found.left) == ([2, 2], [], 0)


def test_a_machine_with_other_versions_is_refused_by_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = tmp_path / "accelerate-0.0.1.dist-info"
    planted.mkdir()
    (planted / "METADATA").write_text("Metadata-Version: 2.1\nName: accelerate\nVersion: 0.0.1\n")
    rendezvous, ours = f"127.0.0.1:{free_port()}", compatibility.fingerprint([])
    monkeypatch.syspath_prepend(tmp_path)
    gathering = Gathering(rendezvous, 2, ours)
    with pytest.raises(UsageError, match=r"has accelerate 0\.0\.1 where machine 0 has"):
        join.join_machine_0(rendezvous, 1, compatibility.fingerprint([]), 30.0)
    gathering.join()
    assert "has accelerate 0.0.1 where machine 0 has" in gathering.refused


def test_other_trials_are_a_difference_and_the_same_are_none() -> None:
    trial = experiments.load("resnet20_accumulation").trial("resnet20_accumulation", "16x1")
    ours = compatibility.fingerprint([trial])
    assert compatibility.difference("machine 1", ours, json.loads(json.dumps(ours))) is None
    for theirs in (compatibility.fingerprint([trial, trial]), compatibility.fingerprint([trial], trace=True)):
        said = compatibility.difference("machine 1", ours, theirs)
        assert said == "machine 1 is to run other trials than machine 0; give both the same command"


def test_the_version_of_timm_has_to_be_the_same_where_a_model_is_timm_s(monkeypatch: pytest.MonkeyPatch) -> None:
    def known(version: str, model: str) -> dict[str, Any]:
        monkeypatch.setattr("bench.machine.environment.version", lambda package: version if package == "timm" else "1")
        return compatibility.fingerprint([Trial(model=model)])

    said = [
        compatibility.difference("machine 1", known("1.0.31", model), known("1.0.9", model))
        for model in ("resnet20", "timm/resnet50d")
    ]
    assert said == [None, "machine 1 has timm 1.0.9 where machine 0 has 1.0.31; install the same on both"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--machines", "2", "--processes", "2"], "--rendezvous HOST:PORT"),
        (
            ["--machines", "2", "--processes", "3", "--rendezvous", "localhost:1"],
            "--processes is 3 but --machines is 2",
        ),
        (["--machines", "2", "--processes", "2", "--rendezvous", "localhost"], "'localhost'"),
        (["--machines", "2", "--processes", "2", "--rendezvous", "localhost:65535"], "'localhost:65535'"),
        (["--machines", "2", "--processes", "2", "--rendezvous", "h:1", "--machine-rank", "2"], "--machine-rank is 2"),
        (["--rendezvous", "localhost:1"], "--machines too"),
        (["--machine-rank", "1"], "--machines too"),
    ],
)
def test_options_that_do_not_go_together_are_named(words: list[str], said: str, launch: Launch, tmp_path: Path) -> None:
    done = launch(*RUN[2:], *words, "--out", str(tmp_path / "runs"))
    assert is_one_error(done), done.stderr
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("machine", "rendezvous", "said"),
    [
        ("1", "127.0.0.1:9", "machine 0 cannot be reached at 127.0.0.1:9"),
        ("1", "no.such.host.invalid:9", "no.such.host.invalid:9 has no address"),
        ("0", "192.0.2.1:2950", "cannot listen on --rendezvous 192.0.2.1:2950"),
    ],
)
def test_an_unreachable_rendezvous_is_one_sentence(
    machine: str, rendezvous: str, said: str, launch: Launch, tmp_path: Path
) -> None:
    words = ["--machines", "2", "--processes", "2", "--machine-rank", machine, "--rendezvous", rendezvous]
    done = launch(*RUN[2:], *words, "--join-timeout", "1", "--out", str(tmp_path / "runs"))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert rows(tmp_path / "runs", "trials") == []


def test_machine_0_says_how_many_came(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="of 3 machines only 1 came to 127"):
        join.wait_for_machines(f"127.0.0.1:{free_port()}", 3, compatibility.fingerprint([]), 0.5)


class Gathering(threading.Thread):
    """Machine 0, which waits for the others in the background."""

    def __init__(self, rendezvous: str, machines: int, fingerprint: dict[str, Any]) -> None:
        super().__init__()
        self.arguments = rendezvous, machines, fingerprint
        self.found: list[StoreConnection] = []
        self.refused = ""
        self.start()

    def run(self) -> None:
        try:
            self.found.append(join.wait_for_machines(*self.arguments, 30.0))
        except UsageError as error:
            self.refused = str(error)

    def connection(self) -> StoreConnection:
        """Its connection once all are there."""
        self.join()
        return self.found[0]


def reached(host: str, port: int) -> socket.socket:
    """A connection to machine 0, which may not listen yet."""
    found = until(lambda: connected(host, port), "machine 0 to listen")
    assert found is not None
    return found


def test_who_does_not_speak_our_language_is_no_machine() -> None:
    """A stranger at the port neither stops the others from coming nor is let in."""
    rendezvous, known = f"127.0.0.1:{free_port()}", compatibility.fingerprint([])
    host, port = address.parse_endpoint(rendezvous)
    gathering = Gathering(rendezvous, 2, known)
    hostile = [b"GET / HTTP/1.1\r\n\r\n", b'{"machine": 1}\n', b"[1]\n", b"\0" * 5000, b"\x02"]
    strangers = []
    for words in hostile:
        stranger = reached(host, port)
        stranger.sendall(words)
        strangers.append(stranger)  # some hang up, the others stay and say no more
    for stranger in strangers[::2]:
        stranger.close()
    written = ["\0", "[1]", '"x"', "[" * 10000, '{"machine": 1}', '{"token": "x", "fingerprint": 3, "host": 1}']
    talking = store.import_store()(host, port, wait_for_workers=False)
    for value in written:
        talking.set("machine/1", value)  # as one who knows the store's protocol can
        time.sleep(2 * store.EXCHANGE_S)
        assert gathering.is_alive()
    with contextlib.closing(join.join_machine_0(rendezvous, 1, known, 30.0)) as ours:
        machine_0 = gathering.connection()
        assert list(machine_0.peers) == [1]
        machine_0.publish(hello="there")
        until(lambda: ours.state(0).get("hello") == "there", "machine 0's word")
        machine_0.close()
    for stranger in strangers[1::2]:
        stranger.close()


@pytest.mark.parametrize("hangs_up", [True, False])
def test_a_stranger_in_the_place_of_machine_0_is_told(hangs_up: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "CONNECT_S", 1.0)
    monkeypatch.setattr(store, "LOST_S", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept = []

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    kept.append(server.accept()[0])
                    if hangs_up:
                        kept.pop().close()

        threading.Thread(target=answer, daemon=True).start()
        rendezvous = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UsageError, match=f"what listens at {rendezvous} is not machine 0; give"):
            join.join_machine_0(rendezvous, 1, compatibility.fingerprint([]), 3.0)
    for connection in kept:
        connection.close()


def test_the_store_listens_on_the_address_of_the_rendezvous_alone() -> None:
    rendezvous, known = f"127.0.0.1:{free_port()}", compatibility.fingerprint([])
    host, port = address.parse_endpoint(rendezvous)
    gathering = Gathering(rendezvous, 2, known)
    with contextlib.closing(join.join_machine_0(rendezvous, 1, known, 30.0)):
        machine_0 = gathering.connection()
        listening = [each.laddr for each in psutil.Process().net_connections() if each.status == psutil.CONN_LISTEN]
        assert [each.ip for each in listening if each.port == port] == [host]
    machine_0.close()
    assert connected(host, port) is None


def test_machines_wait_for_each_other_longer_than_a_heartbeat_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that was started again while it waited is let in again; its former connection does not count."""
    monkeypatch.setattr(store, "LOST_S", 1.0)
    monkeypatch.setattr(store, "HEARTBEAT_S", 0.1)
    rendezvous, known = f"127.0.0.1:{free_port()}", compatibility.fingerprint([])
    host, port = address.parse_endpoint(rendezvous)
    gathering = Gathering(rendezvous, 3, known)
    reached(host, port).close()
    former = store.import_store()(host, port, wait_for_workers=False)
    former.set("machine/1", json.dumps({"token": "former", "host": "former", "fingerprint": known}))
    del former
    joined: dict[int, StoreConnection] = {}

    def join_as(number: int) -> None:
        joined[number] = join.join_machine_0(rendezvous, number, known, 30.0)

    joining = threading.Thread(target=join_as, args=[1])
    joining.start()
    time.sleep(1.5)
    join_as(2)
    joining.join()
    machine_0 = gathering.connection()
    assert machine_0.peers[1].name == f"machine 1 ({socket.gethostname()})"
    assert [machine_0.loss(number) for number in (1, 2)] == [None, None]
    for connection in (joined[1], joined[2], machine_0):
        connection.close()


def test_a_rank_is_of_one_process() -> None:
    """Before the sweep begins the last process that claims it has it; one that comes afterwards is refused."""
    rendezvous, known = f"127.0.0.1:{free_port()}", compatibility.fingerprint([])
    host, port = address.parse_endpoint(rendezvous)
    gathering = Gathering(rendezvous, 3, known)
    reached(host, port).close()
    first = StoreConnection((host, port), 1, {0: "machine 0"})
    first.publish(host="first", fingerprint=known)
    until(lambda: gathering.is_alive() and "first" in first._last[1], "the first")
    second = StoreConnection((host, port), 1, {0: "machine 0"})
    second.publish(host="second", fingerprint=known)
    with pytest.raises(UsageError, match="--machine-rank 1 is another process's now"):
        until(lambda: first.loss(0), "the first to notice")
    with contextlib.closing(join.join_machine_0(rendezvous, 2, known, 30.0)):
        machine_0 = gathering.connection()
        assert machine_0.peers[1].name == "machine 1 (second)"
        with pytest.raises(UsageError, match="has begun without this process"):
            join.join_machine_0(rendezvous, 1, known, 30.0)
        time.sleep(2 * store.HEARTBEAT_S)
        assert (machine_0.loss(1), second.loss(0)) == (None, None)
    for connection in (first, second, machine_0):
        connection.close()


def test_a_name_under_which_no_other_machine_can_come_is_told_when_none_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Debian has it in /etc/hosts of the machine's own name."""
    known = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *more, **named: known("127.0.1.1", *more, **named))
    with pytest.raises(UsageError, match=r"came to node7:\d+ within 0.5 s; it is 127\.0\.1\.1 here, where no other"):
        join.wait_for_machines(f"node7:{free_port()}", 2, compatibility.fingerprint([]), 0.5)


def connected(host: str, port: int) -> socket.socket | None:
    with contextlib.suppress(OSError):
        return socket.create_connection((host, port))
    return None


def test_a_machine_is_lost_when_its_heartbeat_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LOST_S", 2.0)
    monkeypatch.setattr(store, "HEARTBEAT_S", 0.1)
    rendezvous, known = f"127.0.0.1:{free_port()}", compatibility.fingerprint([])
    gathering = Gathering(rendezvous, 2, known)
    other = join.join_machine_0(rendezvous, 1, known, 30.0)
    machine_0 = gathering.connection()
    deadline = time.monotonic() + 3.0
    while time.monotonic() < deadline:
        time.sleep(0.05)
        assert (machine_0.loss(1), other.loss(0)) == (None, None)
    monkeypatch.setattr(other, "_write", lambda store: None)
    said = until(lambda: machine_0.loss(1), "the loss")
    assert said == f"machine 1 ({socket.gethostname()}) is lost: no heartbeat for 2 s"
    monkeypatch.undo()
    other.close()
    ended = f"machine 1 ({socket.gethostname()}) closed its connection"
    until(lambda: machine_0.loss(1) == ended, "the end of the connection")
    machine_0.close()


def test_the_end_of_the_store_is_noticed_at_once() -> None:
    rendezvous, known = f"127.0.0.1:{free_port()}", compatibility.fingerprint([])
    gathering = Gathering(rendezvous, 2, known)
    other = join.join_machine_0(rendezvous, 1, known, 30.0)
    machine_0 = gathering.connection()
    machine_0._stopping = True  # as after SIGKILL, it says nothing of its end
    assert until(lambda: other.loss(0), "the loss", 2.0) == "machine 0 (127.0.0.1) closed its connection"
    other.close()
    machine_0.close()


def test_a_name_that_is_known_a_little_later_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of a pod, which has no address before it runs."""
    known, asked = socket.getaddrinfo, []

    def later(host: str, *more: Any, **named: Any) -> Any:
        asked.append(host)
        if len(asked) == 1:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return known(host, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", later)
    assert address.resolve("127.0.0.1", 9, 30.0)[1] == ("127.0.0.1", 9)
    assert len(asked) == 2
