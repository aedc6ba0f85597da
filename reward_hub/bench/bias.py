"""Is a model swayed by what should not matter: the length of a response, its markdown, the place it is shown in?

Rows are those of items.jsonl: scores, and `responses` with each text's `characters`, `words` and `markdown` counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from reward_hub.bench.scored_rows import ItemRow, PairScores, read_pairs
from reward_hub.bench.statistics import Floats, interval, pearson, resampled_means, spearman

Measure: TypeAlias = Callable[[Mapping[str, Any]], float]
"""What a described response has much or little of."""

# Of a duel: which response has more of what is measured.
_MORE, _LESS, _EQUAL = 0, 1, 2


def characters(response: Mapping[str, Any]) -> float:
    """The length of a response in characters."""
    return float(response["characters"])


def markdown_marks(response: Mapping[str, Any]) -> float:
    """How many headers, list items, bold spans and code blocks a response has."""
    return float(sum(response["markdown"].values()))


@dataclass(frozen=True)
class _Duel:
    """A chosen response against a rejected one: was it won, was it undecided, and the differences chosen - rejected."""

    won: bool
    undecided: bool
    more: float
    margin: float | None


def bias_of(rows: Iterable[ItemRow], *, measure: Measure = characters) -> dict[str, Any] | None:
    """How accuracy and scores go with a measure of the responses, such as their length.

    Every chosen response stands against every rejected one of its item. A model without the bias is as accurate where
    the chosen response has more as where it has less, and prefers the one with more as often as the data do.

    Args:
        rows: preference rows with `responses`. Failed ones, and those whose responses are not described, have no part.
        measure: a number per described response: `characters`, `markdown_marks`, or one's own.

    Returns:
        None where there is nothing to measure, else

        - `chosen_has_more`, `chosen_has_less`, `equal`: each `{accuracy, ci95, n}` over the pairs in question, None
          where there are none; equal scores are not won;
        - `accuracy_gap`: the first accuracy less the second, in [-1, 1];
        - `prefers_more`: of the decided pairs with a difference, the share in which the response with more scores
          higher; `chosen_share`: the share in which it is the chosen one;
        - `score_correlation`: `{pearson, spearman, n}` of scores and measure over all responses;
        - `margin_correlation`: the same of their differences within pairs (of the probability - 0.5 for models that
          compare).

        Intervals are drawn over items.
    """
    described = [(pair, pair.row.row["responses"]) for pair in read_pairs(rows) if _is_described(pair)]
    per_item = [list(_duels(pair, responses, measure)) for pair, responses in described]
    duels = [duel for duels_of_item in per_item for duel in duels_of_item]
    if not duels:
        return None
    points = [point for pair, responses in described for point in _points(pair, responses, measure)]
    shares = _shares(np.array([_counts(duels_of_item) for duels_of_item in per_item]))
    more, less = (shares[name]["accuracy"] for name in ("chosen_has_more", "chosen_has_less"))
    unequal = [duel for duel in duels if duel.more]
    decided = [duel for duel in unequal if not duel.undecided]
    told = [duel for duel in duels if duel.margin is not None]
    return {
        **shares,
        "accuracy_gap": None if more is None or less is None else more - less,
        "prefers_more": _share([duel.won == (duel.more > 0) for duel in decided]),
        "chosen_share": _share([duel.more > 0 for duel in unequal]),
        "score_correlation": _correlation([x for x, _ in points], [y for _, y in points]),
        "margin_correlation": _correlation([d.more for d in told], [d.margin for d in told if d.margin is not None]),
    }


def _is_described(pair: PairScores) -> bool:
    responses = pair.row.row.get("responses") or {}
    return not pair.row.failed and bool(responses.get("chosen")) and bool(responses.get("rejected"))


def _duels(pair: PairScores, responses: Mapping[str, Any], measure: Measure) -> Iterator[_Duel]:
    chosen, rejected = ([measure(r) for r in responses[name]] for name in ("chosen", "rejected"))
    if pair.compared:
        p = pair.probability
        margin = None if p is None else p - 0.5
        yield _Duel((margin or 0) > 0, not margin, chosen[0] - rejected[0], margin)
        return
    for i, a in enumerate(pair.chosen):
        for j, b in enumerate(pair.rejected):
            if a is not None and b is not None:
                yield _Duel(a > b, a == b, chosen[i] - rejected[j], a - b)


def _points(pair: PairScores, responses: Mapping[str, Any], measure: Measure) -> Iterator[tuple[float, float]]:
    """(measure, score) of each response of a model that scores."""
    for name, scores in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        for response, score in zip(responses[name], scores, strict=False):
            if score is not None:
                yield measure(response), score


def _counts(duels: Sequence[_Duel]) -> Floats:
    """[3, 2] an item's pairs won and pairs, where the chosen response has more, less, and as much."""
    counts = np.zeros((3, 2))
    for duel in duels:
        place = _MORE if duel.more > 0 else _LESS if duel.more < 0 else _EQUAL
        counts[place] += (duel.won, 1)
    return counts


