"""Token classifiers with two labels, as TRL's PRMTrainer writes them: P(right) at the separator after each step.

The probability of LABEL_1, or of the class that `id2label` calls the good one (reward_hub/labels.py has the words),
0 to 1; with output="difference" P(right) - P(wrong), -1 to 1, as PURE reports it.
Recipe: https://github.com/huggingface/trl (PRMTrainer.tokenize_row): bos if the tokenizer has one, prompt, then step
and separator by turns, each tokenised by itself without special tokens; the separator's last token carries the label.
No chat template: the first step follows the prompt directly. The separator is an argument of the training that no
checkpoint stores: the table below knows the published ones, `options={"separator": ...}` says it for others.
Departs from it: nothing is cut to a length. System prompt and earlier turns stand before the prompt.
"""

from __future__ import annotations

from typing import Literal

import pydantic

from reward_hub.encoding import prompt_text, steps_apart
from reward_hub.errors import CheckpointError
from reward_hub.family import BAD_GOOD, Checkpoint, Config, Family, Setup, TensorShapes
from reward_hub.heads import Linear
from reward_hub.labels import classes_named
from reward_hub.numerics import softmax
from reward_hub.reads import HeadOutputs
from reward_hub.types import Array, Conversation, Scored, TokenInput


class Options(pydantic.BaseModel):
    """How the checkpoint was trained, and which number is given."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)
    separator: str = pydantic.Field("\n", min_length=1, description="Text that closed each step in training.")
    output: Literal["probability", "difference"] = pydantic.Field(
        "probability", description="P(right), or P(right) - P(wrong) as PURE reports it."
    )


def encode(conversation: Conversation, setup: Setup) -> TokenInput:
    """Each part tokenised by itself; read at the last token of each separator."""
    tokenizer = setup.tokenizer
    separator = tokenizer.encode(setup.options.separator)
    if not separator:
        raise CheckpointError(f"The separator {setup.options.separator!r} has no token in this tokenizer.")
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    return steps_apart([*bos, *tokenizer.encode(prompt_text(conversation))], conversation, separator, tokenizer)


def read(setup: Setup) -> HeadOutputs:
    """The stock head; labels that contradict each other are refused now, before anything is scored."""
    classes_named(setup.config, BAD_GOOD)
    return HeadOutputs(Linear("score", 2, bias=True))


def score(logits: Array, setup: Setup) -> Scored:
    """[n_steps, 2] logits -> P(right), or P(right) - P(wrong), a step."""
    wrong, right = classes_named(setup.config, BAD_GOOD)
    p = softmax(logits)
    if setup.options.output == "difference":
        return Scored(steps=(p[:, right] - p[:, wrong]).tolist())
    return Scored(steps=p[:, right].tolist())


def range_of(setup: Setup) -> tuple[float, float]:
    """The difference of two probabilities lies in [-1, 1]."""
    return (-1.0, 1.0) if setup.options.output == "difference" else (0.0, 1.0)


def matches(config: Config, tensors: TensorShapes, files: frozenset[str]) -> bool:
    """A stock `*ForTokenClassification` decoder of two labels; encoders name their head `classifier`."""
    classifier = any(name.endswith("ForTokenClassification") for name in config.get("architectures") or [])
    return classifier and n_labels(config) == 2 and not any(name.startswith("classifier.") for name in tensors)


def n_labels(config: Config) -> int:
    """As transformers counts them."""
    return len(config.get("id2label") or ()) or int(config.get("num_labels") or 2)


FAMILY = Family(
    name="trl-prm",
    kind="process",
    source="https://github.com/huggingface/trl",
    checkpoints=(
        Checkpoint("trl-lib/Qwen2-0.5B-Reward-Math-Sheperd", license="unstated"),
        Checkpoint(
            "HuggingFaceH4/Qwen2.5-Math-1.5B-Instruct-PRM-0.2", license="unstated", options={"separator": "\n\n"}
        ),
        Checkpoint("HuggingFaceH4/Qwen2.5-Math-7B-Instruct-PRM-0.2", license="unstated", options={"separator": "\n\n"}),
        Checkpoint("jinachris/PURE-PRM-7B", license="unstated", options={"output": "difference"}),
        Checkpoint(
            "ZaandaTeika/Qwen2.5-Math-7B-Instruct-PRM800K-SHARP-PRM",
            license="unstated",
            note="separator not verified; TRL's default is taken",
        ),
    ),
    matches=matches,
    encode=encode,
    read=read,
    score=score,
    options=Options,
    score_range=(0.0, 1.0),
    range_of=range_of,
    aggregate="last",
    recipe=2,
    read_summary="head at the last separator token of each step",
    head_summary="score [2, H]",
    reading="The tokenisation of the training. TRL's documentation shows a pipeline over the growing text with a "
    "newline after the prompt, merged tokens and the winning label's probability: other numbers.",
)
