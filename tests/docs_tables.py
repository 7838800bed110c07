"""The parts of README that are generated: `make docs-tables` writes them, and a test of the house checks them.

Each stands between two marks, <!-- NAME: begin --> and <!-- NAME: end -->.
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

README = Path(__file__).resolve().parents[1] / "README.md"
PARTS: dict[str, Callable[[], str]] = {
    "columns": dictionary.markdown,
    "experiments": launch_list.markdown,
    "rooms": house.tree,
}

if __name__ == "__main__":
    for name, text in PARTS.items():
        dictionary.write(README, name, text())
    command_line_page.PAGE.parent.mkdir(exist_ok=True)
    command_line_page.PAGE.write_text(command_line_page.page(), encoding="utf-8")
