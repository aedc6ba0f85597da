"""The same conversations through several backends: do they give one number?

`measure` collects the numbers of one model, `agreement` holds two such collections against each other. The command
`reward-hub verify` runs them over every backend that is available.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reward_hub.base import BaseRM
from reward_hub.data.columns import conversation_of, responses_of, texts_of
from reward_hub.errors import InvalidConversationError, RewardHubError

# Different wordings, lengths, languages and scripts, code and white space; the best response stands anywhere.
PROMPTS: tuple[dict[str, Any], ...] = (
    {
        "prompt": "What is 2+2?",
        "responses": ["2 + 2 = 4.", "The answer is probably 5, I think.", "4", "I'd rather not say."],
    },
    {
        "prompt": "Sam has 12 apples. He buys 5 more and eats 3. How many apples does Sam have?",
        "responses": [
            "12 + 5 = 17\n\n17 - 3 = 14",
            "12 + 5 = 18\n\n18 - 3 = 15",
            "12 - 3 = 9\n\n9 + 5 = 14\n\nThe answer is 14.",
            "14",
        ],
    },
    {
        "prompt": "Write a Python function that tells whether a number is prime.",
        "responses": [
            "def is_prime(n):\n    return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))",
            "def is_prime(n):\n    return n % 2 == 1",
            "You could look for divisors.\n\nIf there is none, the number is prime.",
            "Here it is: 🙂",
        ],
    },
    {
        "prompt": "Wie heißt die Hauptstadt von Österreich?",
        "responses": ["Wien.", "Die Hauptstadt von Österreich ist Wien.", "Zürich.", "维也纳"],
    },
)


@dataclass(frozen=True)
class Agreement:
    """How two models' numbers for the same items agree.

    Attributes:
        n: numbers compared.
        largest: largest difference.
        mean: mean difference.
        kendall_tau: rank agreement of all scores, from -1 to 1; None with fewer than two different scores.
        same_best: share of the prompts with the same best response; None where nothing can be ranked.
    """

    n: int
    largest: float
    mean: float
    kendall_tau: float | None
    same_best: float | None


def measure(rm: BaseRM, groups: Sequence[Mapping[str, Any]]) -> list[list[list[float]]]:
    """The numbers of each group's responses: one score, one a step, or for pairwise models one a comparison with the
    next response.

    Args:
        groups: dicts with `prompt` (a text or messages) and `responses`.

    Raises:
        RewardHubError: the model cannot score one of them.
    """
    return [_measure_group(rm, group) for group in groups]


def _measure_group(rm: BaseRM, group: Mapping[str, Any]) -> list[list[float]]:
    prompt, responses = group["prompt"], list(group["responses"])
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    if rm.kind == "pairwise":
        following = [*responses[1:], responses[0]]
        return [[rm.compare(turns, a=a, b=b)] for a, b in zip(responses, following, strict=True)]
    conversations = [[*turns, {"role": "assistant", "content": response}] for response in responses]
    if rm.kind == "process":
        return [list(steps) for steps in rm.score_steps_batch([{"messages": c} for c in conversations])]
    return [[score] for score in rm.score_batch(conversations)]


def agreement(expected: Sequence[Sequence[Sequence[float]]], found: Sequence[Sequence[Sequence[float]]]) -> Agreement:
    """How `found` agrees with `expected`; both as `measure` gives them, of the same groups.

    Raises:
        RewardHubError: they do not have the same number of numbers.
    """
    flat, other = _flat(expected), _flat(found)
    if [len(row) for group in expected for row in group] != [len(row) for group in found for row in group]:
        raise RewardHubError(f"One backend gives {len(flat)} numbers for these conversations, another {len(other)}.")
    gaps = [abs(a - b) for a, b in zip(flat, other, strict=True)]
    best = [_best(a) == _best(b) for a, b in zip(expected, found, strict=True) if len(a) > 1]
    return Agreement(
        n=len(gaps),
        largest=max(gaps),
        mean=math.fsum(gaps) / len(gaps),
        kendall_tau=kendall_tau(flat, other),
        same_best=sum(best) / len(best) if best else None,
    )


def kendall_tau(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Kendall's tau-b: agreement of two rankings, ties allowed. None where one of them ties throughout.

    Source: M. G. Kendall, The treatment of ties in ranking problems (1945).
    """
    agreeing, ties_a, ties_b, pairs = 0, 0, 0, 0
    for i in range(len(a)):
        for j in range(i):
            x, y = _sign(a[i] - a[j]), _sign(b[i] - b[j])
            agreeing += x * y
            ties_a += x == 0
            ties_b += y == 0
            pairs += 1
    scale = math.sqrt((pairs - ties_a) * (pairs - ties_b))
    return agreeing / scale if scale else None


def check_groups(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Rows of a user's file as groups: a prompt with `responses`, or one conversation a row.

    Raises:
        InvalidConversationError: a row is neither.
    """
    groups = []
    for place, row in enumerate(rows):
        try:
            if isinstance(row, Mapping) and row.get("responses") is not None:
                prompt, responses = responses_of(row)
            else:
                prompt, responses = texts_of({"response": conversation_of(row)})
        except InvalidConversationError as error:
            raise InvalidConversationError(f"row {place}: {error.message}", field="rows") from error
        groups.append({"prompt": prompt, "responses": responses})
    return groups


def _flat(groups: Sequence[Sequence[Sequence[float]]]) -> list[float]:
    return [number for group in groups for row in group for number in row]


def _best(group: Sequence[Sequence[float]]) -> int:
    """The response with the highest number, steps taken by their smallest."""
    return max(range(len(group)), key=lambda i: (min(group[i]), -i))


def _sign(x: float) -> int:
    return (x > 0) - (x < 0)
