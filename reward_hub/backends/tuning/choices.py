"""What was measured to pay, remembered per machine and model."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.resources
import json
import logging
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
import transformers

from reward_hub.backends.tuning.compiled import NoKernelsError, cache_folder, machine, require_own
from reward_hub.backends.tuning.linears import Way

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LinearChoice:
    """How linear layers of one size are computed.

    Attributes:
        way: None: as torch does.
        least_rows: from how many rows on.
    """

    way: Way | None = None
    least_rows: int = 0


@dataclass
class Choices:
    """What pays.

    Attributes:
        linears: "n_out x n_in" -> how.
        norms, gated: whether the kernel is used.
        rows: rows of a block of a gated module.
        threads: of torch; None: as many as it has.
    """

    linears: dict[str, LinearChoice] = field(default_factory=dict)
    norms: bool = False
    gated: bool = False
    rows: int = 1024
    threads: int | None = None


def key_of(shape: Any) -> str:
    """What choices hold for: this processor, these versions and threads, and models of this shape."""
    source = importlib.resources.files(__package__)
    code = [source.joinpath(name).read_bytes() for name in ("kernels.c", "linears.py", "tune.py")]
    told = (machine(), torch.__version__, transformers.__version__, torch.get_num_threads(), code, shape)
    return hashlib.sha256(repr(told).encode()).hexdigest()[:32]


def _file(key: str) -> Path:
    return cache_folder() / "tuning" / f"{key}.json"


def remembered(key: str) -> Choices | None:
    """What was chosen before; None: nothing that can be read."""
    file = _file(key)
    if not file.exists():
        return None
    try:
        require_own(file.parent)
        return _choices(json.loads(file.read_text(encoding="utf-8")))
    except (NoKernelsError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        logger.warning("tune: %s cannot be used (%s); it is measured again.", file, error)
        return None


def remember(key: str, choices: Choices) -> None:
    """Keep them; where that is impossible, the next load measures again."""
    file = _file(key)
    try:
        require_own(file.parent)
        with tempfile.TemporaryDirectory(dir=file.parent) as own:
            made = Path(own) / file.name
            made.write_text(json.dumps(dataclasses.asdict(choices), indent=1), encoding="utf-8")
            made.replace(file)
    except (NoKernelsError, OSError) as error:
        logger.warning("tune: what was measured is not remembered: %s.", error)


def _choices(stored: dict[str, Any]) -> Choices:
    """
    Raises:
        ValueError, TypeError, KeyError, AttributeError: it is not what `remember` writes.
    """
    linears = {size: LinearChoice(**choice) for size, choice in stored["linears"].items()}
    choices = Choices(**{**stored, "linears": linears})
    switches = (choices.norms, choices.gated)
    numbers = [choices.rows, choices.threads or 1, *(1 + choice.least_rows for choice in linears.values())]
    ways = {choice.way for choice in linears.values()}
    if not ways <= {None, *get_args(Way)} or not all(isinstance(switch, bool) for switch in switches):
        raise ValueError("it holds other values than were chosen")
    if not all(isinstance(number, int) and number >= 1 for number in numbers):
        raise ValueError("it holds numbers that are none")
    return choices
