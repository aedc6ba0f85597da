"""A rubric put before a judge in each mode: pointwise, pairwise, listwise, stepwise. `rubric_form` makes the form.

The judge replies with one JSON object: its reasons, and a verdict for each criterion, which are combined here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from reward_hub.errors import JudgeParseError, UnsupportedError
from reward_hub.judge.form import ChatMessages, JudgeForm, JudgeTask, Mode, Reply, Verdict
from reward_hub.judge.rubrics.expected_scores import expected_at
from reward_hub.judge.rubrics.fencing import conversation_parts, fenced
from reward_hub.judge.rubrics.reply_json import ReplyObject, verdict_in
from reward_hub.judge.rubrics.reply_words import value_in_words
from reward_hub.judge.rubrics.rubric import Rubric, plain_name
from reward_hub.judge.rubrics.verdict_fields import VERDICT_FIELDS, Schema, Values, VerdictField

SOURCE = "reward_hub"
# Changed with the words below, which are part of what a score depends on.
VERSION = 1


def rubric_form(rubric: Rubric, mode: Mode, *, use_logprobs: bool = False) -> JudgeForm:
    """The form that asks for a verdict by this rubric.

    Args:
        use_logprobs: read the expected score over the tokens of the score, in place of the one that was written.

    Raises:
        TypeError: there is no such mode.
        UnsupportedError: `use_logprobs` for an order, or for scores that are too many to be labels.
    """
    if mode not in VERDICT_FIELDS:
        raise TypeError(f"mode={mode!r}; known: {', '.join(map(repr, VERDICT_FIELDS))}.")
    field = VERDICT_FIELDS[mode](rubric)
    if use_logprobs and field.labels is None:
        raise UnsupportedError(
            "use_logprobs needs verdicts of a few characters: whole scores or a preference, not "
            + ("an order of responses." if mode == "listwise" else f"{rubric.scale}.")
        )
    asked = _RubricInMode(rubric, mode, field, use_logprobs)
    return JudgeForm(
        name=f"rubric-{mode}",
        mode=mode,
        source=SOURCE,
        request=asked.request,
        read=asked.read,
        response_schema=asked.schema,
        score_range=rubric.score_range if mode in ("pointwise", "stepwise") else (0.0, 1.0),
        logprobs=use_logprobs,
        weights=rubric.weights if mode in ("pointwise", "pairwise") else {},
    )


_ROLE = {
    "pointwise": "You judge a response to a conversation by a rubric.",
    "pairwise": "You compare two responses to a conversation, A and B, by a rubric.",
    "listwise": "You compare {n} responses to a conversation by a rubric.",
    "stepwise": "You judge each of the {n} steps of a response to a conversation by a rubric. A step is judged by what "
    "it says itself, given the steps before it.",
}


@dataclass(frozen=True)
class _RubricInMode:
    """One rubric in one mode: the request, its schema, and the reply read."""

    rubric: Rubric
    mode: Mode
    field: VerdictField
    use_logprobs: bool

    @property
    def _key(self) -> str:
        """The verdict's name in the reply."""
        return self.field.key + "s" if self.rubric.criteria else self.field.key

    # -- the request ---------------------------------------------------------------------------------------------

    def request(self, task: JudgeTask, replies: Sequence[Reply]) -> ChatMessages:
        n = len(task.steps or ()) if self.mode == "stepwise" else len(task.responses)
        blocks = [
            _ROLE[self.mode].format(n=n),
            f"Rubric:\n{self._rubric_text()}",
            self._task_text(task),
            fenced(_parts(task, self.mode)),
            "Reply with one JSON object in this form, and with nothing after it:\n" + self._form_text(n),
        ]
        return [{"role": "user", "content": "\n\n".join(blocks)}]

    def _rubric_text(self) -> str:
        rubric = self.rubric
        lines = [rubric.instructions.strip()]
        lines += [f"- {name}: {text}" for name, text in rubric.descriptions.items()]
        lines += [f"- {level:g}: {text}" for level, text in sorted(rubric.levels.items())]
        return "\n".join(lines)

    def _task_text(self, task: JudgeTask) -> str:
        criteria = ", ".join(self.rubric.criteria)
        what = "each step" if self.mode == "stepwise" else "the response"
        text = self.field.task.format(
            what=f"{what}, for each criterion on its own," if criteria else what,
            by=", for each criterion on its own" if criteria else "",
        )
        if self.mode == "listwise" and task.top_n is not None and task.top_n < len(task.responses):
            text += f" Name the best {task.top_n} only."
        if criteria:
            text += f" The criteria: {criteria}. Do not combine them."
        if task.reference is not None:
            text += " A reference answer is given: take it as right."
        return text

    def _form_text(self, n: int) -> str:
        hint = self.field.hint
        if self.rubric.criteria:
            hint = (
                "{"
                + ", ".join(f"{json.dumps(name, ensure_ascii=False)}: {hint}" for name in self.rubric.criteria)
                + "}"
            )
        one = f'{{"reasoning": "<your reasons, in a few sentences>", "{self._key}": {hint}}}'
        return (
            f'{{"steps": [{one}, ...]}}, with one entry for each of the {n} steps' if self.mode == "stepwise" else one
        )

    def schema(self, task: JudgeTask) -> Schema:
        one = self.field.schema(task)
        if self.rubric.criteria:
            one = _object(dict.fromkeys(self.rubric.criteria, one))
        one = _object({"reasoning": {"type": "string"}, self._key: one})
        if self.mode == "stepwise":
            n = len(task.steps or ())
            one = _object({"steps": {"type": "array", "items": one, "minItems": n, "maxItems": n}})
        return one

    # -- the reply -----------------------------------------------------------------------------------------------

    def read(self, task: JudgeTask, replies: Sequence[Reply]) -> Verdict:
        reply = replies[-1]
        key = "steps" if self.mode == "stepwise" else self._key
        entries, reply_object = verdict_in(
            reply.text,
            key=key,
            read=lambda value: self._entries(value, task),
            holds=lambda value: _has(value, key) or self._is_flat(value),
            in_words=self._in_words,
        )
        mass = None
        if self.use_logprobs:
            entries, mass = self._expected(entries, reply, reply_object)
        combined = [self._combined(entry) for entry in entries]
        reasons = [str(part.get("reasoning") or "") for part in self._parts_of(reply_object.value)]
        return Verdict(
            scores=tuple(value for values in combined for value in values),
            criteria={} if None in entries[0] or self.mode not in ("pointwise", "pairwise") else _single(entries[0]),
            reasoning="\n".join(reasons).strip(),
            score_mass=mass,
        )

    def _parts_of(self, value: dict[str, Any]) -> list[dict[str, Any]]:
        """The objects with a verdict each: the steps, or the reply itself."""
        if self.mode != "stepwise":
            return [value]
        steps = _under(value, "steps")
        if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
            raise ValueError("'steps' is not a list of objects")
        return steps

    def _entries(self, value: dict[str, Any], task: JudgeTask) -> list[_Entry]:
        parts = self._parts_of(value)
        if self.mode == "stepwise" and len(parts) != len(task.steps or ()):
            raise ValueError(f"{len(parts)} steps are scored, the response has {len(task.steps or ())}")
        return [self._entry(part, task) for part in parts]

    def _is_flat(self, value: dict[str, Any]) -> bool:
        """Whether the criteria stand in the object itself, without the key around them."""
        names = {plain_name(name) for name in value}
        single = self.mode in ("pointwise", "pairwise") and bool(self.rubric.criteria)
        return single and all(plain_name(name) in names for name in self.rubric.criteria)

    def _in_words(self, text: str) -> dict[str, Any] | None:
        """The object that a reply in words stands for: "Score: 4", or "Clarity: 4/5" for each criterion."""
        names = list(self.rubric.criteria) or [self.field.key]
        stated = {name: value_in_words(text, name) for name in names}
        if self.mode not in ("pointwise", "pairwise") or None in stated.values():
            return None
        return {self._key: stated} if self.rubric.criteria else {self._key: stated[self.field.key]}

    def _entry(self, value: dict[str, Any], task: JudgeTask) -> _Entry:
        if not _has(value, self._key) and not self._is_flat(value):
            raise ValueError(f"{self._key!r} is missing")
        verdicts = _under(value, self._key) if _has(value, self._key) else value
        if not self.rubric.criteria:
            return {None: self.field.read(verdicts, task)}
        if not isinstance(verdicts, dict):
            raise ValueError(f"{self._key!r} is not an object with the criteria")
        plain: dict[str, Any] = {}
        for name, one in verdicts.items():
            if plain.setdefault(plain_name(name), one) != one:
                raise ValueError(f"{name!r} is given twice")
        if missing := [name for name in self.rubric.criteria if plain_name(name) not in plain]:
            raise ValueError(f"{', '.join(missing)} has no verdict")
        return {name: self.field.read(self._bare(plain[plain_name(name)]), task) for name in self.rubric.criteria}

    def _bare(self, value: Any) -> Any:
        """A criterion's verdict without the reasons that some judges put beside each."""
        return value[self.field.key] if isinstance(value, dict) and self.field.key in value else value

    def _combined(self, entry: _Entry) -> Values:
        """Criteria by their weights, number by number."""
        if not self.rubric.criteria:
            return entry[None]
        weights = self.rubric.weights
        n = len(next(iter(entry.values())))
        return tuple(math.fsum(weights[name or ""] * values[k] for name, values in entry.items()) for k in range(n))

    def _expected(self, entries: list[_Entry], reply: Reply, reply_object: ReplyObject) -> tuple[list[_Entry], float]:
        """The same entries with the expected value in place of each."""
        labels = self.field.labels
        assert labels is not None
        masses: list[float] = []

        def expected(place: int, label: str) -> Values:
            one = expected_at(reply, place, label, labels)
            masses.append(one.mass)
            return (one.value,)

        expected_entries: list[_Entry] = [{} for _ in entries]
        for name in entries[0]:
            places = _places_of(name or self.field.key, labels, reply.text, reply_object)
            if len(places) != len(entries):
                key = name or self.field.key
                problem = f"{key!r} stands {len(places)} times in the judge's reply, not {len(entries)}."
                raise JudgeParseError(problem, text=reply.text)
            for entry, (place, label) in zip(expected_entries, places, strict=True):
                entry[name] = expected(place, label)
        return expected_entries, min(masses)


