"""CachedRM gives what its model gives, and asks it only for what it has not given before."""

from __future__ import annotations

import asyncio
import copy
import functools
import json
import logging
import pickle
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from golden_sets import GoldenModels, GoldenSet
from hypothesis import given
from hypothesis import strategies as st

import reward_hub
from reward_hub import AutoRM, BaseRM, InputTooLongError, InvalidConversationError, UnsupportedError
from reward_hub import messages as border
from reward_hub.base import CallOptions
from reward_hub.cache.cached_rm import CachedRM
from reward_hub.fingerprints import fingerprint_of
from reward_hub.messages import parse
from reward_hub.types import Conversation, Message, ScoreDetails

PROBLEM = "Ann has 16 eggs. She sells 3. Then she buys 5 more. How many eggs are there?"
RIGHT = "16 - 3 = 13\n\n13 + 5 = 18"
WRONG = "16 - 3 = 12\n\n12 + 5 = 17"


class CountingRM(BaseRM):
    """Scores by length; notes what it is asked for."""

    fingerprint = "counting-1"

    def __init__(self, kind: str = "outcome") -> None:
        self.kind = kind
        self.asked: list[list[str]] = []

    def _score_many(self, conversations: Sequence[Conversation], options: CallOptions) -> list[Any]:
        self.asked.append([c.response for c in conversations])
        return [self._guard(lambda c=c: self._one(c), i, options) for i, c in enumerate(conversations)]

    def _one(self, conversation: Conversation) -> ScoreDetails:
        if "broken" in conversation.response:
            raise InputTooLongError("too long", n_tokens=9, max_length=8)
        details = self._own_details(len(conversation.response) / 7)
        if conversation.steps is None:
            return details
        return ScoreDetails(**{**vars(details), "step_scores": [float(len(s)) for s in conversation.steps]})

    def _guard(self, call: Callable[[], ScoreDetails], index: int, options: CallOptions) -> Any:
        try:
            return super()._guard(call, index, options)
        except InputTooLongError as error:
            error.index = None if options.first_index is None else options.first_index + index
            raise


