"""Attention over a packed row, held to plain softmax over each conversation."""

from __future__ import annotations

import math
import random

import pytest
import torch

from reward_hub.backends.packing.attention import Kept, PackedRow, cpu_kernel
from reward_hub.backends.packing.plan import Costs, plans


class ShareAll(Costs):
    def worth(self, saved: int, n_rows: int) -> bool:
        return True


def plain(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cap: float | None) -> torch.Tensor:
    """[heads, n, size] each, in float64: causal attention, the textbook's."""
    k, v = (x.repeat_interleave(len(q) // len(x), dim=0) for x in (k, v))
    scores = q @ k.transpose(1, 2) * q.shape[-1] ** -0.5
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    n = q.shape[1]
    scores = scores.masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), -math.inf)
    return torch.softmax(scores, dim=-1) @ v


@pytest.mark.parametrize("max_tokens", [500, 31])
@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("cap", [None, 3.0])
@pytest.mark.parametrize("value_size", [8, 6])
def test_every_token_sees_its_conversation_and_nothing_else(
    max_tokens: int, joined: bool, cap: float | None, value_size: int
) -> None:
    """Keys and values are functions of token and position, so that a wrong place shows; 6e-6: sums in float32."""
    numbers = random.Random(1)
    prompt, other = ([numbers.randrange(50) for _ in range(n)] for n in (33, 9))
    token_ids = [prompt + [numbers.randrange(50) for _ in range(3 + 4 * i)] for i in range(5)]
    token_ids += [prompt[:20], other, other + other, [*other, 7]]
    tables = [torch.randn(50, 60, heads, size) for heads, size in ((4, 8), (2, 8), (2, value_size))]

    def vectors(ids: list[int], positions: list[int]) -> list[torch.Tensor]:
        return [table[ids, positions].transpose(0, 1) for table in tables]

    positions = [list(range(len(ids))) for ids in token_ids]
    kept: list[list[Kept]] = []
    (plan,) = plans(token_ids, positions, max_tokens=max_tokens, costs=ShareAll())
    for forward in plan.forwards:
        q, k, v = vectors(forward.token_ids, forward.position_ids)
        row = PackedRow(forward, kept, joined=joined)
        out = row.attend(q[None], k[None], v[None], scale=8**-0.5, cap=cap)[0]
        kept = row.keeps
        for read in forward.reads:
            ids = token_ids[read.conversation]
            expected = plain(*(x.double() for x in vectors(ids, positions[read.conversation])), cap=cap)
            found = out[read.place - forward.span.start].double()
            assert float((found - expected[:, read.position]).abs().max()) <= 6e-6


def test_the_kernel_gives_the_log_sum_exp_of_its_scores() -> None:
    q, k, v = torch.randn(1, 4, 5, 8), torch.randn(1, 2, 9, 8), torch.randn(1, 2, 9, 8)
    scores = q @ k.repeat_interleave(2, dim=1).transpose(2, 3) * 0.5
    for cap, expected in ((None, scores), (2.0, 2.0 * torch.tanh(scores / 2.0))):
        _, sums = cpu_kernel(q, k, v, scale=0.5, causal=False, cap=cap)
        torch.testing.assert_close(sums, torch.logsumexp(expected, dim=-1))


@pytest.mark.parametrize("other", [math.nan, math.inf])
def test_what_overflows_in_one_conversation_does_not_reach_another(other: float) -> None:
    token_ids = [[1] * 9, [2] * 12]
    (plan,) = plans(token_ids, [[8], [11]], max_tokens=100)
    (forward,) = plan.forwards
    q, k, v = (torch.ones(1, 2, 21, 8, dtype=torch.bfloat16) for _ in range(3))
    spoiled = torch.tensor(forward.token_ids) == 2
    for tensor in (q, k, v):
        tensor[:, :, spoiled] = other
    out = PackedRow(forward).attend(q, k, v, scale=1.0, cap=None)
    assert bool(out[0, ~spoiled].isfinite().all())
