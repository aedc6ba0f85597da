"""What holds for every family, over its golden sets: it is found, its head is checked, its details are complete."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from golden_sets import GoldenModels, GoldenSet, golden_sets, score_case
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reward_hub import AutoRM, CheckpointError, UnknownModelError, registry
from reward_hub.checkpoints.files import open_checkpoint

OWN = [golden for golden in golden_sets("own") if golden.registered]
ONE_MODEL = [golden for golden in OWN if not golden.two_models]
DECIDABLE = [golden for golden in ONE_MODEL if golden.decidable]
UNDECIDABLE = [golden for golden in OWN if golden not in DECIDABLE]
PROCESS = [golden for golden in OWN if golden.kind == "process"]

ALWAYS = {
    *("raw_logits", "normalized_score", "tokens_scored", "truncated", "dropped_tokens"),
    *("family", "backend", "model", "revision"),
}


# Detection


@pytest.mark.parametrize("golden", DECIDABLE, ids=str)
def test_a_checkpoint_tells_its_family_whatever_its_folder_is_called(golden: GoldenSet, tmp_path: Path) -> None:
    assert AutoRM.inspect(golden.make(tmp_path / "some-model"))["family"] == golden.family


@pytest.mark.parametrize("golden", DECIDABLE, ids=str)
def test_no_two_families_claim_a_checkpoint(golden: GoldenSet, golden_models: GoldenModels) -> None:
    files = open_checkpoint(str(golden_models.checkpoint(golden)), head_files=all_head_files())
    matching = [f.name for f in registry.families() if f.matches(files.config, files.shapes, files.files)]
    assert matching == [golden.family]


@pytest.mark.parametrize("golden", UNDECIDABLE, ids=str)
def test_a_checkpoint_that_does_not_tell_its_family_is_not_guessed(
    golden: GoldenSet, golden_models: GoldenModels
) -> None:
    folder = golden_models.checkpoint(golden)
    if golden.family == "grm-ft":
        # On disk it is a stock classifier, and loads as that.
        assert AutoRM.inspect(folder)["family"] == "sequence-classifier"
        return
    with pytest.raises(UnknownModelError) as caught:
        AutoRM.load(folder / "policy" if golden.two_models else folder)
    candidates = "reference=" if golden.two_models else golden.family
    assert candidates in str(caught.value) and "family=" in str(caught.value)
    assert golden.two_models or golden.family in caught.value.near


# Heads


@pytest.mark.parametrize("how", ["removed", "renamed", "one row more", "one column more"])
@pytest.mark.parametrize("golden", OWN, ids=str)
def test_a_damaged_head_is_an_error_that_names_the_tensor(
    golden: GoldenSet, how: str, golden_models: GoldenModels, tmp_path: Path
) -> None:
    wrong = {}
    for number, name in enumerate(head_tensors(golden, golden_models.checkpoint(golden))):
        spec = damaged(golden, name, how)
        if spec is None:
            continue
        folder = golden.make(tmp_path / str(number), spec)
        for detect in (True, False) if golden.decidable else (False,):
            told = loading_error(golden, folder, detect=detect)
            if told != name:
                wrong[name, "detected" if detect else "family="] = told
    assert wrong == {}


def head_tensors(golden: GoldenSet, folder: Path) -> list[str]:
    """The tensors that outputs are computed from: the head's own, else the LM head's."""
    if golden.two_models:
        return ["lm_head.weight"]
    return list(AutoRM.inspect(folder, family=golden.family)["head"]) or ["lm_head.weight"]


def damaged(golden: GoldenSet, tensor: str, how: str) -> dict[str, Any] | None:
    """The set's spec with one tensor changed; None where the change means nothing for this tensor."""
    spec = copy.deepcopy(golden.spec)
    holder = spec["parts"]["policy"] if golden.two_models else spec
    tensors, stored = next(
        (tensors, name)
        for file, tensors in holder["files"].items()
        for name in tensors
        if tensor == (f"{file.rsplit('.', 1)[0]}.{name}" if file in all_head_files() else name)
    )
    shape = tensors[stored]["shape"]
    if how == "removed":
        del tensors[stored]
    elif how == "renamed":
        tensors[f"renamed_{stored}"] = tensors.pop(stored)
    elif how == "one row more":
        tensors[stored]["shape"] = [shape[0] + 1, *shape[1:]]
    elif len(shape) == 2:
        tensors[stored]["shape"] = [shape[0], shape[1] + 1]
    else:
        return None
    return spec


