"""Sentencepiece files made by code, and what the sentencepiece library itself makes of a text."""

from __future__ import annotations

import io
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

MESSAGES: Any = sentencepiece_model_pb2
Piece = MESSAGES.ModelProto.SentencePiece


def file_of_json(tokenizer_json: Mapping[str, Any], *, seed: int) -> bytes:
    """The vocabulary of a Llama's tokenizer.json as a sentencepiece file, its pieces in an order that is not theirs.

    A text is cut as by tokenizer.json; the ids of merged pieces are shuffled, so that only their scores tell which
    merge comes first.
    """
    model = tokenizer_json["model"]
    special = {token["content"] for token in tokenizer_json["added_tokens"]}
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    rank = {"".join(merge): i for i, merge in reversed(list(enumerate(merges)))}
    pieces = [piece for piece, _ in sorted(model["vocab"].items(), key=lambda item: item[1])]
    merged = [i for i, piece in enumerate(pieces) if piece in rank and piece not in special]
    shuffled = random.Random(seed).sample(merged, len(merged))
    order = dict(zip(merged, shuffled, strict=True))
    proto = MESSAGES.ModelProto()
    proto.trainer_spec.model_type = MESSAGES.TrainerSpec.BPE
    proto.trainer_spec.byte_fallback = True
    proto.normalizer_spec.CopyFrom(
        MESSAGES.NormalizerSpec(name="identity", add_dummy_prefix=True, remove_extra_whitespaces=False)
    )
    for piece in (pieces[order.get(i, i)] for i in range(len(pieces))):
        if piece == model["unk_token"]:
            kind = Piece.UNKNOWN
        elif piece in special:
            kind = Piece.CONTROL
        else:
            kind = Piece.BYTE if re.fullmatch(r"<0x[0-9A-F]{2}>", piece) else Piece.NORMAL
        # Single characters are merged into nothing; they stand behind every merge.
        score = -float(rank.get(piece, len(rank))) if kind == Piece.NORMAL else 0.0
        proto.pieces.append(Piece(piece=piece, score=score, type=kind))
    return bytes(proto.SerializeToString())


def trained_file(sentences: Iterable[str], *, seed: int | None = None, **options: Any) -> bytes:
    """A small vocabulary learnt from sentences as Llama's was; with a seed, its pieces stand in no order."""
    llama = {
        "model_type": "bpe",
        "byte_fallback": True,
        "split_digits": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "allow_whitespace_only_pieces": True,
        "vocab_size": 420,
    }
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=written, minloglevel=2, **{**llama, **options}
    )
    return written.getvalue() if seed is None else shuffled_file(written.getvalue(), seed=seed)


def shuffled_file(model: bytes, *, seed: int) -> bytes:
    """The same pieces with the same scores, the learnt ones under other ids."""
    proto = MESSAGES.ModelProto.FromString(model)
    places = [i for i, piece in enumerate(proto.pieces) if piece.type == Piece.NORMAL]
    pieces = [Piece.FromString(proto.pieces[i].SerializeToString()) for i in places]
    random.Random(seed).shuffle(pieces)
    for place, piece in zip(places, pieces, strict=True):
        proto.pieces[place].CopyFrom(piece)
    return bytes(proto.SerializeToString())


@cache
def processor(model: bytes, **changes: Any) -> Any:
    """The library's own tokenizer of a file, with changes of its normaliser's settings."""
    proto = MESSAGES.ModelProto.FromString(model)
    for name, value in changes.items():
        setattr(proto.normalizer_spec, name, value)
    made = sentencepiece.SentencePieceProcessor()
    made.LoadFromSerializedProto(proto.SerializeToString())
    return made


def library_ids(
    model: bytes, text: str, special: Sequence[str] = (), *, ids: Mapping[str, int] | None = None
) -> list[int]:
    """The library's ids of a text in which some tokens are special: each stretch between them by itself."""
    made = processor(model)
    pattern = "|".join(map(re.escape, sorted(special, key=len, reverse=True)))
    found: list[int] = []
    for i, part in enumerate(re.split(f"({pattern})", text) if special else [text]):
        if i % 2:
            found.append(ids[part] if ids and part in ids else made.piece_to_id(part))
        elif part:
            found += made.encode(part)
    return found
