"""A sentencepiece file (tokenizer.model, spm.model) without tokenizer.json, encoded by the sentencepiece library.

Transformers 5 converts such a file without its pieces' scores and gives other ids (checked on 5.23). A conversion of
our own could only be held to the library on texts that somebody thought of; the library is right on all of them: ties,
user-defined pieces, normalisation, byte fallback. Special and added tokens are cut out of the text first, by the
tokenizers library as for every other checkpoint; each stretch between them is encoded by itself.

Reference: transformers 4.57, whose fast classes give the same ids. They ignore the file's normaliser and what it says
of a dummy prefix; those are followed here, as by the slow classes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from reward_hub.errors import CheckpointError, missing_dependency
from reward_hub.tokenizers.classes import Named, apply_rule
from reward_hub.tokenizers.hf import HFTokenizer

# Beside tokenizer.model files lie vocabularies of other kinds too: they are taken where the library can read them.
FILES = ("tokenizer.model", "spm.model")
# What says how tokens are called and how a conversation is written.
_BESIDE = (
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("chat_template.jinja", "chat_template.json"),
)
_MORE_TEMPLATES = "additional_chat_templates"
_SPACE = "▁"
# Stands for a stretch of text between added tokens; no token is called so.
_TEXT = "\ue000text\ue000"


@dataclass(frozen=True)
class DummyPrefix:
    """Where the space is put that lets "Hello" be read as " Hello", if the file wants it at all.

    Attributes:
        allowed: `add_prefix_space`.
        everywhere: before every stretch of text (`legacy`); otherwise at the start alone, unless a space stands there.
    """

    allowed: bool = True
    everywhere: bool = True

    def stands_before(self, stretch: str, start: int) -> bool:
        return self.allowed and (self.everywhere or (start == 0 and not stretch.startswith((" ", _SPACE))))


class SentencePieceTokenizer(HFTokenizer):
    """A `Tokenizer` over a sentencepiece file and the JSON files beside it.

    Names, chat template, special tokens and decoding come from a tokenizer of transformers that knows the file's pieces
    and their ids, but cannot encode (`pretrained`).
    """

    def __init__(self, model: bytes, pretrained: Any, *, prefix: DummyPrefix, chat_template: str | None = None) -> None:
        super().__init__(pretrained, chat_template=chat_template)
        self._model = model
        self._prefix = prefix
        # By whether the dummy prefix is put.
        self._processors = {True: _processor(model), False: _processor(_without_prefix(model))}
        self._splitter, self._added = _splitter(self._backend)
        self._frames = [_frame(self._backend, n) for n in (1, 2)]

    def _encode_all(self, texts: list[str], *, add_special_tokens: bool = False) -> list[list[int]]:
        return [self._framed(ids)[0] if add_special_tokens else ids for ids in map(self._encode_one, texts)]

    def _encode_one(self, text: str) -> list[int]:
        ids: list[int] = []
        for token_id, begin, end in self._stretches(text):
            ids += [token_id] if token_id is not None else self._processor_at(text, begin, end).encode(text[begin:end])
        return ids

    def encode_with_offsets(
        self, text: str, *, add_special_tokens: bool = False
    ) -> tuple[list[int], list[tuple[int, int]]]:
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        for token_id, begin, end in self._stretches(text):
            if token_id is not None:
                pieces = [(token_id, 0, end - begin)]
            else:
                pieces = _pieces(self._processor_at(text, begin, end), text[begin:end])
            ids += [piece for piece, _, _ in pieces]
            offsets += [(begin + start, begin + stop) for _, start, stop in pieces]
        if not add_special_tokens:
            return ids, offsets
        special = [token_id for token_id, _ in self._frames[0]]
        before = special.index(None)
        nowhere = [(0, 0)]
        return self._framed(ids)[0], nowhere * before + offsets + nowhere * (len(special) - 1 - before)

    def encode_pair(self, first: str, second: str) -> tuple[list[int], list[int]]:
        return self._framed(self.encode(first), self.encode(second))

    def fingerprint(self) -> str:
        digest = hashlib.sha256(super().fingerprint().encode())
        digest.update(self._model)
        digest.update(repr(self._prefix).encode())
        return digest.hexdigest()[:16]

    def _stretches(self, text: str) -> Iterator[tuple[int | None, int, int]]:
        """[start, end) of every added token, with its id, and of every stretch of text between them."""
        split = self._splitter.encode(text, add_special_tokens=False)
        for token_id, (begin, end) in zip(split.ids, split.offsets, strict=True):
            yield self._added.get(token_id), begin, end

    def _processor_at(self, text: str, begin: int, end: int) -> Any:
        return self._processors[self._prefix.stands_before(text[begin:end], begin)]

    def _framed(self, *texts: list[int]) -> tuple[list[int], list[int]]:
        """The ids of one text or two with the special tokens around them, and for each the text it belongs to."""
        rest = iter(texts)
        ids: list[int] = []
        segments: list[int] = []
        for token_id, segment in self._frames[len(texts) - 1]:
            more = next(rest) if token_id is None else [token_id]
            ids += more
            segments += [segment] * len(more)
        return ids, segments


def load(folder: Path, name: str, named: Named, *, chat_template: str | None) -> SentencePieceTokenizer | None:
    """The tokenizer of a folder whose vocabulary is the file `name`; None where that is not a sentencepiece file.

    Raises:
        CheckpointError: what its tokenizer class puts around a text is not known.
    """
    model = (folder / name).read_bytes()
    try:
        processor = _processor(model)
    except (RuntimeError, OSError):
        return None
    rule = named.sentencepiece_rule
    if rule is None:
        raise CheckpointError(
            f"{folder} has {name} and no tokenizer.json, and what its class {named.class_name} does besides is not "
            "known here. Save it as tokenizer.json with transformers and that class, or give tokenizer=."
        )
    pretrained = _pretrained(folder, processor, named)
    apply_rule(pretrained, named, rule)
    prefix = DummyPrefix(
        allowed=named.config.get("add_prefix_space") is not False, everywhere=named.config.get("legacy") is not False
    )
    return SentencePieceTokenizer(model, pretrained, prefix=prefix, chat_template=chat_template)


def _pretrained(folder: Path, processor: Any, named: Named) -> Any:
    """A tokenizer of transformers with the file's pieces and what the JSON files add to them, all by their ids."""
    import transformers
    from tokenizers import AddedToken, Tokenizer, decoders, models

    pieces = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    for token_id, token in _added_by_id(folder, named).items():
        # The file may have a placeholder there, as [UNUSED_TOKEN_145] for <|im_start|>.
        if token_id < len(pieces) and pieces[token_id] != token:
            del vocabulary[pieces[token_id]]
        vocabulary[token] = token_id
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=pieces[processor.unk_id()]))
    # The library never finds these in a text; a template that writes them means the tokens.
    special = [piece for i, piece in enumerate(pieces) if processor.is_control(i) or processor.is_unknown(i)]
    backend.add_special_tokens(
        [AddedToken(piece, normalized=False, special=True) for piece in special if piece in vocabulary]
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    with TemporaryDirectory() as made:
        for name in _BESIDE:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, Path(made) / name)
        if (folder / _MORE_TEMPLATES).is_dir():
            shutil.copytree(folder / _MORE_TEMPLATES, Path(made) / _MORE_TEMPLATES)
        (Path(made) / "tokenizer.json").write_text(backend.to_str(), encoding="utf-8")
        return transformers.PreTrainedTokenizerFast.from_pretrained(made)