def turns(response: str, prompt: str = "Hi") -> list[dict[str, Any]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


@pytest.fixture
def cached(tmp_path: Path):
    """`cached(rm, ...)`: the model with a cache in one folder."""
    made: list[CachedRM] = []

    def make(rm: BaseRM, **options: Any) -> CachedRM:
        made.append(CachedRM(rm, cache_dir=tmp_path / "cache", **options))
        return made[-1]

    yield make
    for rm in made:
        rm._store.close()


def without_flag(result: Any) -> Any:
    """A value with its details, without what tells a hit from a miss."""
    value, details = result
    return value, {name: entry for name, entry in details.items() if name != "cached"}


def flag(result: Any) -> bool:
    return bool(result[1]["cached"])


# hits are misses


def ask_outcome(rm: BaseRM, case: dict[str, Any]) -> Any:
    return rm.score(case["messages"], return_details=True)


def ask_process(rm: BaseRM, case: dict[str, Any]) -> Any:
    return rm.score_steps(case["messages"], steps=case["steps"], return_details=True)


def ask_pairwise(rm: BaseRM, case: dict[str, Any]) -> Any:
    return rm.compare(case["prompt_messages"], a=case["response_a"], b=case["response_b"], return_details=True)


@pytest.mark.parametrize(
    ("slug", "ask"),
    [
        ("seqcls-qwen3", ask_outcome),
        ("armorm", ask_outcome),
        ("ldl-gemma2", ask_outcome),
        ("dpo-implicit", ask_outcome),
        ("qwen2.5-math-prm", ask_process),
        ("reasoneval", ask_process),
        ("pairrm-hf", ask_pairwise),
        ("steamshp", ask_pairwise),
    ],
)
def test_a_hit_equals_the_model_itself_in_every_digit(slug, ask, golden_models: GoldenModels, cached):
    golden = GoldenSet(slug, "own")
    rm = golden_models.load(golden)
    wrapped = cached(rm)
    for case in golden.cases:
        own, miss, hit = ask(rm, case), ask(wrapped, case), ask(wrapped, case)
        assert without_flag(miss) == without_flag(hit) == own
        assert (flag(miss), flag(hit)) == (False, True)


def test_details_keep_every_field_and_type(cached):
    details = ScoreDetails(
        score=0.1 + 0.2,
        raw_logits=[-0.0, 1e-308, 1.7976931348623157e308, 3.0],
        normalized_score=1 / 3,
        tokens_scored=7,
        truncated=True,
        dropped_tokens=2,
        family="f",
        backend="b",
        model="m",
        revision="r",
        step_scores=[0.1],
        step_spans=[[0, 3]],
        attributes={"a": 1, "b": [1.0, None], "ü": "\ud7ff"},
        gating={"g": 0.25},
        distribution={"mean": 2.5},
        quantiles=[0.5],
        scores=[1.0, 2.0],
        extra={"usage": {"n": 3}, "reasoning": "long\ntext"},
    )

    class FixedRM(CountingRM):
        def _score_many(self, conversations, options):
            return [details] * len(conversations)

    rm = cached(FixedRM())
    for expected in (False, True):
        (result,) = rm._score_many([parse(turns("a"))], CallOptions())
        assert result == ScoreDetails(**{**vars(details), "extra": {**details.extra, "cached": expected}})
        assert repr(result.raw_logits) == repr(details.raw_logits)


def test_a_whole_number_is_a_score_too(cached):
    class WholeRM(CountingRM):
        def _one(self, conversation):
            return ScoreDetails(**{**vars(super()._one(conversation)), "score": 3})

    rm = cached(WholeRM())
    assert [repr(rm.score(turns("a"))) for _ in range(2)] == ["3.0", "3.0"]


def test_another_object_and_another_load_find_what_was_kept(cached):
    with AutoRM.load("builtin/arithmetic-orm") as first, AutoRM.load("builtin/arithmetic-orm") as second:
        score = cached(first).score(prompt=PROBLEM, response=RIGHT)
        assert cached(second).score(prompt=PROBLEM, response=RIGHT, return_details=True)[0] == score
        assert second.score(prompt=PROBLEM, response=RIGHT) == score


def test_settings_that_change_scores_have_entries_of_their_own(cached):
    with (
        AutoRM.load("builtin/arithmetic-prm") as default,
        AutoRM.load("builtin/arithmetic-prm", aggregation="mean") as mean,
        AutoRM.load("builtin/arithmetic-prm", torch_dtype="bfloat16") as half,
    ):
        models = [cached(default), cached(mean), cached(half)]
        assert not any(flag(rm.score(prompt=PROBLEM, response=WRONG, return_details=True)) for rm in models)
        assert models[0].score(prompt=PROBLEM, response=WRONG) == default.score(prompt=PROBLEM, response=WRONG)
        assert models[1].score(prompt=PROBLEM, response=WRONG) == mean.score(prompt=PROBLEM, response=WRONG)


# what is asked of the model


def test_duplicates_are_scored_once_and_order_is_kept(cached):
    rm = CountingRM()
    wrapped = cached(rm)
    results = wrapped.score_batch([turns(r) for r in ("aaa", "b", "aaa", "cc", "b")], return_details=True)
    assert [score for score, _ in results] == [3 / 7, 1 / 7, 3 / 7, 2 / 7, 1 / 7]
    assert rm.asked == [["aaa", "b", "cc"]]
    assert [flag(result) for result in results] == [False, False, True, False, True]


def test_of_partial_hits_the_rest_is_scored_in_one_call(cached):
    rm = CountingRM()
    wrapped = cached(rm)
    wrapped.score_batch([turns("b"), turns("dddd")])
    scores = wrapped.score_batch([turns(r) for r in ("a", "bb", "b", "ccc", "dddd")])
    assert scores == [1 / 7, 2 / 7, 1 / 7, 3 / 7, 4 / 7]
    assert rm.asked == [["b", "dddd"], ["a", "bb", "ccc"]]
    stats = wrapped.stats()
    assert (stats["hits"], stats["misses"], stats["entries"], stats["errors"]) == (2, 5, 5, 0)


def test_nothing_is_asked_where_everything_is_there(cached):
    rm = CountingRM()
    wrapped = cached(rm)
    assert wrapped.score_batch([]) == []
    assert [wrapped.score_batch([turns("a"), turns("b")]) for _ in range(2)] == [[1 / 7, 1 / 7]] * 2
    assert len(rm.asked) == 1


def test_a_failure_is_not_kept_and_has_its_place(cached):
    rm = CountingRM()
    wrapped = cached(rm)
    wrapped.score_batch([turns("a"), turns("b")])
    batch = [turns(r) for r in ("a", "b", "a", "broken", "c")]
    for _ in range(2):
        with pytest.raises(InputTooLongError) as caught:
            wrapped.score_batch(batch)
        assert caught.value.index == 3
    assert rm.asked[1:] == [["broken", "c"]] * 2


def test_with_on_error_none_a_failure_is_none_and_not_kept(cached):
    rm = CountingRM()
    wrapped = cached(rm)
    batch = [turns(r) for r in ("broken", "a", "broken", "b")]
    for n in range(2):
        results = wrapped.score_batch(batch, on_error="none", return_details=True)
        assert [score for score, _ in results] == [None, 1 / 7, None, 1 / 7]
        assert results[0][1]["error"] == results[2][1]["error"] == {"type": "InputTooLongError", "message": "too long"}
        assert rm.asked[n] == (["broken", "a", "b"] if n == 0 else ["broken"])
    failures = wrapped._score_many([parse(c) for c in batch], CallOptions(on_error="none", first_index=0))
    assert failures[0] is not failures[2]


def test_failures_of_a_class_that_cannot_be_copied_are_none_for_duplicates_too(cached):
    class HttpError(Exception):
        def __init__(self, message, *, status):
            super().__init__(message)

    class FailingRM(BaseRM):
        def score(self, messages):
            raise HttpError("gone", status=503)

    results = cached(FailingRM()).score_batch([turns("a"), turns("a")], on_error="none", return_details=True)
    assert [score for score, _ in results] == [None, None]
    assert [details["error"] for _, details in results] == [{"type": "HttpError", "message": "gone"}] * 2


def test_what_is_invalid_is_refused_before_the_cache_is_asked(cached):
    wrapped = cached(CountingRM())
    with pytest.raises(InvalidConversationError):
        wrapped.score([{"role": "user", "content": "Hi"}])
    assert wrapped.stats()["misses"] == 0


def test_progress_counts_every_conversation(cached):
    wrapped = cached(CountingRM())
    wrapped.score(turns("a"))
    done: list[int] = []
    conversations = [parse(turns(r)) for r in ("a", "b", "b", "c", "a")]
    wrapped._score_many(conversations, CallOptions(progress=done.append))
    assert sum(done) == 5


async def test_the_asynchronous_forms_use_the_same_entries(cached):
    rm = CountingRM("process")
    wrapped = cached(rm)
    own = CountingRM("process")
    response = "step one\n\nstep two"
    assert await wrapped.ascore(turns(response)) == own.score(turns(response))
    assert wrapped.score(turns(response)) == own.score(turns(response))
    assert await wrapped.ascore_steps(turns(response)) == own.score_steps(turns(response))
    assert await wrapped.ascore_batch([turns(response), turns("x")]) == own.score_batch([turns(response), turns("x")])
    assert await wrapped.acompare(prompt="Hi", a=response, b="x") == own.compare(prompt="Hi", a=response, b="x")
    assert await wrapped.arank(prompt="Hi", responses=["x", response]) == [1, 0]
    assert await wrapped.abest_of_n(prompt="Hi", responses=["x", response]) == 1
    assert rm.asked == [[response], ["x"]]


async def test_an_asynchronous_model_is_awaited(cached):
    class SlowRM(BaseRM):
        fingerprint = "slow-1"

        async def _ascore_many(self, conversations, options):
            await asyncio.sleep(0.01)
            return [self._own_details(float(len(c.response))) for c in conversations]

    wrapped = cached(SlowRM())
    assert await asyncio.gather(*(wrapped.ascore(turns("a" * n)) for n in range(1, 6))) == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert wrapped.score(turns("aaa"), return_details=True)[1]["cached"] is True
    assert await asyncio.to_thread(wrapped.score, turns("b" * 6)) == 6.0


async def test_an_asynchronous_failure_has_its_place(cached):
    wrapped = cached(CountingRM())
    await wrapped.ascore(turns("a"))
    with pytest.raises(InputTooLongError) as caught:
        await wrapped.ascore_batch([turns("a"), turns("broken")])
    assert caught.value.index == 1


def test_threads_share_one_object(cached):
    wrapped = cached(CountingRM())
    wrong: list[int] = []

    def work() -> None:
        wrong.extend(n for n in range(1, 60) if wrapped.score(turns("a" * n)) != n / 7)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = wrapped.stats()
    assert wrong == []
    assert (stats["hits"] + stats["misses"], stats["entries"], stats["errors"]) == (236, 59, 0)


# keys


def key_of(wrapped: CachedRM, messages: Any, steps: Sequence[str] | None = None) -> Any:
    if steps is None:
        conversation = parse(messages)
    else:
        conversation = border.parse_steps(messages, steps=steps, step_delimiter="\n\n")
    return wrapped._score_keys([conversation], CallOptions())[0]


CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": 2}}}
SWAPPED = {"id": "1", "type": "function", "function": {"name": "add", "arguments": {"b": 2, "a": 1}}}
DIFFERENT = [
    turns("b"),
    turns("a", prompt="Hello"),
    turns("aHi", prompt=""),
    [{"role": "system", "content": "Hi"}, *turns("a")],
    [{"role": "user", "content": "Hi", "name": "ann"}, {"role": "assistant", "content": "a"}],
    [{"role": "user", "content": "Hi", "name": None}, {"role": "assistant", "content": "a"}],
    [{"role": "user", "content": "Hi", "name": 1}, {"role": "assistant", "content": "a"}],
    [{"role": "user", "content": "Hi", "name": "1"}, {"role": "assistant", "content": "a"}],
    [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "a", "tool_calls": [CALL]}],
    [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "a", "tool_calls": [SWAPPED]}],
    [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": None, "tool_calls": [CALL]}],
    [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "", "tool_calls": [CALL]}],
]


