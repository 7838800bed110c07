"""Why did a process of a trial end, and what does its row say about that?

`signals` turns a request to stop into an exception. `explain` makes a `Cause` of the exception that ended a rank, and
asks `oom` whether memory ran out and `next_moves` what to do about it. `causes` records the first cause of the launch,
which stands for all ranks. `ending` does this in order and ends the process. `crash_handler` serves ranks that crash
without a Python exception, and `last_phase` those that are killed.
"""
