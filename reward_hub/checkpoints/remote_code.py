"""What in a checkpoint's JSON files leads a library to run the code that lies beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Names by which transformers finds classes, attention kernels and weight files of other people's, or under which it
# looks up another name; they are the user's to say, never a file's.
NAMES = frozenset(
    {
        "auto_map",
        "_auto_class",
        "attribute_map",
        "attn_implementation",
        "_attn_implementation",
        "_attn_implementation_internal",
        "experts_implementation",
        "_experts_implementation",
        "_experts_implementation_internal",
        "fusion_config",
        "distributed_config",
        "transformers_weights",
        "name_or_path",
        "_name_or_path",
    }
)
PREFIX = "custom_"


def leads_to_code(name: str) -> bool:
    """Whether a key of a config may make a library run, or look for, the checkpoint's own code."""
    return name in NAMES or name.startswith(PREFIX)


def without_code(values: Any) -> Any:
    """A copy of parsed JSON without such keys, at any depth."""
    if isinstance(values, Mapping):
        return {name: without_code(value) for name, value in values.items() if not leads_to_code(str(name))}
    if isinstance(values, (list, tuple)):
        return [without_code(value) for value in values]
    return values
