"""The parser that all commands share: what it hands on, what it refuses, and what its help shows."""

from __future__ import annotations

import pytest

from bench.arguments import Parser, Switch, Words, at_least, shape, text
from bench.errors import UsageError


def parser() -> Parser:
    found = Parser("python -m launch x", "One.\n\n  an example,\n  kept\n\nTwo.")
    found.add_argument("experiment", metavar="EXPERIMENT", nargs="*", help="e")
    group = found.add_argument_group("a group")
    batch = group.add_argument("--micro-batch", action=Words, metavar="N", help="images (default: %(shown)s)")
    batch.shown = "3"  # type: ignore[attr-defined]
    group.add_argument("--classes", action=Words, nargs="*", help="c")
    group.add_argument("--stop", action=Words, nargs="?", help="s")
    group.add_argument("--cold", action=Switch, help="k")
    group.add_argument("--number", type=at_least(2), default=3, help="n")
    group.add_argument("--kind", choices=("fast", "slow"), help="o")
    group.add_argument("--flag", action="store_true", help="f")
    return found


def test_options_that_another_parser_reads_are_handed_on_as_they_are_and_in_order() -> None:
    words = ["a", "b", "--classes", "0", "1", "--micro_batch=1,2", "--stop", "--no-cold", "--number", "3", "--flag"]
    found = parser().parse_args(words)
    assert found.words == ["--classes", "0", "1", "--micro-batch", "1,2", "--stop", "--no-cold"]
    assert (found.experiment, found.micro_batch, found.classes, found.cold) == (["a", "b"], "1,2", ["0", "1"], False)
    assert (found.number, found.flag) == (3, True)
    assert found.given == {"experiment", "micro_batch", "classes", "stop", "cold", "number", "flag"}


def test_what_is_not_given_has_its_default_and_leaves_no_words() -> None:
    found = parser().parse_args([])
    assert (found.words, found.given, found.number, found.flag, found.micro_batch) == ([], set(), 3, False, None)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--micro_bacth", "1"], "x has no option '--micro_bacth'; perhaps you meant --micro-batch; see python -m la"),
        (["--zzz"], "x has no option '--zzz'; see python -m launch x --help"),
        (["-z"], "x has no option '-z'; see python -m launch x --help"),
        (["--numb", "4"], "x has no option '--numb'; perhaps you meant --number; see "),
        (["--cold", "--no-cold"], "--cold/--no-cold is given twice; give it once"),
        (["--number", "3", "--number=5"], "--number is given twice; give it once"),
        (["--flag", "--flag"], "--flag is given twice; give it once"),
        (["--classes", "--classes", "1"], "--classes is given twice; give it once"),
        (["--number", "1"], "--number: '1' is no whole number from 2 on; see "),
        (["--micro-batch"], "--micro-batch has no value; give one"),
        (["--kind", "fst"], "--kind is 'fst'; perhaps you meant fast; choose from: fast, slow"),
        (["--kind"], "--kind has no value; choose from: fast, slow"),
        (["a", "--flag", "b"], "x: unrecognized arguments: b; see python -m launch x --help"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_it_cannot_parse_is_one_sentence(words: list[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parser().parse_args(words)
    assert said in str(caught.value)


def test_the_help_has_a_short_usage_the_paragraphs_and_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    shown = parser().format_help()
    assert shown.startswith(
        "usage: python -m launch x [EXPERIMENT ...] [options]\n\nOne.\n\n  an example,\n  kept\n\nTwo."
    )
    assert "images (default: 3)" in shown
    (batch,) = [action for action in parser()._actions if action.dest == "micro_batch"]
    assert (shape(batch), text(batch)) == ("N", "images (default: 3)")


def test_help_asks_for_what_stood_before_it(capsys: pytest.CaptureFixture[str]) -> None:
    one, seen = parser(), []
    one.before_help = lambda parsed: seen.append(parsed.experiment)
    with pytest.raises(SystemExit) as ended:
        one.parse_args(["a", "--help"])
    assert (ended.value.code, seen) == (0, [["a"]])
    assert capsys.readouterr().out.startswith("usage: ")
