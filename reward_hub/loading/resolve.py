"""From a name to a checkpoint whose family is known: headers alone are read, no weights move."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from reward_hub import registry
from reward_hub.backends.stock_position import pad_token_of
from reward_hub.checkpoints import builtin
from reward_hub.checkpoints.builtin import BUILTIN_PREFIX
from reward_hub.checkpoints.files import CheckpointFiles, open_checkpoint, tokenizer_files
from reward_hub.checkpoints.prefixes import refuse_wrapped
from reward_hub.checkpoints.tensors import candidate_heads, check_tensors, hidden_size
from reward_hub.errors import RemoteCodeRefusedError, RewardHubError, UnknownModelError
from reward_hub.family import Backbone, Family, Setup
from reward_hub.heads import Head
from reward_hub.loading.lookalikes import recognise
from reward_hub.models.shown_tokens import shown_input
from reward_hub.plugins import nearest
from reward_hub.reads import HeadOutputs, Read
from reward_hub.tokenizer import Tokenizer, load_tokenizer
from reward_hub.types import Checkpoint, Conversation, Message, Pair

if TYPE_CHECKING:
    from reward_hub.http.dialects.base import Connection

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ResolvedCheckpoint:
    """A checkpoint whose family is known, before its weights are loaded.

    Attributes:
        why: how the family was found.
        recognised: its files alone told the family: neither the caller nor a published id did.
        backbone: how it becomes a checkpoint of a stock class, where it is none.
        connection: the server that holds the weights, where they are not loaded here; `served_as` is its name for them.
    """

    name: str
    files: CheckpointFiles
    family: Family
    why: str
    recognised: bool = False
    backbone: Backbone | None = None
    connection: Connection | None = None
    served_as: str | None = None

    @property
    def published(self) -> Checkpoint | None:
        """The published checkpoint, where the model was named by its id."""
        return self.family.checkpoint(self.name)


def resolve(
    model: str | Path,
    *,
    family: str | None,
    revision: str | None,
    token: str | None,
    cache_dir: str | Path | None,
    local_files_only: bool,
    trust_remote_code: bool = False,
    adapter: str | Path | None = None,
    tokenizer: Any = None,
) -> ResolvedCheckpoint:
    """Open a checkpoint and find its family: as `family` says, by the published id, or by what is in it.

    Args:
        tokenizer: the one that it is to be used with, where it is not the checkpoint's own.

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
    if files.left_aside:
        logger.warning(
            "%s is a whole model with an adapter's files beside it (%s): they are left aside, the model is loaded as "
            "its config.json describes it. To apply them, pass adapter=.",
            name,
            ", ".join(files.left_aside),
        )
    recognised = known is None
    if known is None or known.backbone is None:  # which may know the names that it was saved with
        refuse_wrapped(files)
    if known is None:
        try:
            known, why = recognise(name, files, lambda: _tokenizer(files, tokenizer, None))
        except UnknownModelError as error:
            if "auto_map" in files.config and not trust_remote_code and not error.near:
                raise RemoteCodeRefusedError(
                    f"{name} brings its own code ({files.config['auto_map']}) and no family covers it. {error.message} "
                    "To run its code all the same, pass trust_remote_code=True and family=."
                ) from error
            raise
    backbone = None if known.backbone is None else known.backbone(files.config, files.shapes)
    return ResolvedCheckpoint(name, files, known, why, recognised, backbone)


def set_up(
    checkpoint: ResolvedCheckpoint, options: Mapping[str, Any] | None, tokenizer: Any, chat_template: str | None
) -> Setup:
    """What the family's functions look at: the tokenizer and the options, as the caller gave them or as they are."""
    files = checkpoint.files
    tokenizer = _tokenizer(files, tokenizer, chat_template)
    chosen = _family_options(checkpoint, options)
    pad = pad_token_of(files.config) if checkpoint.family.stock_classifier else None
    setup = Setup(tokenizer, files.config, files.shapes, chosen, pad_token_id=pad)
    if chat_template is not None and not _renders(checkpoint.family, setup):
        logger.warning(
            "%s: chat_template= changes nothing: the family %s writes its prompt itself.",
            checkpoint.name,
            checkpoint.family.name,
        )
    if (
        getattr(tokenizer, "template_names", ())
        and tokenizer.chat_template is None
        and _renders(checkpoint.family, setup)
    ):
        tokenizer.require_template()
    return setup


