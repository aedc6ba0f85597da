"""RLHFlow's pair preference model: a Llama-3 asked which of two responses is better, by the logits of 'A' and 'B'.

Compares; the probability that the first response is the better one, the mean of both orders.
Recipe: https://huggingface.co/RLHFlow/pair-preference-model-LLaMA3-8B (the card's SlicPairPM; there is no bos, and a
bos spelt in a text is removed with it).
Departs from it: the generation prompt is asked for. The card leaves it to an early Llama-3 template that always writes
it; with a later one its last token would be <|eot_id|>. Turns that do not alternate are refused, where the card would
label them by their place.
"""

from __future__ import annotations

from reward_hub.encoding import require_alternating
from reward_hub.errors import CheckpointError
from reward_hub.family import Checkpoint, Family, Pair, Setup, calls_itself, never
from reward_hub.numerics import sigmoid
from reward_hub.reads import TokenLogits
from reward_hub.types import Array, Message, Scored, TokenInput

HEADER = "<|start_header_id|>assistant<|end_header_id|>\n\n"
FIRST, SECOND = "A", "B"


def encode(pair: Pair, setup: Setup) -> TokenInput:
    """One user message with the context and both responses; read at the last token, where the reply would begin."""
    require_alternating(pair.prompt, "rlhflow-pair-pm")
    tokenizer = setup.tokenizer
    turns = "".join(f"\n<turn> {message.role}\n {message.text}" for message in pair.prompt)
    content = f"[CONTEXT] \n{turns}\n [RESPONSE A] {pair.a} [RESPONSE B] {pair.b} \n"
    text = tokenizer.render([Message("user", content)], add_generation_prompt=True)
    if not text.endswith(HEADER):
        raise CheckpointError(
            f"The chat template ends with {text[-40:]!r}, not with the assistant's header, at which this family reads."
        )
    if tokenizer.bos_token:
        text = text.replace(tokenizer.bos_token, "")
    token_ids = tokenizer.encode(text)
    return TokenInput(token_ids, [len(token_ids) - 1], n_kept_last=len(tokenizer.encode(HEADER)))


def read(setup: Setup) -> TokenLogits:
    """The two letters, each one token."""
    return TokenLogits((setup.tokenizer.single_id(FIRST), setup.tokenizer.single_id(SECOND)))


def score(logits: Array, setup: Setup) -> Scored:
    """[1, 2] logits of ('A', 'B') -> P('A') of the two."""
    a, b = logits[0]
    return Scored(sigmoid(float(a) - float(b)))


FAMILY = Family(
    name="rlhflow-pair-pm",
    kind="pairwise",
    source="https://huggingface.co/RLHFlow/pair-preference-model-LLaMA3-8B",
    checkpoints=(Checkpoint("RLHFlow/pair-preference-model-LLaMA3-8B", license="llama3"),),
    matches=never,
    possible=calls_itself("LlamaForCausalLM"),
    encode=encode,
    read=read,
    score=score,
    score_range=(0.0, 1.0),
    both_orders=True,
    pair_output="probability",
    recipe=2,
    read_summary="last token",
    head_summary="lm_head rows of 'A' and 'B'",
    reading="The card's mean of two orders, so that identical responses give 0.5.",
)
