"""Scores by the cards' own forwards, in plain transformers and torch: nothing of this project computes them.

A card's forward is a stock class of transformers, or a backbone with a few layers of the checkpoint's tensors on the
hidden vectors that it reads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import sentencepiece
import torch
import transformers
from safetensors.torch import load_file
from torch.nn import functional

Tensors = dict[str, torch.Tensor]
# Positions whose logits over a whole vocabulary are held at once: 150 MB.
BLOCK = 128
# (ids, positions) -> scores
Forward = Callable[[list[int], list[int]], list[float]]
# (hidden vectors at the positions, tensors, config) -> scores
Head = Callable[[Any, Tensors, Any], Any]
# Two causal models, whose log-probabilities are compared.
IMPLICIT = ("dpo-implicit", "drsow", "drsow-bos")
# What the checkpoints of a set call their backbone, where it is not "model.".
PREFIXES = {"ldl-gemma2": "", "starling-7b": "transformer."}
MODEL_TYPES = {"reasoneval": "mistral", "internlm2-reward": "llama"}


def forward_of(slug: str, folder: Path, beta: float = 1.0) -> Forward:
    """The forward of a set's checkpoint; `beta` is DPO's."""
    with torch.no_grad():
        if slug.startswith("seqcls") or slug == "grm-ft-llama3":
            return _classifier(folder)
        if slug == "trl-prm-token-classification":
            return _token_classifier(folder)
        if slug in IMPLICIT:
            return _log_ratio(folder, beta, mean=slug != "dpo-implicit")
        tensors, net = _backbone(slug, folder)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        head = HEADS[slug] if slug in HEADS else _of_two_tokens(_ids_of(folder, LABELS[slug]))
        return lambda ids, positions: head(_hidden(net, ids)[positions], tensors, config).reshape(-1).tolist()


# Models


def _run(net: Any, ids: list[int]) -> Any:
    with torch.no_grad():
        return net(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long))


def _hidden(net: Any, ids: list[int]) -> Any:
    return _run(net, ids).last_hidden_state[0]


def _stock(auto: Any, folder: Path, **fields: Any) -> Any:
    gemma = "gemma" in json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    attention = "eager" if gemma else "sdpa"  # Gemma-2 caps attention, which sdpa does not
    config = transformers.AutoConfig.from_pretrained(folder, **fields)
    if (config.model_type, getattr(config, "hidden_act", None)) == ("gemma", "gelu"):
        # As Gemma was trained; transformers reads its first configs so from 5.19 on.
        config.hidden_act = config.hidden_activation = "gelu_pytorch_tanh"
    return auto.from_pretrained(folder, config=config, dtype=torch.float32, attn_implementation=attention).eval()


def _classifier(folder: Path) -> Forward:
    net = _stock(transformers.AutoModelForSequenceClassification, folder, num_labels=1)
    return lambda ids, positions: _run(net, ids).logits.reshape(-1).tolist()


def _token_classifier(folder: Path) -> Forward:
    net = _stock(transformers.AutoModelForTokenClassification, folder)
    return lambda ids, positions: _run(net, ids).logits[0, positions].softmax(-1)[:, 1].tolist()


def _log_ratio(folder: Path, beta: float, *, mean: bool) -> Forward:
    """Log-probabilities of the response's tokens under the policy less those under the reference."""
    nets = [_stock(transformers.AutoModelForCausalLM, folder / part) for part in ("policy", "reference")]
    # Dr. SoW's sums leave out the padding token, wherever it stands.
    padding = transformers.AutoTokenizer.from_pretrained(folder / "policy").pad_token_id if mean else None

    @torch.no_grad()
    def forward(ids: list[int], positions: list[int]) -> list[float]:
        positions = [place for place in positions if ids[place] != padding]
        sums = []
        for net in nets:
            states, logprobs = _hidden(net.model, ids), []
            for first in range(0, len(positions), BLOCK):
                places = positions[first : first + BLOCK]
                logits = net.lm_head(states[[place - 1 for place in places]]).double()
                taken = logits[range(len(places)), [ids[place] for place in places]]
                logprobs.append(taken - logits.logsumexp(-1))
            sums.append(float(torch.cat(logprobs).sum()))
        return [beta * (sums[0] - sums[1]) / (len(positions) if mean else 1)]

    return forward


