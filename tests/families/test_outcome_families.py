"""Outcome families: what config keys and tensors change, formats of training tools, near misses, refusals.

The golden sets hold the families' numbers; here are the paths that no golden set takes. Checkpoints are changed forms
of the project's own golden ones, expectations are computed with stock transformers classes and plain torch.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from golden_sets import SHARED, GoldenSet, golden_sets
from safetensors.torch import load_file

from reward_hub import AutoRM, BaseRM, CheckpointError, InputTooLongError, InvalidConversationError, UnknownModelError

Spec = dict[str, Any]
QUESTION, ANSWER = "What is 2+2?", "2+2 equals 4."
PAIR = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
LONGER = [*PAIR, {"role": "user", "content": "And 3+3?"}, {"role": "assistant", "content": "6."}]
# Two float32 implementations of a backbone of two layers differ by about 1e-5 at scores of about 5.
TOLERANCE = 5e-5


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """The own golden checkpoint of a slug, its spec changed in place by `change`."""

    def made(slug: str, change: Callable[[Spec], object] = lambda spec: None) -> Path:
        golden = GoldenSet(slug, "own")
        spec = copy.deepcopy(golden.spec)
        change(spec)
        return golden.make(tmp_path / slug, spec)

    return made


def load(folder: Path, **options: Any) -> BaseRM:
    return AutoRM.load(str(folder), torch_dtype="float32", **options)


def weights(spec: Spec) -> Spec:
    """The tensors of the one file of weights."""
    return spec["files"]["model.safetensors" if "model.safetensors" in spec["files"] else "pytorch_model.bin"]


def values(folder: Path, *, file: str = "model.safetensors") -> dict[str, torch.Tensor]:
    return load_file(folder / file) if file.endswith(".safetensors") else torch.load(folder / file, weights_only=True)


def hidden(folder: Path, text: str, *, special: bool) -> tuple[list[int], torch.Tensor]:
    """Token ids and hidden vectors [n_tokens, H] of a stock backbone, from a text."""
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    ids = tokenizer(text, add_special_tokens=special)["input_ids"]
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return ids, model(torch.tensor([ids])).last_hidden_state[0]


def rendered(folder: Path, messages: list[dict[str, str]]) -> str:
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    return str(tokenizer.apply_chat_template(messages, tokenize=False))


# --- What a family reads -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slug", ["qrm-llama3", "qrm-llama31", "qrm-gemma2", "urm"])
def test_attributes_times_gating_are_the_score(make, slug):
    if slug not in {golden.slug for golden in golden_sets("own")}:
        pytest.skip(f"no own golden set {slug}")
    score, details = load(make(slug)).score(PAIR, return_details=True)
    parts = [details["attributes"][name] * weight for name, weight in details["gating"].items()]
    assert sum(parts) == pytest.approx(score, abs=1e-5)


def test_qrm_names_objectives_and_its_quantile_curve_has_the_score_as_its_mean(make):
    score, details = load(make("qrm-llama31")).score(PAIR, return_details=True)
    assert len(details["attributes"]) == 19 and "helpsteer-verbosity" in details["attributes"]
    assert sum(details["quantiles"]) / 19 == pytest.approx(score, abs=1e-5)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not there")
@pytest.mark.parametrize(
    ("slug", "names"),
    [
        ("qrm-llama3", {"rewards": "attributes", "gating_output": "gating", "reward_quantiles": "quantiles"}),
        ("qrm-gemma2", {"rewards": "attributes", "gating_output": "gating"}),
        ("urm", {"attribute_means": "attributes", "attribute_weights": "gating"}),
    ],
)
def test_details_are_the_reference_s(slug, names):
    case = GoldenSet(slug, "shared").cases[0]
    _, details = load(SHARED / slug / "checkpoint").score(case["messages"], return_details=True)
    for theirs, ours in names.items():
        found = details[ours]
        expected = case["details"][theirs]
        assert list(found.values() if isinstance(found, dict) else found) == pytest.approx(expected, abs=1e-4)


def test_the_transform_matrix_of_qrm_llama3_alone_is_held_in_bfloat16(make):
    def scores(rope_scaling: object, dtype: str) -> float:
        def change(spec: Spec) -> None:
            spec["config"]["rope_scaling"] = rope_scaling
            weights(spec)["reward_transform_matrix"]["dtype"] = dtype

        return load(make("qrm-llama3", change)).score(PAIR)

    # A linear scaling by one changes no position, and makes no Llama-3.1 of it either way but for the rounding.
    same_positions = {"rope_type": "linear", "factor": 1.0}
    assert scores(None, "F32") == scores(None, "BF16")
    assert scores(same_positions, "BF16") == pytest.approx(scores(None, "F32"), abs=1e-6)
    assert abs(scores(same_positions, "F32") - scores(None, "F32")) > 1e-4


def test_fewer_blocks_and_another_temperature_of_qrm_come_from_the_config(make):
    def shallow(spec: Spec) -> None:
        spec["config"] |= {"gating_n_hidden": 1, "gating_temperature": 2.5}
        tensors = weights(spec)
        last = {part: tensors[f"gating.layers.9.{part}"] for part in ("weight", "bias")}
        for name in [name for name in tensors if name.startswith("gating.layers.") and int(name.split(".")[2]) > 2]:
            del tensors[name]
        tensors |= {f"gating.layers.3.{part}": tensor for part, tensor in last.items()}

    folder = make("qrm-llama3", shallow)
    w = values(folder)
    ids, states = hidden(folder, rendered(folder, PAIR), special=False)
    header = transformers.PreTrainedTokenizerFast.from_pretrained(folder)(
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n", add_special_tokens=False
    )["input_ids"]
    place = next(i for i in range(len(ids)) if ids[i : i + len(header)] == header)
    gate = torch.nn.functional.batch_norm(
        torch.relu(w["gating.layers.0.weight"] @ states[place])[None],
        *(w[f"gating.layers.2.{part}"] for part in ("running_mean", "running_var", "weight", "bias")),
    )
    gate = w["gating.layers.3.weight"] @ gate[0] + w["gating.layers.3.bias"]
    mixed = torch.softmax(gate / 2.5, 0) * w["gating.logit_scale"]
    means = (w["regression_layer.weight"] @ states[-1]).view(19, 19).mean(1)
    expected = (mixed @ (means @ w["reward_transform_matrix"].bfloat16().float())).item()
    assert load(folder).score(PAIR) == pytest.approx(expected, abs=TOLERANCE)


def test_the_mean_pooling_of_oasst_pythia_is_the_mean_of_all_tokens(make):
    folder = make("oasst-pythia", lambda spec: spec["config"].update(pooling="mean"))
    tensors = values(folder, file="pytorch_model.bin")
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "gpt_neox"}
    model = transformers.GPTNeoXModel(transformers.GPTNeoXConfig.from_dict(config)).eval()
    model.load_state_dict({k.removeprefix("gpt_neox."): v for k, v in tensors.items() if "gpt_neox" in k}, strict=False)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    text = "".join(
        f"<|{'prompter' if m['role'] == 'user' else 'assistant'}|>{m['content']}<|endoftext|>" for m in LONGER
    )
    with torch.no_grad():
        mean = model(torch.tensor([tokenizer(text)["input_ids"]])).last_hidden_state[0].mean(0)
    expected = (tensors["out_proj.weight"][0] @ mean + tensors["out_proj.bias"][0]).item()
    rm = load(folder)
    assert rm.score_batch([PAIR, LONGER])[1] == pytest.approx(expected, abs=TOLERANCE)
    assert rm.score(LONGER) == pytest.approx(expected, abs=TOLERANCE)


def test_buffers_of_old_gpt_neox_checkpoints_are_left_out(make):
    def old(spec: Spec) -> None:
        weights(spec)["gpt_neox.layers.0.attention.bias"] = {"shape": [1, 1, 8, 8], "dtype": "I64", "value": 1}
        weights(spec)["gpt_neox.layers.0.attention.masked_bias"] = {"shape": [1], "value": -1e9}
        weights(spec)["gpt_neox.layers.0.attention.rotary_emb.inv_freq"] = {"shape": [4]}

    assert load(make("oasst-pythia", old)).score(PAIR) == load(make("oasst-pythia")).score(PAIR)


def test_an_unknown_pooling_is_refused(make):
    with pytest.raises(CheckpointError, match="pooling 'max'"):
        AutoRM.inspect(make("oasst-pythia", lambda spec: spec["config"].update(pooling="max")))


@pytest.mark.parametrize("dropped", ["transformer.", "model.model."])
def test_starling_7b_needs_one_copy_of_its_backbone_in_a_file_of_any_name(make, dropped):
    def one_copy(spec: Spec) -> None:
        tensors = spec["files"].pop("pytorch_model.bin")
        whole = {name: tensors[tensor.get("same_as", name)] for name, tensor in tensors.items()}
        # A tensor's values depend on its name, so the one that is named first carries them for both.
        assert all("same_as" not in tensor for name, tensor in tensors.items() if name.startswith("model."))
        spec["files"]["starling.pt"] = {name: whole[name] for name in whole if not name.startswith(dropped)}

    folder = make("starling-7b", one_copy)
    prefix = "model.model." if dropped == "transformer." else "transformer."
    state = values(folder, file="starling.pt")
    config = transformers.LlamaConfig.from_dict(json.loads((folder / "config.json").read_text()))
    model = transformers.LlamaModel(config).eval()
    model.load_state_dict({name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)})
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    ids = tokenizer(f"<s>[INST] {QUESTION} </s> [/INST] {ANSWER}</s>")["input_ids"]
    with torch.no_grad():
        expected = (state["v_head.weight"][0] @ model(torch.tensor([ids])).last_hidden_state[0, -1]).item()
    assert load(folder).score(PAIR) == pytest.approx(expected, abs=TOLERANCE)


def test_text_that_makes_the_padding_id_moves_the_read_of_starling_34b(make):
    folder = make("starling-34b")
    messages = [PAIR[0], {"role": "assistant", "content": "4 <unk> or 5"}]
    ids, states = hidden_starling(folder, rendered(folder, messages).removesuffix("\n"))
    assert 0 in ids
    expected = (values(folder)["v_head.weight"][0] @ states[ids.index(0) - 1]).item()
    assert load(folder).score(messages) == pytest.approx(expected, abs=TOLERANCE)


def hidden_starling(folder: Path, text: str) -> tuple[list[int], torch.Tensor]:
    """As `hidden`, with the backbone under its stock names."""
    config = transformers.LlamaConfig.from_dict(json.loads((folder / "config.json").read_text()))
    model = transformers.LlamaModel(config).eval()
    state = {
        name.removeprefix("transformer."): tensor for name, tensor in values(folder).items() if "v_head" not in name
    }
    model.load_state_dict(state)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    ids = tokenizer(text)["input_ids"]
    with torch.no_grad():
        return ids, model(torch.tensor([ids])).last_hidden_state[0]


def test_the_depth_and_width_of_a_grm_head_come_from_its_tensors(make):
    def deeper(spec: Spec) -> None:
        spec["config"] |= {"vhead_num_layers": 2, "vhead_num_neurons": 24}
        tensors = weights(spec)
        for name in [name for name in tensors if name.startswith("v_head.")]:
            del tensors[name]
        for place, shape in ((0, [24, 128]), (2, [24, 24]), (4, [1, 24])):
            tensors[f"v_head.summary.{place}.weight"] = {"shape": shape}
            tensors[f"v_head.summary.{place}.bias"] = {"shape": shape[:1]}

    folder = make("grm-sftreg-llama3", deeper)
    w = values(folder)
    _, states = hidden(folder, rendered(folder, PAIR), special=True)
    value = states[-1]
    for place in (0, 2, 4):
        value = w[f"v_head.summary.{place}.weight"] @ value + w[f"v_head.summary.{place}.bias"]
        value = torch.relu(value) if place < 4 else value
    assert load(folder).score(PAIR) == pytest.approx(value.item(), abs=TOLERANCE)


def lone_value_head(**config: Any) -> Callable[[Spec], None]:
    """Puts a single linear `v_head.summary` in the place of GRM's layers."""

    def change(spec: Spec) -> None:
        spec["config"] |= config
        spec["config"].pop("auto_map", None)
        tensors = weights(spec)
        for name in [name for name in tensors if name.startswith("v_head.")]:
            del tensors[name]
        tensors |= {"v_head.summary.weight": {"shape": [1, 128]}, "v_head.summary.bias": {"shape": [1]}}

    return change


