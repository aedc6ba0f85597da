"""Recorded exchanges with vLLM 0.32, answered again by a local server: what is asked, and what is made of the replies.

The recordings lie in ../shared/reference/captures; without that folder these tests are skipped.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from local_servers import LocalServer, local_server

from reward_hub.errors import InputTooLongError, ServerError
from reward_hub.http.client import HttpClient
from reward_hub.http.dialects import vllm
from reward_hub.http.dialects.base import Served, ServerInput, Wire
from reward_hub.http.dialects.find import find

CAPTURES = Path(__file__).parents[3] / "shared" / "reference" / "captures"

pytestmark = pytest.mark.skipif(not CAPTURES.is_dir(), reason="../shared/reference/captures is not there")


def capture(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CAPTURES / f"{name}.json").read_text(encoding="utf-8"))
    return found


def replay(name: str) -> Any:
    recorded = capture(name)
    return local_server(lambda sent: (recorded["response"]["status"], recorded["response"]["json"]))


def post(server: LocalServer, route: str, body: Any) -> Any:
    client = HttpClient(server.address, max_retries=0, error_of=vllm.DIALECT.error_of)
    return asyncio.run(client.post(route, body))


def exchanged(name: str, wire: Wire, width: int) -> tuple[Any, list[Any]]:
    """What a wire sends for the recorded inputs, and the rows it reads from the recorded reply."""
    request = capture(name)["request"]
    given = request["json"].get("input") or request["json"]["prompt"]
    inputs: Sequence[Sequence[int]] = given if isinstance(given[0], list) else [given]
    with replay(name) as server:
        reply = post(server, wire.route, wire.body(Served(request["json"]["model"]), inputs))
        assert server.sent[0].path == request["path"]
        return server.sent[0].body, wire.rows(reply, inputs, width)


def decoded(text: str) -> Any:
    return np.frombuffer(base64.b64decode(text), "<f4")


SCORES = vllm.pooling_wire("classify", every_token=False)
HIDDEN = vllm.pooling_wire("embed", every_token=False)
STATES = vllm.pooling_wire("token_embed", every_token=True)
TABLES = vllm.pooling_wire("token_classify", every_token=True)


@pytest.mark.parametrize(
    ("name", "wire", "width", "field"),
    [
        ("seqcls_pooling_base64", SCORES, 1, "data"),
        ("seqcls_pooling_raw", SCORES, 1, "data"),
        ("seqcls_classify_ids_raw", vllm.CLASSIFY, 1, "probs"),
        ("armo_backbone_embeddings_raw", vllm.EMBEDDINGS, 128, "embedding"),
        ("embed_embeddings_base64", vllm.EMBEDDINGS, 128, "embedding"),
        ("embed_pooling_raw", HIDDEN, 128, "data"),
        ("tokembed_pooling_raw_base64", STATES, 128, "data"),
        ("tokembed_pooling_raw", STATES, 128, "data"),
        ("rm_pooling_ids", TABLES, 1, "data"),
    ],
)
def test_rows_are_the_numbers_that_vllm_gave(name: str, wire: Wire, width: int, field: str) -> None:
    body, rows = exchanged(name, wire, width)
    recorded = capture(name)
    for key, value in recorded["request"]["json"].items():
        assert key == "encoding_format" or body[key] == value, "what was recorded is what is sent"
    given = [item[field] for item in recorded["response"]["json"]["data"]]
    expected = [decoded(x) if isinstance(x, str) else np.asarray(x, np.float32).ravel() for x in given]
    assert [row.ravel().tolist() for row in rows] == [values.tolist() for values in expected]


def test_log_probabilities_are_those_of_the_tokens_sent() -> None:
    body, (table,) = exchanged("gen_completions_ids_prompt_logprobs", vllm.COMPLETIONS, 1)
    recorded = capture("gen_completions_ids_prompt_logprobs")
    ids = recorded["request"]["json"]["prompt"]
    assert body == {**recorded["request"]["json"], "prompt": [ids]}
    told = recorded["response"]["json"]["choices"][0]["prompt_logprobs"]
    assert table[1:, 0].tolist() == [
        np.float32(step[str(t)]["logprob"]) for t, step in zip(ids[1:], told[1:], strict=True)
    ]


def test_log_probabilities_of_other_tokens_are_refused() -> None:
    recorded = capture("gen_completions_ids_prompt_logprobs")
    ids = [*recorded["request"]["json"]["prompt"]]
    ids[3] += 1
    with pytest.raises(ServerError, match="no log-probability of the token"):
        vllm.COMPLETIONS.rows(recorded["response"]["json"], [ids], 1)


@pytest.mark.parametrize(
    ("name", "words"),
    [("prm_pooling_ids_raw", r"shape \[2, 2\] where \[40, 2\]"), ("prm_nocfg_pooling_ids", r"where \[42, 2\]")],
)
def test_rows_of_step_tags_alone_are_not_taken_for_rows_of_all_tokens(name: str, words: str) -> None:
    with pytest.raises(ServerError, match=words):
        exchanged(name, TABLES, 2)


@pytest.mark.parametrize("name", ["seqcls_classify_messages_raw", "seqcls_pooling_messages"])
def test_messages_are_rendered_and_scored_by_the_server(name: str) -> None:
    recorded = capture(name)["request"]
    ask, read = vllm.DIALECT.routes[recorded["path"]]
    with replay(name) as server:
        body = ask(Served("rm"), ServerInput(recorded["json"]["messages"]))
        answer = read(post(server, recorded["path"], body))
    assert body == {**recorded["json"], "add_generation_prompt": False}
    assert (answer.score, answer.n_tokens) == (-0.6025209426879883, 38)


@pytest.mark.parametrize(
    ("name", "route", "words"),
    [
        ("seqcls5_classify_raw", "/classify", "5 numbers for one conversation"),
        ("prm_pooling_messages", "/pooling", "numbers for one conversation|stands where a number"),
        ("embed_embeddings_messages_raw", "/pooling", "stands where a number"),
    ],
)
def test_what_is_no_single_score_is_refused(name: str, route: str, words: str) -> None:
    with pytest.raises(ServerError, match=words):
        vllm.DIALECT.routes[route][1](capture(name)["response"]["json"])


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("auth_401_wrong", 401),
        ("tokembed_embeddings_err", 501),
        ("embed_pooling_token_embed_err", 400),
        ("seqcls_classify_err_unknown_model", 404),
        ("seqcls_notfound", 404),
        ("seqcls_classify_err_empty_list", 400),
    ],
)
def test_errors_keep_their_status_and_are_not_tried_again(name: str, status: int) -> None:
    with replay(name) as server, pytest.raises(ServerError) as caught:
        post(server, "/classify", {})
    assert (caught.value.status, caught.value.retryable) == (status, False)


def test_what_is_too_long_for_the_server_says_so() -> None:
    with replay("seqcls_classify_err_too_long") as server, pytest.raises(InputTooLongError) as caught:
        post(server, "/classify", {})
    assert (caught.value.n_tokens, caught.value.max_length) == (600, 512)


@pytest.mark.parametrize("model", ["rm", "/models/qwen2-seqcls", ""])
def test_vllm_is_recognised_by_what_it_says(model: str) -> None:
    told = {f"/{'v1/models' if n == 'seqcls_models' else 'version'}": capture(n)["response"]["json"] for n in
            ("seqcls_models", "seqcls_version")}  # fmt: skip
    with local_server(lambda sent: (200, told[sent.path])) as server:
        found = asyncio.run(find(lambda error_of: HttpClient(server.address), model, None))
    assert found.dialect is vllm.DIALECT
    assert found.served == Served("rm", "/models/qwen2-seqcls", 512, "0.32.0")


def test_a_model_that_is_not_served_is_named_beside_those_that_are() -> None:
    with (
        local_server(lambda sent: (200, capture("seqcls_models")["response"]["json"])) as server,
        pytest.raises(ServerError, match="no model 'other'; it serves 'rm'") as caught,
    ):
        asyncio.run(find(lambda error_of: HttpClient(server.address), "other", None))
    assert caught.value.status == 404
