"""Verdicts in the words of published judges: the golden texts, the ways judges write a mark, and what is no verdict."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_hub import JudgeParseError, UnknownModelError
from reward_hub.judge import parse_verdict

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "judge-parsers" / "cases.json"
CASES = json.loads(GOLDEN.read_text(encoding="utf-8"))["cases"]


def verdict_of(family: str, text: str, **options: Any) -> Any:
    """None where there is none; the error then holds the reply."""
    try:
        return parse_verdict(family, text, **options)
    except JudgeParseError as error:
        assert error.text == text
        return None


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['family']}: {case['output'][:40]!r}")
def test_a_golden_text_gives_its_verdict(case: dict[str, Any]) -> None:
    # 1e-12: one sigmoid against a quotient of two exponentials.
    found = verdict_of(case["family"], case["output"], token_logprobs=case.get("verdict_token_logprobs"))
    assert found == pytest.approx(case["ours"], abs=1e-12) if isinstance(case["ours"], float) else found == case["ours"]


SAY_4 = (
    *(
        "**[RESULT]** 4",
        "[RESULT]: 4",
        "[result] 4",
        "[RESULT]\n\n4",
        "[SCORE] 4",
        "[RESULT] - 4",
        "[RESULT]4",
        "[RESULT 4]",
    ),
    *(
        "[RESULT: 4]",
        "［RESULT］ ４。",
        "[RESULT]\u200b 4",
        "[RESULT] **4**",
        "_[RESULT] 4_",
        "[RESULT] (4)",
        "[RESULT] [4]",
    ),
    *(
        '[RESULT] "4"',
        "[RESULT] 4.",
        "[RESULT] 4!",
        "[RESULT] 4...",
        "[RESULT] 4)",
        "[RESULT] 4, good",
        "[RESULT] 4 - solid",
    ),
    *(
        "[RESULT] 4/5",
        "[RESULT] 4 / 5",
        "[RESULT] (4/5)",
        "[RESULT] **4**/5",
        "[RESULT] 4 out of 5",
        "[RESULT] 4 out of five",
    ),
    *(
        "[RESULT] 4.0",
        "[RESULT] 04",
        "[RESULT] +4",
        "[RESULT] 4 stars",
        "[RESULT] $\\boxed{4}$",
        "[RESULT] 4\n\n5 remarks",
    ),
    *(
        "[RESULT] score of 4",
        "[RESULT] Score: 4",
        "[Result] Result: 4",
        "Score: 4",
        "**Score:** 4",
        "Final score: **4**/5",
    ),
    *(
        "(Score 4)",
        "[Score 4]",
        "score of 4",
        "4 [RESULT] 4",
        "[RESULT] 4 [RESULT] 4",
        "A score of 3 asks for more. [RESULT] 4",
    ),
    *(
        "Score 1: bad\nScore 5: good\n[RESULT] 4",
        "(write a feedback) [RESULT] (an integer between 1 and 5). [RESULT] 4",
    ),
    *("<think>[RESULT] 1</think>[RESULT] 4", "[RESULT] 1</think>[RESULT] 4", "[RESULT] 4 <think>hm</think>"),
)
SAY_NO_SCORE = (
    *(
        "[RESULT] 4.5",
        "[RESULT] 4,5",
        "[RESULT] 45",
        "[RESULT] 10",
        "[RESULT] 0",
        "[RESULT] 6",
        "[RESULT] -3",
        "[RESULT]",
    ),
    *("[RESULT] 4/10", "[RESULT] 4 out of 10", "[RESULT] 4%", "[RESULT] 4-5", "[RESULT] 4 or 5", "[RESULT] 3 to 4"),
    *("[RESULT] 4th", "[RESULT] 4+", "[RESULT] 1e1", "[RESULT] four", "[RESULT] 4 5", "[RESULT] N/A", "Score: 2.5", ""),
    *("[RESULT] 4 [RESULT] 3", "Score: 4. Score: 5", "[RESULT] 7 [RESULT] 4", "[RESULT] 4.5, a score of 4"),
    *(
        "Score 3: fair",
        "<think>[RESULT] 4",
        "<think>[RESULT] 4</think>",
        "The score is definitely not 3.",
        "A perfect 10!",
        "4",
    ),
)
SAY_B = (
    *(
        "**[RESULT]** B",
        "[RESULT]: B",
        "[result] B",
        "[RESULT]\nB",
        "[RESULT]B",
        "[RESULT: B]",
        "Result: B",
        "**Result:** B",
    ),
    *(
        "[Response B]",
        "Ｒesult： Ｂ",
        "Overall Result: B",
        "_[RESULT] B_",
        "[RESULT] (B)",
        "[RESULT] **B**",
        "[RESULT] 'B'",
    ),
    *("[RESULT] B.", "[RESULT] b", "[RESULT] b.", "[RESULT] Response B", "[RESULT] Assistant B", "[RESULT] B, by far"),
    *("[RESULT] The better response is B", "[RESULT] Response B is better than Response A", "[RESULT] B\nA errs"),
    *("[RESULT] B [RESULT] Response B", "[Response A] is weak. [RESULT] B", "[RESULT] A</think>[RESULT] B"),
)
SAY_NO_LETTER = (
    *(
        "[RESULT] A or B",
        "[RESULT] (A or B)",
        "[RESULT] A and B are equal",
        "[RESULT] A/B",
        "[RESULT] A B",
        "[RESULT] AB",
    ),
    *(
        "[RESULT] a tie",
        "[RESULT] A tie",
        "[RESULT] Tie",
        "[RESULT] Neither",
        "[RESULT] C",
        "[RESULT] 4",
        "[RESULT] not A",
    ),
    *(
        "[RESULT] A is worse",
        "[RESULT] A isn't better",
        "[RESULT] A [RESULT] B",
        "<think>[RESULT] A",
        "I select B.",
        "",
    ),
)
SAY_A_IN_BRACKETS = (
    *("[[A]]", "[[a]]", "[[ A ]]", "**[[A]]**", "[[**A**]]", "_[[A]]_", "[[Assistant A]]", "[[A]].", "\\[\\[A\\]\\]"),
    *("［［Ａ］］", "[[A]] yes, [[A]]", "see [[1]]: [[A]]", "[[B]]</think>[[A]]"),
)
SAY_NO_BRACKETS = (
    *("[A]", "A", "[[A/B]]", "[[AB]]", "[[A]] [[B]]", "[[A]] or [[C]]", "[[C]]", "[[Tie]]", "<think>[[A]]", "[[1]]"),
)
SAY_B_IN_BOLD = (
    *(
        "**Result:** B",
        "**Result**: B",
        "**Result: B**",
        "**RESULT:** **b**",
        "**Result:** Response B",
        "**Result:**\nB.",
    ),
)
SAY_NO_BOLD = (
    *(
        "Result: B",
        "### Result: B",
        "**Result:** A or B",
        "**Result:** C",
        "**Result:** 4",
        "**Result:** A\n**Result:** B",
    ),
)
OTHERS = [
    ("selene-absolute", "**Reasoning:** x\n\n**Result:** 4/5", 4),
    ("selene-absolute", "**Result:** 4.5", None),
    ("selene-classification", "**Result:** yes.", "Yes"),
    ("selene-classification", "**Result:** Yes or No", None),
    ("rm-r1", "<eval>A errs</eval>\n<answer>[[B]]</answer>", "B"),
    ("rm-r1", "<answer> **B** </answer>", "B"),
    ("rm-r1", "<answer>[[A]]</answer>, not [[B]]", None),
    ("rm-r1-distilled", "[[A]] maybe </think> <answer>[[B]]</answer>", "B"),
    ("compass-judger", 'Both are fine.\n```json\n{\n  "Choice": "Model A"\n}\n```', "A"),
    ("compass-judger", '{"choice": "[Model B]"}', "B"),
    ("compass-judger", '{"Choice": "[Model A or Model B]"}', None),
    ("compass-judger", '{"Choice": "Model A"} {"Choice": "Model B"}', None),
    ("compass-judger-1", " Assistant B.\n", "B"),
    ("compass-judger-1", "A is better", None),
    ("genprm", "$\\boxed{\\text{Yes}}$", 1.0),
    ("genprm", "so \\boxed{4}, **Judgement**: $\\boxed{ no. }$", 0.0),
    ("genprm", "\\boxed{Yes} \\boxed{No}", None),
    ("genprm", "{Yes}$\n", 1.0),
    ("genprm", "a set {Yes}", None),
    *(("genprm", f"\\boxed{{\\{command}{{No}}}}", 0.0) for command in ("textit", "texttt", "mathsf", "textrm", "mbox")),
    ("genprm", "\\boxed{Yes or No}", None),
    # Words about the choice are no second verdict.
    ("selene-atla", 'I write "**Result:** <A or B>".\n\n**Result:** B', "B"),
    ("compass-judger", 'Choice: a close call.\n{"Choice": "[Model A or Model B]"}\n{"Choice": "Model B"}', "B"),
    ("selene-atla", "**Result:** A > B", "A"),
    ("selene-atla", "**Result:** A < B", None),
    ("selene-atla", "**Result:** A has no errors", "A"),
    ("selene-atla", "**Result:** B is never wrong", "B"),
    ("selene-atla", "**Result:** A_B", None),
    ("prometheus-relative", "(feedback) [RESULT] (A or B). [RESULT] A", "A"),
    ("prometheus-relative", "[RESULT] -> A", "A"),
    ("prometheus-relative", "【RESULT】A", "A"),
    # The scale may stand behind words and brackets.
    *(("prometheus-absolute", f"[RESULT] 4 {scale}", 4) for scale in ("(out of 5)", "points of 5", "(a scale of 1-5)")),
    *(
        ("prometheus-absolute", f"[RESULT] 4 {scale}", None)
        for scale in ("(out of 10)", "stars out of 10", "on a scale of 1 to 10", "[/7]", "out of a possible 20")
    ),
    ("prometheus-absolute", "[RESULT] ½", None),
    ("prometheus-absolute", "[RESULT]\u200e => 4\u00ad", 4),
    ("bracket-verdict", "<seed:think>[[B]]</seed:think>[[A]]", "A"),
    # A mere mention is a verdict at the end of the reply alone.
    ("prometheus-absolute", "A score of 5 would be too much, so a score of **4**.", 4),
    ("prometheus-absolute", "[RESULT] The response deserves a score of 4 (out of 5)", 4),
    ("prometheus-absolute", "A score of 5 would need examples. I cannot decide.", None),
    ("prometheus-absolute", "As a result 2 of the facts are wrong.", None),
    ("prometheus-absolute", "Both teams score 3 goals in the story.", None),
    ("prometheus-absolute", "[RESULT] none. A score of 4 would need more.", None),
    ("prometheus-relative", "The better one is [Response B].", "B"),
    ("prometheus-relative", "[Response A] is too short to tell.", None),
    ("prometheus-relative", "[RESULT] neither; [Response A] is weak", None),
    ("thinkprm", "Step 1 is fine.</think>\nIs the solution correct? **Yes**", 1.0),
    ("thinkprm", "Is the solution correct? Yes or no?", None),
    (
        "thinkprm-steps",
        "Step 1: ok \\boxed{correct}\n**Step 2**: no, \\boxed{incorrect}. So \\boxed{incorrect}",
        (1.0, 0.0),
    ),
    ("thinkprm-steps", "\\boxed{correct} then \\boxed{incorrect}", (1.0, 0.0)),
    ("thinkprm-steps", "Step 2: \\boxed{correct}", None),
    ("thinkprm-steps", "Step 1: \\boxed{correct}\nStep 1 again: \\boxed{incorrect}", None),
]
VARIANTS: list[tuple[str, str, Any]] = [
    *(("prometheus-absolute", text, 4) for text in SAY_4),
    *(("prometheus-absolute", text, None) for text in SAY_NO_SCORE),
    *(("prometheus-relative", text, "B") for text in SAY_B),
    *(("prometheus-relative", text, None) for text in SAY_NO_LETTER),
    *(("bracket-verdict", text, "A") for text in SAY_A_IN_BRACKETS),
    *(("bracket-verdict", text, None) for text in SAY_NO_BRACKETS),
    *(("selene-atla", f"**Reasoning:** A is short.\n\n{text}", "B") for text in SAY_B_IN_BOLD),
    *(("selene-atla", text, None) for text in SAY_NO_BOLD),
    *OTHERS,
]


@pytest.mark.parametrize(("family", "text", "verdict"), VARIANTS)
def test_a_verdict_is_read_through_its_decoration_and_nothing_else_is(family: str, text: str, verdict: Any) -> None:
    assert verdict_of(family, text) == verdict


# Properties

MARKED = {
    "prometheus-absolute": ("[RESULT] {}", ("1", "2", "3", "4", "5")),
    "prometheus-relative": ("[RESULT] {}", ("A", "B")),
    "bracket-verdict": ("[[{}]]", ("A", "B")),
    "selene-atla": ("**Result:** {}", ("A", "B")),
    "genprm": ("\\boxed{{{}}}", ("Yes", "No")),
}
MEANING: dict[str, Any] = {"Yes": 1.0, "No": 0.0, "A": "A", "B": "B"} | {str(n): n for n in range(1, 6)}
# Words of feedback without a mark, the letters and numbers of verdicts among them.
TALK = st.lists(
    st.sampled_from(
        [
            "The answer",
            "is",
            "clear",
            "A",
            "B",
            "3",
            "5",
            "and",
            "better,",
            "Response",
            "yes.",
            "(no)",
            "a",
            "\n",
            "**well**",
        ]
    ),
    max_size=12,
).map(" ".join)
AROUND = st.sampled_from(["{}", "**{}**", "({})", " {}", "_{}_", "\n{}\n", "`{}`"])
TAIL = st.sampled_from(["", ".", "!", "\n", "\n\nThat is all.", " ", "。"])
FAMILIES = st.sampled_from(sorted(MARKED))
fixed = settings(max_examples=150)


@fixed
@given(family=FAMILIES, talk=TALK)
def test_talk_without_a_mark_is_no_verdict(family: str, talk: str) -> None:
    assert verdict_of(family, talk) is None


@fixed
@given(family=FAMILIES, data=st.data(), talk=TALK, around=AROUND, tail=TAIL, thought=TALK)
def test_a_planted_verdict_is_found(
    family: str, data: st.DataObject, talk: str, around: str, tail: str, thought: str
) -> None:
    mark, values = MARKED[family]
    value = data.draw(st.sampled_from(values))
    text = f"<think>{thought}</think>{talk}\n{around.format(mark.format(value))}{tail}"
    assert verdict_of(family, text) == MEANING[value]


@fixed
@given(family=FAMILIES, data=st.data(), talk=TALK)
def test_two_verdicts_that_differ_are_none(family: str, data: st.DataObject, talk: str) -> None:
    mark, values = MARKED[family]
    first, second = data.draw(st.lists(st.sampled_from(values), min_size=2, max_size=2, unique=True))
    assert verdict_of(family, f"{mark.format(first)}\n{talk}\n{mark.format(second)}") is None


TALKED_ABOUT = (
    "{} would be perfect, but this is not",
    "{} if it were complete",
    "{}, had it been complete",
    "{} might be too much",
    "{} seems right at first",
    "{} unless it is wrong",
)


@pytest.mark.parametrize("talk", TALKED_ABOUT)
@pytest.mark.parametrize("family", ["prometheus-absolute", "prometheus-relative", "selene-atla"])
def test_a_verdict_that_is_only_talked_about_is_none(family: str, talk: str) -> None:
    mark, values = MARKED[family]
    for value in values:
        assert verdict_of(family, talk.format(mark.format(value))) is None
        assert verdict_of(family, f"{mark.format(value)}\n\nIt would be better if it were complete.") == MEANING[value]


@fixed
@given(family=FAMILIES, text=st.text(max_size=40))
def test_any_text_gives_a_verdict_of_the_family_or_an_error(family: str, text: str) -> None:
    assert verdict_of(family, text) in {None, *(MEANING[value] for value in MARKED[family][1])}


# Log-probabilities


@pytest.mark.parametrize(
    ("text", "logprobs", "probability"),
    [
        (
            "\\boxed{Yes}",
            {"Yes": -0.5, "No": -1.5, "others": [-9.0]},
            math.exp(-0.5) / (math.exp(-0.5) + math.exp(-1.5)),
        ),
        (
            "\\boxed{No}",
            {"Yes": None, "No": -0.1, "others": [-4.0, -7.0]},
            math.exp(-7) / (math.exp(-7) + math.exp(-0.1)),
        ),
        ("\\boxed{No}", {"No": -0.1, "others": [-4.0]}, math.exp(-4) / (math.exp(-4) + math.exp(-0.1))),
        ("\\boxed{No}", {"Yes": -math.inf, "No": -0.1, "others": []}, 0.0),
        ("\\boxed{Yes}", {"Yes": -0.1, "No": None, "others": []}, 1.0),
        ("\\boxed{No}", {"Yes": None, "No": None, "others": [-1.0]}, 0.0),
        ("\\boxed{Yes}", {}, 1.0),
        ("\\boxed{Yes}", {"Yes": np.float32(0.0), "No": None, "others": np.array([-4.0])}, 1 / (1 + math.exp(-4.0))),
        ("\\boxed{Yes}", {"Yes": -0.1, "No": None, "others": [-4.0, None]}, 1 / (1 + math.exp(-3.9))),
    ],
)
def test_the_probability_is_that_of_yes_among_yes_and_no(
    text: str, logprobs: dict[str, Any], probability: float
) -> None:
    assert parse_verdict("genprm", text, token_logprobs=logprobs) == pytest.approx(probability, abs=1e-12)


@pytest.mark.parametrize(
    ("family", "logprobs"),
    [
        ("genprm", {"yes": -0.1}),
        ("genprm", {"Yes": math.nan, "No": -1.0}),
        ("genprm", {"Yes": 0.9, "No": 0.1}),
        ("genprm", {"Yes": "-0.1", "No": -1.0}),
        ("genprm", {"Yes": -0.1, "No": None, "others": -6.0}),
        ("genprm", [-0.1, -1.0]),
        ("bracket-verdict", {"Yes": -0.1, "No": -2.0}),
    ],
)
def test_log_probabilities_that_mean_nothing_are_a_type_error(family: str, logprobs: Any) -> None:
    with pytest.raises(TypeError, match="token_logprobs"):
        parse_verdict(family, "[[A]] \\boxed{Yes}", token_logprobs=logprobs)


def test_a_reply_that_is_no_text_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="text is NoneType"):
        parse_verdict("prometheus-absolute", None)  # type: ignore[arg-type]


def test_an_unknown_family_names_the_known() -> None:
    with pytest.raises(UnknownModelError, match="prometheus-absolute") as caught:
        parse_verdict("prometeus-absolute", "[RESULT] 4")
    assert "prometheus-absolute" in caught.value.near
