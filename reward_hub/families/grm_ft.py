"""GRM rewardmodel-ft and distill: plain sequence classifiers that are fed two bos.

Scores the whole conversation; a raw, unbounded logit.
Recipe: https://huggingface.co/Ray2333/GRM-Llama3-8B-rewardmodel-ft (the card gives the chat template's text to the
tokenizer, which adds a second bos).
Nothing in the checkpoint tells this from other classifiers: it takes the published id or family="grm-ft". Without,
such a folder loads as the stock classifier that it is, with one bos.
"""

from __future__ import annotations

from reward_hub.encoding import read_last, two_bos_ids
from reward_hub.family import Checkpoint, Family, Setup, head_output, never
from reward_hub.heads import Linear
from reward_hub.reads import HeadOutputs
from reward_hub.types import Conversation, TokenInput


def encode(conversation: Conversation, setup: Setup) -> TokenInput:
    """Two bos where template and tokenizer each put one; read where the stock class reads."""
    return read_last(two_bos_ids(conversation.messages, setup.tokenizer), passed_over=setup.pad_token_id)


FAMILY = Family(
    name="grm-ft",
    kind="outcome",
    source="https://huggingface.co/Ray2333/GRM-Llama3-8B-rewardmodel-ft",
    checkpoints=(
        Checkpoint("Ray2333/GRM-Llama3-8B-rewardmodel-ft", license="unstated"),
        Checkpoint("Ray2333/GRM-gemma2-2B-rewardmodel-ft", license="unstated"),
        Checkpoint("Ray2333/GRM-llama3-8B-distill", license="unstated"),
    ),
    matches=never,
    encode=encode,
    read=HeadOutputs(Linear("score")),
    score=head_output,
    stock_classifier=True,
    read_summary="head at the last token that is not the pad token of config.json",
    head_summary="score [1, H]",
    reading="Two bos, as the card; RewardBench's default pipeline masks the first, which is one bos.",
)