def test_a_linear_value_head_with_grm_s_keys_is_grm(make):
    folder = make("grm-sftreg-llama3", lone_value_head(vhead_layer_type="linear"))
    w = values(folder)
    _, states = hidden(folder, rendered(folder, PAIR), special=True)
    expected = (w["v_head.summary.weight"][0] @ states[-1] + w["v_head.summary.bias"][0]).item()
    rm = load(folder)
    assert rm.family == "grm"
    assert rm.score(PAIR) == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("architecture", ["GRewardModel", "LlamaForCausalLM", "Whatever"])
def test_a_lone_linear_value_head_is_nobody_s(make, architecture):
    with pytest.raises(UnknownModelError):
        AutoRM.inspect(make("grm-sftreg-llama3", lone_value_head(architectures=[architecture])))


# --- Costs ---------------------------------------------------------------------------------------------------------


def test_a_beaver_cost_is_lower_is_better_and_keeps_its_sign(make):
    rm = load(make("beaver-cost"))
    assert not rm.higher_is_better
    costs = [rm.score(prompt=QUESTION, response=text) for text in ("4", "5", ANSWER)]
    assert rm.rank(prompt=QUESTION, responses=["4", "5", ANSWER]) == sorted(range(3), key=costs.__getitem__)
    assert rm.best_of_n(prompt=QUESTION, responses=["4", "5", ANSWER]) == costs.index(min(costs))
    cost, details = rm.score(PAIR, return_details=True)
    assert details["normalized_score"] == pytest.approx(1 / (1 + torch.tensor(cost).exp().item()), abs=1e-6)
    assert load(make("beaver-reward")).higher_is_better


