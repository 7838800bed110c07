"""The dictionary of all columns, as Markdown, generated from bench.record.run_folder."""

from __future__ import annotations

from pathlib import Path

from bench.errors import UsageError
from bench.record.columns import FILES, columns
from bench.record.csvfile import write_whole

BEGIN, END = "<!-- columns: begin -->", "<!-- columns: end -->"


def markdown() -> str:
    """A table for each CSV file."""
    parts = []
    for file in FILES:
        rows = [
            f"| `{column.name}` | {column.type} | {column.unit} | {column.ranks} | {column.text} |"
            for column in columns(file)
        ]
        head = ["| column | type | unit | over ranks | meaning |", "| --- | --- | --- | --- | --- |"]
        parts.append("\n".join([f"**{file}.csv**", "", *head, *rows]))
    return "\n\n".join(parts)


def write(path: Path) -> None:
    """Put the dictionary between the file's markers. UsageError: it has none."""
    try:
        before, _, rest = path.read_text().partition(BEGIN)
        _, found, after = rest.partition(END)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}; give a Markdown file such as README.md") from error
    if not found:
        raise UsageError(f"{path} lacks the lines {BEGIN} and {END}; add them where the dictionary is to stand")
    write_whole(path, f"{before}{BEGIN}\n\n{markdown()}\n\n{END}{after}")
