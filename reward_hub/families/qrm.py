"""QRM: quantiles of several objectives at the last token, mixed by a gate read where the last user turn closes.

Scores the whole conversation; unbounded, about 0 to 1 on the published models.
Recipes: https://huggingface.co/nicolinho/QRM-Llama3-8B and QRM-Llama3.1-8B (19 objectives, decorrelated by a matrix;
RewardBench's classes), https://huggingface.co/nicolinho/QRM-Gemma-2-27B (5 objectives, no matrix; weights index and
third-party port). Ids of apply_chat_template. As in ArmoRM, the gate is read at the *last* "end of turn, assistant
header", look-alike text in the answer included.
The heads run in float32 whatever the backbone's dtype, as in the originals; in the Llama-3 variant alone the matrix is
held in bfloat16. Llama-3.1 tells itself by its rope scaling.
Departs from it: the quantile curve is given for any number of quantiles (the original's expression needs as many as
objectives); Gemma's is left out, as its sources do not agree on it. QRM-Llama3.1-8B-v2 has another layout and is not
read.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reward_hub.encoding import chat_ids, gate_and_last
from reward_hub.families.armorm import objective_names
from reward_hub.family import Checkpoint, Config, Family, Setup, TensorShapes
from reward_hub.heads import HIDDEN, Linear, TensorSpecs, Weights, linear, relu
from reward_hub.numerics import bfloat16, softmax
from reward_hub.reads import HeadOutputs
from reward_hub.types import Array, Conversation, Scored, TokenInput

LLAMA_HEADER = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
GEMMA_HEADER = "<end_of_turn>\n<start_of_turn>model\n"
TRANSFORM = "reward_transform_matrix"
BATCH_NORM_EPS = 1e-5


def encode(conversation: Conversation, setup: Setup) -> TokenInput:
    """Read the gate at the end of the last user turn, the quantiles at the last token."""
    token_ids = chat_ids(conversation.messages, setup.tokenizer)
    return gate_and_last(token_ids, GEMMA_HEADER if _is_gemma(setup.config) else LLAMA_HEADER, setup.tokenizer)


@dataclass(frozen=True)
class NormalizedGate:
    """Blocks of Linear (no bias) -> ReLU -> BatchNorm with running statistics, then a Linear with bias.

    Attributes:
        blocks: names of each block's linear layer and BatchNorm.
        last: name of the final linear layer.
        inner: width of the blocks; None: what the tensors say.
    """

    blocks: tuple[tuple[str, str], ...]
    last: str
    width: int
    inner: int | None = None

    def tensors(self) -> TensorSpecs:
        specs: TensorSpecs = {}
        before: int | str = HIDDEN
        inner = self.inner or "width of the gate"
        for layer, norm in self.blocks:
            specs[f"{layer}.weight"] = (inner, before)
            specs |= {f"{norm}.{part}": (inner,) for part in ("weight", "bias", "running_mean", "running_var")}
            before = inner
        return {**specs, f"{self.last}.weight": (self.width, before), f"{self.last}.bias": (self.width,)}

    def optional(self) -> TensorSpecs:
        return {}

    def apply(self, hidden: Array, weights: Weights) -> Array:
        for layer, norm in self.blocks:
            hidden = relu(linear(hidden, weights, layer)) - weights[f"{norm}.running_mean"]
            hidden = hidden / np.sqrt(weights[f"{norm}.running_var"] + np.float32(BATCH_NORM_EPS))
            hidden = hidden * weights[f"{norm}.weight"] + weights[f"{norm}.bias"]
        return linear(hidden, weights, self.last)

    def __str__(self) -> str:
        return " -> ".join([*(layer for layer, _ in self.blocks), self.last])


@dataclass(frozen=True)
class GatedQuantiles:
    """Quantiles of each objective at the last position and the gate's weight of each objective."""

    regression: Linear
    gate: NormalizedGate
    temperature: float
    transformed: bool
    rounded: bool
    """Whether the transform matrix is held in bfloat16."""

    def tensors(self) -> TensorSpecs:
        n = self.gate.width
        specs = {**self.regression.tensors(), **self.gate.tensors(), "gating.logit_scale": (1,)}
        return {**specs, TRANSFORM: (n, n)} if self.transformed else specs

    def optional(self) -> TensorSpecs:
        return {}

    def apply(self, hidden: Array, weights: Weights) -> Array:
        """[2, hidden_size] (gate position, last position) -> [n_objectives, n_quantiles + 1], the gate weight last."""
        quantiles = self.regression.apply(hidden[1:2], weights).reshape(self.gate.width, -1)
        if self.transformed:
            matrix = bfloat16(weights[TRANSFORM]) if self.rounded else weights[TRANSFORM]
            quantiles = matrix.T @ quantiles
        gate = softmax(self.gate.apply(hidden[:1], weights) / np.float32(self.temperature))
        return np.concatenate([quantiles, gate.T * weights["gating.logit_scale"]], axis=1).astype(np.float32)

    def __str__(self) -> str:
        return f"{self.regression} gated by {self.gate}"


