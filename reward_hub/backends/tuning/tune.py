"""Tuning a loaded model: what is tried on it, held to its own class, measured, and put in place.

Nothing here runs unless `tune=True` was asked for, and nothing of the process is changed for good: forwards of this
model's modules are replaced, and torch's number of threads is another one while it scores.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from reward_hub.backends.tuning import choices as choosing
from reward_hub.backends.tuning import linears, parts
from reward_hub.backends.tuning.choices import Choices, LinearChoice
from reward_hub.backends.tuning.kernels import Kernels, kernels
from reward_hub.backends.tuning.parts import Gated

logger = logging.getLogger(__name__)

Function = Callable[[torch.Tensor], torch.Tensor]

# Tokens of the forward whose modules' inputs are recorded.
TOKENS = 8
# Rows that are measured, as far as one product of them is no more than so many floating-point operations.
SOME_ROWS = (8, 64, 512)
FLOP_OF_A_TRIAL = 2e9
BLOCKS = (256, 512, 1024, 2048)
# Measuring ends here; what is left stays as torch does it.
MEASURED_S = 45.0
# Each is repeated at least so often, and until so much time has gone by or it was done often enough.
LEAST_REPEATS, TRIAL_S, MOST_REPEATS = 2, 0.3, 20
# What is less faster than this is noise.
PAYS = 0.95
# How much farther from the wider dtype than the class's own forward a way may be.
AS_GOOD = 1.5
# How far hidden vectors of the tuned model may be from those before, relative to their length: the median, and most.
SAME = {torch.float32: (1e-5, 1e-3)}
SAME_HALF = (0.1, 0.4)


@dataclass
class Tuning:
    """What was done to a model.

    Attributes:
        threads: torch's while the model scores; None: as many as it has.
        done: in words.
    """

    threads: int | None = None
    done: list[str] = field(default_factory=list)
    _undo: list[Callable[[], None]] = field(default_factory=list, repr=False)

    def __str__(self) -> str:
        return "; ".join(self.done) or "nothing is faster than torch's own"

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Torch has the tuned number of threads within."""
        before = torch.get_num_threads()
        if self.threads is None or self.threads >= before:
            yield
            return
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def undo_by(self, function: Callable[[], None]) -> None:
        self._undo.append(function)

    def undo(self, why: str) -> None:
        """Leave the model as it was."""
        for undo in reversed(self._undo):
            undo()
        self._undo, self.done, self.threads = [], [f"nothing, as {why}"], None


def tune(model: Any, states: Callable[[list[int]], torch.Tensor]) -> Tuning:
    """Make a model faster where it stands.

    Args:
        model: all of whose modules may be replaced.
        states: runs it: from the token ids of one row to hidden vectors (or logits) [1, tokens, size].
    """
    if any(weight.device.type != "cpu" for weight in model.parameters()):
        return Tuning(done=["nothing, as it is tuned on CPUs alone"])
    started = time.monotonic()
    tuner = _Tuner(model, started)
    try:
        with torch.no_grad():
            token_ids = _some_ids(model)
            before = tuner.record(lambda: states(token_ids))
            tuner.tune()
            if not _same(states(token_ids), before):
                tuner.tuning.undo("its hidden vectors were others then")
    except Exception as error:  # foreign code may raise anything; what it means is that the model stays as it was
        logger.warning("tune: the model stays as it is: %s: %s", type(error).__name__, error)
        tuner.tuning.undo(f"trying it failed ({type(error).__name__}: {error})")
    logger.debug("tune: took %.1f s.", time.monotonic() - started)
    return tuner.tuning


def _some_ids(model: Any) -> list[int]:
    n_tokens = model.get_input_embeddings().weight.shape[0]
    numbers = random.Random(0)
    return [numbers.randrange(min(3, n_tokens - 1), min(n_tokens, 50_000)) for _ in range(TOKENS)]


