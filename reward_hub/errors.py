"""The errors of reward_hub; each is also the standard type in brackets, carries fields and pickles.

RewardHubError
├── InvalidConversationError [ValueError]      .index .field   bad messages or steps
├── InputTooLongError [ValueError]             .n_tokens .max_length .index
├── UnknownModelError [LookupError]            .near           no family fits, or several could
├── UnsupportedError [NotImplementedError]                     a call the model or the backend cannot serve
├── RemoteCodeRefusedError [PermissionError]                   remote code needed and not allowed
├── MissingDependencyError [ImportError]                       the pip command to type
├── CheckpointError [ValueError]               .tensor         missing or misshapen tensors, broken files
├── BackendError [RuntimeError]                .index          an engine failed
│   ├── ServerError                            .status .retryable
│   │   └── ServerTimeoutError [TimeoutError]
│   └── BudgetExceededError                    .used_tokens .used_cost   a judge may use no more
├── JudgeParseError [ValueError]               .text .index    no verdict in the judge's text
├── RegistryError [ValueError]                                 a name registered twice
└── CacheError [OSError]                                       the cache cannot be read or written
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


class RewardHubError(Exception):
    """The root of all errors of this package."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Callable[..., RewardHubError], tuple[Any, ...]]:
        # An exception is rebuilt from `args` alone by default; its fields, the constructor's, are in __dict__.
        return _rebuild, (type(self), dict(self.__dict__))


def _rebuild(cls: type[RewardHubError], fields: dict[str, Any]) -> RewardHubError:
    notes = fields.pop("__notes__", [])
    error = cls(**fields)
    for note in notes:
        error.add_note(note)
    return error


class InvalidConversationError(RewardHubError, ValueError):
    """Bad messages or steps. `index` is the place in the batch, `field` what was wrong (`messages[1].role`)."""

    def __init__(self, message: str, *, index: int | None = None, field: str | None = None) -> None:
        super().__init__(message)
        self.index = index
        self.field = field

    def __str__(self) -> str:
        return _with_index(self.message, self.index)


class InputTooLongError(RewardHubError, ValueError):
    """The conversation has more tokens than the model takes and may not be cut."""

    def __init__(self, message: str, *, n_tokens: int, max_length: int, index: int | None = None) -> None:
        super().__init__(message)
        self.n_tokens = n_tokens
        self.max_length = max_length
        self.index = index

    def __str__(self) -> str:
        return _with_index(self.message, self.index)


class UnknownModelError(RewardHubError, LookupError):
    """No family fits the checkpoint, or several could; `near` names the candidates."""

    def __init__(self, message: str, *, near: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.near = tuple(near)


class UnsupportedError(RewardHubError, NotImplementedError):
    """A call that the model's kind or the backend cannot serve; the message names what can."""


class RemoteCodeRefusedError(RewardHubError, PermissionError):
    """The checkpoint needs code of its own and `trust_remote_code=True` was not given."""


class MissingDependencyError(RewardHubError, ImportError):
    """An optional package is missing; the message holds the pip command."""


class CheckpointError(RewardHubError, ValueError):
    """Missing or misshapen tensors, broken files. `tensor` names the tensor where one is to blame."""

    def __init__(self, message: str, *, tensor: str | None = None) -> None:
        super().__init__(message)
        self.tensor = tensor


class BackendError(RewardHubError, RuntimeError):
    """An engine failed or gave no usable number."""

    def __init__(self, message: str, *, index: int | None = None) -> None:
        super().__init__(message)
        self.index = index

    def __str__(self) -> str:
        return _with_index(self.message, self.index)


class ServerError(BackendError):
    """A server answered with an error or with something unusable. Only `retryable` errors are tried again."""

    def __init__(
        self, message: str, *, status: int | None = None, retryable: bool = False, index: int | None = None
    ) -> None:
        super().__init__(message, index=index)
        self.status = status
        self.retryable = retryable


class ServerTimeoutError(ServerError, TimeoutError):
    """A server did not answer in time."""

    def __init__(
        self, message: str, *, status: int | None = None, retryable: bool = True, index: int | None = None
    ) -> None:
        super().__init__(message, status=status, retryable=retryable, index=index)


class BudgetExceededError(BackendError):
    """The next call could go over a judge's budget; it was not sent. `used_cost` is None where no prices are known."""

    def __init__(
        self, message: str, *, used_tokens: int = 0, used_cost: float | None = None, index: int | None = None
    ) -> None:
        super().__init__(message, index=index)
        self.used_tokens = used_tokens
        self.used_cost = used_cost


class JudgeParseError(RewardHubError, ValueError):
    """The judge's reply holds no verdict; `text` is the reply."""

    def __init__(self, message: str, *, text: str = "", index: int | None = None) -> None:
        super().__init__(message)
        self.text = text
        self.index = index

    def __str__(self) -> str:
        return _with_index(self.message, self.index)


class RegistryError(RewardHubError, ValueError):
    """A family or backend name is registered twice."""


class CacheError(RewardHubError, OSError):
    """The cache cannot be read or written."""


def missing_dependency(package: str, extra: str, purpose: str) -> MissingDependencyError:
    """The error for an optional package that is not installed: what needs it and the pip command."""
    return MissingDependencyError(f"{purpose} needs {package}: pip install 'reward_hub[{extra}]'")


def _with_index(message: str, index: int | None) -> str:
    return message if index is None else f"conversation {index}: {message}"
