"""What the process groups of planted.py need, imported by the process that they are forks of: they do not copy it."""

from bench.entry import imports_that_stay

with imports_that_stay():
    import torchvision.transforms.v2  # noqa: F401

    import bench.worker  # noqa: F401
