"""EurusPRM: the log-ratio of a policy and its reference, summed up to the end of each step, times 0.001.

Unbounded; higher is better. Recipe: https://huggingface.co/PRIME-RL/EurusPRM-Stage2
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pydantic

from reward_hub.encoding import completion_ids, content_start, steps_of, tokens_ending_by
from reward_hub.errors import InvalidConversationError
from reward_hub.family import Checkpoint, Config, Family, LogRatio, Setup, TensorShapes, never
from reward_hub.reads import TokenLogprobs
from reward_hub.types import Array, Conversation, Scored, StepTokens

if TYPE_CHECKING:
    from reward_hub.tokenizer import Tokenizer


STEP_LABEL = re.compile(r"Step \d+:")


class EurusOptions(pydantic.BaseModel):
    """`boundaries`: "reference" reads where the card does, "exact" from the response's start to each step's end."""

    model_config = pydantic.ConfigDict(strict=True)
    boundaries: Literal["reference", "exact"] = "reference"


def encode_steps(conversation: Conversation, setup: Setup) -> StepTokens:
    """Every step is written as "Step k: ..." (unless it is so already), and a blank line stands between two."""
    given = enumerate(steps_of(conversation), start=1)
    steps = [step if STEP_LABEL.match(step) else f"Step {k}: {step}" for k, step in given]
    whole = conversation.with_response("\n\n".join(steps))
    exact = setup.options is not None and setup.options.boundaries == "exact"
    token_ids, first, last = (_exact_ends if exact else _card_ends)(whole, steps, setup.tokenizer)
    if not 0 < first <= last[0] or last[-1] >= len(token_ids):
        raise InvalidConversationError("the rendered conversation has no token to read for a step.", field="steps")
    ends = tuple(position - first for position in last)
    return StepTokens(token_ids, list(range(first, last[-1] + 1)), step_ends=ends)


def _card_ends(whole: Conversation, steps: Sequence[str], tokenizer: Tokenizer) -> tuple[list[int], int, list[int]]:
    """Ids, first position, last position of each step, by the card's lengths of what is rendered up to each step.

    Its lengths include the template's end of turn and the blank line, so that all steps but the last end one or two
    tokens late; its mask begins one token before the response.
    """

    def length(k: int) -> int:
        text = tokenizer.render(whole.with_response("\n\n".join(steps[:k])).messages).strip()
        return len(tokenizer.encode(text + "\n\n" if 0 < k < len(steps) else text))

    token_ids = tokenizer.encode(tokenizer.render(whole.messages))
    return token_ids, length(0) - 2, [length(k) - 1 for k in range(1, len(steps) + 1)]


def _exact_ends(whole: Conversation, steps: Sequence[str], tokenizer: Tokenizer) -> tuple[list[int], int, list[int]]:
    """The same with the true boundaries: a token that goes beyond a step's last character does not count for it."""
    text = tokenizer.render(whole.messages)
    token_ids, first = completion_ids(whole, tokenizer)
    _, offsets = tokenizer.encode_with_offsets(text)
    end = content_start(text, whole.response)
    ends = []
    for step in steps:
        end += len(step)
        ends.append(end)
        end += len("\n\n")
    return token_ids, first, [n - 1 for n in tokens_ending_by(offsets, ends)]


def score_cumulative(log_ratios: Array, setup: Setup) -> Scored:
    """[n_tokens, 1] -> the sum up to each token, before the coefficient; `ImplicitRM` takes those at the step ends."""
    return Scored(steps=log_ratios[:, 0].cumsum(dtype=np.float64).tolist())


def possible_eurus(config: Config, tensors: TensorShapes, files: frozenset[str]) -> bool:
    return "Qwen2ForCausalLM" in (config.get("architectures") or [])


FAMILY = Family(
    name="eurus-prm",
    kind="process",
    source="https://huggingface.co/PRIME-RL/EurusPRM-Stage2",
    checkpoints=(
        Checkpoint("PRIME-RL/EurusPRM-Stage1", license="apache-2.0", note="reference: Qwen/Qwen2.5-Math-7B-Instruct"),
        Checkpoint("PRIME-RL/EurusPRM-Stage2", license="apache-2.0", note="reference: Qwen/Qwen2.5-Math-7B-Instruct"),
    ),
    matches=never,
    possible=possible_eurus,
    encode=encode_steps,
    read=TokenLogprobs(),
    score=score_cumulative,
    log_ratio=LogRatio(coefficient=0.001),
    options=EurusOptions,
    aggregate="last",
    reads_every_step=False,
    read_summary="response tokens of policy and reference",
    head_summary="lm_head of both models",
    reading="The card, whose mask begins one token before the response and whose inner steps end a token or two late; "
    "the authors' ProcessBench script begins at the response. boundaries='exact' gives the true spans.",
)
