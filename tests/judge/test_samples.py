"""Several replies a judgement, and scores read from log-probabilities."""

from __future__ import annotations

import json
import statistics
import threading

import pytest
from judge_server import Answer, Asked, JudgeOn, completion, says, tokens, verdict

from reward_hub import BackendError, JudgeParseError
from reward_hub.judge.rubrics.rubric import Rubric
from reward_hub.judge.samples import majority

CRITERIA = "Score from 1-5:\n- Correctness (weight: 0.75)\n- Tone (weight: 0.25)"


def one_after_another(*objects: dict):
    """Each request gets the next object, in the order of their seeds, which is the order of the samples."""
    given: dict[int, dict] = {}
    lock = threading.Lock()

    def script(asked: Asked) -> Answer:
        with lock:
            return completion(json.dumps(given.setdefault(asked.body["seed"], objects[len(given) % len(objects)])))

    return script


# -- samples -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reduce", "expected"), [("mean", (5 + 5 + 2 + 1 + 5) / 5), ("median", 5.0), ("majority", 5.0)]
)
def test_samples_become_one_score_with_their_spread(judge_on: JudgeOn, reduce: str, expected: float) -> None:
    scores = [5, 5, 2, 1, 5]
    script = one_after_another(*({"score": score} for score in scores))
    judge, server = judge_on(script, n_samples=5, temperature=0.7, reduce=reduce)
    score, details = judge.score(prompt="q", response="r", return_details=True)
    assert score == pytest.approx(expected)
    assert sorted(sample["score"] for sample in details["samples"]) == sorted(scores)
    assert details["raw_logits"] == [sample["score"] for sample in details["samples"]]
    assert details["spread"] == pytest.approx(statistics.stdev(scores))
    assert details["usage"]["calls"] == 5
    assert len({asked.body["seed"] for asked in server.asked}) == 5
    assert {asked.body["temperature"] for asked in server.asked} == {0.7}


def test_criteria_are_reduced_before_they_are_weighed(judge_on: JudgeOn) -> None:
    samples = [{"Correctness": 5, "Tone": 1}, {"Correctness": 5, "Tone": 2}, {"Correctness": 1, "Tone": 2}]
    script = one_after_another(*({"scores": scores} for scores in samples))
    judge, _ = judge_on(script, rubric=CRITERIA, n_samples=3, temperature=1.0, reduce="majority")
    score, details = judge.score(prompt="q", response="r", return_details=True)
    assert details["attributes"] == {"Correctness": 5.0, "Tone": 2.0}
    assert score == pytest.approx(0.75 * 5 + 0.25 * 2)


def test_a_majority_of_equals_is_their_mean() -> None:
    assert majority([1.0, 1.0, 0.0, 0.0, 0.5]) == 0.5
    assert majority([3.0, 3.0, 5.0]) == 3.0


def test_pairs_are_sampled_in_both_orders(judge_on: JudgeOn) -> None:
    judge, server = judge_on(says('{"winner": "A"}'), mode="pairwise", n_samples=3, temperature=0.5)
    p, details = judge.compare(prompt="q", a="x", b="y", return_details=True)
    assert (p, details["orders"], len(server.asked)) == (0.5, [1.0, 0.0], 6)
    assert details["spread"] == 0.0


def test_seeds_are_the_same_at_every_call_and_none_where_none_is_wanted(judge_on: JudgeOn) -> None:
    judge, server = judge_on(verdict(3), n_samples=2, temperature=1.0, seed=7)
    judge.score(prompt="q", response="r")
    judge.score(prompt="q", response="r")
    seeds = [asked.body["seed"] for asked in server.asked]
    assert sorted(seeds[:2]) == sorted(seeds[2:])
    assert len(set(seeds)) == 2
    judge, server = judge_on(verdict(3), seed=None)
    judge.score(prompt="q", response="r")
    assert "seed" not in server.asked[0].body


# -- log-probabilities ---------------------------------------------------------------------------------------------


def scored(*parts: str | tuple[str, dict[str, float]]):
    made = tokens(*parts)
    return says("".join(text for text, _ in made), logprobs=made)


def test_the_score_is_the_mean_over_the_tokens_of_the_score(judge_on: JudgeOn) -> None:
    script = scored(
        '{"reasoning": "', "a score", ' of 9"', ', "score', '": ', ("4", {"4": 0.6, "5": 0.2, "x": 0.2}), "}"
    )
    judge, server = judge_on(script, use_logprobs=True)
    score, details = judge.score(prompt="q", response="r", return_details=True)
    assert score == pytest.approx((4 * 0.6 + 5 * 0.2) / 0.8)
    assert details["score_mass"] == pytest.approx(0.8)
    assert (server.asked[0].body["logprobs"], server.asked[0].body["top_logprobs"]) == (True, 20)


