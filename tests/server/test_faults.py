"""Whatever a server does, a RemoteRM gives the right scores or the right error, never a wrong number."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import fault_proxy
import pytest
from fault_proxy import Fault, proxy
from served_models import score_of
from server_process import ServerProcess, Start, known_command

from reward_hub.errors import ServerError, ServerTimeoutError
from reward_hub.models.remote_rm import REQUEST_SIZE, RemoteRM, connect

Connect = Callable[..., RemoteRM]


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back off in hundredths of seconds: only the clock is another."""
    monkeypatch.setattr("reward_hub.http.sending.delay_s", lambda n, after, first_delay_s: after or 0.02 * 2.0**n)


@pytest.fixture
def through(known_server: ServerProcess) -> Iterator[Connect]:
    """`through(fault, ...)`: a RemoteRM whose requests meet these faults, one each."""
    with ExitStack() as stack:

        def start(*faults: Fault, for_ever: bool = False, **options: Any) -> RemoteRM:
            server = stack.enter_context(proxy(known_server.address, *faults, for_ever=for_ever))
            rm = connect(server.address, **{"max_retries": 3, **options})
            stack.callback(rm.close)
            return rm

        yield start


def user_and(response: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": "hello"}, {"role": "assistant", "content": response}]


PASSING = {
    "429": fault_proxy.status(429, retry_after="0.01"),
    "429 without a time": fault_proxy.status(429),
    "500": fault_proxy.status(500),
    "503": fault_proxy.status(503, retry_after="0"),
    "hung up": fault_proxy.hung_up,
    "cut off": fault_proxy.cut_off,
    "truncated": fault_proxy.truncated,
    "slow": fault_proxy.slow(1.0),
    "dripping": fault_proxy.dripping(0.1),
}


def patience_s(name: str) -> float:
    """Short where the fault is slowness itself; elsewhere a busy machine must not make a timeout of another fault."""
    return 0.5 if name in ("slow", "dripping") else 20.0


@pytest.mark.parametrize("name", PASSING)
def test_what_passes_is_tried_again(through: Connect, name: str) -> None:
    rm = through(PASSING[name], PASSING[name], timeout_s=patience_s(name))
    assert rm.score(user_and("one")) == score_of("one")


@pytest.mark.parametrize("name", PASSING)
def test_what_does_not_pass_is_an_error(through: Connect, name: str) -> None:
    rm = through(PASSING[name], for_ever=True, timeout_s=patience_s(name), max_retries=1)
    with pytest.raises(ServerError, match=r"\(2 attempts\.\)") as caught:
        rm.score(user_and("one"))
    assert caught.value.retryable
    assert isinstance(caught.value, ServerTimeoutError) == (name in ("slow", "dripping"))


def test_a_storm_of_429_ends_in_all_scores_in_order(through: Connect) -> None:
    storm = [fault_proxy.status(429, retry_after="0.05")] * 40
    rm = through(*storm, max_retries=12)
    texts = [f"text {i}" for i in range(500)]
    assert rm.score_batch([user_and(text) for text in texts]) == [score_of(text) for text in texts]


def test_any_mixture_of_faults_ends_in_all_scores_in_order(through: Connect) -> None:
    chosen = random.Random(0).choices([fault for name, fault in PASSING.items() if name != "dripping"], k=30)
    rm = through(*chosen, max_retries=12, timeout_s=0.9)
    texts = [f"text {i}" for i in range(300)]
    assert rm.score_batch([user_and(text) for text in texts], batch_size=8) == [score_of(text) for text in texts]


SCORE = str(score_of("one"))


def drop(reply: Any) -> None:
    reply["data"].pop()


def repeat(reply: Any) -> None:
    reply["data"].append(dict(reply["data"][0]))


def swap(reply: Any) -> None:
    reply["data"].reverse()


def other_model(reply: Any) -> None:
    reply["fingerprint"] = "other"


def no_details(reply: Any) -> None:
    del reply["data"][0]["details"]


def no_number(reply: Any) -> None:
    reply["data"][0]["score"] = "1.5"


def nothing(reply: Any) -> None:
    reply["data"][0]["score"] = None


def raw_nan(reply: Any) -> None:
    reply["data"][0]["details"]["raw_logits"] = [float("nan")]


LYING = {
    "NaN": (fault_proxy.text(f'"score":{SCORE}', '"score":NaN'), "NaN"),
    "Infinity": (fault_proxy.text(f'"score":{SCORE}', '"score":-Infinity'), "Infinity"),
    "a float too large": (fault_proxy.text(f'"score":{SCORE}', '"score":1e999'), "1e999"),
    "NaN in the details": (fault_proxy.changed(raw_nan), "NaN"),
    "one result less": (fault_proxy.changed(drop), "1 results for 2"),
    "one result more": (fault_proxy.changed(repeat), "3 results for 2"),
    "results in disorder": (fault_proxy.changed(swap), "disorder"),
    "another model": (fault_proxy.changed(other_model), "another model"),
    "no details": (fault_proxy.changed(no_details), "details missing"),
    "a text for a number": (fault_proxy.changed(no_number), "another form"),
    "no score and no error": (fault_proxy.changed(nothing), "score None"),
    "a list": (lambda exchange: setattr(exchange, "body", b"[]"), "another form"),
    "an empty body": (lambda exchange: setattr(exchange, "body", b""), "not JSON"),
    "a redirect": (fault_proxy.status(307, location="http://127.0.0.1:9/"), "points to"),
    "a page": (fault_proxy.status(404), "404"),
}


@pytest.mark.parametrize("name", LYING)
def test_an_unusable_reply_is_an_error(through: Connect, name: str) -> None:
    fault, words = LYING[name]
    rm = through(fault, max_retries=0)
    with pytest.raises(ServerError, match=words):
        rm.score([user_and("one"), user_and("two")])
    assert rm.score([user_and("one"), user_and("two")]) == [score_of("one"), score_of("two")]


def test_a_lost_request_is_the_failure_of_its_conversations_alone(through: Connect) -> None:
    rm = through(fault_proxy.status(500), max_retries=0, max_concurrency=1)
    texts = [f"text {i}" for i in range(50)]
    scores = rm.score_batch([user_and(text) for text in texts], on_error="none")
    assert scores == [None] * REQUEST_SIZE + [score_of(text) for text in texts[REQUEST_SIZE:]]


def test_step_scores_of_a_wrong_length_are_an_error(prm_server: ServerProcess) -> None:
    def shorten(reply: Any) -> None:
        reply["data"][0]["details"]["step_scores"].pop()

    with (
        proxy(prm_server.address, fault_proxy.changed(shorten)) as server,
        connect(server.address) as rm,
        pytest.raises(ServerError, match="1 step scores for 2 steps"),
    ):
        rm.score_steps(prompt="2 + 2?", response="2 + 2 = 4\n\nSo 4.")


# -- a server that dies ------------------------------------------------------------------------------------------------

FIVE_HUNDRED = [f"sleep 0.002 {i}" for i in range(500)]


def test_a_server_killed_in_the_middle_of_a_batch_is_an_error(serve_known: Start) -> None:
    server = serve_known()
    with connect(server.address, max_retries=1) as rm:
        killer = threading.Timer(0.3, server.kill)
        killer.start()
        with pytest.raises(ServerError) as caught:
            rm.score_batch([user_and(text) for text in FIVE_HUNDRED])
        killer.join()
    assert caught.value.retryable


def test_a_server_restarted_in_time_gives_all_scores_in_order(serve_known: Start) -> None:
    server = serve_known()
    port = int(server.address.rsplit(":", 1)[1])
    again: list[ServerProcess] = []

    def restart() -> None:
        time.sleep(0.3)
        server.kill()
        again.append(ServerProcess(known_command(port=port)).start())

    with connect(server.address, max_retries=10) as rm:
        restarter = threading.Thread(target=restart)
        restarter.start()
        scores = rm.score_batch([user_and(text) for text in FIVE_HUNDRED])
        restarter.join()
        again[0].kill()
    assert scores == [score_of(text) for text in FIVE_HUNDRED]


def test_another_model_at_the_same_address_is_noticed(serve_known: Start) -> None:
    server = serve_known()
    port = int(server.address.rsplit(":", 1)[1])
    with connect(server.address, max_retries=10) as rm:
        assert rm.score(user_and("one")) == score_of("one")
        server.kill()
        other = serve_known(rm="batched", port=port)
        with pytest.raises(ServerError, match="now serves another model"):
            rm.score(user_and("one"))
        other.kill()
