"""PairwiseRM: a family that judges two responses, on one backend.

`compare` asks in the order given, or in both where the card or the caller says so. `rank` always asks in both orders,
for no pairwise model is free of a bias for one place (see `ranking`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from reward_hub.backends.base import require_finite
from reward_hub.errors import InputTooLongError
from reward_hub.models.completeness import Missing, parts_beside_text
from reward_hub.models.model_rm import Fitted, LoadedRM, finished, read_each
from reward_hub.numerics import sigmoid
from reward_hub.ranking import rank_by_comparing
from reward_hub.reward_model import CallOptions, Capabilities, Result, each, required, sound, through
from reward_hub.types import Array, Conversation, Message, ModelInput, Pair, ScoreDetails, joined_details
from reward_hub.work import Work, in_thread

logger = logging.getLogger(__name__)


class PairwiseRM(LoadedRM):
    """A reward model that compares: two responses in, the probability that the first is the better one out."""

    @property
    def capabilities(self) -> Capabilities:
        documented = self.model.family.single_against is not None
        return replace(self.model.described(super().capabilities), has_score=documented)

    def scoring_of(self, conversations: Sequence[Conversation], options: CallOptions) -> Work[list[Result]]:
        """The documented score of one response: how it compares with a fixed one."""
        against = self.model.family.single_against
        assert against is not None
        check = self.model.completeness
        # Of the response the text alone is compared.
        missing = each(conversations, lambda c: check.tell(parts_beside_text(c)), fail_fast=options.fail_fast)
        pairs = [
            lost if isinstance(lost, Exception) else Pair(c.prompt, c.response, against)
            for c, lost in zip(conversations, missing, strict=True)
        ]
        results = yield from through(pairs, lambda able: self.comparison_of(able, False, options))
        return [
            replace(result, dropped=[*lost.names, *(result.dropped or ())])
            if isinstance(result, ScoreDetails) and isinstance(lost, Missing)
            else result
            for result, lost in zip(results, missing, strict=True)
        ]

    def comparison_of(self, pairs: Sequence[Pair], both_orders: bool, options: CallOptions) -> Work[list[Result]]:
        both = both_orders or self.model.family.both_orders
        fitted = yield from in_thread(
            lambda: each(pairs, lambda pair: self._fit_orders(pair, both), fail_fast=options.fail_fast)
        )
        n_orders = 2 if both else 1
        # A pair that cannot be fitted takes as many places as the others.
        orders = [order for pair in fitted for order in (pair if isinstance(pair, list) else [pair] * n_orders)]
        outputs = yield from read_each(self.model, orders, options)
        stacked = [_stacked(outputs[i : i + n_orders]) for i in range(0, len(outputs), n_orders)]
        return finished(stacked, lambda i, output: self._details(required(fitted[i]), output))

    def ranking_of(self, prompt: tuple[Message, ...], responses: Sequence[str], options: CallOptions) -> Work[Result]:
        return rank_by_comparing(lambda pairs: self.comparison_of(pairs, True, options), prompt, responses)

    def inputs_of(self, value: Conversation | Pair) -> list[ModelInput]:
        family = self.model.family
        if isinstance(value, Conversation):
            assert family.single_against is not None
            value = Pair(value.prompt, value.response, family.single_against)
        orders = self._fit_orders(value, family.both_orders)
        titles = ("a before b", "b before a") if len(orders) > 1 else ("",)
        return [self.model.shown(one.tokens, title) for one, title in zip(orders, titles, strict=True)]

    def _fit_orders(self, pair: Pair, both: bool) -> list[Fitted]:
        return [self._fit(order) for order in ((pair, pair.swapped) if both else (pair,))]

    def _fit(self, pair: Pair) -> Fitted:
        """Encode one order of a pair and hold it to the length limit, or to the recipe's budgets."""
        model = self.model
        family, setup, limit = model.family, model.setup, model.max_length
        if family.cut is None or limit is None:
            return model.fitted(pair, lambda p, text: Pair(p.prompt, text, text))
        tokens, missing = model.completeness.encode(pair)
        n = len(tokens.token_ids)
        refused = model.truncation == "error"
        cut = family.cut(pair, setup, limit, "right" if refused else model.truncation)
        if cut is not None and len(cut.token_ids) == n:
            return Fitted(cut, missing=missing)
        if refused or cut is None:
            raise InputTooLongError(
                f"{n} tokens do not fit into the {limit} of {family.name}, of which prompt and responses have a share "
                "each. Shorten them, or load with truncation='prompt' (drops the oldest prompt tokens), 'left' or "
                "'right' (cut the prompt at that side and the responses at their ends)."
                if refused
                else f"{n} tokens cannot be cut to the {limit} of {family.name} with truncation={model.truncation!r}: "
                "nothing would be left of the prompt or a response.",
                n_tokens=n,
                max_length=limit,
            )
        logger.warning("A pair of %d tokens was cut to %d (truncation=%r).", n, len(cut.token_ids), model.truncation)
        return Fitted(cut, n - len(cut.token_ids), missing)

    def _details(self, orders: Sequence[Fitted], output: Array) -> ScoreDetails:
        """`raw_logits` holds the number of the order (a, b), as the card gives it."""
        family, setup = self.model.family, self.model.setup
        numbers = [family.score(part, setup).score for part in np.split(require_finite(output), len(orders))]
        first, *other = [self._probability(number) for number in numbers if number is not None]
        probability = (first + 1.0 - other[0]) / 2.0 if other else first
        parts = [self.model.details(probability, output, order) for order in orders]
        return replace(
            joined_details(parts),
            raw_logits=[float(numbers[0] or 0.0)],
            normalized_score=probability,
            scores=None,
            extra={"orders": [first, 1.0 - other[0]]} if other else {},
        )

    def _probability(self, number: float) -> float:
        return sigmoid(number) if self.model.family.pair_output == "logit" else number


def _stacked(outputs: Sequence[Array | Exception]) -> Array | Exception:
    """The outputs of both orders of a pair, one below the other."""
    failed = next((output for output in outputs if isinstance(output, Exception)), None)
    return failed if failed is not None else np.concatenate(sound(outputs))
