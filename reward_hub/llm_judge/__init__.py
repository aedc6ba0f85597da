"""create_pointwise_judge and create_groupwise_judge, as reward_hub 0.1 named them and its_hub imports them.

New code uses `LLMJudge`, which these are built on. What differs from 0.1.10: the judge is asked over an
OpenAI-compatible endpoint (`base_url`), not through litellm; nothing is called in the constructor; a reply without a
verdict is an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reward_hub.errors import InvalidConversationError
from reward_hub.judge import LLMJudge, Rubric
from reward_hub.judge.chat.openai import address_given
from reward_hub.judge.chat.providers import require_openai_model
from reward_hub.llm_judge.prompts import CRITERIA as CRITERIA
from reward_hub.llm_judge.prompts import CriterionRegistry as CriterionRegistry
from reward_hub.loops import run_sync
from reward_hub.messages import is_single, parse, prompt_and_responses

# How litellm marks endpoints that speak OpenAI's language; the endpoint itself does not know the mark. Only the first
# has an address of its own.
_LITELLM_ROUTES = ("openai/", "hosted_vllm/", "litellm_proxy/")


@dataclass(frozen=True)
class JudgeResult:
    """One score a conversation, and the judge's reasons: one a conversation (pointwise) or one for all (groupwise)."""

    scores: list[float]
    reasonings: list[str]


class PointwiseJudge:
    """Scores each conversation from 0 to 10; made by `create_pointwise_judge`. `judge` is the `LLMJudge` behind it."""

    def __init__(self, judge: LLMJudge) -> None:
        self.judge = judge

    async def ascore(self, messages: Any, *, return_judge_reasoning: bool = False) -> Any:
        """Score one conversation or several.

        Returns:
            A float for one conversation, a list for several; with `return_judge_reasoning` a `JudgeResult`.

        Raises:
            JudgeParseError, ServerError: one of them got no verdict.
        """
        single = is_single(messages)
        conversations = [_as_texts(messages, None)] if single else [_as_texts(c, i) for i, c in enumerate(messages)]
        judged = await self.judge.ascore_batch(conversations, return_details=True)
        scores = [score for score, _ in judged]
        if return_judge_reasoning:
            return JudgeResult(scores, [details["reasoning"] for _, details in judged])
        return scores[0] if single else scores

    def score(self, messages: Any, *, return_judge_reasoning: bool = False) -> Any:
        """`ascore`, for synchronous code."""
        return run_sync(self.ascore(messages, return_judge_reasoning=return_judge_reasoning))

    def close(self) -> None:
        self.judge.close()


class GroupwiseJudge:
    """Chooses the best of several responses to one prompt; made by `create_groupwise_judge`."""

    def __init__(self, judge: LLMJudge) -> None:
        self.judge = judge

    async def ascore(
        self, messages: Sequence[Sequence[Any]], *, top_n: int = 1, return_judge_reasoning: bool = False
    ) -> Any:
        """Score conversations with one prompt: 1.0 for the best `top_n`, 0.0 for the others.

        Returns:
            A list of floats; with `return_judge_reasoning` a `JudgeResult` with the reasons for the choice (none where
            all responses are equal, which no judge is asked about).

        Raises:
            InvalidConversationError: a single conversation, or several prompts.
            JudgeParseError, ServerError: there is no verdict.
        """
        if top_n < 1:
            raise ValueError(f"top_n={top_n}; at least one response is chosen.")
        if is_single(messages):
            raise InvalidConversationError("one conversation is not a group; a list is needed.", field="messages")
        conversations = [_as_texts(conversation, i) for i, conversation in enumerate(messages)]
        prompt, responses = prompt_and_responses(conversations)
        best, details = await self.judge.arank(prompt, responses=responses, return_details=True, top_n=top_n)
        scores = [1.0 if i in best else 0.0 for i in range(len(responses))]
        return JudgeResult(scores, [details.get("reasoning", "")]) if return_judge_reasoning else scores

    def score(self, messages: Sequence[Sequence[Any]], *, top_n: int = 1, return_judge_reasoning: bool = False) -> Any:
        """`ascore`, for synchronous code."""
        return run_sync(self.ascore(messages, top_n=top_n, return_judge_reasoning=return_judge_reasoning))

    def close(self) -> None:
        self.judge.close()


