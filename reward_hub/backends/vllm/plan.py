"""How vLLM is asked: one read of one checkpoint to engine arguments and requests. Pure; vLLM is not imported.

A vLLM engine serves one pooling task, so one engine answers one read. Its names change with every minor version: all
of them stand here and in `vllm_plugin`. Written for 0.32 (tried) and 0.33 (from its source).

    HeadOutputs, linear `score`, one position     convert=classify, task classify: the engine's own head
    HeadOutputs, linear, many positions           the same with task token_classify; another name is renamed `score`
    HeadOutputs, the two layers of Qwen2 RM/PRM   vLLM's own class, token_classify of all tokens
    HeadOutputs, any other head, few positions    hidden vector at the end of each prefix, head in numpy
    HeadOutputs, any other head, many positions   hidden vectors of all tokens, head in numpy
    TokenLogits                                   convert=classify from the LM head's rows of the tokens
    TokenLogprobs                                 prompt_logprobs of a generating engine

No activation is ever applied by the engine: vLLM's default is sigmoid, softmax or L2 norm.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from reward_hub.backends.odd_fields import without_odd_fields
from reward_hub.backends.vllm import attention
from reward_hub.errors import UnsupportedError
from reward_hub.family import Backbone
from reward_hub.heads import MLP, Averaged, Head, Linear, Stacked, relu
from reward_hub.reads import HeadOutputs, Read, TokenLogits, TokenLogprobs
from reward_hub.types import Config, TensorShapes

TESTED_VERSIONS = ((0, 32),)
KNOWN_VERSIONS = ((0, 32), (0, 33))
# Tokens a forward pass when log-probabilities are read: each makes a row over the whole vocabulary.
LOGPROB_BATCH_TOKENS = 2048

# Decoders of transformers that vLLM has, with `model.` and `lm_head.` as their only parts: model type -> class stem.
# Every one was compared with transformers in float32 on random weights (tests/vllm_backend/test_backbones.py).
STEMS = {
    "cohere": "Cohere",
    "gemma": "Gemma",
    "gemma2": "Gemma2",
    "gemma3_text": "Gemma3",
    "granite": "Granite",
    "llama": "Llama",
    "mistral": "Mistral",
    "phi3": "Phi3",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
}
# Those that attend to everything before, whatever else their config says; vLLM gives any model the window it names.
WITHOUT_WINDOW = frozenset({"cohere", "gemma", "granite", "llama"})
PLUGIN_PREFIX = "RewardHub"
"""Before the name of a vLLM class: the same class, with the weight loader of `vllm_plugin`."""
RULES_KEY = "reward_hub_weights"
"""The entry of the model's config by which that loader gets its rules."""

_PARTS = ("model.", "lm_head.", "score.")
# Top-level names of a checkpoint that holds the bare backbone.
_BARE = frozenset({"layers", "embed_tokens", "norm", "model", "lm_head"})

Asked: TypeAlias = Literal["prefixes", "tokens", "logprobs"]


