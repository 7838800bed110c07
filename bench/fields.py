"""What is said of a dataclass's fields: the docstring behind each. Imports no torch."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import textwrap
from typing import Any


@functools.cache
def texts(kind: type) -> dict[str, str]:
    """Field name -> the docstring behind the field. Python does not keep it: it is read from the source."""
    body: list[Any] = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body  # type: ignore[attr-defined]
    pairs = itertools.pairwise(body)
    documented = ((a, b) for a, b in pairs if isinstance(a, ast.AnnAssign) and isinstance(b, ast.Expr))
    return {ast.unparse(name.target): " ".join(ast.literal_eval(text.value).split()) for name, text in documented}
