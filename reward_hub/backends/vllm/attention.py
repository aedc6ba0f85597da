"""What vLLM assumes of attention and rotary tables, by a checkpoint's config.json alone: it cannot be probed there.

Read in vLLM 0.32, `model_executor/layers/rotary_embedding`. It makes one table when it starts, for every input:

    dynamic     the unscaled one, of `max_position_embeddings` rows: right up to there
    longrope    the short one where `max_model_len` is within the original positions, else the long one for all
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reward_hub.errors import UnsupportedError
from reward_hub.types import Config

# Types whose table depends on nothing but the config.
FIXED = frozenset({"default", "linear", "yarn", "llama3"})
# What one of the two libraries reads in such a table, and the other does not.
READ_BY_ONE = {
    "dynamic": ("alpha", "max_trained_positions"),
    "longrope": ("attention_factor", "short_mscale", "long_mscale"),
}


def why_not(config: Config) -> str | None:
    """Why tokens would be seen otherwise there than by transformers; None where nothing is known against it."""
    if not config.get("is_causal", True) or config.get("use_bidirectional_attention"):
        return "this model attends in both directions, and vLLM is asked for what stands before each position"
    for table in _tables(config):
        kind = _kind(table)
        if kind not in {*FIXED, *READ_BY_ONE}:
            return f"the rotary tables of type {kind!r} are not known to be the same there"
        if named := [name for name in READ_BY_ONE.get(kind, ()) if table.get(name) is not None]:
            return f"the rotary table of type {kind!r} is made otherwise there where {named[0]} is set"
        if kind in READ_BY_ONE and not config.get("max_position_embeddings"):
            return f"config.json does not say up to where its rotary table of type {kind!r} is right there"
        if kind == "longrope" and not _same_scale(table, config):
            return "the longrope rotary table is scaled otherwise there: its factor is not that of the positions"
    return None


def longest_input(config: Config) -> int | None:
    """Most tokens for which its rotary table is transformers'; None: any."""
    bounds = [bound for table in _tables(config) if (bound := _bound(table, config)) is not None]
    return min(bounds, default=None)


def held_length(limit: int | None, config: Config, *, where: str) -> int | None:
    """The length limit of a running server, lowered to the inputs that it reads rightly.

    Raises:
        UnsupportedError: it was started for longer ones, and its table is then another one for short ones too.
    """
    longest = longest_input(config)
    if longest is None:
        return limit
    long_table = limit is None or limit > longest
    if long_table and any(_kind(table) == "longrope" for table in _tables(config)):
        raise UnsupportedError(
            f"{where} takes {limit or 'an unknown number of'} tokens, and its longrope table is then the long one for "
            f"every input. Start it with --max-model-len {longest}, or load with load_method='transformers'."
        )
    return longest if limit is None else min(limit, longest)


def _tables(config: Config) -> list[Mapping[str, Any]]:
    """The parameters of each rotary table; one for each layer type in some configs."""
    stored = config.get("rope_parameters") or config.get("rope_scaling") or {}
    nested = [value for value in stored.values() if isinstance(value, Mapping)]
    return nested or ([stored] if stored else [])


def _kind(table: Mapping[str, Any]) -> str:
    return str(table.get("rope_type") or table.get("type") or "default")


def _bound(table: Mapping[str, Any], config: Config) -> int | None:
    kind = _kind(table)
    if kind == "dynamic":
        return _positions(config)
    return _original_positions(table, config) if kind == "longrope" else None


def _positions(config: Config) -> int:
    return int(config["max_position_embeddings"])


def _original_positions(table: Mapping[str, Any], config: Config) -> int:
    stored = config.get("original_max_position_embeddings") or table.get("original_max_position_embeddings")
    return int(stored or _positions(config))


def _same_scale(table: Mapping[str, Any], config: Config) -> bool:
    factor = table.get("factor")
    return factor is None or float(factor) == _positions(config) / _original_positions(table, config)
