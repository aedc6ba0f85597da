"""ImplicitRM: rewards that a language model implies beside a reference model.

Which tokens are read, and what becomes of the log-ratios, say the families (`Family.log_ratio`); a reference-free model
has its policy alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from reward_hub.backends.base import require_finite
from reward_hub.base import BaseRM
from reward_hub.errors import CheckpointError, InputTooLongError, InvalidConversationError
from reward_hub.family import Family, Setup
from reward_hub.models.model_rm import Fitted, LoadedModel, finished, read_each, with_other_response
from reward_hub.numerics import aggregate
from reward_hub.reward_model import CallOptions, Capabilities, Result, each, required
from reward_hub.tokenizer import Tokenizer
from reward_hub.types import Array, Conversation, ModelInput, Pair, ScoreDetails, StepTokens, TokenInput
from reward_hub.work import Work, in_thread, together

DEFAULT_FAMILY = "implicit"
"""What a model beside a reference is read as where neither a family nor its id says more."""


# -- what AutoRM.load asks ---------------------------------------------------------------------------------------------


def is_implicit(family: Family) -> bool:
    return family.log_ratio is not None


def check_arguments(
    family: Family,
    *,
    reference: object,
    beta: float | None,
    length_normalize: bool,
    options: Mapping[str, Any] | None,
) -> None:
    """Raises TypeError where `reference`, `beta` or `length_normalize` do not go with the family, or are missing."""
    ratio = family.log_ratio
    if ratio is None:
        if reference is not None:
            raise TypeError(f"reference={reference!r}: {family.name} is not an implicit reward, it reads one model.")
        if beta is not None or length_normalize:
            raise TypeError("beta and length_normalize belong to an implicit reward; give reference= too.")
        return
    if reference is None and not needs_no_reference(options):
        raise TypeError(f"{family.name} compares a model with another one; give reference= too.")
    if ratio.fixed and beta is not None:
        raise TypeError(f"beta={beta}: {family.name} has no coefficient.")
    if beta is not None and not (math.isfinite(beta) and beta > 0):
        raise TypeError(f"beta={beta}; a positive number is needed.")
    if length_normalize and not ratio.normalizable:
        raise TypeError(f"length_normalize=True: {family.name} has its own way of dividing by the length, or none.")


def needs_no_reference(options: Mapping[str, Any] | None) -> bool:
    return bool((options or {}).get("reference_free"))


def check_tokenizers(family: Family, policy: Setup, reference: Setup) -> None:
    """Where both models read the same ids, these must mean the same: one vocabulary, one bos, eos and unk.

    The padding token may differ: it is never read, and training scripts choose one as they please.

    Raises:
        CheckpointError: they do not share the tokenizer.
    """
    assert family.log_ratio is not None
    if not family.log_ratio.one_tokenizer or policy.tokenizer is reference.tokenizer:
        return
    advice = "Both models read the policy's token ids; a tokenizer= given by name is taken for both."
    for name in ("bos_token_id", "eos_token_id", "unk_token_id"):
        ours, theirs = getattr(policy.tokenizer, name), getattr(reference.tokenizer, name)
        if ours != theirs:
            raise CheckpointError(f"The policy's {name} is {ours}, the reference's {theirs}. {advice}")
    ours, theirs = (_vocabulary(setup.tokenizer) for setup in (policy, reference))
    if ours is not None and theirs is not None and ours != theirs:
        other = sorted({token for token, _ in set(ours.items()) ^ set(theirs.items())})
        raise CheckpointError(
            f"Policy and reference have different vocabularies: {len(other)} token(s) differ, such as "
            f"{', '.join(map(repr, other[:3]))}. {advice}"
        )


def _vocabulary(tokenizer: Tokenizer) -> dict[str, int] | None:
    """Token -> id; None for a tokenizer of the caller's that does not tell."""
    vocabulary = getattr(tokenizer, "vocabulary", None)
    return None if vocabulary is None else dict(vocabulary())


