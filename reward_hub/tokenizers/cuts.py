"""Where a text may be cut so that its parts have the token ids that they have in the whole.

The tokenizers library first takes the added tokens out of a text as it is written, from left to right, the longest at
each place. What lies between two is normalised, split and encoded by itself. So no id changes where a text is cut
*before* an added token, as long as no other one can lie across that place. Behind the token it might: some vocabularies
put a space before the first stretch of a text alone.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from typing import Any

LEAST = 300
"""Characters of the shortest part that is worth a look-up."""
# Characters of all parts that are kept.
_MOST_KEPT = 1_000_000


def cut_before(tokens: Sequence[Any]) -> list[str]:
    """The texts of those added tokens before which a text may be cut wherever they stand in it.

    Args:
        tokens: every `AddedToken` of a tokenizer.
    """
    if any(token.single_word for token in tokens):
        return []  # whether such a token is one depends on the characters beside it
    # Those that are looked for in the text as it is written; the others are looked for in the stretches between them.
    texts = {token.content for token in tokens if not token.normalized and token.content}
    greedy = [token.content for token in tokens if token.lstrip]  # they take the white space before them
    inner = "\0".join(text[1:] for text in texts)
    endings = {text[i:] for text in texts for i in range(1, len(text))}
    return [
        text
        for text in texts
        if not text[0].isspace()
        and not any(other.startswith(text) for other in greedy)
        and text not in inner
        and not any(text[:n] in endings for n in range(1, len(text)))
    ]


class Parts:
    """Cuts texts, and keeps the ids of their parts: a prompt is encoded once for all of its responses."""

    def __init__(self, before: Sequence[str]) -> None:
        """
        Args:
            before: texts before which a text is cut.
        """
        longest_first = sorted(before, key=len, reverse=True)
        self._place = re.compile("|".join(map(re.escape, longest_first))) if before else None
        self._ids: dict[str, list[int]] = {}
        self._size = 0
        self._lock = threading.Lock()

    def of(self, text: str) -> list[str]:
        """The parts of a text; each but the last has `LEAST` characters or more."""
        parts = []
        start = 0
        while self._place is not None and (found := self._place.search(text, start + LEAST)) is not None:
            parts.append(text[start : found.start()])
            start = found.start()
        return [*parts, text[start:]]

    def ids(self, text: str, encode: Callable[[list[str]], list[list[int]]]) -> list[int]:
        """The ids of a text.

        Args:
            encode: gives the ids of each of several texts.
        """
        *parts, last = self.of(text)
        if not parts:
            return encode([last])[0]
        known = {part: self._ids.get(part) for part in parts}
        missing = [part for part, ids in known.items() if ids is None]
        *fresh, ending = encode([*missing, last])
        made = dict(zip(missing, fresh, strict=True))
        self._keep(made)
        joined: list[int] = []
        for part in parts:
            joined += known[part] or made.get(part, [])
        return joined + ending

    def _keep(self, made: dict[str, list[int]]) -> None:
        with self._lock:
            self._size += sum(map(len, made))
            if self._size > _MOST_KEPT:
                self._ids.clear()
                self._size = sum(map(len, made))
            self._ids.update(made)
