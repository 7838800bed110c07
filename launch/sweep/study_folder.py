"""Which study does a run folder belong to? Keeps the rows of one study, or of one command, out of another's folder."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Iterable
from pathlib import Path

from bench import own_file
from bench.errors import UsageError
from bench.record.cells import Unread, head_of, spelled
from bench.record.columns import STATUSES, columns
from bench.record.csvfile import write_whole
from bench.record.run_folder import RunFolder
from bench.trial import Trial
from launch.sweep import request, study_file
from launch.sweep.request import RunRequest
from launch.sweep.study_file import Study

COPY = "study.toml"
OF_TRIALS = ("trial_key", "repeat", "status")  # columns that tell trials, and how they ended, apart


def check_folder(folder: Path, run_request: RunRequest) -> None:
    """Raises UsageError if the folder has rows of another study, or belongs to a study without these trials.

    Where neither the request nor the folder is of a study, any trial may be added.
    """
    if run_request.study is not None:
        own = set(map(identity, run_request.trials))
        foreign = next((row for row in read_rows(folder) if (row["trial_key"], row["repeat"]) not in own), None)
        if foreign is not None:
            what = f"{foreign.get('experiment')} {foreign.get('arm')}, repeat {foreign.get('repeat')}"
            raise UsageError(
                f"{folder} holds a row of {what}, with settings that {run_request.study.path} does not have; "
                f"choose another --out"
            )
    elif (folder / COPY).exists():
        given = {trial.experiment_file for trial in run_request.trials}
        for name in study_file.read(folder / COPY).experiments:
            if own_file.is_path(name) and name not in given:  # whoever wrote it, to look at it would run it
                raise UsageError(
                    f"{folder} belongs to a study with {name}, which is not run unless it is given; choose another "
                    f"--out, or run {folder / COPY}"
                )
        own = set(map(identity, request.read([str(folder / COPY)]).trials))
        if other := next((trial for trial in run_request.trials if identity(trial) not in own), None):
            raise UsageError(
                f"{folder} belongs to a study, and {other.experiment} {other.arm}, repeat {other.repeat}, with these "
                f"settings is none of its trials; choose another --out, or run {folder / COPY}"
            )


def keep(folder: Path, study: Study) -> None:
    """Write a copy of the study into its folder, which exists and has been checked."""
    text = study.text
    if study.replaced:
        text = f"# Not as it stands here: run with {shlex.join(study.replaced)}\n{text}"  # reports.page reads this
    path = folder / COPY
    if not path.exists() or path.read_bytes() != text.encode():
        write_whole(path, text)


def first_line(path: Path) -> str:
    """The first line of a file, "" if there is no such file."""
    if not path.exists():
        return ""
    with open(path, encoding="utf-8") as file:
        return file.readline()


def read_rows(folder: Path) -> list[dict[str, str]]:
    """The rows of trials.csv, none if there is no such file.

    Raises UsageError if it is no table of ours, or if a cell that tells trials apart cannot be read: a trial would run
    again, or never.
    """
    try:
        rows = RunFolder(folder).rows("trials")
        head = head_of(first_line(folder / "trials.csv"), "launch_id")
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"cannot read {folder / 'trials.csv'}: {error}; choose another --out") from error
    names = rows[0].keys() if head is None and rows else set(head.places if head is not None else OF_TRIALS)
    if not set(OF_TRIALS) <= set(names):
        raise UsageError(f"{folder / 'trials.csv'} lacks columns of ours, so no run wrote it; choose another --out")
    known = {column.name: column for column in columns("trials")}
    for name in OF_TRIALS:
        bad = [row[name] for row in rows if spelled(row[name], known[name]) is None]
        if bad:
            found = Unread("trials", name, bad[0], len(set(bad)) > 1, len(bad))
            raise UsageError(f"{folder}: {found} cannot be read; put it right in the file, or choose another --out")
    return rows


def finished(rows: Iterable[dict[str, str]], retry_failed: bool) -> set[tuple[str, str]]:
    """The trials that --resume leaves out: those that ended well and, unless `retry_failed`, those that failed."""
    again = {"interrupted", *(set(STATUSES) - {"ok"} if retry_failed else ())}
    return {(row["trial_key"], row["repeat"]) for row in rows if row["status"] not in again}


def identity(trial: Trial) -> tuple[str, str]:
    """What tells the trials of a study apart: trial_key and repeat, as its row has them."""
    return trial.key(), str(trial.repeat)
