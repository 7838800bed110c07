"""How does a process group train and evaluate, and when is it measured?

The route from the worker to the first step (launch/__init__.py has it from the command on): bench/worker.py forms the
`group`, limits memory, loads the data and calls `setup.training`, which makes model and optimizer (`build`). For each
epoch the worker takes its `windows`, and `loop.train_epoch` makes one optimizer step of each. The loop calls the
`meter` before and after each window; the meter calls the probes (bench/probes) and combines what the `ranks` measured.
After the epoch come `evaluation`, which finds what is not finite, and `checkpoint`. Meanwhile
`trial_row` holds the trial's row, and `confirm` compares its settings with what runs.
With --trace, `traced_window` comes last. `checkpoint_evaluation` evaluates a checkpoint later on.
"""
