"""Dr. SoW: the mean log-ratio of a strong and a weak model, each with a tokenizer of its own.

Unbounded; higher is better. Recipe: https://arxiv.org/abs/2411.02481
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pydantic

from reward_hub.families.implicit import encode_completion, score_sum
from reward_hub.family import Family, LogRatio, Setup, never
from reward_hub.reads import TokenLogprobs
from reward_hub.types import Conversation, Message, TokenInput

if TYPE_CHECKING:
    from reward_hub.tokenizer import Tokenizer


class DrSowOptions(pydantic.BaseModel):
    """`mask_special_tokens`: no special token counts, not only the padding token; `system_prompt`: put in front."""

    model_config = pydantic.ConfigDict(strict=True)
    mask_special_tokens: bool = False
    system_prompt: str | None = None


def encode_drsow(conversation: Conversation, setup: Setup) -> TokenInput:
    """The same, behind a system prompt of the caller's where there is one."""
    if setup.options is not None and setup.options.system_prompt is not None:
        conversation = Conversation((Message("system", setup.options.system_prompt), *conversation.messages))
    return encode_completion(conversation, setup)


def is_left_out(strong: Setup, tokenizer: Tokenizer, token_id: int) -> bool:
    """Whether Dr. SoW leaves a token of either model out of the sums: the strong model's padding token, by its text."""
    mask_special = strong.options is not None and strong.options.mask_special_tokens
    if mask_special and not tokenizer.decode([token_id], skip_special_tokens=True):
        return True
    return tokenizer.token(token_id) == strong.tokenizer.pad_token


FAMILY = Family(
    name="drsow",
    kind="outcome",
    source="https://arxiv.org/abs/2411.02481",
    matches=never,
    encode=encode_drsow,
    read=TokenLogprobs(),
    score=score_sum,
    log_ratio=LogRatio(coefficient=1.0, fixed=True, average=True, one_tokenizer=False, leaves_out=is_left_out),
    options=DrSowOptions,
    read_summary="response tokens of the strong and the weak model",
    head_summary="lm_head of both models",
    reading="The published mean over the response tokens. The original skips the first of them where the tokenizer "
    "adds a bos; here all count.",
)
