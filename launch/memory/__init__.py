"""Memory limits: what fits a device, by prediction?

limits.py       the options --device, --memory-limit, --reserve, --skip-over-limit
devices.py      a limit -> the bytes that the tensors of one process may take; devices.csv has the known devices
plan.py         which micro-batch x accumulation fits, predicted by bench.memory
helpers.py      the processes that predict for it
plan_tables.py  plans on the terminal
"""
