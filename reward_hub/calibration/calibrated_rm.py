"""CalibratedRM: a reward model whose `compare` is an honest probability.

    rm = calibrate(AutoRM.load("builtin/arithmetic-orm"), pairs)
    rm.compare(prompt=..., a=..., b=...)     # of the pairs with 0.8, about 80 % are right
    rm.save("arithmetic-orm.calibration.json")

What is fitted and how it is measured stands in `calibration`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from reward_hub.base import BaseRM
from reward_hub.calibration.fitting import Calibration, CalibrationReport, calibrate_margins, check_plan
from reward_hub.calibration.maps import Method, map_from_dict
from reward_hub.calls import ProgressBar
from reward_hub.data.column_turns import beyond_text
from reward_hub.data.preferences import PreferencePair, preference_pair
from reward_hub.errors import CheckpointError, InvalidConversationError, UnsupportedError
from reward_hub.fingerprints import fingerprint_of
from reward_hub.numerics import sigmoid
from reward_hub.reward_model import CallOptions, Capabilities, Result, at, first_failure, label_of, required
from reward_hub.types import Pair, ScoreDetails
from reward_hub.work import Work
from reward_hub.wrapper_rm import WrapperRM, refuse_own

FORMAT = 1


def calibrate(
    rm: BaseRM,
    pairs: Sequence[Mapping[str, Any] | PreferencePair],
    *,
    method: Method = "temperature",
    both_orders: bool = False,
    n_folds: int = 5,
    n_bins: int = 10,
    batch_size: int | None = None,
    show_progress: bool = False,
) -> CalibratedRM:
    """Fit a map on labelled pairs by which `compare` gives honest probabilities.

    Args:
        rm: any reward model, wrappers included.
        pairs: dicts with `prompt`, `chosen` and `rejected`, texts or lists of messages, or what
            `preference_data.read_preferences` read from a file of such rows.
        method, n_folds, n_bins: see `calibration.calibrate_scores`.
        both_orders: pairwise models: calibrate `compare(both_orders=True)`. Otherwise each pair is asked for in both
            orders, as two judgements of one order each. Other models have no order.
        batch_size: most conversations in one forward pass.

    Returns:
        The model with calibrated `compare`; its `report` says what was gained.

    Raises:
        InvalidConversationError: a pair is malformed.
        UnsupportedError: the model is of a class of your own that overrides `compare`.
        ValueError: fewer pairs than folds, or pairs that nothing can be fitted to.
    """
    refuse_own(rm, "compare")
    check_plan(len(pairs), method, n_folds, n_bins)
    parsed = [_pair_of(pair, f"pair {i}") for i, pair in enumerate(pairs)]
    one_order = rm.kind == "pairwise" and not both_orders
    orders = [order for pair in parsed for order in ((pair, pair.swapped) if one_order else (pair,))]
    with ProgressBar(2 * len(parsed), show_progress) as update:
        options = CallOptions(batch_size=batch_size, progress=update, fail_fast=True)
        results = rm.compare_pairs(orders, both_orders, options)
    failure = first_failure(results)
    if failure is not None:
        raise at(failure[1], failure[0] // (len(orders) // len(parsed)))
    margins = np.array([_margin(required(result), rm.higher_is_better) for result in results]).reshape(len(parsed), -1)
    if one_order:
        margins[:, 1:] *= -1.0
    return CalibratedRM(rm, calibrate_margins(margins, method, n_folds, n_bins), both_orders=both_orders)


class CalibratedRM(WrapperRM):
    """A reward model whose `compare` gives calibrated probabilities; made by `calibrate` and `load_calibration`.

    `score`, `score_steps` and `rank` are those of the model itself: raw rewards in its own order. The details of
    `compare` hold the raw numbers, with `calibrated: true` and the model's own probability as `raw_probability`.
    """

    def __init__(self, rm: BaseRM, calibration: Calibration, *, both_orders: bool = False) -> None:
        super().__init__(rm)
        self.calibration = calibration
        self.both_orders = both_orders

    @property
    def report(self) -> CalibrationReport:
        return self.calibration.report

    @property
    def fingerprint(self) -> str:
        """The model's own and that of the map."""
        fitted = json.dumps([self.calibration.map.to_dict(), self.both_orders], sort_keys=True)
        return f"{fingerprint_of(self.rm)}-calibrated-{hashlib.sha256(fitted.encode()).hexdigest()[:16]}"

    def save(self, path: str | Path) -> None:
        """Write the map, the report and the model's fingerprint as JSON; see `load_calibration`.

        Raises:
            TypeError: the model is of a class of your own that cannot be identified; give it a `fingerprint`.
        """
        fields = {
            "format": FORMAT,
            "model": self.name,
            "fingerprint": fingerprint_of(self.rm),
            "both_orders": self.both_orders,
            "map": self.calibration.map.to_dict(),
            "report": asdict(self.report),
        }
        Path(path).write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")

    # -- compare: the model's own margin, through the map ------------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, compares_itself=True, calibrated=True)

    def comparison_of(self, pairs: Sequence[Pair], both_orders: bool, options: CallOptions) -> Work[list[Result]]:
        results = yield from super().comparison_of(pairs, self._orders(both_orders), options)
        return [result if isinstance(result, Exception) else self._calibrated(result) for result in results]

    def _orders(self, both_orders: bool) -> bool:
        if both_orders and not self.both_orders and self.kind == "pairwise":
            raise UnsupportedError(
                f"{label_of(self)} was calibrated for one order of the responses, and both are asked for: "
                "calibrate(..., both_orders=True)."
            )
        return self.both_orders

    def _calibrated(self, result: ScoreDetails) -> ScoreDetails:
        probability = self.calibration.probability(_margin(result, self.higher_is_better))
        extra = {**result.extra, "calibrated": True, "raw_probability": result.score}
        return replace(result, score=probability, normalized_score=probability, extra=extra)


