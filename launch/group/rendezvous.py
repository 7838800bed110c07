"""Torch's rendezvous for a group on one machine, where the only launcher has nobody to wait for.

Torch's own backends listen on a port of every interface, or, over a file, wait for up to 0.3 s first.
"""

from __future__ import annotations

from torch.distributed import FileStore
from torch.distributed.elastic.rendezvous import RendezvousHandler, RendezvousInfo, RendezvousParameters
from torch.distributed.elastic.rendezvous.api import RendezvousStoreInfo, rendezvous_handler_registry

from launch.group.warm_starter import RENDEZVOUS


class SingleNodeRendezvous(RendezvousHandler):
    """Keeps its store in the file that the endpoint names."""

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
    """Make the backend known to torch."""
    rendezvous_handler_registry.register(RENDEZVOUS, SingleNodeRendezvous)