def test_whatever_a_model_may_see_is_part_of_the_key(cached):
    wrapped = cached(CountingRM())
    keys = [key_of(wrapped, messages) for messages in (turns("a"), *DIFFERENT)]
    assert len(set(keys)) == len(keys)
    assert all(isinstance(key, str) for key in keys)


def test_steps_and_aggregation_are_part_of_the_key(cached):
    wrapped = cached(CountingRM("process"))
    keys = [key_of(wrapped, turns("a b"), steps) for steps in (["a", "b"], ["a b"], ["a", "", "b"], None)]
    assert len(set(keys)) == 4
    one = [border.parse_steps(turns("a b"), steps=["a", "b"], step_delimiter="\n\n")]
    hows = [wrapped._score_keys(one, CallOptions(aggregation=how))[0] for how in ("mean", "last", "min", None)]
    assert len(set(hows)) == 3
    assert hows[2] == hows[3], "the default, said or not"


def test_the_same_conversation_in_another_form_has_the_same_key(cached):
    wrapped = cached(CountingRM())
    parts = [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]
    forms = [
        [{"content": "Hi", "role": "user"}, {"content": "a", "role": "assistant"}],
        [{"role": "user", "content": parts}, {"role": "assistant", "content": "a"}],
        tuple(turns("a")),
    ]
    assert {key_of(wrapped, form) for form in forms} == {key_of(wrapped, turns("a"))}


