"""From a name to a checkpoint whose family is known: headers alone are read, no weights move."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from reward_hub import registry
from reward_hub.checkpoints import builtin
from reward_hub.checkpoints.files import CheckpointFiles, open_checkpoint
from reward_hub.checkpoints.tensors import check_tensors, hidden_size
from reward_hub.errors import RemoteCodeRefusedError, RewardHubError, UnknownModelError
from reward_hub.family import Backbone, Checkpoint, Family, Setup
from reward_hub.reads import HeadOutputs, Read
from reward_hub.types import Conversation, Message, Pair

if TYPE_CHECKING:
    from reward_hub.http.dialects.base import Connection
    from reward_hub.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

BUILTIN_PREFIX = "builtin/"


class Located:
    """A checkpoint whose family is known, before its weights are loaded.

    Attributes:
        why: how the family was found.
        connection: the server that holds the weights, where they are not loaded here; `served_as` is its name for them.
    """

    def __init__(self, name: str, files: CheckpointFiles, family: Family, why: str) -> None:
        self.name = name
        self.files = files
        self.family = family
        self.why = why
        self.connection: Connection | None = None
        self.served_as: str | None = None
        self.backbone: Backbone | None = (
            family.backbone(files.config, files.shapes) if family.backbone is not None else None
        )

    @property
    def row(self) -> Checkpoint | None:
        """The published checkpoint, where the model was named by its id."""
        return self.family.checkpoint(self.name)


def locate(
    model: str | Path,
    *,
    family: str | None,
    revision: str | None,
    token: str | None,
    cache_dir: str | Path | None,
    local_files_only: bool,
    trust_remote_code: bool = False,
    adapter: str | Path | None = None,
) -> Located:
    """Open a checkpoint and find its family: as `family` says, by the published id, or by what is in it.

    Raises:
        UnknownModelError, CheckpointError, RemoteCodeRefusedError: see `AutoRM.load`.
    """
    name = str(model)
    place = name
    if name.startswith(BUILTIN_PREFIX):
        place = str(builtin.path(name.removeprefix(BUILTIN_PREFIX)))
    known = registry.family_named(family) if family is not None else registry.family_of_id(name)
    why = "family= said so" if family is not None else "published id"
    files = open_checkpoint(
        place,
        head_files={file for f in registry.families() for file in f.head_files},
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        adapter=adapter,
    )
    files.id = name
    if known is None:
        try:
            known = registry.family_of_checkpoint(name, files.config, files.shapes, files.files)
        except UnknownModelError as error:
            if "auto_map" in files.config and not trust_remote_code and not error.near:
                raise RemoteCodeRefusedError(
                    f"{name} brings its own code ({files.config['auto_map']}) and no family covers it. {error.message} "
                    "To run its code all the same, pass trust_remote_code=True and family=."
                ) from error
            raise
        why = "its config and tensors"
    return Located(name, files, known, why)


def set_up(located: Located, options: Mapping[str, Any] | None, tokenizer: Any, chat_template: str | None) -> Setup:
    from reward_hub.tokenizer import load_tokenizer

    if tokenizer is None:
        tokenizer = load_tokenizer(located.files.tokenizer_folder(), chat_template=chat_template)
    elif isinstance(tokenizer, (str, Path)):
        tokenizer = load_tokenizer(tokenizer_folder(str(tokenizer)), chat_template=chat_template)
    elif chat_template is not None:
        raise TypeError(
            "chat_template= goes with a tokenizer by name; give the tokenizer object its template yourself."
        )
    given: Tokenizer = tokenizer
    setup = Setup(given, located.files.config, located.files.shapes, _family_options(located, options))
    if chat_template is not None and not _renders(located.family, setup):
        logger.warning(
            "%s: chat_template= changes nothing: the family %s writes its prompt itself.",
            located.name,
            located.family.name,
        )
    return setup


def _renders(family: Family, setup: Setup) -> bool:
    """Whether the family renders with a chat template: seen from what it asks of the tokenizer."""
    question, answer = Message("user", "What is 2 + 2?"), Message("assistant", "4")
    item = Pair((question,), "4", "5") if family.kind == "pairwise" else Conversation((question, answer), steps=("4",))
    try:
        family.encode(item, replace(setup, tokenizer=cast("Tokenizer", _WithoutTemplate(setup.tokenizer))))
    except _RenderedError:
        return True
    except RewardHubError:
        # It cannot be told from this question; a warning must not be wrong.
        return True
    return False


class _RenderedError(Exception):
    """The chat template was asked for."""


class _WithoutTemplate:
    """A tokenizer that can do all but render."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def render(self, *_: Any, **__: Any) -> str:
        raise _RenderedError


def tokenizer_folder(name: str) -> Path:
    if Path(name).is_dir():
        return Path(name)
    from reward_hub.checkpoints import hub

    repo = hub.resolve(name)
    from reward_hub.checkpoints.files import TOKENIZER_FILES

    return repo.download(sorted(set(TOKENIZER_FILES) & set(repo.files)))


def _family_options(located: Located, options: Mapping[str, Any] | None) -> Any:
    """The family's options: what the caller says, before what the published checkpoint was trained with."""
    model = located.family.options
    given = dict(options or {})
    if model is None:
        if given:
            raise TypeError(f"{located.family.name} has no options; got {', '.join(sorted(given))}.")
        return None
    unknown = sorted(set(given) - set(model.model_fields))
    if unknown:
        near = registry.nearest(unknown[0], list(model.model_fields))
        hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(model.model_fields)}."
        raise TypeError(f"{located.family.name} has no option {unknown[0]!r}{hint}")
    import pydantic

    try:
        return model(**{**(located.row.options if located.row else {}), **given})
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise TypeError(f"option {first['loc'][0]!r} of {located.family.name}: {first['msg']}.") from error


def checked_read(located: Located, setup: Setup) -> Read:
    """The family's read, with every head tensor known to be there in the right shape."""
    read = located.family.read_for(setup)
    if isinstance(read, HeadOutputs):
        check_tensors(located.files, read.head, hidden_size(located.files.config))
    return read


def length_limit(located: Located, setup: Setup, asked: int | None) -> int | None:
    """The limit asked for, the published id's, the family's, else what model and tokenizer take."""
    row = located.row
    config = located.backbone.config if located.backbone is not None else located.files.config
    holder = config.get("text_config") or config
    positions = holder.get("max_position_embeddings") or holder.get("n_positions")
    if asked is not None:
        if asked < 1:
            raise TypeError(f"max_length={asked}; at least 1 is needed.")
        return asked
    if row is not None and row.max_length is not None:
        return row.max_length
    if located.family.max_length is not None:
        return located.family.max_length
    limits = [int(limit) for limit in (positions, setup.tokenizer.max_length) if limit]
    return min(limits) if limits else None
