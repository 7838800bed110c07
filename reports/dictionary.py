"""The dictionary of all columns, as Markdown, generated from bench.record.columns."""

from __future__ import annotations

from pathlib import Path

from bench.errors import UsageError
from bench.record.columns import FILES, columns
from bench.record.csvfile import write_whole


def marks(name: str) -> tuple[str, str]:
    """The lines between which a generated part of a Markdown file stands."""
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def markdown() -> str:
    """A section with a table for each CSV file."""
    parts = []
    for file in FILES:
        rows = [
            f"| `{column.name}` | {column.type} | {column.unit} | {column.ranks} | {column.text} |"
            for column in columns(file)
        ]
        head = ["| column | type | unit | over ranks | meaning |", "| --- | --- | --- | --- | --- |"]
        parts.append("\n".join([f"## {file}.csv", "", *head, *rows]))
    return "\n\n".join(parts)


def part(text: str, name: str) -> tuple[str, str, str] | None:
    """What stands before, between and after the marks of a generated part; None: the text lacks them."""
    begin, end = marks(name)
    before, _, rest = text.partition(begin)
    between, found, after = rest.partition(end)
    return (before, between, after) if found else None


def write(path: Path, name: str, content: str) -> None:
    """Put the content between the marks of a generated part. Raises UsageError if the file lacks them."""
    begin, end = marks(name)
    try:
        parts = part(path.read_text(encoding="utf-8"), name)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}; give a Markdown file such as docs/columns.md") from error
    if parts is None:
        raise UsageError(f"{path} lacks the lines {begin} and {end}; add them where the table is to stand")
    write_whole(path, f"{parts[0]}{begin}\n\n{content.strip()}\n\n{end}{parts[2]}")