@pytest.fixture(scope="module")
def keeping(tmp_path_factory):
    """One cache for every example of a property."""
    with CachedRM(CountingRM(), cache_dir=tmp_path_factory.mktemp("cache")) as wrapped:
        yield wrapped


TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
EXTRAS = st.dictionaries(TEXTS, st.none() | st.integers() | TEXTS | st.lists(TEXTS, max_size=2), max_size=2)
MESSAGES = st.builds(Message, st.sampled_from(border.ROLES), TEXTS, st.just(()), EXTRAS)
CONVERSATIONS = st.builds(Conversation, st.lists(MESSAGES, min_size=1, max_size=3).map(tuple))


@given(first=CONVERSATIONS, second=CONVERSATIONS)
def test_conversations_share_a_key_only_where_they_are_the_same(keeping, first, second):
    a, b = keeping._score_keys([first, second], CallOptions())
    assert (a == b) == (repr(first) == repr(second))


def test_what_is_not_json_is_scored_each_time_and_never_mistaken(cached):
    rm = CountingRM()
    wrapped = cached(rm)
    odd = [
        [{"role": "user", "content": "Hi", "meta": value}, {"role": "assistant", "content": "a"}]
        for value in ((1, 2), {1: "x"}, {1}, float("nan"), object())
    ]
    assert [key_of(wrapped, messages) for messages in odd] == [0] * len(odd)
    for _ in range(2):
        assert wrapped.score_batch(odd) == [1 / 7] * len(odd)
    assert [len(batch) for batch in rm.asked] == [len(odd)] * 2
    assert wrapped.stats()["entries"] == 0