_Entry: TypeAlias = dict[str | None, Values]
"""Criterion -> numbers; None -> numbers where there are no criteria."""


def _has(value: dict[str, Any], key: str) -> bool:
    """Whether an object has a key, in whichever case."""
    return any(plain_name(name) == key for name in value)


def _under(value: dict[str, Any], key: str) -> Any:
    """What an object has under a key, in whichever case, if anything.

    Raises:
        ValueError: two things that differ.
    """
    values = [one for name, one in value.items() if plain_name(name) == key]
    if any(one != values[0] for one in values[1:]):
        raise ValueError(f"{key!r} is given twice")
    return values[0] if values else None


def _single(entry: _Entry) -> dict[str, float]:
    return {name: values[0] for name, values in entry.items() if name is not None}


def _object(properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _parts(task: JudgeTask, mode: Mode) -> list[tuple[str, str]]:
    """What is judged, part by part."""
    parts = conversation_parts(task.prompt)
    if task.reference is not None:
        parts.append(("REFERENCE ANSWER", task.reference))
    if mode == "stepwise":
        return parts + [(f"STEP {i}", step) for i, step in enumerate(task.steps or (), start=1)]
    if mode == "pairwise":
        return parts + [(f"RESPONSE {name}", text) for name, text in zip("AB", task.responses, strict=True)]
    if mode == "listwise":
        return parts + [(f"RESPONSE {i}", text) for i, text in enumerate(task.responses, start=1)]
    return [*parts, ("RESPONSE", task.responses[0])]


def _places_of(key: str, labels: Mapping[str, float], text: str, reply_object: ReplyObject) -> list[tuple[int, str]]:
    """Where the values of a key stand in the object's text, and what they say."""
    # Quotes inside a JSON string are escaped, so the key cannot be found in the reasons.
    longest_first = "|".join(re.escape(label) for label in sorted(labels, key=len, reverse=True))
    # As the judge may have written it: in other case, with other white space, its characters escaped or not.
    ways = {json.dumps(key)[1:-1], json.dumps(key, ensure_ascii=False)[1:-1]}
    words = "|".join(r"\s+".join(re.escape(word) for word in way.split()) for way in sorted(ways))
    pattern = re.compile(rf'(?<!\\)"\s*(?:{words})\s*"\s*:\s*"?\s*({longest_first})(?!\w)', re.IGNORECASE)
    return [(m.start(1), m[1]) for m in pattern.finditer(text, reply_object.start, reply_object.end)]
