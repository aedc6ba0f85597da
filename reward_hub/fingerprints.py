"""What identifies a model whose author says nothing about it: its code and its settings.

Every model of this package has a `fingerprint` over its weights, recipe and settings. A subclass of a user's inherits
one that is no more than its name, which stays the same when its code or its settings change.
"""

from __future__ import annotations

import dataclasses
import dis
import functools
import hashlib
import logging
import re
import threading
import uuid
from collections.abc import Iterator
from enum import Enum
from functools import cached_property
from pathlib import PurePath
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np

from reward_hub.base import BaseRM

_ADVICE = (
    "Give the class a `fingerprint` property that changes whenever a score may change, or say "
    "CachedRM(..., fingerprint='my-rm-v1') and raise it yourself."
)
# What a class may hold without any score depending on it.
_NO_SETTINGS = (
    *(logging.Logger, type(threading.Lock()), type(threading.RLock()), threading.Condition),
    *(threading.Event, threading.Semaphore, threading.local),
    # In the `__init__` that `dataclass` writes, for a default that is made anew each time.
    type(getattr(dataclasses, "_HAS_DEFAULT_FACTORY", dataclasses.MISSING)),
)

Facts: TypeAlias = dict[str, str]
"""Where something stands (`self.top`, `MyRM.score`, a name in a module) -> what stands there, as text."""
Settings: TypeAlias = list[tuple[BaseRM, Facts]]

# What scoring was seen to write, as it stood before (None: it was not there): of a class, what its methods use; of an
# object, in its own attributes under this name.
_WRITTEN: WeakKeyDictionary[type, dict[str, str | None]] = WeakKeyDictionary()
_WRITTEN_NAME = "_written_while_scoring"
_NOTES = (_WRITTEN_NAME, "_noted_single_step")
"""Attributes that this package writes to any model, and no score depends on."""
_MODEL = "\0rm:"  # how the text of a reward model begins; `repr` writes no such character of anything else
_UNBOUND = CellType()  # of a name that is given its value later


def fingerprint_of(rm: BaseRM) -> str:
    """The model's own fingerprint, or one of its code and settings where it has only its name.

    Of a user's class go in: the compiled code of its methods, the functions and plain values of the same module that
    they use, class and instance attributes (texts, numbers, arrays, lists, dicts, paths, dataclasses, other reward
    models), except for what `settings_written` noted. What it calls in other modules, in files or on servers cannot be
    seen. A class that inherits the fingerprint of another class of the user's has it with a hash of its code.

    Raises:
        TypeError: an attribute cannot be told from another one (an open model, a connection), or the class inherits
            from one of this package that has a fingerprint without saying what it changes.
    """
    derived = derived_fingerprint(rm)
    if derived is not None:
        return derived
    before = _split(rm)[1]
    if not before:
        return rm.fingerprint
    parts = _Parts(rm, strict=False)
    for cls in before:
        parts.add_class(cls)
    return f"{rm.fingerprint}+{before[0].__qualname__}-{parts.digest()}"


def derived_fingerprint(rm: BaseRM) -> str | None:
    """`fingerprint_of` where it follows from code and settings; None where it is the model's own, which may take long.

    Raises:
        TypeError: as `fingerprint_of`.
    """
    owner, before = _split(rm)
    if owner is BaseRM:
        # In processes that `multiprocessing` spawns, the program's own module has another name.
        name = rm.fingerprint.replace("__mp_main__.", "__main__.")
        return f"{type(rm).__qualname__}-{_derived(rm, strict=True).digest(name)}"
    if before and owner.__module__.startswith("reward_hub."):
        ours = next(cls for cls in type(rm).__mro__ if cls not in before)
        raise TypeError(
            f"{before[0].__qualname__} changes {ours.__qualname__}, whose fingerprint does not tell of that. {_ADVICE}"
        )
    return None


def fingerprint_to_tell(rm: BaseRM) -> str:
    """`fingerprint_of`, for those who know the model by it alone; one of its own where it cannot be identified."""
    try:
        return fingerprint_of(rm)
    except TypeError:
        return f"{type(rm).__qualname__}-{uuid.uuid4().hex}"


def settings_of(rm: BaseRM) -> Settings:
    """What the fingerprints of users' classes are made of: of this model's, and of those that it holds."""
    return [(held, _derived(held, strict=False).facts) for held in _held(rm, set()) if _split(held)[0] is BaseRM]


