"""A model behind somebody else's server gives the numbers of the same model in this process, or an error."""

from __future__ import annotations

import logging
import pickle
from typing import Any

import pytest
from golden_sets import GoldenModels, GoldenSet, score_case
from local_servers import NOT_FOUND, Connected, Sent, VllmLike, local_server

from reward_hub import AutoRM, BaseRM, CheckpointError, UnknownModelError, UnsupportedError
from reward_hub.errors import InputTooLongError, ServerError

# float32 with sums in another order.
CLOSE = 2e-5

# Every way in which a server may answer a read: (golden set, the server's task).
WAYS = [
    ("seqcls-qwen2", "classify"),
    ("seqcls-qwen2", "token_classify"),
    ("seqcls-qwen2", "embed"),
    ("seqcls-qwen2", "token_embed"),
    ("seqcls-gemma2", "embed"),
    ("armorm", "embed"),
    ("armorm", "token_embed"),
    ("internlm2-reward", "embed"),
    ("qwen2.5-math-prm", "token_classify"),
    ("qwen2.5-math-prm", "token_embed"),
    ("rlhflow-prm", "token_classify"),
    ("rlhflow-prm", "token_embed"),
    ("rlhflow-pair-pm", "classify"),
    ("versaprm", "token_classify"),
    ("skywork-o1-open-prm", "token_classify"),
    ("skywork-o1-open-prm", "token_embed"),
]


def assert_same(rm: BaseRM, local: BaseRM, slug: str, n: int = 3) -> None:
    for case in GoldenSet(slug, "own").cases[:n]:
        scores, details = score_case(rm, case)
        expected, in_process = score_case(local, case)
        assert scores == pytest.approx(expected, abs=CLOSE)
        assert details["raw_logits"] == pytest.approx(in_process["raw_logits"], abs=CLOSE)
        assert (details["backend"], details["model"], details["family"]) == ("api", "rm", in_process["family"])


@pytest.mark.parametrize(("slug", "task"), WAYS)
def test_scores_are_those_of_the_model_itself(
    connected: Connected, golden_models: GoldenModels, slug: str, task: str
) -> None:
    rm, _ = connected(slug, task)
    assert_same(rm, golden_models.load(GoldenSet(slug, "own")), slug)


@pytest.mark.parametrize(("task", "route"), [("classify", "/classify"), ("embed", "/v1/embeddings")])
def test_another_route_is_taken_where_there_is_no_pooling(
    connected: Connected, golden_models: GoldenModels, task: str, route: str
) -> None:
    rm, server = connected("seqcls-qwen2", task, routes=(route,))
    assert_same(rm, golden_models.load(GoldenSet("seqcls-qwen2", "own")), "seqcls-qwen2", n=1)
    assert server.sent[-1].path == route


def test_log_probabilities_of_two_servers_make_an_implicit_reward(golden_models: GoldenModels) -> None:
    golden = GoldenSet("dpo-implicit", "own")
    local: Any = golden_models.load(golden)
    folder = golden_models.checkpoint(golden)

    class One:
        def __init__(self, model: Any) -> None:
            self.model = model

    policy = VllmLike(One(local.policy), "generate", served="policy")  # type: ignore[arg-type]
    reference = VllmLike(One(local.reference), "generate", root=str(folder / "reference"))  # type: ignore[arg-type]
    with local_server(policy) as one, local_server(reference) as other:
        rm = AutoRM.load(
            "policy",
            "api",
            api_base=one.address,
            checkpoint=folder / "policy",
            reference=f"{other.address}/v1",
            beta=golden.data["beta"],
        )
        for case in golden.cases[:3]:
            assert rm.score(case["messages"]) == pytest.approx(local.score(case["messages"]), abs=CLOSE)
        rm.close()


