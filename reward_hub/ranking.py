"""Rank responses by comparing two at a time.

Of up to `ALL_PAIRS` different responses every pair is compared, and a response's score is its mean probability of being
better than another one; of more, a merge sort, n log2 n pairs at most, whose merges run side by side, and the score
tells the place alone (1 for the best, 0 for the last). Equal texts are asked for once and share their score.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Protocol, TypeAlias

import numpy as np

from reward_hub.reward_model import Result, first_failure, required
from reward_hub.types import Message, Pair, ScoreDetails, joined_details
from reward_hub.work import Work

ALL_PAIRS = 8
"""Up to so many different responses `rank` compares every pair."""


Duel: TypeAlias = tuple[int, int]
"""Indices of two responses."""


def rank_by_comparing(
    compare: Callable[[Sequence[Pair]], Work[list[Result]]], prompt: tuple[Message, ...], responses: Sequence[str]
) -> Work[Result]:
    """Details with one score a response in `scores`, from comparisons: of all pairs, or of a merge sort for many.

    Args:
        compare: pairs -> for each the probability that its first response is the better one; called with all that can
            be asked at once. Its first failure is the ranking's.
    """
    texts = list(dict.fromkeys(responses))
    comparisons: list[ScoreDetails] = []

    def ask(duels: Sequence[Duel]) -> Work[list[float]]:
        results = yield from compare([Pair(prompt, texts[i], texts[j]) for i, j in duels])
        failure = first_failure(results)
        if failure is not None:
            raise _ComparisonError(failure[1])
        details = [required(result) for result in results]
        comparisons.extend(details)
        return [result.score for result in details]

    few = len(texts) <= ALL_PAIRS
    try:
        if few:
            unique = yield from _scores_of_all_pairs(ask, texts, responses)
        else:
            unique = yield from _scores_of_sort(ask, len(texts))
        if not comparisons:
            # One text, however often: nothing to compare, but what cannot be read must still be refused.
            yield from ask([(0, 0)])
    except _ComparisonError as failed:
        return failed.error
    scores = [unique[texts.index(response)] for response in responses]
    return replace(
        joined_details(comparisons),
        score=max(scores),
        normalized_score=max(scores),
        scores=scores,
        extra={"comparisons": len(comparisons), "method": "all pairs" if few else "merge sort"},
    )


class _ComparisonError(Exception):
    """A comparison failed, and with it the ranking."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class Ask(Protocol):
    """The probabilities that the first of each pair is the better one."""

    def __call__(self, duels: Sequence[Duel]) -> Work[list[float]]: ...


def _scores_of_all_pairs(ask: Ask, texts: Sequence[str], responses: Sequence[str]) -> Work[list[float]]:
    """For each text its mean probability of being better than another response."""
    pairs = list(combinations(range(len(texts)), 2))
    probabilities = (yield from ask(pairs)) if pairs else []
    wins = np.full((len(texts), len(texts)), 0.5)
    for (i, j), p in zip(pairs, probabilities, strict=True):
        wins[i, j], wins[j, i] = p, 1.0 - p
    counts = np.array([responses.count(text) for text in texts])
    others = max(len(responses) - 1, 1)
    return [float((wins[i] @ counts - 0.5) / others) if len(responses) > 1 else 0.5 for i in range(len(texts))]


def _scores_of_sort(ask: Ask, n: int) -> Work[list[float]]:
    """For each text its place in a merge sort, from 1 (the best) down to 0."""
    runs = [[i] for i in range(n)]
    while len(runs) > 1:
        merges = [_merge(left, right) for left, right in zip(runs[::2], runs[1::2], strict=False)]
        merged = yield from _side_by_side(merges, ask)
        runs = merged + runs[2 * len(merges) :]
    place = {i: k for k, i in enumerate(runs[0])}
    return [1.0 - place[i] / (n - 1) for i in range(n)]


def _merge(left: list[int], right: list[int]) -> Generator[Duel, float, list[int]]:
    """Merge two runs, best first; asks one pair at a time, and of equals takes the earlier."""
    merged: list[int] = []
    i = j = 0
    while i < len(left) and j < len(right):
        p = yield left[i], right[j]
        if p >= 0.5:
            merged.append(left[i])
            i += 1
        else:
            merged.append(right[j])
            j += 1
    return merged + left[i:] + right[j:]


def _side_by_side(merges: Sequence[Generator[Duel, float, list[int]]], ask: Ask) -> Work[list[list[int]]]:
    """Run merges together: each round asks the next pair of every one that is not done."""
    results: dict[int, list[int]] = {}
    waiting = {k: next(merge) for k, merge in enumerate(merges)}
    while waiting:
        probabilities = yield from ask(list(waiting.values()))
        for k, p in zip(list(waiting), probabilities, strict=True):
            try:
                waiting[k] = merges[k].send(p)
            except StopIteration as done:
                results[k] = done.value
                del waiting[k]
    return [results[k] for k in range(len(merges))]
