"""A head of several classes a step: the good one is the one that config.json calls so, whatever its number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from golden_sets import GoldenModels, GoldenSet, golden_sets
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from reward_hub import AutoRM, CheckpointError
from reward_hub.heads import MLPEnsemble
from reward_hub.labels import MEANINGS, classes_named, meaning
from reward_hub.reads import HeadOutputs
from reward_hub.registry import register_backend

register_backend("fake", "reward_hub.testing:FakeBackend")

BAD_GOOD = ("bad", "good")
# The last layer of each head, its classes in the order in which the family's training numbers them.
HEADS = {
    "trl-prm-token-classification": ("score", ("incorrect", "correct")),
    "qwen2.5-math-prm": ("score.2", ("bad", "good")),
    "reasoneval": ("score_head", ("negative", "neutral", "positive")),
}


def in_other_order(golden: GoldenSet, folder: Path, order: list[int], **config: Any) -> Path:
    """A golden checkpoint whose head has its rows in another order."""
    golden.make(folder)
    stem, _ = HEADS[golden.slug]
    tensors = load_file(folder / "model.safetensors")
    for name in (f"{stem}.weight", f"{stem}.bias"):
        tensors[name] = tensors[name][order].contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    stored = json.loads((folder / "config.json").read_text())
    kept = {key: value for key, value in stored.items() if key not in ("id2label", "label2id")}
    (folder / "config.json").write_text(json.dumps({**kept, **config}))
    return folder


def named(slug: str, order: list[int]) -> dict[str, Any]:
    names = [HEADS[slug][1][i] for i in order]
    return {
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }


@pytest.mark.parametrize("load_method", ["transformers", "fake"])
@pytest.mark.parametrize("slug", HEADS)
def test_the_class_that_is_called_good_is_read_whatever_its_number(slug: str, load_method: str, tmp_path: Path) -> None:
    golden = GoldenSet(slug, "own")
    size = len(HEADS[slug][1])
    messages, steps = golden.cases[0]["messages"], golden.cases[0]["steps"]
    silent = AutoRM.load(str(in_other_order(golden, tmp_path / "silent", list(range(size)))), load_method)
    expected = silent.score_steps(messages, steps=steps)
    for order in ([*range(size)], [*range(size)][::-1], [1, 0, 2][:size]):
        folder = in_other_order(golden, tmp_path / f"{order}", order, **named(slug, order))
        assert AutoRM.load(str(folder), load_method).score_steps(messages, steps=steps) == pytest.approx(
            expected, abs=1e-6
        )


@pytest.mark.parametrize(
    "config",
    [
        {"id2label": {"0": "correct", "1": "incorrect"}, "label2id": {"correct": 1, "incorrect": 0}},
        {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 1, "LABEL_1": 0}},
        {"id2label": {"0": "LABEL_1", "1": "LABEL_0"}},
        {"id2label": {"0": "correct", "1": "correct"}},
        {"id2label": {"0": "good", "1": "correct"}},
        {"id2label": {"0": "bad", "1": "good"}, "label2id": {"wrong": 1, "right": 0}},
        {"id2label": {"1": "bad", "2": "good"}},
        {"id2label": {"0": "spam", "1": "ham"}},
        {"id2label": {"0": "error_free", "1": "faulty"}},
        {"id2label": {"0": "flawless", "1": "never_correct"}},
    ],
    ids=str,
)
@pytest.mark.parametrize("slug", ["trl-prm-token-classification", "qwen2.5-math-prm"])
def test_labels_that_cannot_be_true_are_refused_before_the_weights_are_loaded(
    slug: str, config: dict[str, Any], tmp_path: Path
) -> None:
    folder = in_other_order(GoldenSet(slug, "own"), tmp_path / "m", [0, 1], **config)
    for label in config["id2label"].values():
        with pytest.raises(CheckpointError, match=label):
            AutoRM.inspect(folder)


def test_every_process_family_with_a_head_of_classes_asks_their_names(golden_models: GoldenModels) -> None:
    slugs = set()
    for golden in golden_sets("own"):
        if golden.kind != "process" or golden.two_models:
            continue
        model = golden_models.load(golden).model  # type: ignore[attr-defined]
        read = model.family.read_for(model.setup)
        if isinstance(read, HeadOutputs) and not isinstance(read.head, MLPEnsemble):
            outputs = read.head.tensors()
            last = [shape for name, shape in outputs.items() if name.endswith("weight")][-1]
            slugs |= {golden.slug} if last[0] != 1 else set()
    assert slugs == set(HEADS)


WORDS = st.sampled_from(
    [(good, bad) for good in sorted(MEANINGS["good"]) for bad in sorted(MEANINGS["bad"]) if good != bad]
)
WRITTEN = st.sampled_from([str, str.upper, str.title, lambda word: f" {word} "])
NEUTRAL = st.sampled_from(["LABEL_{}", "label {}", "class_{}", "{}"])


@given(words=WORDS, written=WRITTEN, good=st.integers(0, 1), tables=st.sampled_from(["id2label", "label2id", "both"]))
def test_usual_words_are_understood_in_either_order_and_table(words: Any, written: Any, good: int, tables: str) -> None:
    names = [written(words[1]), written(words[0])] if good else [written(words[0]), written(words[1])]
    config = {
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {n: i for i, n in enumerate(names)},
    }
    kept = config if tables == "both" else {tables: config[tables]}
    assert classes_named(kept, BAD_GOOD) == [1 - good, good]


@given(
    word=st.sampled_from(sorted(w for w in MEANINGS["good"] if w.isalpha())), neutral=NEUTRAL, good=st.integers(0, 1)
)
def test_one_named_class_names_the_other(word: str, neutral: str, good: int) -> None:
    labels = {str(good): word, str(1 - good): neutral.format(1 - good)}
    assert classes_named({"id2label": labels}, BAD_GOOD) == [1 - good, good]


@given(neutral=NEUTRAL, n=st.sampled_from([2, 3]))
def test_numbers_alone_change_nothing(neutral: str, n: int) -> None:
    labels = {str(i): neutral.format(i) for i in range(n)}
    assert classes_named({"id2label": labels}, ("bad", "neutral", "good")[-n:]) == list(range(n))


@pytest.mark.parametrize(
    ("label", "means"),
    [
        ("step_correct", "good"),
        ("StepIncorrect", "bad"),
        ("not correct", "bad"),
        ("NO_ERROR", "good"),
        ("no", "bad"),
        ("neutral", "neutral"),
        ("answer: no", "bad"),
        ("inCorrect", "bad"),
        ("in_correct", None),
        ("not sure", None),
        ("not fully correct", None),
        ("correct, not redundant", None),
        ("correct or wrong", None),
        ("error-free", None),
        ("WithoutError", None),
        ("isn't correct", None),
        ("never correct", None),
        ("know", None),
        ("LABEL_1", None),
        ("", None),
    ],
)
def test_words_are_found_among_others(label: str, means: str | None) -> None:
    assert meaning(label) == means
