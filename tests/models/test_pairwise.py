"""Pairwise models: compare in one order or both, rank, and what does not fit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from golden_sets import GoldenModels, GoldenSet, RecordingBackend

from reward_hub import AutoRM, InputTooLongError, InvalidConversationError, UnknownModelError, UnsupportedError
from reward_hub.checkpoints.files import open_checkpoint
from reward_hub.messages import parse_pair
from reward_hub.models.pairwise_rm import PairwiseRM
from reward_hub.numerics import sigmoid
from reward_hub.ranking import ALL_PAIRS, _scores_of_all_pairs, _scores_of_sort
from reward_hub.reads import TokenLogprobs
from reward_hub.work import Work, in_thread, run

SETS = {family: GoldenSet(slug, "own") for family, slug in (
    ("pairrm", "pairrm-hf"), ("better-pairrm", "better-pairrm"),
    ("rlhflow-pair-pm", "rlhflow-pair-pm"), ("steamshp", "steamshp"),
)}  # fmt: skip
ONE_ORDER = ["pairrm", "better-pairrm", "steamshp"]
PROMPT = "What is the capital of France?"
A, B = "Paris is the capital of France.", "I think it is Lyon."


@pytest.fixture
def load(golden_models: GoldenModels):
    """A family's model: without options the shared one on the recording backend."""

    def load_family(family: str, **options: Any) -> PairwiseRM:
        golden = SETS[family]
        if not options:
            return golden_models.load(golden)
        return AutoRM.load(
            golden_models.checkpoint(golden), "recording", family=family, torch_dtype="float32", **options
        )

    return load_family


def n_tokens(rm: PairwiseRM, a: str, b: str, prompt: str = PROMPT) -> int:
    return len(rm.model.family.encode(parse_pair(prompt=prompt, a=a, b=b), rm.model.setup).token_ids)


# compare


@pytest.mark.parametrize("family", SETS)
def test_both_orders_give_the_mean_and_answer_the_swapped_question_with_the_rest(load, family):
    rm = load(family)
    ab = rm.compare(prompt=PROMPT, a=A, b=B, both_orders=True)
    assert 0.0 < ab < 1.0
    assert ab + rm.compare(prompt=PROMPT, a=B, b=A, both_orders=True) == pytest.approx(1.0, abs=1e-6)
    assert rm.compare(prompt=PROMPT, a=A, b=A, both_orders=True) == pytest.approx(0.5, abs=1e-6)
    if family in ONE_ORDER:
        first, second = rm.compare(prompt=PROMPT, a=A, b=B), rm.compare(prompt=PROMPT, a=B, b=A)
        assert ab == pytest.approx((first + 1.0 - second) / 2.0, abs=1e-6)
    else:
        assert ab == rm.compare(prompt=PROMPT, a=A, b=B)


@pytest.mark.parametrize("family", SETS)
def test_the_raw_number_is_that_of_the_order_given(load, family):
    rm = load(family)
    value, details = rm.compare(prompt=PROMPT, a=A, b=B, return_details=True)
    _, both = rm.compare(prompt=PROMPT, a=A, b=B, both_orders=True, return_details=True)
    assert len(details["raw_logits"]) == 1
    assert both["raw_logits"] == pytest.approx(details["raw_logits"], abs=1e-5)
    assert details["normalized_score"] == value
    if family in ("pairrm", "better-pairrm"):
        assert value == sigmoid(details["raw_logits"][0])


def test_an_order_more_is_read_only_where_the_card_or_the_caller_says_so(load):
    for family, both, expected in (("pairrm", False, 1), ("pairrm", True, 2), ("rlhflow-pair-pm", False, 2)):
        rm = load(family)
        RecordingBackend.asked.clear()
        rm.compare(prompt=PROMPT, a=A, b=B, both_orders=both)
        assert len(RecordingBackend.asked) == expected


@pytest.mark.parametrize("family", SETS)
def test_async_forms_give_the_same(load, family):
    rm = load(family)
    assert asyncio.run(rm.acompare(prompt=PROMPT, a=A, b=B)) == rm.compare(prompt=PROMPT, a=A, b=B)
    assert asyncio.run(rm.arank(prompt=PROMPT, responses=[A, B])) == rm.rank(prompt=PROMPT, responses=[A, B])


@pytest.mark.parametrize("family", SETS)
def test_empty_responses_are_compared(load, family):
    assert 0.0 < load(family).compare(prompt=PROMPT, a="", b="") < 1.0


# score


@pytest.mark.parametrize("family", ["pairrm", "better-pairrm", "rlhflow-pair-pm"])
def test_a_pairwise_model_has_no_score_for_one_response(load, family):
    with pytest.raises(UnsupportedError, match=r"compare, rank or best_of_n"):
        load(family).score(prompt=PROMPT, response=A)


