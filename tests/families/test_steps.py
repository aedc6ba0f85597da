"""Where responses are split into steps: alike for every process family, and for every way to ask."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from golden_sets import GoldenModels, GoldenSet, golden_sets

from reward_hub import AutoRM, BaseRM, CachedRM, EnsembleRM, UnsupportedError, calibrate, registry
from reward_hub.bench import evaluate
from reward_hub.integrations.its_hub import RewardHubPRM

PROMPT = "Tom has 5 apples, gets 3 more and eats 2. How many?"
STEPS = ["Tom has 5 + 3 = 8 apples.", "He eats 2: 8 - 2 = 5.", "The answer is 5."]
# The same with lines that end in other ways, and with white space in blank lines.
FORMS: dict[str, Callable[[str], str]] = {
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "CR": lambda text: text.replace("\n", "\r"),
    "blanks": lambda text: text.replace("\n\n", "\n \t\n"),
    "CRLF and blanks": lambda text: text.replace("\n\n", "\r\n  \r\n"),
}
HASHES = "##".join(STEPS)
"""One step where it is split at line breaks, three at "##"."""

PROCESS = [g for g in golden_sets("own") if g.registered and g.kind == "process"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("golden", PROCESS, ids=str)
def test_a_response_has_the_same_steps_however_its_lines_end(
    golden: GoldenSet, golden_models: GoldenModels, form: str
) -> None:
    rm = golden_models.load(golden)
    plain = rm.step_delimiter.join(STEPS)
    expected, expected_details = rm.score_steps(prompt=PROMPT, response=plain, return_details=True)
    response = FORMS[form](plain)
    scores, details = rm.score_steps(prompt=PROMPT, response=response, return_details=True)
    spans = details.get("step_spans")
    assert len(scores) == len(expected) == len(STEPS)
    assert (spans is None) == (expected_details.get("step_spans") is None)
    assert [response[start:end] for start, end in spans or ()] == (STEPS if spans is not None else [])
    if registry.family_named(golden.family).prefixes is None:
        # What is scored up to each step of a growing response has the line ends in it; else the steps alone are read.
        assert scores == pytest.approx(expected, abs=1e-6)
        assert rm.score(prompt=PROMPT, response=response) == pytest.approx(
            rm.score(prompt=PROMPT, response=plain), abs=1e-6
        )


@pytest.fixture(scope="module")
def prm() -> Iterator[BaseRM]:
    with AutoRM.load("builtin/arithmetic-prm", "transformers", torch_dtype="float32") as rm:
        yield rm


def test_a_ranking_splits_where_it_is_told(prm: BaseRM, tmp_path: Path) -> None:
    responses = [HASHES, "8 - 2 = 6##The answer is 6.", "6"]
    expected = prm.score_batch(
        [[{"role": "user", "content": PROMPT}, {"role": "assistant", "content": text}] for text in responses],
        step_delimiter="##",
    )
    assert expected[0] != pytest.approx(prm.score(prompt=PROMPT, response=HASHES), abs=1e-3)
    best = max(range(3), key=expected.__getitem__)
    cached = CachedRM(copy.copy(prm), cache_dir=tmp_path)
    pairs = [{"prompt": "1+1?", "chosen": "2", "rejected": str(i)} for i in range(3, 13)]
    for rm in (prm, cached, EnsembleRM([prm]), calibrate(prm, pairs, n_folds=2)):
        _, plain = rm.rank(prompt=PROMPT, responses=responses, return_details=True)
        _, told = rm.rank(prompt=PROMPT, responses=responses, step_delimiter="##", return_details=True)
        assert plain["scores"][0] != pytest.approx(expected[0], abs=1e-3)
        assert told["scores"] == pytest.approx(expected, abs=1e-5)
        assert rm.best_of_n(prompt=PROMPT, responses=responses, step_sep="##") == best


async def test_the_asynchronous_ranking_takes_the_same(prm: BaseRM) -> None:
    given: dict[str, Any] = {"prompt": PROMPT, "responses": [HASHES, "6"], "return_details": True}
    assert await prm.arank(**given, step_separator="##") == prm.rank(**given, step_delimiter="##")
    assert (await prm.abest_of_n(**given, step_sep="##"))[0] == prm.best_of_n(**given, step_sep="##")[0]
    with pytest.raises(TypeError):
        await prm.arank(**given, step_delimeter="##")
    with pytest.raises(TypeError, match="more than one spelling"):
        prm.rank(**given, step_sep="##", step_delimiter="##")


async def test_search_scores_the_same_steps_of_another_systems_lines(prm: BaseRM) -> None:
    plain = "\n\n".join(STEPS)
    expected = await RewardHubPRM(prm).ascore(PROMPT, plain)
    assert await RewardHubPRM(prm).ascore(PROMPT, FORMS["CRLF and blanks"](plain)) == pytest.approx(expected, abs=1e-6)


def test_a_delimiter_that_changes_nothing_is_refused(prm: BaseRM, golden_models: GoldenModels, tmp_path: Path) -> None:
    with (
        AutoRM.load("builtin/arithmetic-orm", "transformers") as orm,
        pytest.raises(UnsupportedError, match="no steps to split"),
    ):
        orm.rank(prompt=PROMPT, responses=["6"], step_delimiter="##")
    with pytest.raises(UnsupportedError, match="as a whole"):
        prm.score(prompt=PROMPT, response=HASHES, aggregation="model", step_delimiter="##")
    whole = next(g for g in PROCESS if registry.family_named(g.family).aggregate == "model")
    with pytest.raises(UnsupportedError, match="as a whole"):
        golden_models.load(whole).score(prompt=PROMPT, response=HASHES, step_delimiter="##")
    labelled = tmp_path / "steps.jsonl"
    labelled.write_text(json.dumps({"id": "1", "problem": PROMPT, "steps": STEPS, "label": 1}) + "\n")
    with pytest.raises(UnsupportedError, match="come in steps"):
        evaluate(prm, str(labelled), step_delimiter="##")


def test_a_response_of_many_lines_that_is_one_step_is_said_once_a_model(
    prm: BaseRM, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO, logger="reward_hub")
    lines = "\n".join(STEPS)

    def said() -> list[str]:
        return [record.getMessage() for record in caplog.records if "single step" in record.getMessage()]

    rm = copy.copy(prm)
    rm.score(prompt=PROMPT, response="\n\n".join(STEPS))
    rm.score(prompt=PROMPT, response="It is 6.")
    rm.score(prompt=PROMPT, response=lines, aggregation="model")
    rm.score_steps(prompt=PROMPT, response=lines, steps=[lines])
    assert said() == []
    cached = CachedRM(rm, cache_dir=tmp_path)
    cached.score_steps(prompt=PROMPT, response=lines)
    rm.score(prompt=PROMPT, response=lines)
    cached.rank(prompt=PROMPT, responses=[lines, lines])
    assert said() == [
        "builtin/arithmetic-prm: a response of 3 lines is a single step, split at '\\n\\n'; step_delimiter= splits "
        "elsewhere."
    ]
    other = copy.copy(prm)
    other.score_steps(prompt=PROMPT, response=lines, step_delimiter="##")
    assert len(said()) == 2


def test_what_is_said_of_steps_does_not_change_a_fingerprint(tmp_path: Path) -> None:
    class OwnPRM(BaseRM):
        kind = "process"

        def score_steps(self, messages: Any, steps: Any) -> list[float]:
            return [float(len(step)) for step in steps]

    rm = OwnPRM()
    before = CachedRM(rm, cache_dir=tmp_path).fingerprint
    assert rm.score_batch([[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "a\nb\nc"}]]) == [5.0]
    rm.rank(prompt="Hi", responses=["a\nb\nc"])
    assert CachedRM(rm, cache_dir=tmp_path).fingerprint == before