@pytest.mark.parametrize(
    ("score_type", "stored", "expected"),
    [
        ("reward", True, lambda raw: (raw - 0.5) / 2),
        ("reward", False, lambda raw: (raw - 1.25) / 2.5),
        ("cost", True, lambda raw: raw / 2),
        ("cost", False, lambda raw: raw / 2.5),
        ("critic", True, lambda raw: raw),
    ],
)
def test_beaver_statistics_of_the_weights_win_over_those_of_the_config(make, score_type, stored, expected):
    def change(spec: Spec) -> None:
        spec["config"] |= {"score_type": score_type, "do_normalize": True, "mean": [1.25], "var": [6.25]}
        tensors = weights(spec)
        tensors["normalizer.mean"]["value"], tensors["normalizer.var"]["value"] = 0.5, 4.0
        if not stored:
            del tensors["normalizer.mean"], tensors["normalizer.var"]

    def plain(spec: Spec) -> None:
        spec["config"]["do_normalize"] = False

    raw = load(make("beaver-cost", plain)).score(PAIR)
    rm = load(make("beaver-cost", change))
    score, details = rm.score(PAIR, return_details=True)
    assert score == pytest.approx(expected(raw), abs=TOLERANCE)
    assert details["raw_logits"][0] == pytest.approx(raw, abs=TOLERANCE)
    assert rm.higher_is_better == (score_type != "cost")


