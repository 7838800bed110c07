"""Many trials: which ones, in which order, into which run folder?

arguments.py        declares the options of the command line
option_words.py     the words of the command line as options
study_file.py       a TOML file as the same words
matrix.py           arms x axes -> trials, and their order
request.py          all of that -> RunRequest
batch_note.py       what --processes does to the effective batch, in a sentence
checks.py           what is refused before the first trial starts
study_folder.py     which study a run folder belongs to, and which trials have their row (--resume)
dry_run.py          prints what would be started
runner.py           runs the trials
display.py          bars and lines meanwhile
estimate.py         how long the others may take
fit.py, plan_measurement.py    run trials for the commands fit and plan --measure
"""
