"""The commands of `python -m launch`. Imports no torch."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

from bench import experiments
from bench.errors import UsageError, one_sentence
from bench.record import experiment_trackers
from launch.cluster import k8s, slurm
from launch.commands import env, evaluate, gate, plan, sheet
from launch.commands import list as catalogue
from launch.group import accelerate_command
from launch.memory import limits
from launch.multi_node.address import parse_endpoint
from launch.run_options import RunOptions
from launch.sweep import dry_run, request, runner, study_folder

USAGE = """usage: python -m launch list [--markdown]
       python -m launch run EXPERIMENT... [--arm A,B] [--preset full|mini] [--FIELD VALUE[,VALUE...]] [--out RUN_FOLDER]
                  [--repeats N [--order interleaved|sequential]] [--dry-run] [--timeout S] [--stall-timeout S]
                  [--resume [--retry-failed]] [--fail-fast] [--parallel N] [--cold]
                  [--machines M --machine-rank R --rendezvous HOST:PORT]
                  [--device auto|cpu|cuda] [--memory-limit LIMIT[,LIMIT...] [--reserve BYTES] [--skip-over-limit]]
       python -m launch run STUDY.toml [options as above, which replace the file's]
       python -m launch plan EXPERIMENT --effective-batch N --memory-limit LIMIT [--measure] [options of one trial]
       python -m launch fit EXPERIMENT --memory-limit LIMIT [options of one trial]
       python -m launch gate BASE_REF HEAD_REF EXPERIMENT... [--pairs N] [--margin SHARE] [--fail-inconclusive]
                  [--markdown FILE] [--junit FILE] [--json FILE] [--smaller-is-better FILE] [options as of run]
       python -m launch slurm EXPERIMENT... [--nodes N] [--gpus-per-node N] [--cpus-per-task N] [--partition P]
                  [--time T] [--job-name J] [--submit] [options as of run]
       python -m launch k8s EXPERIMENT... --image IMAGE [--nodes N] [--gpus-per-node N] [--name NAME] [--namespace NS]
                  [--volume-claim PVC] [-o FILE] [options as of run]
       python -m launch sheet EXPERIMENT [--arm A,B] [-o FOLDER] [options of one trial]
       python -m launch evaluate CHECKPOINT [--evaluate-on cifar10|digits|voc] [--model NAME] [--limit-eval N]
       python -m launch env

list   the experiments, their questions and arms
run    run the arms of experiments, or a study (see studies/), each trial in a process group of its own;
       `run EXPERIMENT --help` explains every option
       --preset mini      the miniature of each arm: digits, small images, minutes on two CPUs, to see that a study
                          runs; of all experiments where none is named. Other options go over it
       --repeats N        run each trial N times; interleaved, all trials once, then all once more in reverse
       --dry-run          print the trials, their commands and the time they may take; start nothing
       --resume           leave out the trials that have their row, but for interrupted ones; with --retry-failed
                          only those that ended well
plan   which micro-batch x accumulation reaches an effective batch within a limit, by prediction; writes plan.csv
       --measure          run the chosen plan and its neighbours under the limit too
fit    the largest micro-batch that runs within a limit, found by running, beside the predicted one
gate   time two commits against each other on this machine, in turn; exit code 1: the second is slower, larger or less
       accurate by more than the margin (2%), 3: they cannot be compared, 4: nothing can be told (--fail-inconclusive)
slurm  write RUN_FOLDER/slurm.sh, which runs the same on a cluster, goes on after the time limit, and is submitted by
       sbatch or at once with --submit; --processes are nodes x GPUs unless given
k8s    print a manifest for Kubernetes (a JobSet) that does the same
sheet  draw what each arm's augmentation does to images, a PNG for each in FOLDER (runs/sheets)
evaluate  a trained checkpoint on an evaluation set, its own or another of the same classes, class by class
env    what can be measured on this machine and, of the rest, why not

--memory-limit     a device such as orin-nano-8gb, what tensors of one process may take such as 600MiB, or auto; run
                   tries several one by one
--reserve          bytes to hold back from it, in place of the device's own reserve
--skip-over-limit  do not start a trial that is predicted not to fit
"""


def main(words: Sequence[str]) -> None:
    """Run the command and exit: 0 well, 1 a trial failed, 2 the request cannot be met, 130 interrupted."""
    with one_sentence():
        if not words or words[0] in ("-h", "--help"):
            print(USAGE, end="")
            sys.exit(0 if words else 2)
        name, rest = words[0], list(words[1:])
        if name not in COMMANDS:
            raise UsageError(f"no command {name!r}; choose from: {', '.join(COMMANDS)}")
        if name in ("plan", "fit", "gate", "slurm", "k8s", "sheet") and {"-h", "--help"} & set(rest):
            print(USAGE, end="")
            sys.exit(0)
        sys.exit(runner.interruptible(lambda: COMMANDS[name](rest)))


def list_experiments(words: Sequence[str]) -> None:
    """Print the experiments, with --markdown as README has them: beside what their sources report."""
    if words == ["--markdown"]:
        print(catalogue.table(), end="")
        return
    if words:
        raise UsageError(f"list takes no {words[0]!r}; run: python -m launch list [--markdown]")
    table = Table("experiment", "question", "arms", show_lines=True)
    for name in experiments.names():
        experiment = experiments.load(name)
        table.add_row(name, experiment.question, ", ".join(experiment.arms))
    Console().print(table)


def run(words: Sequence[str]) -> int:
    """Run the trials that are asked for and show their table."""
    if set(words[:1]) & {"-h", "--help"}:
        print(USAGE, end="")
        return 0
    asked = request.read(words)
    check(asked)
    out = asked.options.out
    study_folder.check_folder(out, asked)
    if asked.run_options.dry_run:
        dry_run.show(asked)
        return 0

    def prepare() -> None:
        study_folder.check_folder(out, asked)
        if asked.study is not None:
            study_folder.keep(out, asked.study)

    over_limit = functools.partial(limits.over_limit, gpus=asked.gpus) if asked.skip_over_limit else runner.never
    code = runner.run_all(asked.trials, asked.options, asked.run_options, asked.gpus, asked.axes, over_limit, prepare)
    if asked.run_options.machine_rank == 0:
        subprocess.run([sys.executable, "-m", "reports", "show", str(out)], check=False)
    return code


def check(asked: request.RunRequest) -> None:
    """UsageError: one of the trials cannot be run here, said before the first is."""
    if asked.run_options.parallel > 1 and asked.gpus < 2:
        what = f"{asked.gpus} GPU" if asked.gpus else "no GPU to use"
        raise UsageError(
            f"--parallel is {asked.run_options.parallel} but this machine has {what}; trials that share a device "
            f"would measure each other: leave --parallel out"
        )
    experiment_trackers.check(asked.options.log_with)
    check_machines(asked.trials[0].machines, asked.run_options)
    for trial in asked.trials:
        accelerate_command.check(trial, asked.gpus)
        if asked.skip_over_limit and trial.compile != "none":
            raise UsageError(f"{limits.SKIP} cannot predict --compile {trial.compile}; leave one of them out")
        if asked.skip_over_limit and trial.memory_limit_bytes is None:
            raise UsageError(f"{limits.SKIP} needs a limit; give --memory-limit too")


def check_machines(machines: int, options: RunOptions) -> None:
    """UsageError: the options that are about several machines do not go together."""
    if machines == 1:
        if options.rendezvous or options.machine_rank:
            raise UsageError("--machine-rank and --rendezvous are for several machines; give --machines too")
        return
    if not options.rendezvous:
        raise UsageError(f"--machines is {machines}; give --rendezvous HOST:PORT, where machine 0 is found")
    parse_endpoint(options.rendezvous)
    if options.machine_rank >= machines:
        raise UsageError(f"--machine-rank is {options.machine_rank} of --machines {machines}; give 0 to {machines - 1}")
    if options.parallel > 1:
        raise UsageError("--parallel is for one machine; leave it out, or --machines")


COMMANDS: dict[str, Callable[[list[str]], int | None]] = {
    "list": list_experiments,
    "run": run,
    "plan": plan.run_plan,
    "fit": plan.run_fit,
    "gate": gate.run,
    "slurm": slurm.run,
    "k8s": k8s.run,
    "evaluate": evaluate.run,
    "sheet": sheet.run,
    "env": env.run,
}
