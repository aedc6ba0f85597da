"""NAME=VALUE, as options write what has no option of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from reward_hub.cli.usage import UsageError


def named_values(option: str, pairs: Sequence[str] | None) -> dict[str, Any]:
    """`["a=1", "b=x"]` as `{"a": 1, "b": "x"}`.

    Raises:
        UsageError: one is not of this form, or a name is given twice.
    """
    values: dict[str, Any] = {}
    for pair in pairs or ():
        name, equals, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise UsageError(f"{option} {pair!r}: write NAME=VALUE.")
        if name in values:
            raise UsageError(f"{option} {name} is given twice.")
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    return values
