"""Small arithmetic shared by families: activations, expectations, step aggregation. All in float32 or better."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import numpy as np

from reward_hub.errors import UnsupportedError
from reward_hub.types import Array

_erf = np.vectorize(math.erf, otypes=[np.float64])

AGGREGATIONS = ("min", "last", "product", "mean", "geometric_mean", "max", "sum", "model")
"""How step scores become one score. "model" scores the whole response as one step."""


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)) without overflow."""
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-x))
    e = math.exp(x)
    return e / (1.0 + e)


def in_unit_interval(score: float, score_range: tuple[float, float], *, higher_is_better: bool = True) -> float:
    """The score in [0, 1], higher is better: a linear map of a finite range, or the sigmoid."""
    low, high = score_range
    if math.isfinite(low) and math.isfinite(high):
        share = min(max(float((score - low) / (high - low)), 0.0), 1.0)
        return share if higher_is_better else 1.0 - share
    return sigmoid(score if higher_is_better else -score)


def sigmoids(x: Array) -> Array:
    """Elementwise sigmoid, without overflow, any shape."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0 / (1.0 + e), e / (1.0 + e)).astype(np.float32)


def softmax(x: Array, axis: int = -1) -> Array:
    """Softmax along one axis; the result sums to 1 there."""
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.asarray(e / e.sum(axis=axis, keepdims=True), dtype=np.float32)


def gelu(x: Array) -> Array:
    """x Phi(x) with the exact error function, not the tanh approximation."""
    return np.asarray(x * (1.0 + _erf(x / math.sqrt(2.0))) / 2.0, dtype=np.float32)


def selu(x: Array) -> Array:
    """Scaled exponential linear unit, with the constants of Klambauer et al. (2017), as PyTorch has them."""
    alpha, scale = 1.6732632423543772, 1.0507009873554805
    return (scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))).astype(np.float32)


def bfloat16(x: Array) -> Array:
    """Finite float32 values rounded to bfloat16 (to nearest, ties to even), still in float32."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    bits = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (bits & np.uint32(0xFFFF0000)).view(np.float32)


def aggregate(scores: Sequence[float], how: str) -> float:
    """One score from step scores.

    Args:
        scores: one score a step, at least one.
        how: a name of `AGGREGATIONS`.

    Raises:
        UnsupportedError: the geometric mean of a negative step score.
    """
    if how == "min":
        return min(scores)
    if how == "max":
        return max(scores)
    if how in ("last", "model"):
        return scores[-1]
    if how == "sum":
        return math.fsum(scores)
    if how == "mean":
        return math.fsum(scores) / len(scores)
    if how == "product":
        return math.prod(scores)
    if how == "geometric_mean":
        if min(scores) < 0:
            raise UnsupportedError(
                f"The geometric mean needs step scores of at least 0, got {min(scores)}; use 'mean' or 'min'."
            )
        if min(scores) == 0:
            return 0.0
        return math.exp(math.fsum(math.log(s) for s in scores) / len(scores))
    raise UnsupportedError(f"Unknown aggregation {how!r}; known: {', '.join(AGGREGATIONS)}.")


# A quarter of the largest float: differences of two such numbers are finite too.
_LARGEST = sys.float_info.max / 4


def is_finite(value: float) -> bool:
    """Whether a number is finite as a float, and so are differences of such. Whole numbers of JSON know no bound."""
    return abs(value) <= _LARGEST
