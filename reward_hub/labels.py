"""What config.json calls a classifier's classes: which of them is the good one.

Training tools number the good class 1 and leave the labels at LABEL_0 and LABEL_1, which say nothing. A checkpoint that
names its classes in words (`id2label`, `label2id`) is taken at its word; one whose names contradict each other, or mean
nothing that is known, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from reward_hub.errors import CheckpointError
from reward_hub.types import Config

MEANINGS: Mapping[str, frozenset[str]] = {
    "good": frozenset(
        (
            *("good", "right", "correct", "true", "yes", "valid", "positive", "pos", "better", "+", "+1"),
            *("pass", "passed", "success", "accept", "accepted", "chosen", "preferred"),
        )
    ),
    "neutral": frozenset({"neutral"}),
    "bad": frozenset(
        (
            *("bad", "wrong", "incorrect", "false", "no", "invalid", "negative", "neg", "worse", "-", "-1"),
            *("fail", "failed", "failure", "reject", "rejected", "dispreferred", "error", "mistake"),
        )
    ),
}
"""The words and signs that a class may be called by; in any case, among other words, and behind a "not"."""
_OPPOSITE = {"good": "bad", "bad": "good"}
_NEGATIONS = frozenset({"no", "not", "non"})
_PREFIXES = frozenset({"in", "un", "dis", "mis"})  # of "in_correct": too near to two meanings
# Of "error-free", "without error", "isn't correct", "never right": what turns round, and how far, is not looked into.
_OPEN = frozenset(("free", "without", "never", "cannot", "t", "aint", "lacks", "lacking", "less", "nor", "neither")) | {
    *("fails", "unlikely", "hardly", "barely", "wrongly", "falsely")
}
_NUMBERED = re.compile(r"\D*(\d+)")  # LABEL_0 and the like, which say nothing


def classes_named(config: Config, expected: Sequence[str]) -> list[int]:
    """The class of each expected meaning ("bad", "good"): as config.json names them, else in the order expected.

    Raises:
        CheckpointError: its names contradict each other, or are not understood.
    """
    by_id = _stated(config, "id2label")
    by_label = _stated(config, "label2id")
    for place, label in by_label.items():
        others = [i for i, other in by_id.items() if other == label and i != place]
        if others:
            raise _refusal(config, f"{label!r} is class {others[0]} in the one and {place} in the other")
    orders = [_order(config, labels, expected) for labels in (by_id, by_label)]
    said = [order for order in orders if order is not None]
    if len(said) == 2 and said[0] != said[1]:
        raise _refusal(config, "the one calls another class good than the other")
    return said[0] if said else list(range(len(expected)))


def meaning(label: str) -> str | None:
    """Which of `MEANINGS` a label has; None: none that is known, or several, or a negation leaves it open."""
    whole = _known(label.strip())
    if whole is not None:
        return whole
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", label)]
    found: set[str | None] = set()
    for before, word, after in zip(["", *words], words, [*words[1:], ""], strict=False):
        if word in _OPEN:
            found.add(None)
        elif word in _PREFIXES or (word in _NEGATIONS and after):
            # It turns the word behind it round, where that has a meaning; else who knows.
            found |= {None} if word in _PREFIXES or _known(after) is None else set()
        elif _known(word) is not None:
            found.add(_OPPOSITE.get(str(_known(word))) if before in _NEGATIONS else _known(word))
    return found.pop() if len(found) == 1 else None


def _known(word: str) -> str | None:
    return next((name for name, words in MEANINGS.items() if word.lower() in words), None)


def _stated(config: Config, key: str) -> dict[int, str]:
    """Class -> label, from either of the two tables."""
    table = config.get(key) or {}
    try:
        if key == "label2id":
            return {int(place): str(label) for label, place in table.items()}
        return {int(place): str(label) for place, label in (enumerate(table) if type(table) is list else table.items())}
    except (AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"config.json has {key} {table!r}, which numbers no classes.") from error


def _order(config: Config, labels: Mapping[int, str], expected: Sequence[str]) -> list[int] | None:
    """The class of each expected meaning; None where the labels are mere numbers, or there are none."""
    meanings = {i: meaning(label) for i, label in labels.items()}
    numbers = {i: int(n[1]) for i, label in labels.items() if not meanings[i] and (n := _NUMBERED.fullmatch(label))}
    for i, number in numbers.items():
        if number != i:
            raise _refusal(config, f"class {i} is called {labels[i]!r}")
    if len(numbers) == len(labels):
        return None
    if set(labels) != set(range(len(expected))):
        raise _refusal(config, f"the head has {len(expected)} classes")
    found = {name: i for i, name in meanings.items() if name is not None}
    unnamed = [i for i, name in meanings.items() if name is None]
    if len(found) + len(unnamed) < len(labels):
        raise _refusal(config, "two of them mean the same")
    missing = [name for name in expected if name not in found]
    if len(missing) > 1 or len(missing) != len(unnamed):
        raise _refusal(config, f"which of them is {' and which is '.join(expected)} is not known")
    found |= dict(zip(missing, unnamed, strict=True))
    return [found[name] for name in expected]


def _refusal(config: Config, why: str) -> CheckpointError:
    said = " and ".join(f"{key} {config[key]!r}" for key in ("id2label", "label2id") if config.get(key))
    return CheckpointError(
        f"config.json names its classes by {said}: {why}, so which of them is the good one is not certain. Correct it "
        'there ("correct" and "incorrect", say), or take both out where the last class is the good one.'
    )
