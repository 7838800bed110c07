"""Tables on the terminal."""

from rich.console import Console
from rich.table import Table


def wide(console: Console, table: Table) -> None:
    """Print a table as wide as it is: in a narrow terminal, or a file, its cells would be cut."""
    table.width = console.measure(table, options=console.options.update(width=1000)).maximum
    console.print(table, soft_wrap=True)