def test_a_beaver_bias_that_the_config_promises_must_be_there(make):
    with pytest.raises(CheckpointError) as caught:
        AutoRM.inspect(make("beaver-reward", lambda spec: spec["config"].update(bias=True)))
    assert caught.value.tensor == "score_head.bias"


def test_a_beaver_bias_is_added(make):
    def biased(spec: Spec) -> None:
        spec["config"]["bias"] = True
        weights(spec)["score_head.bias"] = {"shape": [1], "value": 0.75}

    plain = load(make("beaver-reward")).score(PAIR)
    assert load(make("beaver-reward", biased)).score(PAIR) == pytest.approx(plain + 0.75, abs=TOLERANCE)


# --- One question and one answer -----------------------------------------------------------------------------------


@pytest.mark.parametrize("slug", ["starling-7b", "ultrarm", "eurus", "beaver-reward", "deberta-rm"])
@pytest.mark.parametrize(
    "messages", [LONGER, [{"role": "system", "content": "Be brief."}, *PAIR]], ids=["turns", "system"]
)
def test_what_the_card_has_no_text_for_is_refused(make, slug, messages):
    with pytest.raises(InvalidConversationError, match="one question and one answer"):
        load(make(slug)).score(messages)


def test_a_system_prompt_for_oasst_pythia_is_refused(make):
    with pytest.raises(InvalidConversationError, match="'system'"):
        load(make("oasst-pythia")).score([{"role": "system", "content": "Be brief."}, *PAIR])


