"""Score items with any reward model: what is asked of it depends on the form of the items and the kind of model.

A score is written so that higher is better: those of a cost (`higher_is_better` False) are negated.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reward_hub.bench.item_rows import Scored, failure, placed, totals
from reward_hub.bench.items import Form, Item
from reward_hub.bench.pairwise_scoring import compare_items
from reward_hub.calls import require_splitting
from reward_hub.errors import InvalidConversationError, UnsupportedError
from reward_hub.types import Conversation

if TYPE_CHECKING:
    from reward_hub.base import BaseRM


def require_scorable(form: Form, rm: BaseRM, step_delimiter: str | None = None) -> None:
    """Refuse data that this kind of model cannot score.

    Raises:
        UnsupportedError: steps for a model that has no step scores, or single responses for one that compares; or a
            step delimiter where nothing is split at it.
    """
    if form == "process" and step_delimiter is not None:
        raise UnsupportedError("the responses come in steps, which are labelled; a step delimiter does not split them.")
    require_splitting(rm, step_delimiter)
    if form == "process" and rm.kind != "process":
        raise UnsupportedError(f"{rm.name} is of kind {rm.kind!r}; labelled steps are scored by process reward models.")
    if form == "instruction" and rm.kind == "pairwise":
        raise UnsupportedError(f"{rm.name} compares two responses; the rows hold one response each.")


def score_items(rm: BaseRM, items: Sequence[Item], *, step_delimiter: str | None = None) -> list[Scored]:
    """Score items in one batch; one result each, in order. A failure is that item's result.

    Args:
        rm: the model; `require_scorable` has passed.
        items: of one form.
        step_delimiter: process models on whole responses: where these are split.
    """
    results: list[Scored] = [{} for _ in items]
    sound = []
    for place, item in enumerate(items):
        if item.error is None:
            sound.append(place)
        else:
            results[place] = failure(InvalidConversationError(item.error))
    for place, scored in zip(sound, _score_sound(rm, [items[i] for i in sound], step_delimiter), strict=True):
        results[place] = scored
    return results


def _score_sound(rm: BaseRM, items: Sequence[Item], step_delimiter: str | None) -> list[Scored]:
    if not items:
        return []
    if "steps" in items[0].conversations:
        return _score_steps(rm, items)
    if rm.kind == "pairwise":
        return compare_items(rm, items)
    return _score_responses(rm, items, step_delimiter)


def _score_responses(rm: BaseRM, items: Sequence[Item], step_delimiter: str | None) -> list[Scored]:
    batch = [_messages(c) for item in items for group in item.conversations.values() for c in group]
    scored = iter(rm.score_batch(batch, on_error="none", return_details=True, step_delimiter=step_delimiter))
    return [_responses_of(rm, item, scored) for item in items]


def _responses_of(rm: BaseRM, item: Item, scored: Iterator[tuple[float | None, dict[str, Any]]]) -> Scored:
    taken = {name: list(itertools.islice(scored, len(group))) for name, group in item.conversations.items()}
    for name, results in taken.items():
        for place, (score, details) in enumerate(results):
            if score is None:
                return {"error": placed(details["error"], f"{name}[{place}]")}
    return {
        "scores": {
            name: [_signed(rm, score) for score, _ in results if score is not None] for name, results in taken.items()
        },
        "responses": {name: [_told(details) for _, details in results] for name, results in taken.items()},
        **totals([details for results in taken.values() for _, details in results]),
    }


def _score_steps(rm: BaseRM, items: Sequence[Item]) -> list[Scored]:
    conversations = [item.conversations["steps"][0] for item in items]
    batch = [{"messages": _messages(c)[:-1], "steps": list(c.steps or ())} for c in conversations]
    scored = rm.score_steps_batch(batch, on_error="none", return_details=True)
    return [
        {"error": details["error"]}
        if steps is None
        else {"scores": _step_scores(rm, steps, details), **totals([details])}
        for steps, details in scored
    ]


def _step_scores(rm: BaseRM, steps: Sequence[float], details: Mapping[str, Any]) -> dict[str, list[float]]:
    found = {"steps": [_signed(rm, step) for step in steps]}
    # PRMBench judges two of its classes by redundancy where a model has a number for it (ReasonEval).
    redundancy = (details.get("attributes") or {}).get("redundancy")
    return found | ({"redundancy": list(redundancy)} if redundancy is not None else {})


def _messages(conversation: Conversation) -> list[dict[str, Any]]:
    return [message.to_dict() for message in conversation.messages]


def _signed(rm: BaseRM, score: float) -> float:
    return score if rm.higher_is_better else -score


def _told(details: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of the details of one response."""
    told = {"tokens_scored": details.get("tokens_scored"), "truncated": bool(details.get("truncated"))}
    return told | ({"reasoning": details["reasoning"]} if "reasoning" in details else {})
