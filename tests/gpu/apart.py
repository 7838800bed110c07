"""A process for each check: what one does to the GPU, or dies of, is no other's concern.

It is forked, as the suite's own trials are, from a process that has torch and has touched no device.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import pytest


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns, called in a process of its own. RuntimeError: it died."""
    return _called(function, arguments, {})


def apart_with(figures: dict[str, Any], function: Callable[..., Any], arguments: dict[str, Any]) -> None:
    """The check, called apart; what it puts in `figures`, where it takes them, is there also if it fails or skips."""
    _called(function, (), arguments, figures)


def _called(
    function: Callable[..., Any], words: Any, named: dict[str, Any], figures: dict[str, Any] | None = None
) -> Any:
    context = get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(theirs, function, words, named))
    process.start()
    theirs.close()
    try:
        kind, found, seen = ours.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"the process died with exit code {process.exitcode}") from None
    finally:
        process.kill()  # also where a time-out has come
        process.join()
    if figures is not None:
        figures.update(seen or {})
    if kind == "skipped":
        pytest.skip(found)
    if kind == "failed":
        pytest.fail(found, pytrace=False)
    return found


def _work(answer: Connection, function: Callable[..., Any], words: Any, named: dict[str, Any]) -> None:
    kind, found = "returned", None
    try:
        found = function(*words, **named)
    except pytest.skip.Exception as skipped:
        kind, found = "skipped", str(skipped)
    except BaseException as error:
        # What is said first is what went wrong; the rest is for whoever has to find it.
        kind, found = "failed", f"{type(error).__name__}: {error}\n\n{''.join(traceback.format_exception(error))}"
    answer.send((kind, found, named.get("figures")))
