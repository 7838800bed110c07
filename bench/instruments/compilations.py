"""What torch.compile has done in this process. Imports no torch: a process that compiles has imported what is read."""

from __future__ import annotations

import sys


def compilations() -> dict[str, float | None]:
    """Graphs that torch.compile made so far, and breaks between them; None if it was not used."""
    compiler = sys.modules.get("torch._dynamo.utils")  # not imported here, since that is slow
    if compiler is None or not (graphs := compiler.counters["stats"]["unique_graphs"]):
        return {"compiled_graphs": None, "graph_breaks": None}
    return {"compiled_graphs": float(graphs), "graph_breaks": float(sum(compiler.counters["graph_break"].values()))}
