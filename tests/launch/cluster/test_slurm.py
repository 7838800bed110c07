"""The batch script: what it says, what it does with what comes back, and whole studies under a real Slurm."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from launching import MARK, SMALL, having, is_one_error, python, rows, until
from slurm_cluster import Cluster, cluster, lacking

ARM = ["resnet20_accumulation", "--arm", "16x1"]
# All that a shell, Slurm's own reading of #SBATCH lines and its patterns for file names make something of.
HOSTILE = 'o ut\'s "q" #1 50% $HOME `id` é'


def written(*words: str, out: Path) -> str:
    """The script that a command has written, which bash can read."""
    done = python("-m", "launch", "slurm", *ARM, *words, "--out", str(out))
    assert done.returncode == 0, done.stderr
    script = out / "slurm.sh"
    assert done.stdout == f"{script}\n"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
    return script.read_text()


def asked(script: str) -> dict[str, str]:
    """The #SBATCH lines."""
    lines = [line for line in script.splitlines() if line.startswith("#SBATCH ")]
    assert script.splitlines()[1 : len(lines) + 1] == lines, "Slurm reads none behind the first command"
    return {name: value for name, _, value in (line.removeprefix("#SBATCH --").partition("=") for line in lines)}


# What it says


def test_slurm_is_asked_for_the_machines_and_for_a_way_to_go_on(tmp_path: Path) -> None:
    words = ["--nodes", "2", "--gpus-per-node", "8", "--cpus-per-task", "32", "--partition", "gpu,big"]
    words += ["--time", "1-12:30", "--job-name", "study.1"]
    found = asked(written(*words, out=tmp_path / "runs"))
    assert found == {
        "job-name": "study.1",
        "nodes": "2",
        "ntasks-per-node": "1",
        "gpus-per-node": "8",
        "cpus-per-task": "32",
        "partition": "gpu,big",
        "time": "1-12:30",
        "output": f'"{tmp_path}/runs/slurm-%j.log"',
        "open-mode": "append",
        "signal": "TERM@60",
        "requeue": "",
    }


def test_what_is_not_given_is_the_clusters_own_but_each_process_has_a_cpu(tmp_path: Path) -> None:
    found = asked(written("--nodes", "2", "--processes", "2,8", out=tmp_path))
    assert not {"gpus-per-node", "partition", "time"} & set(found)
    assert found["cpus-per-task"] == "4"


# What it does, with commands that take down what they are given in place of Slurm's

STANDINS = {
    "srun": 'printf "%s\\n" "$@" >"$HERE/srun"; eval "$DO"',
    "scontrol": 'printf "%s\\n" "$*" >>"$HERE/scontrol"; [ "$1" != show ] || printf "n7\\nn8\\n"',
}


def ran(out: Path, scratch: Path, do: str) -> tuple[subprocess.CompletedProcess[str], list[str], list[str]]:
    """A script run by bash while srun does this: how it ended, the words of srun, and the commands for scontrol."""
    bin = scratch / "bin"
    bin.mkdir()
    for name, text in STANDINS.items():
        (bin / name).write_text(f"#!/bin/bash\n{text}\n")
        (bin / name).chmod(0o755)
    env = {**os.environ, "PATH": f"{bin}:{os.environ['PATH']}", "HERE": str(scratch), "DO": do, "OUT": str(out)}
    env |= {"SLURM_JOB_ID": "31234", "SLURM_JOB_NODELIST": "n[7-8]", "SLURM_CPUS_PER_TASK": "4"}
    done = subprocess.run([str(out / "slurm.sh")], env=env, capture_output=True, text=True, check=False)
    notes = scratch / "scontrol"
    return done, (scratch / "srun").read_text().splitlines(), notes.read_text().splitlines() if notes.exists() else []


def test_every_word_arrives_as_it_was_given(tmp_path: Path) -> None:
    out = tmp_path / HOSTILE
    written("--processes", "2", "--data-root", "a 'b' $C", out=out)
    done, words, _ = ran(out, tmp_path, "exit 0")
    assert (done.returncode, done.stderr) == (0, "")
    study = words[words.index("-m") :]
    assert study[:6] == ["-m", "launch", "run", *ARM]
    assert study[study.index("--data-root") + 1] == "a 'b' $C"
    assert study[study.index("--out") + 1] == str(out)
    assert study[study.index("--device") + 1] == "cpu"
    assert "--resume" in study
    assert not {"--machines", "--machine-rank", "--rendezvous"} & set(study)


