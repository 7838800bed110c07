"""Markdown that nothing in a run folder can break out of."""

from __future__ import annotations

from collections.abc import Sequence

PLAIN = set(" ,;=%+-./:()")


def row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def escaped(text: str) -> str:
    """Text that Markdown, HTML and GitHub's own marks cannot turn into anything."""
    words = text.replace("://", ":&#47;&#47;").split("&#47;")
    return "&#47;".join(
        "".join(letter if letter.isalnum() or letter in PLAIN else f"&#{ord(letter)};" for letter in word)
        for word in words
    ).replace("www.", "www&#46;")
