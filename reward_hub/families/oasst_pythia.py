"""OpenAssistant Pythia: a linear head at the last token, or over the mean of all of them.

Scores the whole conversation of users and assistants; a raw, unbounded logit.
Recipe: https://huggingface.co/OpenAssistant/oasst-rm-2.1-pythia-1.4b-epoch-2.5 and oasst-rm-2-pythia-6.9b-epoch-1
(Open-Assistant's GPTNeoXRewardModel and the card's text, nothing added). config.json says `pooling` "last" or "mean".
Departs from it: runs on the stock GPT-NeoX, which has the same tensors and config keys. The original's mean fails with
an attention mask; here it is the plain mean over the conversation's tokens, whatever the batch.
System prompts have no text on the card and are refused.
"""

from __future__ import annotations

from reward_hub.encoding import read_last
from reward_hub.errors import CheckpointError, InvalidConversationError
from reward_hub.family import Backbone, Checkpoint, Config, Family, Setup, TensorShapes, head_output
from reward_hub.heads import Averaged, Linear
from reward_hub.reads import HeadOutputs
from reward_hub.types import Conversation, TokenInput

MODEL_TYPE = "gpt_neox_reward_model"
SPEAKERS = {"user": "<|prompter|>", "assistant": "<|assistant|>"}
TURN_END = "<|endoftext|>"
HEAD = Linear("out_proj", bias=True)


def encode(conversation: Conversation, setup: Setup) -> TokenInput:
    """Speaker, text, end for every turn; the last token is read, or all of them."""
    text = ""
    for message in conversation.messages:
        if message.role not in SPEAKERS:
            raise InvalidConversationError(
                f"this family has no text for the role {message.role!r}; its recipe knows 'user' and 'assistant'.",
                field="messages",
            )
        text += SPEAKERS[message.role] + message.text + TURN_END
    token_ids = setup.tokenizer.encode(text, add_special_tokens=True)
    if _pooling(setup.config) == "mean":
        return TokenInput(token_ids, list(range(len(token_ids))))
    return read_last(token_ids)


def read(setup: Setup) -> HeadOutputs:
    """One linear layer, over the mean where config.json says so."""
    return HeadOutputs(Averaged(HEAD) if _pooling(setup.config) == "mean" else HEAD)


def _pooling(config: Config) -> str:
    pooling = str(config.get("pooling", "last"))
    if pooling not in ("last", "mean"):
        raise CheckpointError(f"config.json has pooling {pooling!r}; known: 'last', 'mean'.")
    return pooling


def backbone(config: Config, tensors: TensorShapes) -> Backbone:
    """The stock GPT-NeoX of the same keys."""
    stock = {**config, "model_type": "gpt_neox", "architectures": ["GPTNeoXModel"]}
    return Backbone(stock, rename=((r"^gpt_neox\.", ""),))


def matches(config: Config, tensors: TensorShapes, files: frozenset[str]) -> bool:
    """Open-Assistant's own model type or class name."""
    return config.get("model_type") == MODEL_TYPE or "GPTNeoXRewardModel" in (config.get("architectures") or [])


FAMILY = Family(
    name="oasst-pythia",
    kind="outcome",
    source="https://huggingface.co/OpenAssistant/oasst-rm-2.1-pythia-1.4b-epoch-2.5",
    checkpoints=(
        Checkpoint("OpenAssistant/oasst-rm-2.1-pythia-1.4b-epoch-2.5", license="apache-2.0"),
        Checkpoint("OpenAssistant/oasst-rm-2-pythia-6.9b-epoch-1", license="unstated"),
    ),
    matches=matches,
    architectures=("GPTNeoXRewardModel",),
    encode=encode,
    read=read,
    score=head_output,
    backbone=backbone,
    read_summary="head at the last token, or over the mean of all",
    head_summary="out_proj [1, H] at the last token or over the mean",
    model_types=("gpt_neox",),
    reading="The card's text; RewardBench asks the tokenizer for one more eos, which is another score.",
)
