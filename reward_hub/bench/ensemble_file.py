"""An ensemble from a YAML or JSON file.

reduce: mean            # and other arguments of EnsembleRM
normalize: zscore
statistics: stats.json  # what `EnsembleRM.save` wrote; beside the file
members:
  - {model: ./orm, weight: 0.7, torch_dtype: bfloat16}  # and other arguments of AutoRM.load
  - {model: builtin/arithmetic-orm, weight: 0.3}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reward_hub.errors import missing_dependency

if TYPE_CHECKING:
    from reward_hub.base import BaseRM


def ensemble_of(path: Path) -> BaseRM:
    """Load every member and the ensemble over them.

    Raises:
        ValueError, TypeError: the file does not say an ensemble, or an argument that there is not.
        OSError: it cannot be read.
        RewardHubError: a member cannot be loaded.
    """
    from reward_hub.ensemble import EnsembleRM

    said = _read(path)
    members = said.pop("members", None)
    if not isinstance(members, list) or not members:
        raise ValueError("'members' must be a list of at least one model.")
    statistics = said.pop("statistics", None)
    with ExitStack() as loaded:
        rms = [loaded.enter_context(_member(member, place)) for place, member in enumerate(members)]
        _require_majority(members, rms)
        weights = [member.get("weight", 1.0) for member in members]
        ensemble = EnsembleRM(list(zip(rms, weights, strict=True)), **said)
        if statistics is not None:
            ensemble.load(path.parent / statistics)
        loaded.pop_all()
    return ensemble


def _read(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8")
    if path.suffix.lower() == ".json":
        said = json.loads(text)
    else:
        try:
            import yaml
        except ImportError as error:
            raise missing_dependency("PyYAML", "bench", "reading YAML") from error
        try:
            said = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"not YAML: {error}") from error
    if not isinstance(said, dict):
        raise ValueError(f"holds a {type(said).__name__}; 'members' and the arguments of EnsembleRM are read.")
    return said


def _member(said: Any, place: int) -> BaseRM:
    from reward_hub import AutoRM
    from reward_hub.judge import LLMJudge

    names = [name for name in ("model", "judge") if isinstance(said, Mapping) and isinstance(said.get(name), str)]
    if len(names) != 1:
        raise ValueError(f"member {place} must have a 'model' or a 'judge', a text.")
    arguments = {name: value for name, value in said.items() if name not in (names[0], "weight")}
    if names == ["model"]:
        return AutoRM.load(said["model"], **arguments)
    if arguments.get("mode") == "pairwise":
        # Both orders are asked for by whoever compares, each by itself.
        arguments.setdefault("both_orders", False)
    return LLMJudge(said["judge"], **arguments)


def _require_majority(members: Sequence[Mapping[str, Any]], rms: Sequence[BaseRM]) -> None:
    if all("judge" in member for member in members) and rms[0].kind == "pairwise" and len(rms) % 2 == 0:
        raise ValueError(f"{len(rms)} judges that compare have no majority when they are split; take an odd number.")
