"""Preference pairs of many lengths: most are short, some are long."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.speed.text import Writer
from benchmarks.speed.workloads.workload import Texts

MEDIAN = 90  # tokens of an answer; prompts are a third of that
SPREAD = 0.8  # standard deviation of the logarithm
LONGEST = 900


def texts(n_conversations: int) -> Callable[[Writer, int], Texts]:
    def write(writer: Writer, divided_by: int) -> Texts:
        conversations = []
        for _ in range(n_conversations // 2):
            length = min(LONGEST, MEDIAN * writer.generator.lognormvariate(0.0, SPREAD))
            question = writer.text(max(2, round(length / 3 / divided_by)))
            for _ in range(2):  # chosen, rejected
                answer = writer.text(writer.about(max(2, round(length / divided_by))))
                conversations.append([{"role": "user", "content": question}, {"role": "assistant", "content": answer}])
        return Texts([conversations])

    return write
