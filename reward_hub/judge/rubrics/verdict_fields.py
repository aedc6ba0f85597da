"""The entry of a judge's reply that holds its verdict: a score, a preference, an order; asked for, held to, and read.

Listwise asks for an order rather than for scores, after RankGPT (https://arxiv.org/abs/2304.09542).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from reward_hub.judge.form import JudgeTask, Mode
from reward_hub.judge.rubrics.reply_words import label_in, number_in
from reward_hub.judge.rubrics.rubric import Rubric

Schema: TypeAlias = dict[str, Any]
Values: TypeAlias = tuple[float, ...]

PAIR_LABELS: dict[str, float] = {"A": 1.0, "B": 0.0, "tie": 0.5}
_NOT_BY = "Neither the order of the responses nor their length speaks for one of them."


@dataclass(frozen=True)
class VerdictField:
    """A verdict in the reply, asked for once or once for each criterion."""

    key: str
    """Its name in the reply; `key`s where there are criteria."""
    task: str
    """What to do, in words."""
    hint: str
    """What stands in its place in the form of the reply that the judge is shown."""
    schema: Callable[[JudgeTask], Schema]
    read: Callable[[Any, JudgeTask], Values]
    """JSON value -> one number, or one for each response. Raises ValueError."""
    labels: Mapping[str, float] | None = None
    """Every value as the judge writes it -> its number, where there are few."""


def _scoring(rubric: Rubric) -> VerdictField:
    (low, high), scores = rubric.score_range, rubric.scores
    schema: Schema = {"type": "integer" if rubric.whole else "number"}
    schema |= {"enum": list(scores)} if scores is not None else {"minimum": low, "maximum": high}
    return VerdictField(
        key="score",
        task=f"Give {{what}} {rubric.scale}.",
        hint=f"<{rubric.scale}>",
        schema=lambda task: schema,
        read=lambda value, task: (number_in(value, low=low, high=high, whole=bool(rubric.whole)),),
        labels=None if scores is None else {str(score): float(score) for score in scores},
    )


def _comparing(rubric: Rubric) -> VerdictField:
    def read(value: Any, task: JudgeTask) -> Values:
        label = label_in(value) if isinstance(value, str) else None
        if label is None:
            raise ValueError(f"{value!r:.80} is neither A, B nor tie")
        return (PAIR_LABELS[label],)

    return VerdictField(
        key="winner",
        task=f"Say which response is better{{by}}: A, B, or tie where neither is. {_NOT_BY}",
        hint='"<A, B or tie>"',
        schema=lambda task: {"type": "string", "enum": list(PAIR_LABELS)},
        read=read,
        labels=PAIR_LABELS,
    )


def _ranking(rubric: Rubric) -> VerdictField:
    def schema(task: JudgeTask) -> Schema:
        n = len(task.responses)
        named = n if task.top_n is None else min(task.top_n, n)
        item = {"type": "integer", "enum": list(range(1, n + 1))}
        return {"type": "array", "items": item, "minItems": named, "maxItems": named}

    return VerdictField(
        key="ranking",
        task=f"Put the responses in order{{by}}, the best first, each by its number and once. {_NOT_BY}",
        hint="[<number of the best response>, <number of the next>, ...]",
        schema=schema,
        read=_places,
    )


def _places(value: Any, task: JudgeTask) -> Values:
    """An order of (the best of) the responses -> one score each: 1 for the first, evenly down to 0 for the last.

    Those that are not named share the mean of the places that are left.
    """
    n = len(task.responses)
    wanted = n if task.top_n is None else min(task.top_n, n)
    numbers = [int(number_in(one, low=1, high=n, whole=True)) for one in value] if isinstance(value, list) else []
    if len(numbers) != wanted or len(set(numbers)) != wanted:
        raise ValueError(f"{value!r:.200} is not an order of {wanted} of the {n} responses")
    last = max(n - 1, 1)
    rest = 1.0 - (wanted + n - 1) / 2.0 / last
    return tuple(1.0 - numbers.index(i) / last if i in numbers else rest for i in range(1, n + 1))


VERDICT_FIELDS: Mapping[Mode, Callable[[Rubric], VerdictField]] = {
    "pointwise": _scoring,
    "pairwise": _comparing,
    "listwise": _ranking,
    "stepwise": _scoring,
}