def test_a_result_that_is_not_json_is_given_but_not_kept(cached, caplog):
    class OddRM(CountingRM):
        def _one(self, conversation):
            return ScoreDetails(**{**vars(super()._one(conversation)), "extra": {"object": {1, 2}}})

    wrapped = cached(OddRM())
    for _ in range(2):
        score, details = wrapped.score(turns("a"), return_details=True)
        assert (score, details["object"], details["cached"]) == (1 / 7, {1, 2}, False)
    assert wrapped.stats()["entries"] == 0
    assert len(caplog.records) == 1
    with pytest.raises(reward_hub.CacheError, match="kept as JSON"):
        cached(OddRM(), on_corrupt="raise").score(turns("a"))


# steps, pairs, rankings


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


# whose scores


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


# the fingerprint of a user's class


def module(text: str, **names: Any) -> Any:
    """A module as it would be imported; every call is another version of the same file."""
    made = ModuleType("my_models")
    vars(made).update(names)
    source = "from reward_hub import BaseRM\nimport re\nimport math\nimport logging\n" + text
    exec(compile(source, "my_models.py", "exec"), vars(made))
    return made


CLASS = """
SCALE = 100
logger = logging.getLogger("my_models")

def scaled(n):
    return n / SCALE

class Base(BaseRM):
    pattern = re.compile("a+")

class MyRM(Base):
    def __init__(self, top=1.0, words=("a", "b")):
        self.top = top
        self.words = words

    def score(self, messages):
        '''Short is good.'''
        text = messages[-1]["content"]
        return min(scaled(len(text)), self.top) + sum(word in {"x", "y", "z"} for word in self.words)
"""


WRAPPER = """
class Half(BaseRM):
    def __init__(self, rm):
        self.rm = rm

    def score(self, messages):
        return self.rm.score(messages) / 2
"""


def test_the_fingerprint_of_a_users_class_is_the_same_for_the_same_code_and_settings():
    moved = "# a comment\n\n\n" + CLASS
    fingerprints = [fingerprint_of(module(text).MyRM()) for text in (CLASS, CLASS, moved)]
    assert len(set(fingerprints)) == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SCALE = 100", "SCALE = 10"),
        ("return n / SCALE", "return n // SCALE"),
        ("len(text)", "len(text) + 1"),
        ("top=1.0", "top=2.0"),
        ('"a", "b"', '"a", "c"'),
        ('compile("a+")', 'compile("b+")'),
        ('{"x", "y", "z"}', '{"x", "y"}'),
    ],
)
def test_the_fingerprint_of_a_users_class_changes_with_its_code(old, new):
    assert CLASS.count(old) == 1
    changed = CLASS.replace(old, new)
    assert fingerprint_of(module(CLASS).MyRM()) != fingerprint_of(module(changed).MyRM())


