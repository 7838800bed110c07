"""What do the rows of run folders say? Tables, charts, pages and verdicts, from CSV files alone: no torch.

read.py reads a run folder (lines.py whatever its files hold, typed.py each column in its type), tables/ puts the trials
in tables, charts/ draws them, page.py, plot.py and tensorboard.py write them for a browser, as files and for
TensorBoard. verdicts/ compares runs, forms/ writes the verdicts for other programs, and history/ finds since when a
metric is another over many runs. across/ sets unlike machines side by side. frame.py is what all pages share, merge.py
joins run folders, and commands/ has a file for each command.
"""
