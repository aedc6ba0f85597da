"""The expected score over the tokens that could have stood in a score's place (G-Eval, https://arxiv.org/abs/2303.16634).

Labels (the scores as texts, "A", "tie") may be one token or several, and one may begin another ("1", "10"). Only
probability that belongs to a label beyond doubt is counted; the share that was counted is returned with the mean.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reward_hub.errors import JudgeParseError
from reward_hub.judge.form import Reply, ReplyToken


@dataclass(frozen=True)
class Expected:
    """A mean over labels, and the probability that they have together."""

    value: float
    mass: float


def expected_at(reply: Reply, place: int, label: str, labels: Mapping[str, float]) -> Expected:
    """The mean of the labels' values at the place where the reply has `label`.

    Args:
        place: index into `reply.text` of the label's first character.
        labels: every label that could stand there -> its value. Case makes no difference.

    Raises:
        JudgeParseError: the tokens of the reply do not make up its text there, or do not tell how likely the label was.
    """
    tokens = reply.tokens or ()
    first, prefix = _token_at(reply.text, tokens, place)
    written, values = label.casefold(), {name.casefold(): value for name, value in labels.items()}
    masses = _masses(tokens, first, prefix, "", written, tuple(values))
    total = math.fsum(masses.values())
    # Without the label that was written, the mean would be that of what the judge did not say.
    if total <= 0.0 or written not in masses:
        raise JudgeParseError(f"The tokens do not tell how likely {label!r} was.", text=reply.text)
    return Expected(math.fsum(values[name] * p for name, p in masses.items()) / total, total)


def _token_at(text: str, tokens: Sequence[ReplyToken], place: int) -> tuple[int, str]:
    """The token in which a character of the text stands, and the token's characters before it.

    Tokens are laid along the text from its end: before it they may hold thinking, or halves of characters.
    """
    last = len(tokens)
    while last > 0 and not text.endswith(tokens[last - 1].text):
        last -= 1  # the end of turn, which is not text
    end = len(text)
    for i in range(last - 1, -1, -1):
        start = end - len(tokens[i].text)
        if start < 0 or text[start:end] != tokens[i].text:
            break
        if start <= place < end:
            return i, text[start:place]
        end = start
    raise JudgeParseError("The tokens that the server gave do not make up the judge's reply.", text=text)


def _masses(
    tokens: Sequence[ReplyToken], i: int, prefix: str, done: str, label: str, labels: Sequence[str]
) -> dict[str, float]:
    """Label -> probability, given that `done` of it is written and token `i`, after `prefix`, continues it."""
    ways = tokens[i].logprobs
    rests = {text: rest for text in ways if (rest := _rest_of(text, prefix)) is not None}
    words = {text: _word(rest, begun=bool(done)) for text, rest in rests.items()}
    # Where a whole label of several characters is one token, a shorter one that begins it is not a beginning.
    wholes = any(len(word.lstrip("-")) > 1 and done + word in labels for word in words.values())
    masses: dict[str, float] = {}
    for text, word in words.items():
        written = done + word
        possible = [one for one in labels if one.startswith(written)] if word else []
        p = math.exp(ways[text])
        ended = len(word) < len(rests[text])
        if written in labels and (ended or wholes or len(possible) == 1):
            masses[written] = masses.get(written, 0.0) + p
        elif text == tokens[i].text and label.startswith(written) and i + 1 < len(tokens):
            for name, share in _continued(tokens, i + 1, written, label, possible).items():
                masses[name] = masses.get(name, 0.0) + p * share
        elif len(possible) == 1 and not ended:
            masses[possible[0]] = masses.get(possible[0], 0.0) + p
    return masses


def _continued(
    tokens: Sequence[ReplyToken], i: int, written: str, label: str, possible: Sequence[str]
) -> dict[str, float]:
    """How the probability of the written beginning is shared among the labels it begins, by the token that follows."""
    longer = [one for one in possible if len(one) > len(written)]
    masses = _masses(tokens, i, "", written, label, longer) if longer else {}
    if written in possible:
        going_on = math.fsum(
            math.exp(logprob)
            for text, logprob in tokens[i].logprobs.items()
            if (word := _word(text, begun=True)) and any(one.startswith(written + word) for one in longer)
        )
        masses[written] = max(0.0, 1.0 - going_on)
    return masses


def _rest_of(text: str, prefix: str) -> str | None:
    """What a token that could stand here writes of the label, behind the characters before it."""
    if text.startswith(prefix):
        return text[len(prefix) :]
    return None


def _word(text: str, *, begun: bool) -> str:
    """The label's characters that a token begins with; a minus only where no label is begun, and maybe alone."""
    match = re.match(r"\w*" if begun else r"-?\w*", text)
    return match[0].casefold() if match else ""
