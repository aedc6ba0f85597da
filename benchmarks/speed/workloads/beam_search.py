"""A search that writes a step to each of its beams and scores them before it writes the next.

Every beam is kept: which ones a search would drop depends on the scores, and all methods are to do the same work.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.speed.text import Writer
from benchmarks.speed.workloads.process import response
from benchmarks.speed.workloads.workload import Stepwise, Texts


def texts(n_beams: int, *, n_steps: int) -> Callable[[Writer, int], Texts]:
    def write(writer: Writer, divided_by: int) -> Texts:
        beams = [response(writer, n_steps, divided_by) for _ in range(n_beams)]
        question = beams[0].question
        return Texts([[Stepwise(question, beam.steps[:n]) for beam in beams] for n in range(1, n_steps + 1)])

    return write
