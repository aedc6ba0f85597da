"""The score and details of a judgement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from reward_hub.errors import BackendError
from reward_hub.judge.chat.limits import Usage
from reward_hub.judge.form import JudgeForm
from reward_hub.judge.judging import Judgement
from reward_hub.judge.samples import PositionBias
from reward_hub.numerics import aggregate, in_unit_interval, sigmoid
from reward_hub.types import Conversation, ScoreDetails, joined_details


def position_of(judgement: Judgement) -> PositionBias | None:
    """What the two orders of a pair say; None where there was one."""
    return None if len(judgement.groups[0]) == 1 else PositionBias.of(*_orders(judgement))


def _orders(judgement: Judgement) -> list[float]:
    """The probability that a is the better one, with a first and with b first."""
    return [fmean(group[k].verdict.scores[0] for group in judgement.groups) for k in (0, 1)]


@dataclass(frozen=True)
class JudgeDetails:
    """Makes the details of one judge's judgements."""

    form: JudgeForm
    model: str
    backend: str

    def bare(self, score: float) -> ScoreDetails:
        return ScoreDetails(
            score=score,
            raw_logits=[],
            normalized_score=score,
            tokens_scored=None,
            family=self.form.name,
            backend=self.backend,
            model=self.model,
        )

    def _of(self, judgement: Judgement, score: float) -> ScoreDetails:
        samples = [sample for group in judgement.groups for sample in group]
        masses = [sample.verdict.score_mass for sample in samples if sample.verdict.score_mass is not None]
        extra: dict[str, Any] = {
            "reasoning": samples[0].verdict.reasoning,
            "samples": [sample.to_dict(self.form.mode) for sample in samples],
            "usage": judgement.usage.to_dict(),
        }
        if masses:
            extra["score_mass"] = min(masses)
        if judgement.reduced.spread is not None:
            extra["spread"] = judgement.reduced.spread
        return replace(
            self.bare(score),
            raw_logits=[value for sample in samples for value in sample.verdict.scores],
            tokens_scored=judgement.usage.prompt_tokens,
            attributes=judgement.reduced.criteria or None,
            extra=extra,
        )

    def of_score(self, judgement: Judgement, conversation: Conversation, aggregation: str) -> ScoreDetails:
        scores = judgement.reduced.scores
        if conversation.steps is None:
            details = self._of(judgement, scores[0])
            return replace(details, normalized_score=in_unit_interval(scores[0], self.form.score_range))
        if len(scores) != len(conversation.steps):
            raise BackendError(f"{self.form.name} gave {len(scores)} scores for {len(conversation.steps)} steps.")
        score = aggregate(scores, aggregation)
        # A product or a sum leaves the range, unless probabilities are multiplied.
        probabilities = aggregation == "product" and self.form.score_range == (0.0, 1.0)
        bounded = probabilities or aggregation not in ("product", "sum")
        return replace(
            self._of(judgement, score),
            normalized_score=in_unit_interval(score, self.form.score_range) if bounded else sigmoid(score),
            step_scores=list(scores),
            step_spans=[list(span) for span in conversation.step_spans or ()],
        )

    def of_pair(self, judgement: Judgement) -> ScoreDetails:
        """Of a comparison; a listwise judge's preference is the order of the two."""
        if self.form.mode == "listwise":
            a, b = judgement.reduced.scores
            return self._of(judgement, 0.5 + 0.5 * ((a > b) - (a < b)))
        details = self._of(judgement, judgement.reduced.scores[0])
        position = position_of(judgement)
        if position is None:
            return details
        both_orders = {
            "agreement": bool(position.agreement),
            "position_bias": position.bias,
            "orders": _orders(judgement),
        }
        return replace(details, extra={**details.extra, **both_orders})

    def of_several(self, parts: Sequence[ScoreDetails]) -> ScoreDetails:
        """Of responses to one prompt that were scored each on its own: what all of them used and were told."""
        masses = [part.extra["score_mass"] for part in parts if "score_mass" in part.extra]
        extra: dict[str, Any] = {
            "reasoning": "\n\n".join(part.extra["reasoning"] for part in parts).strip(),
            "samples": [{"response": i, **one} for i, part in enumerate(parts) for one in part.extra["samples"]],
            "usage": Usage.total([Usage(**{"cost": None, **part.extra["usage"]}) for part in parts]).to_dict(),
        }
        return replace(joined_details(parts), extra=extra | ({"score_mass": min(masses)} if masses else {}))

    def of_list(self, judgement: Judgement) -> ScoreDetails:
        scores = list(judgement.reduced.scores)
        return replace(self._of(judgement, max(scores)), scores=scores)