def test_two_nodes_get_a_common_meeting_place_and_their_numbers(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    written("--nodes", "2", "--gpus-per-node", "4", out=out)
    done, words, _ = ran(out, tmp_path, "exit 0")
    assert (done.returncode, done.stderr) == (0, "")
    assert {"--kill-on-bad-exit=0", "--wait=60", "--cpus-per-task=4"} <= set(words)
    # What srun starts on each node, with a command in place of the study that prints its words.
    task, study = words[words.index("bash") :][:4], words[words.index("bash") + 4 :]
    on_node = [*task, "printf", "%s\n", *study]
    env = {**os.environ, "SLURM_NODEID": "1"}
    printed = subprocess.run(on_node, env=env, capture_output=True, text=True, check=True)
    study = printed.stdout.splitlines()
    assert study[1:7] == ["-m", "launch", "run", *ARM]
    for option, value in {"--machines": "2", "--processes": "8", "--device": "cuda", "--machine-rank": "1"}.items():
        assert (option, study[study.index(option) + 1]) == (option, value)
    assert study[study.index("--rendezvous") + 1] == f"n7:{10000 + 2 * 1234}"


def test_a_study_file_keeps_its_own_processes_and_device(tmp_path: Path) -> None:
    file, out = tmp_path / "study.toml", tmp_path / "runs"
    settings = ['experiments = ["resnet20_accumulation"]', 'arm = ["16x1"]', "processes = [1, 2]", 'device = "cpu"']
    file.write_text("\n".join(settings))
    done = python("-m", "launch", "slurm", str(file), "--gpus-per-node", "4", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert asked((out / "slurm.sh").read_text())["cpus-per-task"] == "2"
    _, words, _ = ran(out, tmp_path, "exit 0")
    assert words[words.index("run") + 1 :] == [str(file), "--resume", "--out", str(out)]


@pytest.mark.parametrize(
    ("more", "do", "code", "requeued"),
    [
        ([], "echo row >>\"$OUT/epochs.csv\"; exit 130", 130, True),
        ([], "exit 130", 130, False),
        ([], "echo row >>\"$OUT/epochs.csv\"; exit 1", 1, False),
        ([], "echo row >>\"$OUT/epochs.csv\"; exit 0", 0, False),
        (["--no-checkpoint"], "echo id,key,ok, >>\"$OUT/trials.csv\"; exit 130", 130, True),
        (["--no-checkpoint"], "echo id,key,interrupted,,ok >>\"$OUT/trials.csv\"; exit 130", 130, False),
        (["--no-checkpoint"], "echo row >>\"$OUT/epochs.csv\"; exit 130", 130, False),
    ],
)  # fmt: skip
def test_a_stopped_study_goes_on_later_unless_that_would_never_end(
    more: list[str], do: str, code: int, requeued: bool, tmp_path: Path
) -> None:
    out = tmp_path / HOSTILE
    written("--processes", "1", *more, out=out)
    done, _, told = ran(out, tmp_path, do)
    assert done.returncode == code
    assert told == (["requeue 31234"] if requeued else [])
    assert ("give more --time" in done.stderr) == (code == 130 and not requeued)


# What is refused


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "needs an experiment"),
        (["resnt"], "'resnt'"),
        ([*ARM, "--micro", "1"], "--micro-batch"),
        ([*ARM, "--nodes", "0"], "--nodes is 0"),
        ([*ARM, "--nodes", "two"], "'two'"),
        ([*ARM, "--cpus-per-task", "0"], "--cpus-per-task is 0"),
        ([*ARM, "--gpus-per-node", "-1"], "--gpus-per-node"),
        ([*ARM, "--nodes", "2"], "--machines is 2"),
        ([*ARM, "--nodes", "2", "--processes", "3"], "--processes is 3"),
        ([*ARM, "--nodes", "2", "--gpus-per-node", "4", "--processes", "8,16"], "--processes is 16"),
        ([*ARM, "--precision", "fp16"], "--precision fp16"),
        ([*ARM, "--tf32", "True"], "--tf32 True needs a CUDA device"),
        ([*ARM, "--weights", "no/such.pt"], "'no/such.pt'"),
        ([*ARM, "--partition", "gpu --wrap"], "'gpu --wrap'"),
        ([*ARM, "--job-name", "a\n#SBATCH --uid=0"], "a\\n#SBATCH"),
        ([*ARM, "--time", "tomorrow"], "'tomorrow'"),
        ([*ARM, "--no-resume"], "--no-resume"),
        ([*ARM, "--memory-limit", "orin"], "'orin'"),
        ([*ARM, "--machine-rank", "1"], "--machine-rank"),
        ([*ARM, "--rendezvous=a:1"], "--rendezvous"),
        ([*ARM, "--data-root", "a\nb"], "'a\\nb'"),
    ],
)
def test_a_wrong_word_is_named_and_nothing_is_written(words: list[str], said: str, tmp_path: Path) -> None:
    done = python("-m", "launch", "slurm", *words, "--out", str(tmp_path / "runs"))
    assert is_one_error(done), done.stderr
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a\nb", "a\\b"])
def test_a_folder_that_no_script_could_name_is_refused(name: str, tmp_path: Path) -> None:
    done = python("-m", "launch", "slurm", *ARM, "--out", str(tmp_path / name))
    assert is_one_error(done), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_sbatch_nothing_is_submitted_or_written(tmp_path: Path) -> None:
    done = python("-m", "launch", "slurm", *ARM, "--submit", "--out", str(tmp_path / "runs"), env={"PATH": "/nowhere"})
    assert is_one_error(done), done.stderr
    assert "sbatch" in done.stderr
    assert list(tmp_path.iterdir()) == []


