"""The tokenizer files of a checkpoint as transformers and the tokenizers library read them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from reward_hub.errors import CheckpointError, InvalidConversationError
from reward_hub.types import Message, template_arguments

# A limit of this size or more is the "no limit" that transformers writes (int(1e30)).
_NO_LIMIT = 10**9


class HFTokenizer:
    """A `Tokenizer` over the tokenizer files of a checkpoint.

    tokenizer.json is read as it is. The model-specific classes of transformers 5 rebuild it from vocabulary and
    merges and lose its normaliser, which changes ids for Llama-2, Yi and DeBERTa-v3 (checked on 5.19).
    """

    def __init__(self, tokenizer: Any, *, chat_template: str | None = None) -> None:
        self._tokenizer = tokenizer
        self.bos_token: str | None = tokenizer.bos_token
        self.eos_token: str | None = tokenizer.eos_token
        self.pad_token: str | None = tokenizer.pad_token
        self.cls_token: str | None = tokenizer.cls_token
        self.bos_token_id: int | None = tokenizer.bos_token_id
        self.eos_token_id: int | None = tokenizer.eos_token_id
        self.pad_token_id: int | None = tokenizer.pad_token_id
        self.unk_token_id: int | None = tokenizer.unk_token_id
        template = chat_template if chat_template is not None else tokenizer.chat_template
        if isinstance(template, dict):
            template = template.get("default") or next(iter(template.values()), None)
        self.chat_template: str | None = template
        limit = getattr(tokenizer, "model_max_length", None)
        self.max_length: int | None = int(limit) if limit and limit < _NO_LIMIT else None
        self._adds_bos: bool | None = None

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

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        return list(self._backend.encode(text, add_special_tokens=add_special_tokens).ids)

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
        import jinja2

        if self.chat_template is None:
            raise CheckpointError(
                "The checkpoint has no chat template, and this family renders with it. Give chat_template=."
            )
        given = list(messages)
        arguments = template_arguments(given)
        self._require_places(arguments)
        turns = [message.without_template_arguments().to_dict() for message in given]
        if "developer" not in self.chat_template:
            # Templates older than the role skip such a turn without a word; it is the system prompt by its meaning.
            for turn in turns:
                if turn["role"] == "developer":
                    turn["role"] = "system"
        # Llama-3.2's template writes today's date where none is given: the score would change from day to day.
        fixed = {"date_string": "26 Jul 2024"} if "strftime_now" in self.chat_template else {}
        try:
            text = self._tokenizer.apply_chat_template(
                turns,
                chat_template=self.chat_template,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **(fixed | arguments),
            )
        except (jinja2.exceptions.TemplateError, TypeError) as error:
            raise InvalidConversationError(
                f"the chat template refuses this conversation: {error}", field="messages"
            ) from error
        return str(text)

    def _require_places(self, arguments: Iterable[str]) -> None:
        """Raises InvalidConversationError for an argument of which the template says nothing."""
        import jinja2

        for name in arguments:
            tokens = jinja2.Environment().lex(self.chat_template or "")
            if not any(kind == "name" and value == name for _, kind, value in tokens):
                raise InvalidConversationError(
                    f"the chat template has no place for {name!r}, which would be ignored. Leave it out, or give a "
                    "template that takes it with chat_template=.",
                    field=name,
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
        digest.update(repr((self.bos_token, self.eos_token, self.pad_token, self.cls_token)).encode())
        return digest.hexdigest()[:16]
