"""What is recorded of a trial, in which columns, and where?

columns.py lists the columns of every CSV file: those of a trial's settings from settings.py, those of ranks.csv from
rank_columns.py, which also decides whether one rank stands apart, those of ceilings.csv from ceiling_columns.py.
to_target.py says what an accuracy took. rows.py fills those that are known before a trial starts, and run_folder.py
appends rows to a run folder's files, through csvfile.py, which keeps them whole. cells.py reads what another program
made of them. While a trial runs, progress.py tells its launcher how far it is, and experiment_trackers.py passes epochs
on to TensorBoard and others. experiment_lookup.py finds a row's experiment again.
"""
