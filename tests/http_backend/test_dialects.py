"""The dialects that were read about and not run: what is sent, which replies are believed, how a server is recognised.

Replies are written after the servers' own sources and descriptions (see the module of each dialect).
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from local_servers import NOT_FOUND, Sent, local_server, routes

from reward_hub.errors import InputTooLongError, InvalidConversationError, ServerError
from reward_hub.http.client import HttpClient
from reward_hub.http.dialects import lmdeploy, nim, openrlhf, sglang, tei
from reward_hub.http.dialects.base import Dialect, Served, ServerInput
from reward_hub.http.dialects.find import find

TURNS = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]
IDS = [5, 6, 7]
QUESTION = ServerInput(TURNS, "<s>user 2 + 2? assistant 4</s>", IDS, "<s>")


def ask(dialect: Dialect, item: ServerInput = QUESTION) -> Any:
    ((request, _),) = dialect.routes.values()
    return request(Served("rm"), item)


def read(dialect: Dialect, reply: Any) -> Any:
    ((_, answer),) = dialect.routes.values()
    return answer(reply)


# -- what is asked -----------------------------------------------------------------------------------------------------


def test_sglang_is_sent_token_ids() -> None:
    assert ask(sglang.DIALECT) == {"input_ids": IDS}
    assert list(sglang.DIALECT.routes) == ["/classify"], "never /v1/classify, which gives a softmax over one label"


def test_tei_is_sent_one_text_as_a_batch_of_one() -> None:
    expected = {"inputs": [["user 2 + 2? assistant 4</s>"]], "raw_scores": True, "truncate": False}
    assert ask(tei.DIALECT) == expected, "the server adds the bos token"


def test_tei_is_sent_prompt_and_response_as_a_pair_where_no_template_is_known() -> None:
    assert ask(tei.DIALECT, ServerInput(TURNS))["inputs"] == [["2 + 2?", "4"]]


def test_tei_without_a_template_takes_no_longer_conversation() -> None:
    with pytest.raises(InvalidConversationError, match="two texts"):
        ask(tei.DIALECT, ServerInput([*TURNS, *TURNS]))


def test_openrlhf_is_sent_the_text_with_its_special_tokens() -> None:
    assert ask(openrlhf.DIALECT) == {"query": [QUESTION.text], "prompts": ["2 + 2?"], "labels": [""]}


def test_lmdeploy_is_sent_token_ids() -> None:
    assert ask(lmdeploy.DIALECT) == {"model": "rm", "input": IDS}


def test_nim_is_sent_messages() -> None:
    assert ask(nim.DIALECT) == {"model": "rm", "messages": TURNS}


# -- what is believed --------------------------------------------------------------------------------------------------

LOGPROBS = {"choices": [{"logprobs": {"content": [{"token": "reward", "logprob": -25.625}]}, "message": {}}]}


def said(text: str, **more: Any) -> Any:
    return {"choices": [{"message": {"role": "assistant", "content": text}, **more}]}


@pytest.mark.parametrize(
    ("dialect", "reply", "score"),
    [
        (sglang.DIALECT, {"embedding": [-1.5], "meta_info": {"prompt_tokens": 3}}, -1.5),
        (lmdeploy.DIALECT, {"data": [{"index": 0, "object": "pooling", "data": 0.25}]}, 0.25),
        (lmdeploy.DIALECT, {"data": [{"index": 0, "object": "pooling", "data": [0.25]}]}, 0.25),
        (tei.DIALECT, [[{"score": -3.5, "label": "LABEL_0"}]], -3.5),
        (openrlhf.DIALECT, {"rewards": [1.5], "scores": [0.8], "extra_logs": {}}, 1.5),
        (openrlhf.DIALECT, {"rewards": [[1.5]]}, 1.5),
        (nim.DIALECT, LOGPROBS, -25.625),
        (nim.DIALECT, said("reward:-25.625"), -25.625),
        (nim.DIALECT, said("reward:-2.5e-3"), -0.0025),
        (nim.DIALECT, said("helpfulness:1.5,correctness:1.6,verbosity:-0.5"), 1.5),
        (nim.DIALECT, said("reward:-1", logprobs={"content": None}), -1.0),
    ],
)
def test_the_score_is_read_where_the_server_puts_it(dialect: Dialect, reply: Any, score: float) -> None:
    assert read(dialect, reply).score == score


def test_attributes_are_kept() -> None:
    assert read(nim.DIALECT, said("helpfulness:1.5,correctness:1.6")).attributes == {
        "helpfulness": 1.5,
        "correctness": 1.6,
    }


@pytest.mark.parametrize(
    ("dialect", "reply"),
    [
        (sglang.DIALECT, {"embedding": [1.0, 2.0]}),
        (sglang.DIALECT, {"embedding": []}),
        (sglang.DIALECT, [{"embedding": [1.0]}]),
        (sglang.DIALECT, {"embedding": [True]}),
        (lmdeploy.DIALECT, {"data": []}),
        (lmdeploy.DIALECT, {"data": [{"index": 1, "data": 0.5}]}),
        (lmdeploy.DIALECT, {"data": [{"index": 0, "data": None}]}),
        (tei.DIALECT, [[{"score": 0.9, "label": "good"}, {"score": 0.1, "label": "bad"}]]),
        (tei.DIALECT, [{"score": 0.9, "label": "good"}]),
        (tei.DIALECT, []),
        (tei.DIALECT, [[{"label": "LABEL_0"}]]),
        (openrlhf.DIALECT, {"rewards": [1.0, 2.0]}),
        (openrlhf.DIALECT, {"scores": [1.0]}),
        (openrlhf.DIALECT, {"rewards": 1.0}),
        (nim.DIALECT, said("I would rate it 4.")),
        (nim.DIALECT, said("answer: 4")),
        (nim.DIALECT, said("reward: 1, reward: 2")),
        (nim.DIALECT, said("reward:nan")),
        (nim.DIALECT, said("reward:1 and more")),
        (nim.DIALECT, {"choices": []}),
        (nim.DIALECT, said("", logprobs={"content": [{"token": "The", "logprob": -0.5}]})),
    ],
)
def test_anything_else_is_an_error(dialect: Dialect, reply: Any) -> None:
    with pytest.raises(ServerError) as caught:
        read(dialect, reply)
    assert not caught.value.retryable


def test_results_are_placed_by_their_index() -> None:
    reply = {"data": [{"index": 1, "data": 2.0}, {"index": 0, "data": 1.0}]}
    assert [float(row[0]) for row in lmdeploy.SCORES.rows(reply, [IDS, IDS], 1)] == [1.0, 2.0]


def test_results_of_sglang_are_told_apart_by_their_token_counts() -> None:
    reply = [
        {"embedding": [1.0], "meta_info": {"prompt_tokens": 3}},
        {"embedding": [2.0], "meta_info": {"prompt_tokens": 2}},
    ]
    assert [float(row[0]) for row in sglang.SCORES.rows(reply, [IDS, IDS[:2]], 1)] == [1.0, 2.0]
    with pytest.raises(ServerError, match="read 3 tokens where 2 token ids"):
        sglang.SCORES.rows(reply, [IDS[:2], IDS], 1)


# -- recognition -------------------------------------------------------------------------------------------------------


def entries(owner: str, **more: Any) -> Any:
    return {"object": "list", "data": [{"id": "rm", "owned_by": owner, "root": "root", **more}]}


def classifier(**labels: str) -> Any:
    return {"model_id": "org/rm", "model_type": {"classifier": {"id2label": labels}}, "max_input_length": 512}


def chat(text: str) -> Any:
    return said(text)


SERVERS: dict[str, tuple[dict[str, Any], str, Served]] = {
    "sglang": (
        {"/v1/models": entries("sglang", max_model_len=64), "/get_model_info": {"model_path": "org/rm"}},
        "sglang",
        Served(None, "org/rm", 64),
    ),
    "newer sglang": (
        {"/v1/models": entries("sglang"), "/model_info": {"model_path": "org/rm"}},
        "sglang",
        Served(None, "org/rm"),
    ),
    "lmdeploy": ({"/v1/models": entries("lmdeploy")}, "lmdeploy", Served("rm", "root")),
    "tei": ({"/info": classifier(**{"0": "LABEL_0"})}, "tei", Served(None, "org/rm", 512)),
    "nim": (
        {"/v1/models": entries("nvidia"), "/v1/chat/completions": chat("reward:1.5")},
        "nim",
        Served("rm"),
    ),
    "openrlhf": ({"/get_reward": {"rewards": [0.5]}}, "openrlhf", Served(None)),
}


def found(table: dict[str, Any], dialect: str | None = None) -> Any:
    with local_server(routes(table)) as server:
        return asyncio.run(find(lambda error_of: HttpClient(server.address, max_retries=0), "rm", dialect))


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_is_recognised(name: str) -> None:
    table, dialect, served = SERVERS[name]
    connection = found(table)
    assert (connection.dialect.name, connection.served) == (dialect, served)


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"/v1/models": entries("me"), "/v1/chat/completions": chat("It is a good answer.")},
        {"/v1/models": [], "/info": {"version": "1"}},
    ],
)
def test_an_unknown_server_is_not_guessed(table: dict[str, Any]) -> None:
    with pytest.raises(ServerError, match="dialect="):
        found(table)


def test_what_the_caller_says_is_believed() -> None:
    assert found({}, "vllm").served == Served("rm")


def test_a_tei_server_with_several_labels_or_with_embeddings_is_refused() -> None:
    with pytest.raises(ServerError, match="which of their scores"):
        found({"/info": classifier(**{"0": "bad", "1": "good"})})
    with pytest.raises(ServerError, match="a reward model is a classifier"):
        found({"/info": {"model_id": "m", "model_type": {"embedding": {"pooling": "cls"}}}})


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_ends_the_search(status: int) -> None:
    with local_server(lambda sent: (status, {"error": "Unauthorized"})) as server, pytest.raises(ServerError) as caught:
        asyncio.run(find(lambda error_of: HttpClient(server.address, max_retries=0), "rm", None))
    assert caught.value.status == status
    assert len(server.sent) == 1


def test_length_errors_are_those_of_vllm_alone() -> None:
    def answers(sent: Sent) -> Any:
        return (413, {"error": "batch too large", "error_type": "Validation"}) if sent.path == "/predict" else NOT_FOUND

    with local_server(answers) as server, pytest.raises(ServerError, match="413") as caught:
        asyncio.run(HttpClient(server.address, max_retries=0).post("/predict", {}))
    assert not isinstance(caught.value, InputTooLongError)
