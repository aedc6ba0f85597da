"""Text to token ids, the way the reference of a checkpoint does it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from reward_hub.errors import CheckpointError, missing_dependency
from reward_hub.tokenizers import sentencepiece
from reward_hub.tokenizers.classes import Named, follow_class, read_names
from reward_hub.tokenizers.hf import HFTokenizer
from reward_hub.types import Message

__all__ = ["HFTokenizer", "Tokenizer", "load_tokenizer", "quiet_transformers"]


class Tokenizer(Protocol):
    """What families ask of a tokenizer. Nothing is added to a text unless `add_special_tokens` says so."""

    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    cls_token: str | None
    bos_token_id: int | None
    eos_token_id: int | None
    pad_token_id: int | None
    unk_token_id: int | None
    chat_template: str | None
    max_length: int | None
    """The limit stored beside the tokenizer, where a real one is set."""

    @property
    def adds_bos(self) -> bool:
        """Whether `add_special_tokens` puts the bos token in front."""
        ...

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]: ...

    def encode_with_offsets(
        self, text: str, *, add_special_tokens: bool = False
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids, and for each the [start, end) of the characters it stands for."""
        ...

    def encode_pair(self, first: str, second: str) -> tuple[list[int], list[int]]:
        """Ids and segment ids of two texts, with the special tokens between and around them."""
        ...

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = False) -> str: ...

    def render(self, messages: Iterable[Message], *, add_generation_prompt: bool = False) -> str:
        """The chat template's text for these messages."""
        ...

    def token_id(self, token: str) -> int:
        """The id of one vocabulary piece; CheckpointError where the vocabulary lacks it."""
        ...

    def token(self, token_id: int) -> str:
        """The vocabulary piece of one id."""
        ...

    def single_id(self, text: str) -> int:
        """The id of a text that is exactly one token; CheckpointError where it is not."""
        ...


def load_tokenizer(folder: Path, *, chat_template: str | None = None) -> HFTokenizer:
    """The tokenizer of a checkpoint folder.

    Args:
        folder: holds tokenizer.json, a sentencepiece file, or what transformers can make a tokenizer of (vocab.json).
        chat_template: replaces the checkpoint's own template: the text, the path of a file that holds it, or the name
            of one of the checkpoint's, where it has several.

    Raises:
        CheckpointError: there is no tokenizer, or it cannot be read.
    """
    try:
        import transformers
    except ImportError as error:
        raise missing_dependency("transformers", "transformers", "The tokenizer") from error

    named = read_names(folder)
    try:
        with quiet_transformers():
            if (folder / "tokenizer.json").is_file():
                tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(str(folder))
            elif (vocabulary := _of_sentencepiece(folder, named, chat_template)) is not None:
                return vocabulary
            else:
                # trust_remote_code is said, for otherwise transformers asks on the terminal when there is own code.
                tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise CheckpointError(f"The tokenizer in {folder} cannot be read: {error}") from error
    if not getattr(tokenizer, "is_fast", False):
        raise CheckpointError(
            f"The tokenizer in {folder} ({type(tokenizer).__name__}) has no fast form; convert it to tokenizer.json."
        )
    _require_vocabulary(tokenizer, folder)
    follow_class(tokenizer, named, folder)
    return HFTokenizer(tokenizer, chat_template=chat_template)


def _of_sentencepiece(folder: Path, named: Named, chat_template: str | None) -> HFTokenizer | None:
    """The tokenizer of a folder's sentencepiece file, where it has one."""
    name = next((name for name in sentencepiece.FILES if (folder / name).is_file()), None)
    return None if name is None else sentencepiece.load(folder, name, named, chat_template=chat_template)


def _require_vocabulary(tokenizer: Any, folder: Path) -> None:
    """transformers 5 makes a tokenizer of a config alone: it knows its special tokens, and drops every other text."""
    pieces = set(tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False))
    if not pieces - set(tokenizer.all_special_tokens) - set(tokenizer.added_tokens_encoder):
        raise CheckpointError(
            f"The folder {folder} has no vocabulary: tokenizer.json, a sentencepiece file, or vocab.json with "
            "merges.txt is needed. Give tokenizer= to take another tokenizer."
        )


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without transformers' bars and loading reports: what they warn of is checked by us, and is an error here."""
    import transformers

    log: Any = transformers.utils.logging
    verbosity, bar = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bar:
            log.enable_progress_bar()