def _shares(counts: Floats) -> dict[str, dict[str, Any]]:
    """[n_items, 3, 2] counts -> the accuracies with their intervals."""
    samples = resampled_means(counts.reshape(len(counts), 6), key="bias").reshape(-1, 3, 2)
    shares = {}
    for place, name in ((_MORE, "chosen_has_more"), (_LESS, "chosen_has_less"), (_EQUAL, "equal")):
        won, n = counts[:, place].sum(axis=0)
        # A resample may hold no such pair; it then says nothing about them.
        drawn = samples[samples[:, place, 1] > 0, place]
        accuracy = float(won / n) if n else None
        shares[name] = {"accuracy": accuracy, "ci95": interval(drawn[:, 0] / drawn[:, 1]) if n else None, "n": int(n)}
    return shares


def _share(claims: Sequence[bool]) -> float | None:
    return sum(claims) / len(claims) if claims else None


def _correlation(x: Sequence[float], y: Sequence[float]) -> dict[str, Any]:
    return {"pearson": pearson(x, y), "spearman": spearman(x, y), "n": len(x)}


def position_bias(rows: Iterable[ItemRow]) -> dict[str, Any] | None:
    """Whether a model that compares prefers a place: rows with probabilities for both orders.

    The chosen response stands first in the first order and second in the other.

    Returns:
        None where no row was asked in two orders, else

        - `prefers_first`: share of the verdicts that are for the response shown first; 0.5 without bias;
        - `disagreement`: share of items, among those with two verdicts, whose preference changes with the order;
        - `accuracy_chosen_first`, `accuracy_chosen_second`: shares of verdicts for the chosen response in each order;
        - `mean_shift`: mean of p(chosen) shown first less p(chosen) shown second, in [-1, 1];
        - `n` items, `n_verdicts`, `n_without` (orders that gave none).

        A probability of 0.5 is a verdict for neither: it counts in the accuracies alone, as not right.
    """
    both_orders = [pair.probabilities for pair in read_pairs(rows) if len(pair.probabilities) == 2]
    if not both_orders:
        return None
    first, second = ([p[order] for p in both_orders if p[order] is not None] for order in (0, 1))
    both = [(a, b) for a, b in both_orders if a is not None and b is not None]
    for_first = [p > 0.5 for p in first if p is not None and p != 0.5]
    for_first += [p < 0.5 for p in second if p is not None and p != 0.5]
    return {
        "prefers_first": _share(for_first),
        "disagreement": _share([(a > 0.5) != (b > 0.5) or (a < 0.5) != (b < 0.5) for a, b in both]),
        "accuracy_chosen_first": _share([p is not None and p > 0.5 for p in first]),
        "accuracy_chosen_second": _share([p is not None and p > 0.5 for p in second]),
        "mean_shift": math.fsum(a - b for a, b in both) / len(both) if both else None,
        "n": len(both_orders),
        "n_verdicts": len(first) + len(second),
        "n_without": 2 * len(both_orders) - len(first) - len(second),
    }


def bias_report(rows: Sequence[ItemRow]) -> dict[str, Any]:
    """Length, markdown and position bias of preference rows, each as above or None."""
    return {
        "length": bias_of(rows, measure=characters),
        "markdown": bias_of(rows, measure=markdown_marks),
        "position": position_bias(rows),
    }
