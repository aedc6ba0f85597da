"""Usage, cost, budgets and rates, and how many requests are under way."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from judge_server import Answer, Asked, JudgeOn, Script, completion, fails, in_turn, says, verdict

from reward_hub import BackendError
from reward_hub.errors import BudgetExceededError
from reward_hub.http.sending import Slots
from reward_hub.judge.chat import limits
from reward_hub.judge.chat.client import ChatRequest, Completion
from reward_hub.judge.chat.limits import Ledger, Limits

CONVERSATION = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]


def when_together(n: int) -> Script:
    """The first n requests are answered when all of them have come, and a little later, for others to come too."""
    together = threading.Barrier(n)
    places = itertools.count()

    def script(asked: Asked) -> Answer:
        if next(places) < n:
            together.wait(timeout=60)
        return completion('{"score": 3}', delay_s=0.05)

    return script


def test_two_hundred_judgements_run_thirty_two_at_a_time(judge_on: JudgeOn) -> None:
    judge, server = judge_on(when_together(32), max_concurrency=32)
    assert judge.score_batch([CONVERSATION] * 200) == [3] * 200
    assert len(server.asked) == 200
    assert server.max_in_flight == 32


def test_concurrency_is_counted_over_all_event_loops_and_threads(judge_on: JudgeOn) -> None:
    judge, server = judge_on(when_together(4), max_concurrency=4)
    calls = [
        lambda: asyncio.run(judge.ascore_batch([CONVERSATION] * 10)),
        lambda: judge.score_batch([CONVERSATION] * 10),
    ]
    with ThreadPoolExecutor(4) as pool:
        batches = [pool.submit(calls[i % 2]) for i in range(4)]
        assert [batch.result() for batch in batches] == [[3] * 10] * 4
    assert len(server.asked) == 40
    assert server.max_in_flight == 4


def test_slots_are_given_in_turn_and_come_back_from_those_that_give_up() -> None:
    slots = Slots(1)
    order: list[int] = []

    async def use(i: int) -> None:
        async with slots.one():
            order.append(i)
            await asyncio.sleep(0)

    async def several() -> None:
        async with slots.one():
            waiting = [asyncio.ensure_future(use(i)) for i in range(5)]
            await asyncio.sleep(0)
            waiting[1].cancel()
        # The slot has just been handed to the first, which gives up before it could run.
        waiting[0].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    for _ in range(2):
        asyncio.run(several())
    assert order == [2, 3, 4] * 2


def test_slots_of_a_loop_that_was_closed_under_its_tasks_are_free_again() -> None:
    slots = Slots(1)
    loop = asyncio.new_event_loop()
    held = slots.one()
    loop.run_until_complete(held.__aenter__())
    loop.close()

    async def use() -> str:
        async with asyncio.timeout(60), slots.one():
            return "held"

    assert asyncio.run(use()) == "held"


def test_concurrency_counts_requests_and_not_judgements(judge_on: JudgeOn) -> None:
    judge, server = judge_on(when_together(4), max_concurrency=4, n_samples=3, temperature=1.0)

    async def several() -> list[float]:
        return await asyncio.gather(*(judge.ascore(CONVERSATION) for _ in range(6)))

    assert asyncio.run(several()) == [3] * 6
    assert len(server.asked) == 18
    assert server.max_in_flight == 4


def test_usage_and_cost_add_up_over_verdicts(judge_on: JudgeOn) -> None:
    judge, _ = judge_on(in_turn(says("no"), verdict(3, usage=(300, 40))), prices=(2.0, 10.0))
    _, details = judge.score(CONVERSATION, return_details=True)
    cost = (400 * 2.0 + 60 * 10.0) / 1e6
    assert details["usage"] == {"calls": 2, "prompt_tokens": 400, "completion_tokens": 60, "cost": pytest.approx(cost)}
    judge.score(CONVERSATION)
    assert judge.usage.calls == 3
    assert judge.usage.cost == pytest.approx(cost + (300 * 2.0 + 40 * 10.0) / 1e6)


def test_what_a_failed_attempt_used_is_not_counted(judge_on: JudgeOn) -> None:
    judge, _ = judge_on(in_turn(fails(500), verdict(3)), token_budget=5000)
    judge.score(CONVERSATION)
    assert (judge.usage.calls, judge.usage.prompt_tokens, judge.usage.completion_tokens) == (1, 100, 20)


def test_a_server_that_counts_no_tokens_has_unknown_usage_and_keeps_no_budget(judge_on: JudgeOn) -> None:
    judge, _ = judge_on(verdict(3, usage=None), prices=(1, 1))
    _, details = judge.score(CONVERSATION, return_details=True)
    assert details["usage"] == {"calls": 1, "prompt_tokens": None, "completion_tokens": None}
    judge, server = judge_on(verdict(3, usage=None), token_budget=100_000)
    for _ in range(2):
        with pytest.raises(BackendError, match="does not say how many tokens"):
            judge.score(CONVERSATION)
    assert len(server.asked) == 1


def test_the_call_that_could_go_over_the_budget_is_not_sent(judge_on: JudgeOn) -> None:
    # A call uses 1,000 tokens and writes 100, the most it may, for 0.002; the next is taken to use as many.
    script = verdict(3, usage=(1000, 100))
    judge, server = judge_on(script, max_tokens=100, prices=(1.0, 10.0), budget=0.0099)
    for _ in range(4):
        judge.score(CONVERSATION)
    with pytest.raises(BudgetExceededError, match=r"budget=0.0099") as caught:
        judge.score(CONVERSATION)
    assert len(server.asked) == 4
    assert (caught.value.used_tokens, caught.value.used_cost) == (4400, pytest.approx(0.008))
    assert judge.usage.cost <= 0.0099


def test_a_batch_stops_within_its_budget_of_tokens_and_uses_it_up(judge_on: JudgeOn) -> None:
    # At 1,024 tokens set aside for each of 16 at a time, the budget would end at once if those were not given back.
    judge, server = judge_on(verdict(3, usage=(500, 20), delay_s=0.01), token_budget=12_000, max_concurrency=16)
    scores = judge.score_batch([CONVERSATION] * 40, on_error="none", return_details=True)
    done = [score for score, _ in scores if score is not None]
    assert judge.usage.prompt_tokens + judge.usage.completion_tokens == 520 * len(done) <= 12_000
    # 12,000 hold 20 calls of 520 and what the 21st may take: 500 or so and 1,024.
    assert len(done) == len(server.asked) in (20, 21)
    assert {details["error"]["type"] for score, details in scores if score is None} == {"BudgetExceededError"}


@pytest.mark.parametrize("limit", [{"token_budget": 10_000}, {"prices": (1.0, 1.0), "budget": 0.01}])
def test_many_calls_at_once_stay_within_the_budget_though_their_prompts_are_longer_than_thought(
    judge_on: JudgeOn, limit: dict
) -> None:
    # A prompt is taken for 500 tokens or so before the first reply says that it has 1,000.
    judge, _ = judge_on(verdict(3, usage=(1000, 100), delay_s=0.02), max_tokens=100, max_concurrency=32, **limit)
    scores = judge.score_batch([CONVERSATION] * 40, on_error="none")
    assert scores.count(3) == 9
    assert judge.usage.prompt_tokens + judge.usage.completion_tokens == 9 * 1100


def test_a_server_that_counts_no_tokens_is_asked_once_however_many_wait(judge_on: JudgeOn) -> None:
    judge, server = judge_on(verdict(3, usage=None), token_budget=100_000)
    results = judge.score_batch([CONVERSATION] * 8, on_error="none", return_details=True)
    assert all("does not say how many tokens" in details["error"]["message"] for _, details in results)
    assert len(server.asked) == 1


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(limits, "time", SimpleNamespace(monotonic=lambda: self.now))
        of_loops = {"get_running_loop": asyncio.get_running_loop, "sleep": self.sleep}
        monkeypatch.setattr(limits, "asyncio", SimpleNamespace(**of_loops))

    async def sleep(self, seconds: float) -> None:
        until = self.now + seconds
        await asyncio.sleep(0)
        self.now = max(self.now, until)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def request(n_bytes: int = 10, max_tokens: int = 10) -> ChatRequest:
    return ChatRequest([{"role": "user", "content": "x" * n_bytes}], 0.0, max_tokens)


def run_requests(clock: Clock, ledger: Ledger, n: int, one: ChatRequest, completed: Completion) -> list[float]:
    """When each of n requests that begin together was let through, in seconds from the start."""
    started = clock.now

    async def send() -> float:
        async with ledger.admitted(one) as admission:
            at = clock.now - started
            admission.settle(completed)
        return at

    async def all_of_them() -> list[float]:
        return sorted(await asyncio.gather(*(send() for _ in range(n))))

    return asyncio.run(all_of_them())


def test_no_period_holds_more_requests_than_allowed(clock: Clock) -> None:
    ledger = Ledger(Limits(requests_per_minute=4))
    times = run_requests(clock, ledger, 10, request(), Completion("", "stop", prompt_tokens=1, completion_tokens=1))
    assert times == pytest.approx([0] * 4 + [60] * 4 + [120] * 2, abs=0.1)
    assert all(later - earlier >= 60 for earlier, later in zip(times, times[4:], strict=False))


def test_no_period_holds_more_tokens_than_allowed(clock: Clock) -> None:
    ledger = Ledger(Limits(tokens_per_minute=100))
    completed = Completion("", "stop", prompt_tokens=20, completion_tokens=20)
    # 21 tokens are foreseen and 40 used: of what was let through, no three fit into one period.
    times = run_requests(clock, ledger, 6, request(n_bytes=10, max_tokens=10), completed)
    assert all(later - earlier >= 60 for earlier, later in zip(times, times[4:], strict=False))


def test_a_request_that_no_rate_lets_through_is_an_error(clock: Clock) -> None:
    ledger = Ledger(Limits(tokens_per_minute=100))
    with pytest.raises(BackendError, match="tokens_per_minute=100"):
        run_requests(clock, ledger, 1, request(max_tokens=200), Completion("", "stop"))


def test_requests_wait_for_the_rate_of_their_judge(judge_on: JudgeOn, clock: Clock) -> None:
    judge, _ = judge_on(verdict(3), requests_per_minute=5)
    started = clock.now
    assert judge.score_batch([CONVERSATION] * 5) == [3] * 5
    assert clock.now == started
    assert judge.score_batch([CONVERSATION] * 2) == [3] * 2
    assert clock.now - started == pytest.approx(60, abs=0.1)


def test_one_judge_serves_several_event_loops(judge_on: JudgeOn) -> None:
    def echo(asked: Asked) -> Answer:
        return completion(json.dumps({"score": 3}))

    judge, _ = judge_on(echo)
    assert asyncio.run(judge.ascore(CONVERSATION)) == 3
    assert judge.score(CONVERSATION) == 3
    assert asyncio.run(judge.ascore_batch([CONVERSATION] * 5)) == [3] * 5
    judge.close()
    assert judge.score(CONVERSATION) == 3