def test_a_batch_keeps_its_order_and_its_scores(connected: Connected, golden_models: GoldenModels) -> None:
    golden = GoldenSet("seqcls-qwen2", "own")
    batch = [case["messages"] for case in golden.cases] * 5
    rm, server = connected("seqcls-qwen2", "classify")
    assert rm.score_batch(batch) == pytest.approx(golden_models.load(golden).score_batch(batch), abs=CLOSE)
    assert len(server.sent) < len(batch), "several conversations a request"
    assert rm.score_batch(batch, batch_size=1) == pytest.approx(rm.score_batch(batch), abs=CLOSE)


async def test_scores_in_an_event_loop(connected: Connected) -> None:
    rm, _ = connected("seqcls-qwen2", "classify")
    messages = GoldenSet("seqcls-qwen2", "own").cases[0]["messages"]
    assert await rm.ascore(messages) == rm.score(messages)


# -- what is found out on connecting -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slug", "task", "words"),
    [
        ("armorm", "embed", "length 1"),
        ("rlhflow-prm", "token_classify", "probabilities, not the raw outputs"),
        ("qwen2.5-math-prm", "token_classify", "probabilities, not the raw outputs"),
        ("seqcls-qwen2", "classify", "probabilities, not the raw outputs"),
    ],
)
def test_a_server_that_applies_an_activation_is_refused(connected: Connected, slug: str, task: str, words: str) -> None:
    with pytest.raises(ServerError, match=words) as caught:
        connected(slug, task, obeys=False)
    assert "reward-hub serve-args" in caught.value.message
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("slug", "task", "pooling", "words"),
    [
        ("armorm", "embed", "MEAN", "pools otherwise"),
        ("armorm", "embed", "CLS", "does not read the last token"),
        ("seqcls-qwen2", "classify", "CLS", "does not read the last token"),
    ],
)
@pytest.mark.parametrize("rounding", [0.0, 0.004])
def test_a_server_that_pools_otherwise_is_refused(
    connected: Connected, slug: str, task: str, pooling: str, words: str, rounding: float
) -> None:
    with pytest.raises(ServerError, match=words):
        connected(slug, task, pooling=pooling, rounding=rounding)


@pytest.mark.parametrize(("slug", "task"), [("armorm", "embed"), ("seqcls-qwen2", "classify")])
def test_a_server_in_half_precision_is_taken(connected: Connected, slug: str, task: str) -> None:
    rm, server = connected(slug, task, rounding=0.004)
    exact = server.answers.rm  # type: ignore[attr-defined]
    question = {"prompt": "What is 2 + 2?", "response": "It is 4."}
    assert rm.score(**question) == pytest.approx(exact.score(**question), abs=0.02)


def test_a_server_that_tokenises_for_itself_is_refused(connected: Connected) -> None:
    with pytest.raises(ServerError, match=r"it tokenises for itself"):
        connected("seqcls-qwen2", "classify", extra_tokens=1)


@pytest.mark.parametrize(
    ("slug", "task"), [("armorm", "classify"), ("rlhflow-prm", "classify"), ("armorm", "generate")]
)
def test_a_server_of_another_task_is_refused_with_the_command_that_starts_one(
    connected: Connected, slug: str, task: str
) -> None:
    with pytest.raises(ServerError, match="reward-hub serve-args"):
        connected(slug, task)


def test_head_tensors_are_checked_before_the_server_is_asked(golden_models: GoldenModels, tmp_path: Any) -> None:
    golden = GoldenSet("seqcls-qwen2", "own")
    spec = {**golden.spec, "files": {f: dict(t) for f, t in golden.spec["files"].items()}}
    for tensors in spec["files"].values():
        tensors.pop("score.weight", None)
    golden.make(tmp_path / "headless", spec)
    server = VllmLike(golden_models.load(golden), "classify")
    with local_server(server) as started, pytest.raises(CheckpointError, match=r"score\.weight"):
        AutoRM.load(
            "rm", "api", api_base=started.address, checkpoint=tmp_path / "headless", family="sequence-classifier"
        )
    assert not [sent for sent in started.sent if sent.method == "POST"]


