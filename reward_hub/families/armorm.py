"""ArmoRM: 19 objectives at the last token, mixed by a gate read where the last user turn closes.

Scores the whole conversation; unbounded, about 0 to 1 on the published model.
Recipe: https://huggingface.co/RLHFlow/ArmoRM-Llama3-8B-v0.1 (modeling_custom.py; ids of apply_chat_template).
The gate is read at the start of the *last* occurrence of "end of turn, assistant header" - look-alike text in the
answer included, as in the original.
"""

from __future__ import annotations

from reward_hub.encoding import chat_ids, gate_and_last
from reward_hub.family import Checkpoint, Config, Family, Setup, TensorShapes
from reward_hub.heads import MLP, Gated, Linear
from reward_hub.reads import HeadOutputs
from reward_hub.types import Array, Conversation, Scored, TokenInput

TURN_END_AND_HEADER = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
# Names of the objectives that this model and others were trained on, in the order of their outputs.
HELPSTEER = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")

# https://huggingface.co/RLHFlow/ArmoRM-Llama3-8B-v0.1; QRM was trained on the same data.
ARMORM = (
    *(f"helpsteer-{name}" for name in HELPSTEER),
    "ultrafeedback-overall_score",
    "ultrafeedback-instruction_following",
    "ultrafeedback-truthfulness",
    "ultrafeedback-honesty",
    "ultrafeedback-helpfulness",
    "beavertails-is_safe",
    "prometheus-score",
    "argilla-overall_quality",
    "argilla-judge_lm",
    "code-complexity",
    "code-style",
    "code-explanation",
    "code-instruction-following",
    "code-readability",
)


def objective_names(n: int) -> tuple[str, ...]:
    """ArmoRM's names for 19 objectives, HelpSteer's for 5, numbers otherwise."""
    known = {len(ARMORM): ARMORM, len(HELPSTEER): ARMORM[: len(HELPSTEER)]}
    return known.get(n) or tuple(f"objective_{i}" for i in range(n))


def encode(conversation: Conversation, setup: Setup) -> TokenInput:
    """Read the gate at the end of the last user turn, the objectives at the last token."""
    return gate_and_last(chat_ids(conversation.messages, setup.tokenizer), TURN_END_AND_HEADER, setup.tokenizer)


def read(setup: Setup) -> HeadOutputs:
    """Sizes come from config.json; every layer of the gate is a biased linear layer with ReLU between."""
    n_hidden = int(setup.config.get("gating_n_hidden", 3))
    return HeadOutputs(
        Gated(
            regression=Linear("regression_layer", n_objectives(setup.config), bias=False),
            gate=MLP(
                tuple(f"gating.layers.{i}" for i in range(n_hidden + 1)),
                n_objectives(setup.config),
                inner=setup.config.get("gating_hidden_dim"),
            ),
            scale="gating.logit_scale",
            temperature=float(setup.config.get("gating_temperature", 10.0)),
            transform="reward_transform_matrix",
        )
    )


def score(outputs: Array, setup: Setup) -> Scored:
    """Rows (objectives, gate, coefficients) -> sum of objective times coefficient."""
    rewards, gate, coefficients = outputs
    names = objective_names(len(rewards))
    return Scored(
        float((rewards * coefficients).sum()),
        attributes=dict(zip(names, rewards.tolist(), strict=True)),
        gating=dict(zip(names, gate.tolist(), strict=True)),
    )


def n_objectives(config: Config) -> int:
    return int(config.get("num_objectives", 19))


def matches(config: Config, tensors: TensorShapes, files: frozenset[str]) -> bool:
    """A gate without BatchNorm beside a regression layer (QRM shares the architecture name but normalises)."""
    if any("running_mean" in name for name in tensors) or "num_quantiles" in config:
        return False
    has_gate = any(name.startswith("gating.") for name in tensors)
    named = "LlamaForRewardModelWithGating" in (config.get("architectures") or [])
    return has_gate and ("reward_transform_matrix" in tensors or "regression_layer.weight" in tensors or named)


FAMILY = Family(
    name="armorm",
    kind="outcome",
    source="https://huggingface.co/RLHFlow/ArmoRM-Llama3-8B-v0.1",
    checkpoints=(Checkpoint("RLHFlow/ArmoRM-Llama3-8B-v0.1", license="llama3", max_length=4096),),
    matches=matches,
    architectures=("LlamaForRewardModelWithGating",),
    encode=encode,
    read=read,
    score=score,
    read_summary="head at the last token and at the end of the last user turn",
    head_summary="19 objectives x gate",
    reading="The card's ids (one bos); RewardBench's pipeline tokenises the rendered text with a second bos.",
)
