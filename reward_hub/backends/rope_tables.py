"""Rotary tables that depend on how long an input is, or on what was run before: each input gets that of its own length.

A `dynamic` table grows with the longest input so far and is kept; a `longrope` one changes where the longest row of a
batch passes a bound (transformers' `dynamic_rope_update`). So tables are put back to what was loaded before each
forward, and a batch holds only inputs whose lengths give the same table.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

# Types of transformers whose table is made once, whatever is run.
FIXED = frozenset({"default", "linear", "yarn", "llama3", "proportional", "axial"})
# Larger buffers (masks, tables of cosines) are replaced by those who change them, never written to.
COPIED_NUMBERS = 65536

LengthKey = Callable[[int], Hashable]
"""Lengths with the same key have the same table."""


class RopeTables:
    """The rotary tables of a model as they are now.

    Args:
        foreign: the model's code is not transformers' own, so nothing is known of its tables.
    """

    def __init__(self, model: torch.nn.Module, *, foreign: bool = False) -> None:
        self._foreign = foreign
        self._keys: list[LengthKey] = []
        self._states: list[_ModuleState] = []
        for module in model.modules():
            keys = [_key_of(module, layer, kind) for layer, kind in _changing_types(module)]
            if keys or (foreign and _holds_buffers_alone(module)):
                self._keys += keys
                self._states.append(_ModuleState(module))

    @property
    def change(self) -> bool:
        """Whether any of them depends on an input's length."""
        return self._foreign or bool(self._keys)

    def key(self, length: int) -> Hashable:
        """Lengths with the same key have the same tables, so they may stand in one batch."""
        return length if self._foreign else tuple(key(length) for key in self._keys)

    def restore(self) -> None:
        """Put them back to what they were."""
        for state in self._states:
            state.restore()


@contextmanager
def kept_tables(model: torch.nn.Module) -> Iterator[None]:
    """For forwards that must leave no table behind: whatever they change is put back at the end."""
    tables = RopeTables(model)
    try:
        yield
    finally:
        tables.restore()


def _changing_types(module: Any) -> list[tuple[str | None, str]]:
    """(layer type or None, rope type) of each table that is not made once."""
    kinds = getattr(module, "rope_type", None)
    named = kinds.items() if isinstance(kinds, Mapping) else [(None, kinds)]
    return [(layer, kind) for layer, kind in named if isinstance(kind, str) and kind not in FIXED]


def _key_of(module: Any, layer: str | None, kind: str) -> LengthKey:
    bound = _bound(module, layer, kind)
    if bound is None:
        return _itself
    if kind == "longrope":
        return lambda length: length > bound
    return lambda length: max(length, bound)


def _itself(length: int) -> int:
    return length


def _bound(module: Any, layer: str | None, kind: str) -> int | None:
    """The longest input with the short table; None: not known, so every length has a table of its own."""
    bound: Any = None
    if kind == "longrope":
        stored = getattr(getattr(module, "config", None), "rope_parameters", None) or {}
        stored = stored.get(layer) or {} if layer is not None else stored
        bound = stored.get("original_max_position_embeddings")
    elif "dynamic" in kind:
        prefix = "" if layer is None else f"{layer}_"
        bound = getattr(module, f"{prefix}max_seq_len_cached", getattr(module, "max_seq_len_cached", None))
    return bound if isinstance(bound, int) else None


def _holds_buffers_alone(module: torch.nn.Module) -> bool:
    return any(True for _ in module.buffers(recurse=False)) and not any(True for _ in module.parameters(recurse=False))


class _ModuleState:
    """The buffers, numbers and tensors of one module."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module
        self._values = _values(module)
        tensors = [value for value in self._values.values() if isinstance(value, torch.Tensor)]
        self._copies = [(tensor, tensor.detach().clone()) for tensor in tensors if tensor.numel() <= COPIED_NUMBERS]

    def restore(self) -> None:
        for tensor, copy in self._copies:
            tensor.copy_(copy)
        for name in _values(self._module).keys() - self._values.keys():
            delattr(self._module, name)
        for name, value in self._values.items():
            setattr(self._module, name, value)


def _values(module: torch.nn.Module) -> dict[str, Any]:
    """A module's buffers, and its attributes that are numbers, tensors or None: what a forward may write down."""
    plain = {name: v for name, v in vars(module).items() if v is None or isinstance(v, (int, float, torch.Tensor))}
    return {**plain, **dict(module.named_buffers(recurse=False, remove_duplicate=False))}
