"""The client of all servers: addresses, keys, patience, loops."""

from __future__ import annotations

import asyncio
import logging
import time
from email.utils import formatdate

import fault_proxy
import pytest
from fault_proxy import proxy
from server_process import ServerProcess

from reward_hub.errors import ServerError
from reward_hub.http.client import HttpClient, parse_json, server_root
from reward_hub.loops import in_order

BODY = {"prompt": "a", "response": "b"}


@pytest.mark.parametrize("base", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"])
def test_a_trailing_v1_is_dropped(base: str) -> None:
    assert server_root(base) == "http://h:1"


def test_a_path_before_v1_stays() -> None:
    assert server_root("https://h/models/rm/v1") == "https://h/models/rm"


@pytest.mark.parametrize("base", ["localhost:8000", "ftp://h", "http://", ""])
def test_no_http_address_is_refused(base: str) -> None:
    with pytest.raises(ServerError, match="write http"):
        server_root(base)


@pytest.mark.parametrize("body", [b'{"a": NaN}', b"[1, Infinity]", b"[-Infinity]", b"[1e400]"])
def test_json_without_finite_numbers_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"NaN|Infinity|1e400"):
        parse_json(body)


def test_a_key_that_no_header_can_carry_is_refused_without_showing_it() -> None:
    with pytest.raises(ServerError) as caught:
        HttpClient("http://h", api_key="topsecret\n")
    assert "topsecret" not in str(caught.value)


async def test_neither_key_nor_password_is_shown_or_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="reward_hub")  # a command run before may have set its own level
    client = HttpClient("http://user:password@127.0.0.1:9", api_key="topsecret", max_retries=1, first_delay_s=0.01)
    with pytest.raises(ServerError) as caught:
        await client.post("/v1/score", BODY)
    client.close()
    shown = f"{client!r} {caught.value} {caplog.text}"
    assert "attempt 2 of 2" in shown
    assert "topsecret" not in shown and "password" not in shown


@pytest.mark.parametrize("asked", ["0.4", "date"])
async def test_retry_after_is_honoured(known_server: ServerProcess, asked: str) -> None:
    # A date has whole seconds, so that it may ask for little less than one.
    header = formatdate(time.time() + 1.5, usegmt=True) if asked == "date" else asked
    with proxy(known_server.address, fault_proxy.status(429, retry_after=header)) as server:
        client = HttpClient(server.address, first_delay_s=0.01)
        start = time.monotonic()
        await client.post("/v1/score", BODY)
        client.close()
    assert time.monotonic() - start >= 0.4


async def test_a_server_that_asks_for_an_hour_is_not_waited_for(known_server: ServerProcess) -> None:
    with proxy(known_server.address, fault_proxy.status(503, retry_after="3600"), for_ever=True) as server:
        client = HttpClient(server.address)
        with pytest.raises(ServerError) as caught:
            await client.post("/v1/score", BODY)
        client.close()
        assert (caught.value.status, server.n_posts) == (503, 1)


async def test_what_is_not_retryable_is_not_tried_again(known_server: ServerProcess) -> None:
    with proxy(known_server.address, fault_proxy.status(403), for_ever=True) as server:
        client = HttpClient(server.address)
        with pytest.raises(ServerError, match="403"):
            await client.post("/v1/score", BODY)
        client.close()
        assert server.n_posts == 1


async def test_no_more_requests_are_under_way_than_allowed(known_server: ServerProcess) -> None:
    under_way = most = 0

    def counted(exchange: fault_proxy.Exchange) -> bool:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        time.sleep(0.05)
        under_way -= 1
        return False

    with proxy(known_server.address, counted, for_ever=True) as server:
        client = HttpClient(server.address, max_concurrency=3)
        await in_order([client.post("/v1/score", BODY) for _ in range(12)])
        client.close()
    assert most <= 3


def test_one_client_works_in_one_loop_after_another(known_server: ServerProcess) -> None:
    client = HttpClient(known_server.address)
    for _ in range(3):
        assert asyncio.run(client.get("/health"))["status"] == "ok"
    client.close()


async def test_the_first_failure_cancels_the_others() -> None:
    ended: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(5)
        finally:
            ended.append("slow")

    async def bad() -> None:
        raise ServerError("no")

    with pytest.raises(ServerError):
        await in_order([slow(), bad()])
    assert ended == ["slow"]
