"""Reward models for the search algorithms of its_hub (0.3.5 and 1.2.0): RewardHubORM and RewardHubPRM.

    BestOfN(RewardHubORM(AutoRM.load("builtin/arithmetic-orm"))).infer(lm, prompt, budget=8)
    ParticleFiltering(step_generation, RewardHubPRM(AutoRM.load("builtin/arithmetic-prm"))).infer(lm, prompt, budget=8)

Both are its_hub's `AbstractOutcomeRewardModel` and `AbstractProcessRewardModel` to `isinstance`, and score natively in
its event loop. A failure to score is the error that the search ends with, never a number.

Source: https://github.com/Red-Hat-AI-Innovation-Team/its_hub
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

from reward_hub.aggregation import AggregationMethod, aggregation_name
from reward_hub.base import BaseRM
from reward_hub.errors import InvalidConversationError, UnsupportedError
from reward_hub.loops import run_sync
from reward_hub.messages import prompt_and_responses


class RewardHubORM:
    """Scores whole responses, for `BestOfN`.

    The score is the model's raw reward; that of a cost is negated, because its_hub takes the largest. A pairwise model
    compares the candidates of one prompt with each other (`rank`), and a score is the mean probability of winning.

    Args:
        rm: any reward model.
    """

    def __init__(self, rm: BaseRM) -> None:
        _require_model(rm)
        self.rm = rm

    async def ascore(self, messages: Any, response: str | Sequence[str] | None = None, orchestrator: Any = None) -> Any:
        """Score one response or several.

        Args:
            messages: 1.2.0: one conversation or a list of them, each ending with its response. 0.3.5: the prompt, as
                text, messages or `ChatMessages`.
            response: 0.3.5: the response, or a list of responses, to that prompt.
            orchestrator: 1.2.0's; it spreads calls of its language models, and none is called here.

        Returns:
            A float for one response, a list of floats for several.
        """
        conversations, single = _conversations(messages, response)
        if self.rm.kind == "pairwise":
            if single:
                raise UnsupportedError(f"{self.rm.name} compares responses and has no score for one alone.")
            prompt, responses = prompt_and_responses(conversations)
            _, details = await self.rm.arank(prompt, responses=responses, return_details=True)
            scores = details["scores"]
        else:
            sign = 1.0 if self.rm.higher_is_better else -1.0
            scores = [sign * score for score in await self.rm.ascore_batch(conversations)]
        return scores[0] if single else scores

    def score(self, messages: Any, response: str | Sequence[str] | None = None) -> Any:
        """`ascore`, for synchronous code."""
        return run_sync(self.ascore(messages, response))


class RewardHubPRM:
    """Scores partial answers, for `BeamSearch` and `ParticleFiltering`: one probability each.

    A partial answer is split into steps and its step scores are aggregated by the model; the result is the details'
    `normalized_score`, in [0, 1] and higher is better whatever the model's own range.

    Args:
        rm: a process reward model.
        aggregation: in place of the model's own.
        step_delimiter: where partial answers are split, in place of the model's own. It should be the search's
            `step_token`: what is not split is one long step.
    """

    def __init__(
        self, rm: BaseRM, *, aggregation: str | AggregationMethod | None = None, step_delimiter: str | None = None
    ) -> None:
        _require_model(rm)
        if rm.kind != "process":
            raise UnsupportedError(
                f"{rm.name or type(rm).__name__} is not a process reward model: it cannot score partial answers. "
                "RewardHubORM takes it, for BestOfN."
            )
        how = rm.capabilities.aggregation if aggregation is None else aggregation_name(aggregation)
        if how == "sum":
            raise UnsupportedError(
                "The sum of step scores is not a probability, and its_hub needs one in [0, 1]: give another "
                "aggregation=."
            )
        self.rm = rm
        self._options = {"aggregation": aggregation, "step_delimiter": step_delimiter}

    async def ascore(self, prompt_or_messages: Any, steps: str | Sequence[str]) -> Any:
        """Score partial answers.

        Args:
            prompt_or_messages: text, messages or `ChatMessages`.
            steps: one partial answer, or a list of them. (its_hub's name for them; each holds all steps so far.)

        Returns:
            A float in [0, 1] for one partial answer, a list of them for several.
        """
        conversations, single = _conversations(prompt_or_messages, steps)
        scored = await self.rm.ascore_batch(conversations, return_details=True, **self._options)
        probabilities = [details["normalized_score"] for _, details in scored]
        return probabilities[0] if single else probabilities

    def score(self, prompt_or_messages: Any, steps: str | Sequence[str]) -> Any:
        """`ascore`, for synchronous code."""
        return run_sync(self.ascore(prompt_or_messages, steps))


def _require_model(rm: Any) -> None:
    if not isinstance(rm, BaseRM):
        raise TypeError(f"rm is a {type(rm).__name__}; a BaseRM is needed, such as AutoRM.load gives.")


def _conversations(messages: Any, response: str | Sequence[str] | None) -> tuple[list[list[Any]], bool]:
    """Conversations in the OpenAI form, and whether the caller named one alone."""
    if response is None:
        turns = _turns(messages)
        batch = isinstance(turns, Sequence) and not isinstance(turns, str) and bool(turns)
        if batch and not _is_message(turns[0]):
            return [_dicts(_turns(conversation)) for conversation in turns], False
        return [_dicts(turns)], True
    single = isinstance(response, str)
    prompt = _dicts(_turns(messages))
    try:
        texts = [response] if isinstance(response, str) else list(response)
    except TypeError:
        raise InvalidConversationError(
            f"response is {type(response).__name__}; a text or a list of texts is needed.", field="response"
        ) from None
    return [[*prompt, {"role": "assistant", "content": text}] for text in texts], single


def _turns(messages: Any) -> Any:
    """The list inside a `ChatMessages`; anything else as it is."""
    return messages.to_chat_messages() if hasattr(messages, "to_chat_messages") else messages


def _dicts(messages: Any) -> list[Any]:
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    if not isinstance(messages, Sequence):
        raise InvalidConversationError(
            f"messages is {type(messages).__name__}; a text, a list of messages or ChatMessages is needed.",
            field="messages",
        )
    return [turn.to_dict() if hasattr(turn, "to_dict") else turn for turn in messages]


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) or hasattr(value, "role")


def _register() -> None:
    """Make the adapters its_hub's own kinds of model, wherever its installed version keeps those."""
    if importlib.util.find_spec("its_hub") is None:
        return
    place = "its_hub.api" if importlib.util.find_spec("its_hub.api") is not None else "its_hub.base"
    bases = importlib.import_module(place)
    bases.AbstractOutcomeRewardModel.register(RewardHubORM)
    bases.AbstractProcessRewardModel.register(RewardHubPRM)


_register()
