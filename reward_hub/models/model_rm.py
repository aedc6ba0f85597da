"""ModelRM: one family on one backend, for outcome and process reward models."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from reward_hub.backends.base import Backend, require_finite
from reward_hub.base import BaseRM
from reward_hub.errors import BackendError, InputTooLongError, ServerError, ServerTimeoutError
from reward_hub.family import Family, Setup
from reward_hub.models.completeness import NOTHING, Completeness, Missing, OnDropped
from reward_hub.models.shown_tokens import shown_input
from reward_hub.numerics import aggregate, in_unit_interval
from reward_hub.reward_model import (
    CallOptions,
    Capabilities,
    Result,
    each,
    failure_among,
    required,
    through,
)
from reward_hub.truncation import common_prefix, cut_left, cut_right
from reward_hub.types import (
    Array,
    Conversation,
    Message,
    ModelInput,
    Pair,
    ScoreDetails,
    TokenInput,
    joined_details,
)
from reward_hub.work import Work, in_thread, wait

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fitted:
    """An input within the length limit, how many tokens had to go for that, and what had not become tokens before."""

    tokens: TokenInput
    dropped: int = 0
    missing: Missing = NOTHING

    @property
    def truncated(self) -> bool:
        return self.dropped > 0 or self.missing.of_response


@dataclass(frozen=True)
class LoadedModel:
    """A family, its checkpoint and a running backend: what every RM over a family holds.

    Attributes:
        name: what the user loaded.
        revision: the commit, for Hub checkpoints.
        weights_id: identifies the weights (see `CheckpointFiles.fingerprint`), computed on first use.
    """

    name: str
    family: Family
    setup: Setup
    backend: Backend
    max_length: int | None
    truncation: str
    revision: str | None
    weights_id: Callable[[], str]
    aggregation: str | None = None
    batch_size: int | None = None
    numerics: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the engine that change numbers by more than rounding: quantization and the like."""
    on_dropped: OnDropped = "warn"
    loaded: Mapping[str, Any] = field(default_factory=dict)
    """What loading found out: how the family was told, an adapter, files that were left aside."""

    @cached_property
    def completeness(self) -> Completeness:
        """What encodes for it, and finds what is lost of a conversation on the way."""
        return Completeness(self.name, self.family, self.setup, self.on_dropped)

    @cached_property
    def _texts(self) -> dict[int, str]:
        """Of the tokens that were read so far."""
        return {}

    @property
    def runs_on(self) -> dict[str, Any]:
        """Its engine, for `repr`."""
        info = self.backend.info
        return {"backend": info.name, "dtype": info.dtype, "device": info.device}

    @property
    def load_report(self) -> dict[str, Any]:
        """How it was loaded and runs, as its backend says it too."""
        info = self.backend.info
        return {
            "reads": self.family.reads_at(self.setup) or None,
            "backend": f"{info.name} {info.version}".strip(),
            "dtype": info.dtype,
            "device": info.device,
            **self.loaded,
            **self.backend.load_report,
            "max_length": self.max_length,
            "truncation": self.truncation,
        }

    def shown(self, tokens: TokenInput, title: str = "") -> ModelInput:
        """The input token by token."""
        return shown_input(tokens, self.setup.tokenizer, title)

    @cached_property
    def higher_is_better(self) -> bool:
        """False where this checkpoint's score is a cost."""
        is_cost = self.family.is_cost
        return self.family.higher_is_better and not (is_cost is not None and is_cost(self.setup.config))

    @cached_property
    def score_range(self) -> tuple[float, float]:
        """Where this model's scores lie, with the options it was loaded with."""
        range_of = self.family.range_of
        return self.family.score_range if range_of is None else range_of(self.setup)

    def described(self, capabilities: Capabilities) -> Capabilities:
        """The capabilities of a reward model over this one."""
        return replace(
            capabilities,
            aggregation=self.aggregation or self.family.aggregate,
            waits_elsewhere=self.backend.waits_elsewhere,
            score_range=self.score_range,
            chat_template=getattr(self.setup.tokenizer, "chat_template", None),
        )

    def fitted(
        self,
        value: Any,
        stand_in: Callable[[Any, str], Any],
        counted: Callable[[TokenInput], TokenInput] = lambda tokens: tokens,
    ) -> Fitted:
        """The tokens of a conversation or a pair within the length limit.

        Args:
            stand_in: as `fit`.
            counted: the same tokens with those positions that are to be read.

        Raises:
            InputTooLongError: as `fit`.
            InvalidConversationError: something of it would be lost, and that is an error (`on_dropped`).
        """
        tokens, missing = self.completeness.encode(value)

        def encode(one: Any) -> TokenInput:
            return counted(tokens if one is value else self.family.tokens_of(one, self.setup))

        return replace(self.fit(encode, value, stand_in), missing=missing)

    def fit(self, encode: Callable[[Any], TokenInput], value: Any, stand_in: Callable[[Any, str], Any]) -> Fitted:
        """Encode one value and hold it to the length limit.

        Args:
            encode: the family's encode.
            value: a conversation or a pair.
            stand_in: the value with another response, by which the prompt's tokens are told from the response's.

        Raises:
            InputTooLongError: it is too long and may not be cut, or a position read would be lost.
        """
        tokens = encode(value)
        self.backend.check_media([tokens])
        n, limit = len(tokens.token_ids), self.max_length
        if limit is None or n <= limit:
            return Fitted(tokens)
        if self.truncation == "error":
            raise InputTooLongError(
                f"{n} tokens, and the model takes {limit}. Shorten the conversation, or load with truncation='prompt' "
                "(drops the oldest prompt tokens), 'left' or 'right'.",
                n_tokens=n,
                max_length=limit,
            )
        if self.truncation == "right":
            cut = cut_right(tokens, limit, process=self.family.kind == "process")
        else:
            spare = n - limit
            if self.truncation == "prompt":
                others = (encode(stand_in(value, text)).token_ids for text in ("0", "x"))
                n_prompt = min(common_prefix(tokens.token_ids, other) for other in others)
                if n_prompt - tokens.n_kept_first < spare:
                    raise InputTooLongError(
                        f"{n} tokens, and the model takes {limit}: the response alone has {n - n_prompt}, and it is "
                        "never cut with truncation='prompt'.",
                        n_tokens=n,
                        max_length=limit,
                    )
            cut = cut_left(tokens, spare)
        if cut is None:
            raise InputTooLongError(
                f"{n} tokens, and the model takes {limit}: truncation={self.truncation!r} would cut off a position "
                "that is read (a step, or the end of the prompt).",
                n_tokens=n,
                max_length=limit,
            )
        logger.warning("A conversation of %d tokens was cut to %d (truncation=%r).", n, limit, self.truncation)
        return Fitted(cut, n - limit)

    def details(self, score: float, outputs: Array, fitted: Fitted, **more: Any) -> ScoreDetails:
        """The record of one score; `more` is what its kind has besides."""
        return ScoreDetails(
            score=score,
            raw_logits=outputs.reshape(-1).astype(np.float64).tolist(),
            normalized_score=in_unit_interval(score, self.score_range, higher_is_better=self.higher_is_better),
            tokens_scored=len(fitted.tokens.token_ids) + len(fitted.tokens.decoder_ids or ()),
            truncated=fitted.truncated,
            dropped_tokens=fitted.dropped,
            dropped=list(fitted.missing.names),
            read_tokens=self.read_tokens(fitted.tokens),
            family=self.family.name,
            backend=self.backend.info.name,
            model=self.name,
            revision=self.revision,
            **more,
        )

    def read_tokens(self, tokens: TokenInput) -> list[dict[str, Any]]:
        """Index, id and text of each position that is read."""
        ids = tokens.token_ids if tokens.decoder_ids is None else tokens.decoder_ids
        read = []
        for index in tokens.positions:
            token_id = ids[index]
            text = self._texts.get(token_id)
            if text is None:
                text = self._texts[token_id] = self.setup.tokenizer.decode([token_id])
            read.append({"index": index, "id": token_id, "text": text})
        return read

    def fingerprint(self, **more: Any) -> str:
        """A hash over weights, recipe, tokenizer, dtype and every setting that may change a number."""
        options = self.setup.options
        parts = {
            "weights": self.weights_id(),
            "family": self.family.name,
            "recipe": self.family.recipe,
            "tokenizer": _tokenizer_id(self.setup),
            "dtype": self.backend.info.dtype,
            "backend": self.backend.info.name,
            "max_length": self.max_length,
            "truncation": self.truncation,
            "aggregation": self.aggregation,
            "options": options.model_dump(mode="json") if options is not None else None,
            "numerics": dict(self.numerics),
            **more,
        }
        if self.family.n_passed_over(self.setup):
            parts["passed_over"] = self.setup.pad_token_id
        # An option may be an object (a quantization config); its repr tells what is in it.
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=repr).encode()).hexdigest()[:32]
        return f"{self.family.name}-{digest}"


