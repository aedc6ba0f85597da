"""The three questions a family may ask a backend, at positions of its choice.

HeadOutputs(head)         what does the checkpoint's own small head say?        [n_positions (or fewer), width]
TokenLogits(token_ids)    the model's logits of these tokens                    [n_positions, len(token_ids)]
TokenLogprobs()           log-probability of the token standing at the position [n_positions, 1]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from reward_hub.heads import Head


@dataclass(frozen=True)
class HeadOutputs:
    """The outputs of `head` over the hidden vectors (after the final norm) at the positions."""

    head: Head

    def __str__(self) -> str:
        return f"head outputs ({self.head})"


@dataclass(frozen=True)
class TokenLogits:
    """The logits of `token_ids` for the token *after* each position, as the model's own class gives them."""

    token_ids: tuple[int, ...]

    def __str__(self) -> str:
        return "logits of chosen tokens"


@dataclass(frozen=True)
class TokenLogprobs:
    """The log-probability the model gave the token that stands *at* each position (so position 0 has none)."""

    def __str__(self) -> str:
        return "log-probabilities of the tokens"


Read: TypeAlias = HeadOutputs | TokenLogits | TokenLogprobs