def test_the_fingerprint_of_a_users_class_is_the_same_in_another_process(tmp_path):
    import subprocess
    import sys

    (tmp_path / "my_models.py").write_text("from reward_hub import BaseRM\nimport re\nimport logging\n" + CLASS)
    code = "import my_models; from reward_hub.fingerprints import fingerprint_of as f; print(f(my_models.MyRM()))"
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONPATH": f"{tmp_path}:{Path(reward_hub.__file__).parents[1]}", "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(told) == 1


def test_a_changed_setting_of_a_users_class_is_another_model(cached):
    models = module(CLASS)
    assert cached(models.MyRM(top=0.5)).score(turns("a" * 90)) == 0.5
    assert cached(models.MyRM(top=0.7)).score(turns("a" * 90)) == 0.7
    assert flag(cached(models.MyRM(top=0.5)).score(turns("a" * 90), return_details=True)) is True


def test_a_users_wrapper_is_told_by_what_it_wraps():
    half = module(WRAPPER).Half
    one, other = CountingRM(), CountingRM()
    other.__class__ = type("Other", (CountingRM,), {"fingerprint": "counting-2"})
    assert fingerprint_of(half(one)) == fingerprint_of(half(CountingRM()))
    assert fingerprint_of(half(one)) != fingerprint_of(half(other))


def test_a_model_that_cannot_be_told_from_others_is_refused_until_it_is_named(tmp_path):
    class OpenRM(BaseRM):
        def __init__(self, weight):
            self.network = object()
            self.weight = weight

        def score(self, messages):
            return self.weight

    with pytest.raises(TypeError, match=r"self\.network is a object.*fingerprint="):
        CachedRM(OpenRM(1.0), cache_dir=tmp_path / "cache")
    first = CachedRM(OpenRM(1.0), cache_dir=tmp_path / "cache", fingerprint="open-1")
    second = CachedRM(OpenRM(2.0), cache_dir=tmp_path / "cache", fingerprint="open-2")
    assert [first.score(turns("a")), second.score(turns("a")), first.score(turns("a"))] == [1.0, 2.0, 1.0]
    first.close()
    second.close()


def test_a_changed_model_of_ours_is_refused_until_it_is_named(tmp_path):
    from reward_hub.models.model_rm import ModelRM

    class ShiftedRM(ModelRM):
        def score(self, messages, **kwargs):
            return super().score(messages, **kwargs) + 1

    with AutoRM.load("builtin/arithmetic-orm") as rm:
        shifted = ShiftedRM(rm.model)
        with pytest.raises(TypeError, match="changes ModelRM, whose fingerprint does not tell"):
            CachedRM(shifted, cache_dir=tmp_path / "cache")


@dataclass
class Config:
    scale: float
    inner: Any = None


@dataclass
class HoldingRM(BaseRM):
    """Holds anything."""

    held: Any
    words: list[str] = field(default_factory=list)

    def score(self, messages):
        return 1.0


def times(k: float) -> Callable[[float], float]:
    return lambda x: k * x


@pytest.mark.parametrize(
    "make",
    [
        Config,
        lambda n: SimpleNamespace(inner=Config(0.0, [n])),
        lambda n: np.array([1.0, n]),
        np.float32,
        lambda n: ModuleType(f"scoring_v{n}"),
        lambda n: functools.partial(max, n),
        lambda n: [times(n), times(3.0)],
        lambda n: {1: times(n), "1": times(3.0)},
        lambda n: HoldingRM(n).score,
        lambda n: functools.lru_cache(times(n)),
    ],
)
def test_what_a_users_class_holds_tells_it_from_others(make):
    fingerprints = [fingerprint_of(HoldingRM(make(n))) for n in (1.0, 2.0, 1.0)]
    assert fingerprints[0] != fingerprints[1]
    assert fingerprints[0] == fingerprints[2]


def test_locks_and_loggers_say_nothing_about_a_model():
    for make in (threading.Lock, threading.RLock, threading.Event, threading.local, logging.getLogger):
        assert fingerprint_of(HoldingRM(make())) == fingerprint_of(HoldingRM(make()))