@dataclass(frozen=True)
class _FittedBoth:
    """One conversation as both models read it; without a reference the second is None."""

    policy: Fitted
    reference: Fitted | None

    @property
    def tokens(self) -> TokenInput:
        return self.policy.tokens

    @property
    def aligned(self) -> bool:
        """Whether both models read the same tokens, so that there is a ratio for each."""
        return self.reference is None or self.reference.tokens.token_ids == self.tokens.token_ids


class ImplicitRM(BaseRM):
    """A reward model made of a policy and, unless it is reference-free, a reference model."""

    def __init__(
        self,
        policy: LoadedModel,
        reference: LoadedModel | None,
        *,
        beta: float | None = None,
        length_normalize: bool = False,
    ) -> None:
        ratio = policy.family.log_ratio
        assert ratio is not None, f"{policy.family.name} reads one model"
        models = [model for model in (policy, reference) if model is not None]
        limits = [model.max_length for model in models if model.max_length is not None]
        self.max_length = min(limits, default=None)
        self.policy = replace(policy, max_length=self.max_length)
        self.reference = None if reference is None else replace(reference, max_length=self.max_length)
        self.beta = ratio.coefficient if beta is None else float(beta)
        self.length_normalize = length_normalize or ratio.average
        self.name = policy.name
        self.family = policy.family.name
        self.kind = policy.family.kind
        self.step_delimiter = policy.family.step_delimiter
        self._ratio = ratio
        self._fingerprint: str | None = None

    @property
    def model(self) -> LoadedModel:
        """The policy: what the user named."""
        return self.policy

    @property
    def fingerprint(self) -> str:
        if self._fingerprint is None:
            reference = None if self.reference is None else self.reference.fingerprint()
            self._fingerprint = self.policy.fingerprint(
                reference=reference, beta=self.beta, length_normalize=self.length_normalize
            )
        return self._fingerprint

    def close(self) -> None:
        self.policy.backend.close()
        if self.reference is not None:
            self.reference.backend.close()

    @property
    def runs_on(self) -> Mapping[str, Any]:
        return {"reference": None if self.reference is None else self.reference.name, **self.policy.runs_on}

    @property
    def load_report(self) -> Mapping[str, Any]:
        reference = {} if self.reference is None else {"reference": self.reference.name}
        return {**self.policy.load_report, **reference, "beta": self.beta, "length_normalize": self.length_normalize}

    @property
    def capabilities(self) -> Capabilities:
        return self.policy.described(super().capabilities)

    def scoring_of(self, conversations: Sequence[Conversation], options: CallOptions) -> Work[list[Result]]:
        fitted = yield from in_thread(lambda: each(conversations, self._fit, fail_fast=options.fail_fast))
        outputs = yield from self._outputs(fitted, options)
        return finished(
            outputs, lambda i, output: self._details(conversations[i], required(fitted[i]), output, options.aggregation)
        )

    def _outputs(
        self, fitted: Sequence[_FittedBoth | Exception], options: CallOptions
    ) -> Work[list[Array | Exception]]:
        """For each conversation the policy's log-probabilities, and below them the reference's."""
        ours = [both if isinstance(both, Exception) else both.policy for both in fitted]
        if self.reference is None:
            return (yield from read_each(self.policy, ours, options))
        theirs = [both if isinstance(both, Exception) else both.reference or both.policy for both in fitted]
        models = (self.policy, self.reference)
        # Progress counts what both models have read.
        quiet = replace(options, progress=None)
        first, second = yield from together(
            [read_each(self.policy, ours, quiet), read_each(self.reference, theirs, options)],
            [model.backend.waits_elsewhere for model in models],
        )
        return [_stacked(a, b) for a, b in zip(first, second, strict=True)]

    def inputs_of(self, value: Conversation | Pair) -> list[ModelInput]:
        if isinstance(value, Pair):
            return super().inputs_of(value)
        both = self._fit(value)
        if self.reference is None or both.reference is None:
            return [self.policy.shown(both.tokens)]
        if self._ratio.one_tokenizer:
            return [self.policy.shown(both.tokens, "policy and reference")]
        return [
            self.policy.shown(both.tokens, "policy"),
            self.reference.shown(both.reference.tokens, "reference"),
        ]

    def tokens_read(self, conversation: Conversation) -> TokenInput:
        """What the policy reads of a conversation, within the length limit; `positions` are the tokens that count."""
        return self._fit_to(self.policy, conversation).tokens

    def _fit(self, conversation: Conversation) -> _FittedBoth:
        ours = self._fit_to(self.policy, conversation)
        if self.reference is None:
            return _FittedBoth(ours, None)
        return _FittedBoth(ours, ours if self._ratio.one_tokenizer else self._fit_to(self.reference, conversation))

    def _fit_to(self, model: LoadedModel, conversation: Conversation) -> Fitted:
        """One model's tokens within the length limit, every response token still among them."""
        fitted = model.fitted(conversation, with_other_response, lambda tokens: self._counted(model, tokens))
        positions = fitted.tokens.positions
        if positions[0] < 1 or len(set(positions)) < len(positions):
            n = len(fitted.tokens.token_ids) + fitted.dropped
            raise InputTooLongError(
                f"{n} tokens, and the models take {self.max_length}: truncation={model.truncation!r} would cut off "
                "tokens of the response.",
                n_tokens=n,
                max_length=self.max_length or 0,
            )
        return fitted

    def _counted(self, model: LoadedModel, tokens: TokenInput) -> TokenInput:
        """One model's tokens; what the recipe leaves out is not read."""
        leaves_out, strong = self._ratio.leaves_out, self.policy.setup
        if leaves_out is None:
            return tokens
        ids = tokens.token_ids
        positions = [p for p in tokens.positions if not leaves_out(strong, model.setup.tokenizer, ids[p])]
        if not positions:
            raise InvalidConversationError("the response has no token that counts.", field="messages")
        return replace(tokens, positions=positions)

    def _details(self, conversation: Conversation, pair: _FittedBoth, output: Array, how: str | None) -> ScoreDetails:
        n = len(pair.tokens.positions)
        ours, theirs = np.split(require_finite(output), [n])
        terms = ours - theirs if pair.aligned and len(theirs) else np.concatenate([ours, -theirs])
        scored = self.policy.family.score(terms, self.policy.setup)
        scale = self.beta / n if self.length_normalize else self.beta
        steps = None
        if scored.steps is not None:
            assert isinstance(pair.tokens, StepTokens)
            steps = [scale * scored.steps[end] for end in pair.tokens.step_ends]
            score = aggregate(steps, how or self.capabilities.aggregation)
        else:
            assert scored.score is not None
            score = scale * scored.score
        spans = conversation.step_spans
        both = [fitted for fitted in (pair.policy, pair.reference) if fitted is not None]
        return replace(
            self.policy.details(score, terms, pair.policy),
            truncated=any(fitted.truncated for fitted in both),
            dropped_tokens=max(fitted.dropped for fitted in both),
            dropped=list(dict.fromkeys(name for fitted in both for name in fitted.missing.names)),
            step_scores=steps,
            step_spans=[list(span) for span in spans] if steps is not None and spans is not None else None,
            extra=self._sums(ours, theirs),
        )

    def _sums(self, ours: Array, theirs: Array) -> dict[str, Any]:
        """What the score was made of; `raw_logits` are the log-ratios of the tokens.

        Where two tokenizers cut the text differently there is no ratio a token: `raw_logits` are then the policy's
        log-probabilities, followed by the reference's with their sign turned.
        """
        policy, reference = (float(part.sum(dtype=np.float64)) for part in (ours, theirs))
        sums = {
            "logp_policy_sum": policy,
            "logratio_sum": policy - reference,
            "logratio_mean": (policy - reference) / len(ours),
            "n_completion_tokens": len(ours),
            "beta": self.beta,
        }
        if self.reference is None:
            return sums
        return {**sums, "logp_reference_sum": reference, "reference": self.reference.name}


def _stacked(ours: Array | Exception, theirs: Array | Exception) -> Array | Exception:
    if isinstance(ours, Exception):
        return ours
    return theirs if isinstance(theirs, Exception) else np.concatenate([ours, theirs])
