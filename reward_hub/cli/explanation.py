"""What a model makes of one conversation, or of two responses to a prompt, as data; `explanation_text` prints it."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reward_hub import messages as border
from reward_hub.calls import Call, require_splitting, score_call, steps_call
from reward_hub.cli.usage import UsageError
from reward_hub.data.columns import conversation_of, pair_of, stepwise_of, texts_of
from reward_hub.data.rows import STDIN, Row, RowFormatError, read_rows
from reward_hub.reward_model import CallOptions, required
from reward_hub.types import ModelInput, ScoreDetails

if TYPE_CHECKING:
    from reward_hub.base import BaseRM

_PAIRS = (("a", "b"), ("chosen", "rejected"))


@dataclass(frozen=True)
class Explained:
    """One score, or one comparison, and how it came to be.

    Attributes:
        call: "score", or "compare": then the score is the probability that the first response is the better one.
        steps: what the step scores are of.
    """

    call: str
    details: ScoreDetails
    inputs: Sequence[ModelInput]
    steps: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        details = self.details
        spans: Sequence[list[int] | None] = details.step_spans or [None] * len(self.steps)
        scores = details.step_scores or []
        return {
            "call": self.call,
            "score": details.score,
            "steps": [
                {"text": text, "score": score, "span": span}
                for text, score, span in zip(self.steps, scores, spans, strict=True)
            ],
            "inputs": [dataclasses.asdict(one) for one in self.inputs],
            "details": details.to_dict(),
        }


@dataclass(frozen=True)
class Explanation:
    """The model, and what it makes of each response (or of the pair, where it compares)."""

    rm: BaseRM
    explained: Sequence[Explained]

    def to_dict(self) -> dict[str, Any]:
        rm = self.rm
        return {
            "model": rm.name,
            "family": rm.family,
            "kind": rm.kind,
            "higher_is_better": rm.higher_is_better,
            "template": rm.capabilities.chat_template,
            "load_report": dict(rm.load_report),
            "explained": [one.to_dict() for one in self.explained],
        }


def explain(
    rm: BaseRM,
    items: Sequence[Mapping[str, Any]],
    *,
    step_delimiter: str | None = None,
    template: Mapping[str, Any] | None = None,
) -> Explanation:
    """Score what is asked, and say how.

    Args:
        items: one response or two, each a dict of `messages` and, where they are given, `steps`.
        template: what the chat template takes besides.

    Raises:
        UsageError: the model compares two responses, and there is one.
        RewardHubError: it cannot be scored.
    """
    template = template or {}
    if rm.kind == "pairwise" and (len(items) > 1 or not rm.capabilities.has_score):
        require_splitting(rm, step_delimiter)
        explained = [_of_pair(rm, items, template)]
    else:
        explained = [_of_response(rm, item, step_delimiter, template) for item in items]
    return Explanation(rm, explained)


def _of_response(
    rm: BaseRM, item: Mapping[str, Any], step_delimiter: str | None, template: Mapping[str, Any]
) -> Explained:
    call = call_of(rm, item, step_delimiter, template)
    (conversation,) = call.conversations
    (result,) = rm.score_conversations([conversation], call.options)
    details = required(result)
    with _said_before():
        inputs = rm.inputs_of(conversation)
    return Explained("score", details, inputs, conversation.steps or () if details.step_scores else ())


def call_of(rm: BaseRM, item: Mapping[str, Any], step_delimiter: str | None, template: Mapping[str, Any]) -> Call:
    """The call that scores one item."""
    if item.get("steps") is not None:
        return steps_call(rm, [item], single=True, **template)
    return score_call(rm, item["messages"], step_delimiter=step_delimiter, **template)


def _of_pair(rm: BaseRM, items: Sequence[Mapping[str, Any]], template: Mapping[str, Any]) -> Explained:
    if len(items) < 2:
        raise UsageError(f"{rm.name} compares two responses: give the other one with --against RESPONSE.")
    conversations = {name: border.parse(item["messages"]) for name, item in zip("ab", items, strict=True)}
    prompt, (a, b) = texts_of(conversations)
    pair = border.parse_pair(prompt, a=a, b=b)
    pair = dataclasses.replace(pair, prompt=border.with_template_arguments(pair.prompt, **template))
    (result,) = rm.compare_pairs([pair], False, CallOptions(fail_fast=True))
    details = required(result)
    with _said_before():
        inputs = rm.inputs_of(pair)
    return Explained("compare", details, inputs)


@contextlib.contextmanager
def _said_before() -> Iterator[None]:
    """Without warnings and debug lines: the conversation is made into tokens once more."""
    logger = logging.getLogger("reward_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


# -- what is asked -----------------------------------------------------------------------------------------------------


def typed_items(prompt: str, response: str, against: str | None) -> list[dict[str, Any]]:
    """The items of texts as they are typed."""
    return [
        {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": text}]}
        for text in (response, against)
        if text is not None
    ]


def row_items(place: str) -> list[dict[str, Any]]:
    """The items of one row of a file: one response, or the two of a pair.

    Args:
        place: the file, `-` for standard input, or `FILE:N` for the N-th row, as bad rows are named.

    Raises:
        UsageError: there is no such file or row.
        InvalidConversationError: the row holds no conversation.
    """
    path, colon, number = place.rpartition(":")
    if not (colon and number.isdecimal()):
        path, number = place, "1"
    try:
        row = next((row for row in read_rows(path) if row.number == int(number)), None)
    except RowFormatError as error:
        raise UsageError(f"--explain-row {place}: {error}") from error
    except OSError as error:
        raise UsageError(f"--explain-row {place}: {path} cannot be read: {error.strerror}.") from error
    if row is None or row.record is None:
        what = "standard input" if path == STDIN else path
        raise UsageError(f"--explain-row {place}: {what} has no row {number}{_why(row)}.")
    return items_of(row.record)


def items_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The items of a row: one response, or the two of a pair.

    Raises:
        InvalidConversationError: the row holds no conversation.
    """
    if any(all(record.get(name) is not None for name in pair) for pair in _PAIRS):
        return [{"messages": conversation.to_dicts()} for conversation in pair_of(record).values()]
    if record.get("steps") is not None:
        return [stepwise_of(record)]
    return [{"messages": conversation_of(record).to_dicts()}]


def _why(row: Row | None) -> str:
    return "" if row is None else f" that can be read: {row.error}"
