"""The special tokens that a tokenizer puts around a text by itself."""

from __future__ import annotations

from typing import Protocol

from reward_hub.errors import CheckpointError

_PROBE = "What is 2 + 2?"


class Encodes(Protocol):
    """The part of a tokenizer that is asked here."""

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]: ...


def tokens_around(tokenizer: Encodes) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before and behind a text: the truth about its bos, whatever its config names so.

    Raises:
        CheckpointError: it changes the text's own tokens when it adds special ones.
    """
    bare, whole = tokenizer.encode(_PROBE), tokenizer.encode(_PROBE, add_special_tokens=True)
    for start in range(len(whole) - len(bare) + 1):
        end = start + len(bare)
        if whole[start:end] == bare:
            return whole[:start], whole[end:]
    raise CheckpointError(f"The tokenizer makes {bare} of {_PROBE!r}, and {whole} when it adds special tokens.")
