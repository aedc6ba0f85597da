"""Replies, well-formed and otherwise: the verdict that stands there, or JudgeParseError."""

from __future__ import annotations

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from reward_hub.errors import JudgeParseError
from reward_hub.judge.form import JudgeTask, Reply
from reward_hub.judge.rubrics.forms import rubric_form
from reward_hub.judge.rubrics.rubric import Rubric
from reward_hub.types import Message

PROMPT = (Message("user", "What is 2+2?"),)
ONE = JudgeTask(PROMPT, ("4",))
PAIR = JudgeTask(PROMPT, ("4", "5"))
STEPS = JudgeTask(PROMPT, ("a\n\nb",), steps=("a", "b"))
SCORED = rubric_form(Rubric(instructions="Judge."), "pointwise")
CRITERIA = rubric_form(Rubric(instructions="Judge.", criteria={"Correctness": 3, "Tone": 1}), "pointwise")
COMPARED = rubric_form(Rubric(instructions="Judge."), "pairwise")
RANKED = rubric_form(Rubric(instructions="Judge."), "listwise")
STEPWISE = rubric_form(Rubric(instructions="Judge."), "stepwise")


@pytest.mark.parametrize(
    "text",
    [
        '{"reasoning": "good", "score": 4}',
        '{"score": 4}',
        '{"score": "4"}',
        '{"score": 4.0}',
        '```json\n{"reasoning": "good", "score": 4}\n```',
        'Here is my verdict:\n{"score": 4}\nI hope that helps.',
        'In my view {well} it is {"a": 1} fine. {"score": 4}',
        '<think>maybe {"score": 1}?</think>{"score": 4}',
        'it starts inside of the thinking {"score": 2} </think>\n{"score": 4}',
        '<think>one</think> <think>two {"score": 5}</think> {"score": 4}',
        '{"reasoning": "it says <think> and </think> and {\\"score\\": 1}", "score": 4}',
        '{"score": 4} and again {"score": 4}',
        '{"score": "4/5"}',
        '{"reasoning": "fine", "score": 4,}',
        '{"reasoning": "one line\nand another", "score": 4}',
        '<THINKING>{"score": 1}</THINKING>{"score": 4}',
        '<seed:think>{"score": 1}</seed:think>{"score": 4}',
        "Score: 4",
        "It is clear and right.\n**Score:** 4/5",
        "Score (1-5): 4",
        '{"Reasoning": "good", "Score": 4}',
        '{"score": "4 out of 5"}',
        '{"score": "4 (out of 5)"}',
        "{'score': 4}",
        "{'reasoning': 'it\\'s \"fine\"', 'score': 4, 'sure': True, 'errors': None,}",
        """{"reasoning": 'as asked', 'score': 4}""",
        r'{"reasoning": "by \(x\) and \\frac{1}{2}", "score": 4}',
        '{{"reasoning": "twice in braces", "score": 4}}',
        "{'reasoning': 'The draft says {\"score\": 2}, but', 'score': 4}",
        '{"draft": {"score": 2}, "score": 4,}',
        "Score: 4 out of 5",
        "Score: 4/5.",
        "Score\uff1a\uff14",
        "The final score: 4, because it is right.",
        "Score: 4 points",
        "The score is not 5.\nScore: 4",
        "Score: 5 is the most there is.\nFinal score: 4",
    ],
)
def test_a_verdict_is_found_wherever_it_plainly_stands(text: str) -> None:
    assert SCORED.read(ONE, [Reply(text)]).scores == (4.0,)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4",
        "I give it a 4.",
        '{"score": 6}',
        '{"score": 0}',
        '{"score": 3.5}',
        '{"score": null}',
        '{"score": true}',
        '{"score": [4]}',
        '{"score": NaN}',
        '{"score": 1e999}',
        '{"score": "very good"}',
        '{"rating": 4}',
        '{"score": 4',
        '{"score": 4} no, {"score": 2}',
        '{"score": 4, "score": 2}',
        '{"score": 4, "Score": 2}',
        '{"score": "4 out of 10"}',
        '<think>{"score": 4}',
        '{"score": "4/10"}',
        "Score: 4 or 5",
        "Score: 3 - 5",
        "Score: 4\nScore: 2",
        "Score: 9",
        "Score: 4.5",
        "Score: 5 would be perfect, but this is a 2.",
        "Score: 5, were it complete.",
        "Score: 5 - 1 for the tone",
        "Score: 5 minus 2",
        "Score: 1 0",
        "Score: 4 stars",
        "Score: 3,5",
        "Score: 4%",
        "The highest score: 5. This is worth less.",
        "A perfect score: 5",
        "Overall score: 4\nStyle score: 2",
        "{'score': 4, 'score': 2}",
        """{'reasoning': 'it's said {"score": 2}', 'score': 4}""",
        '{"reasoning": "a "quote" and {"score": 2}", "score": 4}',
        "<think>Score: 4",
        'Well. <think> I would say {"score": 4}',
        '{"score": 4} {"score": 9}',
        "[" * 5000,
        '{"a":' * 3000,
    ],
)
def test_no_verdict_two_of_them_and_one_out_of_range_are_errors(text: str) -> None:
    with pytest.raises(JudgeParseError) as caught:
        SCORED.read(ONE, [Reply(text)])
    assert caught.value.text == text


