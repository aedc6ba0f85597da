"""Judges on a real vLLM, in this process and behind its OpenAI-compatible server.

The model is GPT-2 with weights of 0 but for the bias of its last norm, so that its logits are the same at every place:
what it writes under a grammar, and every probability, is known beforehand.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from vllm_servers import served

from reward_hub import JudgeParseError, LLMJudge
from reward_hub.errors import BackendError
from reward_hub.judge import JudgeForm, Rubric
from reward_hub.judge.form import Verdict

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]

# A quote closes the reasons at once; of scores 4 is likeliest, of places 2, of labels A.
LOGITS = {'"': 9.0, "4": 6.0, "5": 5.0, "2": 4.5, "1": 4.0, "3": 3.0, "A": 6.0, "B": 5.0, "t": 4.0}
CRITERIA = "Score from 1-5:\n- Correctness (weight: 0.75)\n- Tone (weight: 0.25)"
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
    "{% if not (loop.last and continue_final_message is defined and continue_final_message) %}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
ENGINE = {
    "dtype": "float32",
    "max_model_len": 4096,
    "enforce_eager": True,
    "distributed_executor_backend": "uni",
    "max_num_seqs": 32,
}


def constant_model(folder: Path) -> Path:
    """A language model whose next-token logits are `LOGITS`, whatever it reads; a token is a byte."""
    import torch
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE({symbol: i for i, symbol in enumerate(symbols)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    end = fast.eos_token_id
    config = GPT2Config(
        vocab_size=len(fast), n_positions=4096, n_embd=64, n_layer=1, n_head=2, bos_token_id=end, eos_token_id=end
    )
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.transformer.ln_f.bias[0] = 1.0
        for text, logit in LOGITS.items():
            model.transformer.wte.weight[fast.convert_tokens_to_ids(text), 0] = logit
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return constant_model(tmp_path_factory.mktemp("judge"))


@pytest.fixture(scope="module", params=["engine", "server"])
def place(request: pytest.FixtureRequest, folder: Path) -> Iterator[Mapping]:
    """Arguments of judges that ask one and the same vLLM."""
    if request.param == "server":
        words = ["vllm", "serve", str(folder), "--dtype", "float32", "--max-model-len", "4096"]
        with served([*words, "--served-model-name", "judge"]) as address:
            yield {"model": "judge", "api_base": address}
        return
    import vllm

    engine = vllm.LLM(str(folder), **ENGINE)
    yield {"model": str(folder), "engine": engine}
    engine.llm_engine.engine_core.shutdown()


def judge_at(place: Mapping, **options) -> LLMJudge:
    """A judge whose replies must be well-formed the first time: the server or engine holds them to the schema."""
    return LLMJudge(
        **{"rubric": CRITERIA, "max_tokens": 200, "parse_retries": 0, "structured": True, **place, **options}
    )


def mean(labels: Mapping[str, float]) -> float:
    """The mean of the labels' values by the model's probabilities."""
    total = math.fsum(math.exp(LOGITS[label]) for label in labels)
    return math.fsum(math.exp(LOGITS[label]) * value for label, value in labels.items()) / total


SCORES = {label: float(label) for label in "12345"}


def test_pointwise(place: Mapping) -> None:
    score, details = judge_at(place).score(prompt="What is 2+2?", response="4", return_details=True)
    assert score == 4.0
    assert details["attributes"] == {"Correctness": 4.0, "Tone": 4.0}
    text = details["samples"][0]["text"][0]
    assert json.loads(text) == {"reasoning": "", "scores": {"Correctness": 4, "Tone": 4}}
    assert details["usage"]["completion_tokens"] in (len(text), len(text) + 1)
    assert details["tokens_scored"] > 1000


def test_pairwise(place: Mapping) -> None:
    judge = judge_at(place, mode="pairwise", rubric="Which is right?")
    p, details = judge.compare(prompt="What is 2+2?", a="4", b="5", return_details=True)
    assert (p, details["agreement"], details["position_bias"]) == (0.5, False, 0.5)


def test_listwise(place: Mapping) -> None:
    judge = judge_at(place, mode="listwise", rubric="Which is right?", both_orders=False)
    assert judge.rank(prompt="What is 2+2?", responses=["5", "4"], top_n=1) == [1]


def test_stepwise(place: Mapping) -> None:
    judge = judge_at(place, mode="stepwise", rubric="Is the step right? Score from 1-5.")
    assert judge.score_steps(prompt="q", response="one\n\ntwo\n\nthree") == [4.0, 4.0, 4.0]


def test_expected_scores_are_the_mean_of_the_models_own_probabilities(place: Mapping) -> None:
    score, details = judge_at(place, use_logprobs=True).score(prompt="q", response="r", return_details=True)
    assert score == pytest.approx(mean(SCORES), abs=1e-4)
    # vLLM's log-probabilities are those under the grammar, which leaves but the scores and four kinds of white space.
    weight = math.fsum(math.exp(LOGITS[label]) for label in SCORES)
    assert details["score_mass"] == pytest.approx(weight / (weight + 4), rel=1e-3)


def test_a_preference_is_read_from_probabilities_too(place: Mapping) -> None:
    judge = judge_at(place, mode="pairwise", rubric="Which is right?", use_logprobs=True, both_orders=False)
    expected = mean({"A": 1.0, "B": 0.0, "t": 0.5})
    assert judge.compare(prompt="q", a="x", b="y") == pytest.approx(expected, abs=1e-4)


def test_samples_differ_and_are_the_same_the_next_time(place: Mapping) -> None:
    judge = judge_at(place, rubric="Score from 1-5.", temperature=1.0, n_samples=12)
    scores = [judge.score(prompt="q", response="r", return_details=True) for _ in range(2)]
    first, second = ([sample["score"] for sample in details["samples"]] for _, details in scores)
    assert first == second
    assert len(set(first)) > 1


def test_a_reply_that_is_cut_is_no_verdict(place: Mapping) -> None:
    with pytest.raises(JudgeParseError, match="cut after 5 tokens"):
        judge_at(place, max_tokens=5).score(prompt="q", response="r")


def test_without_a_grammar_this_model_gives_no_verdict(place: Mapping) -> None:
    with pytest.raises(JudgeParseError, match="cut after 20 tokens"):
        judge_at(place, structured=False, max_tokens=20).score(prompt="q", response="r")


def test_a_batch_is_judged_together_and_one_that_is_too_long_fails_alone(place: Mapping) -> None:
    batch = [
        [{"role": "user", "content": "q"}, {"role": "assistant", "content": text}]
        for text in ("a", "b", "x" * 5000, "c", "d")
    ]
    judge = judge_at(place, rubric="Score from 1-5.")
    results = asyncio.run(judge.ascore_batch(batch, on_error="none", return_details=True))
    assert [score for score, _ in results] == [4.0, 4.0, None, 4.0, 4.0]
    assert results[2][1]["error"]["type"] in ("BackendError", "ServerError")


def test_words_that_are_begun_are_continued(place: Mapping) -> None:
    """The model sees its own beginning, with nothing between it and what it writes."""

    def form_of(continued: bool) -> JudgeForm:
        begun = [{"role": "assistant", "content": "Verdict: "}]
        return JudgeForm(
            name="begun",
            mode="pointwise",
            source="tests",
            request=lambda task, replies: [{"role": "user", "content": "q"}, *(begun if continued else [])],
            read=lambda task, replies: Verdict((float(json.loads(replies[-1].text)),)),
            response_schema=lambda task: {"type": "integer", "enum": [4, 5]},
        )

    counts = []
    for continued in (True, False):
        judge = judge_at({**place, "rubric": None}, form=form_of(continued))
        score, details = judge.score(prompt="q", response="r", return_details=True)
        assert score == 4.0
        counts.append(details["tokens_scored"])
    # Both have the assistant's header; the begun words are 9 bytes and have no end of turn.
    assert counts[0] - counts[1] == len("Verdict: ")


def test_an_engine_of_the_judges_own_starts_late_and_is_shut_down(folder: Path) -> None:
    rubric = Rubric(instructions="Judge.", score_range=(1, 5))
    judge = LLMJudge(str(folder), rubric=rubric, load_method="vllm", engine_options=ENGINE, max_tokens=200)
    with judge:
        assert judge.score(prompt="q", response="r") == 4.0
    with pytest.raises(BackendError, match="cannot start"):
        LLMJudge(str(folder / "none"), rubric=rubric, load_method="vllm").score(prompt="q", response="r")
