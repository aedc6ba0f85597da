"""A text is cut before added tokens only: its parts, encoded apart, have the ids of the whole."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import transformers
from golden_sets import OWN, SHARED
from hypothesis import given, settings
from hypothesis import strategies as st
from made_tokenizers import byte_tokenizer
from tokenizers import AddedToken, normalizers, pre_tokenizers

from reward_hub.tokenizer import HFTokenizer, load_tokenizer
from reward_hub.tokenizers import cuts
from reward_hub.tokenizers.cuts import Parts, cut_before
from reward_hub.types import Message

LOOK_ALIKES = [
    "<",
    "<|",
    "|>",
    "<s",
    "s>",
    "[",
    "]",
    "▁",
    "<｜",
    "</s>",
    "<s>",
    "<unk>",
    "[CLS]",
    "[SEP]",
    "<|im_end|>",
]
WORDS = [
    "two",
    " cats",
    "8",
    " ",
    "  ",
    "\n",
    "\n\n",
    "\t",
    "\r\n",
    "é",
    "∑x",
    "ｆｕｌｌ",
    "👍🏽",
    "\\times",
    "don't",
    "  x  ",
]


def folders() -> list[Path]:
    """One of each kind of tokenizer that golden sets have."""
    files = [*OWN.glob("*/tokenizer.json"), *OWN.glob("*/*.model"), *SHARED.rglob("tokenizer.json")]
    return list({kind(file): file.parent for file in reversed(files)}.values())


def kind(file: Path) -> str:
    """What tells how texts are cut and normalised, whatever the vocabulary."""
    if file.suffix != ".json":
        return file.name
    stored = json.loads(file.read_text(encoding="utf-8"))
    flags = {json.dumps({**token, "id": 0, "content": ""}) for token in stored["added_tokens"]}
    parts = [stored[name] for name in ("normalizer", "pre_tokenizer")]
    return json.dumps([stored["model"]["type"], sorted(flags), *parts])


@cache
def loaded(folder: Path) -> HFTokenizer:
    return load_tokenizer(folder)


def whole(tokenizer: HFTokenizer, text: str, *, special: bool) -> list[int]:
    """The ids of a text that is encoded at once."""
    return tokenizer._encode_all([text], add_special_tokens=special)[0]


@pytest.fixture(autouse=True)
def cut_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuts, "LEAST", 1)


def texts_of(tokenizer: HFTokenizer) -> st.SearchStrategy[str]:
    tokens = sorted(token.content for token in tokenizer.pretrained.added_tokens_decoder.values())[:40]
    parts = [token[:n] for token in tokens for n in (2, len(token) - 1)]
    return st.lists(st.sampled_from([*tokens, *tokens, *parts, *LOOK_ALIKES, *WORDS]) | st.text(max_size=3)).map(
        "".join
    )


@pytest.mark.parametrize("folder", folders(), ids=lambda folder: "-".join(folder.parts[-3:]))
@settings(max_examples=30)
@given(data=st.data(), special=st.booleans())
def test_every_golden_tokenizer_gives_the_ids_of_the_whole(folder: Path, data: st.DataObject, special: bool) -> None:
    tokenizer = loaded(folder)
    text = data.draw(texts_of(tokenizer))
    assert tokenizer.encode(text, add_special_tokens=special) == whole(tokenizer, text, special=special)
    if type(tokenizer) is HFTokenizer:
        assert (
            whole(tokenizer, text, special=special)
            == tokenizer.pretrained.backend_tokenizer.encode(text, add_special_tokens=special).ids
        )
    assert "".join(tokenizer._parts.of(text)) == text


@pytest.mark.parametrize("folder", folders(), ids=lambda folder: "-".join(folder.parts[-3:]))
def test_rendered_conversations_are_cut_and_have_the_same_ids(folder: Path) -> None:
    tokenizer = loaded(folder)
    if not tokenizer.chat_template:
        pytest.skip("no chat template")
    prompt = [Message("user", "How many legs? " * 9)]
    texts = [tokenizer.render([*prompt, Message("assistant", text)]) for text in ("8", " Eight.", "\n", "<s>x</s>", "")]
    for special in (False, True):
        for text in texts:
            assert tokenizer.encode(text, add_special_tokens=special) == whole(tokenizer, text, special=special)


FLAGS = st.fixed_dictionaries(
    {
        "normalized": st.booleans(),
        "lstrip": st.booleans(),
        "rstrip": st.booleans(),
        "single_word": st.sampled_from([False, False, False, True]),
        "special": st.booleans(),
    }
)
TOKEN = st.text("<ab> ", min_size=1, max_size=4)
NORMALIZERS: list[Callable[[], Any]] = [
    lambda: None,
    lambda: normalizers.Prepend("▁"),
    lambda: normalizers.Sequence([normalizers.Strip(), normalizers.NFKC()]),
    lambda: normalizers.Replace("ab", "<"),
]
PRE_TOKENIZERS: list[Callable[[], Any]] = [
    lambda: pre_tokenizers.ByteLevel(add_prefix_space=False),
    lambda: pre_tokenizers.ByteLevel(add_prefix_space=True),
    *(
        lambda scheme=scheme: pre_tokenizers.Sequence(
            [pre_tokenizers.Metaspace(prepend_scheme=scheme), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        for scheme in ("first", "always", "never")
    ),
]


@settings(max_examples=300)
@given(
    added=st.dictionaries(TOKEN, FLAGS, min_size=1, max_size=4),
    normalizer=st.sampled_from(NORMALIZERS),
    pre_tokenizer=st.sampled_from(PRE_TOKENIZERS),
    text=st.data(),
)
def test_added_tokens_of_any_kind_are_cut_at_where_nothing_changes(
    added: dict[str, dict[str, bool]], normalizer: Any, pre_tokenizer: Any, text: st.DataObject
) -> None:
    made = byte_tokenizer([])
    made.normalizer = normalizer()
    made.pre_tokenizer = pre_tokenizer()
    made.add_tokens([AddedToken(content, **flags) for content, flags in added.items()])
    written = text.draw(st.lists(st.sampled_from([*added, "a", "b", "<", " ", "ab>"])).map("".join))
    parts = Parts(cut_before(list(made.get_added_tokens_decoder().values())))
    encoded = parts.ids(written, lambda texts: [made.encode(one, add_special_tokens=False).ids for one in texts])
    assert encoded == made.encode(written, add_special_tokens=False).ids


def test_a_prompt_is_encoded_once_for_all_of_its_responses() -> None:
    asked: list[str] = []

    def encode(texts: list[str]) -> list[list[int]]:
        asked.extend(texts)
        return [[ord(character) for character in text] for text in texts]

    parts = Parts(["<turn>"])
    for response in ("one", "two", "three"):
        text = f"<turn>{'question' * 9}<turn>{response}"
        assert parts.ids(text, encode) == [ord(character) for character in text]
    assert sum(text.startswith("<turn>question") for text in asked) == 1


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuts, "_MOST_KEPT", 100)
    parts = Parts(["|"])
    for n in range(50):
        text = f"|{n:040}|{n}"
        assert parts.ids(text, lambda texts: [[len(one)] for one in texts]) == [41, len(str(n)) + 1]
        assert sum(map(len, parts._ids)) <= 100


def test_tokens_that_are_text_like_any_other_are_not_cut_at() -> None:
    made = byte_tokenizer(["<turn>"])
    made.encode_special_tokens = True
    tokenizer = HFTokenizer(transformers.PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<turn>"))
    made.encode_special_tokens = True
    tokenizer.pretrained.backend_tokenizer.encode_special_tokens = True
    assert tokenizer._parts.of("a<turn>b") == ["a<turn>b"]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_encodes_too() -> None:
    tokenizer = loaded(OWN / "seqcls-llama3")
    text = "How many legs do two cats have?" * 40
    expected = tokenizer.encode(text, add_special_tokens=True)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, b"1" if tokenizer.encode(text, add_special_tokens=True) == expected else b"0")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 1) == b"1"