@given(st.text(max_size=300))
def test_any_reply_gives_a_score_in_range_or_an_error(text: str) -> None:
    try:
        (score,) = SCORED.read(ONE, [Reply(text)]).scores
    except JudgeParseError:
        return
    assert score in (1, 2, 3, 4, 5)


@given(reasoning=st.text(max_size=200), score=st.integers(1, 5), before=st.sampled_from(["", "Well:\n", "```json\n"]))
def test_whatever_the_reasons_quote_the_score_is_the_one_given(reasoning: str, score: int, before: str) -> None:
    # Behind other words a quoted tag looks like thinking; the reply alone is taken as the JSON that it is.
    assume(not before or "think>" not in reasoning)
    text = before + json.dumps({"reasoning": reasoning, "score": score}, ensure_ascii=False)
    verdict = SCORED.read(ONE, [Reply(text)])
    assert verdict.scores == (score,)
    assert verdict.reasoning == reasoning.strip()


@given(st.text(max_size=100), st.sampled_from([1, 2, 3, 4, 5, "1", "5/5"]))
def test_an_object_as_python_writes_it_is_read(reasoning: str, value: int | str) -> None:
    score = int(str(value)[0])
    verdict = SCORED.read(ONE, [Reply(repr({"reasoning": reasoning, "score": value, "sure": True, "why": None}))])
    assert (verdict.scores, verdict.reasoning) == ((score,), reasoning.strip())


@given(
    said=st.integers(1, 5),
    meant=st.integers(1, 5),
    before=st.sampled_from(["", "Well.\n", "**", "- ", "The final "]),
    talk=st.sampled_from(
        [
            "Score: {said} would be perfect, but this is a {meant}",
            "Score: {said} if all were right; it is {meant}",
            "Score: {said}, had it been complete. It gets {meant}",
            "Score: {said} minus {meant}",
            "Score: {said} or rather {meant}",
            "Score: {said} is too much for this",
            "Score: {said} (were it not for the errors)",
            "The best score is {said}. This gets {meant}",
            "Somebody's score: {said} or so",
        ]
    ),
)
def test_a_score_that_is_only_talked_about_is_not_one(said: int, meant: int, before: str, talk: str) -> None:
    text = before + talk.format(said=said, meant=meant)
    with pytest.raises(JudgeParseError):
        SCORED.read(ONE, [Reply(text)])
    assert SCORED.read(ONE, [Reply(f"{text}\nScore: {meant}")]).scores == (meant,)


@pytest.mark.parametrize("label", ["A", "B"])
@pytest.mark.parametrize("written", ["Response {}", "{}", "response {}.", "[[{}]]", "**{}**", "The answer {}"])
def test_a_label_may_come_with_the_word_for_what_it_labels(written: str, label: str) -> None:
    value, p = written.format(label), 1.0 if label == "A" else 0.0
    for text in (json.dumps({"winner": value}), repr({"winner": value}), f"Winner: {value}"):
        assert COMPARED.read(PAIR, [Reply(text)]).scores == (p,)
    assert COMPARED.read(PAIR, [Reply(f"Winner: {label} is better than {'BA'['AB'.index(label)]}.")]).scores == (p,)


@pytest.mark.parametrize(
    "text", ['{"winner": "A tie"}', '{"winner": "a tie"}', "Winner: A tie", "Winner: tie", "winner: a tie."]
)
def test_a_tie_is_not_a_preference_for_a(text: str) -> None:
    assert COMPARED.read(PAIR, [Reply(text)]).scores == (0.5,)


@pytest.mark.parametrize(
    "text",
    [
        "Winner: A or B",
        "Winner: not A",
        "Winner: A would win if it were shorter, so B.",
        "Winner: A is not better than B",
        "Winner: A is better in style, B in truth",
        "Winner: A\nWinner: B",
        "Winner: A tie would be wrong",
        '{"winner": "A or B"}',
        '{"winner": "not A"}',
        '{"winner": "A is worse"}',
    ],
)
def test_a_label_that_is_only_talked_about_is_not_a_preference(text: str) -> None:
    with pytest.raises(JudgeParseError):
        COMPARED.read(PAIR, [Reply(text)])


