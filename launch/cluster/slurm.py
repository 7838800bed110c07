"""A batch script that runs a study under Slurm and continues it when the job is requeued."""

from __future__ import annotations

import dataclasses
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.called import module_command
from bench.errors import UsageError
from bench.machine import environment
from bench.machine.environment import CHECKOUT
from bench.record.columns import columns
from bench.record.csvfile import write_whole
from bench.record.run_folder import RunFolder
from launch.cluster import batch_job
from launch.group import accelerate_command

# Slurm sends SIGTERM this many seconds before the time limit (up to 60 earlier). Stopping takes the study about 10.
NOTICE_S = 60
# Seconds that the other tasks may go on after one has ended: machine 0 may have rows to write.
WAIT_S = 60


@dataclass(frozen=True)
class Batch:
    """The options for Slurm. None: the cluster's default."""

    nodes: int = 1
    """Machines of the job."""
    gpus_per_node: int = 0
    """GPUs of each node; 0: the trials run on CPUs."""
    cpus_per_task: int | None = None
    """CPUs on each node, where all processes are one task (default: one for each process)."""
    partition: str | None = None
    """Partition of the cluster (default: the cluster's own)."""
    time: str | None = None
    """Time limit, such as 90 (minutes), 12:00:00 or 2-00:00:00 (default: the cluster's own)."""
    job_name: str = "resbench"
    """Name of the job."""

    def __post_init__(self) -> None:
        batch_job.at_least(self, nodes=1, gpus_per_node=0, cpus_per_task=1)
        batch_job.spelled(
            self,
            partition=(r"[A-Za-z0-9_][A-Za-z0-9_.,-]*", "gpu"),
            time=(r"\d+(:\d\d?){0,2}|\d+-\d\d?(:\d\d?){0,2}", "90 (minutes), 12:00:00 or 2-00:00:00"),
            job_name=(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", "resbench"),
        )


def write(batch: Batch, command: batch_job.RunCommand) -> Path:
    """Write RUN_FOLDER/slurm.sh and return its path. Raises UsageError if the machines could not run the study."""
    for trial in command.trials:  # checked as one process on a GPU: this may be a login node, which has none
        accelerate_command.check(dataclasses.replace(trial, processes=1, machines=1), 1)
    out = command.options.out.absolute()
    text = script(batch, command, out)
    RunFolder(out).prepare()
    path = out / "slurm.sh"
    write_whole(path, text)
    path.chmod(0o755)
    return path


def submit(path: Path) -> str:
    """Submit the script and return the job's id. Raises UsageError if Slurm refuses it."""
    done = subprocess.run(
        ["sbatch", "--parsable", str(path)], capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    if done.returncode:
        why = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise UsageError(f"sbatch does not take {path}: {why}")
    return done.stdout.strip().partition(";")[0]


def script(batch: Batch, command: batch_job.RunCommand, out: Path) -> str:
    """The batch script. Raises UsageError if Slurm cannot write a log into the folder."""
    if "\\" in str(out):
        raise UsageError(f"--out is {str(out)!r}, and Slurm takes no backslash in a path; choose another folder")
    log = str(out / "slurm-").replace("%", "%%") + "%j.log"
    directives = {
        "job-name": batch.job_name,
        "nodes": batch.nodes,
        "ntasks-per-node": 1,
        "gpus-per-node": batch.gpus_per_node or None,
        "cpus-per-task": batch.cpus_per_task or command.processes_per_node(),
        "partition": batch.partition,
        "time": batch.time,
        "output": '"{}"'.format(log.replace('"', '\\"')),
        "open-mode": "append",  # after a requeue the job has the same id, and would overwrite its log
        "signal": f"TERM@{NOTICE_S}",
    }
    lines = ["#!/bin/bash", *(f"#SBATCH --{name}={value}" for name, value in directives.items() if value is not None)]
    lines += ["#SBATCH --requeue", "set -u", f"cd -- {shlex.quote(str(folder()))} || exit 2"]
    words = batch_job.with_out(command.words, str(out))
    lines += [f"study=({shlex.join(module_command('launch', 'run', *words))})"]
    lines += SEVERAL if batch.nodes > 1 else []
    lines += [f"finished() {{ {finished(out, command.options.checkpoint)}; }}", *BODY]
    return "\n".join(lines) + "\n"


def folder() -> Path:
    """Where the job runs: in the checkout, or where a wheel's command was given."""
    return CHECKOUT if environment.built() is None else Path.cwd()


# The port is made of the job's id, so that two jobs on one machine get different ones (and the next port, which is used
# too), and is below 32768, where Linux begins to hand out ports itself. The first machine of the list is machine 0.
SEVERAL = """\
hosts=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))
study+=(--rendezvous "${hosts[0]}:$((10000 + 2 * (SLURM_JOB_ID % 10000)))")
study=(bash -c 'exec "$@" --machine-rank "$SLURM_NODEID"' task "${study[@]}")""".splitlines()
# The signal before the time limit goes to the tasks, not to this script; so a task's shell is replaced (`exec` above).
BODY = f"""\
before=$(finished)
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=0 --wait={WAIT_S} "${{study[@]}}"
code=$?
if ((code == 130)); then  # interrupted, as before the time limit: requeue, unless nothing was finished this time
    if (($(finished) > before)); then
        scontrol requeue "$SLURM_JOB_ID"
    else
        echo "error: no epoch or trial was finished within the time limit; give more --time" >&2
    fi
fi
exit "$code\"""".splitlines()


def finished(out: Path, checkpoint: bool) -> str:
    """A shell command that counts what a later run can skip: epochs, or without checkpoints whole trials."""
    if checkpoint:
        return f"cat -- {shlex.quote(str(out / 'epochs.csv'))} 2>/dev/null | wc -l"
    status = [column.name for column in columns("trials")].index("status") + 1
    return f"cut -d, -f{status} -- {shlex.quote(str(out / 'trials.csv'))} 2>/dev/null | grep -cx ok"
