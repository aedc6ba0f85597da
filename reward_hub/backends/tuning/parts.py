"""Which modules of a model compute what a kernel computes: found by what they do to inputs, never by their names.

Inputs were recorded in a forward of the model. A module is replaced where the kernel gives what the class's own forward
gives on them, and on larger and smaller ones, where a limit or a small constant would show.
"""

from __future__ import annotations

import inspect
import itertools
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch

from reward_hub.backends.tuning import kernels as in_torch
from reward_hub.backends.tuning.kernels import ACTIVATIONS, Activation, Kernels, same_numbers

Function = Callable[[torch.Tensor], torch.Tensor]
Form = tuple[tuple[int, ...], Activation]
"""Which of a module's layers are the gate's, the one beside it and the last one, and what the gate goes through."""

FACTORS = (1.0, 16.0, 1e-3)
LARGEST_EPS = 1e-2


def norm(kernels: Kernels, module: torch.nn.Module, x: torch.Tensor) -> Function | None:
    """The forward of a module that divides rows by their root mean square; None: it does something else."""
    weights = list(module.parameters())
    if len(weights) != 1 or weights[0].shape != x.shape[-1:] or list(module.children()):
        return None
    own, weight = type(module).forward, weights[0].detach().float()
    given = [factor * x for factor in FACTORS]
    expected = [own(module, some) for some in given]
    # Some classes keep the weights' distance from one.
    for scale, eps, first in itertools.product((weight, 1 + weight), _small_numbers(module), (True, False)):
        ours = (kernels.rms_norm(some, scale, eps, round_first=first) for some in given)
        if all(map(same_numbers, ours, expected)):
            return _norm_forward(kernels, module, scale, eps, first)
    return None


def _small_numbers(module: torch.nn.Module) -> list[float]:
    return sorted({v for v in vars(module).values() if isinstance(v, float) and 0 < v <= LARGEST_EPS})


def _norm_forward(kernels: Kernels, module: torch.nn.Module, scale: torch.Tensor, eps: float, first: bool) -> Function:
    own = type(module).forward

    def forward(x: torch.Tensor) -> torch.Tensor:
        if x.dtype != torch.bfloat16 or not x.numel():
            return cast(torch.Tensor, own(module, x))
        return kernels.rms_norm(x, scale, eps, round_first=first)

    return forward


