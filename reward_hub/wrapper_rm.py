"""WrapperRM: a reward model over one other reward model. Here, once, everything that is asked is handed on to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reward_hub.base import BaseRM
from reward_hub.errors import UnsupportedError
from reward_hub.reward_model import CallOptions, Capabilities, Result, label_of
from reward_hub.types import Conversation, Message, ModelInput, Pair, ScoreDetails
from reward_hub.work import Work


class WrapperRM(BaseRM):
    """A reward model that asks another one. A subclass overrides what differs; closing it closes the other."""

    def __init__(self, rm: BaseRM) -> None:
        if not isinstance(rm, BaseRM):
            raise TypeError(f"{type(self).__name__} wraps a BaseRM, not {type(rm).__name__}.")
        self.rm = rm
        self.name = label_of(rm)
        self.family = rm.family
        self.kind = rm.kind
        self.higher_is_better = rm.higher_is_better
        self.max_length = rm.max_length
        self.step_delimiter = rm.step_delimiter
        self.deterministic = rm.deterministic

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.rm!r})"

    def close(self) -> None:
        self.rm.close()

    @property
    def n_trainings(self) -> int:  # type: ignore[override]
        return self.rm.n_trainings

    @property
    def capabilities(self) -> Capabilities:
        return self.rm.capabilities

    def scoring_of(self, conversations: Sequence[Conversation], options: CallOptions) -> Work[list[Result]]:
        return self.rm.scoring_of(conversations, options)

    def comparison_of(self, pairs: Sequence[Pair], both_orders: bool, options: CallOptions) -> Work[list[Result]]:
        refuse_own(self.rm, "compare")
        return self.rm.comparison_of(pairs, both_orders, options)

    def ranking_of(self, prompt: tuple[Message, ...], responses: Sequence[str], options: CallOptions) -> Work[Result]:
        refuse_own(self.rm, "rank")
        return self.rm.ranking_of(prompt, responses, options)

    def with_steps(
        self, conversation: Conversation, how: str | None = None, delimiter: str | None = None
    ) -> Conversation:
        return self.rm.with_steps(conversation, how, delimiter)

    def note_split(self, conversation: Conversation, delimiter: str) -> None:
        self.rm.note_split(conversation, delimiter)

    def join_details(self, parts: Sequence[ScoreDetails]) -> ScoreDetails:
        return self.rm.join_details(parts)

    @property
    def load_report(self) -> Mapping[str, Any]:
        return self.rm.load_report

    @property
    def shared_share(self) -> float | None:
        return self.rm.shared_share

    def inputs_of(self, value: Conversation | Pair) -> list[ModelInput]:
        return self.rm.inputs_of(value)


def refuse_own(rm: BaseRM, method: str) -> None:
    """A public method that a user wrote anew would not be asked: what it says cannot be given from a wrapper.

    Raises:
        UnsupportedError: the class, one that is not of this package, has its own.
    """
    if getattr(type(rm), method).__module__.partition(".")[0] != "reward_hub":
        raise UnsupportedError(
            f"{label_of(rm)} has a {method} of its own, which no wrapper asks; call the model's own."
        )
