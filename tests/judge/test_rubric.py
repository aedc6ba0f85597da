"""What a rubric in plain words says, and what it is refused for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_hub.judge import Rubric


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Score the response from 1-5 based on clarity.", (1, 5)),
        ("Rate it on a scale of 1 to 10.", (1, 10)),
        ("Give a score (0-100).", (0, 100)),
        ("A number between 0 and 1.", (0, 1)),
        ("Use a 1–7 scale.", (1, 7)),
        ("scores range from -2 to 2", (-2, 2)),
        ("from 0.0 to 1.0", (0, 1)),
        ("Was the answer of 2019-2024 kept? Score from 1 to 4.", (1, 4)),
        ("Is it polite?", (1, 5)),
        ("Is it polite? (1-10)", (1, 10)),
        ("Rate from 1 (worst) to 7 (best).", (1, 7)),
        ("a 0-1 score", (0, 1)),
        ("0: wrong\n1: partly right\n2: right", (0, 2)),
        ("Give a score of 0, 1, or 2.", (0, 2)),
        ("Score it 0 or 1.", (0, 1)),
        ("Score between -10 and +10.", (-10, 10)),
        ("Score from \u22121 to 1.", (-1, 1)),
        ("It has between 100 and 200 words.", (1, 5)),
        ("It has between 100 and 200 words. Score from 1-10.", (1, 10)),
    ],
)
def test_the_score_range_is_read_from_the_words(text: str, expected: tuple[float, float]) -> None:
    assert Rubric.parse(text).score_range == expected


def test_two_ranges_need_to_be_said_which() -> None:
    text = "Score from 1-5. Rate style from 0-10."
    with pytest.raises(ValueError, match="0 to 10, 1 to 5"):
        Rubric.parse(text)
    assert Rubric.parse(text, score_range=(0, 10)).score_range == (0, 10)


@pytest.mark.parametrize(
    "text",
    [
        "Score from 1-5 based on:\n- Correctness (weight: 0.5)\n- Helpfulness (weight: 0.3)\n- Tone (weight: 0.2)",
        "Score from 1-5 based on: Correctness (weight: 0.5) Helpfulness (weight: 0.3), and Tone (weight: 0.2).",
        "1. **Correctness**: is it right? (weight: 50%)\n2. Helpfulness [weight=30%]\n* Tone (weight 20 %)",
        "Score the response from 1-5:\n  • Correctness (Weight: 5) - the facts\n  • Helpfulness (weight: 3)\n"
        "  • Tone (weight: 2)\nBe strict.",
        "Score 1 to 5:\n1. Correctness (0.5)\n2. Helpfulness (0.3)\n3. Tone (0.2)",
        "Score 1-5.\nCorrectness (50%)\nHelpfulness (30 %): is it of use?\nTone (20%)",
        "Score 1-5.\n- Correctness: 0.5\n- Helpfulness: 0.3\n- Tone: 0.2",
        "| Criterion | Weight |\n|---|---|\n| Correctness | 0.5 |\n| Helpfulness | 0.3 |\n| Tone | 0.2 |",
        "Score it from 1-5 based on Correctness (weight: 0.5), Helpfulness (weight: 0.3) and Tone (weight: 0.2).",
        "Score 1-5.\na) Correctness (weight: 0.5)\nb) Helpfulness (weight: 0.3)\nc) Tone (weight: 0.2)",
        "Score 1-5.\n(1) Correctness (weight: 5)\n(2) Helpfulness (weight: 3)\n(3) Tone (weight: 2)",
        "| Criterion | What | Weight |\n|:--|---|--:|\n| **Correctness** | the facts | 50% |\n"
        "| Helpfulness | of use | 30% |\n| Tone | polite | 20% |\n| Total | | 100% |",
        "| Weight | Criterion |\n|---|---|\n| 5 | Correctness |\n| 3 | Helpfulness |\n| 2 | Tone |",
        "Score 1-5.\n- Correctness - weight 0.5\n- Helpfulness, weight 30%\n- Tone (weight 20%)",
        "Score 1-5:\n- Correctness\uff08weight\uff1a0.5\uff09\n- Helpfulness (weight: 30\uff05)\n- Tone (weight: 0.2)",
        "- Correctness (weight: 0.5)\n  - the facts\n- Helpfulness (weight: 0.3)\n- Tone (weight: 0.2)\n"
        "Rules:\n- be strict",
    ],
)
def test_criteria_and_their_shares_are_read_from_the_words(text: str) -> None:
    assert Rubric.parse(text).weights == pytest.approx({"Correctness": 0.5, "Helpfulness": 0.3, "Tone": 0.2})


@pytest.mark.parametrize(
    "text",
    [
        "- Correct (1.0)\n- Partly (0.5)\n- Wrong (0.0)\nScore from 0 to 1.",
        "Give more weight to clarity. Is the weight of 5 kg right?",
        "The answer must cut costs by 40% and errors by 60%.",
        "Score from 1.0 to 5.0",
        "The derivative is 0.5 * x and not 0.5 * y, nor 0.5 * z. Score from 1-5.",
        "Score from 0.0 to 1.0 in steps of 0.1.",
    ],
)
def test_numbers_that_are_no_weights_stay_words(text: str) -> None:
    assert Rubric.parse(text).weights == {}


@pytest.mark.parametrize("text", ["x" + " " * 20_000 + "y", "x" + "-" * 20_000, "\n" * 20_000 + "x", "1 " * 10_000])
def test_a_long_run_of_one_character_is_read_at_once(text: str) -> None:
    assert Rubric.parse(text).criteria == {}


@given(st.dictionaries(st.from_regex(r"[A-Z][a-z]{1,9}( [a-z]{2,9})?", fullmatch=True), st.integers(1, 99), min_size=1))
def test_weights_add_up_to_one_in_proportion(weights: dict[str, int]) -> None:
    text = "Score from 1-5:\n" + "\n".join(f"- {name} (weight: {weight})" for name, weight in weights.items())
    shares = Rubric.parse(text).weights
    assert shares == pytest.approx({name: weight / sum(weights.values()) for name, weight in weights.items()})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- Correctness (weight: high)", "cannot be read"),
        ("(weight: 0.5)", "has no criterion"),
        ("- A one (weight: 1)\n- A one (weight: 2)", "second of 'A one'"),
        ("   ", "empty"),
        ("- Correctness (weight: 0.5)\n- Tone", "'Tone' has no weight"),
        ("- Correctness: 60%\n- Tone: 20%", "do not add up to 1"),
        ("Score from 1 to 5: (weight: 0.5) Correctness", "has no criterion"),
        ("Score it out of 10.", "the highest score alone"),
        ("A 10-point scale.", "the highest score alone"),
        ("score = 0.7 * correctness + 0.3 * tone, from 1-5", "'0.7 \\* correctness' cannot be read"),
        ("| Criterion | Weight |\n|---|---|\n| Tone | high |", "'| Tone | high |' cannot be read".replace("|", "\\|")),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Rubric.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "Score in the range [0, 3].",
        "Score from one to ten.",
        "1 = bad, 10 = good",
        "Score 3/2/1.",
        "Scores: 0 (wrong), 1 (fair), 2 (right)",
        "Score from 1~7.",
        "Score from 0 up to 3.",
        "Score from 0% to 100%.",
        "Score: 0-100%",
        "Score it 2 or 3.",
        "A score of zero or one.",
        "Score from 1-5. Rate the style from zero to ten.",
        "An integer between zero and five.",
    ],
)
def test_a_range_in_another_form_is_refused_with_the_rubric_that_says_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be read.*Rubric\(instructions=..., score_range="):
        Rubric.parse(text)
    assert Rubric.parse(text, score_range=(0, 7)).score_range == (0, 7)


@pytest.mark.parametrize(
    "text",
    [
        "Score 1-5.\n- 50% Correctness\n- 30% Helpfulness\n- 20% Tone",
        "Score 1-5.\n- Correctness - weight 0.5\n- Helpfulness, weight 30%\n- Tone (20% weight)",
        "Weights: Correctness 0.5, Helpfulness 0.3, and Tone 0.2. Scale: 1-5",
        "Score 1-5:\n- Correctness\uff08weight\uff1a0.5\uff09\n- Helpfulness\uff0830\uff05 weight\uff09\n"
        "- Tone (weight: 0.2)",
        "Correctness is weighted 0.5, Helpfulness is weighted 0.3 and Tone is weighted 0.2. Score from 1 to 5.",
        "Score from 1.0 to 5.0. 50% for Correctness, 30% for Helpfulness and 20% for Tone.",
        "Score 1-5. Correctness counts for 50%, Helpfulness for 30%, and Tone for 20%.",
        '- "Correctness" (the facts, weight: 0.5)\n- Helpfulness, weight: 0.3\n- Tone (weight: 0.2)',
        "Score 1-5. Tone has a weight of 0.3.",
        "Score 1-5. (w=0.5) Tone, (w=0.5) Truth",
        "Score 1-5. Tone (weight: 0.5, required)",
        "Score 1-5. Judge (weight: 0.5) tone.",
        "Is it polite? (weight: 1)",
        "score = 0.7 * correctness + 0.3 * tone, from 1-5",
    ],
)
def test_weights_in_another_form_are_refused_with_the_rubric_that_says_them(text: str) -> None:
    with pytest.raises(ValueError, match=r"(?:cannot be read|no criterion).*Rubric\(instructions=..., criteria="):
        Rubric.parse(text)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"score_range": (5, 1)}, "a lower and a higher"),
        ({"score_range": (1, float("inf"))}, "a lower and a higher"),
        ({"criteria": {"a": -1}}, "not negative"),
        ({"criteria": {"a": 0}}, "all 0"),
        ({"criteria": {"Tone": 1, "tone ": 1}}, "differ"),
        ({"descriptions": {"b": "?"}, "criteria": {"a": 1}}, "none of the criteria"),
        ({"levels": {7: "great"}}, "outside"),
        ({"score_range": (0.5, 2), "whole": True}, "whole numbers"),
    ],
)
def test_a_rubric_that_makes_no_sense_is_refused(fields: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Rubric(instructions="Judge.", **fields)


@pytest.mark.parametrize(("span", "whole"), [((1, 5), True), ((0, 1), False), ((0.5, 3), False), ((0, 100), True)])
def test_scores_are_whole_where_the_range_is(span: tuple[float, float], whole: bool) -> None:
    assert Rubric(instructions="Judge.", score_range=span).whole is whole


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("Score from 1 to 5.", True),
        ("Score from 1.0 to 5.0.", False),
        ("Score from 0 to 10 in steps of 0.5.", False),
        ("Score from 0 to 10; half points are fine.", False),
        ("Score it 0 or 1.", True),
        ("Score from 0 to 1.", False),
    ],
)
def test_words_say_whether_scores_are_whole(text: str, whole: bool) -> None:
    assert Rubric.parse(text).whole is whole