@dataclass(frozen=True)
class WeightRules:
    """How the tensors of a foreign checkpoint become those of a stock one.

    Attributes:
        drop: regular expressions of tensors that are left out: heads, and what no model reads.
        rename: (regular expression, replacement) pairs; the first that matches is applied.
        split: packed tensors have to be cut too (`Backbone.split`), which no rule says.
    """

    drop: tuple[str, ...] = ()
    rename: tuple[tuple[str, str], ...] = ()
    split: bool = False

    def stock_name(self, name: str) -> str | None:
        """The name under which vLLM's class knows the tensor; None: it is left out."""
        if any(re.search(pattern, name) for pattern in self.drop):
            return None
        for pattern, replacement in self.rename:
            renamed, hits = re.subn(pattern, replacement, name)
            if hits:
                name = renamed
                break
        return name if name.startswith(_PARTS) else f"model.{name}"

    def to_json(self) -> dict[str, Any]:
        return {"drop": list(self.drop), "rename": [list(pair) for pair in self.rename]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> WeightRules:
        return cls(tuple(values["drop"]), tuple((pattern, text) for pattern, text in values["rename"]))


@dataclass(frozen=True)
class VllmPlan:
    """What an engine is started with, what it is asked for each input, and what is left to do on this side.

    Attributes:
        architecture: the vLLM class.
        asks: "prefixes": one request a position, ending there; "tokens": one request, rows taken at the positions;
            "logprobs": one request, log-probabilities of its tokens.
        native: the engine applies the head. Otherwise it gives hidden vectors, and the head is applied to them here.
        bias: a tensor to be added to what the engine's head gives (its linear layer has no bias).
        weights: rules for a checkpoint that vLLM would refuse as it is; None where it takes it.
        unused: regular expressions of those tensors left out that neither the head nor the family knows of.
        config: a config.json in place of the checkpoint's own; None where that one is stock.
    """

    runner: Literal["pooling", "generate"]
    convert: Literal["embed", "classify", "none"]
    task: str | None
    architecture: str
    asks: Asked
    native: bool
    hf_overrides: Mapping[str, Any] = field(default_factory=dict)
    pooler_config: Mapping[str, Any] | None = None
    bias: str | None = None
    weights: WeightRules | None = None
    unused: tuple[str, ...] = ()
    config: Config | None = None

    @property
    def needs_tokenizer(self) -> bool:
        """vLLM looks up the tokens of `classifier_from_token` itself."""
        return "classifier_from_token" in self.hf_overrides

    def overrides(self, *, plugin: bool) -> dict[str, Any]:
        """`hf_overrides`; with `plugin` the weights are adapted by vllm_plugin's loader while they are read."""
        if not plugin or self.weights is None:
            return {"architectures": [self.architecture], **self.hf_overrides}
        return {
            "architectures": [PLUGIN_PREFIX + self.architecture],
            RULES_KEY: self.weights.to_json(),
            **self.hf_overrides,
        }

    def engine_arguments(self, *, plugin: bool = False) -> dict[str, Any]:
        """Keyword arguments of `vllm.LLM` that this plan decides, `model` apart."""
        arguments: dict[str, Any] = {
            "runner": self.runner,
            "convert": self.convert,
            "hf_overrides": self.overrides(plugin=plugin),
            "config_format": "hf",
        }
        if self.pooler_config is not None:
            arguments["pooler_config"] = dict(self.pooler_config)
        return arguments

    def serve_flags(self, *, plugin: bool = False) -> list[str]:
        """The same for `vllm serve`."""
        flags = ["--runner", self.runner, "--convert", self.convert]
        flags += ["--hf-overrides", json.dumps(self.overrides(plugin=plugin)), "--config-format", "hf"]
        if self.pooler_config is not None:
            flags += ["--pooler-config", json.dumps(dict(self.pooler_config))]
        return flags


def why_not(read: Read | None, config: Config, backbone: Backbone | None = None) -> str | None:
    """Why vLLM cannot answer this read of this checkpoint; None where it can."""
    stock = backbone.config if backbone is not None else config
    model_type = stock.get("model_type")
    if model_type not in STEMS:
        named = ", ".join(config.get("architectures") or ()) or f"model type {model_type!r}"
        return f"vLLM cannot run {named} the way it is read here (model types it serves: {', '.join(STEMS)})"
    if backbone is not None and not backbone.causal:
        return "vLLM's classes for this model are causal, and it attends in both directions"
    if isinstance(read, HeadOutputs) and _averages(read.head):
        return "vLLM has no use for a mean over all hidden vectors"
    return attention.why_not(stock)


def can_serve(read: Read, config: Config, backbone: Backbone | None = None) -> bool:
    return why_not(read, config, backbone) is None


def plan(
    read: Read,
    config: Config,
    shapes: TensorShapes,
    *,
    backbone: Backbone | None = None,
    many: bool = False,
    pieces: Sequence[str] | None = None,
    tensor_parallel_size: int = 1,
    quantized: bool = False,
    native: bool = True,
) -> VllmPlan:
    """How vLLM answers `read`.

    Args:
        shapes: every tensor of the weight files.
        many: inputs have many positions (steps), not one or two.
        pieces: the vocabulary pieces of a `TokenLogits` read, where vLLM's tokenizer is known to give the same ids.
        quantized: the engine quantises linear layers, the head's among them; the head then stays on this side.
        native: False leaves every head to numpy.

    Raises:
        UnsupportedError: vLLM cannot.
    """
    reason = why_not(read, config, backbone)
    if reason is not None:
        raise UnsupportedError(f"{reason}. Load it with load_method='transformers'.")
    native = native and not quantized and not config.get("quantization_config")
    stock = backbone.config if backbone is not None else config
    draft = _draft(read, stock, shapes, many=many, pieces=pieces if tensor_parallel_size == 1 else None, native=native)
    return _with_weights(draft, read, config, shapes, backbone)


@dataclass(frozen=True)
class _Draft:
    """A plan without the weights; `score` is the head's name in the checkpoint where the engine is to apply it."""

    runner: Literal["pooling", "generate"]
    convert: Literal["embed", "classify", "none"]
    task: str | None
    suffix: str
    asks: Asked
    stem: str
    native: bool = False
    score: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)


def _draft(
    read: Read, config: Config, shapes: TensorShapes, *, many: bool, pieces: Sequence[str] | None, native: bool
) -> _Draft:
    stem = STEMS[config["model_type"]]
    hidden = _Draft(
        "pooling",
        "embed",
        "token_embed" if many else "embed",
        "ForCausalLM",
        "tokens" if many else "prefixes",
        stem,
    )
    if isinstance(read, TokenLogprobs):
        return _Draft("generate", "none", None, "ForCausalLM", "logprobs", stem, native=True)
    task = "token_classify" if many else "classify"
    asks: Asked = "tokens" if many else "prefixes"
    if not native:
        return hidden
    if isinstance(read, TokenLogits):
        # vLLM takes the rows of a vocabulary that is cut over the devices without looking where (0.32), so `pieces` is
        # None with several of them; and it forgets the LM head's bias.
        if pieces is None or "lm_head.bias" in shapes:
            return hidden
        overrides = {"classifier_from_token": list(pieces), "method": "no_post_processing"}
        return _Draft(
            "pooling", "classify", task, "ForSequenceClassification", asks, stem, native=True, overrides=overrides
        )
    head = read.head
    if isinstance(head, MLP) and _is_qwen2_reward(head, config, shapes):
        suffix = "ForRewardModel" if head.width == 1 else "ForProcessRewardModel"
        return _Draft("pooling", "none", "token_classify", suffix, "tokens", stem, native=True, score="score")
    # One hidden vector is as quickly shipped as one logit: only `score` itself is left to the engine there.
    if isinstance(head, Linear) and (many or head.name == "score") and _fits(head, shapes):
        labels = {"num_labels": head.width}
        return _Draft(
            "pooling",
            "classify",
            task,
            "ForSequenceClassification",
            asks,
            stem,
            native=True,
            score=head.name,
            overrides=labels,
        )
    return hidden


