"""The score of an ensemble is the reduction of its members' normalised scores."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest
from ensemble_models import CONVERSATIONS, Failing, Scaled, Vowels, conversation, member_scores, three
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_hub import (
    EnsembleRM,
)
from reward_hub.ensemble.normalization import NORMALIZATIONS
from reward_hub.ensemble.reduction import REDUCTIONS, Reduction
from reward_hub.numerics import sigmoid

SCALES = [None, *NORMALIZATIONS]


@pytest.mark.parametrize(("reduce", "normalize"), [(r, n) for r in REDUCTIONS for n in SCALES])
def test_the_score_is_the_reduction_of_the_normalised_scores(reduce, normalize):
    rm = three(reduce=reduce, normalize=normalize).fit(CONVERSATIONS)
    scores, fitted = member_scores(rm), member_scores(rm)
    plain = {
        None: scores,
        "zscore": (scores - fitted.mean(axis=1, keepdims=True)) / fitted.std(axis=1, keepdims=True),
        "minmax": (scores - fitted.min(axis=1, keepdims=True)) / np.ptp(fitted, axis=1, keepdims=True),
        "sigmoid": 1 / (1 + np.exp(-scores)),
        "rank": np.array(
            [
                [((f < s).sum() + (f == s).sum() / 2) / f.size for s in row]
                for row, f in zip(scores, fitted, strict=True)
            ]
        ),
    }["rank" if reduce == "vote" else normalize]
    expected = Reduction.of(reduce)(plain, np.array([5.0, 3.0, 2.0]))
    assert rm.score_batch(CONVERSATIONS) == pytest.approx(expected.tolist(), abs=1e-12)
    assert asyncio.run(rm.ascore_batch(CONVERSATIONS)) == rm.score_batch(CONVERSATIONS)


@pytest.mark.parametrize("reduce", [name for name in REDUCTIONS if name != "vote"])
def test_an_ensemble_of_one_is_that_member(orm, reduce):
    ensemble = EnsembleRM([(orm, 0.37)], reduce=reduce)
    prompt, responses = "What is 17 + 25?", ["17 + 25 = 42.", "17 + 25 = 32.", "It is 42."]
    score, details = ensemble.score(prompt=prompt, response=responses[0], return_details=True)
    own_score, own = orm.score(prompt=prompt, response=responses[0], return_details=True)
    same = ("raw_logits", "normalized_score", "tokens_scored", "truncated", "dropped_tokens", "backend")
    assert (score, *(details[key] for key in same)) == (own_score, *(own[key] for key in same))
    assert ensemble.rank(prompt=prompt, responses=responses) == orm.rank(prompt=prompt, responses=responses)
    a, b = responses[:2]
    assert ensemble.compare(prompt=prompt, a=a, b=b) == orm.compare(prompt=prompt, a=a, b=b)


@settings(max_examples=25)
@given(
    st.sampled_from(REDUCTIONS),
    st.lists(st.floats(0.05, 20), min_size=3, max_size=3),
    st.floats(1e-3, 1e3),
    st.permutations(range(3)),
)
def test_scaled_weights_and_another_order_of_members_are_the_same_ensemble(reduce, weights, scale, order):
    models = [Scaled(0.1), Vowels(), Scaled(-0.03, 2, name="another")]
    normalize = None if reduce == "vote" else "zscore"
    one = EnsembleRM(list(zip(models, weights, strict=True)), reduce=reduce, normalize=normalize)
    other = EnsembleRM([(models[i], scale * weights[i]) for i in order], reduce=reduce, normalize=normalize)
    one.fit(CONVERSATIONS)
    other.fit(CONVERSATIONS)
    assert other.score_batch(CONVERSATIONS) == pytest.approx(one.score_batch(CONVERSATIONS), rel=1e-9, abs=1e-9)
    assert other.fingerprint == one.fingerprint


@settings(max_examples=25)
@given(
    st.sampled_from(NORMALIZATIONS),
    st.lists(st.sampled_from(CONVERSATIONS), min_size=1, max_size=6),
    st.sampled_from(CONVERSATIONS),
)
def test_a_score_does_not_depend_on_the_batch_it_is_in(normalize, mates, one):
    rm = three(normalize=normalize).fit(CONVERSATIONS[:7])
    assert rm.score_batch([*mates, one])[-1] == rm.score(one)


def test_plain_models_weigh_alike():
    both = EnsembleRM([Scaled(1.0), Scaled(3.0, name="other")])
    assert [weight for _, weight in both.members] == [1.0, 1.0]
    assert both.score(conversation("abc")) == 6.0


def test_a_cost_enters_with_its_sign_turned_and_the_ensemble_is_higher_for_the_better():
    rm = EnsembleRM([(Scaled(1.0), 1), (Scaled(5.0, name="cost", cost=True), 1)])
    value, details = rm.score(conversation("abc"), return_details=True)
    assert (value, rm.higher_is_better) == ((3.0 - 15.0) / 2, True)
    assert [member["score"] for member in details["members"]] == [3.0, 15.0]
    assert [member["normalized"] for member in details["members"]] == [3.0, -15.0]
    assert rm.rank(prompt="Hi", responses=["aa", "a"]) == [1, 0]
    costs = EnsembleRM([Scaled(5.0, cost=True)])
    assert (costs.score(conversation("abc")), costs.higher_is_better) == (-15.0, True)


def test_details_are_plain_json():
    rm = EnsembleRM([three(), Failing("e")], on_member_error="skip")
    value, details = rm.score(conversation("hello"), return_details=True)
    assert json.loads(json.dumps(details, allow_nan=False)) == details
    assert details["model"] == rm.name == "mean of mean of characters, vowels, words, failing"
    assert details["members"][0]["members"][1]["name"] == "vowels"
    assert details["normalized_score"] == pytest.approx(sigmoid(value))