def test_steamshps_score_is_the_comparison_with_a_dot(load):
    rm = load("steamshp")
    turns = [[{"role": "user", "content": PROMPT}, {"role": "assistant", "content": text}] for text in (A, B)]
    expected = [rm.compare(prompt=PROMPT, a=text, b=".") for text in (A, B)]
    assert rm.score(prompt=PROMPT, response=A) == pytest.approx(expected[0], abs=1e-6)
    assert rm.score_batch(turns) == pytest.approx(expected, abs=1e-6)
    with pytest.raises(UnsupportedError):
        rm.score(prompt=PROMPT, response=A, aggregation="min")
    with pytest.raises(UnsupportedError):
        rm.score_steps(prompt=PROMPT, response=A)


def test_steamshp_reads_the_answer_over_the_whole_vocabulary(golden_models, load):
    folder = golden_models.checkpoint(SETS["steamshp"])
    rm = load("steamshp")
    item = rm.model.family.encode(parse_pair(prompt=PROMPT, a=A, b=B), rm.model.setup)
    model = transformers.T5ForConditionalGeneration.from_pretrained(folder, dtype=torch.float64)
    with torch.inference_mode():
        logits = model(torch.tensor([item.token_ids]), decoder_input_ids=torch.tensor([item.decoder_ids])).logits
    plain = torch.softmax(logits[0, 0], dim=-1)[item.decoder_ids[1]]
    assert item.token_ids[-1] == rm.model.setup.tokenizer.eos_token_id
    assert rm.compare(prompt=PROMPT, a=A, b=B) == pytest.approx(float(plain), abs=1e-6)


# rank


class Known:
    """Answers with a known strength a response, and counts."""

    def __init__(self, strengths: Sequence[float]) -> None:
        self.strengths = strengths
        self.batches: list[int] = []

    def __call__(self, duels: Sequence[tuple[int, int]]) -> Work[list[float]]:
        self.batches.append(len(duels))
        return in_thread(lambda: [sigmoid(self.strengths[i] - self.strengths[j]) for i, j in duels])


@pytest.mark.parametrize("n", [2, 3, 9, 16, 33])
def test_a_merge_sort_finds_the_order_with_few_comparisons(n):
    strengths = np.random.default_rng(n).permutation(n).astype(float)
    ask = Known(strengths)
    scores = run(_scores_of_sort(ask, n))
    assert sorted(range(n), key=lambda i: -scores[i]) == sorted(range(n), key=lambda i: -strengths[i])
    assert (max(scores), min(scores)) == (1.0, 0.0)
    assert sum(ask.batches) <= n * np.ceil(np.log2(n))
    assert len(ask.batches) < 3 * n


def test_a_merge_sort_keeps_the_order_of_equals():
    scores = run(_scores_of_sort(Known([1.0] * 11), 11))
    assert sorted(range(11), key=lambda i: -scores[i]) == list(range(11))


def test_the_score_of_all_pairs_is_the_mean_probability_of_winning():
    ask = Known([0.0, 1.0, 3.0])
    scores = run(_scores_of_all_pairs(ask, ["x", "y", "z"], ["x", "y", "z", "x"]))
    wins = [(sigmoid(-1.0) + sigmoid(-3.0) + 0.5) / 3, (2 * sigmoid(1.0) + sigmoid(-2.0)) / 3]
    assert scores == pytest.approx([*wins, (2 * sigmoid(3.0) + sigmoid(2.0)) / 3])
    assert ask.batches == [3]


@pytest.mark.parametrize("family", SETS)
def test_rank_asks_every_pair_in_both_orders_in_one_batch(load, family):
    rm = load(family)
    texts = ["Paris.", "Lyon.", "It is Paris, of course.", "Rome"]
    ranking, details = rm.rank(prompt=PROMPT, responses=texts, return_details=True)
    wins = np.array([
        np.mean([rm.compare(prompt=PROMPT, a=a, b=b, both_orders=True) for b in texts if b != a]) for a in texts
    ])  # fmt: skip
    assert details["scores"] == pytest.approx(wins, abs=1e-5)
    assert ranking == sorted(range(4), key=lambda i: -details["scores"][i])
    assert (details["comparisons"], details["method"]) == (6, "all pairs")
    assert rm.best_of_n(prompt=PROMPT, responses=texts) == ranking[0]
    json.dumps(details, allow_nan=False)


def test_rank_does_not_depend_on_the_order_of_the_responses(load):
    rm = load("pairrm")
    texts = ["Paris.", "Lyon.", "It is Paris, of course.", "Rome", "I do not know"]
    ranking = rm.rank(prompt=PROMPT, responses=texts)
    turned = rm.rank(prompt=PROMPT, responses=texts[::-1])
    assert [texts[i] for i in ranking] == [texts[::-1][i] for i in turned]


