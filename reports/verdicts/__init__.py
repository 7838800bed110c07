"""Did something change, and how sure is that?

compare.py holds two run folders against each other, trial by trial (matching.py), arms.py two arms of one run, turns.py
launches that took turns,
over_seeds.py accuracies where the seeds are the repetition, exact.py a run's counts against a baseline, baselines.py
keeps a run for each machine, and selftest.py checks that the gate can be trusted. reasons.py says why: which exact
counts and which traced operations differ. likeness.py compares rows in the columns that bench/column.py keeps apart,
significance.py has the statistics. Each result is a Comparison (comparison.py); those of a command make a
ComparisonReport (report.py), which `reports.forms` writes for programs.
"""
