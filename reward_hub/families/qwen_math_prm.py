"""Qwen2.5-Math-PRM: process reward model, P(step is correct) read at the <extra_0> after each step.

Recipe: https://huggingface.co/Qwen/Qwen2.5-Math-PRM-7B (modeling_qwen2_rm.py and the card's `make_step_rewards`).
Departs from it: <extra_0> inside a prompt or a step is text, only the true step ends are read; probabilities are taken
by position instead of by "not equal to zero", which mis-aligns when one underflows; of a checkpoint whose `id2label`
names the classes, the one that it calls the good one is taken.
"""

from __future__ import annotations

from reward_hub.encoding import close_steps
from reward_hub.family import BAD_GOOD, Checkpoint, Config, Family, Setup, TensorShapes, good_class_probability
from reward_hub.heads import HIDDEN, MLP
from reward_hub.labels import classes_named
from reward_hub.reads import HeadOutputs
from reward_hub.types import Conversation, TokenInput

SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
STEP_END = "<extra_0>"


def encode(conversation: Conversation, setup: Setup) -> TokenInput:
    """Close every step with <extra_0> and read there."""
    return close_steps(conversation.with_default_system(SYSTEM), STEP_END, setup.tokenizer)


def read(setup: Setup) -> HeadOutputs:
    """The two layers; labels that contradict each other are refused now, before anything is scored."""
    classes_named(setup.config, BAD_GOOD)
    return HeadOutputs(MLP(("score.0", "score.2"), width=2, inner=HIDDEN))


def matches(config: Config, tensors: TensorShapes, files: frozenset[str]) -> bool:
    """Qwen2 with a two-layer `score` of two outputs."""
    if config.get("model_type") != "qwen2":
        return False
    architectures = config.get("architectures") or []
    if "Qwen2ForProcessRewardModel" in architectures:
        return True
    two_layers = "score.0.weight" in tensors and tensors.get("score.2.weight", (0,))[0] == 2
    return two_layers and "Qwen2ForRewardModel" not in architectures


FAMILY = Family(
    name="qwen-math-prm",
    kind="process",
    source="https://huggingface.co/Qwen/Qwen2.5-Math-PRM-7B",
    checkpoints=(
        Checkpoint("Qwen/Qwen2.5-Math-PRM-7B", license="apache-2.0", max_length=4096),
        Checkpoint("Qwen/Qwen2.5-Math-PRM-72B", license="qwen", max_length=4096),
        Checkpoint("Qwen/Qwen2.5-Math-7B-PRM800K", license="apache-2.0", max_length=4096),
        Checkpoint("Gen-Verse/ReasonFlux-PRM-7B", license="mit", max_length=4096),
    ),
    matches=matches,
    architectures=("Qwen2ForProcessRewardModel",),
    encode=encode,
    read=read,
    score=good_class_probability,
    score_range=(0.0, 1.0),
    aggregate="product",
    recipe=2,
    read_summary="head at the <extra_0> after each step",
    head_summary="score.0 -> ReLU -> score.2 [2, H]",
    reading="The card: a system message of the caller replaces the default one. The earlier reward_hub 0.1 sent both.",
)