# -- which checkpoint, which key, which options ------------------------------------------------------------------------


def test_the_checkpoint_is_what_the_server_names(golden_models: GoldenModels, connected: Connected) -> None:
    folder = golden_models.checkpoint(GoldenSet("seqcls-qwen2", "own"))
    rm, _ = connected("seqcls-qwen2", "classify", {"checkpoint": None}, root=str(folder))
    assert (rm.family, rm.name) == ("sequence-classifier", "rm")


def test_the_model_may_be_the_checkpoint_itself(golden_models: GoldenModels) -> None:
    golden = GoldenSet("seqcls-qwen2", "own")
    folder = str(golden_models.checkpoint(golden))
    with local_server(VllmLike(golden_models.load(golden), "classify", root=folder)) as server:
        rm = AutoRM.load(folder, "api", api_base=server.address)
        assert rm.family == "sequence-classifier"
        rm.close()


@pytest.mark.parametrize("variable", [None, "REWARD_HUB_API_KEY", "OPENAI_API_KEY"])
def test_the_key_goes_to_every_route_and_into_no_log(
    connected: Connected, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variable: str | None
) -> None:
    caplog.set_level(logging.DEBUG)
    key = "sk-secret-of-mine"
    if variable is not None:
        monkeypatch.setenv(variable, key)
    rm, server = connected("seqcls-qwen2", "classify", {} if variable else {"api_key": key})
    rm.score(GoldenSet("seqcls-qwen2", "own").cases[0]["messages"])
    assert {sent.headers.get("authorization") for sent in server.sent} == {f"Bearer {key}"}
    assert key not in caplog.text + repr(vars(rm)) + repr(rm.model)  # type: ignore[attr-defined]


