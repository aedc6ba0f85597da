"""Activations, aggregation and heads against plain arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_hub.errors import UnsupportedError
from reward_hub.heads import MLP, Gated, Linear, Stacked
from reward_hub.numerics import aggregate, sigmoid, sigmoids, softmax

SCORES = st.lists(st.floats(0.001, 1), min_size=1, max_size=8)


@given(st.floats(-1e4, 1e4))
def test_sigmoid_neither_overflows_nor_leaves_the_unit_interval(x):
    assert 0.0 <= sigmoid(x) <= 1.0
    assert sigmoid(x) == pytest.approx(1 - sigmoid(-x), abs=1e-12)
    assert sigmoids(np.array([x], np.float32))[0] == pytest.approx(sigmoid(float(np.float32(x))), abs=1e-6)


def test_softmax_survives_large_logits():
    found = softmax(np.array([[1000.0, 0.0], [-1000.0, -1001.0]], np.float32))
    np.testing.assert_allclose(found, [[1.0, 0.0], [0.7310586, 0.2689414]], atol=1e-6)


@given(SCORES)
def test_aggregations_are_what_their_names_say(scores):
    assert aggregate(scores, "min") == min(scores)
    assert aggregate(scores, "max") == max(scores)
    assert aggregate(scores, "last") == aggregate(scores, "model") == scores[-1]
    assert aggregate(scores, "sum") == pytest.approx(sum(scores))
    assert aggregate(scores, "mean") == pytest.approx(np.mean(scores))
    assert aggregate(scores, "product") == pytest.approx(np.prod(scores))
    assert aggregate(scores, "geometric_mean") == pytest.approx(np.prod(scores) ** (1 / len(scores)))


def test_a_geometric_mean_of_negative_scores_is_refused():
    assert aggregate([0.0, 0.5], "geometric_mean") == 0.0
    with pytest.raises(UnsupportedError, match="at least 0"):
        aggregate([-0.1, 0.5], "geometric_mean")
    with pytest.raises(UnsupportedError, match="Unknown aggregation 'best'"):
        aggregate([0.5], "best")


def test_heads_compute_what_torch_computes():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    first, second = torch.nn.Linear(6, 5), torch.nn.Linear(5, 3)
    hidden = torch.randn(4, 6)
    expected = second(torch.relu(first(hidden))).detach().numpy()
    weights = {
        f"score.{name}.{kind}": getattr(layer, kind).detach().numpy()
        for name, layer in (("0", first), ("2", second))
        for kind in ("weight", "bias")
    }
    mlp = MLP(("score.0", "score.2"), width=3)
    np.testing.assert_allclose(mlp.apply(hidden.numpy(), weights), expected, atol=1e-6)
    linear = Linear("score.0", width=5)
    both = Stacked((mlp, linear)).apply(hidden.numpy(), weights)
    np.testing.assert_allclose(both, np.concatenate([expected, first(hidden).detach().numpy()], axis=1), atol=1e-6)


def test_a_gate_mixes_objectives_with_the_transform_from_the_right():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(2, 4)).astype(np.float32)
    weights = {
        "r.weight": rng.normal(size=(3, 4)).astype(np.float32),
        "g.0.weight": rng.normal(size=(3, 4)).astype(np.float32),
        "g.0.bias": rng.normal(size=3).astype(np.float32),
        "T": rng.normal(size=(3, 3)).astype(np.float32),
        "s": np.array([2.0], np.float32),
    }
    head = Gated(Linear("r", 3, bias=False), MLP(("g.0",), 3), scale="s", temperature=10.0, transform="T")
    rewards, gate, coefficients = head.apply(hidden, weights)
    logits = (weights["g.0.weight"] @ hidden[0] + weights["g.0.bias"]) / 10
    expected_gate = 2.0 * np.exp(logits) / np.exp(logits).sum()
    expected = expected_gate @ ((weights["r.weight"] @ hidden[1]) @ weights["T"])
    np.testing.assert_allclose(gate, expected_gate, rtol=1e-5)
    assert float((rewards * coefficients).sum()) == pytest.approx(float(expected), rel=1e-4)
