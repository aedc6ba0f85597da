"""Calibration: how far stated probabilities are from what comes true, and the map that mends it, from recorded scores.

Differences of scores carry an order and no scale: a model trained as a Bradley-Terry model is usually surer of itself
than it is right on other data, and other models were never meant to be read so. Labelled pairs tell how far off it is
(Guo et al., "On calibration of modern neural networks", ICML 2017). `calibrated_rm` does this with a model at hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from reward_hub.calibration.maps import FITS, CalibrationMap, Floats, Method, sigmoids

SEED = 0
"""Of the shuffle that deals pairs into folds."""


@dataclass(frozen=True, kw_only=True)
class CalibrationReport:
    """What calibration does for the pairs it was fitted on.

    "After" is measured on held-out pairs: each pair by a map that was fitted on the other folds alone; the map in
    use is fitted on all of them. The errors are of the probability of the chosen response, in both orders.
    """

    method: Method
    n_pairs: int
    accuracy: float
    """Share of pairs whose chosen response scores better; equal scores count half. Calibration does not change it."""
    ece_before: float
    ece_after: float
    log_loss_before: float
    """Mean of -log p(chosen is better), in nats; log 2 = 0.693 is what 0.5 for every pair gives."""
    log_loss_after: float
    temperature: float | None
    """Of the map in use; None for an isotonic one. Above 1: the model is surer than it is right."""
    n_bins: int
    n_folds: int


@dataclass(frozen=True)
class Calibration:
    """A fitted map and how well it does."""

    map: CalibrationMap
    report: CalibrationReport

    def probability(self, margin: float) -> float:
        """Probability that the first of two responses is the better one.

        Args:
            margin: its score less the other's (the other way round for costs), or a pairwise model's logit.
        """
        return float(self.map.probabilities(np.array(margin)))


def expected_calibration_error(probabilities: ArrayLike, outcomes: ArrayLike, *, n_bins: int = 10) -> float:
    """Mean distance between the probability stated and the share that came true, over equally wide bins of [0, 1].

    Bins count by the number of events in them (Naeini et al., AAAI 2015). With few events a bin the error of a
    calibrated model is well above 0: compare figures for the same number of events and bins alone.

    Args:
        probabilities: of each event, in [0, 1].
        outcomes: 1 or True where it came true, 0 or False where not; 0.5 for a tie.
        n_bins: a probability of exactly i / n_bins falls into the upper bin, 1 into the last.

    Raises:
        ValueError: no events, unlike lengths, or numbers outside of [0, 1].
    """
    p, y = np.asarray(probabilities, np.float64), np.asarray(outcomes, np.float64)
    if p.ndim != 1 or p.shape != y.shape or len(p) == 0:
        raise ValueError(f"as many probabilities as outcomes are needed, at least one; got {p.shape} and {y.shape}.")
    for name, values in (("probabilities", p), ("outcomes", y)):
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError(f"{name} must lie in [0, 1]; found {values[~((values >= 0) & (values <= 1))][0]}.")
    if n_bins < 1:
        raise ValueError(f"n_bins={n_bins}; at least 1 is needed.")
    # Not p * n_bins, which may round to below the bin that p begins (15 / 22 * 22).
    bins = np.searchsorted(np.arange(1, n_bins) / n_bins, p, side="right")
    gaps = np.bincount(bins, weights=p - y, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(p))


def calibrate_scores(
    chosen: ArrayLike,
    rejected: ArrayLike,
    *,
    method: Method = "temperature",
    higher_is_better: bool = True,
    n_folds: int = 5,
    n_bins: int = 10,
) -> Calibration:
    """Calibrate recorded scores of labelled pairs.

    Args:
        chosen, rejected: one score a pair each.
        method: "temperature" (one number; right for a model that is over- or underconfident throughout) or "isotonic"
            (any monotone map; needs hundreds of pairs).
        higher_is_better: False for costs.
        n_folds: of the cross-validation that the report's "after" comes from.
        n_bins: of the calibration error, over [0, 1].

    Raises:
        ValueError: unlike lengths, fewer pairs than folds, scores that are not finite, or pairs that nothing can be
            fitted to (see `calibration_maps`).
    """
    a, b = np.asarray(chosen, np.float64), np.asarray(rejected, np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"as many chosen as rejected scores are needed; got {a.shape} and {b.shape}.")
    margins = a - b if higher_is_better else b - a
    return calibrate_margins(margins[:, None], method, n_folds, n_bins)


def check_plan(n_pairs: int, method: str, n_folds: int, n_bins: int) -> None:
    """Refuse what cannot be fitted before anything is scored for it."""
    if method not in FITS:
        raise TypeError(f"method={method!r}; known: {', '.join(FITS)}.")
    if not 2 <= n_folds <= n_pairs:
        raise ValueError(f"{n_pairs} pairs for {n_folds} folds: give at least as many pairs as folds, and 2 folds.")
    if n_bins < 1:
        raise ValueError(f"n_bins={n_bins}; at least 1 is needed.")


def calibrate_margins(margins: Floats, method: Method, n_folds: int, n_bins: int) -> Calibration:
    """Fit and measure; see `calibrate_scores`.

    Args:
        margins: [n_pairs, n_orders], of the chosen over the rejected response in each order that was asked for.
    """
    n_pairs = len(margins)
    check_plan(n_pairs, method, n_folds, n_bins)
    fit = FITS[method]
    if not np.isfinite(margins).all():
        raise ValueError(f"pair {int(np.argmin(np.isfinite(margins).all(axis=1)))} has scores that are not finite.")
    fold_of = np.random.default_rng(SEED).permutation(n_pairs) % n_folds
    fitted = fit(margins.ravel())
    before, after = sigmoids(margins), np.empty_like(margins)
    for fold in range(n_folds):
        held_out = fold_of == fold
        try:
            after[held_out] = fit(margins[~held_out].ravel()).probabilities(margins[held_out])
        except ValueError as error:
            raise ValueError(
                f"All {n_pairs} pairs can be fitted, but not without the {int(held_out.sum())} of fold {fold}, which "
                f"the report holds out; a few pairs decide everything. Give more pairs, or other n_folds. ({error})"
            ) from error
    report = CalibrationReport(
        method=method,
        n_pairs=n_pairs,
        accuracy=float(((np.sign(margins) + 1.0) / 2.0).mean()),
        ece_before=_ece(before, n_bins),
        ece_after=_ece(after, n_bins),
        log_loss_before=_log_loss(before),
        log_loss_after=_log_loss(after),
        temperature=getattr(fitted, "temperature", None),
        n_bins=n_bins,
        n_folds=n_folds,
    )
    return Calibration(fitted, report)


def _ece(chosen: Floats, n_bins: int) -> float:
    """Of probabilities of the chosen response, taken in both orders: which response is named first means nothing."""
    p = chosen.ravel()
    outcomes = np.repeat([1.0, 0.0], len(p))
    return expected_calibration_error(np.concatenate([p, 1.0 - p]), outcomes, n_bins=n_bins)


def _log_loss(chosen: Floats) -> float:
    # The smallest float keeps a probability that has underflowed to 0 finite.
    return float(-np.log(np.maximum(chosen, np.finfo(np.float64).tiny)).mean())
