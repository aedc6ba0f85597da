"""What normalisation needs to know is fitted, saved and loaded."""

from __future__ import annotations

import pytest
from ensemble_models import CONVERSATIONS, Failing, Scaled, Steps, Vowels, Words, member_scores, three

from reward_hub import (
    BackendError,
    CheckpointError,
    EnsembleRM,
    InvalidConversationError,
    UnsupportedError,
)


@pytest.mark.parametrize("normalize", ["zscore", "minmax", "rank"])
def test_scoring_without_the_statistics_is_refused_before_any_member_is_asked(normalize):
    rm = EnsembleRM([Failing()], normalize=normalize)
    for call in (
        lambda: rm.score(CONVERSATIONS[0]),
        lambda: rm.rank(prompt="Hi", responses=["a"]),
        lambda: rm.compare(prompt="Hi", a="a", b="b"),
        lambda: rm.fingerprint,
    ):
        with pytest.raises(UnsupportedError, match=r"needs statistics: call fit"):
            call()


def test_statistics_are_saved_and_loaded_by_an_ensemble_of_the_same_members(tmp_path):
    fitted = three(normalize="rank").fit(CONVERSATIONS)
    fitted.save(tmp_path / "s.json")
    members = [(Words(), 0.2), (Scaled(0.1), 0.5), (Vowels(), 0.3)]
    loaded = EnsembleRM(members, normalize="rank").load(tmp_path / "s.json")
    assert loaded.fingerprint == fitted.fingerprint
    assert loaded.score_batch(CONVERSATIONS) == pytest.approx(fitted.score_batch(CONVERSATIONS), abs=1e-12)
    fewer = EnsembleRM(members[1:], reduce="min", normalize="zscore").load(tmp_path / "s.json")
    scores = member_scores(fewer)
    scaled = (scores - scores.mean(axis=1, keepdims=True)) / scores.std(axis=1, keepdims=True)
    assert fewer.score_batch(CONVERSATIONS) == pytest.approx(scaled.min(axis=0), abs=1e-12)


def test_statistics_of_another_model_are_refused(tmp_path):
    EnsembleRM([Scaled(0.1)], normalize="zscore").fit(CONVERSATIONS).save(tmp_path / "s.json")
    with pytest.raises(CheckpointError, match="no statistics of characters"):
        EnsembleRM([Scaled(0.2)], normalize="zscore").load(tmp_path / "s.json")
    with pytest.raises(CheckpointError, match="statistics of scores; this ensemble combines step_scores"):
        EnsembleRM([Steps(len)], normalize="rank").load(tmp_path / "s.json")


def test_statistics_are_fitted_once(tmp_path):
    rm = three(normalize="zscore").fit(CONVERSATIONS)
    rm.save(tmp_path / "s.json")
    for again in (lambda: rm.fit(CONVERSATIONS), lambda: rm.load(tmp_path / "s.json")):
        with pytest.raises(UnsupportedError, match="fitted once"):
            again()
    with pytest.raises(UnsupportedError, match="no statistics to save"):
        three(normalize="zscore").save(tmp_path / "t.json")


def test_a_fit_that_cannot_be_is_refused():
    with pytest.raises(BackendError, match="characters gave 2 for all 12"):
        EnsembleRM([Scaled(0.0, 2.0)], normalize="zscore").fit(CONVERSATIONS)
    with pytest.raises(BackendError, match="1 scores are too few"):
        three(normalize="zscore").fit(CONVERSATIONS[:1])
    with pytest.raises(BackendError, match="0 scores are too few"):
        three(normalize="zscore").fit([])
    with pytest.raises(ValueError, match="no such word"):
        EnsembleRM([Failing(), Scaled()], normalize="zscore", on_member_error="skip").fit(CONVERSATIONS)
    with pytest.raises(InvalidConversationError) as caught:
        three(normalize="zscore").fit([*CONVERSATIONS, []])
    assert caught.value.index == len(CONVERSATIONS)


def test_the_fingerprint_tells_of_members_weights_settings_and_statistics():
    def fitted(conversations=CONVERSATIONS, **options):
        rm = EnsembleRM([(Scaled(0.1), options.pop("weight", 1)), Vowels()], **{"normalize": "zscore", **options})
        return rm.fit(conversations).fingerprint

    others = [
        fitted(CONVERSATIONS[1:]),
        fitted(weight=2),
        fitted(reduce="min"),
        fitted(reduce="softmin"),
        fitted(reduce="softmin", beta=2.0),
        fitted(normalize="minmax"),
        fitted(normalize=None),
        fitted(on_member_error="skip"),
        fitted(on_member_error="skip", quorum=2),
        EnsembleRM([Scaled(0.2), Vowels()], normalize="zscore").fit(CONVERSATIONS).fingerprint,
    ]
    assert len({fitted(), *others}) == len(others) + 1
    assert fitted() == fitted()
