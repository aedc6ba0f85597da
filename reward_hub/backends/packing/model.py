"""A transformers model that reads packed rows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from reward_hub.backends.packing.attention import KEYWORD, NAME, Kept, PackedRow, Switch
from reward_hub.backends.packing.plan import Costs, Forward, Plan, plans
from reward_hub.types import Array

logger = logging.getLogger(__name__)

# Tokens of one forward. On a CPU matrix products are fastest at 512 to 2048 rows.
CPU_TOKENS = 2048
FEWEST_CPU_TOKENS = 512
GPU_TOKENS = 32768
# Above this glibc's malloc asks the system for new pages each time, and filling those takes longer than the product.
LARGEST_TEMPORARY = 32 * 2**20
# What a link costs a layer (some ten small calls), and a token beside the products with its weights: in floating-point
# operations that could be done in that time.
LINK_FLOP = 4e7
TOKEN_FLOP = 5e5
# Gate, up and their product, and what stands beside them.
LIVE_AT_ONCE = 4
# What it costs a token to look back, as a part of what it costs itself.
LOOKING_BACK = 0.05

Values = Callable[[torch.Tensor, Sequence[tuple[int, int]]], Array]
"""What hidden vectors [n, size] tell; with them stand the conversation and the position of each, as indices."""


def tokens_of_a_forward(model: torch.nn.Module, device: torch.device) -> int:
    """How many tokens go through a model at a time; on a CPU no layer's output is larger than malloc keeps at hand."""
    if device.type != "cpu":
        return GPU_TOKENS
    layers = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
    widest = max((layer.out_features * layer.weight.element_size() for layer in layers), default=1)
    return max(FEWEST_CPU_TOKENS, min(CPU_TOKENS, LARGEST_TEMPORARY // widest))


def bytes_of_a_token(model: torch.nn.Module) -> int:
    """About what a token takes while a layer computes: outputs of the widest product, some of which live at once."""
    layers = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
    return LIVE_AT_ONCE * max((layer.out_features * layer.weight.element_size() for layer in layers), default=1)


def costs_of(model: Any) -> Costs:
    """What sharing costs a model, beside what a token costs it."""
    n_layers = model.config.get_text_config().num_hidden_layers
    n_weights = sum(weight.numel() for weight in model.parameters())
    n_weights -= sum(weight.numel() for weight in model.get_input_embeddings().parameters())
    return Costs(link=LINK_FLOP / (TOKEN_FLOP + 2 * n_weights / n_layers), row=LOOKING_BACK)


class PackedModel:
    """A model whose class gives hidden vectors, and which was found to be packable (`check.packing_of`)."""

    def __init__(self, model: Any, device: torch.device) -> None:
        self._model = model
        self._device = device
        self._switch = Switch(model)
        self.costs = costs_of(model)
        self.n_tokens = self.n_unique = 0

    def planned(
        self,
        token_ids: Sequence[list[int]],
        positions: Sequence[list[int]],
        max_tokens: int,
        conversations: int | None = None,
    ) -> Iterator[Plan]:
        """How these conversations are read."""
        return plans(token_ids, positions, max_tokens=max_tokens, conversations=conversations, costs=self.costs)

    def read(
        self,
        token_ids: Sequence[list[int]],
        positions: Sequence[list[int]],
        values: Values,
        *,
        max_tokens: int,
        conversations: int | None = None,
    ) -> Iterator[dict[int, Array]]:
        """Of each conversation the values at its positions, [n_positions, width]; some conversations at a time."""
        for plan in self.planned(token_ids, positions, max_tokens, conversations):
            logger.debug(
                "%d conversations of %d tokens are packed: %d tokens in %d forwards.",
                *(len(plan.conversations), plan.n_tokens, plan.n_unique, len(plan.forwards)),
            )
            yield from self._run(plan, positions, values)
            self.n_tokens += plan.n_tokens
            self.n_unique += plan.n_unique

    def _run(self, plan: Plan, positions: Sequence[list[int]], values: Values) -> Iterator[dict[int, Array]]:
        nothing = np.zeros(0, np.float32)
        waiting = {i: [nothing] * len(positions[i]) for i in plan.conversations}
        n_left = {i: len(positions[i]) for i in plan.conversations}
        kept: list[list[Kept]] = []
        for forward in plan.forwards:
            row = PackedRow(forward, kept)
            states = self.hidden(forward, row)
            kept = row.keeps
            places = torch.tensor([read.place - forward.span.start for read in forward.reads], dtype=torch.long)
            reads = [(read.conversation, read.position) for read in forward.reads]
            for (conversation, position), value in zip(
                reads, values(states[places.to(states.device)], reads), strict=True
            ):
                waiting[conversation][position] = value
                n_left[conversation] -= 1
            done = {conversation for conversation, _ in reads if not n_left[conversation]}
            yield {conversation: np.stack(waiting.pop(conversation)) for conversation in done}
            nothing = values(states[:0], [])
        yield dict.fromkeys(waiting, nothing)  # those that are read nowhere

    def hidden(self, forward: Forward, row: PackedRow) -> torch.Tensor:
        """The hidden vectors of all tokens of a forward, [n, size]."""
        with self._switch.to(NAME):
            output = self._model(
                input_ids=torch.tensor([forward.token_ids], device=self._device),
                position_ids=torch.tensor([forward.position_ids], device=self._device),
                use_cache=False,
                **{KEYWORD: row},
            )
        states: torch.Tensor = output.last_hidden_state[0]
        return states