@pytest.mark.parametrize("truncation", ["prompt", "left", "right"])
def test_a_cut_pair_keeps_cls_sep_and_its_score(make, truncation):
    folder = make("deberta-rm")
    rm = load(folder, max_length=30, truncation=truncation)
    question = "why " * 40 if truncation != "right" else "why?"
    answer = "because " * 40 if truncation == "right" else "because"
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    pair = tokenizer(question, answer)["input_ids"]
    cut = pair[:29] + pair[-1:] if truncation == "right" else pair[:1] + pair[-29:]
    model = transformers.DebertaV2ForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        expected = model(torch.tensor([cut])).logits[0, 0].item()
    score, details = rm.score(prompt=question, response=answer, return_details=True)
    assert score == pytest.approx(expected, abs=TOLERANCE)
    assert details["truncated"] and details["tokens_scored"] == 30


def test_a_cut_question_is_refused_where_the_answer_alone_is_too_long(make):
    with pytest.raises(InputTooLongError, match="never cut"):
        load(make("deberta-rm"), max_length=30, truncation="prompt").score(prompt="why?", response="because " * 40)


@pytest.mark.parametrize("activation", ["gelu", "tanh", "relu"])
def test_the_pooler_of_a_pair_classifier_has_the_config_s_activation(make, activation):
    folder = make("deberta-rm", lambda spec: spec["config"].update(pooler_hidden_act=activation))
    model = transformers.DebertaV2ForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    pair = transformers.PreTrainedTokenizerFast.from_pretrained(folder)(QUESTION, ANSWER)["input_ids"]
    with torch.no_grad():
        expected = model(torch.tensor([pair])).logits[0, 0].item()
    assert load(folder).score(PAIR) == pytest.approx(expected, abs=TOLERANCE)


def test_the_cls_token_of_athene_survives_truncation(make):
    folder = make("athene")
    rm = load(folder, max_length=24, truncation="right")
    text = rendered(folder, PAIR) + "<|reserved_special_token_1|>"
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    ids = tokenizer(text)["input_ids"]
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        states = model(torch.tensor([ids[:23] + ids[-1:]])).last_hidden_state[0]
    assert rm.score(PAIR) == pytest.approx((values(folder)["v_head.weight"][0] @ states[-1]).item(), abs=TOLERANCE)


# --- Formats of training tools -------------------------------------------------------------------------------------


def openrlhf(prefix: str = "value_head", **config: Any) -> Callable[[Spec], None]:
    """Turns a stock classifier into what OpenRLHF writes."""

    def change(spec: Spec) -> None:
        spec["config"] |= {"architectures": ["RewardModel"], **config}
        tensors = weights(spec)
        tensors[f"{prefix}.weight"] = tensors.pop("score.weight")

    return change


@pytest.mark.parametrize(
    ("config", "options", "normalized"),
    [
        ({}, {}, False),
        ({"normalize_reward": True}, {}, False),
        ({"mean": 0.5, "std": 2.0, "normalize_reward": True}, {}, True),
        ({"mean": 0.5, "std": 2.0}, {}, True),
        ({"mean": 0.5, "std": 2.0, "normalize_reward": False}, {}, False),
        ({"mean": 0.5, "std": 2.0, "normalize_reward": False}, {"normalize_reward": True}, True),
        ({"mean": 0.5, "std": 2.0, "normalize_reward": True}, {"normalize_reward": False}, False),
    ],
)
def test_openrlhf_applies_the_stored_mean_and_std_where_asked(make, config, options, normalized):
    folder = make("seqcls-llama3", openrlhf("my_head", value_head_prefix="my_head", **config))
    _, states = hidden(folder, rendered(folder, PAIR), special=False)
    expected = (values(folder)["my_head.weight"][0] @ states[-1]).item()
    rm = load(folder, options=options)
    assert rm.family == "openrlhf"
    assert rm.score(PAIR) == pytest.approx((expected - 0.5) / 2 if normalized else expected, abs=TOLERANCE)


@pytest.mark.parametrize("architecture", ["RewardModel", "LlamaForSequenceClassification"])
@pytest.mark.parametrize("prefix", ["value_head", "score"])
def test_an_openrlhf_head_of_a_default_name_is_found(make, prefix, architecture):
    folder = make("seqcls-llama3", openrlhf(prefix, architectures=[architecture], normalize_reward=False))
    info = AutoRM.inspect(folder)
    assert (info["family"], info["head"]) == ("openrlhf", {f"{prefix}.weight": [1, 128]})


