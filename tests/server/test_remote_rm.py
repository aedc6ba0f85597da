"""RemoteRM gives what the model itself gives: values, details, errors."""

from __future__ import annotations

import asyncio
import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from served_models import score_of
from server_process import ServerProcess

from reward_hub.base import BaseRM
from reward_hub.errors import (
    BackendError,
    InputTooLongError,
    InvalidConversationError,
    ServerError,
    UnsupportedError,
)
from reward_hub.models.remote_rm import RemoteRM, connect

PROMPT = "Ann has 3 apples and buys 4 more. How many has she?"
RIGHT, WRONG = "3 + 4 = 7\n\nThe answer is 7.", "3 + 4 = 8\n\nThe answer is 8."
CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": PROMPT}], "name": "ann"},
    {"role": "assistant", "content": "Äpfel 🍎 \x00 \\n </s> <|im_end|>"},
]


def user_and(response: str, prompt: str = PROMPT) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


def close_to(expected: Any) -> Any:
    # Batch mates change the last bits of matrix products: the tolerance of `api.md`, "Independence".
    return pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_attributes_are_those_of_the_model(remote_orm: RemoteRM, orm: BaseRM) -> None:
    names = ("name", "family", "kind", "higher_is_better", "max_length", "step_delimiter", "fingerprint")
    assert {name: getattr(remote_orm, name) for name in names} == {name: getattr(orm, name) for name in names}


@pytest.mark.parametrize("messages", [user_and(RIGHT), user_and(""), CHAT])
def test_score_and_details_are_those_of_the_model(remote_orm: RemoteRM, orm: BaseRM, messages: Any) -> None:
    assert remote_orm.score(messages, return_details=True) == orm.score(messages, return_details=True)


def test_a_conversation_without_a_response_has_the_score_of_the_model(remote_orm: RemoteRM, orm: BaseRM) -> None:
    chats = [user_and(RIGHT)[:1], user_and(WRONG), [*user_and(RIGHT), {"role": "user", "content": "Thanks."}]]
    expected = orm.score_batch(chats, require_response=False)
    assert remote_orm.score_batch(chats, require_response=False) == close_to(expected)
    assert remote_orm.score(prompt=PROMPT, require_response=False) == close_to(expected[0])
    with pytest.raises(InvalidConversationError, match="conversation 0: the last message has role 'user'"):
        remote_orm.score_batch(chats)


def test_an_older_server_is_not_sent_a_conversation_without_a_response(remote_orm: RemoteRM) -> None:
    older = copy.copy(remote_orm)
    older.info = remote_orm.info.model_copy(update={"takes_any_ending": False})
    with pytest.raises(UnsupportedError, match="older reward-hub serve"):
        older.score(user_and(RIGHT)[:1], require_response=False)
    assert older.score(user_and(RIGHT), require_response=False) == close_to(remote_orm.score(user_and(RIGHT)))


async def test_the_route_takes_it_where_it_is_said(orm_server: ServerProcess, orm: BaseRM) -> None:
    body = {"messages": user_and(RIGHT)[:1]}
    async with httpx.AsyncClient(base_url=orm_server.address) as http:
        refused = await http.post("/v1/score", json=body)
        taken = await http.post("/v1/score", json={**body, "require_response": False})
    assert (refused.status_code, refused.json()["error"]["type"]) == (400, "InvalidConversationError")
    assert taken.json()["data"][0]["score"] == close_to(orm.score(user_and(RIGHT)[:1], require_response=False))


def test_a_batch_keeps_its_order_over_several_requests(remote_orm: RemoteRM, orm: BaseRM) -> None:
    batch = [user_and(f"3 + 4 = {i}") for i in range(70)]
    assert remote_orm.score_batch(batch) == close_to(orm.score_batch(batch))
    assert remote_orm.score_batch(batch[:5], batch_size=1) == close_to(orm.score_batch(batch[:5]))
    assert list(remote_orm.score_iter(iter(batch[:5]), window=2)) == close_to(orm.score_batch(batch[:5]))
    assert remote_orm.score_batch([]) == []


