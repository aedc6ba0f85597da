"""Which models a cache wraps, and how it stands beside other wrappers."""

from __future__ import annotations

import copy
import pickle

import pytest
from cached_models import CLASS, CountingRM, flag, module, turns

import reward_hub
from reward_hub import BaseRM, UnsupportedError
from reward_hub.cache.cached_rm import CachedRM


def test_a_model_that_samples_is_refused_unless_that_is_meant(cached):
    class JudgeRM(CountingRM):
        deterministic = False

    with pytest.raises(ValueError, match="allow_sampling=True"):
        cached(JudgeRM())
    wrapped = cached(JudgeRM(), allow_sampling=True)
    assert wrapped.deterministic is False
    assert [wrapped.score(turns("a")) for _ in range(2)] == [1 / 7] * 2


def test_only_reward_models_are_wrapped(tmp_path):
    with pytest.raises(TypeError, match="wraps a BaseRM, not function"):
        CachedRM(turns, cache_dir=tmp_path)  # type: ignore[arg-type]


def test_a_judge_is_refused_by_its_temperature(cached):
    judge = {"model": "gpt-4", "api_base": "http://localhost:9/v1", "api_key": "none", "rubric": "Score from 1-5."}
    with pytest.raises(ValueError, match="samples"):
        cached(reward_hub.LLMJudge(**judge, temperature=0.7))
    assert cached(reward_hub.LLMJudge(**judge, temperature=0.0)).stats()["entries"] == 0


def test_an_ensemble_with_a_member_that_samples_is_refused(cached):
    class JudgeRM(CountingRM):
        deterministic = False

    with pytest.raises(ValueError, match="samples"):
        cached(reward_hub.EnsembleRM([CountingRM(), JudgeRM()]))


def test_an_ensemble_of_cached_models_and_a_cached_ensemble_give_the_same(cached):
    members = [CountingRM(), module(CLASS).MyRM()]
    plain = reward_hub.EnsembleRM([(members[0], 0.7), (members[1], 0.3)])
    inside = reward_hub.EnsembleRM([(cached(members[0]), 0.7), (cached(members[1]), 0.3)])
    outside = cached(plain)
    some = {"prompt": "Hi", "responses": ["aaaa", "b", "cc"]}
    for _ in range(2):
        assert inside.score(turns("abc")) == outside.score(turns("abc")) == plain.score(turns("abc"))
        assert inside.rank(**some) == outside.rank(**some) == plain.rank(**some) == [0, 2, 1]
    assert inside.fingerprint == plain.fingerprint == outside.fingerprint


def test_a_cache_in_a_cache_is_the_model(cached, tmp_path):
    rm = CountingRM()
    inner = CachedRM(rm, cache_dir=tmp_path / "inner")
    outer = cached(inner)
    assert [flag(outer.score(turns("a"), return_details=True)) for _ in range(2)] == [False, True]
    assert flag(inner.score(turns("a"), return_details=True)) is True
    assert outer.fingerprint == inner.fingerprint == "counting-1"
    inner._store.close()


def test_a_copy_and_what_is_sent_to_another_process_use_the_same_folder(cached):
    wrapped = cached(CountingRM())
    wrapped.score(turns("a"))
    for other in (pickle.loads(pickle.dumps(wrapped)), copy.deepcopy(wrapped), copy.copy(wrapped)):
        assert flag(other.score(turns("a"), return_details=True)) is True
        assert other.score(turns("bb")) == 2 / 7
        other._store.close()
    assert flag(wrapped.score(turns("bb"), return_details=True)) is True
    assert wrapped.rm.asked == [["a"]]


def test_closing_closes_the_model(tmp_path):
    class ClosingRM(CountingRM):
        closed = False

        def close(self):
            self.closed = True

    rm = ClosingRM()
    with CachedRM(rm, cache_dir=tmp_path / "cache"):
        assert rm.closed is False
    assert rm.closed is True


def test_the_fingerprint_is_asked_for_once_and_not_by_the_constructor(cached):
    class HeavyRM(CountingRM):
        n_asked = 0

        @property
        def fingerprint(self):
            self.n_asked += 1
            return "heavy-1"

    rm = HeavyRM()
    wrapped = cached(rm)
    assert rm.n_asked == 0
    for n in range(1, 4):
        wrapped.score(turns("a" * n))
    assert rm.n_asked == 1


def test_a_users_own_score_is_asked_as_the_model_itself_would(cached):
    class BothRM(BaseRM):
        kind = "process"

        def score(self, messages, **kwargs):
            return 42.0

        def score_steps(self, messages, steps):
            return [float(len(step)) for step in steps]

    wrapped = cached(BothRM())
    assert [wrapped.score(turns("a\n\nbb")) for _ in range(2)] == [BothRM().score(turns("a\n\nbb"))] * 2
    assert [wrapped.score_steps(turns("a\n\nbb")) for _ in range(2)] == [[1.0, 2.0]] * 2
    for option in ({"step_delimiter": "b"}, {"aggregation": "mean"}, {"return_full_prm_result": True}):
        with pytest.raises(UnsupportedError, match="score of its own"):
            wrapped.score(turns("a\n\nbb"), **option)


def test_a_users_own_compare_and_rank_are_not_passed_over(cached):
    class OwnRM(CountingRM):
        def compare(self, messages=None, **kwargs):
            return 0.9

        def rank(self, messages=None, **kwargs):
            return [0]

    wrapped = cached(OwnRM())
    with pytest.raises(UnsupportedError, match="compare of its own"):
        wrapped.compare(prompt="Hi", a="a", b="b")
    with pytest.raises(UnsupportedError, match="rank of its own"):
        wrapped.best_of_n(prompt="Hi", responses=["a"])
