"""A reward model goes to another process as the call that made it: no weights, no keys, the same scores."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest

from reward_hub import DrSow, LLMJudge
from reward_hub.judge import Rubric

KEY = "sk-topsecret"
ENDPOINT = {"api_base": "http://127.0.0.1:9/v1", "api_key": KEY}


def test_a_judge_is_pickled_without_its_key() -> None:
    judge = LLMJudge("judge", rubric="from 1-5", temperature=0.5, **ENDPOINT)
    data = pickle.dumps(judge)
    assert KEY.encode() not in data
    assert len(data) < 2000
    again = pickle.loads(data)
    assert again.fingerprint == judge.fingerprint
    assert repr(again) == repr(judge)


def test_what_was_set_on_a_judge_goes_with_it() -> None:
    judge = LLMJudge(
        "judge", rubric=Rubric(instructions="Is it right?", score_range=(1, 7)), **ENDPOINT
    ).with_reference("18")
    judge.higher_is_better = False
    again = pickle.loads(pickle.dumps(judge))
    assert again.fingerprint == judge.fingerprint != LLMJudge("judge", rubric="from 1-7", **ENDPOINT).fingerprint
    assert not again.higher_is_better


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"rubric": "from 1-5", "load_method": "vllm", "engine": object()}, "engine= is an object"),
        ({"rubric": "from 1-5", "api_base": "http://me:secret@host/v1"}, "api_base= holds a key"),
        ({"rubric": "from 1-5", "extra_body": {"headers": {"Authorization": "x"}}}, "extra_body= holds a key"),
        ({"rubric": "from 1-5", "extra_body": {"hook": lambda: None}}, "extra_body= cannot be pickled"),
    ],
)
def test_what_cannot_travel_is_an_error_that_names_it(arguments: dict, said: str) -> None:
    with pytest.raises(TypeError, match=said) as caught:
        pickle.dumps(LLMJudge("judge", **arguments))
    assert "secret" not in str(caught.value)


def test_a_copy_of_a_judge_shares_its_counts() -> None:
    judge = LLMJudge("judge", rubric="from 1-5", **ENDPOINT)
    assert copy.copy(judge).usage is judge.usage


def test_two_models_to_compare_are_named_not_sent(tmp_path: Path) -> None:
    rm = DrSow(strong="strong", weak="weak", token=KEY, system_prompt="Be brief.")
    data = pickle.dumps(rm)
    assert KEY.encode() not in data
    again = pickle.loads(data)
    assert (again.name, again.family, again.load_call.arguments["system_prompt"]) == (rm.name, "drsow", "Be brief.")
