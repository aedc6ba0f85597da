"""Items scored by a model that compares: pairs in both orders; of more than two responses every two are compared."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from reward_hub.bench.item_rows import Scored, error_of, failure, totals
from reward_hub.bench.items import Item
from reward_hub.data.column_turns import beyond_text
from reward_hub.errors import InvalidConversationError, JudgeParseError, RewardHubError
from reward_hub.ranking import ALL_PAIRS, rank_by_comparing
from reward_hub.reward_model import CallOptions, Result, required, sound
from reward_hub.types import Pair, ScoreDetails
from reward_hub.work import Work, run

if TYPE_CHECKING:
    from reward_hub.base import BaseRM


def compare_items(rm: BaseRM, items: Sequence[Item]) -> list[Scored]:
    """One result an item, in order. Pairs are one batch, the comparisons of items with more responses another one."""
    results: list[Scored | None] = [_not_comparable(item) for item in items]
    pairs = {place: pair for place, item in enumerate(items) if results[place] is None and (pair := _pair_of(item))}
    ordered_pairs = [ordered for pair in pairs.values() for ordered in (pair, pair.swapped)]
    answers = iter(_answers(rm, ordered_pairs, both_orders=False))
    for place in pairs:
        results[place] = _both_orders(next(answers), next(answers))
    several = [place for place, result in enumerate(results) if result is None]
    for place, scored in zip(several, _rank_all(rm, [items[i] for i in several]), strict=True):
        results[place] = scored
    return [result for result in results if result is not None]


def _answers(rm: BaseRM, pairs: Sequence[Pair], *, both_orders: bool) -> list[Result]:
    if not pairs:
        return []
    return rm.compare_pairs(pairs, both_orders, CallOptions())


def _not_comparable(item: Item) -> Scored | None:
    more = [what for group in item.conversations.values() for c in group if (what := beyond_text(c.messages[-1]))]
    if item.prompt and not more:
        return None
    problem = "do not share their prompt" if not item.prompt else f"hold one that {more[0]}"
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
    grave = next((error for error in failed if not isinstance(error, JudgeParseError)), None)
    if grave is not None:
        return failure(grave)
    told = [result for result in orders if isinstance(result, ScoreDetails)]
    probabilities = [
        None if isinstance(result, Exception) else 1.0 - result.score if swapped else result.score
        for swapped, result in enumerate(orders)
    ]
    details = [result.to_dict() for result in told]
    scored: Scored = {"scores": {"probabilities": probabilities}, **totals(details)}
    if any("reasoning" in part for part in details):
        reasons = iter([part.get("reasoning") for part in details])
        scored["reasoning"] = [None if isinstance(result, Exception) else next(reasons) for result in orders]
    if failed:
        scored["unreadable"] = [error_of(error) for error in failed]
    return scored


def _rank_all(rm: BaseRM, items: Sequence[Item]) -> list[Scored]:
    if rm.capabilities.ranks_lists:
        return [_ranked(item, partial(_listed, rm, item)) for item in items]
    duels = [_duels_of(item) for item in items]
    # In both orders whatever the model was set up for: a judge that is asked in one shows its bias for a place.
    answers = iter(_answers(rm, [pair for found in duels for pair in found], both_orders=True))
    known = [{(pair.a, pair.b): next(answers) for pair in found} for found in duels]
    return [_ranked(item, partial(_by_duels, rm, item, told)) for item, told in zip(items, known, strict=True)]


def _ranked(item: Item, rank: Callable[[], tuple[list[float], list[dict[str, Any]]]]) -> Scored:
    """The result of an item from its ranking: one score a response, and the details of every call that it took."""
    try:
        found, parts = rank()
    except RewardHubError as error:
        return failure(error)
    scores = iter(found)
    groups = item.conversations.items()
    return {"scores": {name: list(itertools.islice(scores, len(group))) for name, group in groups}, **totals(parts)}


def _listed(rm: BaseRM, item: Item) -> tuple[list[float], list[dict[str, Any]]]:
    messages = [message.to_dict() for message in item.prompt]
    _, details = rm.rank(messages=messages, responses=_responses_in(item), return_details=True)
    return list(details["scores"]), [details]


def _duels_of(item: Item) -> list[Pair]:
    """Every two different responses, where they are so few that `rank` compares them all."""
    texts = list(dict.fromkeys(_responses_in(item)))
    return [Pair(item.prompt, a, b) for a, b in itertools.combinations(texts, 2)] if len(texts) <= ALL_PAIRS else []


def _by_duels(
    rm: BaseRM, item: Item, known: Mapping[tuple[str, str], Result]
) -> tuple[list[float], list[dict[str, Any]]]:
    parts: list[dict[str, Any]] = []

    def compare(pairs: Sequence[Pair]) -> Work[list[Result]]:
        unknown = [pair for pair in pairs if (pair.a, pair.b) not in known]
        answers = iter((yield from rm.comparison_of(unknown, True, CallOptions())) if unknown else [])
        results = [known[pair.a, pair.b] if (pair.a, pair.b) in known else next(answers) for pair in pairs]
        parts.extend(details.to_dict() for details in sound(results))
        return results

    return list(required(run(rank_by_comparing(compare, item.prompt, _responses_in(item)))).scores or ()), parts


def _responses_in(item: Item) -> list[str]:
    return [c.response for group in item.conversations.values() for c in group]
