"""Backends say themselves what they can run, so that one of another package runs what it can."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from reward_hub import AutoRM, UnsupportedError, register_backend, registry
from reward_hub.backends.base import Backend, EngineInfo
from reward_hub.reads import HeadOutputs

ORM = "builtin/arithmetic-orm"
CONVERSATION = {"prompt": "Hi", "response": "1 + 1 = 2"}


class CountingBackend(Backend):
    """Made of numpy alone: the hidden vector at a position is that position's number, in every dimension."""

    def __init__(self, read: HeadOutputs, weights: dict[str, Any], size: int) -> None:
        self._read, self._weights, self._size = read, weights, size
        self.info = EngineInfo("counting", "1", "float32", "cpu")

    @classmethod
    def known_options(cls) -> frozenset[str]:
        return frozenset({"number_of_fingers"})

    @classmethod
    def why_not(cls, config: Any, read: Any = None, *, backbone: Any = None, adapter: bool = False) -> str | None:
        return None if config["model_type"] == "qwen2" else "counting is for Qwen2"

    @classmethod
    def load(cls, files: Any, read: Any, *, backbone: Any, tokenizer: Any, options: Any) -> CountingBackend:
        from reward_hub.checkpoints.tensors import head_weights

        return cls(read, head_weights(files, read.head), files.config["hidden_size"])

    def read(self, inputs: Any, *, batch_size: int | None = None, progress: Any = None) -> list[Any]:
        rows = [np.repeat(np.array([item.positions], np.float32).T, self._size, axis=1) for item in inputs]
        return [self._read.head.apply(row, self._weights) for row in rows]


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(registry.BACKENDS, "registered", {})
    register_backend("counting", f"{__name__}:CountingBackend")
    yield "counting"


def test_a_backend_of_another_package_runs_a_built_in_model(counting: str) -> None:
    with AutoRM.load(ORM, counting) as rm:
        score, details = rm.score(**CONVERSATION, return_details=True)
        head = rm.model.backend._weights["score.weight"]  # type: ignore[attr-defined]
        assert score == pytest.approx(float(head.sum()) * (details["tokens_scored"] - 1), rel=1e-5)
        assert details["backend"] == "counting"
        assert repr(rm).endswith("backend='counting', dtype='float32', device='cpu')")
    assert AutoRM.inspect(ORM)["backends"] == ["transformers", "vllm", "counting", "api"]


def test_it_says_what_it_cannot_run_and_the_others_are_named(counting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CountingBackend, "why_not", lambda *_, **__: "counting has no fingers left")
    with pytest.raises(UnsupportedError, match=r"no fingers left\. Load it with load_method='transformers' or 'vllm'"):
        AutoRM.load(ORM, counting)
    assert AutoRM.inspect(ORM)["backends"] == ["transformers", "vllm", "api"]


def test_its_options_are_checked_and_known_to_the_others(counting: str) -> None:
    AutoRM.load(ORM, counting, number_of_fingers=10).close()
    with pytest.raises(
        TypeError, match=r"counting has no option 'number_of_finger'\. Did you mean 'number_of_fingers'"
    ):
        AutoRM.load(ORM, counting, number_of_finger=10)
    with pytest.raises(TypeError, match="option of counting: load with load_method='counting'"):
        AutoRM.load(ORM, "transformers", number_of_fingers=10)


def test_a_backend_that_is_not_installed_has_no_say(counting: str, caplog: pytest.LogCaptureFixture) -> None:
    register_backend("elsewhere", "no_such_package.engine:Backend")
    assert AutoRM.inspect(ORM)["backends"] == ["transformers", "vllm", "counting", "api"]
    assert "elsewhere cannot be imported" in caplog.text


def test_no_backend_but_transformers_runs_encoders() -> None:
    from reward_hub.loading.engine import backends_for

    assert backends_for(("llama",)) == backends_for(()) == ["transformers", "vllm", "api"]
    for family in ("pairrm", "better-pairrm", "oasst-deberta", "oasst-pythia", "steamshp"):
        assert backends_for(registry.family_named(family).model_types) == ["transformers"]