def _tokenizer(files: CheckpointFiles, given: Any, chat_template: str | None) -> Tokenizer:
    """The caller's tokenizer, where one is given by name or as an object, else the checkpoint's."""
    if given is None:
        return load_tokenizer(files.tokenizer_folder(), chat_template=chat_template)
    if isinstance(given, (str, Path)):
        return load_tokenizer(tokenizer_folder(str(given)), chat_template=chat_template)
    if chat_template is not None:
        raise TypeError(
            "chat_template= goes with a tokenizer by name; give the tokenizer object its template yourself."
        )
    return cast("Tokenizer", given)


def _renders(family: Family, setup: Setup) -> bool:
    """Whether the family renders with a chat template: seen from what it asks of the tokenizer."""
    try:
        family.encode(_example(family), replace(setup, tokenizer=cast("Tokenizer", _WithoutTemplate(setup.tokenizer))))
    except _RenderedError:
        return True
    except RewardHubError:
        # It cannot be told from this question; a warning must not be wrong.
        return True
    return False


def _example(family: Family) -> Conversation | Pair:
    """A question with its answer, or two."""
    question, answer = Message("user", "What is 2 + 2?"), Message("assistant", "4")
    return Pair((question,), "4", "5") if family.kind == "pairwise" else Conversation((question, answer), steps=("4",))


def positions_read(checkpoint: ResolvedCheckpoint, setup: Setup) -> tuple[str, list[dict[str, Any]] | None]:
    """Where the family reads, in its words, and the tokens that it reads of an example, as details have them.

    The tokens are None where the example cannot be encoded; the words then say why.
    """
    family = checkpoint.family
    words = family.reads_at(setup) or str(family.read_for(setup))
    try:
        shown = shown_input(family.tokens_of(_example(family), setup), setup.tokenizer)
    except RewardHubError as error:
        return f"{words} (which token that is cannot be shown: {error})", None
    tokens = shown.decoder_tokens or shown.tokens
    return words, [{"index": token.index, "id": token.id, "text": token.text} for token in tokens if token.read]


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
    return repo.download(sorted(tokenizer_files(repo.files)))


def _family_options(checkpoint: ResolvedCheckpoint, options: Mapping[str, Any] | None) -> Any:
    """The family's options: what the caller says, before what the published checkpoint was trained with."""
    family, given = checkpoint.family, dict(options or {})
    if family.options is None:
        if given:
            raise TypeError(f"{family.name} has no options; got {', '.join(sorted(given))}.")
        return None
    known = list(family.options.model_fields)
    for name in sorted(set(given) - set(known)):
        near = nearest(name, known)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}."
        raise TypeError(f"{family.name} has no option {name!r}; {hint}")
    import pydantic

    trained_with = checkpoint.published.options if checkpoint.published else {}
    try:
        return family.options(**{**trained_with, **given})
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise TypeError(f"option {first['loc'][0]!r} of {family.name}: {first['msg']}.") from error


def checked_read(checkpoint: ResolvedCheckpoint, setup: Setup) -> Read:
    """The family's read, with every head tensor known to be there in the right shape."""
    read, files = checkpoint.family.read_for(setup), checkpoint.files
    if isinstance(read, HeadOutputs):
        check_tensors(files, read.head, hidden_size(files.config))
        if checkpoint.recognised:
            _refuse_other_heads(checkpoint, read.head)
    return read


def _refuse_other_heads(checkpoint: ResolvedCheckpoint, head: Head) -> None:
    """Where several heads lie in one file, nothing says which of them was trained.

    Raises:
        UnknownModelError: the files alone told the family, and hold a head beside the one that it reads.
    """
    files, family = checkpoint.files, checkpoint.family.name
    own = {**head.tensors(), **head.optional()}
    others = [name for name in candidate_heads(files) if name not in own]
    if others:
        raise UnknownModelError(
            f"{checkpoint.name} holds several heads: {', '.join(others)} beside that of {family} "
            f"({', '.join(head.tensors())}), and nothing says which of them was trained. Say which with family=..., "
            f"{family!r} say.",
            near=[family],
        )


def length_limit(checkpoint: ResolvedCheckpoint, setup: Setup, given: int | None) -> int | None:
    """The limit that was given, the published id's, the family's, else what model and tokenizer take."""
    published = checkpoint.published
    for limit in (given, published.max_length if published else None, checkpoint.family.max_length):
        if limit is not None:
            if limit < 1:
                raise TypeError(f"max_length={limit}; at least 1 is needed.")
            return limit
    config = checkpoint.backbone.config if checkpoint.backbone is not None else checkpoint.files.config
    holder = config.get("text_config") or config
    positions = holder.get("max_position_embeddings") or holder.get("n_positions")
    limits = [int(limit) for limit in (positions, setup.tokenizer.max_length) if limit]
    return min(limits) if limits else None
