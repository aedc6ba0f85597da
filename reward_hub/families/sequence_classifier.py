"""Sequence classifiers with one label: the stock head of transformers at the last token of the chat template.

Scores the whole conversation; a raw, unbounded logit (no sigmoid). Skywork-Reward V1/V2, FsfairX, RM-Mistral,
RM-Gemma, Tulu-3 and RewardBench-2 models, and what TRL's RewardTrainer writes.
Recipe: https://huggingface.co/sfairXC/FsfairX-LLaMA3-RM-v0.1 (chat template, its bos removed, the tokenizer adds one).
Text that spells the bos token stays in the conversation, as on the Llama-3.1 and Tulu cards. Where the card removes it
everywhere (`.replace(tokenizer.bos_token, "")`), the checkpoint's row says so, and `options={"remove_every_bos": True}`
says it for a copy.
The position read is the class's: the last token that is not the `pad_token_id` of config.json (transformers 4.51 and
later; older ones looked for the first pad token). Where that closes every turn, as TRL's RewardTrainer writes it for
tokenizers without a pad token, the token before is read.
A `score.bias` in the file is added, as it was in training and as vLLM adds it. transformers' class has none and leaves
it out, so that its scores differ by that number; a warning says so.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from reward_hub.encoding import one_bos_ids, read_last
from reward_hub.family import Checkpoint, Config, Family, Setup, TensorShapes, head_output
from reward_hub.heads import Linear
from reward_hub.reads import HeadOutputs
from reward_hub.types import Conversation, TokenInput

# What other heads and encoders are called.
FOREIGN = (
    *("gating.", "regression_layer", "v_head.", "value_head.", "weights.", "classifier."),
    *("deberta.", "bert.", "roberta.", "transformer.layers."),
)


# What the rows say whose card removes the bos token from the whole text.
EVERY_BOS = {"remove_every_bos": True}


class Options(BaseModel):
    """Where the cards differ."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    remove_every_bos: bool = Field(False, description="remove the bos token also where a message spells it")


def encode(conversation: Conversation, setup: Setup) -> TokenInput:
    """One bos where the tokenizer or the template has one; read where the stock class reads."""
    every = setup.options.remove_every_bos
    token_ids = one_bos_ids(conversation.messages, setup.tokenizer, remove_every_bos=every)
    return read_last(token_ids, passed_over=setup.pad_token_id)


def matches(config: Config, tensors: TensorShapes, files: frozenset[str]) -> bool:
    """A stock `*ForSequenceClassification` decoder of one label, and no tensors of another head."""
    named = [name for name in config.get("architectures") or [] if name.endswith("ForSequenceClassification")]
    if not named or not ("score.weight" in tensors or _is_stock(named[0], config)):
        return False
    # OpenRLHF puts its own recipe behind the stock name.
    if "value_head_prefix" in config or "normalize_reward" in config:
        return False
    # A classifier that says itself that it has several labels is not a reward model; one whose head merely has the
    # wrong shape is told so when the head is checked.
    n_labels = len(config.get("id2label") or ()) or config.get("num_labels") or 1
    if n_labels != 1 and tensors.get("score.weight", (n_labels,))[0] != 1:
        return False
    nested = any(name.startswith("score.") and name not in ("score.weight", "score.bias") for name in tensors)
    return not nested and not any(name.startswith(FOREIGN) for name in tensors)


def _is_stock(architecture: str, config: Config) -> bool:
    """Whether a class name is transformers' own for this model type (INF-ORM's and Athene's merely end alike)."""
    model_type = str(config.get("model_type", "")).replace("-", "_")
    stem = architecture.removesuffix("ForSequenceClassification")
    return stem.replace("_", "").lower() == model_type.replace("_", "")


FAMILY = Family(
    name="sequence-classifier",
    kind="outcome",
    source="https://huggingface.co/sfairXC/FsfairX-LLaMA3-RM-v0.1",
    checkpoints=(
        Checkpoint("sfairXC/FsfairX-LLaMA3-RM-v0.1", license="cc-by-nc-4.0", options=EVERY_BOS),
        Checkpoint("NCSOFT/Llama-3-OffsetBias-RM-8B", license="llama3", options=EVERY_BOS),
        Checkpoint("weqweasdas/RM-Mistral-7B", license="unstated", options=EVERY_BOS),
        Checkpoint("hendrydong/Mistral-RM-for-RAFT-GSHF-v0", license="unstated", options=EVERY_BOS),
        Checkpoint("weqweasdas/RM-Gemma-2B", license="unstated", options=EVERY_BOS),
        Checkpoint("weqweasdas/RM-Gemma-7B", license="unstated", options=EVERY_BOS),
        Checkpoint("Skywork/Skywork-Reward-Llama-3.1-8B", license="skywork"),
        Checkpoint("Skywork/Skywork-Reward-Llama-3.1-8B-v0.2", license="skywork"),
        Checkpoint("Skywork/Skywork-Reward-Gemma-2-27B", license="skywork"),
        Checkpoint("Skywork/Skywork-Reward-Gemma-2-27B-v0.2", license="skywork"),
        Checkpoint("Skywork/Skywork-Reward-V2-Llama-3.1-8B", license="llama3.1"),
        Checkpoint("Skywork/Skywork-Reward-V2-Llama-3.2-1B", license="llama3.2"),
        Checkpoint("Skywork/Skywork-Reward-V2-Llama-3.2-3B", license="llama3.2"),
        Checkpoint("Skywork/Skywork-Reward-V2-Qwen3-0.6B", license="apache-2.0"),
        Checkpoint("Skywork/Skywork-Reward-V2-Qwen3-1.7B", license="apache-2.0"),
        Checkpoint("Skywork/Skywork-Reward-V2-Qwen3-4B", license="apache-2.0"),
        Checkpoint("Skywork/Skywork-Reward-V2-Qwen3-8B", license="apache-2.0"),
        Checkpoint("CIR-AMS/BTRM_Qwen2_7b_0613", license="unstated"),
        Checkpoint("allenai/Llama-3.1-Tulu-3-8B-RM", license="llama3.1"),
        Checkpoint("allenai/Llama-3.1-8B-Instruct-RM-RB2", license="llama3.1"),
        Checkpoint("allenai/Llama-3.1-Tulu-3-8B-SFT-RM-RB2", license="llama3.1"),
    ),
    matches=matches,
    encode=encode,
    read=HeadOutputs(Linear("score")),
    score=head_output,
    stock_classifier=True,
    options=Options,
    recipe=2,
    read_summary="head at the last token that is not the pad token of config.json",
    head_summary="score [1, H]",
    reading="One bos (the cards); RewardBench's pipeline masks the first of two, which gives the same number.",
)