# Under a real Slurm


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if missing := lacking():
        pytest.skip(f"Slurm is not installed (no {', '.join(missing)}); as root, make test-slurm installs it")
    with cluster(tmp_path_factory.mktemp("slurm")) as found:
        yield found


@dataclass
class Job:
    """A study that has been submitted, and the mark that all its processes carry."""

    id: str
    mark: str
    out: Path

    def rows(self, status: str) -> list[dict[str, str]]:
        return [row for row in rows(self.out, "trials") if row["status"] == status]

    def log(self) -> str:
        return (self.out / f"slurm-{self.id}.log").read_text()


def submit(slurm: Cluster, out: Path, *words: str) -> Job:
    mark = uuid.uuid4().hex
    done = python("-m", "launch", "slurm", *ARM, *words, "--submit", "--out", str(out), env={**slurm.env, MARK: mark})
    assert done.returncode == 0, done.stderr
    script, job = done.stdout.splitlines()
    assert script == str(out / "slurm.sh")
    return Job(job, mark, out)


@pytest.mark.slurm
def test_a_study_of_two_trials_runs_under_slurm_on_two_processes(slurm: Cluster, tmp_path: Path) -> None:
    job = submit(slurm, tmp_path / HOSTILE, *SMALL, "--epochs", "1,2", "--processes", "2")
    ended = slurm.end(job.id)
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("COMPLETED", "0:0", "0"), job.log()
    found = [(row["status"], row["epochs"], row["processes"], row["backend"]) for row in rows(job.out, "trials")]
    assert found == [("ok", "1", "2", "gloo"), ("ok", "2", "2", "gloo")]
    assert [row["images_seen"] for row in rows(job.out, "trials")] == ["64", "128"]
    assert "[2/2] resnet20_accumulation 16x1 epochs=2: ok" in job.log()
    assert having(MARK, job.mark) == []


@pytest.mark.slurm
def test_a_study_runs_on_two_nodes_which_find_each_other(slurm: Cluster, tmp_path: Path) -> None:
    job = submit(slurm, tmp_path / "runs", *SMALL, "--epochs", "1,2", "--processes", "2", "--nodes", "2")
    ended = slurm.end(job.id)
    assert (ended["JobState"], ended["NumNodes"], ended["Restarts"]) == ("COMPLETED", "2", "0"), job.log()
    found = [(row["status"], row["epochs"], row["processes"], row["machines"]) for row in rows(job.out, "trials")]
    assert found == [("ok", "1", "2", "2"), ("ok", "2", "2", "2")]
    assert having(MARK, job.mark) == []


def trained(job: Job, launches: int) -> None:
    """Wait until so many launches have finished epochs, the last of them some."""

    def enough() -> bool:
        counted = Counter(row["launch_id"] for row in rows(job.out, "epochs"))
        return len(counted) >= launches and list(counted.values())[-1] > 3

    until(enough, f"epochs of launch {launches}")


@pytest.mark.slurm
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("nodes", "epochs"), [("1", 200), ("2", 60)])
def test_a_study_that_is_stopped_and_requeued_goes_on_where_it_stood(
    nodes: str, epochs: int, slurm: Cluster, tmp_path: Path
) -> None:
    """Stopped as before the time limit (a signal for the tasks alone), then requeued from outside in the middle."""
    words = ["--epochs", f"1,{epochs}", "--processes", "2", "--nodes", nodes, "--time", "60"]
    job = submit(slurm, tmp_path / "runs", *SMALL, *words)
    trained(job, 2)
    slurm.say("scancel", "--signal=TERM", job.id)
    until(lambda: slurm.job(job.id)["Restarts"] == "1", "the job to requeue itself")
    trained(job, 3)
    slurm.say("scontrol", "requeue", job.id)
    ended = slurm.end(job.id)
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("COMPLETED", "0:0", "2"), job.log()
    assert having(MARK, job.mark) == []

    assert [(row["epochs"], row["processes"]) for row in job.rows("ok")] == [("1", "2"), (str(epochs), "2")]
    interrupted = job.rows("interrupted")
    assert len(interrupted) == 2
    assert len(rows(job.out, "trials")) == 4
    assert {row["trial_key"] for row in interrupted} == {job.rows("ok")[1]["trial_key"]}
    assert all("SIGTERM" in row["error"] for row in interrupted)
    # Each epoch is there, and at a stop at most the one that had its row and not yet its checkpoint is there again.
    long = {row["launch_id"] for row in rows(job.out, "trials") if row["epochs"] == str(epochs)}
    counted = Counter(int(row["epoch"]) for row in rows(job.out, "epochs") if row["launch_id"] in long)
    assert sorted(counted) == list(range(epochs))
    assert counted.total() <= epochs + 2
    assert int(job.rows("ok")[1]["resumed_at_epoch"]) > int(interrupted[0]["images_seen"]) / 64 - 1
