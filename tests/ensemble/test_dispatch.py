"""Which member is asked where and when."""

from __future__ import annotations

import asyncio
import threading

import pytest
from ensemble_models import CONVERSATIONS, Scaled, Vowels, three

from reward_hub import (
    AutoRM,
    BaseRM,
    EnsembleRM,
)


def test_local_members_are_asked_in_turn_in_the_thread_of_the_caller():
    seen, here = [], threading.get_ident()

    class Local(Scaled):
        def score(self, messages):
            seen.append((self.name, threading.get_ident()))
            return super().score(messages)

    rm = EnsembleRM([Local(name="a"), EnsembleRM([Local(name="b"), Local(name="c")])])
    rm.score(CONVERSATIONS[1])
    rm.rank(prompt="Hi", responses=["a"])
    assert seen == [(name, here) for _ in range(2) for name in "abc"]


class Meeting(BaseRM):
    """Answers only when as many members as were expected have been asked."""

    def __init__(self, expected, asked):
        self.expected, self.asked = expected, asked
        self.name = f"server {len(asked)}"

    async def ascore_conversations(self, conversations, options):
        self.asked.append(self.name)
        while len(self.asked) < self.expected:
            await asyncio.sleep(0.001)
        return [self._own_details(1.0) for _ in conversations]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_members_on_servers_are_asked_together_while_local_ones_compute(asynchronous):
    asked: list[str] = []

    class Local(BaseRM):
        name = "local"

        def score(self, messages):
            asked.append(self.name)
            while len(asked) < 3:
                threading.Event().wait(0.001)
            return 4.0

    rm = EnsembleRM([Meeting(3, asked), Local(), Meeting(3, asked)])
    score = asyncio.run(rm.ascore(CONVERSATIONS[1])) if asynchronous else rm.score(CONVERSATIONS[1])
    assert score == 2.0
    assert len(asked) == 3


@pytest.mark.timeout(60)
def test_a_local_failure_ends_the_wait_for_servers():
    started, cancelled = threading.Event(), threading.Event()

    class Endless(BaseRM):
        async def ascore_conversations(self, conversations, options):
            started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

    class Local(BaseRM):
        def score(self, messages):
            started.wait(30)
            raise ValueError("no such word")

    with pytest.raises(ValueError, match="no such word"):
        EnsembleRM([Endless(), Local()]).score(CONVERSATIONS[1])
    assert cancelled.wait(30)


def test_a_served_ensemble_gives_the_scores_and_members_of_the_ensemble_itself():
    pytest.importorskip("fastapi")
    from reward_hub.server.run import served_in_background

    rm = three(normalize="zscore").fit(CONVERSATIONS)
    with served_in_background(rm) as address, AutoRM.load(rm.name, "api", api_base=address) as client:
        assert client.fingerprint == rm.fingerprint
        value, details = client.score(CONVERSATIONS[3], return_details=True)
        own, own_details = rm.score(CONVERSATIONS[3], return_details=True)
        assert (value, details["members"], details["spread"]) == (own, own_details["members"], own_details["spread"])
        outer = EnsembleRM([(client, 1), (Vowels(), 1)])
        assert outer.score_batch(CONVERSATIONS) == pytest.approx(
            [
                (a + b) / 2
                for a, b in zip(rm.score_batch(CONVERSATIONS), Vowels().score_batch(CONVERSATIONS), strict=True)
            ]
        )
        assert outer.score(CONVERSATIONS[3], return_details=True)[1]["members"][0]["members"] == details["members"]


def test_a_conversation_counts_as_done_when_every_member_has_scored_it(capsys):
    three().score_batch(CONVERSATIONS, show_progress=True)
    three(normalize="zscore").fit(CONVERSATIONS, show_progress=True)
    # One line a bar; on a slow machine the full one is drawn twice in its line.
    bars = capsys.readouterr().err.split("\n")
    assert sum("12/12" in bar for bar in bars) == 2


def test_close_closes_every_member_also_where_one_fails():
    closed = []

    class Closing(BaseRM):
        def __init__(self, name):
            self.name = name

        def close(self):
            closed.append(self.name)
            if self.name == "b":
                raise OSError("gone already")

    with pytest.raises(OSError, match="gone already"), EnsembleRM([Closing(name) for name in "abc"]):
        pass
    assert sorted(closed) == ["a", "b", "c"]