class Network:
    """Can be called, and holds what it gives."""

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(self, messages: Any) -> float:
        return self.weight


NETWORK = """
class NetworkRM(BaseRM):
    def score(self, messages):
        return network(messages)
"""


def test_an_open_model_in_the_module_of_a_users_class_is_refused_as_one_in_an_attribute_is(tmp_path):
    with pytest.raises(TypeError, match="network is a Network, which identifies no model"):
        CachedRM(module(NETWORK, network=Network(1.0)).NetworkRM(), cache_dir=tmp_path / "cache")


def test_the_same_code_with_another_import_is_another_model():
    named = [times(2.0), times(2.0)]
    for function, name in zip(named, ("scoring_v1", "scoring_v2"), strict=True):
        function.__module__ = name
    functions = [fingerprint_of(module(NETWORK, network=function).NetworkRM()) for function in named]
    modules = [
        fingerprint_of(module(NETWORK, network=ModuleType(name)).NetworkRM()) for name in ("scoring_v1", "scoring_v2")
    ]
    assert len({*functions, *modules}) == 4


def test_a_class_of_the_program_itself_is_the_same_in_a_spawned_process():
    names = ("__main__", "__mp_main__", "my_models")
    fingerprints = [fingerprint_of(module(CLASS, __name__=name).MyRM()) for name in names]
    assert fingerprints[0] == fingerprints[1]
    assert fingerprints[0] != fingerprints[2]


def test_an_attribute_is_not_taken_for_the_global_of_its_name():
    text = CLASS.replace("self.top = top", "self.top = self.network = top")
    assert fingerprint_of(module(text, network=Network(1.0)).MyRM()) == fingerprint_of(module(text).MyRM())


def test_a_model_that_holds_itself_is_refused_in_words(tmp_path):
    rm = HoldingRM(None)
    rm.held = [rm]
    with pytest.raises(TypeError, match="HoldingRM holds itself"):
        CachedRM(rm, cache_dir=tmp_path / "cache")


def test_a_class_that_inherits_a_users_fingerprint_is_told_by_its_code(cached):
    class DoubledRM(CountingRM):
        def _one(self, conversation):
            return self._own_details(2.0 * len(conversation.response))

    assert fingerprint_of(CountingRM()) == "counting-1"
    assert [cached(CountingRM()).score(turns("a")), cached(DoubledRM()).score(turns("a"))] == [1 / 7, 2.0]


@pytest.mark.parametrize("fingerprint", ["", 1])
def test_a_given_fingerprint_is_a_text(fingerprint, tmp_path):
    with pytest.raises(TypeError, match="fingerprint="):
        CachedRM(CountingRM(), cache_dir=tmp_path / "cache", fingerprint=fingerprint)


class NotingRM(BaseRM):
    """Counts its calls, keeps the last, opens something late: all in attributes beside its one setting."""

    def __init__(self, scale: float) -> None:
        self.scale = scale
        self.calls = 0
        self.opened: Any = None

    def score(self, messages):
        self.calls += 1
        self.last = messages
        self.opened = self.opened or Network(self.scale)
        return self.scale


def test_what_scoring_writes_to_a_model_is_no_setting_of_it(cached):
    rm = NotingRM(1.0)
    first = cached(rm)
    first.score_batch([turns("a"), turns("b")])
    assert rm.score(turns("a")) == 1.0, "as users do, to compare"
    first.score(turns("c"))
    for again in (rm, NotingRM(1.0)):
        assert flag(cached(again).score(turns("c"), return_details=True)) is True
    assert rm.calls == 4


@pytest.mark.parametrize(
    "wrap",
    [
        module(WRAPPER).Half,
        lambda rm: reward_hub.EnsembleRM([rm, CountingRM()]),
        lambda rm: module(WRAPPER).Half(HoldingRM(rm)),
    ],
)
def test_what_models_within_a_model_write_to_themselves_is_no_setting_either(wrap, cached):
    rm = NotingRM(1.0)
    whole = wrap(rm)
    for expected in (False, True):
        assert flag(cached(whole).score(turns("a"), return_details=True)) is expected
    rm.scale = 2.0
    assert flag(cached(whole).score(turns("a"), return_details=True)) is False


