"""OpenAssistant DeBERTa: a pair classifier over question and answer.

Scores a question and an answer; a raw, unbounded logit.
Recipe: https://huggingface.co/OpenAssistant/reward-model-deberta-v3-large-v2 (the card: `tokenizer(question, answer)`,
[CLS] question [SEP] answer [SEP]). Read at [CLS] by the stock head: pooler.dense, the exact gelu (or the
`pooler_hidden_act` of config.json), classifier.
Departs from it: an input longer than the model's 512 positions is refused unless truncation is asked for.
More turns and system prompts have no text on the card and are refused.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from reward_hub.encoding import question_and_answer
from reward_hub.errors import CheckpointError
from reward_hub.family import Backbone, Checkpoint, Config, Family, Setup, TensorShapes, head_output
from reward_hub.heads import HIDDEN, MLP, identity, relu
from reward_hub.numerics import gelu
from reward_hub.reads import HeadOutputs
from reward_hub.types import Array, Conversation, TokenInput

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"gelu": gelu, "tanh": np.tanh, "relu": relu, "linear": identity}


def encode(conversation: Conversation, setup: Setup) -> TokenInput:
    """Both texts as a pair, read at the first token."""
    token_ids, token_type_ids = setup.tokenizer.encode_pair(*question_and_answer(conversation))
    return TokenInput(token_ids, [0], token_type_ids=token_type_ids, n_kept_first=1, n_kept_last=1)


def read(setup: Setup) -> HeadOutputs:
    """The stock pooler and classifier."""
    name = setup.config.get("pooler_hidden_act", "gelu")
    if name not in ACTIVATIONS:
        raise CheckpointError(f"config.json has pooler_hidden_act {name!r}; known: {', '.join(ACTIVATIONS)}.")
    return HeadOutputs(MLP(("pooler.dense", "classifier"), width=1, activation=ACTIVATIONS[name], inner=HIDDEN))


def backbone(config: Config, tensors: TensorShapes) -> Backbone:
    """Stock; attention goes in both directions."""
    return Backbone(config, causal=False)


def matches(config: Config, tensors: TensorShapes, files: frozenset[str]) -> bool:
    """A stock DeBERTa-v3 classifier of one label."""
    if "DebertaV2ForSequenceClassification" not in (config.get("architectures") or []):
        return False
    n_labels = len(config.get("id2label") or ()) or config.get("num_labels") or 1
    return n_labels == 1 or tensors.get("classifier.weight", (n_labels,))[0] == 1


FAMILY = Family(
    name="oasst-deberta",
    kind="outcome",
    source="https://huggingface.co/OpenAssistant/reward-model-deberta-v3-large-v2",
    checkpoints=(
        Checkpoint("OpenAssistant/reward-model-deberta-v3-large-v2", license="mit", max_length=512, dtype="float32"),
        Checkpoint("OpenAssistant/reward-model-deberta-v3-large", license="mit", max_length=512, dtype="float32"),
        Checkpoint("OpenAssistant/reward-model-deberta-v3-base", license="mit", max_length=512, dtype="float32"),
    ),
    matches=matches,
    encode=encode,
    read=read,
    score=head_output,
    backbone=backbone,
    read_summary="head at the first token",
    head_summary="pooler.dense -> gelu -> classifier [1, H]",
    model_types=("deberta-v2",),
    reading="Question and answer as two segments, as the card; RewardBench glues them into one: another score.",
)
