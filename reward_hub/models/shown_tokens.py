"""What a model is given, token by token, for whoever wants to see it."""

from __future__ import annotations

from collections.abc import Sequence

from reward_hub.tokenizer import Tokenizer
from reward_hub.types import ModelInput, ShownToken, TokenInput

# Texts before one that it may depend on: a tokenizer drops or adds spaces at the beginning of what it decodes.
_CONTEXT = 8
_INCOMPLETE = "\ufffd"


def shown_input(tokens: TokenInput, tokenizer: Tokenizer, title: str = "") -> ModelInput:
    """The tokens with their texts, those read marked."""
    if tokens.decoder_ids is None:
        return ModelInput(title, _shown(tokens.token_ids, tokens.positions, tokenizer))
    return ModelInput(
        title, _shown(tokens.token_ids, (), tokenizer), _shown(tokens.decoder_ids, tokens.positions, tokenizer)
    )


def unread(token_ids: Sequence[int], tokenizer: Tokenizer) -> tuple[ShownToken, ...]:
    """Tokens of which is not known here where they are read."""
    return _shown(token_ids, (), tokenizer)


def _shown(token_ids: Sequence[int], positions: Sequence[int], tokenizer: Tokenizer) -> tuple[ShownToken, ...]:
    read, texts = set(positions), texts_of(list(token_ids), tokenizer)
    return tuple(
        ShownToken(i, id_, text, i in read) for i, (id_, text) in enumerate(zip(token_ids, texts, strict=True))
    )


def texts_of(token_ids: list[int], tokenizer: Tokenizer) -> list[str]:
    """The text that each token adds to those before it.

    A character made of several tokens (an emoji, say) is the last one's; the others have no text.
    """
    texts: list[str] = []
    starts = [0]
    """Where texts begin; the last is that of the tokens that have none yet."""
    for end in range(1, len(token_ids) + 1):
        first, start = starts[-_CONTEXT:][0], starts[-1]
        before, whole = (tokenizer.decode(token_ids[first:stop]) for stop in (start, end))
        if whole.endswith(_INCOMPLETE) and end < len(token_ids):
            texts.append("")
            continue
        texts.append(whole[len(before) :] if whole.startswith(before) else tokenizer.decode(token_ids[start:end]))
        starts.append(end)
    return texts
