"""A real Slurm on this machine, for the tests: controller and two node daemons on loopback, all in one folder."""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from launching import until

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")
SBIN = "/usr/sbin"  # where the daemons are, which need not be on a user's PATH
# The first node's name has an address, as all nodes' names do elsewhere. Slurm waits for a requeued job until its
# credentials have run out, 2 minutes by default.
CONFIG = """\
ClusterName=resbench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/%n.pid
SlurmdSpoolDir={folder}/%n
SlurmdLogFile={folder}/%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
NodeName={host} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4
NodeName={host}-other NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4
PartitionName=main Nodes={host},{host}-other Default=YES MaxTime=INFINITE State=UP
"""


def lacking() -> list[str]:
    """The programs that are not installed here."""
    return [name for name in NEEDED if not shutil.which(name, path=path())]


def path() -> str:
    return os.pathsep.join([os.environ.get("PATH", os.defpath), SBIN])


class Cluster:
    """What the tests ask of a Slurm that is up."""

    def __init__(self, folder: Path) -> None:
        own = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH"))}
        self.env = {**own, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": path()}

    def say(self, *words: str) -> str:
        """What one of Slurm's commands prints."""
        done = subprocess.run(words, env=self.env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def job(self, number: str) -> dict[str, str]:
        """What Slurm knows of a job."""
        words = self.say("scontrol", "--oneliner", "show", "job", number).split()
        return {name: value for name, _, value in (word.partition("=") for word in words)}

    def end(self, number: str, timeout: float = 400) -> dict[str, str]:
        """The job once it has come to its end."""
        ends = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        until(lambda: self.job(number)["JobState"] in ends, f"the end of job {number}", timeout)
        return self.job(number)


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster that is up, and is gone behind this, with all that it ran."""
    with contextlib.closing(socket.socket()) as a, contextlib.closing(socket.socket()) as b, socket.socket() as c:
        for each in (a, b, c):
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in (a, b, c)]
    host = socket.gethostname().partition(".")[0]
    (folder / "state").mkdir()
    (folder / "slurm.conf").write_text(CONFIG.format(folder=folder, host=host, ports=ports, user=getpass.getuser()))
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    (folder / "munge.key").chmod(0o600)
    own = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munge.pid"}
    own |= {"log-file": "munge.log", "seed-file": "munge.seed"}
    found = Cluster(folder)
    with contextlib.ExitStack() as running:
        munge = ["munged", "--foreground", "--force", *(f"--{name}={folder / file}" for name, file in own.items())]
        running.enter_context(daemon(found, folder, munge))
        until((folder / "munge.socket").exists, "munge", 20)
        running.enter_context(daemon(found, folder, ["slurmctld", "-D"]))
        for node in (host, f"{host}-other"):
            running.enter_context(daemon(found, folder, ["slurmd", "-D", "-N", node]))
        until(lambda: idle(found) == 2, f"Slurm's nodes (its logs are in {folder})", 60)
        try:
            yield found
        finally:
            found.say("scancel", "--user", getpass.getuser())
            until(lambda: not found.say("squeue", "--noheader"), "the end of all jobs", 60)


def idle(found: Cluster) -> int:
    """Nodes that wait for work; none while there is no controller to ask."""
    words = ["sinfo", "--noheader", "--Node", "--format=%T"]
    done = subprocess.run(words, env=found.env, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.split().count("idle")


@contextlib.contextmanager
def daemon(found: Cluster, folder: Path, words: list[str]) -> Iterator[None]:
    """A daemon in the foreground, asked to end behind this, and killed where it does not."""
    with open(folder / f"{words[0]}.out", "a") as out:
        process = subprocess.Popen(words, env=found.env, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        time.sleep(0.2)
        assert process.poll() is None, f"{words[0]} ended: {(folder / f'{words[0]}.out').read_text()}"
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
