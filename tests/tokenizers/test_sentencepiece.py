"""A sentencepiece file without tokenizer.json is encoded as the sentencepiece library does it."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece_files import library_ids, processor, trained_file

from reward_hub.encoding import special_tokens_around
from reward_hub.errors import CheckpointError
from reward_hub.tokenizer import load_tokenizer
from reward_hub.tokenizers.sentencepiece import SentencePieceTokenizer
from reward_hub.types import Message

TEXT = (
    "answer sum product number apples students minutes dollars total because therefore multiply divide remaining "
    "first second finally \\times \\frac return print range value there are each every half twice"
)
WORDS = TEXT.split()
SENTENCES = [
    f"Step {i}: {' '.join(WORDS[i * step % len(WORDS)] for step in (1, 3, 5))}, and  then {i} {WORDS[i * 7 % 29]} {i}."
    for i in range(600)
]
# One option of the trainer each: what published files differ in.
KINDS: dict[str, dict[str, Any]] = {
    "bpe": {},
    "unigram": {"model_type": "unigram", "hard_vocab_limit": False},
    "no dummy prefix": {"add_dummy_prefix": False},
    "normalised": {"normalization_rule_name": "nmt_nfkc", "remove_extra_whitespaces": True},
    "user-defined pieces": {"user_defined_symbols": ["<sep>", "▁▁", "answer"]},
    "control pieces": {"control_symbols": ["[INST]", "[/INST]"]},
    "no byte fallback": {"byte_fallback": False, "vocab_size": 160},
}
LLAMA = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
HARD = [
    "",
    " ",
    "  two  and   three spaces ",
    "The answer is $3 \\times 4 = 12$.",
    "def f(x):\r\n\treturn x\r\n\r\n",
    "½ ﬁ Å é 𠮷 👩‍👩‍👧 \u200b\ufeff\x00\x07",
    "▁ ▁▁ <0x0A> <unk>",
    " <s> hello </s> there<s>",
    "the answer<sep>is  <sep> 8",
    "[INST] add [/INST] 5",
]
parts = st.one_of(st.sampled_from(HARD), st.sampled_from(SENTENCES), st.text(st.characters(codec="utf-8"), max_size=8))
texts = st.lists(parts, max_size=4).map("".join)


@cache
def file_of(kind: str) -> bytes:
    return trained_file(SENTENCES, seed=1, **KINDS[kind])


def special_of(kind: str) -> list[str]:
    return ["<s>", "</s>", "<unk>", *KINDS[kind].get("control_symbols", [])]


def folder_of(place: Path, model: bytes, **config: Any) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    (place / "tokenizer.model").write_bytes(model)
    (place / "tokenizer_config.json").write_text(json.dumps({**LLAMA, **config}), encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SentencePieceTokenizer]:
    place = tmp_path_factory.mktemp("files")
    return {kind: load_tokenizer(folder_of(place / kind, file_of(kind))) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@given(text=texts)
def test_ids_are_the_library_s(tokenizers: dict[str, SentencePieceTokenizer], kind: str, text: str) -> None:
    tokenizer = tokenizers[kind]
    expected = library_ids(file_of(kind), text, special_of(kind))
    assert tokenizer.encode(text) == expected
    assert tokenizer.encode(text, add_special_tokens=True) == [1, *expected]


@pytest.mark.parametrize("kind", KINDS)
@given(text=texts)
def test_offsets_are_those_of_the_text(tokenizers: dict[str, SentencePieceTokenizer], kind: str, text: str) -> None:
    tokenizer = tokenizers[kind]
    ids, offsets = tokenizer.encode_with_offsets(text, add_special_tokens=True)
    assert ids == tokenizer.encode(text, add_special_tokens=True)
    assert offsets[0] == (0, 0)
    assert all(0 <= begin <= end <= len(text) for begin, end in offsets)
    assert offsets == sorted(offsets)
    if kind != "normalised":
        covered = {i for begin, end in offsets for i in range(begin, end)}
        assert covered == set(range(len(text))), "every character belongs to a token"
    # The library matches user-defined pieces as a whole, and its places inside of them are coarse.
    if kind not in ("normalised", "user-defined pieces"):
        for token_id, (begin, end) in zip(ids[1:], offsets[1:], strict=True):
            piece = tokenizer.token(token_id)
            if not processor(file_of(kind)).is_byte(token_id) and piece != "<unk>":
                assert text[begin:end].replace(" ", "▁") in (piece, piece.removeprefix("▁"))


def test_every_byte_of_a_character_has_the_whole_character(tokenizers: dict[str, SentencePieceTokenizer]) -> None:
    ids, offsets = tokenizers["bpe"].encode_with_offsets("sum 𠮷 ½")
    bytes_of = [tuple(o) for i, o in zip(ids, offsets, strict=True) if tokenizers["bpe"].token(i).startswith("<0x")]
    assert bytes_of == [(4, 5)] * 4 + [(6, 7)] * 2


@pytest.mark.parametrize("text", ["The sum is 8.", "add 5\n\nand 8", "½ and 𠮷"])
def test_decoding_gives_the_text_back(tokenizers: dict[str, SentencePieceTokenizer], text: str) -> None:
    for kind in ("bpe", "unigram", "user-defined pieces", "no dummy prefix"):
        assert tokenizers[kind].decode(tokenizers[kind].encode(text)) == text


@given(text=texts)
def test_without_legacy_the_text_s_start_alone_has_a_prefix(text: str) -> None:
    tokenizer = prefix_tokenizer(legacy=False)
    model = file_of("bpe")
    whole, rest = processor(model), processor(model, add_dummy_prefix=False)
    expected: list[int] = []
    position = 0
    for stretch, token in stretches(text):
        first = position == 0 and not stretch.startswith((" ", "▁"))
        expected += (whole if first else rest).encode(stretch) if stretch else []
        expected += [] if token is None else [whole.piece_to_id(token)]
        position += len(stretch) + len(token or "")
    assert tokenizer.encode(text) == expected


@given(text=texts)
def test_without_add_prefix_space_nothing_has_a_prefix(text: str) -> None:
    bare = processor(file_of("bpe"), add_dummy_prefix=False)
    expected: list[int] = []
    for stretch, token in stretches(text):
        expected += bare.encode(stretch) + ([] if token is None else [bare.piece_to_id(token)])
    assert prefix_tokenizer(add_prefix_space=False).encode(text) == expected


@cache
def prefix_tokenizer(**config: Any) -> SentencePieceTokenizer:
    with TemporaryDirectory() as place:
        return load_tokenizer(folder_of(Path(place), file_of("bpe"), **config))


def stretches(text: str) -> list[tuple[str, str | None]]:
    """The text cut behind every special token: (what stands before it, the token)."""
    cut = re.split("(<s>|</s>|<unk>)", text)
    return [*zip(cut[::2], [*cut[1::2], None], strict=True)]


def test_tokens_have_the_ids_that_the_files_give_them(tmp_path: Path) -> None:
    model = file_of("bpe")
    size = processor(model).get_piece_size()
    placeholder = processor(model).id_to_piece(size - 5)
    decoder = {
        str(i): {"content": content, "special": special, "normalized": False, "lstrip": False, "rstrip": strip}
        for i, content, special, strip in [
            (1, "<s>", True, False),
            (2, "</s>", True, False),
            (size - 5, "<|im_start|>", True, False),
            (size, "<plain>", False, False),
            (size + 1, "<strips>", True, True),
        ]
    }
    tokenizer = load_tokenizer(folder_of(tmp_path, model, added_tokens_decoder=decoder, pad_token="<pad>"))
    assert tokenizer.token_id("<|im_start|>") == size - 5
    assert tokenizer.token(size - 5) == "<|im_start|>"
    assert placeholder not in tokenizer.vocabulary()
    assert tokenizer.pad_token_id == size + 2, "a name without an id is added at the end"
    library = processor(model)
    ids = tokenizer.encode("add<|im_start|>8<plain>5<strips>  8")
    expected = [size - 5, size, size + 1]
    stretched = [library.encode(part) for part in ("add", "8", "5", "8")]
    assert ids == [*stretched[0], expected[0], *stretched[1], expected[1], *stretched[2], expected[2], *stretched[3]]


def test_added_tokens_in_a_file_of_their_own(tmp_path: Path) -> None:
    model = file_of("bpe")
    size = processor(model).get_piece_size()
    folder_of(tmp_path, model, pad_token="<pad>")
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<pad>": size + 1, "<tool>": size}), encoding="utf-8")
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.pad_token_id, tokenizer.single_id("<tool>"), tokenizer.single_id("<pad>")) == (
        *(size + 1, size),
        size + 1,
    )


@pytest.mark.parametrize(
    ("config", "before", "behind"),
    [
        ({}, [1], []),
        ({"add_eos_token": True}, [1], [2]),
        ({"add_bos_token": False}, [], []),
        ({"add_bos_token": False, "add_eos_token": True}, [], [2]),
        ({"tokenizer_class": "InternLM2Tokenizer"}, [1], []),
        ({"tokenizer_class": None}, [1], []),
        ({"bos_token": None}, [], []),
    ],
)
def test_the_flags_say_what_stands_around(
    tmp_path: Path, config: dict[str, Any], before: list[int], behind: list[int]
) -> None:
    tokenizer = load_tokenizer(folder_of(tmp_path, file_of("bpe"), **config))
    assert special_tokens_around(tokenizer) == (before, behind)
    ids, segments = tokenizer.encode_pair("add 5", "sum")
    first, second = (tokenizer.encode(text, add_special_tokens=True) for text in ("add 5", "sum"))
    assert (ids, segments) == (first + second, [0] * len(first) + [1] * len(second))


def test_a_file_without_any_other_is_read_as_a_llama_s(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(file_of("control pieces"))
    tokenizer = load_tokenizer(tmp_path)
    text = "[INST] add <unk> 5[/INST] 8</s>"
    expected = library_ids(file_of("control pieces"), text, special_of("control pieces"))
    assert tokenizer.encode(text, add_special_tokens=True) == [1, *expected]
    assert (tokenizer.bos_token, tokenizer.eos_token_id, tokenizer.unk_token_id) == ("<s>", 2, 0)


def test_a_deberta_s_pair_is_read_as_its_class_does(tmp_path: Path) -> None:
    names = {"pad": (0, "[PAD]"), "bos": (1, "[CLS]"), "eos": (2, "[SEP]"), "unk": (3, "[UNK]")}
    options = {f"{name}_id": i for name, (i, _) in names.items()} | {f"{n}_piece": p for n, (_, p) in names.items()}
    options |= {"model_type": "unigram", "normalization_rule_name": "nmt_nfkc", "byte_fallback": False}
    model = trained_file(SENTENCES, **{**options, "hard_vocab_limit": False})
    (tmp_path / "spm.model").write_bytes(model)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "DebertaV2Tokenizer", "vocab_type": "spm"}')
    tokenizer = load_tokenizer(tmp_path)
    first, second = (processor(model).encode(text) for text in ("add ５", "the ﬁrst sum"))
    assert tokenizer.encode_pair("add ５", "the ﬁrst sum") == (
        [1, *first, 2, *second, 2],
        [0] * (len(first) + 2) + [1] * (len(second) + 1),
    )
    assert (tokenizer.cls_token, tokenizer.pad_token_id, tokenizer.unk_token_id) == ("[CLS]", 0, 3)


def test_a_class_that_may_do_anything_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, file_of("bpe"), tokenizer_class="ChatGLMTokenizer")
    with pytest.raises(CheckpointError, match=r"ChatGLMTokenizer.*tokenizer\.json"):
        load_tokenizer(folder)


def test_the_fingerprint_follows_the_file_and_its_reading(tmp_path: Path) -> None:
    other = trained_file(SENTENCES, seed=2)
    made = [
        load_tokenizer(folder_of(tmp_path / str(i), model, **config)).fingerprint()
        for i, (model, config) in enumerate(
            [(file_of("bpe"), {}), (other, {}), (file_of("bpe"), {"legacy": False}), (file_of("bpe"), {})]
        )
    ]
    assert len(set(made)) == 3
    assert made[0] == made[3]


def test_a_chat_template_beside_the_file_renders(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, file_of("bpe"))
    (folder / "chat_template.jinja").write_text("{{ bos_token }}{{ messages[0]['content'] }}", encoding="utf-8")
    assert load_tokenizer(folder).render([Message("user", "add 5")]) == "<s>add 5"
