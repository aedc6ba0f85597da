"""Score items with any reward model: what is asked of it depends on the form of the items and the kind of model.

A score is written so that higher is better: those of a cost (`higher_is_better` False) are negated.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from reward_hub.base import CallOptions, Result
from reward_hub.bench.items import Form, Item
from reward_hub.errors import InvalidConversationError, RewardHubError, UnsupportedError
from reward_hub.types import Conversation, Pair, ScoreDetails

if TYPE_CHECKING:
    from reward_hub.base import BaseRM

Scored: TypeAlias = dict[str, Any]
"""`scores`, or `error` (type and message), with what is known of how they came to be."""

_USED = ("calls", "prompt_tokens", "completion_tokens")


def require_scorable(form: Form, rm: BaseRM) -> None:
    """Refuse data that this kind of model cannot score.

    Raises:
        UnsupportedError: steps for a model that has no step scores, or single responses for one that compares.
    """
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
        return _compare(rm, items)
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
                return {"error": _placed(details["error"], f"{name}[{place}]")}
    return {
        "scores": {
            name: [_signed(rm, score) for score, _ in results if score is not None] for name, results in taken.items()
        },
        "responses": {name: [_told(details) for _, details in results] for name, results in taken.items()},
        **_totals([details for results in taken.values() for _, details in results]),
    }


def _score_steps(rm: BaseRM, items: Sequence[Item]) -> list[Scored]:
    conversations = [item.conversations["steps"][0] for item in items]
    batch = [{"messages": _messages(c)[:-1], "steps": list(c.steps or ())} for c in conversations]
    scored = rm.score_steps_batch(batch, on_error="none", return_details=True)
    return [
        {"error": details["error"]}
        if steps is None
        else {"scores": {"steps": [_signed(rm, step) for step in steps]}, **_totals([details])}
        for steps, details in scored
    ]


def _compare(rm: BaseRM, items: Sequence[Item]) -> list[Scored]:
    """Pairs in both orders, all in one batch; more than two responses are ranked, one item at a time."""
    results: list[Scored | None] = [_not_comparable(item) for item in items]
    pairs = {place: pair for place, item in enumerate(items) if results[place] is None and (pair := _pair_of(item))}
    asked = [ordered for pair in pairs.values() for ordered in (pair, pair.swapped)]
    answers = iter(rm._compare_many(asked, False, CallOptions(on_error="none", first_index=0)) if asked else ())
    for place in pairs:
        results[place] = _both_orders(next(answers), next(answers))
    return [_ranked(rm, item) if result is None else result for item, result in zip(items, results, strict=True)]


def _not_comparable(item: Item) -> Scored | None:
    if item.prompt and all(c.messages[-1].content is not None for group in item.conversations.values() for c in group):
        return None
    problem = "do not share their prompt" if not item.prompt else "hold one without a text"
    return failure(InvalidConversationError(f"the responses {problem}, so that a pairwise model cannot compare them."))


def _pair_of(item: Item) -> Pair | None:
    """Chosen against rejected, where there is one of each."""
    chosen, rejected = (item.conversations.get(name, ()) for name in ("chosen", "rejected"))
    if len(chosen) != 1 or len(rejected) != 1:
        return None
    return Pair(item.prompt, chosen[0].response, rejected[0].response)


def _both_orders(first: Result, second: Result) -> Scored:
    """Probabilities that the chosen response is better; None for an order in which a judge gave no verdict."""
    orders = (first, second)
    failed = [result for result in orders if isinstance(result, Exception)]
    if any(type(error).__name__ != "JudgeParseError" for error in failed):
        return failure(next(error for error in failed if type(error).__name__ != "JudgeParseError"))
    told = [result for result in orders if isinstance(result, ScoreDetails)]
    probabilities = [
        None if isinstance(result, Exception) else 1.0 - result.score if swapped else result.score
        for swapped, result in enumerate(orders)
    ]
    details = [result.to_dict() for result in told]
    scored: Scored = {"scores": {"probabilities": probabilities}, **_totals(details)}
    if any("reasoning" in part for part in details):
        reasons = iter([part.get("reasoning") for part in details])
        scored["reasoning"] = [None if isinstance(result, Exception) else next(reasons) for result in orders]
    if failed:
        scored["unreadable"] = [_error_of(error) for error in failed]
    return scored


def _ranked(rm: BaseRM, item: Item) -> Scored:
    groups = item.conversations
    responses = [c.response for group in groups.values() for c in group]
    try:
        found, parts = _rank(rm, item, responses)
    except RewardHubError as error:
        return failure(error)
    scores = iter(found)
    return {
        "scores": {name: list(itertools.islice(scores, len(group))) for name, group in groups.items()},
        **_totals(parts),
    }


def _rank(rm: BaseRM, item: Item, responses: Sequence[str]) -> tuple[list[float], list[dict[str, Any]]]:
    """One score a response, and the details of every call that it took."""
    if getattr(rm, "mode", None) == "listwise":
        _, details = rm.rank(messages=[m.to_dict() for m in item.prompt], responses=responses, return_details=True)
        return list(details["scores"]), [details]
    from reward_hub.pairwise_rm import rank_by_comparing

    parts: list[dict[str, Any]] = []

    def compare(pairs: Sequence[Pair]) -> list[ScoreDetails]:
        # In both orders whatever the model was set up for: a judge that is asked in one shows its bias for a place.
        found = [result for result in rm._compare_many(pairs, True, CallOptions()) if isinstance(result, ScoreDetails)]
        parts.extend(result.to_dict() for result in found)
        return found

    return list(rank_by_comparing(compare, item.prompt, responses).scores or ()), parts


def _messages(conversation: Conversation) -> list[dict[str, Any]]:
    return [message.to_dict() for message in conversation.messages]


def _signed(rm: BaseRM, score: float) -> float:
    return score if rm.higher_is_better else -score


def _told(details: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of the details of one response."""
    told = {"tokens_scored": details.get("tokens_scored"), "truncated": bool(details.get("truncated"))}
    return told | ({"reasoning": details["reasoning"]} if "reasoning" in details else {})


def _totals(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sums over the responses of an item."""
    counts = [part.get("tokens_scored") for part in parts]
    totals: dict[str, Any] = {
        "tokens_scored": None if not counts or None in counts else sum(counts),
        "truncated": any(part.get("truncated") for part in parts),
    }
    usages = [part["usage"] for part in parts if part.get("usage")]
    if usages:
        used = {name: [usage.get(name) for usage in usages] for name in _USED}
        totals["usage"] = {name: None if None in counts else sum(counts) for name, counts in used.items()}
        costs = [usage.get("cost") for usage in usages]
        totals["cost"] = None if None in costs else sum(costs)
    return totals


def failure(error: Exception) -> Scored:
    """The result of an item that failed."""
    return {"error": _error_of(error)}


def _error_of(error: Exception) -> dict[str, str]:
    # Not str(error): that counts places in the batch at hand.
    message = error.message if isinstance(error, RewardHubError) else str(error)
    return {"type": type(error).__name__, "message": message}


def _placed(error: Mapping[str, str], place: str) -> dict[str, str]:
    return {"type": error["type"], "message": f"{place}: {error['message']}"}
