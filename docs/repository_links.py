"""The hook of mkdocs.yml: links to files of the repository work in the site as they do on GitHub.

A page may link to ../tests/perf/TRUST.md or to ../examples/stripes.py. Such a file becomes a page or a file of the
site, below repository/, with all that it links to itself. A link to a folder, which a site cannot show, becomes its
text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

CHECKOUT = Path(__file__).resolve().parents[1]
DOCS = CHECKOUT / "docs"
LINK = re.compile(r"\[(?P<text>[^\[\]]*)\]\((?P<path>[^)#\s:]+)(?P<anchor>#[^)\s]*)?\)")
PICTURE = re.compile(r'(?<=<img src=")(?P<path>[^":]+)')


def on_files(files: Files, config: Any) -> Files:
    """Add the files that pages link to."""
    waiting = [page.src_uri for page in files.documentation_pages()]
    while waiting:
        for path in linked(original(waiting.pop())):
            name = in_site(path)
            if path.is_file() and DOCS not in path.parents and files.get_file_from_path(name) is None:
                files.append(File.generated(config, name, abs_src_path=str(path), inclusion=InclusionLevel.NOT_IN_NAV))
                waiting += [name] if path.suffix == ".md" else []
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page with its links as the site has them."""
    here = original(page.file.src_uri)

    def link(found: re.Match[str]) -> str:
        path = target(here, found["path"])
        return found["text"] if path.is_dir() else f"[{found['text']}]({away(path)}{found['anchor'] or ''})"

    def away(path: Path) -> str:
        return Path(os.path.relpath(in_site(path), Path(page.file.src_uri).parent)).as_posix()

    return PICTURE.sub(lambda found: away(target(here, found["path"])), LINK.sub(link, markdown))


def linked(page: Path) -> Iterator[Path]:
    """What a page's relative links lead to."""
    for found in LINK.finditer(page.read_text(encoding="utf-8")):
        yield target(page, found["path"])


def target(page: Path, path: str) -> Path:
    """The file of the repository that a page's relative link leads to."""
    return Path(os.path.normpath(page.parent / path))


def original(name: str) -> Path:
    """The file of the repository that a page of the site is made of."""
    path = Path(name)
    return CHECKOUT.joinpath(*path.parts[1:]) if path.parts[0] == "repository" else DOCS / path


def in_site(path: Path) -> str:
    """Where the site has a file of the repository."""
    if DOCS in path.parents:
        return path.relative_to(DOCS).as_posix()
    return Path("repository", os.path.relpath(path, CHECKOUT)).as_posix()
