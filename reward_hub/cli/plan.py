"""What scoring the rows of a file would take: for `reward-hub inspect --plan`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from reward_hub.cli.explanation import call_of, items_of
from reward_hub.cli.usage import UsageError
from reward_hub.data.rows import RowFormatError, read_rows
from reward_hub.errors import InputTooLongError, InvalidConversationError

if TYPE_CHECKING:
    from reward_hub.base import BaseRM
    from reward_hub.models.model_rm import ModelRM
    from reward_hub.types import TokenInput

# Tokens of the inputs that are read to see how fast the model is.
MEASURED = 512


@dataclass(frozen=True)
class Planned:
    """What a run would take.

    Attributes:
        rows: those that would be scored; `failed` could not be.
        tokens: of all conversations.
        tokens_after_sharing: that go through the model, as what several share is computed once.
        padding: tokens that go through the model and mean nothing.
        largest_forward: in tokens.
        estimated_seconds: of the forwards, by the time that some short inputs took now; tokenising comes on top.
        estimated_memory_bytes: of the weights and the largest forward.
    """

    rows: int
    failed: int
    tokens: int
    tokens_after_sharing: int
    padding: int
    forwards: int
    largest_forward: int
    estimated_seconds: float
    estimated_memory_bytes: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def shown(self) -> Iterator[tuple[str, str]]:
        """Names and texts, for a terminal."""
        share = 1 - self.tokens_after_sharing / self.tokens if self.tokens else 0.0
        yield "rows", f"{self.rows:,}" + (f", and {self.failed:,} that cannot be scored" if self.failed else "")
        yield "tokens", f"{self.tokens:,}"
        yield "after sharing", f"{self.tokens_after_sharing:,} ({share:.0%} shared)"
        yield "padding", f"{self.padding:,}"
        yield "forwards", f"{self.forwards:,}, the largest of {self.largest_forward:,} tokens"
        yield "time", f"about {self.estimated_seconds:,.1f} s (an estimate, from one short forward)"
        yield "memory", f"about {self.estimated_memory_bytes / 2**20:,.0f} MiB (an estimate: weights, largest forward)"


def planned(
    rm: BaseRM, path: str, *, step_delimiter: str | None = None, template: Mapping[str, Any] | None = None
) -> Planned:
    """Plan the rows of a file.

    Raises:
        UsageError: the file cannot be read, or the model is not one that runs here.
        UnsupportedError: the engine makes its batches itself.
    """
    from reward_hub.models.model_rm import ModelRM

    if not isinstance(rm, ModelRM):
        raise UsageError(f"--plan is for models that score one conversation at a time in this process; not {rm.name}.")
    inputs: list[TokenInput] = []
    n_rows = n_failed = 0
    try:
        for row in read_rows(path):
            n_rows += 1
            try:
                if row.record is None:
                    raise InvalidConversationError(row.error or "the row cannot be read")
                for item in items_of(row.record):
                    for conversation in call_of(rm, item, step_delimiter, template or {}).conversations:
                        inputs += rm.tokens_of(conversation)
            except (InvalidConversationError, InputTooLongError):
                n_failed += 1
    except RowFormatError as error:
        raise UsageError(f"--plan {path}: {error}") from error
    except OSError as error:
        raise UsageError(f"--plan {path}: {path} cannot be read: {error.strerror}.") from error
    plan = rm.model.backend.planned(inputs, batch_size=rm.model.batch_size)
    return Planned(
        rows=n_rows - n_failed,
        failed=n_failed,
        tokens=plan.n_tokens,
        tokens_after_sharing=plan.n_unique,
        padding=plan.n_padding,
        forwards=len(plan.forwards),
        largest_forward=max(plan.forwards, default=0),
        estimated_seconds=sum(plan.forwards) * _seconds_a_token(rm, inputs),
        estimated_memory_bytes=plan.memory_bytes,
    )


def _seconds_a_token(rm: ModelRM, inputs: Sequence[TokenInput]) -> float:
    """What a token takes in one short forward; the first one warms up."""
    chosen: list[TokenInput] = []
    for item in sorted(inputs, key=lambda item: len(item.token_ids)):
        if chosen and sum(len(one.token_ids) for one in chosen) + len(item.token_ids) > MEASURED:
            break
        chosen.append(item)
    if not chosen:
        return 0.0
    rm.model.backend.read(chosen[:1])
    n_tokens = sum(rm.model.backend.planned(chosen).forwards)
    started = time.perf_counter()
    rm.model.backend.read(chosen)
    return (time.perf_counter() - started) / n_tokens
