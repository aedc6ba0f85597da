"""The options of `bench` that put results on the hub."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import typer

from reward_hub.checkpoints.builtin import BUILTIN_PREFIX
from reward_hub.cli.usage import UsageError

_HUB = "Hub"


def _on_hub(name: str) -> bool:
    """Whether the hub may have this name."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _is_here(model: str) -> bool:
    return Path(model).exists() or model.startswith(BUILTIN_PREFIX)


@dataclasses.dataclass(frozen=True)
class PublishOptions:
    """Where on the hub results go."""

    push_to_hub: Annotated[
        str | None,
        typer.Option(help="Push the scores as this data set, `owner/name`.", rich_help_panel=_HUB),
    ] = None
    push_results_to_hub: Annotated[
        bool,
        typer.Option("--push-results-to-hub", help="The same, under a name of its own.", rich_help_panel=_HUB),
    ] = False
    private: Annotated[
        bool, typer.Option("--private", help="A data set that is made is private.", rich_help_panel=_HUB)
    ] = False
    model_card: Annotated[
        str | None,
        typer.Option(help="Add the metrics to the card of this model on the hub.", rich_help_panel=_HUB),
    ] = None
    upload_model_metadata_to_hf: Annotated[
        bool,
        typer.Option(
            "--upload-model-metadata-to-hf",
            "--upload-metadata-to-hf",
            help="The same, to the card of --model.",
            rich_help_panel=_HUB,
        ),
    ] = False
    do_not_save: Annotated[
        bool,
        typer.Option(
            "--do-not-save",
            "--disable-beaker-save",
            help="As it is in any case: nothing is pushed unasked.",
            rich_help_panel=_HUB,
        ),
    ] = False

    @property
    def wanted(self) -> bool:
        return bool(self.push_to_hub or self.push_results_to_hub or self.model_card or self.upload_model_metadata_to_hf)

    def check(self, model: str | None) -> None:
        """Refuse before anything is scored what could not be published after.

        Raises:
            UsageError: privacy of nothing that is pushed, no model whose card could be meant, or a name that no hub
                has.
        """
        if self.do_not_save and self.wanted:
            raise UsageError("--do-not-save and an option that pushes contradict each other.")
        if self.private and not (self.push_to_hub or self.push_results_to_hub):
            raise UsageError("--private is said of scores that are pushed: --push-to-hub OWNER/NAME.")
        if self.upload_model_metadata_to_hf and (model is None or not _on_hub(model) or _is_here(model)):
            raise UsageError(
                "--upload-model-metadata-to-hf needs a --model on the hub; or say --model-card OWNER/NAME."
            )
        for option, name in (("--push-to-hub", self.push_to_hub), ("--model-card", self.model_card)):
            if name is not None and not _on_hub(name):
                raise UsageError(f"{option} {name!r} is not a name on the hub; write OWNER/NAME.")

    def publish(self, folder: Path, *, model: str | None) -> None:
        """Push what was asked for, and say on standard error where it is."""
        from reward_hub.bench.publish import add_to_model_card, push_scores

        if self.push_to_hub or self.push_results_to_hub:
            pushed = push_scores(folder, self.push_to_hub, private=self.private)
            print(f"pushed to the data set {pushed}", file=sys.stderr)
        card = self.model_card or (model if self.upload_model_metadata_to_hf else None)
        if card is not None:
            print(f"model card: {add_to_model_card(folder, card)}", file=sys.stderr)
