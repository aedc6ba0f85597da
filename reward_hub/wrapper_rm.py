"""WrapperRM: what a reward model over one other reward model takes from it as it is."""

from __future__ import annotations

from collections.abc import Sequence

from reward_hub.base import BaseRM, CallOptions
from reward_hub.errors import UnsupportedError
from reward_hub.types import Conversation, ScoreDetails


class WrapperRM(BaseRM):
    """A reward model that asks another one. Closing it closes the other."""

    def __init__(self, rm: BaseRM) -> None:
        if not isinstance(rm, BaseRM):
            raise TypeError(f"{type(self).__name__} wraps a BaseRM, not {type(rm).__name__}.")
        self.rm = rm
        self.name = rm._label()
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

    def _n_trainings(self) -> int:
        return self.rm._n_trainings()

    def _joined(self, parts: Sequence[ScoreDetails]) -> ScoreDetails:
        return self.rm._joined(parts)

    def _default_aggregation(self) -> str:
        return self.rm._default_aggregation()

    def _require_score(self, options: CallOptions, delimiter: str | None, full: bool) -> None:
        if "score" in self.rm._own and (full or delimiter is not None or options.aggregation is not None):
            raise UnsupportedError(
                f"{self.name} has a score of its own, which knows neither step delimiters nor aggregations."
            )
        self.rm._require_score(options, delimiter, full)

    def _one_with_steps(
        self, conversation: Conversation, how: str | None, delimiter: str | None, index: int | None
    ) -> Conversation:
        if "score" in self.rm._own:
            return conversation
        return self.rm._one_with_steps(conversation, how, delimiter, index)

    def _with_steps(self, conversations: list[Conversation], options: CallOptions) -> list[Conversation]:
        return self.rm._with_steps(conversations, options)


def refuse_own(rm: BaseRM, method: str) -> None:
    """A public method that a user wrote anew would not be asked: what it says cannot be given from a wrapper.

    Raises:
        UnsupportedError: the class, one that is not of this package, has its own.
    """
    if getattr(type(rm), method).__module__.partition(".")[0] != "reward_hub":
        raise UnsupportedError(f"{rm._label()} has a {method} of its own, which no wrapper asks; call the model's own.")
