"""One trial: what is trained, how is it measured, what is recorded?

experiments/  each file is a question and its arms. Started by hand or cold, it is the program, which calls
cli.py        the words of one trial -> a Trial (trial.py), then
worker.py     what each rank runs. It uses
training/     the group, the model and optimizer, the loop over windows (optimizer steps)
data/         the data sets, and the pipeline that makes micro-batches of them
probes/       what is measured, one file each; they read instruments/ and machine/
record/       the CSV files that rank 0 writes; column.py says in which columns two rows must agree to be compared
failure/      why a trial ended

Beside this route: memory/ predicts what a trial takes, activations/ draws what a trained model responds to,
pytest_plugins/ serves benchmarks of other projects.
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036  what follows would be a syntax error there
    sys.stderr.write("error: this is Python %d.%d; resbench needs 3.10 or newer\n" % sys.version_info[:2])
    sys.exit(2)
