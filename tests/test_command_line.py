"""The command line explains itself: its screens, its page, the nearest name for a misspelt one, and its completion."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import command_line_page
import pytest
from conftest import CHECKOUT
from launching import is_one_error, python

from bench import called
from bench.arguments import Parser, shape
from bench.screen import GROUPS, screen
from launch import cli as launching
from launch import commands as launch_commands
from launch.sweep import option_words
from launch.sweep.arguments import GROUPS as OF_RUN
from launch.sweep.arguments import is_setting
from reports import cli as reporting
from reports import commands as reports_commands
from resbench import commands

PARSERS = command_line_page.parsers()
RUN = "resnet20_accumulation"


# Screens


@pytest.mark.parametrize("text", [launching.usage(), reporting.usage(), screen("resbench", commands())])
def test_a_screen_is_one_screen(text: str) -> None:
    lines = text.splitlines()
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 80


def test_the_screens_have_every_command_under_a_known_question() -> None:
    for name, module in commands().items():
        assert module.GROUP in GROUPS, name
    for folder, text in ((launch_commands, launching.usage()), (reports_commands, reporting.usage())):
        listed = [line.split()[0] for line in text.splitlines() if line.startswith("  ")]
        assert sorted(listed) == folder.names()


@pytest.mark.parametrize("module", ["launch", "reports", "resbench"])
def test_without_a_command_the_screen_is_shown_and_the_code_is_2(module: str) -> None:
    alone, asked = python("-m", module), python("-m", module, "--help")
    assert (alone.returncode, asked.returncode) == (2, 0)
    assert alone.stdout == asked.stdout
    assert alone.stdout.startswith(f"usage: {'' if module == 'resbench' else 'python -m '}{module} COMMAND")


# The page


def test_the_page_is_current() -> None:
    assert command_line_page.PAGE.read_text() == command_line_page.page(), "run: make docs-tables"


@pytest.mark.parametrize("heading", PARSERS)
def test_every_argument_is_documented_and_stands_in_the_page(heading: str) -> None:
    assert f"\n## {heading}\n" in command_line_page.PAGE.read_text()
    assert command_line_page.undocumented(PARSERS[heading], command_line_page.PAGE.read_text()) == []


def test_an_argument_that_is_not_documented_is_found() -> None:
    parser = Parser("python -m launch plan")
    parser.add_argument("--effective-batch", metavar="N", help="the images of one optimizer step")
    parser.add_argument("--silent", metavar="X")
    parser.add_argument("--planted", metavar="X", help="a text that the page lacks")
    assert command_line_page.undocumented(parser, command_line_page.PAGE.read_text()) == ["silent", "planted"]


def test_run_has_the_options_that_a_study_may_have_and_each_stands_in_one_group() -> None:
    declared = {action.dest for action in PARSERS["run"]._actions} - {"experiment", "==SUPPRESS=="}
    assert declared == set(option_words.kinds())
    grouped = [name for names in OF_RUN.values() for name in names]
    assert sorted([*grouped, *filter(is_setting, option_words.kinds())]) == sorted(option_words.kinds())


def test_the_defaults_are_those_of_the_experiment_that_is_named() -> None:
    def shown(*words: str) -> str:
        done = python("-m", "launch", *words, "--help-all", env={"COLUMNS": "500"})
        assert (done.returncode, done.stderr) == (0, "")
        (line,) = [line for line in done.stdout.splitlines() if line.strip().startswith("--model ")]
        return line.rpartition("(default: ")[2]

    assert shown("run") == "resnet20)"
    assert shown("run", "resnet50_transfer") == "resnet50)"
    assert shown("plan", "resnet50_transfer") == "resnet50)"


# The help

OF_LAUNCH = {name: launching.parser(name) for name in launch_commands.names()}
WITH_SETTINGS = [name for name, parser in OF_LAUNCH.items() if "--help-all" in parser.options()]


@pytest.mark.parametrize("name", OF_LAUNCH)
def test_a_help_fits_a_terminal_and_ends_with_a_call_that_the_command_takes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    parser = launching.parser(name)
    short, everything = parser.format_help(), parser.format_help(everything=True)
    assert max(map(len, [*short.splitlines(), *everything.splitlines()])) <= 80
    assert len(short.splitlines()) <= 60
    for example in parser.examples:
        assert example in " ".join(short.replace("\\\n", "").split())
        parser.parse_args(example.removeprefix(f"{parser.prog} ").split())


def test_whoever_calls_resbench_reads_of_resbench(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No other command is there in a wheel; nor in a folder that is not the checkout."""
    monkeypatch.setattr(called, "by_resbench", True)
    helps = [launching.parser(name).format_help(everything=True) for name in launch_commands.names()]
    helps += [reporting.parser(name).format_help(everything=True) for name in reports_commands.names()]
    assert [help for help in helps if "python -m" in help] == []
    assert sum("usage: resbench " in help for help in helps) == len(helps)
    with pytest.raises(SystemExit):
        launching.main(["run", RUN, "--arm"])
    assert capsys.readouterr().err == "error: --arm has no value; resbench list names the arms of each experiment\n"


