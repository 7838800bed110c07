"""One trial's process group: how is it started, watched and ended, whatever happens to it?

run_context.py         what all trials share: the locked folder, the watchdog, the starter
folder_lock.py         one runner for each run folder
trial_launch.py        Launch: starts a group, polls it, ends it, and sees that the trial has its row
starter.py             the interface of the two starters
warm_starter.py        forks a process that has done the imports (the client)
fork_server.py         that process; its forks are the launchers, which fork the ranks
rendezvous.py          how the ranks of a fork meet on one machine, with no open port
cold_starter.py        a fresh `accelerate launch` for each trial: --cold, AMD GPUs, old versions of Accelerate
accelerate_command.py  its command line and environment, and what this machine cannot start
missing_row.py         the row of a trial whose rank 0 did not write it: killed, or never started
postmortem.py          was missing memory what killed it?
processes.py           finds and ends the processes of a group
watchdog.py            ends the groups if the runner itself is killed

When a rank is killed: fork_server.record_killed_ranks (SIGCHLD in the launcher) records the cause; without it, as after
a cold start, bench.failure.explain finds it in a surviving rank. Launch.watch sees the cause and gives the others
GRACE_S; Launch.finish ends them. If rank 0 lives, bench.failure.ending writes the row (bench.training.trial_row);
otherwise Launch.ensure_row does (missing_row.py). A trial of one process has no rank besides the launcher: the starter
sees its exit code, and Launch.unrecorded_cause puts it into words.
"""
