"""DrSow trained on preference pairs: from base model and file to the folder that `drsow_saved` loads.

While a run lasts, its folder holds besides:

    run.json        its settings, which are compared before it is gone on with
    checkpoints/    one for each epoch, of which the last ones are kept
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from reward_hub.base import BaseRM
from reward_hub.data.out_file import identity_of
from reward_hub.data.preferences import PreferencePair, read_preferences, split_by_prompt
from reward_hub.drsow.saved import (
    ADAPTER,
    FAMILY,
    RECORD,
    Base,
    Record,
    Scoring,
    TrainingReport,
    load_arguments,
    load_models,
    read_record,
    write_json,
)
from reward_hub.drsow.trainer import TokenPair, TrainingSettings, train_adapter
from reward_hub.errors import CheckpointError, InvalidConversationError, RewardHubError, UnsupportedError
from reward_hub.models.implicit_rm import DEFAULT_FAMILY, ImplicitRM
from reward_hub.registry import family_named
from reward_hub.types import Conversation, TokenInput

logger = logging.getLogger(__name__)

_RUN = "run.json"
_CHECKPOINTS = "checkpoints"


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Training seeds the generators of the whole process; the caller's go on afterwards as if it had not."""
    import torch

    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@_random_state_kept()
def train(
    base: Base,
    preference_data: Path,
    settings: TrainingSettings,
    scoring: Scoring,
    *,
    engine: Mapping[str, Any],
    output_dir: Path | None,
    show_progress: bool,
) -> tuple[Path, Record]:
    """Train, or go on with an interrupted run, or find that the run is finished.

    Args:
        engine: where and how the models run: arguments of `AutoRM.load`.
        output_dir: the run's folder; by default one of the working directory, named by what is trained and how.

    Raises:
        InvalidConversationError: rows that are not preference pairs.
        CheckpointError: `output_dir` holds another run.
    """
    run = {
        "base_model": base.fingerprint,
        "preference_data": identity_of(preference_data)["sha256"],
        **asdict(settings),
        **scoring.model_dump(exclude={"chat_template"}),
    }
    if output_dir is None:
        output_dir = Path(f"drsow-{hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()[:12]}")
    output_dir = output_dir.absolute()
    _check_run(output_dir, run)
    if (output_dir / RECORD).exists():
        logger.info("%s holds this run, finished.", output_dir)
        return output_dir, read_record(output_dir)
    pairs = read_preferences(preference_data)
    to_train, held_out = split_by_prompt(pairs, settings.held_out, seed=settings.seed)
    with _load_base(base, scoring, engine) as rm:
        train_tokens, held_out_tokens = ([_tokens(pair, rm) for pair in part] for part in (to_train, held_out))
        # From here on the folder is this run's: what is wrong with the pairs was told before.
        output_dir.mkdir(parents=True, exist_ok=True)
        write_json(output_dir / _RUN, run)
        logger.info("Training on %d pairs, %d held out; the run is in %s.", len(to_train), len(held_out), output_dir)
        adapter = output_dir / ADAPTER
        backend: Any = rm.policy.backend
        tokenizer: Any = rm.policy.setup.tokenizer
        trained = train_adapter(
            backend.model,
            tokenizer.pretrained,
            train_tokens,
            held_out_tokens,
            settings,
            checkpoints=output_dir / _CHECKPOINTS,
            adapter=adapter,
            show_progress=show_progress,
        )
    gc.collect()  # the trainer and its model hold each other
    _name_base(adapter, base)
    with load_models(base, adapter, scoring, engine) as tuned:
        before, after = _accuracies(tuned, held_out, show_progress=show_progress)
    report = TrainingReport(before, after, n_train=len(to_train), n_held_out=len(held_out), **asdict(trained))
    record = Record(
        base_model=base.name,
        revision=base.revision,
        base_fingerprint=base.fingerprint,
        preference_data=str(preference_data.absolute()),
        scoring=scoring,
        report=report,
    )
    write_json(output_dir / RECORD, record.model_dump(mode="json"))
    shutil.rmtree(output_dir / _CHECKPOINTS)
    logger.info("Accuracy on %d held-out pairs: %.3f before, %.3f after.", len(held_out), before, after)
    return output_dir, record


