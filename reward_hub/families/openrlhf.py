"""OpenRLHF reward models: a linear head without bias at the eos that closes the conversation.

A format of checkpoints, not a model: what https://github.com/OpenRLHF/OpenRLHF writes (openrlhf/models/model.py,
`get_llm_for_sequence_regression`). config.json names the head in `value_head_prefix` ("score" or, in old versions,
"value_head"). Scores the whole conversation; a raw, unbounded logit, or (logit - mean) / std.
Text as in its RewardDataset: the chat template's text without newlines at its end, eos unless it stands there, no
further special tokens; the last token is read.
`mean` and `std` are kept in config.json by training (in the weights, which then win, by versions that stored buffers).
They are applied where config.json has `normalize_reward` true, and where it has them without that key; training writes
it as false. `options={"normalize_reward": ...}` is OpenRLHF's flag of that name, which goes before config.json.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from reward_hub.encoding import read_last
from reward_hub.errors import CheckpointError
from reward_hub.family import Config, Family, Setup, TensorShapes, head_output
from reward_hub.heads import Linear, Normalized
from reward_hub.reads import HeadOutputs
from reward_hub.types import Array, Conversation, TokenInput

OLD_PREFIX = "value_head"


class Options(BaseModel):
    """What OpenRLHF's command line leaves to the user."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    normalize_reward: bool | None = Field(
        None, description="apply the stored mean and std; default: as config.json says, else where they are stored"
    )


def encode(conversation: Conversation, setup: Setup) -> TokenInput:
    """Close the template's text with eos and read there."""
    tokenizer = setup.tokenizer
    if tokenizer.eos_token is None or tokenizer.eos_token_id is None:
        raise CheckpointError("The tokenizer names no eos token, which OpenRLHF reward models are read at.")
    text = tokenizer.render(conversation.messages).rstrip("\n")
    if not text.endswith(tokenizer.eos_token):
        text += " " + tokenizer.eos_token
    token_ids = tokenizer.encode(text)
    return read_last([*token_ids[:-1], tokenizer.eos_token_id], n_kept_last=1)


def read(setup: Setup) -> HeadOutputs:
    """The head, and its normalisation where it is asked for."""
    head = Linear(_prefix(setup.config, setup.tensors), bias=False)
    if not _normalizes(setup):
        return HeadOutputs(head)
    mean, std = setup.config.get("mean"), setup.config.get("std")
    statistics = (("mean", 0.0 if mean is None else float(mean)), ("std", 1.0 if std is None else float(std)))
    return HeadOutputs(Normalized(head, statistics, standardized))


def standardized(value: Array, mean: Array, std: Array) -> Array:
    return (value - mean) / std


def _normalizes(setup: Setup) -> bool:
    for said in (setup.options.normalize_reward, setup.config.get("normalize_reward")):
        if said is not None:
            return bool(said)
    return setup.config.get("mean") is not None or "mean" in setup.tensors


def _prefix(config: Config, tensors: TensorShapes) -> str:
    """The name that config.json gives the head, else the old default where it is there, else today's."""
    named: Any = config.get("value_head_prefix")
    return str(named) if named else OLD_PREFIX if f"{OLD_PREFIX}.weight" in tensors else "score"


def matches(config: Config, tensors: TensorShapes, files: frozenset[str]) -> bool:
    """OpenRLHF's keys in config.json, or its class name; not its critics, whose values are not rewards."""
    architectures = config.get("architectures") or []
    if "CriticModel" in architectures:
        return False
    if "value_head_prefix" in config or "RewardModel" in architectures:
        return True
    return "normalize_reward" in config and f"{_prefix(config, tensors)}.weight" in tensors


FAMILY = Family(
    name="openrlhf",
    kind="outcome",
    source="https://github.com/OpenRLHF/OpenRLHF/blob/main/openrlhf/models/model.py",
    matches=matches,
    encode=encode,
    read=read,
    score=head_output,
    options=Options,
    read_summary="head at the last token",
    head_summary="value_head_prefix [1, H], normalised where config.json says so",
    reading="Text as in OpenRLHF's training data; its HTTP server tokenises with special tokens, which puts a second "
    "bos before a template's.",
)
