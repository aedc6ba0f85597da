"""The options of `reward-hub judge`: those of `LLMJudge`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from reward_hub.cli.option_groups import named_values
from reward_hub.cli.usage import UsageError

if TYPE_CHECKING:
    from reward_hub.judge import LLMJudge

_JUDGE = "Judge"
_SAMPLES = "Replies"
_SERVER = "Endpoint (the key comes from REWARD_HUB_API_KEY or OPENAI_API_KEY)"
_LIMITS = "Limits"

# What costs time or money alone; a resumed run may have others.
_NEUTRAL = (
    *("price_in", "price_out", "budget", "token_budget", "requests_per_minute", "tokens_per_minute"),
    *("max_concurrency", "timeout_s", "deadline_s", "max_retries", "engine_option"),
)


@dataclasses.dataclass(frozen=True)
class JudgeOptions:
    """The arguments of `LLMJudge`, the model apart."""

    rubric: Annotated[
        str | None, typer.Option(help="What to judge by: a text, or a file that holds it.", rich_help_panel=_JUDGE)
    ] = None
    mode: Annotated[
        Literal["pointwise", "pairwise", "listwise", "stepwise"] | None,
        typer.Option(help="Score, compare, rank or score steps; by default pointwise.", rich_help_panel=_JUDGE),
    ] = None
    form: Annotated[
        str | None,
        typer.Option(help="A published judge's (see `families`), in place of a rubric.", rich_help_panel=_JUDGE),
    ] = None
    load_method: Annotated[Literal["api", "vllm"], typer.Option(help="Where it runs.", rich_help_panel=_JUDGE)] = "api"
    aggregation: Annotated[
        str | None, typer.Option(help="Stepwise: how step scores become one.", rich_help_panel=_JUDGE)
    ] = None
    temperature: Annotated[float | None, typer.Option(min=0, rich_help_panel=_SAMPLES)] = None
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Of a reply.", rich_help_panel=_SAMPLES)] = None
    seed: Annotated[int, typer.Option(help="Seeds of requests are made from it.", rich_help_panel=_SAMPLES)] = 0
    n_samples: Annotated[int, typer.Option(min=1, help="Replies per judgement.", rich_help_panel=_SAMPLES)] = 1
    reduce: Annotated[
        Literal["mean", "median", "majority"], typer.Option(help="Several to one.", rich_help_panel=_SAMPLES)
    ] = "mean"
    use_logprobs: Annotated[
        bool, typer.Option("--use-logprobs", help="Expected scores over tokens.", rich_help_panel=_SAMPLES)
    ] = False
    both_orders: Annotated[
        bool, typer.Option("--both-orders/--one-order", help="Of pairs and lists.", rich_help_panel=_SAMPLES)
    ] = True
    structured: Annotated[
        Literal["auto", "on", "off"], typer.Option(help="Hold replies to a JSON schema.", rich_help_panel=_SAMPLES)
    ] = "auto"
    parse_retries: Annotated[
        int, typer.Option(min=0, help="Further replies where one has no verdict.", rich_help_panel=_SAMPLES)
    ] = 2
    api_base: Annotated[str | None, typer.Option(help="Its address.", rich_help_panel=_SERVER)] = None
    extra_body: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A further field of each request.", rich_help_panel=_SERVER),
    ] = None
    engine_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="An argument of vLLM's engine.", rich_help_panel=_JUDGE),
    ] = None
    timeout_s: Annotated[
        float | None,
        typer.Option("--timeout", min=0.001, help="Seconds of one attempt; 120.", rich_help_panel=_SERVER),
    ] = None
    deadline_s: Annotated[
        float | None, typer.Option("--deadline", min=0.001, help="Seconds of one judgement.", rich_help_panel=_SERVER)
    ] = None
    max_retries: Annotated[int | None, typer.Option(min=0, help="Further attempts; 4.", rich_help_panel=_SERVER)] = None
    max_concurrency: Annotated[int, typer.Option(min=1, help="Requests at a time.", rich_help_panel=_SERVER)] = 32
    price_in: Annotated[
        float | None, typer.Option(min=0, help="Of a million prompt tokens.", rich_help_panel=_LIMITS)
    ] = None
    price_out: Annotated[
        float | None, typer.Option(min=0, help="Of a million generated tokens.", rich_help_panel=_LIMITS)
    ] = None
    budget: Annotated[float | None, typer.Option(help="In the prices' currency.", rich_help_panel=_LIMITS)] = None
    token_budget: Annotated[int | None, typer.Option(min=1, rich_help_panel=_LIMITS)] = None
    requests_per_minute: Annotated[float | None, typer.Option(min=1, rich_help_panel=_LIMITS)] = None
    tokens_per_minute: Annotated[float | None, typer.Option(min=1, rich_help_panel=_LIMITS)] = None

    def judge(self, model: str) -> LLMJudge:
        """The judge that the options describe.

        Raises:
            UsageError: options that do not go together, or a rubric that cannot be read.
        """
        from reward_hub.judge import LLMJudge

        arguments = dataclasses.asdict(self)
        prices = arguments.pop("price_in"), arguments.pop("price_out")
        if (prices[0] is None) != (prices[1] is None):
            raise UsageError("--price-in and --price-out go together.")
        arguments |= {
            "rubric": self.rubric_text,
            "prices": None if None in prices else prices,
            "structured": {"auto": "auto", "on": True, "off": False}[self.structured],
            "extra_body": named_values("--extra-body", self.extra_body) or None,
            "engine_options": named_values("--engine-option", arguments.pop("engine_option")) or None,
        }
        try:
            return LLMJudge(model, **arguments)
        except (TypeError, ValueError) as error:
            raise UsageError(str(error)) from error

    @property
    def rubric_text(self) -> str | None:
        """The rubric itself, where `--rubric` names a file."""
        if self.rubric is None or "\n" in self.rubric:
            return self.rubric
        path = Path(self.rubric)
        try:
            if path.is_file():
                return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--rubric {path} cannot be read: {error}.") from error
        if path.suffix in (".txt", ".md") and " " not in self.rubric:
            raise UsageError(f"--rubric {path}: there is no such file.")
        return self.rubric

    def settings(self) -> dict[str, Any]:
        """Those that may change a score; the others may differ when a run is resumed."""
        settings = {name: value for name, value in dataclasses.asdict(self).items() if name not in _NEUTRAL}
        return settings | {"rubric": self.rubric_text}
