"""The options of loading and judging are the arguments of the functions: no second list."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import pytest
import typer
from typer.testing import CliRunner

from reward_hub import AutoRM, LLMJudge
from reward_hub.cli.judge_options import JudgeOptions
from reward_hub.cli.option_groups import CheckpointOptions, LoadOptions
from reward_hub.cli.parameters import command_of
from reward_hub.cli.signature_options import Option, SignatureOptions, help_of, options_of
from reward_hub.cli.usage import UsageError
from reward_hub.types import AtLeast


def brew(
    leaf: str | None = None,
    minutes: Annotated[int, AtLeast(1)] = 3,
    strength_s: Annotated[float | None, AtLeast(0.5)] = None,
    milk: bool = False,
    sugar: bool | Literal["auto"] = "auto",
    cup: Literal["small", "large"] = "small",
    extras: Mapping[str, Any] | None = None,
    pot: tuple[int, int] | None = None,
    **others: Any,
) -> None:
    """Make tea.

    Args:
        leaf: which tea; by
            default what is there.
        minutes, strength_s: how long.
        milk: whether there is milk.
    """


@options_of(brew, panel="Tea", own={"cup": Option(panel="Table", help="How large.")}, without=("others",))
class TeaOptions(SignatureOptions):
    """Those of `brew`."""


@pytest.fixture
def said() -> Callable[..., Any]:
    """The arguments that a command line means, or the text that it is answered with."""
    calls: list[dict[str, Any]] = []

    def command(*, tea: TeaOptions) -> None:
        calls.append(tea.arguments())

    app = typer.Typer()
    app.command()(command_of(command))

    def run(*words: str) -> Any:
        ended = CliRunner().invoke(app, list(words), env={"COLUMNS": "200"}, terminal_width=200)
        return calls.pop() if ended.exit_code == 0 and calls else ended.output

    return run


def test_without_options_the_arguments_are_at_their_defaults(said: Callable[..., Any]) -> None:
    parameters = inspect.signature(brew).parameters
    assert said() == {name: p.default for name, p in parameters.items() if name not in ("pot", "others")}


def test_each_option_gives_its_argument(said: Callable[..., Any]) -> None:
    words = ["--leaf", "oolong", "--minutes", "5", "--strength", "0.5", "--milk", "--sugar", "off", "--cup", "large"]
    assert said(*words, "--extra", "honey=2", "--extra", "lemon=yes") == {
        "leaf": "oolong",
        "minutes": 5,
        "strength_s": 0.5,
        "milk": True,
        "sugar": False,
        "cup": "large",
        "extras": {"honey": 2, "lemon": "yes"},
    }


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--minutes", "0"], "should be greater than or equal to 1"),
        (["--cup", "bucket"], "'bucket' is not one of 'small', 'large'"),
        (["--no-milk"], "No such option"),
        (["--pot", "1"], "No such option"),
    ],
)
def test_what_the_signature_does_not_allow_is_bad_usage(said: Callable[..., Any], words: list[str], error: str) -> None:
    assert error in " ".join(said(*words).split())


def test_help_comes_from_the_docstring(said: Callable[..., Any]) -> None:
    assert help_of(brew)["leaf"] == "Which tea; by default what is there."
    assert help_of(brew)["strength_s"] == "How long."
    shown = " ".join(said("--help").split())
    assert "Which tea; by default what is there." in shown
    assert "How large." in shown


def test_a_pair_that_is_none_names_its_option() -> None:
    with pytest.raises(UsageError, match="--extra 'honey': write NAME=VALUE"):
        TeaOptions(extra=["honey"]).arguments()


def test_every_argument_that_can_be_text_is_an_option() -> None:
    arguments = set(inspect.signature(AutoRM.load).parameters)
    assert arguments - LoadOptions().arguments().keys() == {"model", "token", "api_key", "engine_options"}
    judged = set(inspect.signature(LLMJudge).parameters)
    assert judged - JudgeOptions().arguments().keys() == {"model", "api_key", "engine", "prices"}


def test_defaults_are_those_of_the_functions() -> None:
    for group, function in ((LoadOptions, AutoRM.load), (JudgeOptions, LLMJudge)):
        parameters = inspect.signature(function).parameters
        for name, value in group().arguments().items():
            assert value == parameters[name].default, name


def test_every_option_of_loading_and_judging_has_a_help() -> None:
    for function in (AutoRM.load, LLMJudge):
        named = set(inspect.signature(function).parameters) - {"self"}
        assert named - help_of(function).keys() == set()


def test_inspect_has_the_options_of_loading_that_it_reads() -> None:
    arguments = CheckpointOptions().arguments()
    assert arguments.keys() == inspect.signature(AutoRM.inspect).parameters.keys() - {"model", "token"}
