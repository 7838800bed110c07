"""Residual networks, and surgery on them. Imports nothing else of resbench."""


class ModelError(ValueError):
    """A request for a model that cannot be met; its text is one sentence for the user."""