class LoadedRM(BaseRM):
    """A reward model over one loaded model: what it is called, where it runs, what tells it from others."""

    def __init__(self, model: LoadedModel) -> None:
        self.model = model
        self.name = model.name
        self.family = model.family.name
        self.kind = model.family.kind
        self.higher_is_better = model.higher_is_better
        self.max_length = model.max_length
        self.step_delimiter = model.family.step_delimiter
        self._fingerprint: str | None = None

    @property
    def fingerprint(self) -> str:
        if self._fingerprint is None:
            self._fingerprint = self.model.fingerprint()
        return self._fingerprint

    def close(self) -> None:
        self.model.backend.close()

    @property
    def runs_on(self) -> Mapping[str, Any]:
        return self.model.runs_on

    @property
    def load_report(self) -> Mapping[str, Any]:
        return self.model.load_report

    @property
    def shared_share(self) -> float | None:
        return self.model.backend.shared_share


class ModelRM(LoadedRM):
    """A reward model that scores: one conversation in, one number (or one a step) out."""

    @property
    def capabilities(self) -> Capabilities:
        return self.model.described(super().capabilities)

    def scoring_of(self, conversations: Sequence[Conversation], options: CallOptions) -> Work[list[Result]]:
        if self.model.family.prefixes is not None and any(len(c.steps or ()) > 1 for c in conversations):
            return (yield from self._by_prefixes(conversations, options))
        fitted = yield from in_thread(lambda: each(conversations, self._fit, fail_fast=options.fail_fast))
        outputs = yield from read_each(self.model, fitted, options)
        return finished(
            outputs, lambda i, output: self._details(conversations[i], required(fitted[i]), output, options.aggregation)
        )

    def inputs_of(self, value: Conversation | Pair) -> list[ModelInput]:
        if isinstance(value, Pair):
            return super().inputs_of(value)
        inputs = self.tokens_of(value)
        titles = [""] if len(inputs) == 1 else [f"up to step {n}" for n in range(1, len(inputs) + 1)]
        return [self.model.shown(tokens, title) for tokens, title in zip(inputs, titles, strict=True)]

    def tokens_of(self, conversation: Conversation) -> list[TokenInput]:
        """What the backend reads of a conversation: it, or by some families what ends at each of its steps."""
        prefixes = self.model.family.prefixes
        if prefixes is None or len(conversation.steps or ()) < 2:
            return [self._fit(conversation).tokens]
        return [self._fit(prefix).tokens for prefix in prefixes(conversation)]

    def _by_prefixes(self, conversations: Sequence[Conversation], options: CallOptions) -> Work[list[Result]]:
        """Step scores of a family that scores whole responses: each is a shorter response's. All are read together."""
        assert self.model.family.prefixes is not None
        # The longest first: where it is too long, that is what the error tells of.
        prefixes = [self.model.family.prefixes(conversation)[::-1] for conversation in conversations]
        inner = CallOptions(batch_size=options.batch_size, fail_fast=options.fail_fast)
        scored = iter((yield from self.scoring_of([prefix for several in prefixes for prefix in several], inner)))
        results: list[Result] = []
        for conversation, several in zip(conversations, prefixes, strict=True):
            parts = list(itertools.islice(scored, len(several)))
            failure = failure_among(parts)
            if failure is not None:
                results.append(failure)
            else:
                shorter = [required(part) for part in parts[::-1]]
                results += each([shorter], partial(self._of_prefixes, conversation, options.aggregation))
            options.done()
        return results

    def _of_prefixes(self, conversation: Conversation, how: str | None, parts: Sequence[ScoreDetails]) -> ScoreDetails:
        steps = [part.score for part in parts]
        score = aggregate(steps, how or self.capabilities.aggregation)
        return replace(
            joined_details(parts),
            score=score,
            normalized_score=in_unit_interval(score, self.model.score_range, higher_is_better=self.higher_is_better),
            scores=None,
            step_scores=steps,
            step_spans=[list(span) for span in conversation.step_spans or ()],
        )

    def _fit(self, conversation: Conversation) -> Fitted:
        family = self.model.family
        fitted = self.model.fitted(conversation, with_other_response)
        steps = conversation.steps
        if family.kind == "process" and steps is not None and family.reads_every_step:
            n = len(fitted.tokens.positions)
            assert n == len(steps), f"{family.name} reads {n} positions for {len(steps)} steps"
        return fitted

    def _details(self, conversation: Conversation, fitted: Fitted, output: Array, how: str | None) -> ScoreDetails:
        scored = self.model.family.score(require_finite(output), self.model.setup)
        steps = scored.steps
        if steps is not None:
            score = aggregate(steps, how or self.capabilities.aggregation)
        else:
            assert scored.score is not None
            score = scored.score
        spans = conversation.step_spans
        return self.model.details(
            score,
            output,
            fitted,
            step_scores=steps,
            step_spans=[list(span) for span in spans] if steps is not None and spans is not None else None,
            attributes=scored.attributes,
            gating=scored.gating,
            distribution=scored.distribution,
            quantiles=scored.quantiles,
        )


