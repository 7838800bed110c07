"""What a helper process needs, imported by the process that the helpers are forks of: they do not copy its memory."""

from bench.entry import imports_that_stay

with imports_that_stay():
    import bench.memory.prediction  # noqa: F401
