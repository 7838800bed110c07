"""What all pages share: one file that needs no network, with its style and script in it, and nothing else may run."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

HERE = Path(__file__).parent / "pages"


def render(template: str, **values: Any) -> str:
    """A page of its own, with the style and the script of all pages. `values` are escaped unless they are Markup."""
    style, script = (HERE / "page.css").read_text(encoding="utf-8"), (HERE / "page.js").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    policy = f"default-src 'none'; style-src '{digest(style)}'; script-src '{digest(script)}'"
    return environment.get_template(template).render(
        **values, style=Markup(style), script=Markup(script), policy=policy
    )


def digest(text: str) -> str:
    """The hash by which a content security policy allows an inline style or script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
