"""Whatever a server of others does: the right scores in order, or a ServerError, never a wrong number."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import fault_proxy
import pytest
from fault_proxy import Fault, proxy
from golden_sets import GoldenModels, GoldenSet
from local_servers import LocalServer, Sent, VllmLike, local_server

from reward_hub import AutoRM, BaseRM, ServerError
from reward_hub.errors import ServerTimeoutError

SEQCLS = GoldenSet("seqcls-qwen2", "own")
CLOSE = 2e-5


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back off in hundredths of seconds: only the clock is another."""
    monkeypatch.setattr("reward_hub.http.sending.delay_s", lambda n, after, first_delay_s: after or 0.02 * 2.0**n)


@pytest.fixture(scope="module")
def batch() -> list[Any]:
    """Five hundred conversations, no two alike."""
    return [
        [{"role": "user", "content": f"What is {i} plus {i % 7}?"}, {"role": "assistant", "content": f"It is {i * 3}."}]
        for i in range(500)
    ]


@pytest.fixture(scope="module")
def expected(golden_models: GoldenModels, batch: list[Any]) -> list[float]:
    return golden_models.load(SEQCLS).score_batch(batch)


@pytest.fixture
def through(golden_models: GoldenModels) -> Iterator[Callable[..., BaseRM]]:
    """`through(fault, ...)`: a model that is connected to, and then meets these faults, one a request."""
    with ExitStack() as stack:

        def start(*faults: Fault, for_ever: bool = False, task: str = "classify", **options: Any) -> BaseRM:
            server = stack.enter_context(local_server(VllmLike(golden_models.load(SEQCLS), task)))
            between = stack.enter_context(proxy(server.address))
            checkpoint = golden_models.checkpoint(SEQCLS)
            options = {"max_retries": 3, "checkpoint": checkpoint, **options}
            rm = AutoRM.load("rm", "api", api_base=between.address, **options)
            stack.callback(rm.close)
            between.faults, between.for_ever = list(faults), for_ever
            return rm

        yield start


def changed(change: Callable[[list[Any]], Any]) -> Fault:
    return fault_proxy.changed(lambda reply: change(reply["data"]))


PASSING = {
    "429": fault_proxy.status(429, retry_after="0.01"),
    "503": fault_proxy.status(503),
    "hung up": fault_proxy.hung_up,
    "cut off": fault_proxy.cut_off,
    "truncated JSON": fault_proxy.truncated,
    "slow": fault_proxy.slow(1.5),
}


def patience_s(name: str) -> float:
    """Short where the fault is slowness itself; elsewhere a busy machine must not make a timeout of another fault."""
    return 1.0 if name == "slow" else 20.0


@pytest.mark.parametrize("name", PASSING)
def test_what_passes_is_tried_again(through: Any, batch: list[Any], expected: list[float], name: str) -> None:
    rm = through(PASSING[name], timeout_s=patience_s(name))
    assert rm.score_batch(batch[:40]) == pytest.approx(expected[:40], abs=CLOSE)


@pytest.mark.parametrize("name", PASSING)
def test_what_does_not_pass_is_an_error(through: Any, batch: list[Any], name: str) -> None:
    rm = through(PASSING[name], for_ever=True, timeout_s=patience_s(name), max_retries=1)
    with pytest.raises(ServerError) as caught:
        rm.score_batch(batch[:2])
    assert caught.value.retryable
    assert isinstance(caught.value, ServerTimeoutError) == (name == "slow")


def test_a_storm_of_429_ends_in_all_scores_in_order(through: Any, batch: list[Any], expected: list[float]) -> None:
    rm = through(*[fault_proxy.status(429, retry_after="0.05")] * 60, max_retries=12)
    assert rm.score_batch(batch) == pytest.approx(expected, abs=CLOSE)


REFUSED = [400, 401, 403, 404, 422, 424]


@pytest.mark.parametrize("status", REFUSED)
def test_refusals_are_not_tried_again(through: Any, batch: list[Any], status: int) -> None:
    rm = through(fault_proxy.status(status))
    with pytest.raises(ServerError) as caught:
        rm.score(batch[0])
    assert (caught.value.status, caught.value.retryable) == (status, False)


def base64_of(*values: float) -> str:
    import base64
    import struct

    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


def set_value(value: Any) -> Fault:
    return changed(lambda data: data[0].update(data=value))


def duplicate(data: list[Any]) -> None:
    data[1]["index"] = 0


def other_count(reply: Any) -> None:
    reply["usage"]["prompt_tokens"] += 1


