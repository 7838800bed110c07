"""What a storage of a training can count as. Imports no torch."""

from typing import Literal, get_args

Gradients = Literal["gradients", "accumulated gradients", "DDP buckets"]
Part = Literal["weights", Gradients, "optimizer", "activations", "autocast copies", "input", "workspace"]
PARTS: tuple[Part, ...] = get_args(Part)
