"""How does a process group train and evaluate, and when is it measured?

From the command to the first step: bench/worker.py forms the `group`, `setup` makes model and optimizer (`build`),
`windows` says which images make a step, `loop` takes the steps and calls the `meter`, which calls the probes.
"""