@pytest.mark.parametrize("name", WITH_SETTINGS)
def test_the_help_names_help_all_which_has_every_argument(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    parser = launching.parser(name)
    short, everything = parser.format_help(), parser.format_help(everything=True)
    assert f"python -m launch {name} --help-all\n" in short
    assert "--momentum" not in short
    for action in command_line_page.shown(parser._actions):
        assert (action.option_strings or [shape(action)])[0] in everything
    needed = [action for action in parser._actions if action.required or not action.option_strings]
    assert [action.dest for action in needed if (action.option_strings or [shape(action)])[0] not in short] == []


def test_commands_with_the_settings_of_a_trial_are_known() -> None:
    assert WITH_SETTINGS == ["bisect", "fit", "gate", "k8s", "plan", "run", "sheet", "slurm"]


def test_the_help_of_an_experiment_has_its_question_its_arms_and_what_it_sets() -> None:
    shown = python("-m", "launch", "run", RUN, "--help", env={"COLUMNS": "80"}).stdout
    assert shown.startswith(f"usage: python -m launch run {RUN} [options]\n\nAt an equal effective batch, ")
    words = " ".join(shown.split())
    assert "Arms: 16x4, 64x1, " in words
    assert "It sets: --epochs 50, --weight-decay 0.0001, --milestones 0.4 0.8; by arm: --micro-batch," in words
    mini = python("-m", "launch", "run", RUN, "--preset", "mini", "--help", env={"COLUMNS": "80"}).stdout
    assert "--data digits" in mini


# Misspelt names


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["launch", "paln"], "plan"),
        (["reports", "compere", "a", "b"], "compare"),
        (["resbench", "histroy"], "history"),
        (["launch", "run", "resnet20_acumulation"], RUN),
        (["launch", "run", RUN, "--arm", "16x9"], "16x8"),
        (["launch", "run", RUN, "--presision", "no"], "--precision"),
        (["launch", "run", RUN, "--fail_fats"], "--fail-fast"),
        (["launch", "run", RUN, "--preset", "mni"], "mini"),
        (["launch", "sheet", RUN, "--agument", "flip"], "--augment"),
        (["launch", "slurm", RUN, "--partitoin", "gpu"], "--partition"),
        (["launch", "gate", "HEAD", "HEAD", RUN, "--marign", "5%"], "--margin"),
        (["launch", "bisect", "HEAD", "HEAD", RUN, "--micro_bacth", "8"], "--micro-batch"),
        (["reports", "show", "x", "--target-acuracy", "0.9"], "--target-accuracy"),
        (["bench.experiments.resnet20_accumulation", "--arm", "16x8", "--micro-batsh", "4"], "--micro-batch"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_the_nearest_name_is_suggested(words: list[str], meant: str) -> None:
    done = python("-m", *words)
    assert is_one_error(done), done.stderr
    assert f"; perhaps you meant {meant};" in done.stderr


def test_what_is_like_no_name_gets_no_suggestion() -> None:
    done = python("-m", "launch", "run", RUN, "--zzz", "1")
    assert is_one_error(done), done.stderr
    assert "run has no option '--zzz'; see python -m launch run --help" in done.stderr


# Completion

COMPLETE = """
source "$1"
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
"$(complete -p resbench | sed 's/.*-F \\([^ ]*\\).*/\\1/')"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("bash"):
        pytest.skip("no bash")
    pytest.importorskip("shtab", reason="the extra `completion` is not installed")
    done = python("-m", "resbench", "completion", "bash")
    assert (done.returncode, done.stderr) == (0, "")
    path = tmp_path_factory.mktemp("completion") / "resbench.bash"
    path.write_text(done.stdout)
    return path


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["pl"], ["plan", "plot"]),
        (["run", "resnet20"], [RUN]),
        (["run", RUN, "--prec"], ["--precision"]),
        (["run", RUN, "--classes", "0", "1", "--micro"], ["--micro-batch"]),
        (["run", RUN, "--precision", ""], ["no", "bf16", "fp16"]),
        (["plan", RUN, "--effective"], ["--effective-batch"]),
        (["compare", "--ma"], ["--margin", "--markdown"]),
        (["baseline", ""], ["show", "accept"]),
        (["completion", ""], ["bash", "zsh"]),
    ],
    ids=lambda words: " ".join(words),
)
def test_bash_completes_a_command(words: list[str], found: list[str], script: Path) -> None:
    command = ["bash", "-c", COMPLETE, "bash", str(script), "resbench", *words]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == found


def test_zsh_gets_a_script_and_no_other_shell_does(script: Path) -> None:
    done = python("-m", "resbench", "completion", "zsh")
    assert done.stdout.startswith("#compdef resbench\n")
    assert is_one_error(python("-m", "resbench", "completion", "fish"))
