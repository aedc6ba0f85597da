"""ReasonEval: process reward model, three classes a step at the step's last token.

The score is validity, P(neutral) + P(positive), 0 to 1; redundancy, P(neutral), is in the attributes (lower is better;
its authors take the largest of a solution).
Recipe: https://github.com/GAIR-NLP/ReasonEval (codes/examples.py): "Question: ... Answer: ..." and the steps, each
closed by the text of the pad token; the text is tokenised, those tokens are taken out again, and a step is read at the
token before its own.
Where bos and pad are the same token (the published 7B), the script takes the bos out too and puts one back without
moving its read positions, so that each is one token earlier. The published numbers are made so, and so are these.
Departs from it: the pad token's text inside a prompt or a step is taken out as there, but closes no step. System prompt
and earlier turns, of which it knows none, stand before the question.
"""

from __future__ import annotations

from reward_hub.encoding import ending_tokens, prompt_text, steps_of
from reward_hub.errors import CheckpointError
from reward_hub.family import Backbone, Checkpoint, Config, Family, Setup, TensorShapes
from reward_hub.heads import Linear
from reward_hub.labels import classes_named
from reward_hub.numerics import softmax
from reward_hub.reads import HeadOutputs
from reward_hub.types import Array, Conversation, Scored, TokenInput

BACKBONES = {"ReasonEval_7B": "mistral", "ReasonEval_34B": "llama"}
CLASSES = ("bad", "neutral", "good")


def encode(conversation: Conversation, setup: Setup) -> TokenInput:
    """Tokenise with separators, take them out, and read before the place of each step's own."""
    tokenizer = setup.tokenizer
    separator = tokenizer.pad_token
    if separator is None:
        raise CheckpointError("The tokenizer defines no pad_token, whose text separates ReasonEval's steps.")
    separator_id = tokenizer.single_id(separator)
    text = f"Question:\n{prompt_text(conversation)}\nAnswer:\nLet's think step by step.\n{separator}"
    ends = []
    for step in steps_of(conversation):
        text += step + separator
        ends.append(len(text))
    marked = ending_tokens(text, ends, separator_id, tokenizer)
    kept_before: list[int] = []
    token_ids: list[int] = []
    for token_id in marked.token_ids:
        kept_before.append(len(token_ids))
        if token_id != separator_id:
            token_ids.append(token_id)
    positions = [kept_before[position] - 1 for position in marked.positions]
    if tokenizer.adds_bos and tokenizer.bos_token_id == separator_id:
        token_ids.insert(0, separator_id)
    return TokenInput(token_ids, positions)


def read(setup: Setup) -> HeadOutputs:
    """The bias is there or not as config.json says (`use_bias` in the 7B, `bias` in the 34B)."""
    config = setup.config
    for key in ("score_dimension", "score_dim"):
        if int(config.get(key) or len(CLASSES)) != len(CLASSES):
            raise CheckpointError(f"config.json has {key} {config[key]}; ReasonEval's classes are {len(CLASSES)}.")
    classes_named(config, CLASSES)
    bias = config.get("use_bias", config.get("bias"))
    return HeadOutputs(Linear("score_head", len(CLASSES), bias=None if bias is None else bool(bias)))


def score(logits: Array, setup: Setup) -> Scored:
    """[n_steps, 3] logits (negative, neutral, positive, or as `id2label` names them) -> validity a step."""
    _, neutral, positive = classes_named(setup.config, CLASSES)
    p = softmax(logits)
    return Scored(steps=(p[:, neutral] + p[:, positive]).tolist(), attributes={"redundancy": p[:, neutral].tolist()})


def backbone(config: Config, tensors: TensorShapes) -> Backbone:
    """The stock model below the head, by the class name where `model_type` is neither of the two."""
    if config.get("model_type") in BACKBONES.values():
        return Backbone(config=config)
    known = next((BACKBONES[name] for name in config.get("architectures") or [] if name in BACKBONES), None)
    if known is None:
        raise CheckpointError(
            f"ReasonEval is a Mistral or a Llama; config.json has model_type {config.get('model_type')!r} and "
            f"architectures {config.get('architectures')}."
        )
    return Backbone(config={**config, "model_type": known})


def matches(config: Config, tensors: TensorShapes, files: frozenset[str]) -> bool:
    """The class names; a `score_head` on other classes is another training tool's."""
    return any(name in BACKBONES for name in config.get("architectures") or [])


FAMILY = Family(
    name="reasoneval",
    kind="process",
    source="https://github.com/GAIR-NLP/ReasonEval",
    checkpoints=(
        Checkpoint("GAIR/ReasonEval-7B", license="unstated"),
        Checkpoint("GAIR/ReasonEval-34B", license="unstated"),
    ),
    matches=matches,
    architectures=tuple(BACKBONES),
    encode=encode,
    read=read,
    score=score,
    backbone=backbone,
    score_range=(0.0, 1.0),
    aggregate="min",
    recipe=2,
    read_summary="head at the last token of each step",
    head_summary="score_head [3, H]",
    reading="The authors' script, which keeps steps as they are; PRMBench removes 'Step k.' from their beginnings.",
)
