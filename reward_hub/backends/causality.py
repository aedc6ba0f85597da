"""How a model's batches may be padded: shown at load by running it on a few tokens, not told from a name.

A causal decoder needs no attention mask: padding stands on the right, where no token looks, and the fast kernels stay
usable. That a model is one is shown by rows that differ in their tails alone: what it makes of the tokens before them
is the same. Every other model is sent masks, and where a masked row beside a longer one still differs from the row
alone, batches hold one length.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

logger = logging.getLogger(__name__)

WIDTH = 24
"""Tokens of a probe's longest row."""
# Where the tails begin. No length of blocks or windows divides all of them, so some tail begins inside a block.
SHARES = (13 / 24, 17 / 24, 23 / 24)
# Hidden vectors that should be equal, in standard deviations. What looks ahead differs by 2 to 5.
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
HALF_PRECISION_TOLERANCE = 0.1
NEAR = 8
"""Tokens before a tail that are compared by their distance to it."""


@dataclass(frozen=True)
class Padding:
    """How batches of a model are padded.

    Attributes:
        masked: attention masks are sent; else the model is causal.
        mixed: a batch may hold inputs of different lengths.
        reason: in words, for whoever asks.
    """

    masked: bool
    mixed: bool
    reason: str


def padding_of(model: Any, *, encoder: bool) -> Padding:
    """How the batches of a loaded model may be padded.

    Args:
        encoder: the family knows that it attends in both directions.
    """
    if is_foreign(model):
        return Padding(True, False, "masks are sent and batches hold one length: its code is not transformers' own")
    if any(parameter.device.type == "meta" for parameter in model.parameters()):
        return Padding(True, True, "masks are sent: with weights offloaded it is not probed")
    encoder = encoder or model.config.is_encoder_decoder
    if not encoder:
        try:
            ahead = looks_ahead(model)
        except Exception as error:  # whatever a forward raises, it means the same: nothing is shown
            logger.info("%s was not probed: %s: %s", type(model).__name__, type(error).__name__, error)
            ahead = None
        if ahead is False:
            return Padding(False, True, "causal: shown at load")
        shown = "it looks ahead" if ahead else "it is not shown to be causal"
    else:
        shown = "it attends in both directions"
    try:
        safe = mask_suffices(model)
    except Exception as error:
        logger.info("%s was not probed with masks: %s: %s", type(model).__name__, type(error).__name__, error)
        safe = False
    if safe:
        return Padding(True, True, f"masks are sent: {shown}")
    return Padding(
        True, False, f"masks are sent and batches hold one length: {shown}, and masks are not shown to suffice"
    )


def is_foreign(model: Any) -> bool:
    """Whether code runs that is not transformers' own: nothing is known of what it does with masks and positions."""
    return not type(model).__module__.startswith("transformers.models.")


def looks_ahead(model: Any) -> bool:
    """Whether tokens see those behind them: rows that differ in their tails alone, in one forward."""
    ids = _ids(model)
    tails = _lengths(ids)
    rows = ids.repeat(1 + len(tails), 1)
    size = int(model.get_input_embeddings().weight.shape[0])
    for row, start in zip(rows[1:], tails, strict=True):
        row[start:] = (row[start:] + size // 2) % size
    states = _states(model, rows, None)
    pairs = [(states[0, :start], row[:start]) for row, start in zip(states[1:], tails, strict=True)]
    return _differ(pairs, states, model.dtype)


def mask_suffices(model: Any) -> bool:
    """Whether masked rows beside a longer one are what they are alone."""
    ids = _ids(model)
    lengths = _lengths(ids)
    mask = torch.ones((1 + len(lengths), len(ids)), dtype=torch.long, device=ids.device)
    rows = ids.repeat(len(mask), 1)
    for row, seen, length in zip(rows[1:], mask[1:], lengths, strict=True):
        row[length:] = 0
        seen[length:] = 0
    states = _states(model, rows, mask)
    pairs = []
    for row, length in zip(states[1:], lengths, strict=True):
        alone = _states(model, ids[None, :length], mask[:1, :length])[0]
        pairs.append((alone, row[: len(alone)]))
    return not _differ(pairs, states, model.dtype)


def _ids(model: Any) -> torch.Tensor:
    """The probe's tokens: from the middle of the vocabulary, where no special ones stand."""
    size = int(model.get_input_embeddings().weight.shape[0])
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    width = min(WIDTH, most) if isinstance(most, int) and most > 0 else WIDTH
    device = next(parameter.device for parameter in model.parameters())
    return size // 4 + torch.arange(1, width + 1, device=device) * 7919 % max(size // 2, 1)


def _lengths(ids: torch.Tensor) -> list[int]:
    return [max(1, round(share * len(ids))) for share in SHARES]


def _states(model: Any, rows: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """[n_rows, n_tokens, width] float32: hidden vectors, or logits where the whole model is run."""
    inputs: dict[str, Any] = {"input_ids": rows}
    if mask is not None:
        inputs["attention_mask"] = mask
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = rows[:1, :NEAR].expand(len(rows), -1)
    with torch.inference_mode():
        outputs = model(**inputs)
    states: torch.Tensor = outputs.logits if hasattr(outputs, "logits") else outputs.last_hidden_state
    return states.float()


def _differ(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], states: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether vectors of the same tokens differ by more than rounding.

    What looks ahead differs in every row at the same place, counted from the start or from the tail. In half precision
    a router may choose another expert for a token by rounding alone, in one row: so the median over the rows is taken.
    """
    distances = [(a - b).abs().amax(-1) for a, b in pairs]
    shortest = min(len(row) for row in distances)
    near = min(NEAR, shortest)
    places = [torch.stack([row[:shortest] for row in distances]), torch.stack([row[-near:] for row in distances])]
    farthest = max(float(place.median(dim=0).values.max()) for place in places)
    # Not a comparison with ">": a NaN shows nothing.
    return not farthest <= TOLERANCE.get(dtype, HALF_PRECISION_TOLERANCE) * float(states.std())
