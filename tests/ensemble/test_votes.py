"""Members vote on responses by the ranks that they give."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from ensemble_models import CONVERSATIONS, Steps, conversation, three

from reward_hub import (
    CachedRM,
    EnsembleRM,
    UnsupportedError,
)
from reward_hub.numerics import sigmoid


def test_a_vote_among_responses_is_their_mean_rank():
    rm = three(reduce="vote")
    responses = ["aaaa a a a", "bbbbbbbbbbbbbb", "e e", "e e"]
    members = np.array([[model.score(conversation(text)) for text in responses] for model, _ in rm.members])
    beaten = [[sum((x > y) + (x == y) / 2 for y in row) - 0.5 for x in row] for row in members]
    expected = np.average(np.array(beaten) / 3, axis=0, weights=[0.5, 0.3, 0.2])
    ranking, details = rm.rank(prompt="Hi", responses=responses, return_details=True)
    assert details["scores"] == pytest.approx(expected)
    assert ranking == sorted(range(4), key=lambda i: -expected[i])
    assert asyncio.run(rm.arank(prompt="Hi", responses=responses)) == ranking
    # Two of the members, 0.5 and 0.3 of the weight, prefer the first.
    assert rm.compare(prompt="Hi", a="aaaa", b="b") == pytest.approx(sigmoid(0.8 + 0.1 - 0.1))
    with pytest.raises(UnsupportedError, match="A vote on a single response needs statistics"):
        rm.score(conversation("a"))


def test_a_fitted_vote_takes_ranks_among_the_fitted_scores_everywhere():
    rm = three(reduce="vote").fit(CONVERSATIONS)
    texts = [messages[-1]["content"] for messages in CONVERSATIONS[2:6]]
    scores = rm.score_batch(CONVERSATIONS[2:6])
    assert rm.rank(prompt="Hi", responses=texts, return_details=True)[1]["scores"] == scores
    assert rm.compare(prompt="Hi", a=texts[0], b=texts[1]) == pytest.approx(sigmoid(scores[0] - scores[1]))


def test_normalisation_has_no_part_in_a_vote_which_is_said(caplog):
    rm = three(reduce="vote", normalize="zscore")
    assert [record.getMessage() for record in caplog.records] == [
        f"{rm.name}: normalize='zscore' has no part in a vote, which takes ranks."
    ]
    texts = ["aaaa", "b", "e e e"]
    assert rm.rank(prompt="Hi", responses=texts) == three(reduce="vote").rank(prompt="Hi", responses=texts)


def test_a_vote_that_a_cache_knows_without_statistics_is_not_fitted_later(tmp_path):
    rm = three(reduce="vote")
    texts = ["aaaa", "b", "e e e"]
    with CachedRM(rm, cache_dir=tmp_path) as cached:
        found = [cached.rank(prompt="Hi", responses=texts, return_details=True) for _ in range(2)]
        assert [details["cached"] for _, details in found] == [False, True]
        assert [ranking for ranking, _ in found] == [rm.rank(prompt="Hi", responses=texts)] * 2
        with pytest.raises(UnsupportedError, match="before it is cached"):
            rm.fit(CONVERSATIONS)
    assert three(reduce="vote").fit(CONVERSATIONS).fingerprint != rm.fingerprint


def test_process_models_vote_on_whole_responses():
    rm = EnsembleRM(
        [Steps(len, name="a"), Steps(lambda step: -len(step), name="b"), Steps(len, name="c")], reduce="vote"
    )
    ranking, details = rm.rank(prompt="Hi", responses=["aa\n\naaa", "a\n\naaaaa"], return_details=True)
    assert (ranking, details["scores"]) == ([0, 1], [1.0, 0.0])
    assert "step_scores" not in details