def test_compare_rank_and_best_of_n_are_those_of_the_model(remote_orm: RemoteRM, orm: BaseRM) -> None:
    pair: dict[str, Any] = {"prompt": PROMPT, "a": RIGHT, "b": WRONG, "return_details": True}
    assert remote_orm.compare(**pair) == orm.compare(**pair)
    responses = [WRONG, RIGHT, "", RIGHT]
    ours, details = remote_orm.rank(prompt=PROMPT, responses=responses, return_details=True)
    theirs, their_details = orm.rank(prompt=PROMPT, responses=responses, return_details=True)
    assert ours == theirs
    assert details["scores"] == close_to(their_details["scores"])
    assert remote_orm.best_of_n(prompt=PROMPT, responses=responses) == theirs[0]


async def test_the_async_forms_give_the_same(remote_orm: RemoteRM, orm: BaseRM) -> None:
    alone = [remote_orm.ascore(user_and(f"3 + 4 = {i}")) for i in range(40)]
    assert await asyncio.gather(*alone) == close_to(orm.score_batch([user_and(f"3 + 4 = {i}") for i in range(40)]))
    assert await remote_orm.acompare(prompt=PROMPT, a=RIGHT, b=WRONG) == orm.compare(prompt=PROMPT, a=RIGHT, b=WRONG)
    assert await remote_orm.arank(prompt=PROMPT, responses=[WRONG, RIGHT]) == [1, 0]


async def test_the_sync_forms_work_inside_a_running_loop(remote_orm: RemoteRM, orm: BaseRM) -> None:
    assert remote_orm.score(prompt=PROMPT, response=RIGHT) == orm.score(prompt=PROMPT, response=RIGHT)


def test_one_object_serves_several_loops_and_threads(remote_orm: RemoteRM, orm: BaseRM) -> None:
    wanted = orm.score(prompt=PROMPT, response=RIGHT)

    async def once() -> Any:
        return await remote_orm.ascore(user_and(RIGHT))

    assert [asyncio.run(once()) for _ in range(2)] == close_to([wanted] * 2)
    with ThreadPoolExecutor(8) as pool:
        scores = list(pool.map(lambda _: remote_orm.score(user_and(RIGHT)), range(24)))
    assert scores == close_to([wanted] * 24)


def test_an_outcome_model_has_no_step_scores(remote_orm: RemoteRM) -> None:
    with pytest.raises(UnsupportedError, match="outcome"):
        remote_orm.score_steps(prompt=PROMPT, response=RIGHT)


def test_too_long_says_by_how_much(remote_orm: RemoteRM) -> None:
    with pytest.raises(InputTooLongError) as caught:
        remote_orm.score_batch([user_and(RIGHT), user_and("seven " * 6000)])
    assert (caught.value.index, caught.value.max_length) == (1, remote_orm.max_length)
    assert caught.value.n_tokens > caught.value.max_length


# -- process models ----------------------------------------------------------------------------------------------------

STEPS = [
    {"prompt": PROMPT, "response": RIGHT},
    {"prompt": PROMPT, "response": "3 + 4 = 7##So 7.##  ", "step_delimiter": "##"},
    {"prompt": PROMPT, "steps": ["3 + 4 = 7", "", "\n\nSo 7."]},
    {"messages": user_and("a  b\n\nc"), "steps": ["a", "b", "c"]},
]


@pytest.mark.parametrize("item", STEPS)
def test_step_scores_and_spans_are_those_of_the_model(remote_prm: RemoteRM, prm: BaseRM, item: Any) -> None:
    assert remote_prm.score_steps(**item, return_details=True) == prm.score_steps(**item, return_details=True)


def test_a_batch_of_steps_keeps_its_order(remote_prm: RemoteRM, prm: BaseRM) -> None:
    ours, theirs = (rm.score_steps_batch(STEPS) for rm in (remote_prm, prm))
    assert [len(steps) for steps in ours] == [len(steps) for steps in theirs]
    for got, wanted in zip(ours, theirs, strict=True):
        assert got == close_to(wanted)


def test_a_ranking_splits_where_it_is_told(remote_prm: RemoteRM, prm: BaseRM, prm_server: ServerProcess) -> None:
    asked: dict[str, Any] = {"prompt": PROMPT, "responses": ["3 + 4 = 7##So 8.", "3 + 4 = 8##So 7.", "7"]}
    asked["step_delimiter"] = "##"
    _, wanted = prm.rank(**asked, return_details=True)
    _, found = remote_prm.rank(**asked, return_details=True)
    assert found["scores"] == close_to(wanted["scores"])
    reply = httpx.post(f"{prm_server.address}/v1/rank", json=asked).json()
    assert reply["scores"] == close_to(wanted["scores"])