@contextmanager
def _load_base(base: Base, scoring: Scoring, engine: Mapping[str, Any]) -> Iterator[ImplicitRM]:
    """The base over itself, loaded once: it reads a conversation's tokens as the tuned model will."""
    from reward_hub.auto import AutoRM

    rm = AutoRM.load(
        base.folder,
        "transformers",
        family=DEFAULT_FAMILY,
        options={"reference_free": True},
        **load_arguments(base, scoring),
        **engine,
    )
    assert isinstance(rm, ImplicitRM)
    if rm.policy.backend.info.dtype == "float16":
        raise UnsupportedError(
            f"{base.name} would be trained in float16, whose gradients overflow. Give torch_dtype='bfloat16' or "
            "'float32'."
        )
    family = family_named(FAMILY)
    assert family.options is not None
    options = family.options(**scoring.family_options())
    policy = replace(rm.policy, family=family, setup=replace(rm.policy.setup, options=options))
    with rm:
        yield ImplicitRM(policy, policy)


def _tokens(pair: PreferencePair, rm: ImplicitRM) -> TokenPair:
    chosen = _read(pair.chosen, "chosen", pair.place, rm)
    rejected = _read(pair.rejected, "rejected", pair.place, rm)
    if chosen == rejected:
        raise InvalidConversationError(
            f"{pair.place}: 'chosen' and 'rejected' become the same tokens. Leave such rows out.", field="rejected"
        )
    return TokenPair(chosen, rejected)


def _read(conversation: Conversation, name: str, place: str, rm: ImplicitRM) -> TokenInput:
    try:
        return rm.tokens_read(conversation)
    except RewardHubError as error:
        error.message = f"{place}: {name!r}: {error.message}"
        raise


def _accuracies(tuned: BaseRM, pairs: Sequence[PreferencePair], *, show_progress: bool) -> tuple[float, float]:
    """Before and after; see `TrainingReport`."""
    responses = [conversation for pair in pairs for conversation in (pair.chosen, pair.rejected)]
    batch = [[turn.to_dict() for turn in conversation.messages] for conversation in responses]
    results = tuned.score_batch(batch, return_details=True, show_progress=show_progress)
    after = [score for score, _ in results]
    before = [details["logp_reference_sum"] / details["n_completion_tokens"] for _, details in results]
    return preference_accuracy(before), preference_accuracy(after)


def preference_accuracy(scores: Sequence[float]) -> float:
    """The share of pairs (chosen, rejected, chosen, rejected, ...) in the right order; a tie is a half."""
    pairs = list(zip(scores[::2], scores[1::2], strict=True))
    return sum(1.0 if chosen > rejected else 0.5 * (chosen == rejected) for chosen, rejected in pairs) / len(pairs)


def _check_run(folder: Path, run: Mapping[str, Any]) -> None:
    """Raises CheckpointError where the folder holds another run, or a model that no run of it made."""
    try:
        earlier = json.loads((folder / _RUN).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if (folder / RECORD).exists():
            raise CheckpointError(f"{folder} holds a saved model. Give another output_dir.") from None
        return
    others = [name for name, value in run.items() if earlier.get(name) != value]
    if others:
        changes = ", ".join(f"{name} was {earlier.get(name)!r} and is {run[name]!r}" for name in others)
        raise CheckpointError(f"{folder} holds another run: {changes}. Give another output_dir, or delete it.")


def _name_base(adapter: Path, base: Base) -> None:
    """Write the base's name into the adapter, for those who load it by itself."""
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, {**config, "base_model_name_or_path": base.name, "revision": base.revision})
