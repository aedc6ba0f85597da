"""LLaMA-Factory reward models: a value head in a file of its own, read at the last token of the conversation.

A format of checkpoints, not a model: what https://github.com/hiyouga/LLaMA-Factory writes with `stage: rm` (a causal
model or an adapter, and beside it value_head.safetensors or value_head.bin with TRL's `v_head.summary`). Scores the
whole conversation; a raw, unbounded logit: the value at the last token, as its PairwiseTrainer evaluates.
The text is the chat template's, with one bos; LLaMA-Factory saves the template it trained with beside the tokenizer.
"""

from __future__ import annotations

from reward_hub.encoding import one_bos_ids, read_last
from reward_hub.family import Config, Family, Setup, TensorShapes, head_output
from reward_hub.heads import Linear
from reward_hub.reads import HeadOutputs
from reward_hub.types import Conversation, TokenInput

HEAD_FILES = ("value_head.safetensors", "value_head.bin")
# Tensors of a head file stand under the file's name.
HEAD = "value_head.v_head.summary"


def encode(conversation: Conversation, setup: Setup) -> TokenInput:
    """One bos where the tokenizer or the template has one, the last token is read."""
    return read_last(one_bos_ids(conversation.messages, setup.tokenizer))


def matches(config: Config, tensors: TensorShapes, files: frozenset[str]) -> bool:
    """The head file says it, beside the weights or the adapter."""
    return bool(files & set(HEAD_FILES)) or any(name.startswith(f"{HEAD}.") for name in tensors)


FAMILY = Family(
    name="llama-factory",
    kind="outcome",
    source="https://github.com/hiyouga/LLaMA-Factory/blob/main/src/llamafactory/train/rm/trainer.py",
    matches=matches,
    encode=encode,
    read=HeadOutputs(Linear(HEAD, bias=True)),
    score=head_output,
    recipe=2,
    head_files=HEAD_FILES,
    read_summary="head at the last token",
    head_summary="v_head.summary [1, H] of value_head.safetensors",
    reading="The value at the last token, as in the trainer's evaluation; its loss compares the values of every token.",
)