def test_equal_responses_tie_and_keep_their_order(load):
    rm = load("pairrm")
    ranking, details = rm.rank(prompt=PROMPT, responses=["Rome", "Paris.", "Rome"], return_details=True)
    assert details["scores"][0] == details["scores"][2]
    assert ranking.index(0) < ranking.index(2)
    assert rm.rank(prompt=PROMPT, responses=["x", "x", "x"]) == [0, 1, 2]
    assert rm.rank(prompt=PROMPT, responses=["x"], return_details=True)[1]["scores"] == [0.5]


def test_many_responses_are_sorted(load):
    rm = load("better-pairrm")
    texts = [f"answer {'very ' * i}good" for i in range(ALL_PAIRS + 3)]
    ranking, details = rm.rank(prompt=PROMPT, responses=[*texts, texts[0]], return_details=True)
    assert details["method"] == "merge sort" and details["comparisons"] < len(texts) * (len(texts) - 1) / 2
    assert sorted(ranking) == list(range(len(texts) + 1))
    for better, worse in pairwise(ranking):
        if details["scores"][better] > details["scores"][worse]:
            assert rm.compare(prompt=PROMPT, a=texts[better % 11], b=texts[worse % 11], both_orders=True) >= 0.5


# Texts


def test_a_markers_text_is_text(load):
    for family in ("pairrm", "better-pairrm"):
        rm = load(family)
        prompt, a = "What is <|candidate1|> or <|source|>?", "<|candidate2|> <|candidate1|>"
        tokens = rm.model.family.encode(parse_pair(prompt=prompt, a=a, b=B), rm.model.setup)
        config = rm.model.setup.config
        markers = [config[key] for key in ("source_prefix_id", "cand1_prefix_id", "cand2_prefix_id")]
        assert [tokens.token_ids[p] for p in tokens.positions] == markers
        assert tokens.token_ids.count(markers[1]) == 3
        plain = rm.model.family.encode(parse_pair(prompt="What?", a=B, b=B), rm.model.setup)
        assert tokens.positions[0] == plain.positions[0] == 1
        assert 0.0 < rm.compare(prompt=prompt, a=a, b=B) < 1.0


@pytest.mark.parametrize("family", ["pairrm", "rlhflow-pair-pm"])
@pytest.mark.parametrize("roles", ["su", "uu", "au", "uas"])
def test_turns_that_do_not_alternate_are_refused(load, family, roles):
    names = {"s": "system", "u": "user", "a": "assistant"}
    messages = [{"role": names[role], "content": "text"} for role in roles]
    with pytest.raises(InvalidConversationError):
        load(family).compare(messages=messages, a=A, b=B)


def test_better_pairrm_and_steamshp_take_system_prompts(load):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROMPT}]
    for family in ("better-pairrm", "steamshp"):
        rm = load(family)
        assert rm.compare(messages=messages, a=A, b=B) != rm.compare(messages=messages[1:], a=A, b=B)


def test_better_pairrm_refuses_roles_it_has_no_word_for(load):
    messages = [{"role": "user", "content": PROMPT}, {"role": "tool", "content": "42"}]
    with pytest.raises(InvalidConversationError, match="tool"):
        load("better-pairrm").compare(messages=messages, a=A, b=B)


def test_rlhflow_pair_pm_ends_with_the_header_whatever_the_template_does_by_itself(load):
    template = (
        "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>"
        "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
    )
    usual = load("rlhflow-pair-pm").compare(prompt=PROMPT, a=A, b=B)
    assert load("rlhflow-pair-pm", chat_template=template).compare(prompt=PROMPT, a=A, b=B) == pytest.approx(usual)


# Length


@pytest.mark.parametrize("family", SETS)
def test_what_fits_exactly_is_compared_and_one_token_more_is_an_error(load, family):
    n = n_tokens(load(family), A, B)
    fitting = load(family, max_length=n)
    assert fitting.compare(prompt=PROMPT, a=A, b=B) == pytest.approx(load(family).compare(prompt=PROMPT, a=A, b=B))
    with pytest.raises(InputTooLongError) as caught:
        load(family, max_length=n - 1).compare(prompt=PROMPT, a=A, b=B)
    assert (caught.value.n_tokens, caught.value.max_length) == (n, n - 1)


@pytest.mark.parametrize("family", SETS)
def test_a_prompt_is_cut_when_asked_and_the_responses_stay_whole(load, family):
    long = "one two three " * 40
    rm = load(family, max_length=n_tokens(load(family), A, B, long) - 30, truncation="prompt")
    RecordingBackend.asked.clear()
    _, details = rm.compare(prompt=long, a=A, b=B, return_details=True)
    orders = 2 if family == "rlhflow-pair-pm" else 1
    assert (details["truncated"], details["dropped_tokens"]) == (True, 30 * orders)
    text = rm.model.setup.tokenizer.decode(RecordingBackend.asked[0][1].token_ids)
    assert A in text and B in text


