"""The reward that a DPO- or KTO-trained model implies: beta times the sum of log p(token) - log p_reference(token).

Summed over the response; unbounded, higher is better. Both models are asked for the log-probability of each response
token, given all before it. Recipe: https://arxiv.org/abs/2305.18290
"""

from __future__ import annotations

import numpy as np
import pydantic

from reward_hub.encoding import completion_ids
from reward_hub.family import Config, Family, LogRatio, Setup, TensorShapes, never
from reward_hub.reads import TokenLogprobs
from reward_hub.types import Array, Conversation, Scored, TokenInput


class ImplicitOptions(pydantic.BaseModel):
    """`reference_free`: the policy's own log-probabilities, as if the reference gave every response the same."""

    model_config = pydantic.ConfigDict(strict=True)
    reference_free: bool = False


def encode_completion(conversation: Conversation, setup: Setup) -> TokenInput:
    """Read every token of the response, its end of turn and what the template writes behind that included (TRL)."""
    token_ids, start = completion_ids(conversation, setup.tokenizer)
    return TokenInput(token_ids, list(range(start, len(token_ids))))


def score_sum(log_ratios: Array, setup: Setup) -> Scored:
    """[n_tokens, 1] -> their sum, before the coefficient."""
    return Scored(float(log_ratios.sum(dtype=np.float64)))


def possible(config: Config, tensors: TensorShapes, files: frozenset[str]) -> bool:
    """Any causal LM could be a policy."""
    return any(name.endswith("ForCausalLM") for name in config.get("architectures") or [])


FAMILY = Family(
    name="implicit",
    kind="outcome",
    source="https://arxiv.org/abs/2305.18290",
    matches=never,
    possible=possible,
    encode=encode_completion,
    read=TokenLogprobs(),
    score=score_sum,
    log_ratio=LogRatio(coefficient=0.1, normalizable=True),
    options=ImplicitOptions,
    read_summary="response tokens of policy and reference",
    head_summary="lm_head of both models",
    reading="TRL's mask: the response with its end of turn. RewardBench also counts the assistant's header, adds a bos "
    "and an eos, and applies no beta.",
)