def settings_written(*, first: Settings, before: Settings) -> None:
    """Note that what has changed since `before` was written by scoring: a count of calls, a log, a model opened late.

    Nobody chose it, so it is not a setting: from here on it goes into fingerprints as it stood in `first`.
    """
    stood = {id(rm): facts for rm, facts in first}
    for rm, facts in before:
        after = _derived(rm, strict=False).facts
        for place in after.keys() | facts.keys():
            was, now = facts.get(place), after.get(place)
            # What another reward model wrote to itself is noted there.
            if was != now and _MODEL not in f"{was}{now}":
                of_object: dict[str, str | None] = vars(rm).setdefault(_WRITTEN_NAME, {})
                written = of_object if place.startswith("self.") else _WRITTEN.setdefault(type(rm), {})
                written[place] = stood.get(id(rm), facts).get(place)


def _held(rm: BaseRM, seen: set[int]) -> Iterator[BaseRM]:
    """The model and those that it holds, also in lists and as members of ensembles."""
    seen.add(id(rm))
    yield rm
    for value in list(vars(rm).values()):
        # A member of an ensemble is a record with its model in it.
        for item in list(value) if isinstance(value, (list, tuple)) else [value]:
            record = dataclasses.is_dataclass(item) and not isinstance(item, BaseRM)
            inner = getattr(item, "rm", None) if record else item
            if isinstance(inner, BaseRM) and id(inner) not in seen:
                yield from _held(inner, seen)


def _split(rm: BaseRM) -> tuple[type, tuple[type, ...]]:
    """Which class has the fingerprint, and the user's classes that come before it."""
    classes = type(rm).__mro__
    owner = next(cls for cls in classes if "fingerprint" in vars(cls))
    before = classes[: classes.index(owner)]
    return owner, tuple(cls for cls in before if not cls.__module__.startswith("reward_hub."))


def _derived(rm: BaseRM, *, strict: bool) -> _Parts:
    parts = _Parts(rm, strict=strict)
    try:
        for cls in _split(rm)[1]:
            parts.add_class(cls)
        for name, value in list(vars(rm).items()):
            if name not in _NOTES:
                parts.add(f"self.{name}", value)
    except RecursionError as error:
        raise TypeError(f"{type(rm).__qualname__} holds itself, which identifies no model. {_ADVICE}") from error
    return parts


