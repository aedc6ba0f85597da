"""What a workload is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from benchmarks.speed.checkpoints import Shape
from benchmarks.speed.text import Writer

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Stepwise:
    """A question and the steps of an answer to it."""

    question: str
    steps: tuple[str, ...]

    @property
    def messages(self) -> Messages:
        return [{"role": "user", "content": self.question}]


@dataclass(frozen=True)
class Texts:
    """What is scored in one repeat.

    Attributes:
        rounds: lists that are scored one after the other, as a search has to; each is of conversations, or of
            `Stepwise`.
    """

    rounds: list[list[Any]]


@dataclass(frozen=True)
class Workload:
    """One row of the table.

    Attributes:
        texts: makes what is scored, new in each repeat. The second argument divides all lengths.
        methods: names of `methods.ALL`.
        baseline: the method that the others are divided by.
        in_float32: whether the scores of each method are compared with those of the baseline in float32.
        goals: of a method, how many times as fast as another it is wanted to be.
        seconds: what it takes where bfloat16 is fast; the time of a run is divided among workloads in proportion.
        roofline: wanted share of the machine's matrix product in the model's work on unique tokens.
    """

    name: str
    title: str
    texts: Callable[[Writer, int], Texts]
    methods: tuple[str, ...]
    shape: Shape = field(default_factory=Shape)
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    baseline: str = "one at a time"
    repeats: int = 3
    in_float32: bool = True
    goals: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    seconds: float = 20.0
    roofline: float | None = None

    def with_layers(self, n_layers: int) -> Workload:
        return replace(self, shape=replace(self.shape, n_layers=n_layers), goals={}, roofline=None)