def _is_qwen2_reward(head: MLP, config: Config, shapes: TensorShapes) -> bool:
    """vLLM's Qwen2ForRewardModel and Qwen2ForProcessRewardModel: two layers, ReLU between, one or two outputs."""
    if config["model_type"] != "qwen2":
        return False
    size = int(config["hidden_size"])
    if shapes.get("score.0.weight") != (size, size) or not head.bias:
        return False
    return head.layers == ("score.0", "score.2") and head.activation is relu and head.width in (1, 2)


def _fits(head: Linear, shapes: TensorShapes) -> bool:
    """The head's weight is among those that vLLM is given - without it, it would answer with uninitialised memory - and
    there is no bias that it would add and the head does not."""
    return f"{head.name}.weight" in shapes and (head.bias is not False or f"{head.name}.bias" not in shapes)


def _averages(head: Head) -> bool:
    parts = head.heads if isinstance(head, Stacked) else (getattr(head, "head", None),)
    return isinstance(head, Averaged) or any(part is not None and _averages(part) for part in parts)


def _with_weights(
    draft: _Draft, read: Read, config: Config, shapes: TensorShapes, backbone: Backbone | None
) -> VllmPlan:
    """The plan, with rules for the weights where vLLM's class would refuse a tensor or miss one."""
    bias = None
    drop = list(backbone.ignore) if backbone is not None else []
    rename = list(backbone.rename) if backbone is not None else []
    if isinstance(read, HeadOutputs) and draft.score is None:
        drop += [f"^{re.escape(name)}$" for name in (*read.head.tensors(), *read.head.optional())]
    if draft.score is not None and draft.score != "score":
        rename.insert(0, (f"^{re.escape(draft.score)}\\.weight$", "score.weight"))
        drop.append(f"^{re.escape(draft.score)}\\.bias$")
        bias = f"{draft.score}.bias" if f"{draft.score}.bias" in shapes else None
    if draft.task is not None and "classifier_from_token" not in draft.overrides:
        drop.append(r"(^|\.)lm_head\.")
    unused = _strangers(shapes, WeightRules(tuple(drop), tuple(rename)), keep_score=draft.score is not None)
    split = backbone is not None and backbone.split is not None
    rules = WeightRules((*drop, *unused), tuple(rename), split)
    foreign = split or any(_is_foreign(name, rules) for name in shapes)
    stock = without_odd_fields(backbone.config if backbone is not None else config)
    return VllmPlan(
        runner=draft.runner,
        convert=draft.convert,
        task=draft.task,
        architecture=draft.stem + draft.suffix,
        asks=draft.asks,
        native=draft.native,
        hf_overrides={**draft.overrides, **_window(stock)},
        pooler_config=_pooler_config(draft),
        bias=bias,
        weights=rules if foreign else None,
        unused=tuple(unused),
        config=stock if dict(stock) != dict(config) else None,
    )


def _window(config: Config) -> dict[str, Any]:
    stray = config["model_type"] in WITHOUT_WINDOW and config.get("sliding_window") is not None
    return {"sliding_window": None} if stray else {}


def _pooler_config(draft: _Draft) -> dict[str, Any] | None:
    if draft.task is None:
        return None
    kind = {"tok_pooling_type": "ALL"} if draft.task.startswith("token_") else {"seq_pooling_type": "LAST"}
    return {"task": draft.task, "use_activation": False, **kind}


def _strangers(shapes: TensorShapes, rules: WeightRules, *, keep_score: bool) -> list[str]:
    """Top-level tensors that belong to nothing that is read: another head, statistics of a training."""
    parts = frozenset({"model", "lm_head"}) if any(name.startswith("model.layers.") for name in shapes) else _BARE
    parts = parts | {"score"} if keep_score else parts
    patterns = set()
    for name in shapes:
        top = name.partition(".")[0]
        untouched = rules.stock_name(name) in (name, f"model.{name}")
        if untouched and top not in parts:
            patterns.add(f"^{re.escape(top)}(\\.|$)")
    return sorted(patterns)


def _is_foreign(name: str, rules: WeightRules) -> bool:
    """Whether vLLM's class would refuse or misplace the tensor; a left-over LM head and bare names it copes with."""
    stock = rules.stock_name(name)
    if stock is None:
        return not name.startswith("lm_head.")
    return stock not in (name, f"model.{name}")