def create_pointwise_judge(
    model: str,
    criterion: str,
    *,
    api_key: str | None = None,
    base_url: str | None = None,
    temperature: float = 0.0,
    max_tokens: int = 512,
    **options: Any,
) -> PointwiseJudge:
    """A judge that scores each conversation from 0 to 10.

    Args:
        model: the model's name at the endpoint; litellm's `openai/`, `hosted_vllm/` and `litellm_proxy/` are taken off.
        criterion: a name of `CriterionRegistry`, or what to judge by in plain words.
        api_key, base_url: as `api_key` and `api_base` of `LLMJudge`. Without an address the model is OpenAI's.
        options: further arguments of `LLMJudge`.

    Raises:
        ValueError: one word that names no criterion.
        TypeError: an option that `LLMJudge` does not know.
        UnsupportedError: a model of another provider ("anthropic/..."), without its address.
    """
    rubric = Rubric(instructions=_criterion(criterion), score_range=(0.0, 10.0), whole=False)
    return PointwiseJudge(
        LLMJudge(
            _without_route(model, base_url),
            rubric=rubric,
            api_key=api_key,
            api_base=base_url,
            temperature=temperature,
            max_tokens=max_tokens,
            **options,
        )
    )


def create_groupwise_judge(
    model: str,
    criterion: str,
    *,
    api_key: str | None = None,
    base_url: str | None = None,
    temperature: float = 0.0,
    max_tokens: int = 1024,
    both_orders: bool = False,
    **options: Any,
) -> GroupwiseJudge:
    """A judge that chooses the best of several responses, by one request; arguments as `create_pointwise_judge`.

    Args:
        both_orders: show the responses in both orders, by two requests: judges favour places.
    """
    return GroupwiseJudge(
        LLMJudge(
            _without_route(model, base_url),
            rubric=Rubric(instructions=_criterion(criterion)),
            mode="listwise",
            api_key=api_key,
            api_base=base_url,
            temperature=temperature,
            max_tokens=max_tokens,
            both_orders=both_orders,
            **options,
        )
    )


def _criterion(name_or_words: str) -> str:
    if len(name_or_words.split()) < 2 or CriterionRegistry.is_registered(name_or_words):
        try:
            return CriterionRegistry.get(name_or_words)
        except ValueError as error:
            raise ValueError(f"{error} A text of several words is a criterion by itself.") from None
    return name_or_words


def _without_route(model: str, base_url: str | None) -> str:
    """The model's name as its endpoint knows it.

    Raises:
        UnsupportedError: it is not a model of OpenAI, and no address is given.
    """
    route = next((route for route in _LITELLM_ROUTES if model.startswith(route)), "")
    if not address_given(base_url):
        require_openai_model(model.removeprefix("openai/"))
    return model.removeprefix(route)


def _as_texts(conversation: Any, index: int | None) -> list[dict[str, Any]]:
    """The conversation as dicts, with the calls of its last message, which is judged, as part of the text."""
    parsed = parse(conversation, index=index)
    last = parsed.messages[-1]
    calls = [f"Tool call: {_call_text(call)}" for call in last.tool_calls]
    text = "\n".join([last.text] * bool(last.text) + calls)
    return [*(turn.to_dict() for turn in parsed.prompt), {"role": "assistant", "content": text, **last.extra}]


def _call_text(call: Mapping[str, Any]) -> str:
    function = call.get("function")
    if not isinstance(function, Mapping) or "name" not in function:
        return json.dumps(call, ensure_ascii=False)
    arguments = function.get("arguments", "")
    return (
        f"{function['name']}({arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)})"
    )
