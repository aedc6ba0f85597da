"""`truncation="prompt"` drops tokens of the prompt, and never one of the response."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from golden_sets import GoldenModels, GoldenSet
from hypothesis import given
from hypothesis import strategies as st

from reward_hub import InputTooLongError
from reward_hub.encoding import completion_ids
from reward_hub.messages import parse
from reward_hub.models.model_rm import ModelRM

PROMPT = "Tell me how many of them there are, if you know it, and where they are kept."
# Where the prompt ends is found by comparison with responses of other texts ("0", "x"): these begin as those do.
BEGINNINGS = ["0", "x", "0 of them, 0 in all", "x marks the place", "00", "xx", "0x0", ""]


@pytest.fixture(scope="module")
def model(golden_models: GoldenModels) -> Any:
    return golden_models.load(GoldenSet("seqcls-qwen2", "own")).model  # type: ignore[attr-defined]


def sizes(model: Any, response: str) -> tuple[list[int], int]:
    """The whole conversation's tokens, and how many of them stand before the response."""
    return completion_ids(parse(prompt=PROMPT, response=response), model.setup.tokenizer)


def cut_to(model: Any, limit: int) -> ModelRM:
    return ModelRM(replace(model, max_length=limit, truncation="prompt"))


@pytest.mark.parametrize("response", BEGINNINGS)
def test_the_whole_prompt_may_go_and_nothing_behind_it(model: Any, response: str) -> None:
    ids, n_prompt = sizes(model, response)
    fits = cut_to(model, len(ids) - n_prompt)
    _, details = fits.score(prompt=PROMPT, response=response, return_details=True)
    assert (details["dropped_tokens"], details["tokens_scored"]) == (n_prompt, len(ids) - n_prompt)
    with pytest.raises(InputTooLongError, match=f"the response alone has {len(ids) - n_prompt}"):
        cut_to(model, len(ids) - n_prompt - 1).score(prompt=PROMPT, response=response)


@given(response=st.text("0x 1a", max_size=12), share=st.floats(0.0, 1.0))
def test_what_is_left_ends_with_the_whole_response(model: Any, response: str, share: float) -> None:
    ids, n_prompt = sizes(model, response)
    n_dropped = round(share * n_prompt)
    rm = cut_to(model, len(ids) - n_dropped)
    fitted = rm.model.fit(
        lambda c: rm.model.family.tokens_of(c, rm.model.setup),
        parse(prompt=PROMPT, response=response),
        lambda c, text: parse(prompt=PROMPT, response=text),
    )
    assert fitted.dropped == n_dropped
    assert fitted.tokens.token_ids == ids[n_dropped:]
    assert fitted.tokens.positions == [len(ids) - n_dropped - 1]
