"""From the margin of one response over another to the probability that it is the better one.

A margin is the difference of two scores, turned so that higher is better, or the logit of a pairwise model's
probability. Every map is monotone and antisymmetric: p(-margin) = 1 - p(margin).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Method: TypeAlias = Literal["temperature", "isotonic"]
Floats: TypeAlias = NDArray[np.float64]


class CalibrationMap(Protocol):
    """A fitted map; `to_dict` holds all of it."""

    method: ClassVar[Method]

    def probabilities(self, margins: Floats) -> Floats:
        """Probability that the first response is the better one, elementwise."""

    def to_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class TemperatureMap:
    """The Bradley-Terry model: p = sigmoid(margin / temperature)."""

    temperature: float
    method: ClassVar[Method] = "temperature"

    def __post_init__(self) -> None:
        if not 0 < self.temperature < np.inf:
            raise ValueError(f"temperature is {self.temperature}; a positive finite number is needed.")

    def probabilities(self, margins: Floats) -> Floats:
        return sigmoids(np.asarray(margins) / self.temperature)

    def to_dict(self) -> dict[str, Any]:
        return {"method": self.method, "temperature": self.temperature}


@dataclass(frozen=True)
class IsotonicMap:
    """Straight lines from (0, 0.5) through the knots, constant beyond the last; for negative margins mirrored."""

    margins: tuple[float, ...]
    """Of the knots: positive, ascending."""
    values: tuple[float, ...]
    """The probability at each knot: in [0.5, 1), none below the one before it."""
    method: ClassVar[Method] = "isotonic"

    def __post_init__(self) -> None:
        margins, values = np.asarray(self.margins, np.float64), np.asarray(self.values, np.float64)
        if margins.shape != values.shape or len(margins) == 0:
            raise ValueError(f"an isotonic map needs knots; it has {len(margins)} margins and {len(values)} values.")
        steps, rises = np.diff(margins, prepend=0.0), np.diff(values, prepend=0.5)
        if not (np.isfinite(margins).all() and (steps > 0).all() and (rises >= 0).all() and values[-1] < 1):
            raise ValueError("the margins of an isotonic map must ascend from 0, its values from 0.5 to below 1.")

    def probabilities(self, margins: Floats) -> Floats:
        margins = np.asarray(margins, np.float64)
        better = np.interp(np.abs(margins), (0.0, *self.margins), (0.5, *self.values))
        return np.where(margins >= 0, better, 1.0 - better)

    def to_dict(self) -> dict[str, Any]:
        return {"method": self.method, "margins": list(self.margins), "values": list(self.values)}


def sigmoids(x: Floats) -> Floats:
    """Elementwise sigmoid in float64."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0 / (1.0 + e), e / (1.0 + e))


def fit_temperature(margins: Floats) -> TemperatureMap:
    """The temperature under which the chosen responses' margins are most likely.

    Pairs without a wrong one among them would be most likely at temperature 0. Each of such n pairs counts as right
    with probability (n + 1) / (n + 2), Platt's targets ("Probabilistic outputs for support vector machines", 1999),
    by which the optimum is finite.

    Args:
        margins: of the chosen over the rejected response, one a pair.

    Raises:
        ValueError: the chosen responses are on average no better than the rejected ones.
    """
    if not margins.sum() > 0:
        raise ValueError(
            f"The chosen responses score no better than the rejected ones (mean margin {margins.mean():.4g}), so no "
            "temperature makes the scores a probability. Check that chosen and rejected are not exchanged."
        )
    doubt = 0.0 if (margins < 0).any() else 1.0 / (len(margins) + 2)

    def slope(inverse: float) -> float:
        """Of the log-likelihood, which is concave in the inverse temperature."""
        return float(margins @ (sigmoids(-inverse * margins) - doubt))

    low, high = 0.0, 1.0 / float(np.abs(margins).max())
    while slope(high) > 0:
        low, high = high, 2.0 * high
    # The midpoint reaches one of its ends when no float is left between them.
    while low < (middle := (low + high) / 2.0) < high:
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return TemperatureMap(1.0 / high)


def fit_isotonic(margins: Floats) -> IsotonicMap:
    """The monotone map that fits the pairs best in squared error, every pair taken in both orders.

    Antisymmetry makes that the same as a regression on the size of the margin, of whether its sign is right, held to
    0.5 at least. No probability is surer than n pairs can make it: all lie within 1 / (n + 2) of 0 and 1.

    Args:
        margins: of the chosen over the rejected response, one a pair.

    Raises:
        ValueError: all margins are 0.
    """
    # Equal scores say nothing: the map is 0.5 there.
    margins, n = margins[margins != 0], len(margins)
    if len(margins) == 0:
        raise ValueError("Every chosen response has the score of its rejected one; there is nothing to fit.")
    sizes, place = np.unique(np.abs(margins), return_inverse=True)
    counts = np.bincount(place).astype(np.float64)
    right = np.bincount(place, weights=(margins > 0).astype(np.float64))
    fitted = pool_adjacent_violators(right / counts, counts)
    fitted = np.clip(fitted, 0.5, (n + 1) / (n + 2))
    # Within a block of equal values the ends are all that is needed.
    inner = np.zeros(len(fitted), dtype=bool)
    inner[1:-1] = (fitted[1:-1] == fitted[:-2]) & (fitted[1:-1] == fitted[2:])
    return IsotonicMap(tuple(sizes[~inner].tolist()), tuple(fitted[~inner].tolist()))


def pool_adjacent_violators(values: Floats, weights: Floats) -> Floats:
    """The ascending sequence nearest to `values` in weighted squared error (Ayer et al., 1955)."""
    means: list[float] = []
    masses: list[float] = []
    sizes: list[int] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        mean, mass, size = value, weight, 1
        while means and means[-1] >= mean:
            other, other_mass = means.pop(), masses.pop()
            mean = (mean * mass + other * other_mass) / (mass + other_mass)
            mass, size = mass + other_mass, size + sizes.pop()
        means.append(mean)
        masses.append(mass)
        sizes.append(size)
    return np.repeat(means, sizes)


FITS: Mapping[Method, Callable[[Floats], CalibrationMap]] = {
    "temperature": fit_temperature,
    "isotonic": fit_isotonic,
}


def map_from_dict(fields: Mapping[str, Any]) -> CalibrationMap:
    """The map that `to_dict` described.

    Raises:
        ValueError, KeyError, TypeError: it is none.
    """
    if fields["method"] == "temperature":
        return TemperatureMap(float(fields["temperature"]))
    if fields["method"] == "isotonic":
        return IsotonicMap(tuple(map(float, fields["margins"])), tuple(map(float, fields["values"])))
    raise ValueError(f"unknown method {fields['method']!r}; known: {', '.join(FITS)}.")
