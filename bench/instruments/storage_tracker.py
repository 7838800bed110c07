"""Follows every storage of a training from its allocation (birth) to its release (death).

A storage is the memory behind one or more tensors. The order of births and deaths, with sizes, is what an allocator
would see; bench/memory replays it.
"""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.instruments.parts import Part
from bench.instruments.recomputation import in_backward, recomputing

# Bytes that an operation takes before its results, and after them. It releases all of them before it returns.
Sizes = tuple[Sequence[int], Sequence[int]]
Transient = Callable[[Any, Any, Any], Sizes]
Run = Callable[[Any, Any, Any], Any]


class StorageTracker(TorchDispatchMode):
    """While entered, records the storages that operations make. New ones count as the current `part`.

    `sizes` (bytes) and `parts` are by storage, in order of birth. `order` has n + 1 for the birth of storage n and
    -(n + 1) for its death. `transient_bytes`: (operation, arguments, results) -> the further memory that it takes.
    `device`: follow storages on this device only; None: on all. `run`: (operation, arguments, keyword arguments) -> its
    results.
    """

    def __init__(
        self,
        transient_bytes: Transient = lambda operation, args, results: ((), ()),
        device: torch.device | None = None,
        run: Run = lambda operation, args, kwargs: operation(*args, **kwargs),
    ) -> None:
        super().__init__()
        self.transient_bytes, self.device, self.run = transient_bytes, device, run
        self.part: Part = "activations"
        self.sizes: list[int] = []
        self.parts: list[Part] = []
        self.order: list[int] = []
        self.alive: dict[int, int] = {}  # torch's address of a storage -> its number
        self.same_as: dict[int, int] = {}  # a sum's storage -> that of the operand into which torch would have added
        self.last_sum: tuple[int, int] | None = None  # (first operand, result), see _note_sum
        self.adds_in_place = True

    def add(self, tensors: Iterable[Tensor], part: Part | None = None) -> None:
        """Record the storages of these tensors; those recorded before change to `part`, if it is given."""
        for tensor in tensors:
            if self.device not in (None, tensor.device):
                continue
            storage = tensor.untyped_storage()
            number = self.alive.get(storage._cdata)
            if number is None and storage.nbytes():
                number = self._born(storage.nbytes(), part or self.part)
                self.alive[storage._cdata] = number
                # Not at the interpreter's exit: deaths no longer matter then.
                weakref.finalize(storage, self._died, storage._cdata, number).atexit = False
            elif number is not None and part is not None:
                self.parts[number] = part

    def add_bytes(self, size: int, part: Part) -> None:
        """Record memory that belongs to no tensor and is never released."""
        self._born(size, part)

    @contextlib.contextmanager
    def workspace(self, sizes: Sequence[int]) -> Iterator[None]:
        """Record memory that belongs to no tensor and is released when the block ends."""
        numbers = [self._born(size, "workspace") for size in sizes]
        yield
        self.order += [-(number + 1) for number in reversed(numbers)]

    def part_of(self, tensor: Tensor) -> Part | None:
        """What the tensor's storage counts as; None: it is not recorded."""
        number = self.alive.get(tensor.untyped_storage()._cdata)
        return None if number is None else self.parts[number]

    def peak_bytes(self) -> int:
        """Peak bytes of the storages."""
        events = (self.sizes[event - 1] if event > 0 else -self.sizes[-event - 1] for event in self.order)
        return max(itertools.accumulate(events), default=0)

    def _born(self, size: int, part: Part) -> int:
        self.sizes.append(size)
        self.parts.append(part)
        self.order.append(len(self.sizes))
        return len(self.sizes) - 1

    def _died(self, data: int, number: int) -> None:
        del self.alive[data]
        if self.last_sum is not None and self.last_sum[0] == number and self.order[-1] == self.last_sum[1] + 1:
            # The first operand dies right after the sum is born: without this mode torch would have added in place.
            # Undo the birth, and let the operand's storage live on as the sum's.
            self.order.pop()
            self.same_as[self.last_sum[1]] = self.same_as.get(number, number)
            return
        self.order.append(-(self.same_as.get(number, number) + 1))

    def _note_sum(self, func: Any, args: Any, out: Any) -> None:
        """Note a sum of two gradients in autograd, which may be one that autograd makes in place without this mode.

        It adds into the first operand if nothing else refers to that one (input_buffer.cpp), and with a dispatch mode
        on it never does. Whether nothing else refers to it shows in `_died`.
        """
        adds = func is torch.ops.aten.add.Tensor and in_backward() and not recomputing()
        if self.adds_in_place and adds:
            first, result = (self.alive.get(each.untyped_storage()._cdata) for each in (args[0], out))
            if first is not None and result is not None and self.sizes[first] == self.sizes[result]:
                self.last_sum = first, result

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = self.run(func, args, kwargs or {})
        if func.namespace == "prim":  # a fake tensor's device: no operation, and asked for often
            return out
        casts_a_weight = func is torch.ops.aten._to_copy.default and self.part_of(args[0]) == "weights"
        before, after = self.transient_bytes(func, args, out)
        with self.workspace(before) if before else contextlib.nullcontext():
            self.add(tensors(out), "autocast copies" if casts_a_weight else None)
            self._note_sum(func, args, out)
            with self.workspace(after) if after else contextlib.nullcontext():
                return out


def tensors(values: Any) -> list[Tensor]:
    """All tensors in the arguments or the result of an operation."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