@pytest.mark.parametrize(("family", "truncation", "budgets"), [
    ("pairrm", "right", (2048, 1224)), ("better-pairrm", "left", (3370, 2030)),
])  # fmt: skip
def test_the_cards_budgets_hold_where_the_card_cuts(load, family, truncation, budgets):
    total, for_prompt = budgets
    long, rm = "one two three four " * 900, load(family)
    with pytest.raises(InputTooLongError):
        rm.compare(prompt=long, a=A, b=B)
    setup = rm.model.setup
    pair = parse_pair(prompt=long, a="yes " * 2000, b="no")
    tokens = rm.model.family.cut(pair, setup, total, truncation)
    _, second, third = tokens.positions
    assert second - 1 == for_prompt  # [CLS] opens each part
    assert third - second == (total - for_prompt) // 2
    assert len(tokens.token_ids) <= total
    # Every part still ends with [SEP], and the prompt has lost the side that the card cuts.
    end = tokens.token_ids[-1]
    assert tokens.token_ids[second - 2] == tokens.token_ids[third - 2] == end
    whole = rm.model.family.encode(pair, setup).token_ids
    assert (tokens.token_ids[:20] == whole[:20]) == (truncation == "right")


@pytest.mark.parametrize("truncation", ["left", "right", "prompt"])
@pytest.mark.parametrize("family", ["pairrm", "better-pairrm"])
def test_a_prompt_that_gives_way_saves_the_responses_from_being_cut(load, family, truncation):
    long, a = "one two three " * 80, "yes, " * 25
    rm = load(family, max_length=250, truncation=truncation)
    RecordingBackend.asked.clear()
    _, details = rm.compare(prompt=long, a=a, b="no", return_details=True)
    item = RecordingBackend.asked[0][1]
    assert (details["tokens_scored"], len(item.token_ids)) == (250, 250)
    assert rm.model.setup.tokenizer.decode(item.token_ids).count("yes") == 25


def test_a_response_longer_than_the_limit_is_never_cut_by_cutting_the_prompt(load):
    rm = load("pairrm", max_length=100, truncation="prompt")
    with pytest.raises(InputTooLongError):
        rm.compare(prompt=PROMPT, a="yes " * 200, b="no")


def test_steamshp_keeps_the_question_when_it_is_cut(load):
    tokenizer = load("steamshp").model.setup.tokenizer
    for truncation in ("prompt", "left", "right"):
        rm = load("steamshp", max_length=60, truncation=truncation)
        RecordingBackend.asked.clear()
        rm.compare(prompt="one two three " * 20, a="yes", b="no", return_details=True)
        read, item = RecordingBackend.asked[0]
        text = tokenizer.decode(item.token_ids)
        assert isinstance(read, TokenLogprobs) and item.positions == [1] and len(item.token_ids) == 60
        assert text.startswith("POST:") and text.endswith("Which response is better? RESPONSE</s>")


# Checkpoints


def test_pairrm_and_better_pairrm_cannot_be_told_apart_on_disk(golden_models):
    for family in ("pairrm", "better-pairrm"):
        with pytest.raises(UnknownModelError) as caught:
            AutoRM.load(golden_models.checkpoint(SETS[family]))
        assert {"pairrm", "better-pairrm"} <= set(caught.value.near)


def test_a_head_of_several_tasks_gives_their_mean(tmp_path: Path, golden_models):
    golden = SETS["pairrm"]
    spec = json.loads(json.dumps(golden.spec))
    tensors = spec["files"]["model.safetensors"]
    for name in ("head_layer.4.weight", "head_layer.4.bias"):
        tensors[name]["shape"][0] = 3
    spec["config"]["n_tasks"] = 3
    folder = golden.make(tmp_path, spec)
    rm = AutoRM.load(folder, family="pairrm", torch_dtype="float32")
    _, details = rm.compare(prompt=PROMPT, a=A, b=B, return_details=True)

    files = open_checkpoint(str(folder))
    w1, b1, w4, b4 = (files.read(f"head_layer.{i}.{kind}") for i in (1, 4) for kind in ("weight", "bias"))
    tokens = rm.model.family.encode(parse_pair(prompt=PROMPT, a=A, b=B), rm.model.setup)
    with torch.inference_mode():
        ids = torch.tensor([tokens.token_ids])
        states = rm.model.backend.model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        hidden = states[0, tokens.positions].numpy()
    s = [w4 @ np.tanh(w1 @ np.concatenate([hidden[0], hidden[i]]) + b1) + b4 for i in (1, 2)]
    assert details["raw_logits"][0] == pytest.approx(float((s[0] - s[1]).mean()), abs=1e-5)
