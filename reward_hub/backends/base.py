"""What every engine offers: answer one read over many inputs."""

from __future__ import annotations

import asyncio
import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from reward_hub.errors import BackendError, UnsupportedError
from reward_hub.types import Array, Config, TokenInput

if TYPE_CHECKING:
    from reward_hub.checkpoints.files import CheckpointFiles
    from reward_hub.family import Backbone
    from reward_hub.reads import Read
    from reward_hub.tokenizer import Tokenizer

Progress = Callable[[int], None]
"""Called with the number of inputs that were just finished."""


@dataclass(frozen=True)
class EngineInfo:
    """What is known of a running engine."""

    name: str
    version: str
    dtype: str
    device: str


@dataclass(frozen=True)
class ReadPlan:
    """What reading some inputs takes, found without reading them.

    Attributes:
        n_tokens: of all inputs.
        n_unique: without those that several inputs share and that are computed once.
        forwards: tokens of each forward, padding included.
        memory_bytes: of the weights and of the largest forward, estimated.
    """

    n_tokens: int
    n_unique: int
    forwards: list[int]
    memory_bytes: int

    @property
    def n_padding(self) -> int:
        return sum(self.forwards) - self.n_unique


@dataclass(frozen=True)
class EngineOptions:
    """What `AutoRM.load` says about how to run a model; None: the engine's own choice."""

    torch_dtype: Any = "auto"
    device: Any = None
    device_map: Any = None
    attn_implementation: str | None = None
    quantization_config: Any = None
    batch_size: int | None = None
    max_batch_tokens: int | None = None
    trust_remote_code: bool = False
    tune: bool = False
    max_length: int | None = None
    many_positions: bool = False
    """Inputs are read at many positions (steps), not at one or two."""
    extra: Mapping[str, Any] | None = None
    """Options of the engine itself, already checked by `check_options`."""


class Engine(ABC):
    """What is registered under a name: which options an engine has, what it can run, and how it is started.

    A `Backend` is one itself; `ImportedLate` is one whose backend takes long to import.

    Attributes:
        tunes: it knows what to do with `EngineOptions.tune`.
    """

    tunes: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def known_options(cls) -> frozenset[str]:
        """Names of the engine's own options that `AutoRM.load` may pass on."""

    @classmethod
    def options_to_suggest(cls) -> frozenset[str]:
        """The same, for whoever gave one of them to another engine; where it is not installed, as far as known."""
        return cls.known_options()

    @classmethod
    def why_not(
        cls,
        config: Config,
        read: Read | None = None,
        *,
        backbone: Backbone | None = None,
        adapter: bool = False,
    ) -> str | None:
        """Why the engine cannot answer this read of such a checkpoint; None where nothing is known against it.

        Args:
            config: the checkpoint's config.json, or no more than its model type.
            read: None where it is not known yet.
            adapter: a PEFT adapter is to be merged in.
        """
        return None

    @classmethod
    @abstractmethod
    def load(
        cls,
        files: CheckpointFiles,
        read: Read,
        *,
        backbone: Backbone | None,
        tokenizer: Tokenizer,
        options: EngineOptions,
    ) -> Backend:
        """Start the engine. Every head tensor has been checked before."""


class ImportedLate(Engine):
    """An engine that is imported when it is started, so that asking what it can run costs nothing.

    Attributes:
        target: the backend, as "module:Class".
    """

    target: ClassVar[str]

    @classmethod
    def _backend(cls) -> type[Backend]:
        module, _, name = cls.target.partition(":")
        backend: type[Backend] = getattr(importlib.import_module(module), name)
        return backend

    @classmethod
    def known_options(cls) -> frozenset[str]:
        return cls._backend().known_options()

    @classmethod
    def load(
        cls,
        files: CheckpointFiles,
        read: Read,
        *,
        backbone: Backbone | None,
        tokenizer: Tokenizer,
        options: EngineOptions,
    ) -> Backend:
        return cls._backend().load(files, read, backbone=backbone, tokenizer=tokenizer, options=options)


class Backend(Engine):
    """One engine with one model, answering one read. Calls from several threads are safe."""

    info: EngineInfo
    max_length: int | None = None
    """Most tokens the running engine takes, where it was started with a limit of its own."""
    takes_media: frozenset[str] = frozenset()
    """Kinds of media (of `Media.kind`) that it reads beside token ids."""
    waits_elsewhere: bool = False
    """Another process computes: several calls at once are then faster than one after the other."""

    @property
    def load_report(self) -> Mapping[str, Any]:
        """What else there is to say of how the model was loaded and runs, in plain words: for `inspect --explain`."""
        return {}

    @abstractmethod
    def read(
        self, inputs: Sequence[TokenInput], *, batch_size: int | None = None, progress: Progress | None = None
    ) -> list[Array]:
        """float32 [n_positions, width] for each input, in input order.

        Raises:
            BackendError: the engine failed.
        """

    async def aread(
        self, inputs: Sequence[TokenInput], *, batch_size: int | None = None, progress: Progress | None = None
    ) -> list[Array]:
        """`read` in a thread of its own; engines that are asynchronous by nature override this."""
        return await asyncio.to_thread(self.read, inputs, batch_size=batch_size, progress=progress)

    def planned(self, inputs: Sequence[TokenInput], *, batch_size: int | None = None) -> ReadPlan:
        """What `read` would do with these inputs.

        Raises:
            UnsupportedError: the engine makes its batches itself.
        """
        raise UnsupportedError(f"What the backend {self.info.name} would do is not known beforehand.")

    @property
    def shared_share(self) -> float | None:
        """What part of the tokens of all inputs so far was not computed again, as others share it; None: not known."""
        return None

    def check_media(self, inputs: Iterable[TokenInput]) -> None:
        """Refuse what the engine would not look at.

        Raises:
            UnsupportedError: an input holds media of a kind that it does not take.
        """
        for kind in {media.kind for item in inputs for media in item.media} - self.takes_media:
            raise UnsupportedError(f"The backend {self.info.name} takes no {kind}: it reads token ids.")

    def close(self) -> None:
        """Give memory and processes back; reading afterwards is an error."""


def require_finite(output: Array) -> Array:
    """The output itself.

    Raises:
        BackendError: it holds NaN or infinity, which is never a score.
    """
    if not np.isfinite(output).all():
        raise BackendError(
            "The model gave NaN or infinite outputs; no score can be made of them. Half precision may overflow: try "
            "torch_dtype='bfloat16' or 'float32'."
        )
    return output