class Gated:
    """A module of two layers side by side and one after them: last(activation(gate(x)) * up(x)).

    Attributes:
        form: which layer is which.
        rows: how many rows go through it at a time, so that what is between its layers stays small.
    """

    def __init__(
        self,
        kernels: Kernels,
        module: torch.nn.Module,
        layers: Sequence[torch.nn.Module],
        form: Form,
    ) -> None:
        self._kernels = kernels
        self._module = module
        order, self._activation = form
        self._gate, self._up, self._last = (layers[i] for i in order)
        self.form = form
        self.rows = 1024

    def __call__(self, x: torch.Tensor, *others: Any, **more: Any) -> torch.Tensor:
        if x.dtype != torch.bfloat16 or others or more or not x.numel():
            return cast(torch.Tensor, type(self._module).forward(self._module, x, *others, **more))
        blocks = torch.split(x.reshape(-1, x.shape[-1]), self.rows)
        outs = [self._block(block) for block in blocks]
        return (outs[0] if len(outs) == 1 else torch.cat(outs)).view(*x.shape[:-1], -1)

    def _block(self, x: torch.Tensor) -> torch.Tensor:
        between = self._kernels.gated(self._gate(x), self._up(x), self._activation)
        return cast(torch.Tensor, self._last(between))

    def between(self, x: torch.Tensor, n_rows: int) -> tuple[Function, Function, torch.Tensor]:
        """What is computed between the layers, by the kernel and by torch, and rows that it is computed of."""
        gate = self._gate(x).flatten(0, -2)
        gate = gate.repeat(-(-n_rows // len(gate)), 1)[:n_rows].contiguous()
        # Of ones, as the kernel writes into what it is given: that comes to nothing slowly.
        up, activation = torch.ones_like(gate), ACTIVATIONS[self._activation]
        return (lambda x: self._kernels.gated(x, up, self._activation)), (lambda x: activation(x) * up), gate


def gated(kernels: Kernels, module: torch.nn.Module, x: torch.Tensor, likely: Form | None = None) -> Gated | None:
    """The forward of a module that is such a one; None: it is not.

    Args:
        likely: the form that is tried first.
    """
    layers = [child for child in module.children() if next(child.parameters(), None) is not None]
    if len(layers) != 3 or next(module.parameters(recurse=False), None) is not None:
        return None
    own = type(module).forward
    given = [factor * x for factor in FACTORS]
    expected = [own(module, some) for some in given]
    forms: list[Form] = list(itertools.product(itertools.permutations(range(3)), ACTIVATIONS))
    for form in forms if likely is None else [likely, *forms]:
        ours = Gated(kernels, module, layers, form)
        try:
            found = [ours(some) for some in given]
        except Exception:  # layers in an order that does not fit may raise anything
            continue
        if all(isinstance(e, torch.Tensor) and _near(f, e) for f, e in zip(found, expected, strict=True)):
            return ours
    return None


def _near(ours: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether vectors are the same but for a number between the layers that was rounded otherwise here and there."""
    if ours.shape != expected.shape:
        return False
    apart = (ours.float() - expected.float()).norm()
    return bool(apart <= 2**-10 * expected.float().norm())


def rotary(kernels: Kernels, module: torch.nn.Module) -> Callable[..., Any] | None:
    """The forward of a module that turns queries and keys by a function beside its class; None: it has none such.

    The function is replaced for this module alone: its forward is made anew, with other global names.
    """
    # transformers 5.24 wraps it to rename an old argument, which nobody gives here.
    forward = inspect.unwrap(type(module).forward)
    if not isinstance(forward, types.FunctionType) or forward.__closure__:
        return None
    names = [name for name in forward.__code__.co_names if _turns(forward.__globals__.get(name))]
    if not names:
        return None
    ours = {name: _turning(kernels, forward.__globals__[name]) for name in names}
    again = types.FunctionType(
        forward.__code__, {**forward.__globals__, **ours}, forward.__name__, forward.__defaults__, None
    )
    again.__kwdefaults__ = forward.__kwdefaults__
    return types.MethodType(again, module)


def _turns(function: Any) -> bool:
    """Whether a function of queries, keys, cosines and sines is the plain rotary one."""
    if not isinstance(function, types.FunctionType) or len(inspect.signature(function).parameters) < 4:
        return False
    q, k, *angles = _some_turned()
    try:
        found = function(q, k, *angles)
    except Exception:  # it may be about anything
        return False
    if not isinstance(found, tuple) or len(found) != 2:
        return False
    return all(
        isinstance(one, torch.Tensor) and torch.equal(one, in_torch.rotary(x, *angles))
        for one, x in zip(found, (q, k), strict=True)
    )


def _some_turned() -> Iterator[torch.Tensor]:
    """Queries, keys, cosines and sines, which need not be those of an angle."""
    numbers = torch.Generator().manual_seed(0)
    for shape in ((2, 4, 3, 8), (2, 1, 3, 8), (2, 3, 8), (2, 3, 8)):
        yield torch.randn(*shape, generator=numbers).bfloat16()


def _turning(kernels: Kernels, own: Callable[..., Any]) -> Callable[..., Any]:
    def apply(q: torch.Tensor, k: torch.Tensor, cos: Any, sin: Any, *others: Any, **more: Any) -> Any:
        if others or more or not _plain(q, k, cos, sin):
            return own(q, k, cos, sin, *others, **more)
        cos, sin = (angle.expand(q.shape[0], -1, -1).contiguous() for angle in (cos, sin))
        return kernels.rotary(q, cos, sin), kernels.rotary(k, cos, sin)

    return apply


def _plain(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> bool:
    """Whether the kernel takes these."""
    one_type = all(x.dtype == torch.bfloat16 for x in (q, k, cos, sin))
    shapes = all(x.dim() == 4 and x.stride(3) == 1 and x.shape[2:] == cos.shape[1:] and x.numel() for x in (q, k))
    return one_type and shapes and cos.dim() == 3 and cos.shape == sin.shape and cos.shape[0] in (1, q.shape[0])
