"""Ensembles that make no sense are refused; settings that have no part are warned of."""

from __future__ import annotations

import logging
import math

import pytest
from ensemble_models import Judge, Scaled, Vowels, Words

from reward_hub import (
    CachedRM,
    EnsembleRM,
    UnsupportedError,
    calibrate,
)


def test_unlike_score_ranges_are_warned_of_once_and_not_where_they_are_normalised(caplog, orm, prm):
    with caplog.at_level(logging.WARNING, "reward_hub"):
        EnsembleRM([orm, prm], normalize="sigmoid")
        EnsembleRM([orm, prm], reduce="vote")
        EnsembleRM([orm, orm])
        assert caplog.messages == []
        rm = EnsembleRM([orm, prm])
        rm.rank(prompt="What is 2 + 2?", responses=["4", "5"])
    [warning] = caplog.messages
    assert "unlike ranges (builtin/arithmetic-orm (-inf, inf), builtin/arithmetic-prm (0.0, 1.0))" in warning


def test_weights_that_have_no_part_are_warned_of(caplog):
    with caplog.at_level(logging.WARNING, "reward_hub"):
        EnsembleRM([(Vowels(), 1), (Words(), 2)], reduce="min")
    assert "weights have no part in reduce='min'" in caplog.text


def test_calibration_that_has_no_part_is_warned_of(caplog, tmp_path):
    pairs = [{"prompt": "Hi", "chosen": "aa", "rejected": "a"}] * 5
    calibrated = calibrate(Scaled(3.0), pairs)
    with caplog.at_level(logging.WARNING, "reward_hub"), CachedRM(calibrated, cache_dir=tmp_path) as cached:
        rm = EnsembleRM([cached])
        assert rm.compare(prompt="Hi", a="aa", b="a") == Scaled(3.0).compare(prompt="Hi", a="aa", b="a")
        assert "the calibration of characters has no part" in caplog.text
        caplog.clear()
        calibrate(EnsembleRM([Scaled(3.0)]), pairs)
        assert caplog.messages == []


@pytest.mark.parametrize(
    ("members", "options", "error", "complaint"),
    [
        ([], {}, TypeError, "at least one member"),
        (Vowels(), {}, TypeError, "members is one Vowels; give a list"),
        (["rm"], {}, TypeError, "Member 0 is str"),
        ([(Vowels(), 0)], {}, TypeError, "must be positive"),
        ([(Vowels(), math.inf)], {}, TypeError, "must be positive"),
        ([(Vowels(), "1")], {}, TypeError, "a number is needed"),
        ([(Vowels(), True)], {}, TypeError, "a number is needed"),
        ([Vowels(), Judge()], {}, UnsupportedError, "cannot be combined .vowels: outcome, judge: pairwise"),
        ([Vowels()], {"normalize": "z"}, TypeError, "known: None, 'zscore'"),
        ([Judge()], {"normalize": "zscore"}, TypeError, "probabilities"),
        ([Vowels()], {"reduce": "mean", "beta": 1.0}, TypeError, "no beta"),
        ([Vowels()], {"on_member_error": "ignore"}, TypeError, "known: 'raise', 'skip'"),
        ([Vowels()], {"quorum": 1}, TypeError, "belongs to on_member_error='skip'"),
        ([Vowels()], {"on_member_error": "skip", "quorum": 2}, TypeError, "of 1 members 1 to 1"),
        ([Vowels()], {"on_member_error": "skip", "quorum": 1.5}, TypeError, "a share is above 0"),
        ([Vowels()], {"on_member_error": "skip", "quorum": "all"}, TypeError, "a number of members"),
    ],
)
def test_an_ensemble_that_makes_no_sense_is_refused(members, options, error, complaint):
    with pytest.raises(error, match=complaint):
        EnsembleRM(members, **options)