def read_each(
    model: LoadedModel, fitted: Sequence[Fitted | Exception], options: CallOptions
) -> Work[list[Array | Exception]]:
    """The backend's outputs for what could be fitted, in its places; failures stay failures."""
    return through(fitted, lambda able: _read(model, [f.tokens for f in able], options), fail_fast=options.fail_fast)


def _read(model: LoadedModel, inputs: Sequence[TokenInput], options: CallOptions) -> Work[list[Array | Exception]]:
    """The backend's outputs. A batch that fails is read again one by one, so that what is to blame fails alone."""
    backend, size = model.backend, options.batch_size or model.batch_size
    started = time.perf_counter()
    try:
        together = yield from wait(
            lambda: backend.read(inputs, batch_size=size, progress=options.progress),
            lambda: backend.aread(inputs, batch_size=size, progress=options.progress),
        )
        n_tokens = sum(len(item.token_ids) for item in inputs)
        seconds = time.perf_counter() - started
        logger.debug("%s: read %d inputs of %d tokens in %.3f s.", model.name, len(inputs), n_tokens, seconds)
        return list(together)
    except BackendError as error:
        if options.fail_fast or len(inputs) == 1:
            return [error] * len(inputs)
    outputs: list[Array | Exception] = []
    for item in inputs:
        try:
            outputs += yield from _one_read(model, item)
        except BackendError as error:
            outputs.append(error)
            if _is_lost(error):
                # Each of the others would wait for the server as long as this one did.
                return outputs + [error] * (len(inputs) - len(outputs))
    return outputs