def _same(after: torch.Tensor, before: torch.Tensor) -> bool:
    apart = (after - before).float().norm(dim=-1) / before.float().norm(dim=-1).clamp_min(1e-6)
    median, most = SAME.get(before.dtype, SAME_HALF)
    return bool(apart.median() <= median) and bool(apart.max() <= most)


class _Tuner:
    def __init__(self, model: Any, started: float) -> None:
        self.tuning = Tuning()
        self._model = model
        self._deadline = started + MEASURED_S
        self._inputs: dict[Any, torch.Tensor] = {}
        self._kernels: Kernels | None = None
        self._cut_short = False

    def record(self, forward: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Run the model, keeping what modules are given that are given one tensor and nothing else."""

        def keep(module: torch.nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            if len(given) == 1 and not named and isinstance(given[0], torch.Tensor) and given[0].is_floating_point():
                self._inputs[module] = given[0].detach().clone()

        # A module whose own forward was replaced before (weights that are fetched from disk) is not touched.
        hooks = [
            module.register_forward_pre_hook(keep, with_kwargs=True)
            for module in self._model.modules()
            if "forward" not in vars(module)
        ]
        try:
            return forward()
        finally:
            for hook in hooks:
                hook.remove()

    def tune(self) -> None:
        half = {x.dtype for x in self._inputs.values()}
        self._kernels = kernels() if torch.bfloat16 in half else None
        # All are held to their classes before the first is replaced.
        layers = {m: x for m, x in self._inputs.items() if linears.is_linear(m, x)}
        norms, gated, turned = self._found()
        key = choosing.key_of(self._shape(layers))
        choices = choosing.remembered(key)
        if choices is None:
            choices = Choices(linears=self._measured_linears(layers))
            self._measure_kernels(choices, norms, gated)
            self._replace_linears(layers, choices)
            self._measure_blocks(choices, gated)
            self._measure_threads(choices, layers)
            if self._cut_short:
                logger.info("tune: not all was measured in %g s; the next load measures again.", MEASURED_S)
            else:
                choosing.remember(key, choices)
        else:
            self._replace_linears(layers, choices)
        for name, wanted, functions in (
            ("norms", choices.norms, norms),
            ("gated modules", choices.gated, gated),
            # Not measured: one pass instead of the several of any function that was found equal to it.
            ("rotary functions", True, turned),
        ):
            if wanted and functions:
                self._replace(functions)
                self.tuning.done.append(f"{len(functions)} {name} in C")
        for function in gated.values():
            function.rows = choices.rows
        if choices.threads is not None:
            self.tuning.threads = choices.threads
            self.tuning.done.append(f"{choices.threads} threads")

    def _shape(self, layers: dict[Any, torch.Tensor]) -> Any:
        sizes = Counter((_size(layer), str(x.dtype)) for layer, x in layers.items())
        kinds = Counter(type(module).__qualname__ for module in self._inputs)
        return sorted(sizes.items()), sorted(kinds.items()), self._kernels is not None

    def _found(self) -> tuple[dict[Any, Function], dict[Any, Gated], dict[Any, Callable[..., Any]]]:
        """What kernels compute as well: norms, gated modules, and attention by its rotary function."""
        if self._kernels is None:
            return {}, {}, {}
        half = {module: x for module, x in self._inputs.items() if x.dtype == torch.bfloat16}
        norms = {module: parts.norm(self._kernels, module, x) for module, x in half.items()}
        gated: dict[Any, Gated | None] = {}
        form = None
        for module, x in half.items():
            gated[module] = found = parts.gated(self._kernels, module, x, form)
            form = form if found is None else found.form
        bare = [module for module in self._model.modules() if "forward" not in vars(module)]
        turned = {module: parts.rotary(self._kernels, module) for module in bare if any(module.children())}
        return _those(norms), _those(gated), _those(turned)

    # Linear layers ---------------------------------------------------------------------------------------------

    def _measured_linears(self, layers: dict[Any, torch.Tensor]) -> dict[str, LinearChoice]:
        """Which way pays, by size."""
        one_each = {_size(layer): (layer, x) for layer, x in layers.items()}
        found = {}
        for size, (layer, x) in one_each.items():
            found[size] = self._measured_linear(layer, x)
            logger.debug("tune: linear layers of %s: %s", size, found[size])
        return found

    def _measured_linear(self, layer: Any, x: torch.Tensor) -> LinearChoice:
        flop = 2 * layer.weight.numel()
        counts = sorted({max(1, min(rows, int(FLOP_OF_A_TRIAL // flop))) for rows in SOME_ROWS})
        given = [_rows(x, count) for count in counts]
        if x.dtype != torch.float32:
            ratios = [self._ratio(linears.in_other_way(layer, "widened", 0), layer, some) for some in given]
            pay = [ratio is not None and ratio < PAYS for ratio in ratios]
            if pay[-1]:
                first = max([i + 1 for i, pays in enumerate(pay) if not pays], default=0)
                return LinearChoice("widened", counts[first])
        ordered = linears.packed(layer.weight, counts[-1])
        if ordered is not None and not self._is_shared(layer):
            function = linears.in_other_way(layer, "prepacked", 0, ordered)
            ratios = [self._ratio(function, layer, some) for some in given]
            product = 1.0
            for ratio in ratios:
                product *= 2.0 if ratio is None else ratio
            # For all numbers of rows, as the module's own weight goes.
            if product < PAYS ** len(ratios) and all(ratio is not None and ratio < 1.03 for ratio in ratios):
                return LinearChoice("prepacked")
        return LinearChoice()

    def _is_shared(self, layer: Any) -> bool:
        """Whether the layer's weight is another module's too, which would hold it still."""
        owners = [
            module
            for module in self._model.modules()
            for own in module.parameters(recurse=False)
            if own is layer.weight
        ]
        return len(owners) > 1

    def _replace_linears(self, layers: dict[Any, torch.Tensor], choices: Choices) -> None:
        """One after the other, so that no more than one weight is held in two orders; each checked first."""
        counts: dict[str, int] = defaultdict(int)
        for layer, x in layers.items():
            choice = choices.linears.get(_size(layer), LinearChoice())
            ordered = None
            if choice.way == "prepacked":
                ordered = None if self._is_shared(layer) else linears.packed(layer.weight, SOME_ROWS[-1])
            if choice.way is None or (choice.way == "prepacked" and ordered is None):
                continue
            if not _as_good(layer, linears.in_other_way(layer, choice.way, 0, ordered), x):
                continue
            counts[choice.way + (f" from {choice.least_rows} rows on" if choice.least_rows else "")] += 1
            self._replace({layer: linears.in_other_way(layer, choice.way, choice.least_rows, ordered)})
            if ordered is not None:
                linears.let_go(layer, ordered)
                self.tuning.undo_by(functools.partial(linears.take_back, layer))
        self.tuning.done += [f"{count} linear layers {how}" for how, count in counts.items()]

    # Kernels and threads ---------------------------------------------------------------------------------------

    def _measure_kernels(self, choices: Choices, norms: dict[Any, Function], gated: dict[Any, Gated]) -> None:
        for module, function in list(norms.items())[:1]:
            choices.norms = self._pays(function, module, _rows(self._inputs[module], SOME_ROWS[-1]))
        for module, function in list(gated.items())[:1]:
            # What is between the layers alone: beside them it would drown in noise.
            ours, own, gate = function.between(self._inputs[module], SOME_ROWS[-1])
            choices.gated = self._pays(ours, own, gate)

    def _measure_blocks(self, choices: Choices, gated: dict[Any, Gated]) -> None:
        for module, function in list(gated.items())[:1]:
            flop = 2 * sum(layer.numel() for layer in module.parameters())
            x = _rows(self._inputs[module], max(1, min(max(BLOCKS), int(8 * FLOP_OF_A_TRIAL // max(1, flop)))))
            times = {rows: self._time(_in_blocks(function, rows), x) for rows in BLOCKS if rows <= len(x)}
            measured = {rows: seconds for rows, seconds in times.items() if seconds is not None}
            choices.rows = min(measured, key=lambda rows: measured[rows], default=choices.rows)

    def _measure_threads(self, choices: Choices, layers: dict[Any, torch.Tensor]) -> None:
        """Fewer threads than torch has, where that is faster: never more, as somebody may have said how many."""
        most = torch.get_num_threads()
        if most < 2 or not layers:
            return
        layer, x = max(layers.items(), key=lambda item: int(item[0].weight.numel()))
        x = _rows(x, 64)
        times = {}
        for n_threads in {most, most // 2}:
            with Tuning(threads=n_threads).running():
                times[n_threads] = self._time(layer, x)
        fewer, all_of_them = times[most // 2], times[most]
        if fewer is not None and all_of_them is not None and fewer < PAYS * all_of_them:
            choices.threads = most // 2

    # ------------------------------------------------------------------------------------------------------------

    def _replace(self, functions: dict[Any, Any]) -> None:
        for module, function in functions.items():
            module.forward = function
            self.tuning.undo_by(functools.partial(delattr, module, "forward"))

    def _is_late(self) -> bool:
        late = time.monotonic() > self._deadline
        self._cut_short = self._cut_short or late
        return late

    def _pays(self, ours: Function, own: Function, x: torch.Tensor) -> bool:
        ratio = self._ratio(ours, own, x)
        return ratio is not None and ratio < PAYS

    def _ratio(self, ours: Function, own: Function, x: torch.Tensor) -> float | None:
        """How long ours takes, as a part of what the other one takes; None where there is no time to find out."""
        if self._is_late():
            return None
        times: dict[Function, list[float]] = {ours: [], own: []}
        for function in times:
            function(x)
        started = time.monotonic()
        for repeat in range(MOST_REPEATS):
            for function, taken in times.items():
                taken.append(_seconds(function, x))
            if repeat + 1 >= LEAST_REPEATS and time.monotonic() - started > TRIAL_S:
                break
        return min(times[ours]) / min(times[own])

    def _time(self, function: Function, x: torch.Tensor) -> float | None:
        if self._is_late():
            return None
        return min(_seconds(function, x) for _ in range(3))


def _seconds(function: Function, x: torch.Tensor) -> float:
    started = time.perf_counter()
    function(x)
    return time.perf_counter() - started


def _in_blocks(function: Gated, rows: int) -> Function:
    again = copy.copy(function)
    again.rows = rows
    return again


def _size(layer: Any) -> str:
    n_out, n_in = layer.weight.shape
    return f"{n_out} x {n_in}"


def _rows(x: torch.Tensor, n: int) -> torch.Tensor:
    """So many rows of numbers like these."""
    rows = x.reshape(-1, x.shape[-1])
    return rows.repeat(-(-n // len(rows)), 1)[:n].contiguous()


def _those(found: dict[Any, Any]) -> dict[Any, Any]:
    return {module: function for module, function in found.items() if function is not None}


def _as_good(layer: Any, ours: Function, x: torch.Tensor) -> bool:
    """Whether results are no farther from those of the next wider dtype than the layer's own, by half as much again."""
    wider = torch.float64 if x.dtype == torch.float32 else torch.float32
    weight, bias = layer.weight.to(wider), None if layer.bias is None else layer.bias.to(wider)
    for factor in (1.0, 16.0):
        given = factor * x
        expected = torch.nn.functional.linear(given.to(wider), weight, bias)
        own, found = ((f(given).to(wider) - expected).abs() for f in (layer, ours))
        nothing = torch.finfo(x.dtype).eps * 1e-2 * expected.abs().max()
        if not (found.max() <= AS_GOOD * own.max() + nothing and found.mean() <= AS_GOOD * own.mean() + nothing):
            return False
    return True