def test_criteria_are_combined_by_their_weights_not_by_the_judge() -> None:
    verdict = CRITERIA.read(ONE, [Reply('{"scores": {"correctness": 5, " TONE": 1}, "score": 2}')])
    assert verdict.scores == ((3 * 5 + 1 * 1) / 4,)
    assert verdict.criteria == {"Correctness": 5.0, "Tone": 1.0}


@pytest.mark.parametrize(
    "text",
    [
        '{"correctness": 5, "Tone": 1}',
        '{"scores": {"Correctness": {"reasoning": "right", "score": 5}, "Tone": {"score": 1}}}',
        "Correctness: 5/5\n- **Tone**: 1",
        "- **Correctness (weight: 0.75):** 5\n- **Tone** (weight: 0.25): 1",
        '{"Scores": {"Correctness": 5, "Tone": 1}}',
        "Correctness: 5/5, Tone: 1/5.",
        "{'scores': {'Correctness': 5, 'Tone': 1}}",
    ],
)
def test_criteria_are_found_without_the_form_that_was_asked_for(text: str) -> None:
    assert CRITERIA.read(ONE, [Reply(text)]).criteria == {"Correctness": 5.0, "Tone": 1.0}


@pytest.mark.parametrize(
    "text",
    [
        '{"scores": {"Correctness": 5}}',
        '{"Correctness": 5}',
        "Correctness: 5",
        '{"scores": {"Correctness": 5, "Tone": 9}}',
        '{"scores": {"Correctness": 5, "Tone": 1, "tone": 2}}',
        '{"scores": [5, 1]}',
        '{"score": 5}',
    ],
)
def test_a_criterion_without_its_score_is_no_verdict(text: str) -> None:
    with pytest.raises(JudgeParseError):
        CRITERIA.read(ONE, [Reply(text)])


@pytest.mark.parametrize(("winner", "p"), [("A", 1.0), ("B", 0.0), ("tie", 0.5), ("b", 0.0), (" Tie ", 0.5)])
def test_a_preference_is_the_probability_of_a(winner: str, p: float) -> None:
    assert COMPARED.read(PAIR, [Reply(json.dumps({"winner": winner}))]).scores == (p,)


@pytest.mark.parametrize("winner", ["C", "A and B", "", 1, None, ["A"]])
def test_a_preference_for_neither_label_is_an_error(winner: object) -> None:
    with pytest.raises(JudgeParseError):
        COMPARED.read(PAIR, [Reply(json.dumps({"winner": winner}))])


def test_an_order_becomes_scores_from_one_down_to_zero() -> None:
    task = JudgeTask(PROMPT, ("a", "b", "c"))
    assert RANKED.read(task, [Reply('{"ranking": [3, 1, 2]}')]).scores == (0.5, 0.0, 1.0)


def test_those_that_are_not_among_the_best_share_the_places_left() -> None:
    task = JudgeTask(PROMPT, ("a", "b", "c", "d", "e"), top_n=2)
    # Places 0 and 1 of 0..4 are taken; the mean of 2, 3, 4 is left for the others.
    assert RANKED.read(task, [Reply('{"ranking": [2, 5]}')]).scores == (0.25, 1.0, 0.25, 0.25, 0.75)


@pytest.mark.parametrize("ranking", [[1, 2], [1, 2, 2], [1, 2, 4], [0, 1, 2], "1, 2, 3", [1, 2, 3, 3], None])
def test_what_is_no_order_of_all_responses_is_an_error(ranking: object) -> None:
    with pytest.raises(JudgeParseError):
        RANKED.read(JudgeTask(PROMPT, ("a", "b", "c")), [Reply(json.dumps({"ranking": ranking}))])


def test_each_step_gets_its_score_and_its_reason() -> None:
    text = '{"steps": [{"reasoning": "fine", "score": 5}, {"reasoning": "wrong", "score": 1}]}'
    verdict = STEPWISE.read(STEPS, [Reply(text)])
    assert verdict.scores == (5.0, 1.0)
    assert verdict.reasoning == "fine\nwrong"


@pytest.mark.parametrize(
    "steps",
    [[], [{"score": 5}], [{"score": 5}] * 3, [{"score": 5}, {}], [5, 1], {"1": 5}, [{"score": 5}, {"score": 9}]],
)
def test_another_number_of_step_scores_than_steps_is_an_error(steps: object) -> None:
    with pytest.raises(JudgeParseError):
        STEPWISE.read(STEPS, [Reply(json.dumps({"steps": steps}))])
