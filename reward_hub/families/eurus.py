"""Eurus reward model: a linear head at the last token of "[INST] ... [\\INST] ...".

Scores a question and an answer; a raw, unbounded logit.
Recipe: https://huggingface.co/openbmb/Eurus-RM-7b (modeling_eurus_rm.py and the card's text: one bos, no eos).
The card closes the instruction with a backslash, and so do we.
More turns and system prompts have no text there and are refused. A `regression_head` on Mistral under another class
name is taken for it, with a warning.
"""

from __future__ import annotations

from reward_hub.encoding import question_and_answer, read_last
from reward_hub.family import Checkpoint, Config, Family, Setup, TensorShapes, head_output
from reward_hub.heads import Linear
from reward_hub.reads import HeadOutputs
from reward_hub.types import Conversation, TokenInput


def encode(conversation: Conversation, setup: Setup) -> TokenInput:
    """The card's text with the tokenizer's bos, read at the last token."""
    question, answer = question_and_answer(conversation)
    text = f"[INST] {question} [\\INST] {answer}"
    return read_last(setup.tokenizer.encode(text, add_special_tokens=True))


def matches(config: Config, tensors: TensorShapes, files: frozenset[str]) -> bool:
    """`regression_head` on Mistral."""
    named = "EurusRewardModel" in (config.get("architectures") or [])
    return named or (config.get("model_type") == "mistral" and "regression_head.weight" in tensors)


FAMILY = Family(
    name="eurus",
    kind="outcome",
    source="https://huggingface.co/openbmb/Eurus-RM-7b",
    checkpoints=(Checkpoint("openbmb/Eurus-RM-7b", license="apache-2.0"),),
    matches=matches,
    architectures=("EurusRewardModel",),
    encode=encode,
    read=HeadOutputs(Linear("regression_head", bias=False)),
    score=head_output,
    read_summary="head at the last token",
    head_summary="regression_head [1, H]",
    reading="The card's text with its backslash; RewardBench closes with '[/INST]' and adds an eos: another score.",
)
