"""A linear head under a name of its own, read as the stock classifier's is."""

from __future__ import annotations

from dataclasses import replace

from reward_hub.families.sequence_classifier import FAMILY as STOCK
from reward_hub.heads import Linear
from reward_hub.reads import HeadOutputs

FAMILY = replace(
    STOCK,
    name="my-family",
    architectures=(),
    checkpoints=(),
    read=HeadOutputs(Linear("reward_vector")),
    matches=lambda config, tensors, files: "reward_vector.weight" in tensors,
)
