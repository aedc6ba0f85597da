"""The options of `reward-hub judge`: those of `LLMJudge`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from reward_hub.cli.signature_options import Option, SignatureOptions, options_of
from reward_hub.cli.usage import UsageError
from reward_hub.judge.llm_judge import LLMJudge

_JUDGE = "Judge"
_SAMPLES = "Replies"
_SERVER = "Endpoint (the key comes from REWARD_HUB_API_KEY or OPENAI_API_KEY)"
_LIMITS = "Limits"

# What costs time or money alone; a resumed run may have others.
_NEUTRAL = (
    *("price_in", "price_out", "budget", "token_budget", "requests_per_minute", "tokens_per_minute"),
    *("max_concurrency", "timeout_s", "deadline_s", "max_retries", "engine_option"),
)


_OWN = {
    "rubric": Option(help="What to judge by: a text, or a file that holds it."),
    "form": Option(help="A published judge's (see `families`), in place of a rubric."),
    "both_orders": Option(names=("--both-orders/--one-order",), panel=_SAMPLES),
    "extra_body": Option(help="A further field of each request.", panel=_SERVER),
    "engine_options": Option(help="An argument of vLLM's engine."),
    "structured": Option(help="Hold replies to a JSON schema; auto: where the server can.", panel=_SAMPLES),
    **dict.fromkeys(
        ("temperature", "max_tokens", "seed", "n_samples", "reduce", "use_logprobs", "parse_retries"),
        Option(panel=_SAMPLES),
    ),
    **dict.fromkeys(("api_base", "timeout_s", "deadline_s", "max_retries", "max_concurrency"), Option(panel=_SERVER)),
    **dict.fromkeys(("budget", "token_budget", "requests_per_minute", "tokens_per_minute"), Option(panel=_LIMITS)),
}


@options_of(LLMJudge, panel=_JUDGE, own=_OWN, without=("model", "api_key", "engine", "prices"))
class JudgeOptions(SignatureOptions):
    """The arguments of `LLMJudge`, the model apart."""

    price_in: Annotated[
        float | None, typer.Option(min=0, help="Of a million prompt tokens.", rich_help_panel=_LIMITS)
    ] = None
    price_out: Annotated[
        float | None, typer.Option(min=0, help="Of a million generated tokens.", rich_help_panel=_LIMITS)
    ] = None

    def judge(self, model: str) -> LLMJudge:
        """The judge that the options describe.

        Raises:
            UsageError: options that do not go together, or a rubric that cannot be read.
        """
        prices = self.price_in, self.price_out
        if (prices[0] is None) != (prices[1] is None):
            raise UsageError("--price-in and --price-out go together.")
        arguments = self.arguments() | {"rubric": self.rubric_text, "prices": None if None in prices else prices}
        try:
            return LLMJudge(model, **arguments)
        except (TypeError, ValueError) as error:
            raise UsageError(str(error)) from error

    @property
    def rubric_text(self) -> str | None:
        """The rubric itself, where `--rubric` names a file."""
        rubric: str | None = self.rubric
        if rubric is None or "\n" in rubric:
            return rubric
        path = Path(rubric)
        try:
            if path.is_file():
                return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--rubric {path} cannot be read: {error}.") from error
        if path.suffix in (".txt", ".md") and " " not in rubric:
            raise UsageError(f"--rubric {path}: there is no such file.")
        return rubric

    def settings(self) -> dict[str, Any]:
        """Those that may change a score; the others may differ when a run is resumed."""
        settings = {name: value for name, value in dataclasses.asdict(self).items() if name not in _NEUTRAL}
        return settings | {"rubric": self.rubric_text}