def _added_by_id(folder: Path, named: Named) -> dict[int, str]:
    """The tokens that the JSON files give an id of their own."""
    decoder = named.config.get("added_tokens_decoder") or {}
    stored = {int(token_id): token["content"] for token_id, token in decoder.items()}
    path = folder / "added_tokens.json"
    if not stored and path.is_file():
        stored = {int(token_id): token for token, token_id in json.loads(path.read_text(encoding="utf-8")).items()}
    return stored


def _splitter(backend: Any) -> tuple[Any, dict[int, int]]:
    """A tokenizer that cuts the added tokens out of a text, and the id that each of its own ids means."""
    from tokenizers import Tokenizer, models

    splitter = Tokenizer(models.WordLevel({_TEXT: 0}, unk_token=_TEXT))
    for token in backend.get_added_tokens_decoder().values():
        (splitter.add_special_tokens if token.special else splitter.add_tokens)([token])
    splitter.encode_special_tokens = backend.encode_special_tokens
    tokens = splitter.get_added_tokens_decoder()
    return splitter, {i: backend.token_to_id(token.content) for i, token in tokens.items()}


def _frame(backend: Any, n_texts: int) -> list[tuple[int | None, int]]:
    """What stands around and between texts: special tokens' ids, None in the place of a text; and to which text each
    of them belongs."""
    encoding = backend.encode(*[_TEXT] * n_texts, add_special_tokens=True)
    return [
        (token_id if special else None, segment)
        for token_id, segment, special in zip(
            encoding.ids, encoding.type_ids, encoding.special_tokens_mask, strict=True
        )
    ]


def _processor(model: bytes) -> Any:
    try:
        import sentencepiece
    except ImportError as error:
        raise missing_dependency("sentencepiece", "transformers", "A sentencepiece vocabulary") from error
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(model)
    return processor


def _without_prefix(model: bytes) -> bytes:
    messages: Any = import_module("sentencepiece.sentencepiece_model_pb2")
    proto = messages.ModelProto.FromString(model)
    proto.normalizer_spec.add_dummy_prefix = False
    return bytes(proto.SerializeToString())


def _pieces(processor: Any, text: str) -> list[tuple[int, int, int]]:
    """Each piece's id, and the [start, end) of its characters; every byte of a character has the whole character."""
    messages: Any = import_module("sentencepiece.sentencepiece_pb2")
    # The one form that all releases since 0.2 give; its places are counted in bytes.
    proto = messages.SentencePieceText.FromString(processor.encode(text, out_type="serialized_proto"))
    character = _characters(text)
    pieces = [(piece.id, character[piece.begin], character[piece.end]) for piece in proto.pieces]
    for i in range(len(pieces) - 2, -1, -1):
        token_id, begin, end = pieces[i]
        if processor.is_byte(token_id) and begin == end and processor.is_byte(pieces[i + 1][0]):
            pieces[i] = (token_id, begin, pieces[i + 1][2])
    return pieces


def _characters(text: str) -> list[int]:
    """For each byte of the text in UTF-8, and for its end, the character it belongs to."""
    if text.isascii():
        return list(range(len(text) + 1))
    return [i for i, character in enumerate(text) for _ in character.encode()] + [len(text)]
