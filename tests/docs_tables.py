"""The generated parts of README and docs/: `make docs-tables` writes them, and a test of the house checks them.

Each stands in its file between two marks, <!-- NAME: begin --> and <!-- NAME: end -->.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # as pytest does, for `python -m tests.docs_tables`

import command_line_page
import house

from launch.commands import list as launch_list
from reports import dictionary

PARTS: dict[str, tuple[str, Callable[[], str]]] = {
    "columns": ("docs/columns.md", dictionary.markdown),
    "experiments": ("docs/experiments.md", launch_list.markdown),
    "rooms": ("README.md", house.tree),
}


def path(name: str) -> Path:
    """The file that holds a part."""
    return house.CHECKOUT / PARTS[name][0]


if __name__ == "__main__":
    for name, (_, text) in PARTS.items():
        dictionary.write(path(name), name, text())
    command_line_page.PAGE.write_text(command_line_page.page(), encoding="utf-8")
