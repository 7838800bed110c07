"""What README, CONTRIBUTING and the pages of docs/ say: their commands, and where their links lead.

A command that needs what not every machine has stands below a comment in the page's source: <!-- needs: two GPUs -->.
"""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from house import CHECKOUT

FENCE = re.compile(r"(?:^<!-- needs: (?P<needs>[^>]*) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S)
SHELL = ("", "sh", "bash", "shell", "console")
COMMAND = re.compile(r"(python -m (launch|reports)|resbench|make) +[a-z]")
ASSIGNMENT = re.compile(r"^(\w+=\S+ +)+")
LINK = re.compile(r"\[[^\[\]]*\]\((?P<path>[^)#\s]*)(?:#(?P<anchor>[^)\s]*))?\)")
PICTURE = re.compile(r'<img src="(?P<path>[^"]*)"')
HEADING = re.compile(r"^#{1,6} +(.*?) *#*$", re.M)
ELSEWHERE = re.compile(r"[a-z]+:")
USAGE = CHECKOUT / "docs" / "command-line.md"
"""Generated: how each command is called, which is nothing to type."""
NOT_OURS = {".venv", ".cache", ".git", "runs", "site", "data", "build"}


@dataclass(frozen=True)
class Command:
    """A command of a page. `needs`: what it asks of a machine; empty: nothing."""

    page: str
    words: tuple[str, ...]
    needs: str = ""


def pages() -> list[Path]:
    """The files for who uses or changes the suite."""
    return [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *sorted((CHECKOUT / "docs").glob("*.md"))]


def commands(page: Path) -> list[Command]:
    """What a page has a reader type: of each line in a block, what stands before a pipe, > or &."""
    name = os.path.relpath(page, CHECKOUT)
    found: list[Command] = []
    for block in blocks(page):
        for line in block["code"].replace("\\\n", " ").splitlines():
            line = ASSIGNMENT.sub("", line.strip().removeprefix("$ "))
            if COMMAND.match(line):
                found.append(Command(name, tuple(until_pipe(line)), block["needs"] or ""))
    return found


def typed(page: Path) -> list[str]:
    """The lines of a page's blocks with commands: of ours, or of others with a mark."""
    lines = [(block["needs"], block["code"].splitlines()) for block in blocks(page)]
    return [line for needs, block in lines if needs or any(map(COMMAND.match, block)) for line in block]


def blocks(page: Path) -> list[re.Match[str]]:
    """What stands in a page as in a shell."""
    if page == USAGE:
        return []
    found = FENCE.finditer(page.read_text(encoding="utf-8"))
    return [block for block in found if block["language"] in SHELL]


def until_pipe(line: str) -> list[str]:
    """The words of a shell's line, of its first command alone."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = list(lexer)
    ends = (number for number, word in enumerate(words) if set(word) <= set("|>&;"))
    return words[: next(ends, len(words))]


def broken_links(root: Path) -> list[str]:
    """Relative links of all Markdown files below a folder that lead nowhere: "FILE: LINK"."""
    found = []
    for page in markdown_files(root):
        text = without_code(page.read_text(encoding="utf-8"))
        links = [(link[0], link["path"], link["anchor"]) for link in LINK.finditer(text)]
        links += [(picture[0], picture["path"], None) for picture in PICTURE.finditer(text)]
        found += [f"{page.relative_to(root)}: {link}" for link, *where in links if not leads_somewhere(page, *where)]
    return found


def leads_somewhere(page: Path, path: str, anchor: str | None) -> bool:
    """Whether a link of a page does. One to the web is taken to."""
    if ELSEWHERE.match(path):
        return True
    target = page.parent / path if path else page
    if not target.exists():
        return False
    return anchor is None or (target.suffix == ".md" and anchor in anchors(target))


def markdown_files(root: Path) -> Iterator[Path]:
    """Those of the repository."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(set(folders) - NOT_OURS)
        yield from (Path(folder, name) for name in sorted(files) if name.endswith(".md"))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    names: Counter[str] = Counter()
    found = set()
    for heading in HEADING.findall(re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        found.add(f"{name}-{names[name]}" if names[name] else name)
        names[name] += 1
    return found


def without_code(text: str) -> str:
    """The text without its blocks and spans of code."""
    return re.sub(r"`[^`\n]+`", "", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S))
