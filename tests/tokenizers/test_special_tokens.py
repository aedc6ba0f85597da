"""What a tokenizer puts around a rendered text stands there once, whatever it is called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from golden_sets import GoldenSet
from hypothesis import given
from hypothesis import strategies as st
from made_tokenizers import TURNS, byte_tokenizer, edit_json

from reward_hub import AutoRM, registry
from reward_hub.encoding import one_bos_ids, opened_once, special_tokens_around
from reward_hub.family import Setup
from reward_hub.messages import parse
from reward_hub.server.rendered import RenderedScorer
from reward_hub.tokenizer import HFTokenizer, load_tokenizer
from reward_hub.types import Message

SPECIAL = ("<s>", "[gMASK]", "<sop>", "</s>")
CONVERSATION = [
    {"role": "user", "content": "How many legs do two cats have?"},
    {"role": "assistant", "content": "Two cats have 8 legs."},
]


def said(*texts: str) -> list[Message]:
    return [Message(("user", "assistant")[i % 2], text) for i, text in enumerate(texts)]


# Texts of characters and special tokens, spelled out.
texts = st.lists(st.one_of(st.sampled_from(SPECIAL), st.text(max_size=5)), max_size=4).map("".join)


@given(
    before=st.lists(st.sampled_from(SPECIAL[:3]), unique=True, max_size=3),
    behind=st.lists(st.just("</s>"), max_size=1),
    bos=st.sampled_from([None, *SPECIAL[:3]]),
    opening=st.lists(st.sampled_from(SPECIAL[:3]), max_size=4),
    question=texts.filter(bool),
    answer=texts,
)
def test_a_prefix_of_any_tokens_stands_before_a_rendering_once(
    before: list[str],
    behind: list[str],
    bos: str | None,
    opening: list[str],
    question: str,
    answer: str,
) -> None:
    made = byte_tokenizer(SPECIAL, before=before, behind=behind)
    pretrained = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=bos, chat_template="".join(opening) + TURNS
    )
    tokenizer = HFTokenizer(pretrained)
    ids = one_bos_ids(said(question, answer), tokenizer)

    text = "".join(opening) + f"{question}<end>{answer}<end>"
    rendered = made.encode(text, add_special_tokens=False).ids
    prefix, suffix = ([made.token_to_id(token) for token in tokens] for tokens in (before, behind))
    assert special_tokens_around(tokenizer) == (prefix, suffix)
    opened = rendered if rendered[: len(prefix)] == prefix else prefix + rendered
    assert ids == opened + suffix


def test_a_long_opening_is_found() -> None:
    made = byte_tokenizer([], before=[f"<{name * 60}>" for name in "abc"])
    tokenizer = HFTokenizer(transformers.PreTrainedTokenizerFast(tokenizer_object=made))
    text = "".join(f"<{name * 60}>" for name in "abc") + "hello"
    assert opened_once(text, tokenizer) == made.encode(text, add_special_tokens=False).ids


def stock_score(folder: Path) -> float:
    """The stock class on the chat template's ids, as the model was trained."""
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    ids = tokenizer.apply_chat_template(CONVERSATION, tokenize=True, return_dict=False)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager")
    model.config.pad_token_id = -1
    with torch.no_grad():
        return float(model(torch.tensor([ids])).logits[0, 0])


def without_bos_name(folder: Path, template: str) -> None:
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            edit_json(folder / name, bos_token=None)
    edit_json(folder / "tokenizer_config.json", chat_template=template)


def test_a_prefix_of_two_tokens_scores_as_trained(tmp_path: Path) -> None:
    folder = GoldenSet("seqcls-llama3", "own").make(tmp_path / "glm")
    stored = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    names = [token["content"] for token in stored["added_tokens"] if "reserved" in token["content"]][:2]
    ids = {token["content"]: token["id"] for token in stored["added_tokens"]}
    opening = [{"SpecialToken": {"id": name, "type_id": 0}} for name in names]
    text = [{"Sequence": {"id": "A", "type_id": 0}}]
    stored["post_processor"] = {
        "type": "TemplateProcessing",
        "single": opening + text,
        "pair": opening + text,
        "special_tokens": {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in names},
    }
    (folder / "tokenizer.json").write_text(json.dumps(stored), encoding="utf-8")
    without_bos_name(folder, "".join(names) + TURNS.replace("<end>", "<|eot_id|>"))
    assert AutoRM.load(folder, "transformers").score(CONVERSATION) == pytest.approx(stock_score(folder), abs=1e-4)


def test_a_bos_that_no_file_names_scores_as_trained(tmp_path: Path) -> None:
    folder = GoldenSet("seqcls-llama3", "own").make(tmp_path / "unnamed")
    without_bos_name(folder, "<|begin_of_text|>" + TURNS.replace("<end>", "<|eot_id|>"))
    assert AutoRM.load(folder, "transformers").score(CONVERSATION) == pytest.approx(stock_score(folder), abs=1e-4)


CLASSIFIERS = registry.family_named("sequence-classifier")
SPELLED = parse(
    [
        {"role": "user", "content": "What does <|begin_of_text|> do?"},
        {"role": "assistant", "content": "<|begin_of_text|>It begins."},
    ]
)


@pytest.mark.parametrize("row", CLASSIFIERS.checkpoints, ids=lambda row: row.id)
def test_a_spelled_bos_is_treated_as_on_the_card_of_each_published_id(row) -> None:
    """Cards: `template.replace(bos_token, "")`, or without the bos in front, or the template's ids."""
    removes = {"sfairXC", "NCSOFT", "weqweasdas", "hendrydong"}
    tokenizer = load_tokenizer(GoldenSet("seqcls-llama3", "own").tokenizer)
    options = CLASSIFIERS.options(**row.options)
    ids = CLASSIFIERS.encode(SPELLED, Setup(tokenizer, {}, {}, options)).token_ids
    text = tokenizer.render(SPELLED.messages)
    text = (
        text.replace("<|begin_of_text|>", "") if row.id.split("/")[0] in removes else text[len("<|begin_of_text|>") :]
    )
    assert ids == tokenizer.pretrained.backend_tokenizer.encode(text).ids


@pytest.mark.parametrize("every", [False, True])
def test_rendered_text_over_http_is_read_as_the_messages_are(tmp_path: Path, every: bool) -> None:
    folder = GoldenSet("seqcls-llama3", "own").make(tmp_path / "model")
    rm = AutoRM.load(folder, "transformers", options={"remove_every_bos": every})
    text = rm.model.setup.tokenizer.render(SPELLED.messages)
    expected = rm.model.family.encode(SPELLED, rm.model.setup).token_ids
    for sent in (text, text.removeprefix("<|begin_of_text|>")):
        assert list(RenderedScorer(rm).of_text(sent).token_ids) == expected


def test_padding_and_truncation_that_a_call_left_on_change_no_ids() -> None:
    pretrained = transformers.PreTrainedTokenizerFast(tokenizer_object=byte_tokenizer(["<pad>"]), pad_token="<pad>")
    tokenizer = HFTokenizer(pretrained)
    expected, pair = tokenizer.encode("hello there"), tokenizer.encode_pair("hello", "there")
    pretrained(["a", "much longer text"], padding="max_length", truncation=True, max_length=4)
    assert tokenizer.encode("hello there") == expected
    pretrained(["a", "much longer text"], padding="max_length", max_length=64)
    assert tokenizer.encode_with_offsets("hello there")[0] == expected
    pretrained(["a", "much longer text"], padding=True)
    assert tokenizer.encode_pair("hello", "there") == pair
