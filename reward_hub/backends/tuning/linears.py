"""Other ways to compute a linear layer on a CPU.

widened: a processor without instructions for half precision multiplies float32 several times as fast. Weights and
    inputs are widened for the call, a block at a time, and the result is rounded once, as half precision with sums in
    float32 does it too. Nothing is kept.
prepacked: oneDNN's own order of the weights, which it otherwise makes in every call. They take the place of the
    module's, so that no weight is held twice; whoever asks for `weight` gets it back in its own order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch.nn.functional import linear

Way = Literal["widened", "prepacked"]
Function = Callable[[torch.Tensor], torch.Tensor]

# Operations that torch has for its own compiler, and promises to nobody: looked for, and held to the plain product.
REORDER, MULTIPLY = "_reorder_linear_weight", "_linear_pointwise"
# Numbers of a temporary in float32: 16 MB, which malloc keeps at hand.
LARGEST_BLOCK = 2**22
ROWS_OF_A_BLOCK = 1024


def widened(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x [..., n_in] times weight [n_out, n_in], in float32 with one rounding at the end."""
    n_out, n_in = weight.shape
    rows = x.reshape(-1, n_in)
    out = x.new_empty(rows.shape[0], n_out)
    size = max(1, LARGEST_BLOCK // max(n_in, min(len(rows), ROWS_OF_A_BLOCK)))
    for start in range(0, len(rows), ROWS_OF_A_BLOCK):
        block = rows[start : start + ROWS_OF_A_BLOCK].float()
        for first in range(0, n_out, size):
            some = slice(first, first + size)
            own_bias = None if bias is None else bias[some].float()
            out[start : start + ROWS_OF_A_BLOCK, some] = linear(block, weight[some].float(), own_bias)
    return out.view(*x.shape[:-1], n_out)


def packed(weight: torch.Tensor, rows: int) -> torch.Tensor | None:
    """The weight in oneDNN's order; None where this torch or this processor has none for it."""
    try:
        ordered: torch.Tensor = getattr(torch.ops.mkldnn, REORDER)(weight.detach(), rows)
        by_onednn(torch.zeros(1, weight.shape[1], dtype=weight.dtype), ordered, None)
    except (AttributeError, RuntimeError):
        return None
    return ordered if torch.equal(ordered.to_dense(), weight) else None


def by_onednn(x: torch.Tensor, ordered: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    result: torch.Tensor = getattr(torch.ops.mkldnn, MULTIPLY)(x, ordered, bias, "none", [], "")
    return result


def is_linear(module: torch.nn.Module, x: torch.Tensor) -> bool:
    """Whether a module multiplies its input with its weight, adds its bias, and does nothing else."""
    own = dict(module.named_parameters(recurse=False))
    weight, bias = own.get("weight"), own.get("bias")
    if weight is None or weight.dim() != 2 or weight.shape[1] != x.shape[-1] or weight.dtype != x.dtype:
        return False
    if own.keys() - {"weight", "bias"} or next(module.children(), None) is not None:
        return False
    given = [factor * x for factor in (1, 16)]
    # A router of experts has such a weight too, and returns several things.
    found = ((module(some), linear(some, weight, bias)) for some in given)
    return all(isinstance(own, torch.Tensor) and torch.equal(own, product) for own, product in found)


def in_other_way(module: Any, way: Way, least_rows: int, ordered: torch.Tensor | None = None) -> Function:
    """A linear module's forward in another way, from so many rows on."""
    own, weight, bias = type(module).forward, module.weight, module.bias
    dtype, n_in = weight.dtype, weight.shape[1]
    if way == "prepacked":
        # Not the weight itself, which goes once the ordered one is kept.
        assert ordered is not None
        return lambda x: by_onednn(x, ordered, bias) if x.dtype == dtype else own(module, x)

    def forward(x: torch.Tensor) -> torch.Tensor:
        enough = x.dtype == dtype and x.numel() >= least_rows * n_in
        return widened(x, weight, bias) if enough else own(module, x)

    return forward


class _Prepacked(torch.nn.Module):
    """A linear module whose weight is kept in oneDNN's order alone."""

    ordered: torch.Tensor

    @property
    def weight(self) -> torch.Tensor:
        return self.ordered.to_dense()


@functools.cache
def _prepacked_class(cls: type) -> Any:
    return type(f"Prepacked{cls.__name__}", (_Prepacked, cls), {})


def let_go(module: Any, ordered: torch.Tensor) -> None:
    """Keep the ordered weight in the place of the module's own."""
    del module.weight
    module.__class__ = _prepacked_class(module.__class__)
    module.ordered = ordered


def take_back(module: Any) -> None:
    """Undo `let_go`."""
    weight = module.weight
    module.__class__ = type(module).__bases__[1]
    del module.ordered
    module.weight = torch.nn.Parameter(weight, requires_grad=False)
