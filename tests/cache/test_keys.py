"""Two conversations share an entry only where they are the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from cached_models import CountingRM, turns
from hypothesis import given
from hypothesis import strategies as st

import reward_hub
from reward_hub import messages as border
from reward_hub.cache.cached_rm import CachedRM
from reward_hub.messages import parse
from reward_hub.reward_model import CallOptions
from reward_hub.types import Conversation, Message, ScoreDetails


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
