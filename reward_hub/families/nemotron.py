"""Nemotron reward models kept as causal language models: the logit of vocabulary entry 0 after the conversation.

Scores the whole conversation; a raw, unbounded logit.
Recipe: https://huggingface.co/nvidia/Llama-3.1-Nemotron-70B-Reward-HF (the reward head stands in row 0 of `lm_head`;
ids of apply_chat_template without a generation prompt, unchanged, with or without bos as the template has it).
The card generates one token and takes its score of entry 0; reading the logit is the same number and safe from sampling
settings. Nothing in the checkpoint tells this from other causal models: it takes the published id or family="nemotron".
"""

from __future__ import annotations

from reward_hub.encoding import chat_ids, read_last
from reward_hub.errors import CheckpointError
from reward_hub.family import Checkpoint, Config, Family, Setup, TensorShapes, head_output, never
from reward_hub.reads import TokenLogits
from reward_hub.types import Conversation, TokenInput

REWARD_ENTRY = 0


def encode(conversation: Conversation, setup: Setup) -> TokenInput:
    """The ids of the chat template, read at the last token."""
    return read_last(chat_ids(conversation.messages, setup.tokenizer))


def read(setup: Setup) -> TokenLogits:
    """Row 0 of the LM head, which must be its own and not the input embeddings."""
    if setup.config.get("tie_word_embeddings"):
        raise CheckpointError(
            "config.json ties the LM head to the input embeddings, whose row 0 is a token's and no reward head.",
            tensor="lm_head.weight",
        )
    return TokenLogits((REWARD_ENTRY,))


def possible(config: Config, tensors: TensorShapes, files: frozenset[str]) -> bool:
    """A plain Llama or Qwen causal model with an LM head of its own."""
    architectures = {"LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"}
    return bool(architectures & set(config.get("architectures") or [])) and not config.get("tie_word_embeddings")


FAMILY = Family(
    name="nemotron",
    kind="outcome",
    source="https://huggingface.co/nvidia/Llama-3.1-Nemotron-70B-Reward-HF",
    checkpoints=(
        Checkpoint("nvidia/Llama-3.1-Nemotron-70B-Reward-HF", license="llama3.1"),
        Checkpoint("nvidia/Llama-3.3-Nemotron-70B-Reward", license="unstated"),
        Checkpoint("nvidia/Qwen-2.5-Nemotron-32B-Reward", license="unstated"),
        Checkpoint("nvidia/Qwen-3-Nemotron-32B-Reward", license="unstated"),
    ),
    matches=never,
    possible=possible,
    encode=encode,
    read=read,
    score=head_output,
    recipe=2,
    read_summary="logit of vocabulary entry 0 after the last token",
    head_summary="lm_head row 0",
    reading="The card: no generation prompt, which would give another score.",
)
