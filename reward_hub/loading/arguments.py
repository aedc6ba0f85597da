"""The arguments of `AutoRM.load`, by table: its signature says of each who reads it, beside type and default.

    batch_size: Annotated[int | None, FAMILY, AtLeast(1)] = None

All refusals come from there: an argument that nobody reads where the model turns out to be, a value that is none, a
name that does not exist. So do the options of the command line and what a pickle carries.
"""

from __future__ import annotations

import copy
import enum
import functools
import inspect
import numbers
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, get_args, get_origin

from reward_hub import registry
from reward_hub.base import BaseRM
from reward_hub.checkpoints.builtin import BUILTIN_PREFIX
from reward_hub.errors import RegistryError
from reward_hub.load_call import LoadCall
from reward_hub.types import AtLeast

P = ParamSpec("P")
R = TypeVar("R")
RM = TypeVar("RM", bound=BaseRM)


class Reader(enum.Flag):
    """Who reads an argument: it depends on where the model is."""

    ENGINE = enum.auto()
    """An engine in this process."""
    TOKENS = enum.auto()
    """A server of others that is sent token ids."""
    SCORER = enum.auto()
    """A server of others that is taken at its word."""
    OURS = enum.auto()
    """A `reward-hub serve`."""
    JUDGE_API = enum.auto()
    """A published judge at an endpoint."""
    JUDGE_VLLM = enum.auto()
    """A published judge on vLLM."""


ENGINE = Reader.ENGINE
FAMILY = Reader.ENGINE | Reader.TOKENS
"""Where the family is known here, and with it what is sent and what becomes of the answer."""
FOREIGN = Reader.TOKENS | Reader.SCORER
SERVED = FOREIGN | Reader.OURS
"""Wherever a server is asked for scores."""
SERVER = SERVED | Reader.JUDGE_API
HUB = FAMILY | Reader.SCORER | Reader.OURS
"""Whoever looks for a checkpoint."""
SCORER, OURS, JUDGE_API, JUDGE_VLLM = Reader.SCORER, Reader.OURS, Reader.JUDGE_API, Reader.JUDGE_VLLM
JUDGE = JUDGE_API | JUDGE_VLLM


class Note(enum.Enum):
    """What else there is to say of an argument."""

    KEY = enum.auto()
    """A secret: in no message, no pickle, and no option of the command line."""
    FILE = enum.auto()
    """A folder or a file, where it is not a name on the hub."""
    BY_NAME = enum.auto()
    """Also an object, which does not go to another process."""


KEY, FILE, BY_NAME = Note


@dataclass(frozen=True)
class Argument:
    """One row of the table."""

    name: str
    type: Any
    default: Any
    readers: Reader
    least: float | None
    notes: frozenset[Note]

    @property
    def choices(self) -> tuple[Any, ...]:
        """The values that there are; empty where there are many."""
        return get_args(self.type) if get_origin(self.type) is Literal else ()

    def shown(self, value: Any) -> str:
        """`name=value` for a message."""
        return f"{self.name}={'...' if KEY in self.notes else repr(value)}"

    def check(self, value: Any) -> None:
        """Raises TypeError for a value that is none."""
        self._check_type(value)
        if self.choices and value not in self.choices:
            raise TypeError(f"{self.shown(value)}; known: {', '.join(map(repr, self.choices))}.")
        if self.least is not None and value is not None and value < self.least:
            raise TypeError(f"{self.shown(value)}; at least {self.least:g} is needed.")

    def _check_type(self, value: Any) -> None:
        """A text for a switch would count as yes, and a text for a number fails far from here."""
        kinds = set(get_args(self.type) or (self.type,))
        for kind, fits, word in _PLAIN_KINDS:
            if kind in kinds and not (fits(value) or (value is None and type(None) in kinds)):
                raise TypeError(f"{self.shown(value)} is {type(value).__name__}; {word} is needed.")
            if kind in kinds:
                return


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


_PLAIN_KINDS: tuple[tuple[type, Callable[[Any], bool], str], ...] = (
    (bool, lambda value: isinstance(value, bool), "True or False"),
    (float, lambda value: _is_number(value, numbers.Real), "a number"),
    (int, lambda value: _is_number(value, numbers.Integral), "a whole number"),
)


@functools.cache
def table_of(function: Callable[..., Any]) -> Mapping[str, Argument]:
    """The table that a function's signature is: name -> argument, for those with a reader."""
    hints = typing.get_type_hints(function, include_extras=True)
    table = {}
    for name, parameter in inspect.signature(function).parameters.items():
        hint = hints[name]
        marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
        readers = [mark for mark in marks if isinstance(mark, Reader)]
        if readers:
            least = next((mark.least for mark in marks if isinstance(mark, AtLeast)), None)
            notes = frozenset(mark for mark in marks if isinstance(mark, Note))
            table[name] = Argument(name, get_args(hint)[0], parameter.default, readers[0], least, notes)
    return table


# -- names that are not arguments -------------------------------------------------------------------------------------

# Other names of an argument, and of its values.
_OTHER_NAMES = {"dtype": "torch_dtype"}
_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
_FIRST = ("model_name", "model_name_or_path", "pretrained_model_name_or_path", "path", "model_path", "model_id")
_QUANTIZED = "Say quantization_config=transformers.BitsAndBytesConfig({}=True), or on vllm quantization='bitsandbytes'."
# What is said of names that other libraries have.
_ADVICE = {
    **dict.fromkeys(_FIRST, "The first argument is `model`."),
    **{name: _QUANTIZED.format(name) for name in ("load_in_4bit", "load_in_8bit")},
}


