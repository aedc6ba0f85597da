"""Models that compare, juries of judges among them, are combined by their probabilities."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack

import numpy as np
import pytest
from ensemble_models import CONVERSATIONS, Judge, conversation
from golden_sets import GoldenSet
from hypothesis import given, settings
from hypothesis import strategies as st
from judge_server import fails, judge_server, says, verdict

from reward_hub import (
    EnsembleRM,
    LLMJudge,
    UnsupportedError,
)
from reward_hub.ensemble.reduction import REDUCTIONS, Reduction
from reward_hub.numerics import sigmoid


def test_probabilities_of_pairwise_models_are_combined():
    rm = EnsembleRM([(Judge(0.5), 3), (Judge(-0.2, name="contrary"), 1)])
    assert rm.kind == "pairwise"
    expected = (3 * sigmoid(1.0) + sigmoid(-0.4)) / 4
    value, details = rm.compare(prompt="Hi", a="aaa", b="b", return_details=True)
    assert value == pytest.approx(expected)
    assert [member["score"] for member in details["members"]] == [sigmoid(1.0), sigmoid(-0.4)]
    assert [member["reasoning"] for member in details["members"]] == ["judge says so", "contrary says so"]
    assert asyncio.run(rm.acompare(prompt="Hi", a="aaa", b="b")) == value
    ranking, details = rm.rank(prompt="Hi", responses=["b", "aaa"], return_details=True)
    assert ranking == [1, 0] == asyncio.run(rm.arank(prompt="Hi", responses=["b", "aaa"]))
    assert details["scores"] == pytest.approx(
        [(3 * a + b) / 4 for a, b in zip(*rank_scores(rm, ["b", "aaa"]), strict=True)]
    )
    for call in (lambda: rm.score(conversation("a")), lambda: rm.fit(CONVERSATIONS)):
        with pytest.raises(UnsupportedError):
            call()


def rank_scores(rm, responses):
    return [model.rank(prompt="Hi", responses=responses, return_details=True)[1]["scores"] for model, _ in rm.members]


@pytest.mark.parametrize("reduce", REDUCTIONS)
@given(st.lists(st.tuples(st.floats(-2, 2), st.floats(0.1, 5)), min_size=1, max_size=4), st.text("ab", max_size=4))
@settings(max_examples=20)
def test_the_swapped_question_has_one_minus_the_answer_under_every_reduction(reduce, judges, a):
    rm = EnsembleRM([(Judge(scale), weight) for scale, weight in judges], reduce=reduce)
    ab, ba = (rm.compare(prompt="Hi", a=x, b=y) for x, y in ((a, "aa"), ("aa", a)))
    assert 0 < ab < 1
    assert ab + ba == pytest.approx(1.0)
    if reduce in ("mean", "median", "trimmed_mean"):
        p = np.array([[sigmoid(scale * (len(a) - 2))] for scale, _ in judges])
        assert ab == pytest.approx(Reduction.of(reduce)(p, np.array([weight for _, weight in judges]))[0])


def test_a_compare_or_rank_of_a_users_own_is_refused_rather_than_left_out():
    class Own(Judge):
        def compare(self, messages=None, *, prompt=None, a, b):
            return 0.9

        def rank(self, messages=None, *, prompt=None, responses):
            return [0]

    rm = EnsembleRM([Judge(), Own(name="own")], on_member_error="skip")
    with pytest.raises(UnsupportedError, match="own has a compare of its own"):
        rm.compare(prompt="Hi", a="a", b="b")
    with pytest.raises(UnsupportedError, match="own has a rank of its own"):
        rm.rank(prompt="Hi", responses=["a"])


@pytest.fixture
def jury_of(monkeypatch):
    """`jury_of(scripts, **arguments)`: one judge a script, each on an endpoint of its own."""
    pytest.importorskip("openai")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with ExitStack() as stack:

        def make(scripts, **arguments):
            servers = [stack.enter_context(judge_server(script)) for script in scripts]
            return [
                LLMJudge(f"judge {i}", api_base=server.api_base, max_retries=0, **arguments)
                for i, server in enumerate(servers)
            ]

        yield make


def test_a_jury_is_an_ensemble_of_judges(jury_of):
    judges = jury_of([verdict(5, reasoning="good"), verdict(2), fails(400)], rubric="Score the response from 1-5.")
    with EnsembleRM(judges, reduce="median", on_member_error="skip") as jury:
        score, details = jury.score(prompt="Explain gravity", response="It falls.", return_details=True)
        assert (score, details["normalized_score"], details["spread"]) == (3.5, 0.625, 1.5)
        first, second, third = details["members"]
        assert (first["score"], first["reasoning"], second["score"]) == (5, "good", 2)
        assert first["usage"]["calls"] == 1
        assert "status 400" in third["error"]["message"]
        assert asyncio.run(jury.ascore(prompt="Explain gravity", response="It falls.")) == 3.5


def test_judges_that_compare_vote(jury_of):
    def for_a(asked):
        return says(json.dumps({"winner": "A" if asked.text.index("It falls.") < asked.text.index("No.") else "B"}))(
            asked
        )

    def for_b(asked):
        return says(json.dumps({"winner": "B" if asked.text.index("It falls.") < asked.text.index("No.") else "A"}))(
            asked
        )

    judges = jury_of([for_a, for_b, for_a], rubric="Which is better?", mode="pairwise")
    with EnsembleRM(judges, reduce="vote") as jury:
        assert jury.kind == "pairwise"
        question = {"prompt": "Explain gravity", "a": "It falls.", "b": "No."}
        assert jury.compare(**question) == pytest.approx(sigmoid(2 / 3 - 1 / 3))
        assert jury.rank(prompt="Explain gravity", responses=["No.", "It falls."]) == [1, 0]


def test_both_orders_are_asked_of_every_member():
    rm = EnsembleRM([Judge(0.5, bias=3.0), Judge(0.5, bias=-1.0)])
    one = (sigmoid(0.5 + 3.0) + sigmoid(0.5 - 1.0)) / 2
    both = [(sigmoid(0.5 + bias) + 1 - sigmoid(-0.5 + bias)) / 2 for bias in (3.0, -1.0)]
    assert rm.compare(prompt="Hi", a="aa", b="a") == pytest.approx(one)
    assert rm.compare(prompt="Hi", a="aa", b="a", both_orders=True) == pytest.approx(sum(both) / 2)


def test_real_pairwise_families_are_combined(golden_models):
    members = [golden_models.load(GoldenSet(slug, "own")) for slug in ("pairrm-hf", "better-pairrm")]
    rm = EnsembleRM(members)
    question = {"prompt": "What is the capital of France?", "a": "Paris.", "b": "I think it is Lyon."}
    expected = [member.compare(**question) for member in members]
    assert rm.compare(**question) == pytest.approx(sum(expected) / 2)
    assert rm.fingerprint != EnsembleRM(members[:1]).fingerprint