def load_calibration(path: str | Path, rm: BaseRM) -> CalibratedRM:
    """The model with the calibration that `CalibratedRM.save` wrote.

    Raises:
        CheckpointError: the file is not a calibration, or is that of another model or of other settings.
        OSError: it cannot be read.
    """
    try:
        fields = json.loads(Path(path).read_text(encoding="utf-8"))
        if fields["format"] != FORMAT:
            raise ValueError(f"format {fields['format']!r}, and {FORMAT} is read")
        calibration = Calibration(map_from_dict(fields["map"]), CalibrationReport(**fields["report"]))
        fingerprint, both_orders, model = fields["fingerprint"], bool(fields["both_orders"]), fields["model"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is not a calibration written by CalibratedRM.save: {error!r}.") from error
    refuse_own(rm, "compare")
    own = fingerprint_of(rm)
    if fingerprint != own:
        raise CheckpointError(
            f"{path} was fitted for {model!r} with the fingerprint {fingerprint}; {label_of(rm)!r} has {own} "
            "(other weights, or loaded with other settings). Calibrate this model with calibrate(rm, pairs)."
        )
    return CalibratedRM(rm, calibration, both_orders=both_orders)


def _margin(result: ScoreDetails, higher_is_better: bool) -> float:
    """By how much the first response leads: the logit of the model's probability.

    Where that is the sigmoid of a difference of scores, the difference itself: the sigmoid of 37 is 1.0 in a float.
    """
    # Of a calibrated model the probability is another one, also where both are as good as 1.
    if result.scores is not None and len(result.scores) == 2 and not result.extra.get("calibrated"):
        margin = result.scores[0] - result.scores[1] if higher_is_better else result.scores[1] - result.scores[0]
        if abs(sigmoid(margin) - result.score) < 1e-6:
            return margin
    p = float(np.clip(result.score, np.finfo(np.float64).eps, 1.0 - np.finfo(np.float64).eps))
    return float(np.log(p) - np.log1p(-p))


def _pair_of(pair: Mapping[str, Any] | PreferencePair, place: str) -> Pair:
    if not isinstance(pair, PreferencePair):
        if not isinstance(pair, Mapping):
            raise InvalidConversationError(
                f"{place} is {type(pair).__name__}; a dict of prompt, chosen and rejected is needed.", field="pairs"
            )
        pair = preference_pair(pair, place)
    for name, turn in (("chosen", pair.chosen.messages[-1]), ("rejected", pair.rejected.messages[-1])):
        more = beyond_text(turn)
        if more is not None:
            raise InvalidConversationError(
                f"{pair.place}: {name!r} {more}, and `compare` takes texts alone.", field=name
            )
    return Pair(pair.prompt, pair.chosen.response, pair.rejected.response)
