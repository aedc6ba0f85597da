"""Where the steps stand is part of what is asked: a text and its steps do not always tell it."""

from __future__ import annotations

from cached_models import CountingRM

from reward_hub.messages import parse, split_steps
from reward_hub.reward_model import CallOptions

TEXT = "x x x"
FIRST, LAST = " x", "x "
"""Delimiters between which nothing but one step "x" is left: the first of the text, or the last."""


class Located(CountingRM):
    """Its details say where the steps stand, as those of a model do."""

    def _one(self, conversation):
        details = super()._one(conversation)
        return details.__class__(**{**vars(details), "step_spans": [list(span) for span in conversation.step_spans]})


def test_the_same_steps_at_other_places_are_not_mistaken_for_each_other(cached):
    rm = Located("process")
    wrapped = cached(rm)
    for _ in range(2):
        for delimiter, span in ((FIRST, [0, 1]), (LAST, [4, 5])):
            steps, details = wrapped.score_steps(
                prompt="Hi", response=TEXT, step_delimiter=delimiter, return_details=True
            )
            assert (steps, details["step_spans"]) == ([1.0], [span])
    assert rm.asked == [[TEXT], [TEXT]]


def test_the_same_steps_at_the_same_places_are_one_entry_however_they_were_said(cached):
    wrapped = cached(Located("process"))
    conversation = parse(prompt="Hi", response="a\n\nb")
    keys = [wrapped._score_keys([split_steps(conversation, d)], CallOptions())[0] for d in ("\n\n", "\n")]
    assert keys[0] == keys[1]
    wrapped.score_steps(prompt="Hi", response="a\n\nb", step_delimiter="\n\n")
    _, details = wrapped.score_steps(prompt="Hi", response="a\n\nb", steps=["a", "b"], return_details=True)
    assert details["cached"] is True
