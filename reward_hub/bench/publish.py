"""Results on the hub: scores as a data set of their own, metrics in the metadata of the model's card."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reward_hub.checkpoints.hub import hub_errors
from reward_hub.errors import BackendError
from reward_hub.version import __version__

# Figures of `metrics.overall` that a model card shows, with their names there.
_SHOWN = {
    "accuracy": "Accuracy",
    "f1": "F1",
    "error_accuracy": "Accuracy on wrong solutions",
    "correct_accuracy": "Accuracy on right solutions",
    "prm_score": "PRM-Score",
}


def dataset_name(results: Mapping[str, Any]) -> str:
    """The name, without its owner, of the data set that holds a run's scores."""
    model = str(results["model"]).strip("/").split("/")[-1]
    what = str(results["suite"] or Path(str(results["run"]["data"]["name"])).stem)
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in f"{model}-{what}-scores")[:90]


def push_scores(folder: Path, repo_id: str | None = None, *, token: str | None = None, private: bool = False) -> str:
    """Write a finished run into a data set on the hub, which is made where it does not exist: one commit.

    Args:
        folder: what `reward-hub bench --out` wrote.
        repo_id: `owner/name`, or a name under the token's own; by default `dataset_name` under the token's own name.
        token: by default the one that huggingface_hub knows.
        private: whether a new data set is private.

    Returns:
        The data set's id.

    Raises:
        BackendError: the hub refused, or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    files = {
        "items.jsonl": (folder / "items.jsonl").read_bytes(),
        "results.json": (folder / "results.json").read_bytes(),
        "README.md": dataset_card(results).encode(),
    }
    api = HfApi(token=token)
    try:
        target = repo_id or f"{api.whoami()['name']}/{dataset_name(results)}"
        # A name without an owner is one of the token's own.
        target = api.create_repo(target, repo_type="dataset", private=private, exist_ok=True).repo_id
        api.create_commit(
            target,
            [CommitOperationAdd(name, content) for name, content in files.items()],
            commit_message=f"Scores of {results['model']} by reward_hub {__version__}",
            repo_type="dataset",
        )
    except hub_errors() as error:
        raise _not_taken(f"the scores as {repo_id or 'a data set of yours'}", folder, error) from error
    return target


def add_to_model_card(folder: Path, repo_id: str, *, token: str | None = None) -> str:
    """Write a finished run's metrics into the metadata (`model-index`) of a model's card, in place of earlier ones.

    Args:
        folder: what `reward-hub bench --out` wrote.
        repo_id: the model on the hub.
        token: by default the one that huggingface_hub knows.

    Returns:
        The address of the commit.

    Raises:
        BackendError: the hub refused or cannot be reached, or the run has no metric that a card shows.
    """
    import yaml
    from huggingface_hub import metadata_update

    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    entries = list(card_entries(results))
    if not entries:
        raise BackendError(f"{folder} has no metric for a model card: {results['form']} data have scores alone.")
    metadata = {"model-index": [{"name": repo_id.split("/")[-1], "results": entries}]}
    try:
        return str(
            metadata_update(
                repo_id,
                metadata,
                token=token,
                overwrite=True,
                commit_message=f"Add evaluation by reward_hub {__version__}",
            )
        )
    except hub_errors() as error:
        raise _not_taken(f"metrics for the card of {repo_id}", folder, error) from error
    except (yaml.YAMLError, ValueError) as error:
        raise BackendError(f"The metadata in the card of {repo_id} cannot be read: {error}") from error


def _not_taken(what: str, folder: Path, error: BaseException) -> BackendError:
    return BackendError(
        f"The hub did not take {what}: {type(error).__name__}: {error}. The results are in {folder}; check network, "
        "HF_ENDPOINT and HF_TOKEN, and give the same command again: nothing is scored anew."
    )


def card_entries(results: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Entries of a card's `model-index`, overall and per section (else subset); fractions, as in results.json."""
    name = results["suite"] or Path(str(results["run"]["data"]["name"])).name
    metrics = results["metrics"]
    parts = metrics.get("sections") or metrics.get("subsets") or {}
    for part, values in {"overall": metrics["overall"], **parts}.items():
        figures = [
            {"type": key, "name": shown, "value": values[key]}
            for key, shown in _SHOWN.items()
            if values.get(key) is not None
        ]
        if figures:
            yield {
                "task": {"type": "reward-modeling", "name": "Reward modeling"},
                "dataset": {"type": str(name), "name": str(name), "config": part},
                "metrics": figures,
            }


def dataset_card(results: Mapping[str, Any]) -> str:
    """The README.md of a data set of scores."""
    name = results["suite"] or results["run"]["data"]["name"]
    rows = [
        f"| {entry['dataset']['config']} | {figure['name']} | {figure['value']:.4f} |"
        for entry in card_entries(results)
        for figure in entry["metrics"]
    ]
    table = ["| part | metric | value |", "|---|---|---|", *rows] if rows else []
    head = ["---", "configs:", "- config_name: default", "  data_files: items.jsonl", "tags:", "- reward_hub", "---"]
    body = [
        f"# Scores of {results['model']} on {name}",
        "",
        f"{results['n']} items, {results['n_failed']} of them failed. Written by `reward-hub bench`, version "
        f"{__version__}; `results.json` holds metrics with intervals, versions and hashes.",
        "",
        *table,
    ]
    return "\n".join([*head, "", *body, ""])
