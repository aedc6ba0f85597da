"""Athene reward models: a linear head at a cls token appended to the conversation.

Scores the whole conversation; a raw, unbounded logit.
Recipe: https://huggingface.co/Nexusflow/Athene-RM-8B (the card's class and pipeline: the chat template's text and the
cls token are given to the tokenizer like any text, so that two bos stand in front; the last cls token is read).
Departs from it: the cls token is the tokenizer's own instead of a fixed id, and survives truncation. The card cuts at
4096 from the right, which loses the cls token and then fails. A `v_head` on Llama under another class name is taken for
an Athene, where the tokenizer has a cls token, with a warning.
"""

from __future__ import annotations

from reward_hub.encoding import last_match, two_bos_ids
from reward_hub.errors import CheckpointError
from reward_hub.family import Checkpoint, Config, Family, Setup, TensorShapes, head_output
from reward_hub.heads import Linear
from reward_hub.reads import HeadOutputs
from reward_hub.types import Conversation, TokenInput

ARCHITECTURE = "CustomAutoModelForSequenceClassification"


def encode(conversation: Conversation, setup: Setup) -> TokenInput:
    """Append the cls token and read at its last occurrence."""
    cls_token = _cls_token(setup)
    token_ids = two_bos_ids(conversation.messages, setup.tokenizer, suffix=cls_token)
    position = last_match(token_ids, [setup.tokenizer.token_id(cls_token)], "the cls token")
    return TokenInput(token_ids, [position], n_kept_last=len(token_ids) - position)


def read(setup: Setup) -> HeadOutputs:
    """One linear layer; a tokenizer without a cls token says that this is not an Athene."""
    _cls_token(setup)
    return HeadOutputs(Linear("v_head", bias=False))


def _cls_token(setup: Setup) -> str:
    if setup.tokenizer.cls_token is None:
        raise CheckpointError(
            "The tokenizer names no cls token, which Athene reward models are read at. If this v_head belongs to "
            "another kind of model, see docs/add_a_family.md."
        )
    return setup.tokenizer.cls_token


def matches(config: Config, tensors: TensorShapes, files: frozenset[str]) -> bool:
    """`v_head.weight` beside a stock Llama backbone (Starling's is under `transformer.`), and no other head."""
    if config.get("model_type") != "llama" or not any(name.startswith("model.layers.") for name in tensors):
        return False
    others = any(name.startswith(("score.", "v_head.summary.", "gating.")) for name in tensors)
    named = ARCHITECTURE in (config.get("architectures") or [])
    return not others and ("v_head.weight" in tensors or named)


FAMILY = Family(
    name="athene",
    kind="outcome",
    source="https://huggingface.co/Nexusflow/Athene-RM-8B",
    checkpoints=(
        Checkpoint("Nexusflow/Athene-RM-8B", license="unstated", max_length=4096),
        Checkpoint("Nexusflow/Athene-RM-70B", license="unstated", max_length=4096),
    ),
    matches=matches,
    architectures=(ARCHITECTURE,),
    encode=encode,
    read=read,
    score=head_output,
    read_summary="head at the cls token appended",
    head_summary="v_head [1, H] at the cls token",
    reading="Two bos, as the card; one bos gives another score.",
)
