"""What all trials of one command share: the locked run folder, a watchdog, a starter, a folder for temporary files."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.options import Options
from bench.record.columns import FILES
from bench.record.run_folder import RunFolder
from bench.variables import new_id
from launch.group import accelerate_command, folder_lock
from launch.group.cold_starter import ColdStarter
from launch.group.starter import Starter
from launch.group.warm_starter import WarmStarter
from launch.group.watchdog import Watchdog
from launch.interrupts import undisturbed
from launch.run_options import RunOptions


@dataclass(frozen=True)
class RunContext:
    """`runner_id`: in the environment of all processes that this command starts."""

    runner_id: str
    lock: folder_lock.FolderLock
    watchdog: Watchdog
    starter: Starter
    scratch: Path
    options: Options
    run_options: RunOptions
    gpus: int
    root: Path = Path("/")
    """Where the kernel's counts are read (proc and sys below it)."""

    def check_folder(self) -> None:
        """Raises UsageError if the run folder cannot take the rows that will come. Better now than after hours."""
        self.lock.check()
        folder = RunFolder(self.options.out)
        folder.prepare()
        folder.environments()
        for file in FILES:
            if (folder.path / f"{file}.csv").exists():
                folder.append(file, [])  # no rows: refuses a file that no run wrote, and adds the columns that it lacks


@contextlib.contextmanager
def run_context(options: Options, gpus: int, run_options: RunOptions) -> Iterator[RunContext]:
    """Lock the run folder and start the watchdog; end all that was started when the block ends.

    Raises UsageError if the folder is in use, or cannot take the rows that will come.
    """
    folder, runner_id = RunFolder(options.out), new_id()
    folder.prepare()
    with (
        folder_lock.claim(folder, runner_id, run_options.machine_rank) as lock,
        tempfile.TemporaryDirectory(prefix="resbench-", ignore_cleanup_errors=True) as scratch,
    ):
        watchdog = Watchdog(runner_id, lock.file.fileno(), Path(scratch))
        cold = run_options.cold or accelerate_command.starts_cold(gpus)
        log = folder.logs() / f"{runner_id}.warm.log"
        starter: Starter = ColdStarter() if cold else WarmStarter(runner_id, log)
        context = RunContext(runner_id, lock, watchdog, starter, Path(scratch), options, run_options, gpus)
        context.check_folder()
        if run_options.machine_rank == 0:
            remove_working_files(folder)
        try:
            watchdog.ensure_running()
            yield context
        finally:
            with undisturbed():
                starter.close()
                watchdog.close()
                with contextlib.suppress(OSError):
                    if log.stat().st_size == 0:
                        log.unlink()


def remove_working_files(folder: RunFolder, prefix: str = "*.") -> None:
    """Remove what launches need while they run from the folder; with the default prefix, of all launches."""
    for pattern in ("progress", "new", "*.fault", "row.json", "cause.json"):
        for path in folder.logs().glob(f"{prefix}{pattern}"):
            path.unlink(missing_ok=True)
