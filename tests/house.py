"""The plan of the house: folders, rooms, and which way imports run between them. tests/test_house.py checks it."""

from __future__ import annotations

import ast
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
HOUSE = ("models", "bench", "launch", "reports", "resbench")
# What all of bench is written in: a row's columns, a trial's settings, how a request is refused.
WORDS = ("called", "errors", "discovery", "terminal", "variables", "column", "trial", "experiment", "own_file")
# folder -> room -> the other rooms of the folder that its files may import. A room is a sub-package or, beside those, a
# file. Lowest first: a room may only import rooms above it here.
ROOMS: dict[str, dict[str, tuple[str, ...]]] = {
    "models": {},
    "bench": {
        "called": (),
        "errors": ("called",),
        "entry": ("errors",),
        "discovery": ("errors",),
        "terminal": ("called",),
        "variables": (),
        "column": (),
        "trial": ("errors",),
        "experiment": ("errors", "trial"),
        "fields": (),
        "arguments": ("called", "errors"),
        "screen": ("errors",),
        "own_file": ("errors", "trial", "experiment"),
        "experiments": WORDS,
        "machine": WORDS,
        "instruments": WORDS,
        "probes": (*WORDS, "machine", "instruments"),
        "record": (*WORDS, "fields", "experiments", "machine", "probes"),
        "data": (*WORDS, "machine"),
        "failure": (*WORDS, "machine", "instruments", "record"),
        "training": (*WORDS, "experiments", "machine", "instruments", "probes", "record", "data", "failure"),
        "features": (*WORDS, "record", "data", "training"),
        "memory": (*WORDS, "instruments", "data", "training", "features"),
        "activations": (*WORDS, "arguments", "entry", "record", "data", "training"),
        "pytest_plugins": ("errors", "variables", "machine", "instruments"),
        "options": (*WORDS, "experiments", "data"),
        "ceilings": (*WORDS, "options", "machine", "instruments", "record", "data", "failure", "training"),
        "worker": (
            *(*WORDS, "options", "machine", "instruments", "probes", "record", "data"),
            *("failure", "training", "features"),
        ),
        "cli": (*WORDS, "arguments", "entry", "experiments", "options", "record", "worker"),
    },
    "launch": {
        "run_options": (),
        "interrupts": (),
        "group": ("run_options", "interrupts"),
        "memory": ("group",),
        "multi_node": ("run_options", "group"),
        "sweep": ("run_options", "interrupts", "group", "memory", "multi_node"),
        "gate": ("interrupts", "group", "sweep"),
        "bisect": ("interrupts", "group", "sweep", "gate"),
        "cluster": ("run_options", "group", "memory", "sweep"),
        "commands": (
            "run_options",
            "interrupts",
            "group",
            "memory",
            "multi_node",
            "sweep",
            "gate",
            "bisect",
            "cluster",
        ),
        "cli": ("interrupts", "commands"),
        "__main__": ("cli",),
    },
    "reports": {
        "arguments": (),
        "lines": (),
        "markdown": (),
        "dictionary": (),
        "merge": (),
        "typed": (),
        "read": ("lines", "typed"),
        "tables": ("typed", "read", "markdown"),
        "charts": ("tables",),
        "verdicts": ("typed", "read", "tables"),
        "forms": ("arguments", "markdown", "verdicts"),
        "frame": (),
        "across": ("merge", "typed", "read", "markdown", "tables", "charts", "verdicts", "frame"),
        "page": ("read", "tables", "charts", "verdicts", "frame", "across"),
        "history": ("read", "tables", "charts", "verdicts", "frame"),
        "plot": ("read", "tables", "charts"),
        "tensorboard": ("merge", "read", "tables"),
        "commands": (
            *("arguments", "dictionary", "merge", "read", "tables", "verdicts", "forms", "across", "page", "history"),
            *("plot", "tensorboard"),
        ),
        "cli": ("arguments", "commands"),
        "__main__": ("cli",),
    },
    "resbench": {"completion": (), "start": (), "__main__": ()},
}
# What a folder may import of the others; a name stands for all that is below it.
MAY_IMPORT = {
    "models": (),
    "bench": ("models",),
    "launch": ("bench", "models"),
    "reports": (
        *("bench.record", "bench.discovery", "bench.errors", "bench.entry", "bench.terminal", "bench.column"),
        *("bench.arguments", "bench.called", "bench.screen"),
    ),
    "resbench": ("bench", "launch", "models", "reports"),
}


def tree() -> str:
    """Folders and rooms, each with the first sentence of its docstring."""
    lines = []
    for folder, rooms in ROOMS.items():
        lines.append(f"{folder + '/':<18}{_summary(CHECKOUT / folder)}")
        packages = [room for room in rooms if (CHECKOUT / folder / room).is_dir()]
        lines += [f"  {room + '/':<16}{_summary(CHECKOUT / folder / room)}" for room in packages]
    return "\n".join(["```", *lines, "```"])


def _summary(package: Path) -> str:
    text = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""
    return " ".join(text.partition("\n\n")[0].split())