class _Parts:
    """Values as texts that are the same in every process of one Python version."""

    def __init__(self, rm: BaseRM, *, strict: bool) -> None:
        self.facts: Facts = {}
        self._rm = rm
        self._strict = strict
        self._written = {**_WRITTEN.get(type(rm), {}), **vars(rm).get(_WRITTEN_NAME, {})}
        self._seen: set[int] = set()

    def digest(self, name: str = "") -> str:
        return hashlib.sha256(repr((name, *self.facts.items())).encode()).hexdigest()[:32]

    def add(self, place: str, value: Any) -> None:
        while place in self.facts:
            place += "'"
        if place in self._written:
            stood = self._written[place]
            if stood is not None:
                self.facts[place] = stood
            return
        self.facts[place] = ""  # in the order of the places, of which a value may add further ones
        try:
            self.facts[place] = "".join(self.of(value, place))
        except (TypeError, RecursionError):
            if self._strict:
                raise
            self.facts[place] = f"a {type(value).__name__}"

    def of(self, value: Any, where: str) -> Iterator[str]:
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes, Enum, PurePath, np.generic)):
            yield f"{type(value).__qualname__}:{value!r};"
        elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
            yield f"array:{value.dtype.str}{value.shape}:{hashlib.sha256(value.tobytes()).hexdigest()};"
        elif isinstance(value, ModuleType):
            yield f"module:{value.__name__};"
        elif isinstance(value, _NO_SETTINGS):
            yield f"{type(value).__qualname__};"
        elif isinstance(value, BaseRM):
            yield f"{_MODEL}{fingerprint_of(value)};"
        elif isinstance(value, (list, tuple)):
            # Of a copy, here and below: other threads may be scoring, and write.
            yield f"{len(value)}["
            for i, item in enumerate(list(value)):
                yield from self.of(item, f"{where}[{i}]")
        elif isinstance(value, (set, frozenset)):
            yield f"{len(value)}{{"
            yield from sorted("".join(self.of(item, where)) for item in list(value))
        elif isinstance(value, dict):
            yield f"{len(value)}{{"
            for key, item in list(value.items()):
                yield from self.of(key, where)
                yield from self.of(item, f"{where}[{key!r}]")
        elif isinstance(value, SimpleNamespace) or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
            names = [field.name for field in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else []
            held = {name: getattr(value, name) for name in names} | getattr(value, "__dict__", {})
            yield f"{type(value).__module__}.{type(value).__qualname__}:"
            yield from self.of(held, where)
        elif isinstance(value, re.Pattern):
            yield f"pattern:{value.pattern!r}:{value.flags};"
        elif isinstance(value, FunctionType):
            yield from self.of_function(value, where)
        elif isinstance(value, MethodType):
            yield from self.of(value.__func__, where)
            if value.__self__ is not self._rm:
                yield from self.of(value.__self__, where)
        elif isinstance(value, functools.partial):
            yield from self.of((value.func, value.args, value.keywords), where)
        elif _is_decorated(value):
            yield from self.of(value.__wrapped__, where)
        elif isinstance(value, (BuiltinFunctionType, type)):
            yield f"{value.__module__}.{value.__qualname__};"
        elif isinstance(value, (staticmethod, classmethod)):
            yield from self.of(value.__func__, where)
        elif isinstance(value, property):
            yield from self.of((value.fget, value.fset), where)
        elif isinstance(value, cached_property):
            yield from self.of(value.func, where)
        else:
            label, kind = type(self._rm).__qualname__, type(value).__name__
            raise TypeError(f"{label}: {where} is a {kind}, which identifies no model. {_ADVICE}")

    def add_class(self, cls: type) -> None:
        for name, value in list(vars(cls).items()):
            # Names between double underscores are Python's own notes on the class, methods such as __init__ apart.
            own = not name.startswith("__") or isinstance(value, (FunctionType, staticmethod, classmethod))
            if own and name != "_own" and not name.startswith("_abc_"):
                self.add(f"{cls.__qualname__}.{name}", value)

    def of_function(self, function: FunctionType, where: str) -> Iterator[str]:
        """Its code; what it closes over and what it uses of its own module are added apart."""
        if id(function) in self._seen:
            return
        self._seen.add(id(function))
        yield from _code(function.__code__)
        yield from self.of((function.__defaults__, function.__kwdefaults__), f"{where}, defaults")
        for cell, name in zip(function.__closure__ or (), function.__code__.co_freevars, strict=True):
            if name != "__class__" and cell != _UNBOUND:
                self.add(f"{where}, {name}", cell.cell_contents)
        for name in sorted(_globals(function.__code__)):
            value = function.__globals__.get(name)
            if self._is_foreign(value, function.__module__):
                # Not what it does, but whose it is: another import of the same name is another function.
                yield f"{name}={getattr(value, '__module__', '')}.{getattr(value, '__name__', name)};"
            elif isinstance(value, type):
                self.add_class(value)
            elif value is not None:
                self.add(f"{where}, {name}", value)

    def _is_foreign(self, value: Any, module: str) -> bool:
        """Whether it comes from elsewhere: libraries are taken to stay as they are."""
        if isinstance(value, (ModuleType, logging.Logger)):
            return True
        if isinstance(value, type):
            again = id(value) in self._seen or issubclass(value, BaseRM)
            self._seen.add(id(value))
            return again or value.__module__ != module
        # An object that can be called but holds something (a network) is not part of its library.
        holds = bool(getattr(value, "__dict__", None)) and type(value).__module__ != "typing"
        plain = isinstance(value, FunctionType) or _is_decorated(value) or not holds
        return callable(value) and plain and getattr(value, "__module__", None) != module


def _is_decorated(value: Any) -> bool:
    """Whether it is a function in a wrapping that is not a function itself, as `functools.lru_cache` makes them."""
    return not isinstance(value, type) and isinstance(getattr(value, "__wrapped__", None), FunctionType)


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


def _globals(code: CodeType) -> set[str]:
    """The names that it, and what is defined within it, looks up in its module."""
    inner = (_globals(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    own = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return own.union(*inner)