LYING = {
    "NaN": (set_value(base64_of(float("nan"))), "NaN"),
    "infinity": (set_value(base64_of(float("inf"))), "infinity"),
    "NaN as JSON": (set_value([float("nan")]), "NaN"),
    "one result less": (changed(lambda data: data.pop()), "2 results for 3"),
    "one result more": (changed(lambda data: data.append(dict(data[0]))), "4 results for 3"),
    "no result": (changed(lambda data: data.clear()), "0 results"),
    "two of one place": (changed(duplicate), "places"),
    "two numbers for one": (set_value([0.5, 0.5]), r"shape \[2\]"),
    "no number": (set_value([]), "shape"),
    "nothing": (set_value(None), "cannot be read"),
    "a number as text": (set_value(["0.5"]), "cannot be read"),
    "a text": (set_value("no base64!"), "cannot be read"),
    "half a float": (set_value("AAA="), "cannot be read"),
    "a word": (set_value(["x"]), "cannot be read"),
    "other tokens": (fault_proxy.changed(other_count), "tokenises for itself"),
    "a list": (lambda exchange: setattr(exchange, "body", b"[]"), "no list 'data'"),
    "a page": (lambda exchange: setattr(exchange, "body", b"<html>"), "not JSON"),
}


@pytest.mark.parametrize("name", LYING)
def test_an_unusable_reply_is_an_error(through: Any, batch: list[Any], expected: list[float], name: str) -> None:
    fault, words = LYING[name]
    rm = through(fault, max_retries=0)
    with pytest.raises(ServerError, match=words):
        rm.score_batch(batch[:3])
    assert rm.score_batch(batch[:3]) == pytest.approx(expected[:3], abs=CLOSE)


def test_results_in_disorder_are_put_in_order(through: Any, batch: list[Any], expected: list[float]) -> None:
    rm = through(changed(lambda data: data.reverse()), for_ever=True)
    assert rm.score_batch(batch[:40]) == pytest.approx(expected[:40], abs=CLOSE)


def test_hidden_vectors_of_a_wrong_length_are_an_error(through: Any, batch: list[Any]) -> None:
    rm = through(set_value(base64_of(1.0, 2.0)), task="embed")
    with pytest.raises(ServerError, match="shape"):
        rm.score_batch(batch[:3])


def test_a_failed_request_is_the_failure_of_its_conversations_alone(
    through: Any, batch: list[Any], expected: list[float]
) -> None:
    rm = through(fault_proxy.status(400), fault_proxy.status(400), max_retries=0, max_concurrency=1)
    scores = rm.score_batch(batch[:40], on_error="none")
    assert scores[0] is None, "the second fault met the first conversation when it was read again alone"
    assert scores[1:] == pytest.approx(expected[1:40], abs=CLOSE)


# -- a server that dies ------------------------------------------------------------------------------------------------


class Mortal:
    """A server that dies when it has answered so many requests, and can be started again at the same address."""

    def __init__(self, answers: Any) -> None:
        self.answers = answers
        self.left: int | None = None
        self.dead = threading.Event()
        self.server = self._start(0)
        self.port = self.server.server_port

    def _start(self, port: int) -> LocalServer:
        server = LocalServer(self._answer, port)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return server

    def _answer(self, sent: Sent) -> Any:
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                threading.Thread(target=self.kill).start()
            if self.left <= 0:
                raise ConnectionAbortedError
        return self.answers(sent)

    def kill(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.dead.set()

    def restart(self) -> None:
        self.dead.wait()
        time.sleep(0.3)
        self.left = None
        self.server = self._start(self.port)


def mortal_and_model(golden_models: GoldenModels, **options: Any) -> tuple[Mortal, BaseRM]:
    """A server that dies after twenty requests of the batch, and the model over it."""
    mortal = Mortal(VllmLike(golden_models.load(SEQCLS), "classify"))
    address = mortal.server.address
    rm = AutoRM.load("rm", "api", api_base=address, checkpoint=golden_models.checkpoint(SEQCLS), **options)
    mortal.left = 20
    return mortal, rm


def test_a_server_killed_in_the_middle_of_a_batch_is_an_error(golden_models: GoldenModels, batch: list[Any]) -> None:
    mortal, rm = mortal_and_model(golden_models, max_retries=1)
    with pytest.raises(ServerError) as caught:
        rm.score_batch(batch)
    assert caught.value.retryable
    mortal.dead.wait()
    started = time.monotonic()
    assert rm.score_batch(batch, on_error="none") == [None] * 500
    assert time.monotonic() - started < 20, "the others do not wait each for itself"
    rm.close()


def test_a_server_restarted_in_time_gives_all_scores_in_order(
    golden_models: GoldenModels, batch: list[Any], expected: list[float]
) -> None:
    mortal, rm = mortal_and_model(golden_models, max_retries=12)
    restarter = threading.Thread(target=mortal.restart)
    restarter.start()
    assert rm.score_batch(batch) == pytest.approx(expected, abs=CLOSE)
    restarter.join()
    rm.close()
    mortal.kill()
