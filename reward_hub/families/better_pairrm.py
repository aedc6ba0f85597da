"""Better-PairRM: PairRM trained anew on a Vicuna-like text and longer inputs.

Compares; the logit that the first response is the better one, unbounded. `compare` gives its sigmoid.
Recipe: https://huggingface.co/mightbe/Better-PairRM (its `tokenize_conv_pair`), in one order as the card has it. The
three texts are encoded and decoded once without special tokens, as there: unknown characters vanish, line breaks
become spaces. The prompt's marker stands in a segment of its own.
Departs from it: a marker's text inside a prompt or a response is text, where the original stops; what does not fit
into 3370 tokens (2030 of them for the prompt) is an error unless `truncation` allows to cut it. With
truncation="left" it is cut as the card does: the prompt at its left, the responses at their ends.
"""

from __future__ import annotations

from reward_hub.encoding import MarkedParts, config_id, cut_marked, marked_ids
from reward_hub.errors import InvalidConversationError
from reward_hub.families.pairrm import backbone, possible, read
from reward_hub.family import Checkpoint, Family, Pair, Setup, head_output, never
from reward_hub.types import TokenInput

SPEAKERS = {"user": "USER", "assistant": "ASSISTANT", "system": "SYSTEM MESSAGE", "developer": "SYSTEM MESSAGE"}
MAX_LENGTH = 3370
PROMPT_LENGTH = 2030
# 670 tokens of text, [CLS], the marker and [SEP].
RESPONSE_LENGTH = 673


def encode(pair: Pair, setup: Setup) -> TokenInput:
    """Prompt and responses, each behind its marker; uncut."""
    return _parts(pair, setup).joined()


def cut(pair: Pair, setup: Setup, max_length: int, truncation: str) -> TokenInput | None:
    """The card's budgets: 2030 tokens for the prompt, half of the rest, at most 670 of text, for each response."""
    budgets = (MAX_LENGTH, PROMPT_LENGTH)
    return cut_marked(_parts(pair, setup), max_length, truncation, budgets=budgets, response_limit=RESPONSE_LENGTH)


def _parts(pair: Pair, setup: Setup) -> MarkedParts:
    tokenizer = setup.tokenizer
    for i, message in enumerate(pair.prompt):
        if message.role not in SPEAKERS:
            raise InvalidConversationError(
                f"better-pairrm knows no {message.role!r} turns.", field=f"messages[{i}].role"
            )
    turns = [f"{SPEAKERS[message.role]}: {message.text.strip()}" for message in pair.prompt]

    def plain(text: str) -> str:
        return tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True)

    def ids(text: str, key: str) -> list[int]:
        return marked_ids(text, config_id(setup.config, key), tokenizer)

    marker = ids("", "source_prefix_id")
    prompt = tokenizer.encode(plain("\n\n".join([*turns, "ASSISTANT: "])), add_special_tokens=True)
    return MarkedParts(
        prompt=marker + prompt,
        a=ids(plain(pair.a), "cand1_prefix_id"),
        b=ids(plain(pair.b), "cand2_prefix_id"),
        n_head=len(marker) + 1,
    )


FAMILY = Family(
    name="better-pairrm",
    kind="pairwise",
    source="https://huggingface.co/mightbe/Better-PairRM",
    checkpoints=(
        Checkpoint("mightbe/Better-PairRM", license="apache-2.0", dtype="float32"),
        Checkpoint("maywell/Better-PairRM", license="apache-2.0", dtype="float32"),
    ),
    matches=never,
    possible=possible,
    architectures=("DebertaV2PairRM",),
    model_types=("deberta-v2",),
    encode=encode,
    cut=cut,
    read=read,
    score=head_output,
    backbone=backbone,
    max_length=MAX_LENGTH,
    read_summary="three marker tokens",
    head_summary="head_layer.1 [H, 2H] -> tanh -> head_layer.4 [1, H], of a minus of b",
    reading="One order, as the card; RewardBench subtracts the logit of the other order.",
)
