"""The fingerprint of a user's model covers what it holds, and not what scoring writes to it."""

from __future__ import annotations

import functools
import logging
import threading
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cached_models import WRAPPER, CountingRM, HoldingRM, Network, flag, module, times, turns

import reward_hub
from reward_hub import BaseRM
from reward_hub.cache.cached_rm import CachedRM
from reward_hub.fingerprints import fingerprint_of


@dataclass
class Config:
    scale: float
    inner: Any = None


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


def test_a_model_that_holds_itself_is_refused_in_words(tmp_path):
    rm = HoldingRM(None)
    rm.held = [rm]
    with pytest.raises(TypeError, match="HoldingRM holds itself"):
        CachedRM(rm, cache_dir=tmp_path / "cache")


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


def test_a_text_that_scoring_writes_is_no_setting_whatever_it_says(cached):
    class LastRM(BaseRM):
        def score(self, messages):
            self.last = messages[-1]["content"]
            return 1.0

    rm = LastRM()
    for response in ("In the long term: rm:1", "Of another form: \0rm:"):
        assert flag(cached(rm).score(turns(response), return_details=True)) is False
        assert flag(cached(rm).score(turns(response), return_details=True)) is True


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