@pytest.mark.parametrize("how", [None, "min", "last", "mean", "model", "prod"])
def test_a_process_model_aggregates_as_it_does_itself(remote_prm: RemoteRM, prm: BaseRM, how: str | None) -> None:
    options: dict[str, Any] = {"aggregation": how, "return_details": True}
    assert remote_prm.score(user_and(RIGHT), **options) == prm.score(user_and(RIGHT), **options)
    assert remote_prm.score(user_and(RIGHT), return_full_prm_result=True).step_scores == prm.score_steps(
        user_and(RIGHT)
    )


def test_an_aggregation_given_when_connecting_is_used_and_shown(prm_server: ServerProcess, prm: BaseRM) -> None:
    with connect(prm_server.address, aggregation="last") as rm:
        assert rm.score(user_and(RIGHT)) == prm.score(user_and(RIGHT), aggregation="last")
        assert rm.fingerprint != prm.fingerprint


async def test_async_steps_and_comparisons_of_a_process_model(remote_prm: RemoteRM, prm: BaseRM) -> None:
    assert await remote_prm.ascore_steps(**STEPS[0]) == prm.score_steps(**STEPS[0])
    assert remote_prm.compare(prompt=PROMPT, a=RIGHT, b=WRONG) == prm.compare(prompt=PROMPT, a=RIGHT, b=WRONG)


# -- failures ----------------------------------------------------------------------------------------------------------


def test_a_bad_item_fails_alone_with_its_place(remote_known: RemoteRM) -> None:
    texts = ["one", "fail two", "nan three", "four", "long five"]
    results = remote_known.score_batch([user_and(text) for text in texts], on_error="none", return_details=True)
    assert [score for score, _ in results] == [score_of("one"), None, None, score_of("four"), None]
    kinds = [details.get("error", {}).get("type") for _, details in results]
    assert kinds == [None, "BackendError", "BackendError", None, "InputTooLongError"]


def test_the_first_failure_raises_with_its_place(remote_known: RemoteRM) -> None:
    batch = [user_and(f"text {i}") for i in range(40)]
    batch[37] = user_and("fail here")
    with pytest.raises(BackendError, match="conversation 37: RuntimeError: cannot score here"):
        remote_known.score_batch(batch)
    with pytest.raises(InputTooLongError) as caught:
        remote_known.score(user_and("long"))
    assert (caught.value.index, caught.value.n_tokens) == (None, 9000)


def test_what_is_invalid_is_refused_without_asking_the_server(remote_known: RemoteRM) -> None:
    with pytest.raises(InvalidConversationError):
        remote_known.score([{"role": "user", "content": "hello"}])


def test_connecting_says_what_is_wrong(known_server: ServerProcess) -> None:
    with pytest.raises(ServerError, match="serves 'known', not 'other'"):
        connect(known_server.address, "other", max_retries=0)
    with pytest.raises(ServerError, match="no connection"):
        connect("http://127.0.0.1:9", max_retries=0)
    with pytest.raises(ServerError, match="write http"):
        connect("127.0.0.1:8000")
    with pytest.raises(UnsupportedError, match="not a process model"):
        connect(known_server.address, aggregation="min")
    with connect(known_server.address + "/v1/", "known") as rm:
        assert rm.score(user_and("one")) == score_of("one")


def test_progress_counts_every_conversation(remote_known: RemoteRM, capfd: pytest.CaptureFixture[str]) -> None:
    remote_known.score_batch([user_and("fail" if i == 3 else str(i)) for i in range(50)], on_error="none",
                             show_progress=True)  # fmt: skip
    assert "50/50" in capfd.readouterr().err


def test_a_connection_pickles_as_the_call_that_made_it(remote_orm: RemoteRM, orm: BaseRM) -> None:
    again = pickle.loads(pickle.dumps(remote_orm))
    try:
        assert again.score(user_and(RIGHT)) == close_to(orm.score(user_and(RIGHT)))
    finally:
        again.close()
