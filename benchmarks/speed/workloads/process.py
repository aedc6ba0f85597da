"""Finished responses whose every step is scored."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.speed.text import Writer
from benchmarks.speed.workloads.workload import Stepwise, Texts

QUESTION, STEP = 70, 28  # tokens


def texts(n_responses: int, *, n_steps: int) -> Callable[[Writer, int], Texts]:
    def write(writer: Writer, divided_by: int) -> Texts:
        return Texts([[response(writer, n_steps, divided_by) for _ in range(n_responses)]])

    return write


def response(writer: Writer, n_steps: int, divided_by: int) -> Stepwise:
    question = writer.text(QUESTION // divided_by)
    return Stepwise(question, tuple(writer.text(writer.about(STEP // divided_by)) for _ in range(n_steps)))
