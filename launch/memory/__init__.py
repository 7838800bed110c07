"""Memory limits: what fits a device, by prediction?

limits.py           the options --device, --memory-limit, --reserve, --skip-over-limit
devices.py          a limit -> the bytes that the tensors of one process may take; devices.csv has the known devices
plan.py             which micro-batch x accumulation fits, predicted by bench.memory
footprint_cache.py  predictions that were made before
helpers.py          the processes that predict for it
helper_imports.py   what these processes have imported from their start
plan_tables.py      plans on the terminal
"""
