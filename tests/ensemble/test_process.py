"""Process models are combined step by step, or by their scores beside models without steps."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from ensemble_models import Steps, Vowels, conversation

from reward_hub import (
    AutoRM,
    BackendError,
    BaseRM,
    CachedRM,
    EnsembleRM,
    InvalidConversationError,
    UnsupportedError,
)


def test_process_models_are_combined_step_by_step_and_then_aggregated():
    a, b = Steps(lambda step: 1 / len(step), name="a"), Steps(lambda step: len(step) / 10, name="b")
    rm = EnsembleRM([(a, 3), (b, 1)])
    assert rm.kind == "process"
    messages = conversation("aa\n\nbbbb\n\nc")
    expected = [(3 / n + n / 10) / 4 for n in (2, 4, 1)]
    steps, details = rm.score_steps(messages, return_details=True)
    assert steps == pytest.approx(expected)
    assert details["step_spans"] == [[0, 2], [4, 8], [10, 11]]
    assert rm.score(messages) == pytest.approx(min(expected))
    assert rm.score(messages, aggregation="mean") == pytest.approx(sum(expected) / 3)
    assert rm.score_steps_batch([{"messages": messages, "steps": ["aa", "bbbb\n\nc"]}]) == [
        pytest.approx([expected[0], (3 / 7 + 0.7) / 4])
    ]
    assert asyncio.run(rm.ascore_steps(messages)) == steps
    first = details["members"][0]
    assert (first["step_scores"], first["normalized"]) == ([0.5, 0.25, 1.0], [0.5, 0.25, 1.0])
    assert details["step_spread"] == pytest.approx([abs(1 / n - n / 10) / 2 for n in (2, 4, 1)])


def test_statistics_of_process_models_are_of_steps(tmp_path):
    rm = EnsembleRM([Steps(len)], normalize="zscore").fit([conversation("a\n\nbbb"), conversation("cccc")])
    assert rm.statistics[0].scores.tolist() == [1.0, 3.0, 4.0]
    scaled = (np.array([2, 6]) - 8 / 3) / np.std([1, 3, 4])
    assert rm.score_steps(conversation("aa\n\nbbbbbb")) == pytest.approx(scaled)
    by_items = EnsembleRM([Steps(len)], normalize="zscore")
    by_items.fit([{"messages": conversation("abbb"), "steps": ["a", "bbb"]}, {"prompt": "Hi", "response": "cccc"}])
    assert by_items.statistics[0].scores.tolist() == [1.0, 3.0, 4.0]


def test_a_product_of_z_scores_is_refused(prm):
    rm = EnsembleRM([Steps(len)], normalize="zscore").fit([conversation("a\n\nbbb")])
    with pytest.raises(UnsupportedError, match="The product of z-scores has no direction"):
        rm.score(conversation("a\n\nbbb"), aggregation="product")
    with pytest.raises(UnsupportedError, match="The product of z-scores has no direction"):
        EnsembleRM([prm], normalize="zscore")  # whose own aggregation is the product
    assert EnsembleRM([prm], normalize="zscore", aggregation="min").kind == "process"


def test_process_models_that_differ_need_a_setting_of_the_ensemble():
    members = [Steps(len), Steps(len, step_delimiter="\n")]
    with pytest.raises(TypeError, match=r"differ in step_delimiter .*say step_delimiter="):
        EnsembleRM(members)
    rm = EnsembleRM(members, step_delimiter="\n")
    assert rm.score_steps(conversation("a\nbb")) == [1.0, 2.0]
    with pytest.raises(TypeError, match="aggregation='mean' belongs to ensembles of process models"):
        EnsembleRM([Vowels()], aggregation="mean")


def test_members_with_other_numbers_of_steps_are_an_error():
    class OneStep(Steps):
        def score_steps(self, messages, steps):
            return [1.0]

    rm = EnsembleRM([Steps(len, name="all"), OneStep(len, name="one")])
    with pytest.raises(BackendError, match="one gave 1 step scores for 2 steps"):
        rm.score(conversation("a\n\nb"))


class WholeResponses(BaseRM):
    """A process model that scores no steps, by any of the methods that a user may override."""

    kind = "process"

    @staticmethod
    def of(method):
        def score(self, messages):
            return float(len(messages[-1]["content"]))

        def score_batch(self, batch):
            return [score(self, messages) for messages in batch]

        async def ascore(self, messages):
            return score(self, messages)

        overrides = {"score": score, "score_batch": score_batch, "ascore": ascore}
        return type("WholeResponses", (WholeResponses,), {"name": method, method: overrides[method]})()


@pytest.mark.parametrize("method", ["score", "score_batch", "ascore"])
def test_a_process_model_without_step_scores_is_combined_by_its_score(method):
    rm = EnsembleRM([WholeResponses.of(method), Steps(len)])
    assert (rm.kind, rm.score(conversation("aa\n\nbbbb"))) == ("outcome", (8 + 2) / 2)
    assert EnsembleRM([WholeResponses.of(method)]).score(conversation("aa\n\nbbbb")) == 8


def test_a_process_model_without_step_scores_is_known_behind_a_cache_and_on_a_server(tmp_path):
    pytest.importorskip("fastapi")
    from reward_hub.server.run import served_in_background

    with CachedRM(WholeResponses.of("score"), cache_dir=tmp_path) as cached:
        assert EnsembleRM([EnsembleRM([cached])]).score(conversation("aa\n\nbbbb")) == 8
    served = served_in_background(WholeResponses.of("score"))
    with served as address, AutoRM.load("score", "api", api_base=address) as client:
        assert EnsembleRM([client]).score(conversation("aa\n\nbbbb")) == 8


def test_beside_an_outcome_model_a_process_model_aggregates_by_itself(orm, prm):
    rm = EnsembleRM([orm, (prm, 3)])
    assert rm.kind == "outcome"
    messages = conversation("17 + 25 = 42\n\nThe answer is 42.", prompt="What is 17 + 25?")
    expected = (orm.score(messages) + 3 * prm.score(messages)) / 4
    assert rm.score(messages) == pytest.approx(expected)
    assert asyncio.run(rm.ascore(messages)) == pytest.approx(expected)
    blank = [messages, conversation(" ")]
    [_, (none, details)] = rm.score_batch(blank, on_error="none", return_details=True)
    assert (none, details["error"]["type"]) == (None, "InvalidConversationError")
    with pytest.raises(InvalidConversationError) as caught:
        rm.score_batch(blank)
    assert caught.value.index == 1


def test_an_ensemble_of_one_process_model_is_that_model(prm):
    one = EnsembleRM([prm])
    messages = conversation("17 + 25 = 43\n\nThe answer is 43.", prompt="What is 17 + 25?")
    assert (one.kind, one.score(messages)) == ("process", prm.score(messages))
    assert one.score_steps(messages) == prm.score_steps(messages)
    assert one.score(messages, aggregation="min") == prm.score(messages, aggregation="min")
