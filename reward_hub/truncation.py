"""Cut a tokenised input to a length without losing a position that is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from reward_hub.types import TokenInput, last_position


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    n = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        n += 1
    return n


def cut_left(tokens: TokenInput, spare: int) -> TokenInput | None:
    """Cut `spare` tokens after the prefix that stays."""
    start, stop = tokens.n_kept_first, tokens.n_kept_first + spare
    positions = tokens.positions
    if tokens.decoder_ids is None:
        if any(start <= p < stop for p in positions):
            return None
        positions = [p if p < start else p - spare for p in positions]
    types = None if tokens.token_type_ids is None else tokens.token_type_ids[:start] + tokens.token_type_ids[stop:]
    ids = tokens.token_ids[:start] + tokens.token_ids[stop:]
    return replace(tokens, token_ids=ids, positions=positions, token_type_ids=types)


def cut_right(tokens: TokenInput, limit: int, *, process: bool) -> TokenInput | None:
    """Cut before the suffix that is read; a position at the end moves to the end of what stays."""
    n = len(tokens.token_ids)
    keep = limit - tokens.n_kept_last
    if keep < 0:
        return None
    positions = []
    ids = tokens.token_ids[:keep] + tokens.token_ids[n - tokens.n_kept_last :]
    for p in tokens.positions:
        if p < keep or tokens.decoder_ids is not None:
            positions.append(p)
        elif p >= n - tokens.n_kept_last:
            positions.append(p - (n - limit))
        elif p == last_position(tokens.token_ids, tokens.passed_over) and not process:
            positions.append(last_position(ids, tokens.passed_over))
        else:
            return None
    segments = tokens.token_type_ids
    types = None if segments is None else segments[:keep] + segments[n - tokens.n_kept_last :]
    return replace(tokens, token_ids=ids, positions=positions, token_type_ids=types)
