"""Answers to one prompt, of which the best is wanted."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.speed.text import Writer
from benchmarks.speed.workloads.workload import Texts


def texts(n: int, *, prompt: int, answer: int) -> Callable[[Writer, int], Texts]:
    def write(writer: Writer, divided_by: int) -> Texts:
        question = writer.text(prompt // divided_by)
        answers = [writer.text(writer.about(answer // divided_by)) for _ in range(n)]
        conversations = [
            [{"role": "user", "content": question}, {"role": "assistant", "content": answer}] for answer in answers
        ]
        return Texts([conversations])

    return write
