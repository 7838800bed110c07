"""How a launcher of torch's meets itself: for a group on one machine there is nobody else to wait for.

Torch's own ways listen on a port of every interface, or, over a file, first wait for up to 0.3 s.
"""

from __future__ import annotations

from torch.distributed import FileStore
from torch.distributed.elastic.rendezvous import RendezvousHandler, RendezvousInfo, RendezvousParameters
from torch.distributed.elastic.rendezvous.api import RendezvousStoreInfo, rendezvous_handler_registry

from launch.group.warm_starter import RENDEZVOUS


class Alone(RendezvousHandler):
    """The rendezvous of the only launcher of a run, which keeps its store in the file that the endpoint names."""

    def __init__(self, parameters: RendezvousParameters) -> None:
        self.parameters, self.closed = parameters, False

    def get_backend(self) -> str:
        return RENDEZVOUS

    def next_rendezvous(self) -> RendezvousInfo:
        store = FileStore(self.parameters.endpoint, 1)
        return RendezvousInfo(store, 0, 1, RendezvousStoreInfo.build(0, store, "127.0.0.1"))

    def is_closed(self) -> bool:
        return self.closed

    def set_closed(self) -> None:
        self.closed = True

    def num_nodes_waiting(self) -> int:
        return 0

    def get_run_id(self) -> str:
        return self.parameters.run_id

    def shutdown(self) -> bool:
        self.closed = True
        return True


def register() -> None:
    """Make it known to torch."""
    rendezvous_handler_registry.register(RENDEZVOUS, Alone)
