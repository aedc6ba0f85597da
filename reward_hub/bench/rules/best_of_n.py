"""Best of n: how good is the candidate that the model picks of n, beside what was there to pick and what voting gives.

Every value is an expectation over random subsets of n of an item's candidates, exact (Chen et al., 2021,
https://arxiv.org/abs/2107.03374, eq. 1, and the same for the model's choice):

    model      grade of the highest score, the first of equal ones (which is all that RewardBench's script defines)
    pass       share of subsets with at least one right candidate, where grades are 0 and 1
    oracle     the best grade
    random     the mean grade, the same for every n
    majority   grade of the most frequent answer, of equally frequent ones the one seen first
    weighted_majority, softmax_majority
               as majority, an answer weighing the sum of its candidates' scores, or of their exp(score)

An answer that is None does not vote; where none votes the first candidate is taken. An answer's grade is that of its
first candidate. What a vote sees first is an expectation too, over the orders in which the candidates may come: the
order of the file has no part in it. Voting is enumerated where an item has at most 2,000 subsets of n candidates and
otherwise estimated from 2,000 random ones with a fixed seed. `weighted_majority` is None with a negative score, which
is not a weight.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from reward_hub.bench.benchmark import Benchmark
from reward_hub.bench.items import candidates_item
from reward_hub.bench.rule_result import BenchResult, ItemResult, groups_by_subset, item_result, pooled
from reward_hub.bench.scored_rows import ItemRow, ScoredRow, read
from reward_hub.bench.statistics import SEED, Floats, interval, resampled_means
from reward_hub.data.rows import RowFormatError

MAX_SUBSETS = 2000

_VOTES = ("majority", "weighted_majority", "softmax_majority")


def select(scores: Sequence[float], *, n: int | None = None) -> int:
    """The index of the highest score among the first n (all by default), the first of equal ones."""
    first = scores[:n]
    return max(range(len(first)), key=first.__getitem__)


def pass_at_n(n_candidates: int, n_right: int, n: int) -> float:
    """The chance that n of the candidates, drawn without replacement, hold a right one; unbiased.

    Raises:
        ValueError: n is not from 1 to n_candidates, or n_right not from 0 to n_candidates.
    """
    if not 1 <= n <= n_candidates or not 0 <= n_right <= n_candidates:
        raise ValueError(f"Cannot draw n={n} of {n_candidates} candidates, {n_right} of them right.")
    return 1.0 - math.comb(n_candidates - n_right, n) / math.comb(n_candidates, n)


def expected_grade(scores: Sequence[float], grades: Sequence[float], *, n: int) -> float:
    """The expected grade of the highest score in a random subset of n candidates; equal scores take the first."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    return float(_top_of(len(scores), n) @ np.array([grades[i] for i in order], dtype=np.float64))


@lru_cache(maxsize=1024)
def _top_of(n_candidates: int, n: int) -> Floats:
    """[n_candidates] the chance that the candidate of that rank is the best of a random subset of n."""
    if not 1 <= n <= n_candidates:
        raise ValueError(f"Cannot draw n={n} of {n_candidates} candidates.")
    total = math.comb(n_candidates, n)
    return np.array([math.comb(n_candidates - 1 - rank, n - 1) / total for rank in range(n_candidates)])


def expected_vote(
    answers: Sequence[str | None], grades: Sequence[float], *, n: int, weights: Sequence[float] | None = None
) -> float:
    """The expected grade of the vote's winner in a random subset of n candidates in random order.

    Args:
        answers: each candidate's answer; None does not vote.
        grades: each candidate's grade.
        n: the size of the subsets.
        weights: each candidate's weight in the vote, at least 0; by default all weigh the same.
    """
    weight = [1.0] * len(answers) if weights is None else weights
    # In an order of their own, so that subsets that are drawn are the same whatever the order of the file is.
    voters = sorted(
        zip(answers, weight, grades, strict=True), key=lambda voter: (voter[0] is None, voter[0] or "", *voter[1:])
    )
    drawn = _subsets(len(voters), n)
    grade = np.array([voter[2] for voter in voters], dtype=np.float64)[drawn]  # [n_subsets, n]
    places = {answer: k for k, answer in enumerate(dict.fromkeys(a for a, _, _ in voters if a is not None))}
    members = np.zeros((len(voters), len(places)), dtype=bool)
    for i, (answer, _, _) in enumerate(voters):
        if answer is not None:
            members[i, places[answer]] = True
    present = members[drawn]  # [n_subsets, n, n_answers]
    voted = present.any(axis=1)
    votes = members * np.array([voter[1] for voter in voters])[:, None]
    totals = np.where(voted, votes[drawn].sum(axis=1), -1.0)
    # Sums of equal weights in another order differ in the last bits; they are ties all the same.
    winning = voted & (totals >= totals.max(axis=1, keepdims=True, initial=-1.0) * (1 - 1e-12))
    # The first candidate of a winning answer is each of their candidates equally often; without a vote, each of all.
    likely = (present & winning[:, None, :]).any(axis=2) | ~winning.any(axis=1, keepdims=True)
    return float(((likely * grade).sum(axis=1) / likely.sum(axis=1)).mean())


