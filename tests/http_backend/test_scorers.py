"""Servers taken as scorers of messages: their own number, said to be theirs, or an error."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from golden_sets import GoldenModels, GoldenSet
from local_servers import NOT_FOUND, Connected, Sent, VllmLike, local_server, routes

from reward_hub import AutoRM, InvalidConversationError, ServerError, UnsupportedError
from reward_hub.errors import InputTooLongError
from reward_hub.models.scorer_rm import ScorerRM

SEQCLS = GoldenSet("seqcls-qwen2", "own")
CASE = SEQCLS.cases[0]
BATCH = [case["messages"] for case in SEQCLS.cases]


def chars(text: str) -> float:
    """What the played servers score with."""
    return len(text) / 7 - 3


def test_vllm_renders_and_scores_what_has_no_known_checkpoint(
    golden_models: GoldenModels, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "reward_hub")
    local = golden_models.load(SEQCLS)
    with local_server(VllmLike(local, "classify")) as server:
        rm = AutoRM.load("rm", "api", api_base=f"{server.address}/v1")
        assert isinstance(rm, ScorerRM)
        assert rm.score_batch(BATCH) == pytest.approx(local.score_batch(BATCH), abs=2e-5)
        score, details = rm.score(CASE["messages"], return_details=True)
        rm.close()
    (line,) = [r.getMessage() for r in caplog.records if "scorer of messages" in r.getMessage()]
    assert "Rendered by the server" in line
    assert (details["rendered_by"], details["dialect"], details["model"]) == ("server", "vllm", "rm")
    assert details["raw_logits"] == [score]
    assert details["tokens_scored"] == len(CASE["input_ids"])
    assert all(sent.body["use_activation"] in (False, True) for sent in server.sent if sent.body)


def test_the_other_route_of_vllm_is_taken_where_there_is_one_alone(golden_models: GoldenModels) -> None:
    local = golden_models.load(SEQCLS)
    with local_server(VllmLike(local, "classify", routes=("/pooling",))) as server:
        rm = AutoRM.load("rm", "api", api_base=server.address)
        assert rm.score(CASE["messages"]) == pytest.approx(local.score(CASE["messages"]), abs=2e-5)
        rm.close()


def test_a_vllm_server_that_answers_sigmoids_is_refused(golden_models: GoldenModels) -> None:
    with (
        local_server(VllmLike(golden_models.load(SEQCLS), "classify", obeys=False)) as server,
        pytest.raises(ServerError, match="probabilities"),
    ):
        AutoRM.load("rm", "api", api_base=server.address)


def test_a_process_model_behind_a_server_is_no_scorer(golden_models: GoldenModels) -> None:
    prm = golden_models.load(GoldenSet("qwen2.5-math-prm", "own"))
    with (
        local_server(VllmLike(prm, "token_classify")) as server,
        pytest.raises(ServerError, match="2 numbers for one conversation"),
    ):
        AutoRM.load("rm", "api", api_base=server.address)


def test_what_only_a_known_family_can_do_is_refused(golden_models: GoldenModels) -> None:
    with local_server(VllmLike(golden_models.load(SEQCLS), "classify")) as server:
        rm = AutoRM.load("rm", "api", api_base=server.address)
        with pytest.raises(UnsupportedError):
            rm.score_steps(prompt="a", response="b")
        rm.close()
        for options in ({"family": "armorm"}, {"truncation": "left"}, {"reference": "base"}, {"max_length": 10}):
            with pytest.raises(TypeError, match="checkpoint"):
                AutoRM.load("rm", "api", api_base=server.address, **options)


def test_a_server_without_a_chat_template_needs_one_from_here() -> None:
    table = {"/v1/models": {"data": [{"id": "rm", "owned_by": "lmdeploy", "root": "rm"}]}}
    with local_server(routes(table)) as server, pytest.raises(UnsupportedError, match="checkpoint="):
        AutoRM.load("rm", "api", api_base=server.address)


def test_with_a_tokenizer_the_text_is_rendered_here(golden_models: GoldenModels) -> None:
    folder = golden_models.checkpoint(SEQCLS)

    def pooled(sent: Sent) -> Any:
        n = len(sent.body["input"])
        return 200, {"data": [{"index": 0, "data": n * 1.5}], "usage": {"prompt_tokens": n}}

    table = {"/v1/models": {"data": [{"id": "rm", "owned_by": "lmdeploy", "root": "rm"}]}, "/pooling": pooled}
    with local_server(routes(table)) as server:
        rm = AutoRM.load("rm", "api", api_base=server.address, tokenizer=str(folder))
        score, details = rm.score(CASE["messages"], return_details=True)
        rm.close()
    assert server.sent[-1].body == {"model": "rm", "input": CASE["input_ids"]}
    assert (score, details["rendered_by"]) == (len(CASE["input_ids"]) * 1.5, "client")


def tei(sent: Sent, *, obeys: bool = True) -> Any:
    if sent.path == "/info":
        classifier = {"classifier": {"id2label": {"0": "LABEL_0"}}}
        return 200, {"model_id": "org/rm", "model_type": classifier, "max_input_length": 512}
    if sent.path != "/predict":
        return NOT_FOUND
    (texts,) = sent.body["inputs"]
    raw = chars(" ".join(texts))
    score = raw if sent.body["raw_scores"] and obeys else 1 / (1 + 2.718281828**-raw)
    return 200, [[{"score": score, "label": "LABEL_0"}]]


def test_tei_scores_a_pair() -> None:
    with local_server(tei) as server:
        rm = AutoRM.load("rm", "api", api_base=server.address)
        assert rm.score(prompt="2 + 2?", response="It is 4.") == chars("2 + 2? It is 4.")
        with pytest.raises(InvalidConversationError, match="two texts"):
            rm.score([{"role": "system", "content": "x"}, *CASE["messages"]])
        rm.close()
    assert server.sent[-1].body == {"inputs": [["2 + 2?", "It is 4."]], "raw_scores": True, "truncate": False}


def test_a_tei_server_that_ignores_raw_scores_is_refused() -> None:
    with (
        local_server(lambda sent: tei(sent, obeys=False)) as server,
        pytest.raises(ServerError, match="probabilities"),
    ):
        AutoRM.load("rm", "api", api_base=server.address)


def get_reward(sent: Sent) -> Any:
    if sent.path != "/get_reward":
        return NOT_FOUND
    rewards = [chars(text) for text in sent.body["query"]]
    return 200, {"rewards": rewards, "scores": [0.5] * len(rewards), "extra_logs": {}}


@pytest.mark.parametrize("ending", ["", "/get_reward", "/get_reward/"])
def test_openrlhf_is_sent_the_rendered_text(golden_models: GoldenModels, ending: str) -> None:
    folder = golden_models.checkpoint(SEQCLS)
    local: Any = golden_models.load(SEQCLS)
    with local_server(get_reward) as server:
        rm = AutoRM.load("rm", "api", api_base=server.address + ending, checkpoint=folder)
        _, details = rm.score(CASE["messages"], return_details=True)
        assert rm.score_batch(BATCH) == [chars(text_of(local, messages)) for messages in BATCH]
        rm.close()
    assert details["rendered_by"] == "client"
    assert len(server.sent[-1].body["query"]) == 1


def test_what_is_not_rendered_here_is_named(golden_models: GoldenModels, caplog: pytest.LogCaptureFixture) -> None:
    folder = golden_models.checkpoint(SEQCLS)
    named = [{**BATCH[0][0], "name": "Ada"}, *BATCH[0][1:]]
    with local_server(get_reward) as server:
        rm = AutoRM.load("rm", "api", api_base=server.address, checkpoint=folder, dialect="openrlhf")
        (_, details), (_, plain) = rm.score_batch([named, BATCH[0]], return_details=True)
        rm.close()
    assert (details["dropped"], plain["dropped"]) == (["messages[0].name"], [])
    assert "the server, leaves out 'name' (messages[0].name)" in caplog.text


def text_of(local: Any, messages: Any) -> str:
    from reward_hub.messages import parse

    return local.model.setup.tokenizer.render(parse(messages).messages)


def test_a_process_family_over_a_server_of_single_scores_is_refused(golden_models: GoldenModels) -> None:
    folder = golden_models.checkpoint(GoldenSet("qwen2.5-math-prm", "own"))
    with local_server(get_reward) as server, pytest.raises(UnsupportedError, match="one score a response"):
        AutoRM.load("rm", "api", api_base=server.address, checkpoint=folder)


def nim(sent: Sent) -> Any:
    if sent.path == "/v1/models":
        return 200, {"data": [{"id": "nvidia/rm", "owned_by": "nvidia"}]}
    if sent.path != "/v1/chat/completions":
        return NOT_FOUND
    value = chars(sent.body["messages"][-1]["content"])
    return 200, {"choices": [{"message": {"role": "assistant", "content": f"reward:{value!r}"}}]}


def test_nim_scores_messages() -> None:
    with local_server(nim) as server:
        rm = AutoRM.load("nvidia/rm", "api", api_base=f"{server.address}/v1", local_files_only=True)
        scores = rm.score_batch(BATCH)
        rm.close()
    assert scores == [chars(messages[-1]["content"]) for messages in BATCH]
    assert server.sent[-1].body["messages"][-1]["role"] == "assistant"


def test_the_place_of_a_failed_conversation_is_told(golden_models: GoldenModels) -> None:
    long = [{"role": "user", "content": "a b c " * 400}, {"role": "assistant", "content": "d"}]

    def limited(sent: Sent) -> Any:
        if sent.body and len(sent.body["messages"][0]["content"]) > 1000:
            words = "This model's maximum context length is 512 tokens. However, your prompt contains 600 input tokens."
            return 400, {"error": {"message": words, "param": "input_tokens"}}
        return server_answers(sent)

    local = golden_models.load(SEQCLS)
    server_answers = VllmLike(local, "classify")
    batch = [BATCH[0], long, BATCH[1]]
    with local_server(limited) as server:
        rm = AutoRM.load("rm", "api", api_base=server.address)
        with pytest.raises(InputTooLongError) as caught:
            rm.score_batch(batch)
        assert (caught.value.index, caught.value.n_tokens) == (1, 600)
        scores = rm.score_batch(batch, on_error="none")
        rm.close()
    assert [score is None for score in scores] == [False, True, False]
    assert scores[2] == pytest.approx(local.score(BATCH[1]), abs=2e-5)


def test_fingerprints_tell_servers_apart(golden_models: GoldenModels, connected: Connected) -> None:
    first, _ = connected("seqcls-qwen2", "classify")
    second, _ = connected("seqcls-qwen2", "classify")
    assert first.fingerprint != second.fingerprint
    with local_server(tei) as one, local_server(tei) as other:
        a, b = (AutoRM.load("rm", "api", api_base=s.address) for s in (one, other))
        assert a.fingerprint != b.fingerprint
        a.close()
        b.close()
