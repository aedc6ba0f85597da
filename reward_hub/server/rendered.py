"""Scores of text or token ids that a client rendered itself, as vLLM, TEI and OpenRLHF send them.

A family's `encode` starts from messages and cannot be applied to such input. It is served where that makes no
difference: outcome models that read the last token (and what the family appends for that, which is appended here too).
Text is served where the family's ids are those of the checkpoint's chat template; it gets the bos tokens that the
family puts in front, whether the client wrote one or not. So a text that the model's template rendered has the score
of its messages. Everything else is refused, naming the route that takes messages.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from reward_hub.base import BaseRM
from reward_hub.encoding import opened_once, opening_length, read_last
from reward_hub.errors import InputTooLongError, InvalidConversationError, RewardHubError, UnsupportedError
from reward_hub.family import Setup
from reward_hub.models.model_rm import LoadedModel, ModelRM
from reward_hub.reward_model import CallOptions, Result
from reward_hub.tokenizer import Tokenizer
from reward_hub.types import Conversation, Message, TokenInput, last_position

logger = logging.getLogger(__name__)

TextToIds = Callable[[str, Tokenizer], list[int]]

_QUESTION, _ANSWER = "What is one plus two?", "It is three."


@dataclass(frozen=True)
class RenderedInput(Conversation):
    """Token ids in the place of a conversation."""

    token_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Truncation:
    """What a client asked for input that is too long: at most `max_length` tokens, cut at the "left" or "right"."""

    max_length: int
    side: str


class RenderedScorer:
    """The model of an RM, applied to ids.

    Raises:
        UnsupportedError: (the constructor) rendered input has no score in this model.
    """

    def __init__(self, rm: BaseRM) -> None:
        if not isinstance(rm, ModelRM) or rm.kind != "outcome":
            raise _refusal(rm, "it is not a single outcome model")
        self._model = rm.model
        self._suffix = _suffix(rm)
        self._text_to_ids, self._tail, self._opening = _text_recipe(rm.model, self._suffix)
        self._header = _response_header(rm.model.setup.tokenizer)
        family = dataclasses.replace(rm.model.family, encode=_as_given)
        # What is prompt and what response is not known, so nothing can be cut that spares the response.
        self._rm = ModelRM(dataclasses.replace(rm.model, family=family, truncation="error"))

    async def score(self, inputs: list[RenderedInput]) -> list[Result]:
        """One result an input; failures are results."""
        return await self._rm.ascore_conversations(inputs, CallOptions())

    def of_text(
        self, text: str, *, add_special_tokens: bool = True, truncation: Truncation | None = None
    ) -> RenderedInput:
        """A rendered text.

        Args:
            add_special_tokens: False: tokenised as it stands, without regard to what opens it.
        """
        tokenizer = self._model.setup.tokenizer
        _require_unicode(text)
        if not add_special_tokens:
            return self.of_ids(tokenizer.encode(text), truncation=truncation)
        if self._text_to_ids is None:
            family = self._model.family.name
            raise _refusal(self._model, f"family {family} does not read the text of the checkpoint's chat template")
        bare = text.removeprefix(_opening(text, tokenizer))
        return self.of_ids(self._text_to_ids(self._opening + bare, tokenizer), truncation=truncation)

    def of_ids(self, token_ids: Sequence[int], *, truncation: Truncation | None = None) -> RenderedInput:
        """Rendered token ids; what the family appends is appended where it is missing."""
        ids, suffix = list(token_ids), self._suffix
        size = _vocabulary_size(self._model.setup)
        if not ids or min(ids) < 0 or (size is not None and max(ids) >= size):
            raise InvalidConversationError(f"input: token ids from 0 to {size or '...'} are needed.", field="input")
        if suffix and tuple(ids[-len(suffix) :]) == suffix:
            ids = ids[: -len(suffix)]
        if truncation is not None:
            room = truncation.max_length - len(suffix)
            if room < 1:
                raise InvalidConversationError("input: nothing is left of it when cut so short.", field="input")
            ids = ids[-room:] if truncation.side == "left" else ids[:room]
        limit = self._model.max_length
        if limit is not None and len(ids) + len(suffix) > limit:
            n = len(ids) + len(suffix)
            raise InputTooLongError(
                f"{n} tokens, and the model takes {limit}.", n_tokens=n, max_length=limit
            )  # fmt: skip
        return RenderedInput(messages=(), token_ids=(*ids, *suffix))

    def of_completion(self, text: str) -> RenderedInput:
        """A text that ends with a generated response: its end becomes what the template writes after a response.

        A policy ends with its eos and padding, a template perhaps with a line break after the end of the turn; the
        model reads at that end.
        """
        if self._tail is None:
            raise _refusal(self._model, "its chat template does not tell where a response ends")
        tokenizer = self._model.setup.tokenizer
        while tokenizer.pad_token and text.endswith(tokenizer.pad_token):
            text = text.removesuffix(tokenizer.pad_token)
        for ending in (self._tail, self._tail.rstrip(), tokenizer.eos_token):
            if ending and text.endswith(ending):
                text = text.removesuffix(ending)
                break
        return self.of_text(text + self._tail)

    def looks_own(self, text: str) -> bool:
        """Whether a text holds what the checkpoint's template writes before a response."""
        return self._header in text