@lru_cache(maxsize=64)
def _subsets(n_candidates: int, n: int) -> npt.NDArray[np.int64]:
    """[n_subsets, n] indices in ascending order: all subsets, or as many random ones as `MAX_SUBSETS`."""
    if math.comb(n_candidates, n) <= MAX_SUBSETS:
        return np.array(list(itertools.combinations(range(n_candidates), n)), dtype=np.int64)
    rng = np.random.default_rng([SEED, n_candidates, n])
    shuffled = rng.random((MAX_SUBSETS, n_candidates)).argsort(axis=1)[:, :n]
    return np.sort(shuffled, axis=1)


def score(rows: Iterable[ItemRow]) -> BenchResult:
    """The model's choice among all candidates, and curves over n = 1, 2, 4, ... up to the fewest candidates of an item.

    Args:
        rows: best-of-n rows; `answers` for the votes.

    Returns:
        `accuracy` is the mean grade of the model's choice among all of an item's candidates; `curve` (overall and per
        subset) a list of `{n, model, ci95, pass, oracle, random, majority, ...}`, None where undefined. In a failed row
        the model's choice, and votes weighted by its scores, count 0; one without grades has no part.

    Raises:
        RowFormatError: no rows, a row without candidates' scores, or with another number of grades or answers.
    """
    read_rows = read(rows)
    candidates = [_Candidates.of(row) for row in read_rows]
    items = tuple(_item(row, found) for row, found in zip(read_rows, candidates, strict=True))
    groups = groups_by_subset(items)
    if not groups:
        raise RowFormatError("every item failed and none has grades; there is nothing to compute a metric of.")
    members = {name: [c for c in candidates if c is not None and c.subset == name] for name in groups}
    everything = [c for found in members.values() for c in found]
    metrics = {
        "overall": pooled(list(groups.values())).metric(**_curve(everything, "overall")),
        "subsets": {
            name: found.metric(**_curve(members[name], name)) for name, found in groups.items() if name is not None
        },
        "sections": {},
    }
    unknown = sum(item.correct is None for item in items)
    notes = (f"{unknown} failed items have no grades and no part in the metrics.",) if unknown else ()
    return BenchResult("best-of-n", metrics, items, notes)


@dataclass(frozen=True)
class _Candidates:
    """An item's candidates; `scores` is empty where the model failed."""

    subset: str | None
    scores: tuple[float, ...]
    grades: tuple[float, ...]
    answers: tuple[str | None, ...] | None

    @classmethod
    def of(cls, row: ScoredRow) -> _Candidates | None:
        """None for a failed row without grades."""
        grades, answers = row.row.get("grades"), row.row.get("answers")
        if row.failed and not grades:
            return None
        scores = () if row.failed else row.numbers("candidates")
        n = len(scores) or len(grades or ())
        for name, found in (("grades", grades), ("answers", answers)):
            if found is None and name == "answers":
                continue
            if not found or len(found) != n:
                raise RowFormatError(f"item {row.id!r} has {n} candidates and {len(found or ())} {name}.")
        return cls(row.subset, scores, tuple(map(float, grades or ())), None if answers is None else tuple(answers))


def _item(row: ScoredRow, candidates: _Candidates | None) -> ItemResult:
    if candidates is None:
        return item_result(row, None)
    if not candidates.scores:
        return item_result(row, 0.0)
    highest = max(candidates.scores)
    tie = candidates.scores.count(highest) > 1
    return item_result(row, candidates.grades[select(candidates.scores)], tie=tie)


def sizes(most: int) -> list[int]:
    """1, 2, 4, ... and `most` itself."""
    return sorted({2**k for k in range(most.bit_length())} | {most})


def _curve(items: Sequence[_Candidates], key: str) -> dict[str, Any]:
    binary = all(grade in (0, 1) for item in items for grade in item.grades)
    weighable = all(score >= 0 for item in items for score in item.scores)
    voting = all(item.answers is not None for item in items)
    points = []
    for n in sizes(min(len(item.grades) for item in items)):
        choices = [expected_grade(c.scores, c.grades, n=n) if c.scores else 0.0 for c in items]
        best = math.fsum(expected_grade(item.grades, item.grades, n=n) for item in items) / len(items)
        point: dict[str, Any] = {
            "n": n,
            "model": math.fsum(choices) / len(items),
            "ci95": interval(resampled_means(choices, key=f"{key} {n}")),
            "pass": best if binary else None,
            "oracle": best,
            "random": math.fsum(math.fsum(item.grades) / len(item.grades) for item in items) / len(items),
        }
        for vote in _VOTES:
            known = voting and (vote != "weighted_majority" or weighable)
            point[vote] = math.fsum(_vote(item, n, vote) for item in items) / len(items) if known else None
        points.append(point)
    return {"curve": points}


def _vote(item: _Candidates, n: int, how: str) -> float:
    answers = item.answers or ()
    if how == "majority":
        return expected_vote(answers, item.grades, n=n)
    if not item.scores:
        return 0.0
    highest = max(item.scores)
    weights = [math.exp(s - highest) for s in item.scores] if how == "softmax_majority" else item.scores
    return expected_vote(answers, item.grades, n=n, weights=weights)


BENCHMARK = Benchmark(name="best-of-n", form="best-of-n", read=candidates_item, score=score)