def first_is_model(load: Callable[P, R]) -> Callable[P, R]:
    """`load` with a word on other libraries' names for its first argument, of which Python says that it is missing."""

    @functools.wraps(load)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for name in kwargs:
            if name in _FIRST:
                raise TypeError(f"AutoRM.load has no argument {name!r}. {_ADVICE[name]}")
        return load(*args, **kwargs)

    return checked


class Arguments:
    """What one call of `AutoRM.load` was given.

    Attributes:
        method: the engine's own name ("auto" where it is still to be chosen).
        engine_options: what is in no row of the table.
    """

    def __init__(self, load: Callable[..., BaseRM], values: Mapping[str, Any]) -> None:
        """
        Args:
            values: the function's local names, before it has any of its own.
        """
        self._load = load
        self._table = table_of(load)
        self._values = {name: values[name] for name in ("model", "load_method", *self._table)}
        self.engine_options: dict[str, Any] = dict(values["engine_options"])
        for other, name in _OTHER_NAMES.items():
            if other in self.engine_options:
                if name in self.given:
                    raise TypeError(f"Give {name}= or {other}=, not both: they are names of one argument.")
                self._values[name] = self.engine_options.pop(other)
        dtype = self["torch_dtype"]
        self._values["torch_dtype"] = _DTYPES.get(dtype, dtype) if isinstance(dtype, str) else dtype
        self.method = registry.load_method_named(self["load_method"])
        if self.method == "auto" and self["api_base"] is not None:
            self.method = "api"

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __contains__(self, name: str) -> bool:
        return name in self._values

    @property
    def model(self) -> str:
        return str(self["model"])

    def some(self, *names: str) -> dict[str, Any]:
        return {name: self[name] for name in names}

    def but(self, **changes: Any) -> Arguments:
        """The same with other values."""
        other = copy.copy(self)
        other._values = {**self._values, **changes}
        return other

    def only(self, *names: str) -> Arguments:
        """The same with all others at their defaults."""
        defaults = {name: row.default for name, row in self._table.items() if name not in names}
        return self.but(**defaults)

    @property
    def given(self) -> dict[str, Any]:
        """Those of the table that are not at their defaults."""
        return {name: self[name] for name, row in self._table.items() if not _same(self[name], row.default)}

    def check_values(self) -> None:
        """Raises TypeError for a value that is none, or two arguments that exclude each other."""
        for name, row in self._table.items():
            row.check(self[name])
        if self["device"] is not None and self["device_map"] is not None:
            raise TypeError("Give device= or device_map=, not both.")

    def check_read(self, readers: Reader, where: str, why: str | None = None) -> None:
        """Raises TypeError for an argument that none of these readers reads."""
        for name, value in self.given.items():
            if not self._table[name].readers & readers:
                because = "" if why is None else f": {why}"
                raise TypeError(f"{self._table[name].shown(value)} has no meaning for {where}{because}.")

    def check_engine_options(self, known: frozenset[str], engine: str) -> None:
        """Raises TypeError for an option that the engine does not have, and says where there is one."""
        for name in self.engine_options:
            if name not in known:
                advice = _ADVICE.get(name) or self._suggestion(name, known, engine)
                raise TypeError(f"{engine} has no option {name!r}. {advice}")

    def _suggestion(self, name: str, known: frozenset[str], engine: str) -> str:
        """Whose option it is, or which name it is nearest to."""
        others = {} if engine == "api" else _options_of_others(engine)
        if name in others:
            return f"It is an option of {others[name]}: load with load_method={others[name]!r}."
        own = [*known, *self._table]
        near = registry.nearest(name, [*own, *others])
        if not near:
            return f"Its own options: {', '.join(sorted(known))}." if known else "Its options are set where it starts."
        whose = "" if near[0] in own else f", an option of {others[near[0]]} (load_method={others[near[0]]!r})"
        return f"Did you mean {near[0]!r}{whose}?"

    def remember(self, rm: RM, *, commit: str | None = None, checkpoint: str | None = None) -> RM:
        """The model, with the call that made it as what its pickle holds.

        Args:
            commit: which one of the repository was loaded, so that no other is loaded elsewhere.
            checkpoint: what was found to be behind a server, for the same reason.
        """
        found_out = {"revision": commit, "checkpoint": checkpoint}
        arguments = {**self.some("model", "load_method"), **self.given, **self.engine_options}
        arguments |= {name: value for name, value in found_out.items() if value is not None}
        # On a server these are its names, and those of built-in models are the package's, whatever folders lie here.
        models = ("model", "reference")
        names = {n for n in models if self.method == "api" or str(self[n]).startswith(BUILTIN_PREFIX)}
        rm.load_call = LoadCall.of(
            self._load,
            arguments,
            rm,
            keys=self._noted(KEY),
            folders={"model", *self._noted(FILE)} - names,
            by_name=self._noted(BY_NAME),
        )
        return rm

    def _noted(self, note: Note) -> list[str]:
        return [name for name, row in self._table.items() if note in row.notes]


def _same(value: Any, default: Any) -> bool:
    return value is default or bool(value == default)


def _options_of_others(engine: str) -> dict[str, str]:
    """Option -> the engine that has it, of all engines but one; of those that are installed or say so of themselves."""
    options: dict[str, str] = {}
    for name in registry.backend_names():
        if name != engine:
            try:
                suggested = registry.backend_class(name).options_to_suggest()
            except (ImportError, RegistryError):  # not installed, or broken: nobody means its options
                continue
            options = dict.fromkeys(suggested, name) | options
    return options