def test_a_pickle_connects_again_and_holds_no_key(
    connected: Connected, golden_models: GoldenModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "sk-secret-of-mine"
    rm, server = connected("seqcls-qwen2", "classify", {"api_key": key})
    data = pickle.dumps(rm)
    assert key.encode() not in data
    monkeypatch.setenv("REWARD_HUB_API_KEY", key)
    with pickle.loads(data) as again:
        assert_same(again, golden_models.load(GoldenSet("seqcls-qwen2", "own")), "seqcls-qwen2")
    assert {sent.headers.get("authorization") for sent in server.sent} == {f"Bearer {key}"}


def test_a_missing_key_is_an_error() -> None:
    with (
        local_server(lambda sent: (401, {"error": "Unauthorized"})) as server,
        pytest.raises(ServerError, match="no key was sent") as caught,
    ):
        AutoRM.load("rm", "api", api_base=server.address)
    assert (caught.value.status, caught.value.retryable) == (401, False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"torch_dtype": "float32"}, "torch_dtype"),
        ({"device": "cuda"}, "device"),
        ({"max_batch_tokens": 5}, "max_batch_tokens"),
        ({"tensor_parallel_size": 2}, "tensor_parallel_size"),
        ({"timeout": 3}, "did you mean 'timeout_s'|Did you mean 'timeout_s'"),
    ],
)
def test_options_of_an_engine_have_no_meaning_for_a_server(options: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        AutoRM.load("rm", "api", api_base="http://127.0.0.1:9", **options)


def test_an_address_is_needed() -> None:
    with pytest.raises(TypeError, match="api_base="):
        AutoRM.load("rm", "api")


def test_an_unknown_dialect_is_named_beside_the_known_ones() -> None:
    with pytest.raises(UnknownModelError, match="vllm") as caught:
        AutoRM.load("rm", "api", api_base="http://127.0.0.1:9", dialect="vlm")
    assert caught.value.near == ("vllm",)


def test_what_is_longer_than_the_server_takes_is_refused_here(connected: Connected) -> None:
    rm, server = connected("seqcls-qwen2", "classify", max_model_len=30)
    n_before = len(server.sent)
    with pytest.raises(InputTooLongError) as caught:
        rm.score(prompt="a b c d " * 30, response="e")
    assert (rm.max_length, caught.value.max_length) == (30, 30)
    assert len(server.sent) == n_before


def test_families_that_no_such_server_can_run_say_what_can(golden_models: GoldenModels) -> None:
    golden = GoldenSet("deberta-rm", "own")
    seqcls = golden_models.load(GoldenSet("seqcls-qwen2", "own"))
    with (
        local_server(VllmLike(seqcls, "classify")) as server,
        pytest.raises(UnsupportedError, match="transformers"),
    ):
        AutoRM.load("rm", "api", api_base=server.address, checkpoint=golden_models.checkpoint(golden))


# -- SGLang and LMDeploy -----------------------------------------------------------------------------------------------


class NativeServer:
    """SGLang's native route, or LMDeploy's, over a model in this process."""

    def __init__(self, rm: Any, owner: str) -> None:
        self.numbers = VllmLike(rm, "classify")
        self.hidden = VllmLike(rm, "embed")
        self.owner = owner

    def __call__(self, sent: Sent) -> Any:
        if sent.path == "/v1/models":
            return 200, {"data": [{"id": "rm", "owned_by": self.owner, "root": "rm"}]}
        if sent.path == "/model_info" and self.owner == "sglang":
            return 200, {"model_path": "rm", "is_generation": False}
        if sent.path == "/classify" and self.owner == "sglang":
            return 200, [self._sglang(ids, sent.body) for ids in sent.body["input_ids"]]
        if sent.path == "/pooling" and self.owner == "lmdeploy":
            inputs = sent.body["input"]
            data = [{"index": i, "data": float(self.numbers._table(ids)[-1, 0])} for i, ids in enumerate(inputs)]
            return 200, {"data": data, "usage": {"prompt_tokens": sum(map(len, inputs))}}
        return NOT_FOUND

    def _sglang(self, ids: list[int], body: Any) -> Any:
        reply = {"embedding": self.numbers._table(ids)[-1].tolist(), "meta_info": {"prompt_tokens": len(ids)}}
        if body.get("return_pooled_hidden_states"):
            reply["pooled_hidden_state"] = self.hidden._table(ids)[-1].tolist()
        return reply


@pytest.mark.parametrize(
    ("owner", "slug"),
    [
        ("sglang", "seqcls-qwen2"),
        ("sglang", "armorm"),
        ("sglang", "rlhflow-prm"),
        ("sglang", "qwen2.5-math-prm"),
        ("sglang", "internlm2-reward"),
        ("lmdeploy", "internlm2-reward"),
        ("lmdeploy", "qwen2-math-rm"),
    ],
)
def test_other_servers_are_sent_token_ids_too(golden_models: GoldenModels, owner: str, slug: str) -> None:
    golden = GoldenSet(slug, "own")
    local = golden_models.load(golden)
    family = {} if golden.decidable else {"family": golden.family}
    with local_server(NativeServer(local, owner)) as server:
        checkpoint = golden_models.checkpoint(golden)
        rm = AutoRM.load("rm", "api", api_base=server.address, checkpoint=checkpoint, **family)
        assert_same(rm, local, slug, n=2)
        rm.close()


@pytest.mark.parametrize(("owner", "slug"), [("lmdeploy", "armorm"), ("sglang", "dpo-implicit")])
def test_reads_that_a_server_has_not_are_refused(golden_models: GoldenModels, owner: str, slug: str) -> None:
    golden = GoldenSet(slug, "own")
    folder = golden_models.checkpoint(golden)
    implicit = {"family": "implicit", "options": {"reference_free": True}} if golden.two_models else {}
    checkpoint = folder / "policy" if golden.two_models else folder
    seqcls = golden_models.load(GoldenSet("seqcls-qwen2", "own"))
    with (
        local_server(NativeServer(seqcls, owner)) as server,
        pytest.raises(UnsupportedError, match="vLLM"),
    ):
        AutoRM.load("rm", "api", api_base=server.address, checkpoint=checkpoint, **implicit)