def _one_read(model: LoadedModel, item: TokenInput) -> Work[list[Array]]:
    return wait(lambda: model.backend.read([item]), lambda: model.backend.aread([item]))


def _is_lost(error: BackendError) -> bool:
    """Whether a server could not be reached at all, after every attempt."""
    return isinstance(error, ServerError) and error.status is None and not isinstance(error, ServerTimeoutError)


def finished(
    outputs: Sequence[Array | Exception], details: Callable[[int, Array], ScoreDetails]
) -> list[ScoreDetails | Exception]:
    """The details made of each output, by its place; failures stay failures."""

    def one(place: int) -> ScoreDetails:
        return details(place, required(outputs[place]))

    return each([output if isinstance(output, Exception) else i for i, output in enumerate(outputs)], one)


def with_other_response(conversation: Conversation, text: str) -> Conversation:
    """The same conversation with another text at its end, of one step where steps are asked for."""
    *before, last = conversation.messages
    other = replace(conversation, messages=(*before, Message(last.role, text)))
    return other if conversation.steps is None else replace(other, steps=(text,), step_spans=((0, len(text)),))


def _tokenizer_id(setup: Setup) -> str | None:
    fingerprint = getattr(setup.tokenizer, "fingerprint", None)
    return fingerprint() if fingerprint is not None else None
