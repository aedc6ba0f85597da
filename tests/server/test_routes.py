"""Our own routes as any HTTP client sees them."""

from __future__ import annotations

import base64
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from served_models import score_of
from server_process import ServerProcess, Start

from reward_hub.base import BaseRM
from reward_hub.models.remote_rm import connect


def user_and(response: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": "hello"}, {"role": "assistant", "content": response}]


@pytest.fixture
def http(known_server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=known_server.address, timeout=30) as client:
        yield client


@pytest.fixture
def orm_http(orm_server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=orm_server.address, timeout=30) as client:
        yield client


def test_score_of_one_conversation_and_of_several(http: httpx.Client) -> None:
    one = http.post("/v1/score", json={"prompt": "hello", "response": "one"}).json()
    assert one["data"] == [{"index": 0, "score": score_of("one")}]
    several = http.post("/v1/score", json={"messages": [user_and("one"), user_and("two")], "model": "known"}).json()
    assert [item["score"] for item in several["data"]] == [score_of("one"), score_of("two")]
    assert one["fingerprint"] == several["fingerprint"]


def test_floats_cross_without_loss(orm_http: httpx.Client, orm: BaseRM) -> None:
    body = {"messages": user_and("1 + 1 = 2"), "return_details": True}
    item = orm_http.post("/v1/score", json=body).json()["data"][0]
    assert (item["score"], item["details"]) == orm.score(user_and("1 + 1 = 2"), return_details=True)


def test_compare_and_rank(orm_http: httpx.Client, orm: BaseRM) -> None:
    pair = {"prompt": "1 + 1?", "a": "1 + 1 = 2", "b": "1 + 1 = 3"}
    one = orm_http.post("/v1/compare", json=pair).json()["data"]
    assert one == [{"index": 0, "probability": pytest.approx(orm.compare(**pair), rel=1e-5)}]
    many = orm_http.post("/v1/compare", json={"pairs": [pair, pair]}).json()["data"]
    assert [item["index"] for item in many] == [0, 1]
    ranked = orm_http.post("/v1/rank", json={"prompt": "1 + 1?", "responses": [pair["b"], pair["a"]]}).json()
    assert (ranked["ranking"], ranked["best"], len(ranked["scores"])) == ([1, 0], 1, 2)


def test_steps(prm_server: ServerProcess, prm: BaseRM) -> None:
    text = {"prompt": "1 + 1?", "response": "1 + 1 = 2\n\nSo 2."}
    with httpx.Client(base_url=prm_server.address, timeout=30) as http:
        one = http.post("/v1/score_steps", json=text).json()["data"][0]
        many = http.post("/v1/score_steps", json={"items": [text, {**text, "step_delimiter": " "}]}).json()["data"]
        total = http.post("/v1/score", json={**text, "aggregation": "min"}).json()["data"][0]["score"]
        refused = http.post("/classify", json={"messages": user_and("x")}).json()["error"]
    assert one["step_scores"] == prm.score_steps(**text)
    assert [len(item["step_scores"]) for item in many] == [2, 6]
    assert total == pytest.approx(min(one["step_scores"]), rel=1e-5)
    assert refused["type"] == "UnsupportedError" and "/v1/score_steps" in refused["message"]


BAD = {
    "no JSON": ("/v1/score", b"{", 400, "InvalidConversationError", "body"),
    "nothing": ("/v1/score", {}, 400, "InvalidConversationError", "prompt"),
    "a role": ("/v1/score", {"messages": user_and("x")[:1]}, 400, "InvalidConversationError", "messages[0].role"),
    "a misspelt field": ("/v1/score", {"mesages": []}, 400, "InvalidConversationError", "mesages"),
    "a surrogate": ("/v1/score", b'{"prompt":"a","response":"\\ud800"}', 400, "InvalidConversationError", None),
    "on_error": ("/v1/score", {"on_error": "skip"}, 400, "InvalidConversationError", "on_error"),
    "another model": ("/v1/score", {"model": "gpt", "messages": user_and("x")}, 404, "UnknownModelError", None),
    "an aggregation": ("/v1/score", {"aggregation": "min"}, 400, "UnsupportedError", None),
    "steps": ("/v1/score_steps", {"prompt": "a", "response": "b"}, 400, "UnsupportedError", None),
    "no pair": ("/v1/compare", {"prompt": "a", "a": "b"}, 400, "InvalidConversationError", "b"),
    "no responses": ("/v1/rank", {"prompt": "a", "responses": []}, 400, "InvalidConversationError", "responses"),
    "too long": ("/v1/score", {"prompt": "a", "response": "long"}, 400, "InputTooLongError", None),
    "NaN": ("/v1/score", {"prompt": "a", "response": "nan"}, 500, "BackendError", None),
    "no route": ("/v1/rate", {}, 404, "ServerError", None),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_every_failure_is_a_json_body_with_our_error(http: httpx.Client, name: str) -> None:
    path, body, status, kind, field = BAD[name]
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = http.post(path, content=content, headers={"content-type": "application/json"})
    error = reply.json()["error"]
    assert (reply.status_code, error["type"], error["code"]) == (status, kind, status)
    assert field is None or error["field"] == field
    assert error["message"] and error["request_id"] == reply.headers["x-request-id"]


def test_another_content_type_is_told_which_one_is_wanted(http: httpx.Client) -> None:
    reply = http.post("/v1/score", content=b'{"prompt":"a","response":"b"}', headers={"content-type": "text/plain"})
    assert reply.status_code == 400 and "application/json" in reply.json()["error"]["message"]


def test_errors_carry_their_fields(http: httpx.Client) -> None:
    error = http.post("/v1/score", json={"messages": [user_and("x"), user_and("long")]}).json()["error"]
    assert (error["n_tokens"], error["max_length"], error["index"]) == (9000, 512, 1)
    reply = http.post("/v1/score", json={"messages": [user_and("one"), user_and("fail")], "on_error": "none"})
    assert reply.status_code == 200
    assert [item["score"] for item in reply.json()["data"]] == [score_of("one"), None]
    assert reply.json()["data"][1]["error"]["type"] == "BackendError"


def test_the_server_tells_of_itself(http: httpx.Client) -> None:
    entry = http.get("/v1/models").json()["data"][0]
    assert (entry["id"], entry["owned_by"], entry["reward_hub"]["kind"]) == ("known", "reward_hub", "outcome")
    assert http.get("/health").json()["server"] == "reward_hub"
    assert http.get("/ready").json()["status"] == "ready"
    paths = http.get("/openapi.json").json()["paths"]
    assert {"/v1/score", "/v1/score_steps", "/v1/compare", "/v1/rank", "/classify", "/predict"} <= set(paths)
    assert http.get("/docs").status_code == 200
    assert http.get("/v1/score").status_code == 405


def test_a_request_id_is_given_back(http: httpx.Client) -> None:
    reply = http.post("/v1/score", json={"prompt": "a", "response": "b"}, headers={"x-request-id": "abc-1"})
    assert reply.headers["x-request-id"] == reply.json()["id"] == "abc-1"
    odd = http.get("/health", headers={"x-request-id": "a b"}).headers["x-request-id"]
    assert odd != "a b"


def test_a_port_that_is_taken_is_refused_before_a_model_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "reward_hub", "serve", "./no-such-model", "--port", port]
        ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "Address already in use" in ended.stderr
    assert port in ended.stderr
    assert "no-such-model" not in ended.stderr


def test_metrics_count(serve_known: Start) -> None:
    with httpx.Client(base_url=serve_known().address) as http:
        http.post("/v1/score", json={"messages": [user_and("one"), user_and("fail")], "on_error": "none"})
        http.get("/made/up/by/a/client")
        page = http.get("/metrics").text
    assert 'reward_hub_requests_total{route="/v1/score",status="200"} 1.0' in page
    assert 'reward_hub_results_total{outcome="error"} 1.0' in page
    assert 'route="other",status="404"' in page and "made" not in page
    assert "reward_hub_batch_size_count 1.0" in page and "reward_hub_queue_length 0.0" in page


# -- who may ask, and how much -----------------------------------------------------------------------------------------


def test_every_route_but_health_asks_for_the_key(serve_known: Start) -> None:
    server = serve_known(api_key="s3cret")
    with httpx.Client(base_url=server.address) as http:
        described = http.get("/openapi.json", headers={"authorization": "Bearer s3cret"}).json()["paths"]
        routes = [(method.upper(), path) for path, methods in described.items() for method in methods]
        assert len(routes) >= 12
        for method, path in [*routes, ("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/nowhere")]:
            for header in ({}, {"authorization": "Bearer s3cre"}, {"authorization": "s3cret"}):
                wanted = 200 if path == "/health" else 401
                assert http.request(method, path, headers=header).status_code == wanted, path
        assert http.get("/ready", headers={"authorization": "bearer s3cret"}).status_code == 200
        # What clients make of http://any:s3cret@host, for those that have no place for a key (OpenRLHF).
        basic = base64.b64encode(b"any:s3cret").decode()
        assert http.get("/ready", headers={"authorization": f"Basic {basic}"}).status_code == 200
        assert http.get("/ready", headers={"authorization": "Basic ?"}).status_code == 401
    with connect(server.address, api_key="s3cret") as rm:
        assert rm.score(user_and("one")) == score_of("one")
    said = server.stop()[1]
    assert "s3cret" not in said


def test_a_wrong_key_is_said_and_not_tried_again(serve_known: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve_known(api_key="s3cret")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(Exception, match=r"401 \(no key was sent; give api_key="):
        connect(server.address)
    with pytest.raises(Exception, match=r"401 \(a key was sent") as caught:
        connect(server.address, api_key="wrong-key")
    assert "wrong-key" not in str(caught.value)
    monkeypatch.setenv("REWARD_HUB_API_KEY", "s3cret")
    connect(server.address).close()


def test_a_body_too_large_is_413(serve_known: Start) -> None:
    server = serve_known(max_body_bytes=2000)
    with httpx.Client(base_url=server.address) as http:
        large = http.post("/v1/score", json={"prompt": "a", "response": "x" * 3000})
        assert (large.status_code, large.json()["error"]["status"]) == (413, 413)
        parts = http.post("/v1/score", content=(b"x" * 500 for _ in range(10)))
        assert parts.status_code == 413
    with connect(server.address) as rm:
        # More than one body takes is sent as several.
        texts = [f"{i} " + "x" * 150 for i in range(20)]
        assert rm.score_batch([user_and(text) for text in texts]) == [score_of(text) for text in texts]


def test_more_than_may_wait_is_429_with_a_time(serve_known: Start) -> None:
    server = serve_known(max_queue=4, max_batch_size=1)
    replies: list[httpx.Response] = []

    def ask(i: int) -> None:
        replies.append(httpx.post(f"{server.address}/v1/score", json={"messages": user_and(f"sleep 0.3 {i}")}))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = [reply for reply in replies if reply.status_code == 429]
    assert {reply.status_code for reply in replies} == {200, 429}
    assert all(int(reply.headers["retry-after"]) >= 1 for reply in refused)
    assert refused[0].json()["error"]["retryable"] is True
    too_many = httpx.post(f"{server.address}/v1/score", json={"messages": [user_and("x")] * 5})
    assert too_many.status_code == 413


def test_a_client_with_patience_gets_all_scores_of_a_small_queue(serve_known: Start) -> None:
    server = serve_known(max_queue=40, rm="batched", max_batch_size=8)
    texts = [f"text {i}" for i in range(200)]
    with connect(server.address, max_retries=20) as rm:
        assert rm.score_batch([user_and(text) for text in texts]) == [score_of(text) for text in texts]


# -- batches -----------------------------------------------------------------------------------------------------------


def test_concurrent_requests_share_batches_and_a_bad_one_fails_alone(serve_known: Start) -> None:
    server = serve_known(rm="batched", max_wait_s=0.2)
    texts = [f"text {i}" for i in range(16)]
    texts[5], texts[11] = "fail five", "nan eleven"
    found: dict[str, httpx.Response] = {}

    def ask(text: str) -> None:
        found[text] = httpx.post(f"{server.address}/v1/score", json={"messages": user_and(text)}, timeout=30)

    threads = [threading.Thread(target=ask, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    good = [text for text in texts if text.startswith("text")]
    assert [found[text].json()["data"][0]["score"] for text in good] == [score_of(text) for text in good]
    assert {found["fail five"].status_code, found["nan eleven"].status_code} == {500}
    batches = float(httpx.get(f"{server.address}/metrics").text.split("reward_hub_batch_size_count ")[1].split()[0])
    assert batches < len(texts)


# -- the end -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGTERM])
def test_sigterm_lets_requests_end_and_exits_with_0(serve_known: Start, how: int) -> None:
    server = serve_known()
    replies: list[httpx.Response] = []

    def ask() -> None:
        replies.append(httpx.post(f"{server.address}/v1/score", json={"messages": user_and("sleep 1.5")}, timeout=30))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    assert server.process is not None
    server.process.send_signal(how)
    time.sleep(0.3)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.address}/health")
    for thread in threads:
        thread.join()
    assert [reply.json()["data"][0]["score"] for reply in replies] == [score_of("sleep 1.5")] * 3
    server.process.wait(timeout=30)  # the signal of `stop` would meet a process that is about to end
    assert server.stop()[0] == 0


def test_requests_that_outlast_the_drain_end_it_with_1(serve_known: Start) -> None:
    server = serve_known(drain_s=1)

    def ask() -> None:
        try:
            reply = httpx.post(f"{server.address}/v1/score", json={"messages": user_and("sleep 5")}, timeout=30)
        except httpx.TransportError:
            return
        assert reply.status_code == 500, reply.text

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.5)
    assert server.stop()[0] == 1
    thread.join()


def test_no_text_of_a_conversation_is_logged(serve_known: Start) -> None:
    server = serve_known()
    with httpx.Client(base_url=server.address) as http:
        for text in ("fail PRIVATE", "nan PRIVATE", "good PRIVATE"):
            http.post("/v1/score", json={"messages": user_and(text)})
        http.post("/v1/score", json={"messages": [{"role": "PRIVATE", "content": "PRIVATE"}]})
        http.post("/classify", json={"input": "PRIVATE"})
        http.get("/PRIVATE")
    assert "PRIVATE" not in server.stop()[1]


def test_a_large_body_below_the_limit_is_taken(known_server: ServerProcess) -> None:
    with connect(known_server.address) as rm:
        assert rm.score(user_and("x" * 20_000_000)) == score_of("x" * 20_000_000)