def test_every_criterion_is_a_mean_of_its_own(judge_on: JudgeOn) -> None:
    parts = (
        '{"scores": {"Correctness":',
        (" 5", {" 5": 0.5, " 1": 0.5}),
        ', "Tone": ',
        ("2", {"2": 0.9, "3": 0.1}),
        "}}",
    )
    judge, _ = judge_on(scored(*parts), rubric=CRITERIA, use_logprobs=True)
    score, details = judge.score(prompt="q", response="r", return_details=True)
    assert details["attributes"] == pytest.approx({"Correctness": 3.0, "Tone": 2.1})
    assert score == pytest.approx(0.75 * 3.0 + 0.25 * 2.1)


def test_a_preference_is_the_probability_of_its_labels(judge_on: JudgeOn) -> None:
    script = scored('{"winner": ', ('"A', {'"A': 0.6, '"B': 0.3, '"t': 0.1}), '"}')
    judge, _ = judge_on(script, mode="pairwise", both_orders=False, use_logprobs=True)
    assert judge.compare(prompt="q", a="x", b="y") == pytest.approx(0.6 + 0.5 * 0.1)


def test_every_step_is_a_mean_of_its_own(judge_on: JudgeOn) -> None:
    steps = ('{"steps": [{"score": ', ("5", {"5": 0.5, "4": 0.5}), '}, {"score": ', ("1", {"1": 0.8, "2": 0.2}), "}]}")
    judge, _ = judge_on(scored(*steps), mode="stepwise", use_logprobs=True)
    assert judge.score_steps(prompt="q", response="a\n\nb") == pytest.approx([4.5, 1.2])


def test_thinking_and_the_end_of_turn_among_the_tokens_do_no_harm(judge_on: JudgeOn) -> None:
    made = tokens("<think>", "5? �", "</think>", '{"score": ', ("3", {"3": 0.5, "2": 0.5}), "}", "<|im_end|>")
    judge, _ = judge_on(says('{"score": 3}', logprobs=made), use_logprobs=True)
    assert judge.score(prompt="q", response="r") == 2.5


def test_a_server_that_gives_no_log_probabilities_is_an_error(judge_on: JudgeOn) -> None:
    judge, _ = judge_on(verdict(3), use_logprobs=True)
    with pytest.raises(BackendError, match="no log-probabilities"):
        judge.score(prompt="q", response="r")


def test_tokens_of_another_text_are_an_error(judge_on: JudgeOn) -> None:
    judge, _ = judge_on(says('{"score": 3}', logprobs=tokens("something else")), use_logprobs=True, parse_retries=0)
    with pytest.raises(JudgeParseError, match="do not make up"):
        judge.score(prompt="q", response="r")


def test_a_label_in_another_case_is_the_same_label(judge_on: JudgeOn) -> None:
    script = scored('{"winner": "', ("Tie", {"Tie": 0.8, "A": 0.1, "a": 0.06, "B": 0.04}), '"}')
    judge, _ = judge_on(script, mode="pairwise", both_orders=False, use_logprobs=True)
    p, details = judge.compare(prompt="q", a="x", b="y", return_details=True)
    assert p == pytest.approx(0.8 * 0.5 + 0.16)
    assert details["score_mass"] == pytest.approx(1.0)


@pytest.mark.parametrize("escaped", [True, False])
def test_names_are_found_as_json_writes_them(judge_on: JudgeOn, escaped: bool) -> None:
    names = ["Clarté", 'Is "it" right?']
    rubric = Rubric(instructions="Judge.", criteria=dict.fromkeys(names, 1.0))
    first, second = (json.dumps(name, ensure_ascii=escaped) for name in names)
    parts = (
        f'{{"scores": {{{first}: ',
        ("4", {"4": 0.5, "5": 0.5}),
        f", {second}: ",
        ("1", {"1": 0.5, "2": 0.5}),
        "}}",
    )
    judge, _ = judge_on(scored(*parts), rubric=rubric, use_logprobs=True)
    _, details = judge.score(prompt="q", response="r", return_details=True)
    assert details["attributes"] == pytest.approx({names[0]: 4.5, names[1]: 1.5})
