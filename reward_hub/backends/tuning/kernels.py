"""The functions of `kernels.c` over tensors, held to torch before the first of them is used."""

from __future__ import annotations

import ctypes
import functools
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import torch

from reward_hub.backends.tuning.compiled import NoKernelsError, cache_folder, library

logger = logging.getLogger(__name__)

Activation = Literal["silu", "gelu_tanh"]

# Rows that are worth a thread, and numbers where there are no rows.
ROWS_OF_A_THREAD = 64
NUMBERS_OF_A_THREAD = 2**16
# Which part of the numbers may be another one than torch's (the next one in bfloat16): sums in another order, and
# the last bits of an exponential, move a number over a rounding bound now and then.
OTHERWISE_ROUNDED = 1e-3

_POINTER, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
_ARGUMENTS = {
    "rms_norm": (_POINTER, _POINTER, _POINTER, _INT, _INT, _FLOAT, ctypes.c_int),
    "silu_times": (_POINTER, _POINTER, _INT),
    "gelu_tanh_times": (_POINTER, _POINTER, _INT),
    "rotary": (_POINTER, _POINTER, _POINTER, _POINTER, _INT, _INT, _INT, _INT, _INT),
}


@functools.cache
def kernels() -> Kernels | None:
    """The kernels, compiled where they are not in the cache; None, said once, where there are none."""
    try:
        found = Kernels(library(cache_folder() / "kernels"))
        found.check()
    except (NoKernelsError, OSError) as error:
        logger.warning("tune: torch's own operations are used, as there are no compiled kernels: %s.", error)
        return None
    return found


class Kernels:
    """Each takes bfloat16 on the CPU, and is spread over as many threads as torch uses."""

    def __init__(self, file: Path) -> None:
        loaded = ctypes.CDLL(str(file))
        self._functions: dict[str, Any] = {}
        for name, arguments in _ARGUMENTS.items():
            function = getattr(loaded, name)
            function.argtypes, function.restype = arguments, None
            self._functions[name] = function

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float, *, round_first: bool) -> torch.Tensor:
        """Rows divided by their root mean square, times weights.

        Args:
            x: [..., size].
            weight: float32 [size].
            round_first: whether a normalised row is rounded before it is multiplied (Llama), or once after (Gemma).
        """
        x, size = x.contiguous(), x.shape[-1]
        out = torch.empty_like(x)

        def part(start: int, n: int) -> None:
            at = 2 * start * size
            self._functions["rms_norm"](
                x.data_ptr() + at, weight.data_ptr(), out.data_ptr() + at, n, size, eps, round_first
            )

        _spread(part, x.numel() // size, ROWS_OF_A_THREAD)
        return out

    def gated(self, gate: torch.Tensor, up: torch.Tensor, activation: Activation) -> torch.Tensor:
        """activation(gate) * up; it may stand where gate stood."""
        gate, up = gate.contiguous(), up.contiguous()
        function = self._functions[f"{activation}_times"]

        def part(start: int, n: int) -> None:
            function(gate.data_ptr() + 2 * start, up.data_ptr() + 2 * start, n)

        _spread(part, gate.numel(), NUMBERS_OF_A_THREAD)
        return gate

    def rotary(self, x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
        """x cos + rotate_half(x) sin.

        Args:
            x: [batch, heads, tokens, size], dense in its last dimension.
            cosines: dense [batch, tokens, size], as are the sines.
        """
        n_batches, n_heads, n_tokens, size = x.shape
        out = x.new_empty(n_batches, n_tokens, n_heads, size)
        of_batch, of_head, of_token = x.stride()[:3]
        for batch in range(n_batches):
            at = batch * n_tokens

            def part(start: int, n: int, batch: int = batch, at: int = at) -> None:
                angle = 2 * (at + start) * size
                self._functions["rotary"](
                    x.data_ptr() + 2 * (batch * of_batch + start * of_token),
                    cosines.data_ptr() + angle,
                    sines.data_ptr() + angle,
                    out.data_ptr() + angle * n_heads,
                    *(n, n_heads, size, of_token, of_head),
                )

            _spread(part, n_tokens, ROWS_OF_A_THREAD)
        return out.transpose(1, 2)

    def check(self) -> None:
        """Hold the kernels to torch.

        Raises:
            NoKernelsError: one of them gives something else.
        """
        numbers = torch.Generator().manual_seed(0)

        def some(*shape: int) -> torch.Tensor:
            return (4 * torch.randn(*shape, generator=numbers)).bfloat16()

        x, up, weight = some(64, 136), some(64, 136), some(136)
        for first in (True, False):
            ours = self.rms_norm(x, weight.float(), 1e-6, round_first=first)
            _require(same_numbers(ours, rms_norm(x, weight.float(), 1e-6, round_first=first)), "rms_norm")
        for name, activation in ACTIVATIONS.items():
            _require(same_numbers(self.gated(x.clone(), up, name), activation(x) * up), name)
        heads, angles = some(2, 8, 3, 12).transpose(1, 2), some(2, 8, 12)
        ours = self.rotary(heads, angles, angles.flip(0).contiguous())
        _require(same_numbers(ours, rotary(heads, angles, angles.flip(0))), "rotary")


# The same in torch -----------------------------------------------------------------------------------------------


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float, *, round_first: bool) -> torch.Tensor:
    row = x.float()
    row = row * torch.rsqrt(row.pow(2).mean(-1, keepdim=True) + eps)
    return (weight * (row.to(x.dtype).float() if round_first else row)).to(x.dtype)


ACTIVATIONS: dict[Activation, Callable[[torch.Tensor], torch.Tensor]] = {
    "silu": torch.nn.functional.silu,
    "gelu_tanh": functools.partial(torch.nn.functional.gelu, approximate="tanh"),
}


def rotary(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cosines[:, None] + torch.cat((-second, first), dim=-1) * sines[:, None]


def same_numbers(ours: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether bfloat16 numbers are the same but for a few, and those the next ones."""
    if ours.shape != expected.shape or ours.dtype != expected.dtype:
        return False
    sizes = expected.float().abs()
    apart = (ours.float() - expected.float()).abs()
    # The next number is at most 2^-7 away; what is nothing beside the others does not count.
    nothing = 1e-6 * sizes.max()
    near = apart <= 2**-7 * sizes + nothing
    few = int((apart > nothing).sum()) <= max(2.0, OTHERWISE_ROUNDED * apart.numel())
    return bool(near.all()) and few


def _require(same: bool, name: str) -> None:
    if not same:
        raise NoKernelsError(f"compiled, {name} gives other numbers than torch")


# Threads ---------------------------------------------------------------------------------------------------------


def _spread(part: Callable[[int, int], None], n: int, least: int) -> None:
    """Call part(start, number) over n rows, in as many threads as torch uses and the rows are worth."""
    n_threads = max(1, min(torch.get_num_threads(), n // least))
    if n_threads == 1:
        part(0, n)
        return
    size = -(-n // n_threads)
    starts = range(0, n, size)
    # A call leaves Python's lock: threads of Python compute side by side.
    list(_threads().map(lambda start: part(start, min(size, n - start)), starts))


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(torch.get_num_threads(), thread_name_prefix="reward_hub-kernels")
