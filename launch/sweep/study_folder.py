"""A run folder and the study that it belongs to: neither a file's nor a command's rows end up among another's."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Iterable
from pathlib import Path

from bench.errors import UsageError
from bench.record.columns import STATUSES
from bench.record.csvfile import write_whole
from bench.record.run_folder import RunFolder
from bench.trial import Trial
from launch.sweep import request
from launch.sweep.request import RunRequest
from launch.sweep.study_file import Study

KEPT = "study.toml"


def check_folder(folder: Path, asked: RunRequest) -> None:
    """UsageError: the folder holds another study's rows, or is a study's that these trials are none of.

    Without a study on either side anything may be added to a folder. Changes nothing.
    """
    if asked.study is not None:
        own = identities(asked.trials)
        foreign = next((row for row in read_rows(folder) if identity(row) not in own), None)
        if foreign is not None:
            what = f"{foreign.get('experiment')} {foreign.get('arm')}, repeat {foreign.get('repeat')}"
            raise UsageError(
                f"{folder} holds a row of {what}, with settings that {asked.study.path} does not have; "
                f"choose another --out"
            )
    elif (folder / KEPT).exists():
        own = identities(request.read([str(folder / KEPT)]).trials)
        if other := next((trial for trial in asked.trials if (trial.key(), str(trial.repeat)) not in own), None):
            raise UsageError(
                f"{folder} is a study's and {other.experiment} {other.arm}, repeat {other.repeat}, with these settings "
                f"is none of its trials; choose another --out, or run {folder / KEPT}"
            )


def keep(folder: Path, study: Study) -> None:
    """Leave a copy of the study in its folder, which exists and has been checked."""
    text = study.text
    if study.replaced:
        text = f"# Not as it stands here: run with {shlex.join(study.replaced)}\n{text}"
    path = folder / KEPT
    if not path.exists() or path.read_bytes() != text.encode():
        write_whole(path, text)


def read_rows(folder: Path) -> list[dict[str, str]]:
    """The rows of trials.csv; none where there is no file. UsageError: it is no table of ours."""
    try:
        rows = RunFolder(folder).rows("trials")
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"cannot read {folder / 'trials.csv'}: {error}; choose another --out") from error
    if rows and not {"trial_key", "repeat", "status"} <= rows[0].keys():
        raise UsageError(f"{folder / 'trials.csv'} lacks columns of ours, so no run wrote it; choose another --out")
    return rows


def finished(rows: Iterable[dict[str, str]], retry_failed: bool) -> set[tuple[str, str]]:
    """The trials that --resume leaves out: those that ended well and, unless they are to be retried, that failed."""
    again = {"interrupted", *(set(STATUSES) - {"ok"} if retry_failed else ())}
    return {identity(row) for row in rows if row["status"] not in again}


def identity(row: dict[str, str]) -> tuple[str, str]:
    """Which trial of a study a row is of."""
    return row["trial_key"], row["repeat"]


def identities(trials: Iterable[Trial]) -> set[tuple[str, str]]:
    """As `identity`, of trials."""
    return {(trial.key(), str(trial.repeat)) for trial in trials}
