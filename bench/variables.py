"""Environment variables that a launcher sets for a trial's processes. bench.record.progress.VARIABLE is another one."""

LAUNCH_ID = "RESBENCH_LAUNCH_ID"
"""The launch id. Not set if a trial is started by hand."""
COMMAND = "RESBENCH_COMMAND"
"""The user's command."""
LAUNCH_DETAILS = "RESBENCH_HOW"
"""JSON: how the trial was started (`started_by`, `parallel`) and when (`requested_s`, by time.monotonic()
of this machine)."""
STORE = "RESBENCH_STORE"
"""The file over which the processes of one machine form their group."""
TURNS = "RESBENCH_TURNS"
"""The Unix socket of the referee, if the trial takes turns with another one (bench.instruments.turns)."""
