"""Environment variables that a launcher sets for a trial's processes, and the ids that it gives them.

bench.record.progress.VARIABLE is another variable.
"""

import uuid

LAUNCH_ID = "RESBENCH_LAUNCH_ID"
"""The launch id. Not set if a trial is started by hand."""
RUNNER_ID = "RESBENCH_RUNNER_ID"
"""The runner that started the process; by it, what is left of a runner that was killed is found."""
COMMAND = "RESBENCH_COMMAND"
"""The user's command."""
LAUNCH_DETAILS = "RESBENCH_HOW"
"""JSON: how the trial was started (`started_by`, `parallel`) and when (`requested_s`, by time.monotonic()
of this machine)."""
STORE = "RESBENCH_STORE"
"""The file over which the processes of one machine form their group."""
TURNS = "RESBENCH_TURNS"
"""The Unix socket of the referee, if the trial takes turns with another one (bench.instruments.turns)."""


def new_id(drawn: uuid.UUID | None = None) -> str:
    """A new launch id: r, for run, and twelve hex digits, random or those of `drawn`.

    Without a letter that no number has, one in 140 would be a number to a spreadsheet (123456789012, 12e345678901), or
    a date (dec1). No number, month or cell begins with r and goes on in hex digits.
    """
    return f"r{(drawn or uuid.uuid4()).hex[:12]}"
