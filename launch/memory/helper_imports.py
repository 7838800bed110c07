"""What a helper process needs, imported by the process that the helpers are forks of."""

import gc

# What is imported stays: to look through it for garbage, again and again, takes a fifth of the imports' time.
gc.disable()
import bench.memory.prediction  # noqa: E402, F401

gc.enable()
gc.freeze()  # nor do the helpers look through it, which would copy its memory
