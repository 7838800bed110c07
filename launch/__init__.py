"""Many trials: which ones, started how, in which order, on which machines?

The route from `python -m launch run resnet20_accumulation` to the first optimizer step:

launch/__main__.py               imports bench, which refuses an old Python, and calls
launch/cli.py                    finds the command in launch/commands/ and runs it with Ctrl-C handled
launch/commands/run.py           reads the request, checks it, runs it, shows the table
launch/sweep/request.py          words (and a study file) -> RunRequest
launch/sweep/matrix.py           arms x axes -> a list of bench.trial.Trial
launch/sweep/runner.py           Sweep: starts each trial, waits for its row, prints a line
launch/group/run_context.py      locks the run folder, starts the watchdog, chooses the starter
                                 (--machines: launch/multi_node/coordinator.py starts on every machine)
launch/group/trial_launch.py     Launch: one trial from its start to its row
launch/group/warm_starter.py     sends the trial to the process that has done the imports,
launch/group/fork_server.py      which forks a launcher, which forks the ranks; each rank calls
bench/cli.py                     reads the trial back from its words
bench/worker.py                  forms the group, loads the data, builds the model, trains epoch by epoch
bench/training/loop.py           train_epoch -> run_window -> Training.step, the optimizer step
"""