def test_buffers_of_an_openrlhf_checkpoint_win_over_its_config(make):
    def buffered(spec: Spec) -> None:
        openrlhf(mean=0.5, std=2.0, normalize_reward=True)(spec)
        weights(spec).update({"mean": {"shape": [1], "value": 3.0}, "std": {"shape": [1], "value": 4.0}})

    raw = load(make("seqcls-llama3", openrlhf())).score(PAIR)
    assert load(make("seqcls-llama3", buffered)).score(PAIR) == pytest.approx((raw - 3) / 4, abs=TOLERANCE)


@pytest.mark.parametrize(
    ("slug", "end"),
    [("seqcls-qwen2", lambda t: t.rstrip("\n")), ("seqcls-gemma1", lambda t: t.rstrip("\n") + " <eos>")],
)
def test_openrlhf_closes_a_conversation_with_eos(make, slug, end):
    folder = make(slug, openrlhf("score", value_head_prefix="score"))
    ids, states = hidden(folder, end(rendered(folder, PAIR)), special=False)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    assert ids[-1] == tokenizer.eos_token_id
    expected = (values(folder)["score.weight"][0] @ states[-1]).item()
    assert load(folder).score(PAIR) == pytest.approx(expected, abs=TOLERANCE)


def test_an_openrlhf_critic_is_no_reward_model(make):
    with pytest.raises(UnknownModelError):
        AutoRM.inspect(make("seqcls-llama3", openrlhf(architectures=["CriticModel"], value_head_prefix="value_head")))


def test_an_openrlhf_head_that_is_not_there_is_named(make):
    with pytest.raises(CheckpointError) as caught:
        AutoRM.inspect(make("seqcls-llama3", openrlhf("head", value_head_prefix="value_head")))
    assert caught.value.tensor == "value_head.weight"


def value_head_file(file: str, **config: Any) -> Callable[[Spec], None]:
    """Turns a stock classifier into what LLaMA-Factory writes."""

    def change(spec: Spec) -> None:
        spec["config"] |= {"architectures": ["LlamaForCausalLM"], **config}
        tensors = weights(spec)
        head = {
            "v_head.summary.weight": tensors.pop("score.weight"),
            "v_head.summary.bias": {"shape": [1], "value": 0.4},
        }
        tensors["lm_head.weight"] = dict(tensors["model.embed_tokens.weight"])
        spec["files"][file] = head

    return change


@pytest.mark.parametrize("file", ["value_head.safetensors", "value_head.bin"])
def test_a_value_head_file_is_read_at_the_last_token(make, file):
    folder = make("seqcls-llama31", value_head_file(file))
    _, states = hidden(folder, rendered(folder, LONGER), special=False)
    head = values(folder, file=file)
    expected = (head["v_head.summary.weight"][0] @ states[-1] + head["v_head.summary.bias"][0]).item()
    rm = load(folder)
    assert rm.family == "llama-factory"
    assert rm.score(LONGER) == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft 0.19 asks transformers 5.19