def _as_given(conversation: Any, setup: Setup) -> TokenInput:
    return read_last(list(conversation.token_ids), passed_over=setup.pad_token_id)


def _probe(question: str, answer: str) -> Conversation:
    return Conversation((Message("user", question), Message("assistant", answer)))


def _suffix(rm: ModelRM) -> tuple[int, ...]:
    """What the family appends to every conversation, having made sure that it reads the last token and nothing else."""
    family, setup = rm.model.family, rm.model.setup
    # A family that searches the place it reads may be led elsewhere by special tokens in a text.
    tokenizer = setup.tokenizer
    unknown = None if tokenizer.unk_token_id is None else tokenizer.token(tokenizer.unk_token_id)
    marks = "".join(filter(None, (tokenizer.eos_token, tokenizer.pad_token, unknown)))
    suffixes = set()
    for question, answer in ((_QUESTION, _ANSWER), ("Hello", f"Yes,{marks} 1 + 2 = 3\nis right.")):
        tokens = family.encode(_probe(question, answer), setup)
        n = len(tokens.token_ids)
        last = last_position(tokens.token_ids, setup.pad_token_id)
        if tokens.positions != [last] or tokens.token_type_ids is not None or tokens.decoder_ids is not None:
            raise _refusal(rm, f"family {family.name} does not read at the last token alone")
        suffixes.add(tuple(tokens.token_ids[n - tokens.n_kept_last :]))
    if len(suffixes) > 1:
        raise _refusal(rm, f"family {family.name} does not end every conversation alike")
    return suffixes.pop()


def _text_recipe(model: LoadedModel, suffix: tuple[int, ...]) -> tuple[TextToIds | None, str | None, str]:
    """How the family makes ids of its template's text, what that text has behind a response, what opens it."""
    tokenizer = model.setup.tokenizer
    # A bos that a message spells is removed by some cards.
    spelled = _probe(f"{_QUESTION}{tokenizer.bos_token or ''} {_QUESTION}", _ANSWER)
    probes = [_probe(_QUESTION, _ANSWER), spelled]
    try:
        texts = [tokenizer.render(probe.messages) for probe in probes]
    except RewardHubError:
        return None, None, ""
    wanted = [model.family.encode(probe, model.setup).token_ids for probe in probes]
    wanted = [ids[: len(ids) - len(suffix)] for ids in wanted]
    recipes = (_plain, opened_once, _without_bos, _with_special)
    recipe = next((r for r in recipes if [r(text, tokenizer) for text in texts] == wanted), None)
    _, answer, tail = texts[0].rpartition(_ANSWER)
    return recipe, tail if answer and recipe is not None else None, _opening(texts[0], tokenizer)


def _opening(text: str, tokenizer: Tokenizer) -> str:
    """What a text begins with that a tokenizer adds, or that is called its bos."""
    bos = tokenizer.bos_token or ""
    return text[: opening_length(text, tokenizer)] or (bos if text.startswith(bos) else "")


def _response_header(tokenizer: Tokenizer) -> str:
    """The template's generation prompt; empty where there is none."""
    question = _probe(_QUESTION, _ANSWER).prompt
    try:
        text, more = (tokenizer.render(question, add_generation_prompt=prompt) for prompt in (False, True))
    except RewardHubError:
        return ""
    return more.removeprefix(text).strip() if more.startswith(text) else ""


def _plain(text: str, tokenizer: Tokenizer) -> list[int]:
    return tokenizer.encode(text)


def _without_bos(text: str, tokenizer: Tokenizer) -> list[int]:
    return opened_once(text.replace(tokenizer.bos_token, "") if tokenizer.bos_token else text, tokenizer)


def _with_special(text: str, tokenizer: Tokenizer) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=True)


def _vocabulary_size(setup: Setup) -> int | None:
    config = setup.config
    size = config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size")
    return int(size) if size else None


def _require_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidConversationError(
            "input: half of a surrogate pair; no tokenizer takes it.", field="input"
        ) from error


def _refusal(model: Any, why: str) -> UnsupportedError:
    route = {"process": "/v1/score_steps", "pairwise": "/v1/compare"}.get(
        getattr(model, "kind", "outcome"), "/v1/score"
    )
    return UnsupportedError(
        f"{model.name or type(model).__name__} takes no rendered text or token ids: {why}. Send messages to {route}."
    )
