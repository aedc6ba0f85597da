"""`add_bos_token` and `add_eos_token` mean what they meant to the tokenizer class in transformers 4."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers
from made_tokenizers import byte_tokenizer, edit_json, save

from reward_hub.errors import CheckpointError
from reward_hub.tokenizer import HFTokenizer, load_tokenizer

NAMES = {"bos_token": "<s>", "eos_token": "</s>"}
BOTH = {"add_bos_token": True, "add_eos_token": True}
NEITHER = {"add_bos_token": False, "add_eos_token": False}
FLAGGED = ("LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer", "CohereTokenizer", "GPTNeoXTokenizer")
# Classes whose fast form left the post-processor of tokenizer.json as it was, flags or not.
UNFLAGGED = ("PreTrainedTokenizerFast", "Qwen2Tokenizer", "GPT2Tokenizer", "DebertaV2Tokenizer", "T5Tokenizer")


def around(folder: Path, config: dict[str, Any], *, before: tuple[str, ...] = (), behind: tuple[str, ...] = ()) -> str:
    """What a tokenizer with this config puts around "a", where its tokenizer.json has `before` and `behind`."""
    made = byte_tokenizer(["<s>", "</s>"], before=before, behind=behind)
    tokenizer = load_tokenizer(save(made, folder, config))
    return "".join(tokenizer.token(i) for i in tokenizer.encode("a", add_special_tokens=True))


@pytest.mark.parametrize("fast", ["", "Fast"])
@pytest.mark.parametrize("name", FLAGGED)
@pytest.mark.parametrize("stored", [(), ("<s>",)])
def test_the_flags_decide_for_classes_that_honoured_them(
    tmp_path: Path, name: str, fast: str, stored: tuple[str, ...]
) -> None:
    default = "a" if name == "GPTNeoXTokenizer" else "<s>a"
    for i, (flags, expected) in enumerate(
        [
            ({}, default),
            ({"add_eos_token": True}, default + "</s>"),
            ({"add_bos_token": False}, "a"),
            ({"add_bos_token": True}, "<s>a"),
            (BOTH, "<s>a</s>"),
            (NEITHER, "a"),
        ]
    ):
        config = {"tokenizer_class": name + fast, **NAMES, **flags}
        assert around(tmp_path / str(i), config, before=stored) == expected


@pytest.mark.parametrize("name", UNFLAGGED)
@pytest.mark.parametrize("flags", [{}, BOTH, NEITHER, {"add_eos_token": True}])
def test_tokenizer_json_decides_for_every_other_class(tmp_path: Path, name: str, flags: dict[str, bool]) -> None:
    config = {"tokenizer_class": name, **NAMES, **flags}
    assert around(tmp_path / "with", config, before=("<s>",)) == "<s>a"
    assert around(tmp_path / "without", config) == "a"
    assert around(tmp_path / "behind", config, behind=("</s>",)) == "a</s>"


@pytest.mark.parametrize(
    ("model_type", "expected"), [("llama", "<s>a</s>"), ("gemma2", "<s>a</s>"), ("gpt_neox", "a</s>"), ("qwen2", "a")]
)
def test_a_folder_that_names_no_class_has_that_of_its_model(tmp_path: Path, model_type: str, expected: str) -> None:
    tmp_path.mkdir(exist_ok=True)
    edit_json(tmp_path / "config.json", model_type=model_type)
    assert around(tmp_path, {**NAMES, "add_eos_token": True}) == expected


def test_a_folder_without_class_and_flags_is_as_tokenizer_json_says(tmp_path: Path) -> None:
    edit_json(tmp_path / "config.json", model_type="llama")
    assert around(tmp_path, NAMES) == "a"


def test_names_that_no_file_gives_are_the_class_s_own_where_the_vocabulary_has_them(tmp_path: Path) -> None:
    assert around(tmp_path / "unsaid", {"tokenizer_class": "LlamaTokenizer", "add_eos_token": True}) == "<s>a</s>"
    assert around(tmp_path / "none", {"tokenizer_class": "LlamaTokenizer", "bos_token": None}) == "a"
    assert around(tmp_path / "absent", {"tokenizer_class": "GemmaTokenizer"}) == "a"


def test_a_pair_is_opened_and_closed_twice(tmp_path: Path) -> None:
    made = byte_tokenizer(["<s>", "</s>"])
    tokenizer = load_tokenizer(save(made, tmp_path, {"tokenizer_class": "LlamaTokenizer", **NAMES, **BOTH}))
    ids, segments = tokenizer.encode_pair("a", "b")
    assert "".join(map(tokenizer.token, ids)) == "<s>a</s><s>b</s>"
    assert segments == [0, 0, 0, 1, 1, 1]


def test_flags_change_the_fingerprint(tmp_path: Path) -> None:
    made = byte_tokenizer(["<s>", "</s>"])
    config = {"tokenizer_class": "LlamaTokenizer", **NAMES}
    folders = [save(made, tmp_path / str(add), {**config, "add_eos_token": add}) for add in (False, True)]
    one, other = (load_tokenizer(folder).fingerprint() for folder in folders)
    assert one != other


def test_flags_that_say_what_tokenizer_json_says_leave_the_fingerprint(tmp_path: Path) -> None:
    """Cached scores and trained density ratios are known by it."""
    for name in ("LlamaTokenizer", "PreTrainedTokenizerFast"):
        config = {"tokenizer_class": name, **NAMES}
        made = byte_tokenizer(["<s>", "</s>"], before=("<s>",))
        pretrained = transformers.PreTrainedTokenizerFast.from_pretrained(save(made, tmp_path / name, config))
        assert load_tokenizer(tmp_path / name).fingerprint() == HFTokenizer(pretrained).fingerprint()


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
def test_a_file_that_is_no_json_object_is_named(tmp_path: Path, name: str) -> None:
    save(byte_tokenizer([]), tmp_path, {})
    (tmp_path / name).write_text("[1]", encoding="utf-8")
    with pytest.raises(CheckpointError, match=name):
        load_tokenizer(tmp_path)
