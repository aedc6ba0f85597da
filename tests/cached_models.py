"""Models and conversations of the tests of the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from reward_hub import BaseRM, InputTooLongError
from reward_hub.reward_model import CallOptions, each
from reward_hub.types import Conversation, ScoreDetails

PROBLEM = "Ann has 16 eggs. She sells 3. Then she buys 5 more. How many eggs are there?"
RIGHT = "16 - 3 = 13\n\n13 + 5 = 18"
WRONG = "16 - 3 = 12\n\n12 + 5 = 17"


class CountingRM(BaseRM):
    """Scores by length; notes what it is asked for."""

    fingerprint = "counting-1"

    def __init__(self, kind: str = "outcome") -> None:
        self.kind = kind
        self.asked: list[list[str]] = []

    def score_conversations(self, conversations: Sequence[Conversation], options: CallOptions) -> list[Any]:
        self.asked.append([c.response for c in conversations])
        options.done(len(conversations))
        return each(conversations, self._one, fail_fast=options.fail_fast)

    def _one(self, conversation: Conversation) -> ScoreDetails:
        if "broken" in conversation.response:
            raise InputTooLongError("too long", n_tokens=9, max_length=8)
        details = self._own_details(len(conversation.response) / 7)
        if conversation.steps is None:
            return details
        return ScoreDetails(**{**vars(details), "step_scores": [float(len(s)) for s in conversation.steps]})


def turns(response: str, prompt: str = "Hi") -> list[dict[str, Any]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


def without_flag(result: Any) -> Any:
    """A value with its details, without what tells a hit from a miss."""
    value, details = result
    return value, {name: entry for name, entry in details.items() if name != "cached"}


def flag(result: Any) -> bool:
    return bool(result[1]["cached"])


def module(text: str, **names: Any) -> Any:
    """A module as it would be imported; every call is another version of the same file."""
    made = ModuleType("my_models")
    vars(made).update(names)
    source = "from reward_hub import BaseRM\nimport re\nimport math\nimport logging\n" + text
    exec(compile(source, "my_models.py", "exec"), vars(made))
    return made


CLASS = """
SCALE = 100
logger = logging.getLogger("my_models")

def scaled(n):
    return n / SCALE

class Base(BaseRM):
    pattern = re.compile("a+")

class MyRM(Base):
    def __init__(self, top=1.0, words=("a", "b")):
        self.top = top
        self.words = words

    def score(self, messages):
        '''Short is good.'''
        text = messages[-1]["content"]
        return min(scaled(len(text)), self.top) + sum(word in {"x", "y", "z"} for word in self.words)
"""


WRAPPER = """
class Half(BaseRM):
    def __init__(self, rm):
        self.rm = rm

    def score(self, messages):
        return self.rm.score(messages) / 2
"""


@dataclass
class HoldingRM(BaseRM):
    """Holds anything."""

    held: Any
    words: list[str] = field(default_factory=list)

    def score(self, messages):
        return 1.0


def times(k: float) -> Callable[[float], float]:
    return lambda x: k * x


class Network:
    """Can be called, and holds what it gives."""

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(self, messages: Any) -> float:
        return self.weight
