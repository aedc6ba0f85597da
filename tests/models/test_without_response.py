"""`require_response=False` takes a conversation as it stands, or refuses it by name."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from golden_sets import GoldenModels, GoldenSet, golden_sets

from reward_hub import AutoRM, BaseRM, CachedRM, EnsembleRM, LLMJudge
from reward_hub.errors import InvalidConversationError, UnsupportedError
from reward_hub.messages import parse
from reward_hub.models.model_rm import ModelRM
from reward_hub.registry import family_named

ASKED: list[dict[str, Any]] = [
    {"role": "user", "content": "How many legs do two cats have?"},
    {"role": "assistant", "content": "Eight."},
    {"role": "user", "content": "That is right, thank you."},
]
ONE_TURN = ASKED[:1]
MISTRAL = GoldenSet("seqcls-mistral", "own")
SETS = [golden for golden in golden_sets("own") if golden.registered and not golden.two_models]
OUTCOME = [golden for golden in SETS if golden.kind == "outcome"]
OTHERS = [golden for golden in SETS if golden.kind != "outcome"]
# Their text, or the place they read, has a response in it.
APART = frozenset({"armorm", "beaver", "eurus", "oasst-deberta", "qrm", "starling", "ultrarm"})


@pytest.fixture
def mistral(golden_models: GoldenModels) -> Any:
    return golden_models.load(MISTRAL)


def as_card(golden_models: GoldenModels, golden: GoldenSet, chat: list[dict[str, Any]]) -> float:
    """RM-Mistral's card: the template's text without bos, given to the tokenizer, and the stock class."""
    folder = golden_models.checkpoint(golden)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=False)
    ids = tokenizer(text.replace(tokenizer.bos_token, ""), return_tensors="pt")["input_ids"]
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        return float(model.eval()(input_ids=ids).logits)


@pytest.mark.parametrize("chat", [ASKED, ONE_TURN], ids=["three turns", "one turn"])
def test_the_score_is_that_of_the_card(golden_models: GoldenModels, mistral: Any, chat: list[dict[str, Any]]) -> None:
    assert mistral.score(chat, require_response=False) == pytest.approx(as_card(golden_models, MISTRAL, chat), abs=1e-5)


@pytest.mark.parametrize("golden", OUTCOME, ids=str)
def test_every_outcome_family_reads_it_as_a_whole_or_refuses(golden: GoldenSet, golden_models: GoldenModels) -> None:
    rm: Any = golden_models.load(golden)
    for chat in (ASKED, ONE_TURN):
        try:
            scores = rm.score_batch([chat, [*chat[:-1], {"role": "user", "content": "No."}]], require_response=False)
        except InvalidConversationError as error:
            assert golden.family in APART
            assert "response" in error.message or "header" in error.message or "one question" in error.message
            continue
        assert golden.family not in APART - {"armorm", "qrm", "starling"}
        assert scores[0] != scores[1]
        tokens = rm.model.family.tokens_of(parse(chat, require_response=False), rm.model.setup)
        assert chat[-1]["content"] in rm.model.setup.tokenizer.decode(tokens.token_ids)


@pytest.mark.parametrize("golden", OTHERS, ids=str)
def test_models_of_steps_and_of_pairs_refuse(golden: GoldenSet, golden_models: GoldenModels) -> None:
    rm = golden_models.load(golden)
    with pytest.raises(UnsupportedError, match=r"require_response=False|compare"):
        rm.score(ASKED, require_response=False)
    with pytest.raises(UnsupportedError):
        rm.score_batch([ASKED], require_response=False, on_error="none")


def test_an_implicit_reward_refuses(golden_models: GoldenModels) -> None:
    rm = golden_models.load(GoldenSet("dpo-implicit", "own"))
    with pytest.raises(InvalidConversationError, match="reads a prompt and a response apart"):
        rm.score(ASKED, require_response=False)


def test_every_form_of_the_call_takes_it(mistral: Any) -> None:
    alone = mistral.score(ONE_TURN, require_response=False)
    text = ONE_TURN[0]["content"]
    assert mistral.score(prompt=text, require_response=False) == alone
    both = [alone, mistral.score(ASKED, require_response=False)]
    chats = [ONE_TURN, ASKED]
    assert mistral.score(chats, require_response=False) == pytest.approx(both, abs=1e-5)
    assert mistral.score_batch(chats, require_response=False) == pytest.approx(both, abs=1e-5)
    assert list(mistral.score_iter(iter(chats), require_response=False)) == pytest.approx(both, abs=1e-5)

    async def asked() -> list[float]:
        one = await mistral.ascore(ONE_TURN, require_response=False)
        return [one, *await mistral.ascore_batch(chats, require_response=False)]

    assert asyncio.run(asked()) == pytest.approx([alone, *both], abs=1e-5)


def test_a_conversation_with_a_response_has_the_same_score(mistral: Any) -> None:
    assert mistral.score(ASKED[:2], require_response=False) == mistral.score(ASKED[:2])
    pair = {"prompt": "2 + 2?", "response": "4"}
    assert mistral.score(**pair, require_response=False) == mistral.score(**pair)


def test_without_the_word_a_response_is_required(mistral: Any) -> None:
    with pytest.raises(InvalidConversationError, match=r"'user'; .*require_response=False"):
        mistral.score(ASKED)
    with pytest.raises(InvalidConversationError, match="response is missing"):
        mistral.score(prompt="2 + 2?")
    with pytest.raises(InvalidConversationError, match="user"):
        mistral.score([{"role": "system", "content": "Be brief."}], require_response=False)


def test_it_is_said_once(golden_models: GoldenModels, caplog: pytest.LogCaptureFixture) -> None:
    rm = ModelRM(golden_models.load(MISTRAL).model)  # type: ignore[attr-defined]
    with caplog.at_level(logging.INFO, "reward_hub"):
        rm.score_batch([ASKED, ONE_TURN, ASKED[:2]], require_response=False)
        rm.score(ASKED, require_response=False)
    assert [record.getMessage().count("as it stands") for record in caplog.records] == [1]


def test_tools_beside_a_single_turn_reach_the_template(golden_models: GoldenModels) -> None:
    golden = GoldenSet("seqcls-qwen2", "own")
    template = "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}"
    rm = AutoRM.load(golden_models.checkpoint(golden), chat_template=template)
    tools = [{"type": "function", "function": {"name": "add"}}]
    told = rm.score(ONE_TURN, require_response=False, tools=tools)
    assert told != rm.score(ONE_TURN, require_response=False)
    assert told == rm.score([{**ONE_TURN[0], "tools": tools}], require_response=False)


def test_a_family_without_a_template_refuses_tools_beside_a_single_turn(golden_models: GoldenModels) -> None:
    rm = golden_models.load(GoldenSet("oasst-pythia", "own"))
    with pytest.raises(InvalidConversationError, match="tools"):
        rm.score(ONE_TURN, require_response=False, tools=[{"name": "add"}])


def test_what_is_dropped_of_it_is_told(golden_models: GoldenModels) -> None:
    template = "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}"
    rm = AutoRM.load(golden_models.checkpoint(MISTRAL), chat_template=template)
    chat = [{"role": "system", "content": "Be brief."}, *ONE_TURN]
    _, details = rm.score(chat, require_response=False, return_details=True)
    assert (details["dropped"], details["truncated"]) == (["messages[0] (system)"], False)


def test_truncation_of_the_prompt_keeps_the_last_message(mistral: Any) -> None:
    model = mistral.model
    n = len(model.family.tokens_of(parse(ASKED, require_response=False), model.setup).token_ids)
    rm = ModelRM(replace(model, max_length=n - 5, truncation="prompt"))
    _, details = rm.score(ASKED, require_response=False, return_details=True)
    assert (details["dropped_tokens"], details["tokens_scored"]) == (5, n - 5)


# -- other models ------------------------------------------------------------------------------------------------------


def test_a_cache_keeps_it_apart_from_an_empty_response(mistral: Any, tmp_path: Path) -> None:
    cached = CachedRM(mistral, cache_dir=tmp_path)
    scores = [cached.score(ONE_TURN, require_response=False), cached.score(prompt=ONE_TURN[0]["content"], response="")]
    assert scores[0] != scores[1]
    again, details = cached.score(ONE_TURN, require_response=False, return_details=True)
    assert (again, details["cached"]) == (scores[0], True)


def test_an_ensemble_asks_its_members_so(mistral: Any, golden_models: GoldenModels) -> None:
    other = golden_models.load(GoldenSet("seqcls-qwen2", "own"))
    both = EnsembleRM([(mistral, 0.5), (other, 0.5)])
    expected = 0.5 * (mistral.score(ASKED, require_response=False) + other.score(ASKED, require_response=False))
    assert both.score(ASKED, require_response=False) == pytest.approx(expected, abs=1e-5)


def test_a_judge_refuses() -> None:
    judge = LLMJudge(model="m", api_base="http://127.0.0.1:9/v1", api_key="-", rubric="Is it right? 1-5")
    with pytest.raises(InvalidConversationError, match="this conversation has none"):
        judge.score(ASKED, require_response=False)


class NeedsOne(BaseRM):
    def score(self, messages: Any) -> float:  # type: ignore[override]
        return float(len(messages))


class TakesAny(BaseRM):
    def score(self, messages: Any, **kwargs: Any) -> float:  # type: ignore[override]
        return float(len(messages)) + 0.5 * (kwargs.get("require_response") is False)


def test_a_class_of_the_users_is_told_or_refuses() -> None:
    assert TakesAny().score_batch([ASKED, ASKED[:2]], require_response=False) == [3.5, 2.0]
    with pytest.raises(InvalidConversationError, match=r"NeedsOne.score does not take require_response"):
        NeedsOne().score_batch([ASKED], require_response=False)


def test_the_families_named_here_are_families() -> None:
    assert {family_named(name).kind for name in APART} == {"outcome"}
