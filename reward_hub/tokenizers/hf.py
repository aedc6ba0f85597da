"""The tokenizer files of a checkpoint as transformers and the tokenizers library read them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from reward_hub.errors import CheckpointError
from reward_hub.tokenizers.chat_templates import (
    DEFAULT,
    FOR_TOOLS,
    TODAY,
    chosen,
    rendered,
    require_default,
    tells_the_date,
)
from reward_hub.tokenizers.cuts import LEAST, Parts, cut_before
from reward_hub.tokenizers.special_tokens import tokens_around
from reward_hub.types import TOOLS, Message, template_arguments

# A limit of this size or more is the "no limit" that transformers writes (int(1e30)).
_NO_LIMIT = 10**9


class HFTokenizer:
    """A `Tokenizer` over the tokenizer files of a checkpoint.

    tokenizer.json is read as it is. The model-specific classes of transformers 5 rebuild it from vocabulary and
    merges and lose its normaliser, which changes ids for Llama-2, Yi and DeBERTa-v3 (checked on 5.19).
    """

    def __init__(self, tokenizer: Any, *, chat_template: str | None = None) -> None:
        """
        Args:
            tokenizer: of transformers.
            chat_template: in place of its own: a template, its file, or the name of one of several.
        """
        self._tokenizer = tokenizer
        self.bos_token: str | None = tokenizer.bos_token
        self.eos_token: str | None = tokenizer.eos_token
        self.pad_token: str | None = tokenizer.pad_token
        self.cls_token: str | None = tokenizer.cls_token
        self.bos_token_id: int | None = tokenizer.bos_token_id
        self.eos_token_id: int | None = tokenizer.eos_token_id
        self.pad_token_id: int | None = tokenizer.pad_token_id
        self.unk_token_id: int | None = tokenizer.unk_token_id
        self._templates = chosen(tokenizer.chat_template, chat_template)
        self.chat_template: str | None = self._templates.get(DEFAULT)
        self._special_tokens: dict[str, Any] = dict(tokenizer.special_tokens_map)
        limit = getattr(tokenizer, "model_max_length", None)
        self.max_length: int | None = int(limit) if limit and limit < _NO_LIMIT else None
        self._adds_bos: bool | None = None
        self._process = os.getpid()

    @property
    def pretrained(self) -> Any:
        """The tokenizer as transformers has it."""
        return self._tokenizer

    @property
    def _backend(self) -> Any:
        """What encodes, without truncation and padding: a training script may have left them in the file, and every
        call of the transformers tokenizer with `padding=True` leaves them on."""
        backend = self._tokenizer.backend_tokenizer
        if backend.truncation is not None:
            backend.no_truncation()
        if backend.padding is not None:
            backend.no_padding()
        return backend

    @property
    def adds_bos(self) -> bool:
        if self._adds_bos is None:
            ids = self.encode("a", add_special_tokens=True)
            self._adds_bos = self.bos_token_id is not None and ids[:1] == [self.bos_token_id]
        return self._adds_bos

    @cached_property
    def around(self) -> tuple[list[int], list[int]]:
        """The special tokens that stand before and behind a text. Raises as `tokens_around`."""
        return tokens_around(self)

    @cached_property
    def opening(self) -> str | None:
        """How a text begins that has the tokens of `around` before it already; None where that cannot be said."""
        tokens = self._backend.get_added_tokens_decoder()
        texts = [tokens[i].content if i in tokens else "" for i in self.around[0]]
        whole = {token.content for token in tokens.values()}
        certain = all(
            text in self._cuts and not any(other != text and other.startswith(text) for other in whole)
            for text in texts
        )
        return "".join(texts) if certain else None

    @cached_property
    def _cuts(self) -> frozenset[str]:
        """The added tokens before which a text may be cut."""
        backend = self._backend
        # Where they are text like any other, nothing is known of what is encoded apart.
        tokens = [] if backend.encode_special_tokens else list(backend.get_added_tokens_decoder().values())
        return frozenset(cut_before(tokens))

    @cached_property
    def _parts(self) -> Parts:
        """Cuts before the tokens that templates write: of others there may be thousands."""
        written = "\0".join([*self._templates.values(), *map(str, self._special_tokens.values())])
        return Parts([text for text in self._cuts if text in written])

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        if not add_special_tokens:
            return self._parts.ids(text, self._encode_all)
        if len(text) <= LEAST or self._frame is None:
            return self._encode_all([text], add_special_tokens=True)[0]
        before, behind = self._frame
        return [*before, *self._parts.ids(text, self._encode_all), *behind]

    @cached_property
    def _frame(self) -> tuple[list[int], list[int]] | None:
        try:
            return self.around
        except CheckpointError:
            return None

    def _encode_all(self, texts: list[str], *, add_special_tokens: bool = False) -> list[list[int]]:
        """The ids of each text."""
        backend = self._backend
        if os.getpid() != self._process:
            # The library's threads are lost in a fork.
            return [list(backend.encode(text, add_special_tokens=add_special_tokens).ids) for text in texts]
        # Cheaper than `encode`, which makes offsets, and other threads run meanwhile.
        return [list(one.ids) for one in backend.encode_batch_fast(texts, add_special_tokens=add_special_tokens)]

    def encode_with_offsets(
        self, text: str, *, add_special_tokens: bool = False
    ) -> tuple[list[int], list[tuple[int, int]]]:
        encoding = self._backend.encode(text, add_special_tokens=add_special_tokens)
        return list(encoding.ids), list(encoding.offsets)

    def encode_pair(self, first: str, second: str) -> tuple[list[int], list[int]]:
        encoding = self._backend.encode(first, second, add_special_tokens=True)
        return list(encoding.ids), list(encoding.type_ids)

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = False) -> str:
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens))

    def render(self, messages: Iterable[Message], *, add_generation_prompt: bool = False) -> str:
        given = list(messages)
        arguments = template_arguments(given)
        return rendered(
            self._template_for(arguments),
            given,
            arguments,
            special_tokens=self._special_tokens,
            add_generation_prompt=add_generation_prompt,
        )

    @property
    def template_names(self) -> tuple[str, ...]:
        """Of the chat templates, where the checkpoint has several or the caller said one."""
        return tuple(self._templates)

    def _template_for(self, arguments: Mapping[str, Any]) -> str:
        """The template to render with, as transformers takes one of several."""
        template = self._templates.get(FOR_TOOLS) if TOOLS in arguments else None
        if template is None:
            self.require_template()
            template = self.chat_template
            assert template is not None
        return template

    def require_template(self) -> None:
        """Raises CheckpointError where there is no chat template, or none of several is the one to take."""
        require_default(self._templates)
        if not self._templates:
            raise CheckpointError(
                "The checkpoint has no chat template, and this family renders with it. Give chat_template=."
            )

    def token_id(self, token: str) -> int:
        found = self._backend.token_to_id(token)
        if found is None:
            raise CheckpointError(f"The tokenizer has no token {token!r}, which this family needs.")
        return int(found)

    def token(self, token_id: int) -> str:
        found = self._backend.id_to_token(token_id)
        if found is None:
            raise CheckpointError(f"The tokenizer has no token with id {token_id}.")
        return str(found)

    def single_id(self, text: str) -> int:
        ids = self.encode(text)
        if len(ids) != 1:
            raise CheckpointError(f"{text!r} must be one token for this family; this tokenizer makes {ids} of it.")
        return ids[0]

    def vocabulary(self) -> dict[str, int]:
        """Every piece with its id, added tokens included."""
        return dict(self._backend.get_vocab(with_added_tokens=True))

    def fingerprint(self) -> str:
        """A hash of vocabulary, rules, chat template, and the special tokens that templates and families write."""
        digest = hashlib.sha256(self._backend.to_str().encode())
        digest.update((self.chat_template or "").encode())
        others = {name: text for name, text in self._templates.items() if name != DEFAULT}
        if others:
            digest.update(repr(sorted(others.items())).encode())
        if any(tells_the_date(text) for text in self._templates.values()):
            digest.update(TODAY.isoformat().encode())
        digest.update(repr((self.bos_token, self.eos_token, self.pad_token, self.cls_token)).encode())
        return digest.hexdigest()[:16]
