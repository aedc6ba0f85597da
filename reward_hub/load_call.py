"""How a reward model travels to another process: as the call that made it, which is made again where it arrives.

Weights, connections and keys stay behind. Keys are read from the environment there, as for any other load.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

# What a caller may set on a model afterwards and what then goes with it.
_PLAIN = (str, int, float, bool, type(None))
# Names of secrets, in the singular at the end: not max_tokens, and not the tokens that a tokenizer is told.
_KEY_NAME = re.compile(r"(^|[-_])(api[-_]?key|key|token|secret|password|authorization)$", re.IGNORECASE)
_TEXT_TOKEN = re.compile(r"(^|[-_])(bos|eos|pad|unk|sep|cls|mask|stop|step|image|video|audio)[-_]token$", re.IGNORECASE)
_KEY_VALUE = re.compile(r"(bearer\s+\S+|sk-[\w-]+)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class LoadCall:
    """The call that made a reward model.

    Attributes:
        function: a function or class that can be imported by its name.
        arguments: by name, without keys.
        by_name: arguments that may also be an object (a tokenizer, an engine), which does not travel.
        attributes: the model's public attributes as the call left them.
    """

    function: Callable[..., object]
    arguments: Mapping[str, Any] = field(repr=False)
    by_name: Collection[str] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        function: Callable[..., object],
        arguments: Mapping[str, Any],
        rm: object,
        *,
        keys: Collection[str],
        folders: Collection[str] = (),
        by_name: Collection[str] = (),
    ) -> LoadCall:
        """The call that just made `rm`.

        Args:
            keys: arguments that are left out: secrets.
            folders: arguments that may name a folder or a file, which are found from another working directory too.
        """
        carried = {name: value for name, value in arguments.items() if name not in keys}
        carried |= {name: _absolute(carried[name]) for name in folders if name in carried}
        return cls(function, carried, by_name, _public(rm))

    def reduced(self, rm: object, **more: Any) -> tuple[Any, ...]:
        """What `rm.__reduce__` gives.

        Args:
            more: attributes that are set on the model where it is unpickled.

        Raises:
            TypeError: an argument, or an attribute that was set since, cannot travel.
        """
        changed = self._changed(rm)
        for name, value in [*self.arguments.items(), *changed.items()]:
            self._check(name, value)
        state = {**changed, **more}
        return _made_again, (self.function, dict(self.arguments)), state or None

    def _check(self, name: str, value: Any) -> None:
        kind = type(value).__name__
        if name in self.by_name and not isinstance(value, (str, Path, type(None))):
            raise TypeError(
                f"{name}= is an object ({kind}), which does not go to another process; give its name or folder, "
                "or load the model where it is used."
            )
        if key := _key_in({name: value}):
            raise TypeError(
                f"{name}= holds a key ({key}), and keys are not pickled. Set REWARD_HUB_API_KEY, OPENAI_API_KEY or "
                "HF_TOKEN in the environment of both processes instead."
            )
        try:
            pickle.dumps(value)
        except Exception as error:  # whatever an object's own __reduce__ raises
            raise TypeError(f"{name}= cannot be pickled ({kind}): {error}") from error

    def _changed(self, rm: object) -> dict[str, Any]:
        """Public attributes that were set since the call."""
        now, before = _public(rm), self.attributes
        changed = {name: value for name, value in now.items() if name not in before or before[name] is not value}
        for name, value in changed.items():
            if not isinstance(value, _PLAIN):
                raise TypeError(
                    f"{type(rm).__name__}.{name} was set after loading, to a {type(value).__name__}. A pickle holds no "
                    "more than the call that loaded the model: load it where it is used, and set it there."
                )
        return {name: value for name, value in changed.items() if name not in before or before[name] != value}


def _made_again(function: Callable[..., object], arguments: Mapping[str, Any]) -> object:
    """What a pickle calls."""
    return function(**arguments)


def _public(rm: object) -> dict[str, Any]:
    return {name: value for name, value in vars(rm).items() if not name.startswith("_") and name != "load_call"}


def _absolute(value: Any) -> Any:
    """An existing folder or file from the root on; names on the hub and all else as they are."""
    if not isinstance(value, (str, Path)):
        return value
    try:
        there = bool(str(value)) and Path(value).exists()
    except (OSError, ValueError):  # a text that is too long, or none that the file system takes: a template itself
        return value
    return str(Path(value).absolute()) if there else value


def _key_in(value: Any) -> str | None:
    """Where a value holds a key: its name in a mapping or an address, or what it looks like."""
    if isinstance(value, Mapping):
        named = (str(name) for name, item in value.items() if names_key(str(name)) and _may_be_key(item))
        return next(named, None) or next(filter(None, map(_key_in, value.values())), None)
    if isinstance(value, (list, tuple, set, frozenset)):
        return next(filter(None, map(_key_in, value)), None)
    if not isinstance(value, str):
        return None
    if value.lower().startswith(("http://", "https://")):
        address = urlsplit(value)
        if "@" in address.netloc:
            return "the credentials of its address"
        return _key_in(dict(parse_qsl(address.query)))
    return "a value that looks like one" if _KEY_VALUE.fullmatch(value) else None


def names_key(name: str) -> bool:
    """Whether what has this name (an argument, a header, a parameter of an address) is a secret."""
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)  # accessToken
    return _KEY_NAME.search(snake) is not None and _TEXT_TOKEN.search(snake) is None


def _may_be_key(value: Any) -> bool:
    """Whether a value can be a secret, under a name of one: no number, no switch, no mapping (which is looked into)."""
    return value is not None and not isinstance(value, (bool, int, float, Mapping))
