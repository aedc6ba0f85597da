"""SteamSHP: a T5 asked which of two responses is better; the probability that it answers "A".

Compares; p("A") over the whole vocabulary, in one order. `score` of one response is p("A") against the response ".",
as the card documents it.
Recipe: https://huggingface.co/stanfordnlp/SteamSHP-flan-t5-xl. Earlier turns, whoever's, are joined with a space, as
RewardBench does.
Departs from it: line breaks inside texts become spaces, which T5's tokenizer makes of them anyway.
"""

from __future__ import annotations

import math

from reward_hub.encoding import config_id
from reward_hub.family import Backbone, Checkpoint, Config, Family, Pair, Setup, TensorShapes, never
from reward_hub.reads import TokenLogprobs
from reward_hub.types import Array, Scored, TokenInput

OPENING = "POST:"
QUESTION = "Which response is better? RESPONSE"
ANSWER = "A"


def encode(pair: Pair, setup: Setup) -> TokenInput:
    """Read at the answer "A", which the decoder is given behind its start token."""
    post, a, b = (
        text.replace("\n", " ") for text in (" ".join(message.text for message in pair.prompt), pair.a, pair.b)
    )
    text = f"{OPENING} {post} \n\n RESPONSE A: {a}\n\n RESPONSE B: {b}\n\n {QUESTION}"
    token_ids = setup.tokenizer.encode(text, add_special_tokens=True)
    decoder_ids = [config_id(setup.config, "decoder_start_token_id"), setup.tokenizer.single_id(ANSWER)]
    return TokenInput(
        token_ids,
        [1],
        decoder_ids=decoder_ids,
        n_kept_first=len(setup.tokenizer.encode(OPENING)),
        n_kept_last=len(setup.tokenizer.encode(QUESTION, add_special_tokens=True)),
    )


def score(logprobs: Array, setup: Setup) -> Scored:
    """[1, 1] log-probability of "A" -> its probability."""
    return Scored(math.exp(float(logprobs[0, 0])))


def backbone(config: Config, tensors: TensorShapes) -> Backbone:
    """A stock T5; its encoder sees both ways, so padding is masked."""
    return Backbone(config=config, causal=False)


def possible(config: Config, tensors: TensorShapes, files: frozenset[str]) -> bool:
    """A stock T5 could be one; nothing in it says so."""
    return "T5ForConditionalGeneration" in (config.get("architectures") or []) or config.get("model_type") == "t5"


FAMILY = Family(
    name="steamshp",
    kind="pairwise",
    source="https://huggingface.co/stanfordnlp/SteamSHP-flan-t5-xl",
    checkpoints=(
        Checkpoint("stanfordnlp/SteamSHP-flan-t5-large", license="apache-2.0", max_length=512),
        Checkpoint("stanfordnlp/SteamSHP-flan-t5-xl", license="apache-2.0", max_length=512),
    ),
    matches=never,
    possible=possible,
    model_types=("t5",),
    encode=encode,
    read=TokenLogprobs(),
    score=score,
    backbone=backbone,
    score_range=(0.0, 1.0),
    pair_output="probability",
    single_against=".",
    read_summary="first decoder step",
    head_summary="lm_head, p('A') over the vocabulary",
    reading="The card: softmax over the whole vocabulary. RewardBench looks at the greedy token of a random order.",
)
