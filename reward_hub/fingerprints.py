"""What identifies a model whose author says nothing about it: its code and its settings.

Every model of this package has a `fingerprint` over its weights, recipe and settings. A subclass of a user's inherits
one that is no more than its name, which stays the same when its code or its settings change.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator
from enum import Enum
from functools import cached_property
from pathlib import PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

from reward_hub.base import BaseRM

_ADVICE = (
    "Give the class a `fingerprint` property that changes whenever a score may change, or say "
    "CachedRM(..., fingerprint='my-rm-v1') and raise it yourself."
)


def fingerprint_of(rm: BaseRM) -> str:
    """The model's own fingerprint, or one of its code and settings where it has only its name.

    Of a user's class go in: the compiled code of its methods, the functions and plain values of the same module that
    they use, class and instance attributes (texts, numbers, lists, dicts, paths, other reward models). What it calls in
    other modules, in files or on servers cannot be seen.

    Raises:
        TypeError: an attribute cannot be told from another one (an open model, a connection), or the class inherits
            from one of this package that has a fingerprint without saying what it changes.
    """
    derived = derived_fingerprint(rm)
    return rm.fingerprint if derived is None else derived


def derived_fingerprint(rm: BaseRM) -> str | None:
    """`fingerprint_of` where it follows from code and settings; None where it is the model's own, which may take long.

    Raises:
        TypeError: as `fingerprint_of`.
    """
    classes = type(rm).__mro__
    owner = next(cls for cls in classes if "fingerprint" in vars(cls))
    before = classes[: classes.index(owner)]
    if owner is BaseRM:
        return _derived(rm, before)
    changed = [cls.__qualname__ for cls in before if not cls.__module__.startswith("reward_hub.")]
    if changed and owner.__module__.startswith("reward_hub."):
        raise TypeError(
            f"{changed[0]} changes {owner.__qualname__}, whose fingerprint does not tell of that. {_ADVICE}"
        )
    return None


def _derived(rm: BaseRM, classes: tuple[type, ...]) -> str:
    parts = _Parts(type(rm).__qualname__)
    digest = hashlib.sha256(rm.fingerprint.encode())
    for cls in classes:
        for text in parts.of_class(cls):
            digest.update(text.encode())
    for text in parts.of(vars(rm), "self"):
        digest.update(text.encode())
    return f"{type(rm).__qualname__}-{digest.hexdigest()[:32]}"


class _Parts:
    """Values as texts that are the same in every process of one Python version."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._seen: set[int] = set()

    def of(self, value: Any, where: str) -> Iterator[str]:
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes, Enum, PurePath)):
            yield f"{type(value).__qualname__}:{value!r};"
        elif isinstance(value, BaseRM):
            yield f"rm:{fingerprint_of(value)};"
        elif isinstance(value, (list, tuple)):
            yield f"{len(value)}["
            for i, item in enumerate(value):
                yield from self.of(item, f"{where}[{i}]")
        elif isinstance(value, (set, frozenset)):
            yield f"{len(value)}{{"
            yield from sorted("".join(self.of(item, where)) for item in value)
        elif isinstance(value, dict):
            yield f"{len(value)}{{"
            for key, item in value.items():
                yield from self.of(key, where)
                yield from self.of(item, f"{where}.{key}")
        elif isinstance(value, re.Pattern):
            yield f"pattern:{value.pattern!r}:{value.flags};"
        elif isinstance(value, FunctionType):
            yield from self.of_function(value)
        elif isinstance(value, (BuiltinFunctionType, type)):
            yield f"{value.__module__}.{value.__qualname__};"
        elif isinstance(value, (staticmethod, classmethod)):
            yield from self.of(value.__func__, where)
        elif isinstance(value, property):
            yield from self.of((value.fget, value.fset), where)
        elif isinstance(value, cached_property):
            yield from self.of(value.func, where)
        else:
            raise TypeError(f"{self._label}: {where} is a {type(value).__name__}, which identifies no model. {_ADVICE}")

    def of_class(self, cls: type) -> Iterator[str]:
        for name, value in vars(cls).items():
            # Names between double underscores are Python's own notes on the class, methods such as __init__ apart.
            own = not name.startswith("__") or isinstance(value, (FunctionType, staticmethod, classmethod))
            if own and name != "_own" and not name.startswith("_abc_"):
                yield f"{name}="
                yield from self.of(value, f"{cls.__qualname__}.{name}")

    def of_function(self, function: FunctionType) -> Iterator[str]:
        """Its code, what it closes over, and what it uses of its own module."""
        if id(function) in self._seen:
            return
        self._seen.add(id(function))
        yield from _code(function.__code__)
        yield from self.of((function.__defaults__, function.__kwdefaults__), f"{function.__qualname__}, defaults")
        for cell, name in zip(function.__closure__ or (), function.__code__.co_freevars, strict=True):
            if name != "__class__":
                yield from self.of(cell.cell_contents, f"{function.__qualname__}, {name}")
        for name in sorted(_names(function.__code__)):
            value = function.__globals__.get(name)
            if value is not None and not self._is_foreign(value, function.__module__):
                yield f"{name}="
                yield from (self.of_class(value) if isinstance(value, type) else self.of(value, name))

    def _is_foreign(self, value: Any, module: str) -> bool:
        """Whether it comes from elsewhere: libraries are taken to stay as they are."""
        if isinstance(value, (ModuleType, logging.Logger)):
            return True
        if isinstance(value, type):
            again = id(value) in self._seen or issubclass(value, BaseRM)
            self._seen.add(id(value))
            return again or value.__module__ != module
        return callable(value) and getattr(value, "__module__", None) != module


def _code(code: CodeType) -> Iterator[str]:
    """What a function does, without where its file lies."""
    yield f"{code.co_code.hex()}|{code.co_names}|{code.co_varnames}|{code.co_freevars}|"
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code(constant)
        elif isinstance(constant, frozenset):
            yield f"{sorted(map(repr, constant))}"
        else:
            yield f"{constant!r},"


def _names(code: CodeType) -> set[str]:
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*inner)
