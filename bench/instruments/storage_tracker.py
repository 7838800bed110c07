"""Follows every storage of a training from birth to death."""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Part = Literal[
    "weights",
    "gradients",
    "accumulated gradients",
    "DDP buckets",
    "optimizer",
    "activations",
    "autocast copies",
    "input",
    "workspace",
]
PARTS: tuple[Part, ...] = get_args(Part)

# What an operation takes before its results and what after them, in bytes; all of it is given back when it returns.
Sizes = tuple[Sequence[int], Sequence[int]]
Transient = Callable[[Any, Any, Any], Sizes]


class StorageTracker(TorchDispatchMode):
    """While entered, notes the storages that operations make. `part` is what they count as from now on.

    `sizes` (bytes) and `parts` are by storage, in order of birth; `order` has n + 1 for the birth of storage n and
    -(n + 1) for its death. `transient_bytes` says what an operation takes besides, given its arguments and results.
    `device`: the one whose storages are followed; None: all are.
    """

    def __init__(
        self,
        transient_bytes: Transient = lambda operation, args, results: ((), ()),
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        self.transient_bytes, self.device = transient_bytes, device
        self.part: Part = "activations"
        self.sizes: list[int] = []
        self.parts: list[Part] = []
        self.order: list[int] = []
        self.alive: dict[int, int] = {}
        self.stands_for: dict[int, int] = {}  # the storage of a sum -> that of the operand that it was added into
        self.sum: tuple[int, int] | None = None
        self.adds_in_place = True

    def add(self, tensors: Iterable[Tensor], part: Part | None = None) -> None:
        """Count the storages of these tensors, those that are known under their new part."""
        for tensor in tensors:
            if self.device not in (None, tensor.device):
                continue
            storage = tensor.untyped_storage()
            number = self.alive.get(storage._cdata)
            if number is None and storage.nbytes():
                number = self._born(storage.nbytes(), part or self.part)
                self.alive[storage._cdata] = number
                weakref.finalize(storage, self._died, storage._cdata, number).atexit = False
            elif number is not None and part is not None:
                self.parts[number] = part

    def add_bytes(self, size: int, part: Part) -> None:
        """Count memory that is no tensor's and stays."""
        self._born(size, part)

    @contextlib.contextmanager
    def besides(self, sizes: Sequence[int]) -> Iterator[None]:
        """Count memory that is no tensor's and goes when this ends."""
        born = [self._born(size, "workspace") for size in sizes]
        yield
        self.order += [-(number + 1) for number in reversed(born)]

    def part_of(self, tensor: Tensor) -> Part | None:
        """What the tensor's storage counts as; None: it is not known."""
        number = self.alive.get(tensor.untyped_storage()._cdata)
        return None if number is None else self.parts[number]

    def peak_bytes(self) -> int:
        """Most bytes that the storages had at once."""
        events = (self.sizes[event - 1] if event > 0 else -self.sizes[-event - 1] for event in self.order)
        return max(itertools.accumulate(events), default=0)

    def _born(self, size: int, part: Part) -> int:
        self.sizes.append(size)
        self.parts.append(part)
        self.order.append(len(self.sizes))
        return len(self.sizes) - 1

    def _died(self, data: int, number: int) -> None:
        del self.alive[data]
        if self.sum is not None and self.sum[0] == number and self.order[-1] == self.sum[1] + 1:
            self.order.pop()
            self.stands_for[self.sum[1]] = self.stands_for.get(number, number)
            return
        self.order.append(-(self.stands_for.get(number, number) + 1))

    def _sums_gradients(self, func: Any, args: Any, out: Any) -> None:
        """Note a sum that autograd would make in place, were this mode not on: of gradients that meet.

        It adds into the first, which then dies at once, where nothing else needs that one (input_buffer.cpp).
        """
        if self.adds_in_place and func is torch.ops.aten.add.Tensor and torch._C._current_graph_task_id() != -1:
            first, result = (self.alive.get(each.untyped_storage()._cdata) for each in (args[0], out))
            if first is not None and result is not None and self.sizes[first] == self.sizes[result]:
                self.sum = first, result

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        casts_a_weight = func is torch.ops.aten._to_copy.default and self.part_of(args[0]) == "weights"
        made = [tensor for tensor in tree_leaves(out) if isinstance(tensor, Tensor)]
        before, after = self.transient_bytes(func, args, out)
        with self.besides(before):
            self.add(made, "autocast copies" if casts_a_weight else None)
            self._sums_gradients(func, args, out)
            with self.besides(after):
                return out