def _backbone(slug: str, folder: Path) -> tuple[Tensors, Any]:
    tensors: Tensors = {}
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin"), *folder.glob("*.pt")]):
        state = load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)
        named = "" if file.suffix != ".pt" else f"{file.stem}."
        tensors |= {named + name: tensor.float() for name, tensor in state.items()}
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = {key: value for key, value in config.items() if key not in ("auto_map", "architectures")}
    model_type = MODEL_TYPES.get(slug, config.pop("model_type"))
    if slug == "internlm2-reward":
        tensors = _unpacked(tensors, config)
    made = transformers.AutoConfig.for_model(model_type, **{k: v for k, v in config.items() if k != "model_type"})
    attention = "eager" if "gemma" in model_type else "sdpa"
    net = transformers.AutoModel.from_config(made, attn_implementation=attention).float().eval()
    prefix = PREFIXES.get(slug, "model.")
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    missing = [name for name in net.load_state_dict(own, strict=False).missing_keys if "inv_freq" not in name]
    assert not missing, missing
    return tensors, net


def _unpacked(tensors: Tensors, config: Any) -> Tensors:
    """InternLM2's tensors by Llama's names; queries, keys and values of a group are rows of one tensor."""
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    each = config["hidden_size"] // heads
    names = {
        "tok_embeddings": "embed_tokens",
        "attention_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "attention.wo": "self_attn.o_proj",
        "feed_forward.w1": "mlp.gate_proj",
        "feed_forward.w3": "mlp.up_proj",
        "feed_forward.w2": "mlp.down_proj",
    }
    found: Tensors = {}
    for name, tensor in tensors.items():
        for was, becomes in names.items():
            name = name.replace(was, becomes)
        if "wqkv" not in name:
            found[name] = tensor
            continue
        rows = tensor.view(groups, heads // groups + 2, each, -1)
        layer = name.split("attention.wqkv")[0] + "self_attn."
        for part, cut in (("q", rows[:, :-2]), ("k", rows[:, -2]), ("v", rows[:, -1])):
            found[f"{layer}{part}_proj.weight"] = cut.reshape(-1, config["hidden_size"])
    return found


# Heads


def _linear(hidden: Any, tensors: Tensors, name: str) -> Any:
    return functional.linear(hidden, tensors[f"{name}.weight"], tensors.get(f"{name}.bias"))


def _layers(*names: str, between: Any = torch.relu) -> Head:
    def head(hidden: Any, tensors: Tensors, config: Any) -> Any:
        for i, name in enumerate(names):
            hidden = _linear(between(hidden) if i else hidden, tensors, name)
        return hidden

    return head


def _sigmoid(head: Head) -> Head:
    return lambda hidden, tensors, config: head(hidden, tensors, config).sigmoid()


def _second_of_two(head: Head) -> Head:
    return lambda hidden, tensors, config: head(hidden, tensors, config).softmax(-1)[:, 1]


# The pieces of a vocabulary whose probabilities are compared: that of the first is the score.
LABELS = {
    "rlhflow-prm": ("+", "-"),
    "versaprm": ("+", "-"),
    "rlhflow-pair-pm": ("A", "B"),
    "math-shepherd": ("▁+", "▁-"),
}


def _ids_of(folder: Path, pieces: Sequence[str]) -> list[int]:
    if (folder / "tokenizer.json").is_file():
        vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
        return [vocabulary[piece] for piece in pieces]
    library = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    return [library.piece_to_id(piece) for piece in pieces]


def _of_two_tokens(ids: list[int]) -> Head:
    def head(hidden: Any, tensors: Tensors, config: Any) -> Any:
        return (hidden @ tensors["lm_head.weight"][ids].T).softmax(-1)[:, 0]

    return head


def _armorm(hidden: Any, tensors: Tensors, config: Any) -> Any:
    gate, last = hidden
    rewards = _linear(last, tensors, "regression_layer") @ tensors["reward_transform_matrix"]
    mlp = _layers(*(f"gating.layers.{i}" for i in range(config["gating_n_hidden"] + 1)))
    weights = (mlp(gate, tensors, config) / config["gating_temperature"]).softmax(-1) * tensors["gating.logit_scale"]
    return (weights * rewards).sum()


def _qrm(hidden: Any, tensors: Tensors, config: Any) -> Any:
    """Some quantiles of each objective; the gates of QRM-Llama3.1 and QRM-Gemma2 hold batch norms, too."""
    gate, last = hidden
    means = _linear(last, tensors, "regression_layer").view(-1, config.get("num_quantiles", 19)).mean(-1)
    if "reward_transform_matrix" in tensors:
        means = means @ tensors["reward_transform_matrix"]
    for i in sorted({int(name.split(".")[2]) for name in tensors if name.startswith("gating.layers.")}):
        layer = f"gating.layers.{i}."
        if f"{layer}running_mean" in tensors:
            parts = [tensors[layer + part] for part in ("running_mean", "running_var", "weight", "bias")]
            gate = functional.batch_norm(torch.relu(gate)[None], *parts)[0]
        else:
            gate = _linear(gate, tensors, layer[:-1])
    weights = (gate / config.get("gating_temperature", 1.0)).softmax(-1) * tensors.get("gating.logit_scale", 1.0)
    return (weights * means).sum()


def _qrm_of_rounded(hidden: Any, tensors: Tensors, config: Any) -> Any:
    """QRM-Llama3's class holds its matrix in bfloat16."""
    rounded = tensors["reward_transform_matrix"].bfloat16().float()
    return _qrm(hidden, {**tensors, "reward_transform_matrix": rounded}, config)


def _urm(hidden: Any, tensors: Tensors, config: Any) -> Any:
    weights = _layers("weights.fc.0", "weights.fc.2", "weights.fc.4", between=functional.selu)(hidden, tensors, config)
    return ((hidden @ tensors["score.weight"].T)[:, 0::2] * weights).sum()


def _beaver(hidden: Any, tensors: Tensors, config: Any) -> Any:
    score = _linear(hidden, tensors, "score_head")
    if config.get("do_normalize"):
        deviation = tensors["normalizer.var"].sqrt() + 1e-8
        score = (score if config["score_type"] == "cost" else score - tensors["normalizer.mean"]) / deviation
    return score


def _ldl(hidden: Any, tensors: Tensors, config: Any) -> Any:
    """A distribution over ten scores for each objective, and a weight for each."""
    regression, gating = (
        _layers(*(f"{file}.network.{i}" for i in places), between=functional.leaky_relu)
        for file, places in (("regression_layer", (0, 2, 4)), ("gating_layer", (0, 3, 6)))
    )
    weights = gating(hidden, tensors, config)[0]
    if config.get("softmax"):
        weights = (weights / config.get("temperature", 1.0)).softmax(-1)
    distributions = regression(hidden, tensors, config).view(-1, 10).softmax(-1)
    return (weights @ distributions * torch.arange(10) / 9).sum()


def _actprm(hidden: Any, tensors: Tensors, config: Any) -> Any:
    """The mean probability of an ensemble of heads."""
    states = hidden.expand(tensors["score.model.nn1.weight"].shape[0], *hidden.shape)
    for i, name in enumerate(("nn1", "nn2", "nn_out")):
        weight, bias = (tensors[f"score.model.{name}.{part}"] for part in ("weight", "bias"))
        states = torch.bmm(torch.relu(states) if i else states, weight) + bias[:, None]
    return states[..., 0].sigmoid().mean(0)


def _reasoneval(hidden: Any, tensors: Tensors, config: Any) -> Any:
    return _linear(hidden, tensors, "score_head").softmax(-1)[:, 1:].sum(-1)


HEADS: dict[str, Head] = {
    "armorm": _armorm,
    **dict.fromkeys(("qrm-llama31", "qrm-gemma2"), _qrm),
    "qrm-llama3": _qrm_of_rounded,
    **dict.fromkeys(("inf-orm", "qwen2-math-rm", "worldpm"), _layers("score.0", "score.2")),
    **dict.fromkeys(("grm-sftreg-llama3", "grm-sftreg-gemma2"), _layers("v_head.summary.0", "v_head.summary.2")),
    **dict.fromkeys(("athene", "starling-7b", "internlm2-reward"), _layers("v_head")),
    **dict.fromkeys(("ultrarm", "eurus"), _layers("regression_head")),
    "urm": _urm,
    "beaver-reward": _beaver,
    "nemotron-hf": lambda hidden, tensors, config: hidden @ tensors["lm_head.weight"][0],
    "ldl-gemma2": _ldl,
    "qwen2.5-math-prm": _second_of_two(_layers("score.0", "score.2")),
    "skywork-o1-open-prm": _sigmoid(_layers("v_head.summary")),
    "reasonflux-prm-1.5b": _sigmoid(lambda hidden, tensors, config: _linear(hidden, tensors, "reward_head")),
    "reasoneval": _reasoneval,
    "actprm-ensemble": _actprm,
}


def scored(cases: Sequence[Any], slug: str) -> set[str]:
    """The ids of the cases whose scores are compared: the hard ones and every fourth real one.

    Fewer where each takes a second or more: 8,000 tokens in three checkpoints alone, of three kinds; of implicit
    rewards, which need two models' logits over the whole vocabulary at every token of a response, every twentieth.
    """
    long, implicit = {"hard/8k tokens", "hard/many"}, slug in IMPLICIT
    step = 20 if implicit else 4
    kept = {case["id"] for i, case in enumerate(cases) if i % step == 0 or case["id"].startswith("hard/")}
    if implicit:
        long.add("hard/long answer")
    return kept if slug in ("seqcls-llama3", "seqcls-qwen3", "rlhflow-prm") else kept - long
