"""Every mode over an endpoint: what is asked, and what the replies make of score, details and ranking."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from judge_server import Answer, Asked, JudgeOn, completion, in_turn, says, verdict

from reward_hub import BaseRM, JudgeParseError, LLMJudge, UnsupportedError
from reward_hub.errors import InvalidConversationError
from reward_hub.judge import JudgeForm, Rubric
from reward_hub.judge.form import Verdict

README_RUBRIC = """
    Score the response from 1-5 based on:
    - Correctness (weight: 0.5)
    - Clarity (weight: 0.3)
    - Completeness (weight: 0.2)
    """
SCORES = {"Correctness": 5, "Clarity": 3, "Completeness": 1}


def prefers(text: str):
    """A judge that prefers the response which holds a text, whichever place it stands at."""

    def script(asked: Asked) -> Answer:
        a, b = (_part(asked.text, f"RESPONSE {name}") for name in "AB")
        winner = "tie" if (text in a) == (text in b) else "A" if text in a else "B"
        return completion(json.dumps({"reasoning": "seen", "winner": winner}))

    return script


def _part(text: str, name: str) -> str:
    return re.search(rf"<<<{name} (\w+)>>>\n(.*?)\n<<<END {name} \1>>>", text, re.DOTALL)[2]


def longest_first(asked: Asked) -> Answer:
    """A listwise judge that orders by length."""
    n = len(set(re.findall(r"<<<RESPONSE (\d+) ", asked.text)))
    lengths = {i: len(_part(asked.text, f"RESPONSE {i}")) for i in range(1, n + 1)}
    order = sorted(lengths, key=lambda i: -lengths[i])
    named = re.search(r"Name the best (\d+) only", asked.text)
    return completion(json.dumps({"reasoning": "by length", "ranking": order[: int(named[1])] if named else order}))


# -- pointwise ---------------------------------------------------------------------------------------------------


def test_the_rubric_of_the_readme_gives_a_score_per_criterion_combined_here(judge_on: JudgeOn) -> None:
    judge, server = judge_on(verdict(SCORES), rubric=README_RUBRIC)
    score, details = judge.score(prompt="Explain gravity", response="It falls.", return_details=True)
    assert score == pytest.approx(0.5 * 5 + 0.3 * 3 + 0.2 * 1)
    assert details["attributes"] == SCORES
    assert details["normalized_score"] == pytest.approx((score - 1) / 4)
    assert details["reasoning"] == "because"
    assert details["usage"] == {"calls": 1, "prompt_tokens": 100, "completion_tokens": 20}
    assert details["tokens_scored"] == 100
    assert json.loads(json.dumps(details)) == details
    (asked,) = server.asked
    assert README_RUBRIC.strip() in asked.text
    scores = asked.body["response_format"]["json_schema"]["schema"]["properties"]["scores"]
    assert scores["required"] == list(SCORES)
    assert scores["properties"]["Clarity"] == {"type": "integer", "enum": [1, 2, 3, 4, 5]}


def test_a_judge_is_a_reward_model_in_every_call(judge_on: JudgeOn) -> None:
    def by_length(asked: Asked) -> Answer:
        return completion(json.dumps({"score": min(5, len(_part(asked.text, "RESPONSE")))}))

    judge, _ = judge_on(by_length)
    assert isinstance(judge, BaseRM)
    conversations = [
        [{"role": "user", "content": "q"}, {"role": "assistant", "content": "x" * n}] for n in (3, 1, 9, 2)
    ]
    assert judge.score(conversations) == [3, 1, 5, 2]
    assert judge.score_batch(conversations) == [3, 1, 5, 2]
    assert list(judge.score_iter(iter(conversations), window=2)) == [3, 1, 5, 2]
    assert asyncio.run(judge.ascore_batch(conversations)) == [3, 1, 5, 2]
    assert asyncio.run(judge.ascore(conversations[2])) == 5
    assert judge.rank(prompt="q", responses=["x", "xxxx", "xx"]) == [1, 2, 0]
    assert judge.best_of_n(prompt="q", responses=["x", "xxxx", "xx"]) == 1
    assert asyncio.run(judge.arank(prompt="q", responses=["x", "xxxx", "xx"], top_n=2)) == [1, 2]
    # The sigmoid of 4 - 2.
    assert judge.compare(prompt="q", a="xxxx", b="xx") == pytest.approx(0.8807970779778823)
    assert asyncio.run(judge.acompare(prompt="q", a="xxxx", b="xx")) == pytest.approx(0.8807970779778823)
    with pytest.raises(UnsupportedError, match="no step scores"):
        judge.score_steps(prompt="q", response="x")


@pytest.mark.parametrize("call", ["compare", "rank"])
def test_responses_that_are_scored_each_on_its_own_tell_what_all_of_them_used(judge_on: JudgeOn, call: str) -> None:
    def by_length(asked: Asked) -> Answer:
        score = len(_part(asked.text, "RESPONSE"))
        return completion(json.dumps({"reasoning": f"{score} letters", "score": score}))

    judge, server = judge_on(by_length, prices=(1.0, 10.0))
    responses = {"compare": {"a": "xxx", "b": "x"}, "rank": {"responses": ["xxx", "x"]}}[call]
    _, details = getattr(judge, call)(prompt="q", return_details=True, **responses)
    assert len(server.asked) == 2
    cost = pytest.approx(2 * (100 * 1.0 + 20 * 10.0) / 1e6)
    assert details["usage"] == {"calls": 2, "prompt_tokens": 200, "completion_tokens": 40, "cost": cost}
    assert [(sample["response"], sample["score"]) for sample in details["samples"]] == [(0, 3.0), (1, 1.0)]
    assert details["reasoning"] == "3 letters\n\n1 letters"
    assert details["scores"] == [3.0, 1.0]


def test_fractions_are_judged_on_a_range_without_steps(judge_on: JudgeOn) -> None:
    judge, server = judge_on(verdict(0.75), rubric="How likely is it right? A number between 0 and 1.")
    score, details = judge.score(prompt="q", response="r", return_details=True)
    assert (score, details["normalized_score"]) == (0.75, 0.75)
    schema = server.asked[0].body["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["score"] == {"type": "number", "minimum": 0.0, "maximum": 1.0}


def test_a_structured_rubric_is_shown_with_its_descriptions_and_levels(judge_on: JudgeOn) -> None:
    rubric = Rubric(
        instructions="Judge the tone.",
        score_range=(0, 10),
        criteria={"Warmth": 1, "Calm": 1},
        descriptions={"Warmth": "kind to the reader"},
        levels={0: "rude", 10: "lovely"},
    )
    judge, server = judge_on(verdict({"Warmth": 10, "Calm": 0}), rubric=rubric)
    assert judge.score(prompt="q", response="r") == 5.0
    for words in ("Judge the tone.", "- Warmth: kind to the reader", "- 0: rude", "from 0 (worst) to 10 (best)"):
        assert words in server.asked[0].text


# -- reference answers ---------------------------------------------------------------------------------------------


def test_a_reference_answer_comes_with_a_message_or_with_the_judge(judge_on: JudgeOn) -> None:
    judge, server = judge_on(verdict(3))
    known = judge.with_reference("gravity is g")
    messages = [{"role": "user", "content": "q", "reference": "its own"}, {"role": "assistant", "content": "r"}]
    judge.score(messages)
    known.score(messages)
    known.score(prompt="q", response="r")
    judge.score(prompt="q", response="r")
    shown = ["REFERENCE ANSWER" in asked.text and _part(asked.text, "REFERENCE ANSWER") for asked in server.asked]
    assert shown == ["its own", "its own", "gravity is g", False]
    assert known.fingerprint != judge.fingerprint
    assert known.usage.calls == judge.usage.calls == 4


def test_each_conversation_of_a_batch_brings_its_own_reference(judge_on: JudgeOn) -> None:
    def as_the_reference_says(asked: Asked) -> Answer:
        return completion(json.dumps({"score": int(_part(asked.text, "REFERENCE ANSWER"))}))

    judge, _ = judge_on(as_the_reference_says)
    batch = [
        [{"role": "user", "content": "q", "reference": str(n)}, {"role": "assistant", "content": "r"}]
        for n in (4, 1, 5)
    ]
    assert judge.score_batch(batch) == [4, 1, 5]
    with pytest.raises(InvalidConversationError, match="reference is int"):
        judge.score([{"role": "user", "content": "q", "reference": 4}, {"role": "assistant", "content": "r"}])


# -- pairwise ------------------------------------------------------------------------------------------------------


def test_a_pair_is_judged_in_both_orders(judge_on: JudgeOn) -> None:
    judge, server = judge_on(prefers("good"), mode="pairwise")
    p, details = judge.compare(prompt="q", a="bad", b="good", return_details=True)
    assert p == 0.0
    assert details["orders"] == [0.0, 0.0]
    assert details["agreement"] is True
    assert details["position_bias"] == 0.0
    assert [sample["order"] for sample in details["samples"]] == ["given", "reversed"]
    shown = sorted(_part(asked.text, "RESPONSE A") for asked in server.asked)
    assert shown == ["bad", "good"]
    with pytest.raises(UnsupportedError, match="compare"):
        judge.score(prompt="q", response="r")


def test_a_judge_that_always_takes_the_first_gives_a_tie_and_is_told_of(judge_on: JudgeOn) -> None:
    judge, _ = judge_on(says('{"winner": "A"}'), mode="pairwise")
    p, details = judge.compare(prompt="q", a="x", b="y", return_details=True)
    assert p == 0.5
    assert (details["agreement"], details["position_bias"], details["orders"]) == (False, 0.5, [1.0, 0.0])
    assert judge.position_bias.to_dict() == {"pairs": 1, "agreement": 0.0, "bias": 0.5}


def test_one_order_is_asked_where_that_is_said_and_both_where_the_call_says_so(judge_on: JudgeOn) -> None:
    judge, server = judge_on(says('{"winner": "A"}'), mode="pairwise", both_orders=False)
    assert judge.compare(prompt="q", a="x", b="y") == 1.0
    assert len(server.asked) == 1
    assert judge.compare(prompt="q", a="x", b="y", both_orders=True) == 0.5
    assert len(server.asked) == 3


def test_a_judge_that_always_answers_a_is_warned_of_once(judge_on: JudgeOn, caplog: pytest.LogCaptureFixture) -> None:
    pairs = [{"prompt": "q", "a": f"answer {i}", "b": "another"} for i in range(15)]
    judge, _ = judge_on(says('{"winner": "A"}'), mode="pairwise")
    with caplog.at_level("WARNING", logger="reward_hub"):
        assert {judge.compare(**pair) for pair in pairs} == {0.5}
    (record,) = caplog.records
    assert "prefers the response that stands first: over 10 pairs" in record.getMessage()
    assert judge.position_bias.bias == 0.5
    caplog.clear()
    judge, _ = judge_on(says('{"winner": "tie"}'), mode="pairwise")
    with caplog.at_level("WARNING", logger="reward_hub"):
        assert {judge.compare(**pair) for pair in pairs} == {0.5}
    assert caplog.records == []


def test_the_position_bias_adds_up_over_pairs(judge_on: JudgeOn) -> None:
    judge, _ = judge_on(prefers("good"), mode="pairwise")
    for a, b in (("good", "bad"), ("bad", "good"), ("x", "y")):
        judge.compare(prompt="q", a=a, b=b)
    assert judge.position_bias.to_dict() == {"pairs": 3, "agreement": 1.0, "bias": 0.0}


def test_criteria_of_a_pair_are_combined_by_their_weights(judge_on: JudgeOn) -> None:
    script = says('{"winners": {"Correctness": "A", "Tone": "B"}}')
    rubric = "- Correctness (weight: 3)\n- Tone (weight: 1)"
    judge, _ = judge_on(script, mode="pairwise", both_orders=False, rubric=rubric)
    p, details = judge.compare(prompt="q", a="x", b="y", return_details=True)
    assert p == 0.75
    assert details["attributes"] == {"Correctness": 1.0, "Tone": 0.0}


def test_responses_are_ranked_by_comparing_all_pairs(judge_on: JudgeOn) -> None:
    def longer(asked: Asked) -> Answer:
        a, b = (len(_part(asked.text, f"RESPONSE {name}")) for name in "AB")
        return completion(json.dumps({"winner": "A" if a > b else "B"}))

    judge, server = judge_on(longer, mode="pairwise")
    ranking, details = judge.rank(prompt="q", responses=["xx", "x", "xxxx", "xxx"], return_details=True)
    assert ranking == [2, 3, 0, 1]
    assert details["scores"] == pytest.approx([1 / 3, 0, 1, 2 / 3])
    assert details["comparisons"] == 6
    assert details["usage"]["calls"] == len(server.asked) == 12
    assert judge.rank(prompt="q", responses=["same", "same"]) == [0, 1]
    assert len(server.asked) == 12
    assert asyncio.run(judge.arank(prompt="q", responses=["x", "xx"])) == [1, 0]


# -- listwise ------------------------------------------------------------------------------------------------------


def test_a_list_is_ranked_in_both_orders_with_one_call_each(judge_on: JudgeOn) -> None:
    judge, server = judge_on(longest_first, mode="listwise")
    ranking, details = judge.rank(prompt="q", responses=["xx", "x", "xxxx"], return_details=True)
    assert ranking == [2, 0, 1]
    assert details["scores"] == [0.5, 0.0, 1.0]
    assert len(server.asked) == 2
    assert {_part(asked.text, "RESPONSE 1") for asked in server.asked} == {"xx", "xxxx"}


def test_a_listwise_judge_that_always_takes_the_first_ranks_all_alike(judge_on: JudgeOn) -> None:
    judge, _ = judge_on(says('{"ranking": [1, 2, 3]}'), mode="listwise")
    ranking, details = judge.rank(prompt="q", responses=["a", "b", "c"], return_details=True)
    assert (ranking, details["scores"]) == ([0, 1, 2], [0.5, 0.5, 0.5])


def test_only_the_best_are_asked_for(judge_on: JudgeOn) -> None:
    judge, server = judge_on(longest_first, mode="listwise")
    assert judge.rank(prompt="q", responses=["xx", "x", "xxxx", "xxx"], top_n=2) == [2, 3]
    schema = server.asked[0].body["response_format"]["json_schema"]["schema"]["properties"]["ranking"]
    assert (schema["minItems"], schema["maxItems"]) == (2, 2)
    with pytest.raises(TypeError, match="top_n=0"):
        judge.rank(prompt="q", responses=["a", "b"], top_n=0)


def test_a_listwise_judge_compares_two(judge_on: JudgeOn) -> None:
    judge, _ = judge_on(longest_first, mode="listwise")
    assert judge.compare(prompt="q", a="xxx", b="x") == 1.0
    judge, _ = judge_on(says('{"ranking": [2, 1]}'), mode="listwise")
    assert judge.compare(prompt="q", a="xxx", b="x") == 0.5


# -- stepwise ------------------------------------------------------------------------------------------------------


def step_scores(*scores: int):
    return says(json.dumps({"steps": [{"reasoning": f"step of {score}", "score": score} for score in scores]}))


def test_each_step_is_judged_and_the_score_aggregates_them(judge_on: JudgeOn) -> None:
    judge, server = judge_on(step_scores(5, 2, 4), mode="stepwise")
    response = "one\n\ntwo\n\nthree"
    steps, details = judge.score_steps(prompt="q", response=response, return_details=True)
    assert steps == [5.0, 2.0, 4.0]
    assert [response[start:end] for start, end in details["step_spans"]] == ["one", "two", "three"]
    assert judge.score(prompt="q", response=response) == 2.0
    assert judge.score(prompt="q", response=response, aggregation="mean") == pytest.approx(11 / 3)
    assert judge.kind == "process"
    assert [_part(server.asked[0].text, f"STEP {i}") for i in (1, 2, 3)] == ["one", "two", "three"]
    schema = server.asked[0].body["response_format"]["json_schema"]["schema"]["properties"]["steps"]
    assert (schema["minItems"], schema["maxItems"]) == (3, 3)


def test_another_number_of_scores_than_steps_is_an_error(judge_on: JudgeOn) -> None:
    judge, _ = judge_on(step_scores(5, 2), mode="stepwise", parse_retries=1)
    with pytest.raises(JudgeParseError, match=r"2 steps are scored, the response has 3.*2 replies"):
        judge.score_steps(messages=[{"role": "user", "content": "q"}], steps=["one", "", "three"])


def test_the_aggregation_is_an_argument_of_stepwise_judges_alone(judge_on: JudgeOn) -> None:
    judge, _ = judge_on(step_scores(5, 2), mode="stepwise", aggregation="mean")
    assert judge.score(prompt="q", response="a\n\nb") == 3.5
    with pytest.raises(TypeError, match="stepwise"):
        judge_on(verdict(3), aggregation="mean")


# -- forms of others -----------------------------------------------------------------------------------------------


def test_a_form_may_take_several_replies_and_continue_its_own_words(judge_on: JudgeOn) -> None:
    form = JudgeForm(
        name="one-by-one",
        mode="stepwise",
        source="tests",
        request=lambda task, replies: [
            {"role": "user", "content": task.steps[len(replies)]},
            {"role": "assistant", "content": "Verdict: "},
        ],
        read=lambda task, replies: Verdict(tuple(float(reply.text) for reply in replies)),
        n_replies=lambda task: len(task.steps or ()),
        stop=("\n",),
        max_tokens=7,
    )
    judge, server = judge_on(in_turn(says("1"), says("0")), form=form)
    assert judge.score_steps(prompt="q", response="first\n\nsecond") == [1.0, 0.0]
    assert [asked.body["messages"][0]["content"] for asked in server.asked] == ["first", "second"]
    body = server.asked[0].body
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
    assert (body["stop"], body["max_tokens"]) == (["\n"], 7)
    assert "response_format" not in body


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "give rubric="),
        ({"rubric": 5}, "rubric is int"),
        ({"rubric": "from 1-5", "temperature": float("nan")}, "temperature=nan"),
        ({"rubric": "from 1-5", "n_samples": 3}, "temperature 0"),
        ({"rubric": "from 1-5", "reduce": "max"}, "known: 'mean'"),
        ({"rubric": "from 1-5", "budget": 1.0}, "prices="),
        ({"rubric": "from 1-5", "structured": "yes"}, "structured='yes'"),
        ({"rubric": "from 1-5", "load_method": "transformers"}, "'api', 'openai', 'vllm'"),
        ({"rubric": "from 1-5", "engine_options": {}}, "engine_options"),
        ({"rubric": "from 1-5", "load_method": "vllm", "api_base": "http://x"}, "api_base"),
        ({"rubric": "from 1-5", "load_method": "vllm", "timeout_s": 5}, "timeout_s"),
        ({"rubric": "from 1-5", "timeout_s": 0}, "timeout_s=0"),
        ({"rubric": "from 1-5", "max_retries": -1}, "max_retries=-1"),
        ({"rubric": "from 1-5", "max_concurrency": 0}, "max_concurrency=0"),
        ({"rubric": "from 1-5", "deadline_s": 0}, "deadline_s=0"),
        ({"form": "prometheus-absolute", "mode": "pairwise"}, "is pointwise"),
        ({"form": "prometheus-absolute", "use_logprobs": True}, "use_logprobs is for rubrics"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(arguments: dict, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        LLMJudge("judge", **arguments)


def test_log_probabilities_need_verdicts_of_a_few_characters() -> None:
    with pytest.raises(UnsupportedError, match="not an order"):
        LLMJudge("judge", rubric="from 1-5", mode="listwise", use_logprobs=True)
    with pytest.raises(UnsupportedError, match="not a number from 0"):
        LLMJudge("judge", rubric="between 0 and 1", use_logprobs=True)


def test_the_tool_calls_of_a_response_are_judged(judge_on: JudgeOn) -> None:
    judge, server = judge_on(verdict(4))
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
    judge.score([{"role": "user", "content": "Weather?"}, {"role": "assistant", "content": None, "tool_calls": [call]}])
    asked = server.asked[0].body["messages"][-1]["content"]
    assert json.dumps([call]) in asked.partition("<<<RESPONSE")[2].rpartition("<<<END RESPONSE")[0]


def test_a_mode_that_there_is_not_is_refused() -> None:
    with pytest.raises(TypeError, match="mode='listing'; known: 'pointwise'"):
        LLMJudge("judge", rubric="Judge.", mode="listing")  # type: ignore[arg-type]


def test_what_a_judge_is_not_shown_is_listed_and_said_once(judge_on: JudgeOn, caplog) -> None:
    judge, server = judge_on(verdict(SCORES), rubric=README_RUBRIC)
    thinking = [
        {"role": "user", "content": "Explain gravity", "name": "ann"},
        {"role": "assistant", "content": "It falls.", "reasoning_content": "Apples fell."},
    ]
    results = judge.score_batch([thinking, thinking], return_details=True)
    unseen = ["messages[0].name", "messages[1].reasoning_content"]
    assert [details["dropped"] for _, details in results] == [unseen, unseen]
    assert [record.getMessage().split("'")[1] for record in caplog.records] == ["name", "reasoning_content"]
    assert not any("Apples" in asked.text for asked in server.asked)
    assert "dropped" not in judge.score(prompt="Explain gravity", response="It falls.", return_details=True)[1]


def test_a_pairwise_judge_lists_what_it_is_not_shown_of_the_prompt(judge_on: JudgeOn) -> None:
    judge, _ = judge_on(prefers("good"), rubric="Which is better?", mode="pairwise")
    prompt = [{"role": "user", "content": "Hi", "name": "ann"}]
    _, details = judge.compare(messages=prompt, a="good", b="bad", return_details=True)
    assert details["dropped"] == ["messages[0].name"]
