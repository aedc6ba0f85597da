"""What vLLM would be asked, without vLLM: the plan for each read, and the rules for foreign weights."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reward_hub import UnsupportedError
from reward_hub.backends.vllm import plan as vllm_plan
from reward_hub.backends.vllm.plan import VllmPlan, WeightRules
from reward_hub.backends.vllm_plugin import stock_weights
from reward_hub.family import Backbone
from reward_hub.heads import HIDDEN, MLP, Averaged, Head, Linear
from reward_hub.numerics import gelu
from reward_hub.reads import HeadOutputs, TokenLogits, TokenLogprobs

LLAMA = {"model_type": "llama", "architectures": ["LlamaForSequenceClassification"], "hidden_size": 8}
QWEN2 = {"model_type": "qwen2", "architectures": ["Qwen2ForProcessRewardModel"], "hidden_size": 8}
BACKBONE = ("model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "model.norm.weight")


def shapes(**head: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return {**dict.fromkeys(BACKBONE, (8, 8)), **{name.replace("__", "."): shape for name, shape in head.items()}}


def planned(head: Head, config: dict[str, Any] = LLAMA, tensors: Any = None, **options: Any) -> VllmPlan:
    return vllm_plan.plan(HeadOutputs(head), config, tensors or shapes(score__weight=(1, 8)), **options)


def test_a_stock_classifier_runs_as_it_is_with_the_engines_own_head() -> None:
    plan = planned(Linear("score"))
    assert (plan.architecture, plan.convert, plan.task) == ("LlamaForSequenceClassification", "classify", "classify")
    assert plan.native and plan.weights is None and plan.asks == "prefixes"
    assert plan.hf_overrides["num_labels"] == 1


@pytest.mark.parametrize("many", [False, True])
def test_the_engine_never_applies_an_activation(many: bool) -> None:
    for plan in (planned(Linear("score"), many=many), planned(Linear("v_head"), many=many)):
        assert plan.pooler_config is not None and plan.pooler_config["use_activation"] is False


@pytest.mark.parametrize(("many", "task", "asks"), [(False, "embed", "prefixes"), (True, "token_embed", "tokens")])
def test_a_head_that_vllm_lacks_is_left_to_numpy(many: bool, task: str, asks: str) -> None:
    head = MLP(("score.0", "score.2"), width=1, activation=gelu)
    plan = planned(head, tensors=shapes(score__0__weight=(8, 8), score__2__weight=(1, 8)), many=many)
    assert (plan.convert, plan.task, plan.asks, plan.native) == ("embed", task, asks, False)
    assert plan.weights is not None
    assert plan.weights.stock_name("score.0.weight") is None
    assert plan.weights.stock_name("model.norm.weight") == "model.norm.weight"


@pytest.mark.parametrize(("width", "name"), [(1, "Qwen2ForRewardModel"), (2, "Qwen2ForProcessRewardModel")])
def test_qwens_two_layers_run_natively_and_every_token_is_answered(width: int, name: str) -> None:
    head = MLP(("score.0", "score.2"), width=width, inner=HIDDEN)
    tensors = shapes(score__0__weight=(8, 8), score__2__weight=(width, 8), lm_head__weight=(9, 8))
    plan = planned(head, QWEN2, tensors, many=width == 2)
    assert (plan.architecture, plan.convert, plan.native, plan.asks) == (name, "none", True, "tokens")
    # With STEP pooling a tag that does not occur gives an empty answer, and no error.
    assert plan.pooler_config == {"task": "token_classify", "use_activation": False, "tok_pooling_type": "ALL"}


def test_a_linear_head_over_steps_is_renamed_and_its_bias_added_here() -> None:
    tensors = shapes(v_head__summary__weight=(1, 8), v_head__summary__bias=(1,))
    plan = planned(Linear("v_head.summary"), tensors=tensors, many=True)
    assert plan.native and plan.bias == "v_head.summary.bias" and plan.weights is not None
    assert plan.weights.stock_name("v_head.summary.weight") == "score.weight"
    assert plan.weights.stock_name("v_head.summary.bias") is None


def test_a_bias_that_the_head_does_not_read_keeps_the_engines_head_away() -> None:
    assert not planned(Linear("score", bias=False), tensors=shapes(score__weight=(1, 8), score__bias=(1,))).native


@pytest.mark.parametrize("many", [False, True])
def test_a_head_outside_of_the_weight_files_is_never_left_to_the_engine(many: bool) -> None:
    plan = planned(Linear("score"), tensors=shapes(), many=many)
    assert not plan.native and plan.convert == "embed"


def test_a_quantised_engine_does_not_quantise_the_head() -> None:
    assert not planned(Linear("score"), quantized=True).native
    assert not planned(Linear("score"), {**LLAMA, "quantization_config": {"quant_method": "awq"}}).native


def test_token_logits_come_from_the_lm_heads_rows() -> None:
    read = TokenLogits((3, 5))
    tensors = shapes(lm_head__weight=(9, 8))
    plan = vllm_plan.plan(read, LLAMA, tensors, many=True, pieces=["+", "-"])
    assert plan.native and plan.task == "token_classify" and plan.weights is None
    assert plan.hf_overrides == {"classifier_from_token": ["+", "-"], "method": "no_post_processing"}


@pytest.mark.parametrize("options", [{"pieces": None}, {"pieces": ["+", "-"], "tensor_parallel_size": 2}])
def test_token_logits_are_made_here_where_vllm_would_take_other_rows(options: dict[str, Any]) -> None:
    plan = vllm_plan.plan(TokenLogits((3, 5)), LLAMA, shapes(lm_head__weight=(9, 8)), **options)
    assert not plan.native and plan.task == "embed"


def test_log_probabilities_need_a_generating_engine() -> None:
    plan = vllm_plan.plan(TokenLogprobs(), LLAMA, shapes(lm_head__weight=(9, 8)), many=True)
    assert (plan.runner, plan.asks, plan.pooler_config) == ("generate", "logprobs", None)


def test_a_renaming_backbone_becomes_rules_and_a_config() -> None:
    foreign = {**LLAMA, "model_type": "strange", "architectures": ["Strange"]}
    backbone = Backbone(config={**LLAMA}, rename=((r"^transformer\.", ""),), ignore=(r"^copy\.",))
    tensors = {"transformer.layers.0.mlp.up_proj.weight": (8, 8), "copy.x": (1,), "v_head.weight": (1, 8)}
    plan = planned(Linear("v_head"), foreign, tensors, backbone=backbone)
    assert plan.config == LLAMA and plan.weights is not None
    names = {name: plan.weights.stock_name(name) for name in tensors}
    assert names == {
        "transformer.layers.0.mlp.up_proj.weight": "model.layers.0.mlp.up_proj.weight",
        "copy.x": None,
        "v_head.weight": None,
    }


def test_tensors_that_nothing_reads_are_left_out_and_named() -> None:
    plan = planned(Linear("score"), tensors=shapes(score__weight=(1, 8), normalizer__mean=(1,)))
    assert plan.weights is not None and plan.weights.stock_name("normalizer.mean") is None
    assert plan.weights.stock_name("score.weight") == "score.weight"
    assert plan.unused == ("^normalizer(\\.|$)",)


@pytest.mark.parametrize(("model_type", "overridden"), [("llama", True), ("mistral", False)])
def test_a_window_that_the_model_does_not_have_is_taken_away(model_type: str, overridden: bool) -> None:
    plan = planned(Linear("score"), {**LLAMA, "model_type": model_type, "sliding_window": 24})
    assert ("sliding_window" in plan.hf_overrides) == overridden


def test_a_bare_backbone_needs_no_rules() -> None:
    tensors = {"layers.0.mlp.up_proj.weight": (8, 8), "embed_tokens.weight": (9, 8), "norm.weight": (8,)}
    assert planned(Linear("head"), tensors=tensors).weights is None


@pytest.mark.parametrize(
    ("head", "config", "backbone"),
    [
        (Linear("score"), {"model_type": "deberta-v2", "architectures": ["DebertaV2ForSequenceClassification"]}, None),
        (Linear("score"), {"model_type": "t5"}, None),
        (Averaged(Linear("score")), LLAMA, None),
        (Linear("score"), LLAMA, Backbone(config=LLAMA, causal=False)),
    ],
)
def test_what_vllm_cannot_run_is_refused_with_the_backend_that_can(head: Any, config: Any, backbone: Any) -> None:
    assert not vllm_plan.can_serve(HeadOutputs(head), config, backbone)
    with pytest.raises(UnsupportedError, match="load_method='transformers'"):
        planned(head, config, backbone=backbone)


def test_the_same_plan_as_flags_of_vllm_serve() -> None:
    plan = planned(Linear("v_head"), tensors=shapes(v_head__weight=(1, 8)))
    flags = plan.serve_flags(plugin=True)
    overrides = json.loads(flags[flags.index("--hf-overrides") + 1])
    assert overrides["architectures"] == ["RewardHubLlamaForCausalLM"]
    assert json.loads(flags[flags.index("--pooler-config") + 1])["task"] == "embed"
    assert plan.weights is not None
    rules = WeightRules.from_json(overrides[vllm_plan.RULES_KEY])
    assert dict(stock_weights([("v_head.weight", 1), ("model.norm.weight", 2)], rules)) == {"model.norm.weight": 2}
