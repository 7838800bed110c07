"""What is timed: the suite's loop against ordinary ones (`python -m tests.perf.speed`), and its parts for pytest."""
