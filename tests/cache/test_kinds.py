"""Steps, pairs, rankings and models behind servers are cached like scores."""

from __future__ import annotations

import pytest
from cached_models import PROBLEM, RIGHT, WRONG, CountingRM, flag, turns, without_flag
from golden_sets import GoldenSet

from reward_hub import AutoRM, BaseRM, UnsupportedError


def test_score_and_score_steps_share_an_entry(cached):
    with AutoRM.load("builtin/arithmetic-prm") as rm:
        wrapped = cached(rm)
        steps = wrapped.score_steps(prompt=PROBLEM, response=RIGHT)
        assert steps == rm.score_steps(prompt=PROBLEM, response=RIGHT)
        assert flag(wrapped.score(prompt=PROBLEM, response=RIGHT, return_details=True))
        full = wrapped.score(prompt=PROBLEM, response=RIGHT, return_full_prm_result=True)
        assert (full.step_scores, full.score) == (steps, rm.score(prompt=PROBLEM, response=RIGHT))
        how = {"prompt": PROBLEM, "response": WRONG, "aggregation": "mean"}
        assert [wrapped.score(**how) for _ in range(2)] == [rm.score(**how)] * 2
        whole = {"prompt": PROBLEM, "response": WRONG, "aggregation": "model"}
        assert [wrapped.score(**whole) for _ in range(2)] == [rm.score(**whole)] * 2


def test_compare_and_rank_of_a_model_that_scores_use_its_scores(cached):
    rm = CountingRM()
    wrapped = cached(rm)
    wrapped.score(turns("aa"))
    first = wrapped.compare(prompt="Hi", a="aa", b="b", return_details=True)
    assert without_flag(first) == CountingRM().compare(prompt="Hi", a="aa", b="b", return_details=True)
    assert (flag(first), flag(wrapped.compare(prompt="Hi", a="b", b="aa", return_details=True))) == (False, True)
    ranking = wrapped.rank(prompt="Hi", responses=["b", "ccc", "aa"], return_details=True)
    assert without_flag(ranking) == CountingRM().rank(prompt="Hi", responses=["b", "ccc", "aa"], return_details=True)
    assert flag(ranking) is False
    assert rm.asked == [["aa"], ["b"], ["ccc"]]


def test_what_a_pairwise_model_says_is_kept_by_pair_order_and_list(golden_models, cached):
    golden = GoldenSet("steamshp", "own")
    rm = golden_models.load(golden)
    wrapped = cached(rm)
    a, b, c = "Paris.", "Lyon, I think.", "I do not know."
    ab = wrapped.compare(prompt="Capital?", a=a, b=b, return_details=True)
    for other in ({"a": b, "b": a}, {"a": a, "b": b, "both_orders": True}, {"a": a, "b": c}):
        result = wrapped.compare(prompt="Capital?", **other, return_details=True)
        assert flag(result) is False
        assert without_flag(result) == rm.compare(prompt="Capital?", **other, return_details=True)
    assert flag(wrapped.compare(prompt="Capital?", a=a, b=b, return_details=True)) is True
    assert ab[0] == rm.compare(prompt="Capital?", a=a, b=b)
    rankings = [wrapped.rank(prompt="Capital?", responses=[a, b, c], return_details=True) for _ in range(2)]
    own = rm.rank(prompt="Capital?", responses=[a, b, c], return_details=True)
    assert [without_flag(ranking) for ranking in rankings] == [own] * 2
    assert [flag(ranking) for ranking in rankings] == [False, True]
    assert flag(wrapped.score(prompt="Capital?", response=a, return_details=True)) is False, "its documented score"


async def test_the_asynchronous_forms_of_a_pairwise_model_use_the_same_entries(golden_models, cached):
    rm = golden_models.load(GoldenSet("pairrm-hf", "own"))
    wrapped = cached(rm)
    pair = {"prompt": "Capital?", "a": "Paris.", "b": "Lyon."}
    assert await wrapped.acompare(**pair) == rm.compare(**pair)
    assert flag(wrapped.compare(**pair, return_details=True)) is True
    some = {"prompt": "Capital?", "responses": ["Lyon.", "Paris.", "Rome."]}
    assert await wrapped.arank(**some) == rm.rank(**some)
    assert flag(wrapped.rank(**some, return_details=True)) is True
    with pytest.raises(UnsupportedError, match="compares two responses"):
        await wrapped.ascore(prompt="Capital?", response="Paris.")


def test_a_cost_stays_a_cost(cached):
    class CostRM(CountingRM):
        higher_is_better = False

    wrapped = cached(CostRM())
    assert wrapped.rank(prompt="Hi", responses=["aa", "b"]) == [1, 0]
    assert wrapped.compare(prompt="Hi", a="aa", b="b") < 0.5
    assert wrapped.higher_is_better is False


def test_a_model_behind_a_server_is_cached_response_by_response(cached):
    from reward_hub.server.run import served_in_background

    with AutoRM.load("builtin/arithmetic-orm") as rm, served_in_background(rm) as address:
        remote = AutoRM.load("builtin/arithmetic-orm", load_method="api", api_base=address)
        wrapped = cached(remote)
        assert wrapped.fingerprint == rm.fingerprint
        wrapped.rank(prompt=PROBLEM, responses=[WRONG, RIGHT])
        hit = wrapped.score(prompt=PROBLEM, response=RIGHT, return_details=True)
        assert without_flag(hit) == rm.score(prompt=PROBLEM, response=RIGHT, return_details=True)
        assert flag(hit) is True
        remote.close()


@pytest.mark.parametrize("fingerprint", ["own", "derived", "none"])
def test_two_models_behind_servers_share_no_entry(fingerprint, cached):
    """As one that is served again with another setting."""
    from reward_hub.server.run import served_in_background

    class ServedRM(BaseRM):
        def __init__(self, scale):
            self.scale = scale
            self.held = object() if fingerprint == "none" else None

        def score(self, messages):
            return self.scale

    class OwnRM(ServedRM):
        @property
        def fingerprint(self):
            return f"own-{self.scale}"

    scores = []
    for scale in (1.0, 2.0):
        served = OwnRM(scale) if fingerprint == "own" else ServedRM(scale)
        with served_in_background(served) as address:
            remote = AutoRM.load(served.name or type(served).__name__, load_method="api", api_base=address)
            scores.append(cached(remote).score(turns("a")))
            remote.close()
    assert scores == [1.0, 2.0]


def test_a_model_that_samples_behind_a_server_is_refused_too(cached):
    from reward_hub.server.run import served_in_background

    class JudgeRM(CountingRM):
        deterministic = False

    with served_in_background(JudgeRM()) as address:
        remote = AutoRM.load("JudgeRM", load_method="api", api_base=address)
        with pytest.raises(ValueError, match="samples"):
            cached(remote)
        remote.close()
