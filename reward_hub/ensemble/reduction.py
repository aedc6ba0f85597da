"""How the scores of several members become one: weighted means, medians, worst cases and votes.

A reduction works on columns: `values` is [n_members, n], one row a member, and each of the n columns is reduced by
itself. Only the ratios of weights matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

# Weights that sum to a half within this are a half: 0.1 + 0.2 is not 0.3 in floating point.
_HALF = 1e-9


def weighted_mean(values: Floats, weights: Floats) -> Floats:
    # Not a matrix product, whose rounding of a column may depend on how many there are.
    return np.asarray((weights[:, None] * values).sum(axis=0) / weights.sum())


def weighted_median(values: Floats, weights: Floats) -> Floats:
    """Where half of the weight is reached, from below; the mean of both sides where it is reached exactly."""
    ordered, shares = _sorted(values, weights)
    below = np.cumsum(shares, axis=0)
    low = np.argmax(below >= 0.5 - _HALF, axis=0)
    high = np.argmax(below > 0.5 + _HALF, axis=0)
    columns = np.arange(values.shape[1])
    # Equal ends are not averaged: that could round.
    middle = (ordered[low, columns] + ordered[high, columns]) / 2
    return np.asarray(np.where(low == high, ordered[low, columns], middle))


def _lowest(values: Floats, weights: Floats) -> Floats:
    return np.asarray(values.min(axis=0))


def _highest(values: Floats, weights: Floats) -> Floats:
    return np.asarray(values.max(axis=0))


def _mean_minus_variance(values: Floats, weights: Floats, penalty: float) -> Floats:
    return weighted_mean(values, weights) - penalty * _variance(values, weights)


def _mean_minus_std(values: Floats, weights: Floats, penalty: float) -> Floats:
    return weighted_mean(values, weights) - penalty * np.sqrt(_variance(values, weights))


def _trimmed_mean(values: Floats, weights: Floats, trim: float) -> Floats:
    """The mean without the lowest and the highest share `trim` of the weight; a member may be cut in part."""
    ordered, shares = _sorted(values, weights)
    above = np.cumsum(shares, axis=0)
    kept = np.clip(np.minimum(above, 1 - trim) - np.maximum(above - shares, trim), 0, None)
    return np.asarray((kept / kept.sum(axis=0) * ordered).sum(axis=0))


def _softmin(values: Floats, weights: Floats, beta: float) -> Floats:
    """-1/beta log E exp(-beta r), with the lowest value taken out first so that nothing overflows."""
    low = values.min(axis=0)
    return np.asarray(low - np.log(weighted_mean(np.exp(-beta * (values - low)), weights)) / beta)


def _variance(values: Floats, weights: Floats) -> Floats:
    return weighted_mean((values - weighted_mean(values, weights)) ** 2, weights)


def _sorted(values: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Each column ascending, with the share of the whole weight that each value has."""
    order = np.argsort(values, axis=0, kind="stable")
    return np.take_along_axis(values, order, axis=0), (weights / weights.sum())[order]


def _mean_rank(values: Floats, weights: Floats) -> Floats:
    """Rounded to what ranks can differ by: a tie must not be decided by the order in which thirds are added."""
    return np.asarray(weighted_mean(values, weights).round(12))


def ranks(values: Floats) -> Floats:
    """[n_members, n] -> the share of the other columns that each is better than, by row; a tie counts half."""
    n = values.shape[1]
    if n == 1:
        return np.full(values.shape, 0.5)
    below = (values[:, None, :] < values[:, :, None]).sum(axis=2)
    equal = (values[:, None, :] == values[:, :, None]).sum(axis=2) - 1
    return np.asarray((below + equal / 2) / (n - 1))


@dataclass(frozen=True)
class _Parameter:
    """The number that a reduction takes besides values and weights."""

    name: str
    default: float
    fits: Callable[[float], bool]
    range: str


_PENALTY = _Parameter("uncertainty_penalty", 1.0, lambda x: x >= 0, "at least 0")
_WITH_PARAMETER: Mapping[str, tuple[Callable[[Floats, Floats, float], Floats], _Parameter]] = {
    "uncertainty": (_mean_minus_variance, _PENALTY),
    "mean_minus_std": (_mean_minus_std, _PENALTY),
    "trimmed_mean": (_trimmed_mean, _Parameter("trim", 0.2, lambda x: 0 <= x < 0.5, "at least 0 and below 0.5")),
    "softmin": (_softmin, _Parameter("beta", 1.0, lambda x: x > 0, "above 0")),
}
_PLAIN: Mapping[str, Callable[[Floats, Floats], Floats]] = {
    "mean": weighted_mean,
    "median": weighted_median,
    "min": _lowest,
    "max": _highest,
    "vote": _mean_rank,
}
REDUCTIONS = ("mean", "median", "min", "max", "uncertainty", "mean_minus_std", "trimmed_mean", "softmin", "vote")
WITHOUT_WEIGHTS = ("min", "max")


def parameter_of(name: str) -> str | None:
    """The name of the number that a reduction takes besides weights, if it takes one."""
    return _WITH_PARAMETER[name][1].name if name in _WITH_PARAMETER else None


@dataclass(frozen=True)
class Reduction:
    """A reduction by its name, with its number where it has one; made by `Reduction.of`."""

    name: str
    parameter: float | None = None

    @classmethod
    def of(
        cls,
        name: str,
        *,
        uncertainty_penalty: float | None = None,
        trim: float | None = None,
        beta: float | None = None,
    ) -> Reduction:
        """Check name and parameters.

        Args:
            uncertainty_penalty: "uncertainty" takes off so many variances, "mean_minus_std" standard deviations (1).
            trim: the share of weight that "trimmed_mean" drops at either end (0.2).
            beta: "softmin" goes from the mean (towards 0) to the minimum (large) (1).

        Raises:
            TypeError: no such reduction, or a parameter that is out of range or that it does not have.
        """
        if name not in REDUCTIONS:
            raise TypeError(f"reduce={name!r}; known: {', '.join(REDUCTIONS)}.")
        given = {"uncertainty_penalty": uncertainty_penalty, "trim": trim, "beta": beta}
        own = _WITH_PARAMETER[name][1] if name in _WITH_PARAMETER else None
        for parameter, value in given.items():
            if value is not None and (own is None or parameter != own.name):
                users = [other for other, (_, p) in _WITH_PARAMETER.items() if p.name == parameter]
                raise TypeError(f"reduce={name!r} has no {parameter}; it belongs to {' and '.join(users)}.")
        if own is None:
            return cls(name)
        number = given[own.name]
        if number is None:
            return cls(name, own.default)
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
            raise TypeError(f"{own.name}={number!r} is not a finite number.")
        if not own.fits(number):
            raise TypeError(f"{own.name}={number!r}; it is {own.range}.")
        return cls(name, float(number))

    def __call__(self, values: Floats, weights: Floats) -> Floats:
        """[n_members, n] values and [n_members] positive weights -> [n]. For "vote", `values` are ranks.

        Finite unless scores near the largest float overflow.
        """
        # Equal weights become 1, and what is computed with them is what numpy computes without any.
        weights = weights / weights.max()
        with np.errstate(over="ignore", invalid="ignore"):
            if self.parameter is None:
                return _PLAIN[self.name](values, weights)
            return _WITH_PARAMETER[self.name][0](values, weights, self.parameter)