def test_a_value_head_beside_an_adapter_is_read(make, tmp_path):
    peft = pytest.importorskip("peft")

    base = make("seqcls-llama31", value_head_file("value_head.safetensors"))
    adapter = tmp_path / "adapter"
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    torch.manual_seed(1)
    lora = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    wrapped = peft.get_peft_model(model, lora)
    wrapped.save_pretrained(adapter)
    (base / "value_head.safetensors").rename(adapter / "value_head.safetensors")

    rm = load(adapter)

    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(base)
    ids = tokenizer(rendered(base, PAIR), add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        states = wrapped(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0]
    head = values(adapter, file="value_head.safetensors")
    expected = (head["v_head.summary.weight"][0] @ states[-1] + head["v_head.summary.bias"][0]).item()
    assert rm.family == "llama-factory"
    assert rm.score(PAIR) == pytest.approx(expected, abs=TOLERANCE)


def test_a_value_head_file_without_its_tensor_is_an_error_that_names_it(make):
    def change(spec: Spec) -> None:
        value_head_file("value_head.safetensors")(spec)
        del spec["files"]["value_head.safetensors"]["v_head.summary.bias"]

    with pytest.raises(CheckpointError) as caught:
        AutoRM.inspect(make("seqcls-llama31", change))
    assert caught.value.tensor == "value_head.v_head.summary.bias"


# --- Near misses ---------------------------------------------------------------------------------------------------


def test_armorm_and_qrm_of_the_same_architecture_name_are_told_apart(make):
    armorm, qrm = make("armorm"), make("qrm-llama3")
    names = [json.loads((folder / "config.json").read_text())["architectures"] for folder in (armorm, qrm)]
    assert names[0] == names[1]
    assert [AutoRM.inspect(folder)["family"] for folder in (armorm, qrm)] == ["armorm", "qrm"]


def test_a_gate_in_the_layout_of_qrm_v2_is_not_taken_for_v1(make):
    def second_version(spec: Spec) -> None:
        spec["config"] |= {"architectures": ["LlamaForQuantileSequenceClassification"], "num_objectives": 5}
        del spec["config"]["auto_map"]
        del weights(spec)["reward_transform_matrix"]

    with pytest.raises(UnknownModelError):
        AutoRM.inspect(make("qrm-llama31", second_version))


def test_ziya_is_not_taken_for_ultrarm(make):
    def ziya(spec: Spec) -> None:
        weights(spec)["value_head.weight"] = weights(spec).pop("regression_head.weight")

    with pytest.raises(UnknownModelError, match=r"value_head\.weight"):
        AutoRM.inspect(make("ultrarm", ziya))


@pytest.mark.parametrize("labels", [{"num_labels": 5}, {"id2label": {str(i): f"L{i}" for i in range(5)}}])
def test_a_classifier_of_five_labels_is_no_reward_model(make, labels):
    def five(spec: Spec) -> None:
        spec["config"].pop("id2label", None)
        spec["config"] |= labels
        weights(spec)["score.weight"]["shape"] = [5, 128]

    with pytest.raises(UnknownModelError):
        AutoRM.inspect(make("seqcls-llama3", five))


def test_a_classifier_whose_head_has_five_rows_for_one_label_is_an_error_that_names_it(make):
    def five(spec: Spec) -> None:
        weights(spec)["score.weight"]["shape"] = [5, 128]

    with pytest.raises(CheckpointError, match=r"\[5, 128\]") as caught:
        AutoRM.inspect(make("seqcls-llama3", five))
    assert caught.value.tensor == "score.weight"


def test_a_deberta_classifier_of_three_labels_is_no_reward_model(make):
    def three(spec: Spec) -> None:
        spec["config"]["id2label"] = {"0": "yes", "1": "no", "2": "neither"}
        weights(spec)["classifier.weight"]["shape"] = [3, 128]
        weights(spec)["classifier.bias"]["shape"] = [3]

    with pytest.raises(UnknownModelError):
        AutoRM.inspect(make("deberta-rm", three))


def test_a_causal_model_is_not_guessed_to_be_a_reward_model(make):
    with pytest.raises(UnknownModelError) as caught:
        AutoRM.inspect(make("nemotron-hf"))
    assert "nemotron" in caught.value.near


def test_a_tied_lm_head_holds_no_reward_row(make):
    folder = make("nemotron-hf", lambda spec: spec["config"].update(tie_word_embeddings=True))
    with pytest.raises(CheckpointError, match="ties"):
        AutoRM.inspect(folder, family="nemotron")


def test_a_stock_classifier_is_read_with_one_bos_unless_grm_ft_is_said(make):
    folder = make("grm-ft-llama3")
    scores = {}
    for family, special in (("sequence-classifier", False), ("grm-ft", True)):
        _, states = hidden(folder, rendered(folder, PAIR), special=special)
        scores[family] = (values(folder)["score.weight"][0] @ states[-1]).item()
        assert load(folder, family=family).score(PAIR) == pytest.approx(scores[family], abs=TOLERANCE)
    assert load(folder).score(PAIR) == pytest.approx(scores["sequence-classifier"], abs=TOLERANCE)


def test_the_class_name_of_starling_34b_does_not_make_it_a_stock_classifier(make):
    folder = make("starling-34b")
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["LlamaForSequenceClassification"]
    assert AutoRM.inspect(folder)["family"] == "starling"


def test_a_linear_v_head_without_a_cls_token_is_no_athene(make):
    folder = make("athene")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("cls_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match="cls token"):
        AutoRM.inspect(folder)


def test_urm_is_told_from_a_classifier_of_ten_labels(make):
    def ten(spec: Spec) -> None:
        spec["config"]["architectures"] = ["LlamaForSequenceClassification"]
        weights(spec)["score.weight"]["shape"] = [10, 128]

    with pytest.raises(CheckpointError) as caught:
        AutoRM.inspect(make("seqcls-llama3", ten))
    assert caught.value.tensor == "score.weight"