def read(setup: Setup) -> HeadOutputs:
    """Sizes come from config.json and, where that is silent, from the tensors."""
    config, gemma = setup.config, _is_gemma(setup.config)
    n_objectives = int(config.get("num_objectives", 5 if gemma else 19))
    rows = setup.tensors.get("regression_layer.weight", (0,))[0]
    n_quantiles = int(config.get("num_quantiles") or rows // n_objectives)
    n_blocks = int(config.get("gating_n_hidden", 3))
    # Gemma's blocks end with a Dropout, which takes a place of its own in the list of layers; the last block has none.
    stride = 4 if gemma else 3
    gate = NormalizedGate(
        blocks=tuple((f"gating.layers.{stride * i}", f"gating.layers.{stride * i + 2}") for i in range(n_blocks)),
        last=f"gating.layers.{stride * n_blocks - (1 if gemma else 0)}",
        width=n_objectives,
        inner=config.get("gating_hidden_dim"),
    )
    return HeadOutputs(
        GatedQuantiles(
            regression=Linear("regression_layer", n_objectives * n_quantiles, bias=False),
            gate=gate,
            temperature=float(config.get("gating_temperature", 1.0 if gemma else 10.0)),
            transformed=not gemma,
            rounded=not gemma and not config.get("rope_scaling"),
        )
    )


def score(outputs: Array, setup: Setup) -> Scored:
    """Rows of (quantiles, gate weight) -> sum over objectives of mean quantile times weight."""
    quantiles, gate = outputs[:, :-1], outputs[:, -1]
    rewards = quantiles.mean(axis=1)
    names = objective_names(len(rewards))
    return Scored(
        float(rewards @ gate),
        attributes=dict(zip(names, rewards.tolist(), strict=True)),
        gating=dict(zip(names, gate.tolist(), strict=True)),
        quantiles=None if _is_gemma(setup.config) else (gate @ quantiles).tolist(),
    )


def matches(config: Config, tensors: TensorShapes, files: frozenset[str]) -> bool:
    """A gate with BatchNorm, or `num_quantiles` beside a gate: what ArmoRM, of the same architecture name, has not."""
    if _is_gemma(config):
        named = "Gemma2ForQuantileSequenceClassification" in (config.get("architectures") or [])
        layout = named or "gating.layers.4.weight" in tensors
    else:
        named = "LlamaForRewardModelWithGating" in (config.get("architectures") or [])
        layout = config.get("model_type") == "llama" and (named or TRANSFORM in tensors)
    gated = any(name.startswith(("gating.", "regression_layer.")) for name in tensors)
    normalized = any(name.startswith("gating.") and "running_" in name for name in tensors)
    return layout and gated and (normalized or "num_quantiles" in config)


def _is_gemma(config: Config) -> bool:
    return config.get("model_type") == "gemma2"


FAMILY = Family(
    name="qrm",
    kind="outcome",
    source="https://huggingface.co/nicolinho/QRM-Llama3.1-8B",
    checkpoints=(
        Checkpoint("nicolinho/QRM-Llama3-8B", license="unstated"),
        Checkpoint("nicolinho/QRM-Llama3.1-8B", license="unstated"),
        Checkpoint("nicolinho/QRM-Gemma-2-27B", license="unstated"),
    ),
    matches=matches,
    architectures=("Gemma2ForQuantileSequenceClassification",),
    encode=encode,
    read=read,
    score=score,
    read_summary="head at the last token and at the end of the last user turn",
    head_summary="objectives x quantiles x gate with BatchNorm",
    reading="The card's ids (one bos), which RewardBench's masking of the first of two amounts to.",
)