def test_a_model_that_comes_to_hold_itself_is_scored_all_the_same(cached):
    class SelfRM(BaseRM):
        def score(self, messages):
            self.me = [self]
            return 1.0

    rm = SelfRM()
    assert [cached(rm).score(turns("a")) for _ in range(2)] == [1.0, 1.0]


def test_a_setting_that_is_changed_after_scoring_is_seen_by_another_cache(cached):
    rm = NotingRM(1.0)
    scores = []
    for scale in (1.0, 2.0, 3.0, 2.0):
        rm.scale = scale
        scores.append(cached(rm).score(turns("a")))
    assert scores == [1.0, 2.0, 3.0, 2.0]
    assert rm.calls == 3


def test_a_setting_that_is_changed_after_a_failure_is_seen_too(cached):
    class StrictRM(BaseRM):
        scale: float | None = None

        def score(self, messages):
            return 2.0 * self.scale

    rm = StrictRM()
    unset = cached(rm)
    with pytest.raises(TypeError):
        unset.score(turns("a"))
    scores = []
    for rm.scale in (1.0, 2.0):
        scores.append(cached(rm).score(turns("a")))
    assert scores == [2.0, 4.0]


async def test_what_methods_write_to_lists_around_their_class_is_no_setting(cached):
    calls: list[str] = []

    class LoggedRM(BaseRM):
        async def ascore(self, messages, **kwargs):
            calls.append(messages[-1]["content"])
            return 1.0

    for _ in range(2):
        assert await cached(LoggedRM()).ascore(turns("a")) == 1.0
    assert calls == ["a"]


# stats, clear, export


def test_clear_removes_everything_and_says_how_much(cached):
    rm = CountingRM()
    wrapped = cached(rm)
    wrapped.score_batch([turns("a"), turns("b")])
    assert wrapped.clear() == 2
    assert wrapped.stats()["entries"] == 0
    wrapped.score(turns("a"))
    assert rm.asked == [["a", "b"], ["a"]]


def test_export_writes_what_is_kept(cached, tmp_path):
    wrapped = cached(CountingRM())
    results = wrapped.score_batch([turns("a"), turns("bb")], return_details=True)
    assert wrapped.export(tmp_path / "out.jsonl") == 2
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["details"]["score"] for row in rows] == [score for score, _ in results]
    assert {(row["call"], row["fingerprint"]) for row in rows} == {("score", "counting-1")}
    assert [row["key"] for row in rows] == wrapped._score_keys([parse(turns(r)) for r in ("a", "bb")], CallOptions())
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []


# what the fingerprints of loaded models cover


def test_quantization_is_part_of_a_models_fingerprint():
    from dataclasses import replace

    with AutoRM.load("builtin/arithmetic-orm") as rm:
        plain, same = rm.model, replace(rm.model, numerics={})
        quantized = [replace(plain, numerics={"quantization": how}) for how in ("fp8", "awq")]
        assert plain.fingerprint() == same.fingerprint()
        assert len({plain.fingerprint(), *(model.fingerprint() for model in quantized)}) == 3


def test_special_tokens_are_part_of_a_tokenizers_fingerprint(golden_models):
    import copy

    tokenizer = golden_models.load(GoldenSet("seqcls-qwen3", "own")).model.setup.tokenizer
    other = copy.copy(tokenizer)
    other.bos_token = "<other>"
    assert tokenizer.fingerprint() != other.fingerprint()


def test_code_in_a_folder_is_part_of_its_fingerprint(tmp_path):
    import shutil

    from reward_hub import builtin
    from reward_hub.checkpoints.files import open_checkpoint

    folder = tmp_path / "model"
    shutil.copytree(builtin.path("arithmetic-orm"), folder)
    found = [open_checkpoint(str(folder)).fingerprint()]
    for text in ("a = 1", "a = 2"):
        (folder / "modeling_x.py").write_text(text)
        found.append(open_checkpoint(str(folder)).fingerprint())
    assert len(set(found)) == 3
