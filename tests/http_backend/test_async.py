"""Many asynchronous calls at once: what the server itself sees of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from async_servers import AsyncServer, async_server
from golden_sets import GoldenModels, GoldenSet
from local_servers import VllmLike

from reward_hub import AutoRM, BaseRM, CachedRM, DrSow, EnsembleRM, calibrate
from reward_hub.backends.base import Backend, Progress
from reward_hub.backends.vllm.calls import JoinedCalls
from reward_hub.models.model_rm import ModelRM
from reward_hub.types import Array, TokenInput

GOLDEN = GoldenSet("seqcls-qwen2", "own")
N_CALLS = 64
MAX_CONCURRENCY = 32
CLOSE = 1e-5
Loaded = tuple[BaseRM, AsyncServer]

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def served(golden_models: GoldenModels) -> Iterator[Loaded]:
    """A golden model over an asynchronous server like vLLM, and that server."""
    with async_server(VllmLike(golden_models.load(GOLDEN), "classify")) as server:
        checkpoint = golden_models.checkpoint(GOLDEN)
        rm = AutoRM.load("rm", "api", api_base=server.address, checkpoint=checkpoint, max_retries=0)
        yield rm, server
        rm.close()


def conversations(n: int = N_CALLS) -> list[list[dict[str, str]]]:
    """All different, so that no two are one entry of a cache."""
    return [
        [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": f"It is {i}."}] for i in range(n)
    ]


async def test_sixty_four_scores_at_once_keep_thirty_two_requests_under_way(
    served: Loaded, golden_models: GoldenModels
) -> None:
    rm, server = served
    server.expect(MAX_CONCURRENCY)
    scores = await asyncio.gather(*(rm.ascore(messages) for messages in conversations()))
    assert (server.peak, server.n_begun) == (MAX_CONCURRENCY, N_CALLS)
    assert scores == pytest.approx(golden_models.load(GOLDEN).score_batch(conversations()), abs=CLOSE)


@pytest.mark.parametrize("call", ["ascore_batch", "acompare", "arank"])
async def test_the_other_calls_keep_as_many_under_way(served: Loaded, call: str) -> None:
    rm, server = served
    calls: dict[str, Callable[[int], Any]] = {
        "ascore_batch": lambda i: rm.ascore_batch([conversations()[i]]),
        "acompare": lambda i: rm.acompare(prompt="How many?", a=f"{i}", b="none"),
        "arank": lambda i: rm.arank(prompt="How many?", responses=[f"{i}", "none", "all"]),
    }
    server.expect(MAX_CONCURRENCY)
    await asyncio.gather(*(calls[call](i) for i in range(N_CALLS)))
    assert (server.peak, server.n_begun) == (MAX_CONCURRENCY, N_CALLS)


def calibrated(rm: BaseRM, folder: Path) -> BaseRM:
    texts = [f"It is {i}." for i in range(16)]
    ranking = rm.rank(prompt="?", responses=texts)
    pairs = [{"prompt": "?", "chosen": texts[ranking[i]], "rejected": texts[ranking[-1 - i]]} for i in range(8)]
    return calibrate(rm, pairs, n_folds=2)


def twice_cached(rm: BaseRM, folder: Path) -> BaseRM:
    return CachedRM(EnsembleRM([CachedRM(rm, cache_dir=folder / "inner")]), cache_dir=folder / "outer")


WRAPPERS: dict[str, Callable[[BaseRM, Path], BaseRM]] = {
    "cache": lambda rm, folder: CachedRM(rm, cache_dir=folder),
    "calibration": calibrated,
    "ensemble": lambda rm, folder: EnsembleRM([rm]),
    "cached ensemble": twice_cached,
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
async def test_wrappers_keep_as_many_under_way(served: Loaded, wrapper: str, tmp_path: Path) -> None:
    rm, server = served
    wrapped = await asyncio.to_thread(WRAPPERS[wrapper], rm, tmp_path)
    server.expect(MAX_CONCURRENCY)
    scores = await asyncio.gather(*(wrapped.ascore(messages) for messages in conversations()))
    assert (server.peak, server.n_begun) == (MAX_CONCURRENCY, N_CALLS)
    server.expect(0)
    assert scores == pytest.approx(await rm.ascore_batch(conversations()), abs=CLOSE)


async def test_an_ensemble_asks_its_servers_side_by_side(served: Loaded) -> None:
    rm, server = served
    server.expect(MAX_CONCURRENCY)
    ensemble = EnsembleRM([rm, rm])
    await asyncio.gather(*(ensemble.ascore(messages) for messages in conversations(16)))
    assert (server.peak, server.n_begun) == (MAX_CONCURRENCY, 2 * 16)


async def test_what_waits_for_a_server_holds_no_thread(served: Loaded) -> None:
    rm, server = served
    server.expect(N_CALLS + 1)
    calls = [asyncio.create_task(rm.ascore(messages)) for messages in conversations()]
    await until(lambda: server.under_way == MAX_CONCURRENCY)
    # A thread of the default pool, of which two cores have six.
    assert await asyncio.wait_for(asyncio.to_thread(threading.active_count), 10) > 0
    server.let_go()
    await asyncio.gather(*calls)


async def test_a_call_that_is_cancelled_ends_its_request_and_no_other(
    served: Loaded, golden_models: GoldenModels
) -> None:
    rm, server = served
    server.expect(N_CALLS + 1)
    calls = [asyncio.create_task(rm.ascore(messages)) for messages in conversations()]
    await until(lambda: server.under_way == MAX_CONCURRENCY)
    # Those that were sent, and some that still wait for a slot.
    cancelled = {*range(0, N_CALLS, 4)}
    for i in cancelled:
        calls[i].cancel()
    await until(lambda: server.n_dropped > 0)
    server.let_go()
    results = await asyncio.gather(*calls, return_exceptions=True)
    expected = golden_models.load(GOLDEN).score_batch(conversations())
    for i, result in enumerate(results):
        if i in cancelled:
            assert isinstance(result, asyncio.CancelledError)
        else:
            assert result == pytest.approx(expected[i], abs=CLOSE)
    # No slot is lost: as many as before are under way together.
    server.expect(MAX_CONCURRENCY)
    await asyncio.gather(*(rm.ascore(messages) for messages in conversations()))
    assert (server.peak, server.n_begun) == (MAX_CONCURRENCY, N_CALLS)


async def test_a_batch_that_is_cancelled_gives_all_its_slots_back(served: Loaded) -> None:
    rm, server = served
    server.expect(N_CALLS + 1)
    batch = asyncio.create_task(rm.ascore_batch(conversations(), batch_size=1))
    await until(lambda: server.under_way == MAX_CONCURRENCY)
    batch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await batch
    await until(lambda: server.under_way == 0)
    server.expect(MAX_CONCURRENCY)
    await rm.ascore_batch(conversations(), batch_size=1)
    assert (server.peak, server.n_begun) == (MAX_CONCURRENCY, N_CALLS)


@pytest.mark.parametrize("family", ["implicit", "drsow"])
async def test_a_policy_and_its_reference_are_asked_at_once_as_often_as_their_servers_may_be(
    golden_models: GoldenModels, family: str
) -> None:
    folder = golden_models.checkpoint(GoldenSet("dpo-implicit", "own"))
    here: Any = AutoRM.load(folder / "policy", "transformers", family=family, reference=folder / "reference")
    with ExitStack() as stack:
        policy, reference = (
            stack.enter_context(async_server(VllmLike(_Over(model), "generate", root=str(folder / name))))
            for name, model in (("policy", here.policy), ("reference", here.reference))
        )
        rm: BaseRM
        if family == "drsow":
            rm = DrSow(strong=policy.address, weak=reference.address)
        else:
            rm = AutoRM.load("", "api", api_base=policy.address, family=family, reference=reference.address)
        stack.callback(rm.close)
        expected = here.score_batch(conversations())
        assert await rm.ascore(conversations()[0]) == pytest.approx(expected[0], abs=1e-4)
        for server in (policy, reference):
            server.expect(MAX_CONCURRENCY)
        scores = await asyncio.gather(*(rm.ascore(messages) for messages in conversations()))
        for server in (policy, reference):
            assert (server.peak, server.n_begun) == (MAX_CONCURRENCY, N_CALLS)
    assert scores == pytest.approx(expected, abs=1e-4)


class _Over:
    """What `VllmLike` needs of a reward model: one of the two models of an implicit reward."""

    def __init__(self, model: Any) -> None:
        self.model = model


# -- an engine in this process whose calls queue -----------------------------------------------------------------------


class Queueing(Backend):
    """A backend behind `JoinedCalls`, as vLLM's is; the engine is held while `gate` is closed."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.info = backend.info
        self.gate = threading.Event()
        self.batches: list[int] = []
        self.queued = 0
        self._calls: JoinedCalls[TokenInput, Array] = JoinedCalls(self._run)

    def _run(self, inputs: list[TokenInput], progress: Progress) -> list[Array]:
        self.batches.append(len(inputs))
        assert self.gate.wait(60)
        return list(self._backend.read(inputs))

    @classmethod
    def known_options(cls) -> frozenset[str]:
        return frozenset()

    @classmethod
    def load(cls, *args: Any, **options: Any) -> Backend:
        raise NotImplementedError

    def read(self, inputs: Sequence[TokenInput], **options: Any) -> list[Array]:
        return self._calls.call(inputs)

    async def aread(self, inputs: Sequence[TokenInput], **options: Any) -> list[Array]:
        self.queued += 1
        return await self._calls.acall(inputs)


async def test_calls_of_an_engine_in_this_process_queue_and_are_joined(golden_models: GoldenModels) -> None:
    local: Any = golden_models.load(GOLDEN)
    engine = Queueing(local.model.backend)
    rm = ModelRM(replace(local.model, backend=engine))
    calls = [asyncio.create_task(rm.ascore(messages)) for messages in conversations()]
    await until(lambda: engine.queued == N_CALLS)
    # One call is with the engine, the others wait; none of them holds a thread of the default pool.
    assert await asyncio.wait_for(asyncio.to_thread(threading.active_count), 10) > 0
    for i in range(1, N_CALLS, 8):
        calls[i].cancel()
    engine.gate.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    expected = local.score_batch(conversations())
    scored = {i: score for i, score in enumerate(results) if not isinstance(score, BaseException)}
    assert len(scored) >= N_CALLS - 8
    assert scored == pytest.approx({i: expected[i] for i in scored}, abs=CLOSE)
    assert len(engine.batches) <= 3
    assert sum(engine.batches) >= len(scored)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)
