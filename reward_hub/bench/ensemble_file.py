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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reward_hub.errors import missing_dependency

if TYPE_CHECKING:
    from reward_hub.base import BaseRM

# A rubric, say, is not a path, and the system would refuse to look for it.
_LONGEST_PATH = 255


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
    if not (statistics is None or isinstance(statistics, str)):
        raise ValueError(f"'statistics' is {statistics!r}; the path of a file that `EnsembleRM.save` wrote is needed.")
    with ExitStack() as loaded:
        rms = [loaded.enter_context(_member(member, place)) for place, member in enumerate(members)]
        _require_majority(members, rms)
        weights = [member.get("weight", 1.0) for member in members]
        ensemble = EnsembleRM(list(zip(rms, weights, strict=True)), **said)
        if statistics is not None:
            ensemble.load(path.parent / statistics)
        loaded.pop_all()
    return ensemble


def kind_of_judges(path: Path) -> str | None:
    """The kind of the members where all of them are judges, which nothing is loaded for; None where one is not."""
    members = _read(path).get("members")
    if not isinstance(members, list) or not members or not all(_is_judge(member) for member in members):
        return None
    with _member(members[0], 0) as judge:
        return judge.kind


def _is_judge(member: Any) -> bool:
    return isinstance(member, Mapping) and "judge" in member and "model" not in member


def local_files(path: Path) -> list[Path]:
    """What on this machine an ensemble's scores depend on: the file, and the files and folders that it names."""
    named = [name for name in _texts_in(_read(path)) if 0 < len(name) < _LONGEST_PATH]
    return [path, *(place for name in named for place in (Path(name), path.parent / name) if place.exists())]


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts_in(part)


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
    from reward_hub.auto import AutoRM
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
