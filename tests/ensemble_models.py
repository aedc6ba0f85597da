"""Small models of known scores, as members of ensembles."""

from __future__ import annotations

import asyncio
import math

import numpy as np

from reward_hub import (
    BaseRM,
    EnsembleRM,
)
from reward_hub.numerics import sigmoid
from reward_hub.types import ScoreDetails, joined_details


def conversation(response, prompt="Hi"):
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


CONVERSATIONS = [conversation("word " * n + "." * (7 * n % 5)) for n in range(12)]


class Scaled(BaseRM):
    """Characters, times a factor, plus an offset."""

    def __init__(self, factor=1.0, offset=0.0, *, name="characters", cost=False):
        self.factor, self.offset, self.name = factor, offset, name
        self.higher_is_better = not cost

    def score(self, messages):
        return self.factor * len(messages[-1]["content"]) + self.offset


class Vowels(BaseRM):
    name = "vowels"

    def score(self, messages):
        return math.sqrt(sum(letter in "aeiou" for letter in messages[-1]["content"]))


class Words(BaseRM):
    """Asynchronous, as models on servers are."""

    name = "words"

    async def ascore(self, messages):
        await asyncio.sleep(0)
        return float(len(messages[-1]["content"].split()) % 5)


class Failing(BaseRM):
    name = "failing"

    def __init__(self, on=""):
        self.on = on

    def score(self, messages):
        if self.on in messages[-1]["content"]:
            raise ValueError("no such word")
        return 1.0


class Steps(BaseRM):
    kind = "process"

    def __init__(self, function, *, name="steps", step_delimiter="\n\n", cost=False):
        self.function, self.name, self.step_delimiter = function, name, step_delimiter
        self.higher_is_better = not cost

    def score_steps(self, messages, steps):
        return [self.function(step) for step in steps]


class Judge(BaseRM):
    """Compares: p(a) grows with the difference of the lengths; `bias` speaks for the first place."""

    kind = "pairwise"

    def __init__(self, scale=1.0, bias=0.0, *, name="judge"):
        self.scale, self.bias, self.name = scale, bias, name

    def _details(self, probability):
        return ScoreDetails(probability, [probability], probability, 10, extra={"reasoning": f"{self.name} says so"})

    def _p(self, a, b):
        return sigmoid(self.scale * (len(a) - len(b)) + self.bias)

    def compare_pairs(self, pairs, both_orders, options):
        first = [self._p(pair.a, pair.b) for pair in pairs]
        if both_orders:
            first = [(p + 1 - self._p(pair.b, pair.a)) / 2 for p, pair in zip(first, pairs, strict=True)]
        return [self._details(p) for p in first]

    def rank_responses(self, prompt, responses, options):
        wins = [np.mean([self._p(a, b) for b in responses]) for a in responses]
        return joined_details([self._details(float(win)) for win in wins])


def three(**options):
    return EnsembleRM([(Scaled(0.1), 0.5), (Vowels(), 0.3), (Words(), 0.2)], **options)


def member_scores(rm, conversations=CONVERSATIONS):
    return np.array([model.score_batch(conversations) for model, _ in rm.members])
