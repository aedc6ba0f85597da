"""Criteria by their names, as reward_hub 0.1 registers them: `CriterionRegistry.register(Criterion(name, content))`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar


@dataclass
class Criterion:
    """What responses are judged by, under a name.

    Raises:
        ValueError: the name or the content is empty.
    """

    name: str
    content: str
    description: str | None = None

    def __post_init__(self) -> None:
        if not self.name or not self.content:
            raise ValueError(f"Criterion(name={self.name!r}, content={self.content!r}): both are needed.")


class CriterionRegistry:
    """The criteria that are known by name in this process; its methods belong to the class, as in 0.1."""

    _criteria: ClassVar[dict[str, Criterion]] = {}

    @classmethod
    def register(cls, criterion: Criterion) -> None:
        """Make a criterion known; one that has the same name is replaced, as in 0.1."""
        criterion.__post_init__()  # its fields may have been changed since it was made
        cls._criteria[criterion.name] = criterion

    @classmethod
    def get(cls, name: str) -> str:
        """The content of a criterion.

        Raises:
            ValueError: there is none of this name.
        """
        return cls.get_criterion(name).content

    @classmethod
    def get_criterion(cls, name: str) -> Criterion:
        """The criterion itself.

        Raises:
            ValueError: there is none of this name.
        """
        if name not in cls._criteria:
            raise ValueError(f"criterion {name!r} is not known; known: {', '.join(cls._criteria)}.")
        return cls._criteria[name]

    @classmethod
    def list_criteria(cls) -> list[str]:
        """The names of all criteria."""
        return list(cls._criteria)

    @classmethod
    def is_registered(cls, name: str) -> bool:
        return name in cls._criteria


CRITERIA: Mapping[str, str] = {
    "overall_quality": (
        "How good the response is as a whole: whether what it says is correct, whether it answers all of what was "
        "asked, whether it is clear and well ordered, whether its depth and its tone suit the question."
    ),
    "multi_step_tool_judge": (
        "How well the response takes the next step of a task that is solved with tools.\n"
        "- Stage: it fits where the task stands (planning, gathering data, analysis, finishing), and after several "
        "calls it takes stock before it goes on.\n"
        "- Strategy: early it keeps its options open, with data it checks what it assumes, and it divides what is "
        "complex into parts that follow from one another.\n"
        "- Tools: those called suit the stage and the request, with the right arguments, and each call brings the task "
        "nearer to its end."
    ),
}
"""What responses are judged by, under the names of reward_hub 0.1."""

for _name, _content in CRITERIA.items():
    CriterionRegistry.register(Criterion(_name, _content))