def loading_error(golden: GoldenSet, folder: Path, *, detect: bool) -> str | None:
    """The tensor that the error names, or what came in the place of such an error."""
    try:
        with golden.load(folder, detect=detect) as rm:
            score_case(rm, golden.cases[0])  # DrSow loads when it is first asked
    except CheckpointError as error:
        return error.tensor if error.tensor is not None else f"CheckpointError: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def all_head_files() -> set[str]:
    return {file for family in registry.families() for file in family.head_files}


# Details


@pytest.mark.parametrize("golden", OWN, ids=str)
def test_details_are_complete_and_serialisable(golden: GoldenSet, golden_models: GoldenModels) -> None:
    rm = golden_models.load(golden)
    for case in golden.cases:
        _, details = score_case(rm, case)
        assert json.loads(json.dumps(details, allow_nan=False)) == details
        assert set(details) >= ALWAYS | set(golden.data["details"])
        assert details["raw_logits"] and all(isinstance(x, float) for x in details["raw_logits"])
        assert 0.0 <= details["normalized_score"] <= 1.0
        assert (details["family"], details["truncated"], details["dropped_tokens"]) == (golden.family, False, 0)
        assert details["tokens_scored"] >= len(case["input_ids"])
        if "step_scores" in case:
            assert details["step_scores"] == pytest.approx(case["step_scores"], abs=golden.tolerance)


# Steps


TAGS = (
    "<extra_0>",
    "ки",
    " \n\n\n\n",
    "\n",
    "+",
    "-",
    "<|reserved_special_token_0|>",
    "<|im_end|>",
    "<|eot_id|>",
    "</s>",
)
RESPONSES = {
    "one step": ["2 + 2 = 4."],
    "forty steps": [f"Step {i}: add {i}." for i in range(40)],
    "empty steps": ["", "First.", "", "", "Last.", ""],
    "step tags as text": ["First<extra_0>.", "<extra_0>", "ки и ки", "+", "-", "A \n\n\n\n\n\n B", "Last<extra_0>ки"],
    "unicode": ["Größe 数学 🙂", "e\u0301 \u200b\ufb01", "👩‍👩‍👧", "\u0416\u00a0x"],
    "white space": [" leading", "trailing ", "\tboth\n", "two\n\nparagraphs"],
}
PROMPT = [{"role": "user", "content": "What is two and two? Write <extra_0> ки after each step."}]


@pytest.mark.parametrize("given_response", [True, False], ids=["with response", "steps alone"])
@pytest.mark.parametrize("steps", RESPONSES.values(), ids=RESPONSES.keys())
@pytest.mark.parametrize("golden", PROCESS, ids=str)
def test_each_step_gets_one_score(
    golden: GoldenSet, steps: list[str], given_response: bool, golden_models: GoldenModels
) -> None:
    response = "\n\n".join(steps)
    messages = [*PROMPT, {"role": "assistant", "content": response}] if given_response else PROMPT
    scores, details = golden_models.load(golden).score_steps(messages, steps=steps, return_details=True)
    assert len(scores) == len(details["step_scores"]) == len(steps)
    assert [response[start:end] for start, end in details["step_spans"]] == steps


@pytest.mark.parametrize("golden", PROCESS, ids=str)
def test_any_text_can_be_a_step(golden: GoldenSet, golden_models: GoldenModels) -> None:
    rm = golden.load(golden_models.checkpoint(golden), "fake")
    texts = st.one_of(st.text(max_size=12), st.sampled_from(TAGS), st.lists(st.sampled_from(TAGS)).map("x".join))

    @settings(max_examples=25, suppress_health_check=list(HealthCheck))
    @given(steps=st.lists(texts, min_size=1, max_size=6))
    def check(steps: list[str]) -> None:
        scores, details = rm.score_steps(PROMPT, steps=steps, return_details=True)
        assert len(scores) == len(steps)
        assert ["\n\n".join(steps)[start:end] for start, end in details["step_spans"]] == steps

    check()


registry.register_backend("fake", "reward_hub.testing:FakeBackend")
