"""Recipes that have one form on disk, and what tells them apart where config and tensors do not.

A checkpoint that names no published id shows its family by its config and its tensors. Where two recipes write the same
ones, a row of `LOOKALIKES` says what else is looked at. A recipe of the table need not be a family of this version: a
checkpoint of such a one is refused by its name, and once there is a family of that name, it is taken.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from reward_hub import registry
from reward_hub.checkpoints.files import CheckpointFiles
from reward_hub.checkpoints.tensors import lm_head_names
from reward_hub.errors import CheckpointError, UnknownModelError
from reward_hub.family import Family, Matches
from reward_hub.tokenizer import Tokenizer
from reward_hub.types import Config, TensorShapes

logger = logging.getLogger(__name__)

GetTokenizer = Callable[[], Tokenizer]


@dataclass(frozen=True)
class Mark:
    """What a checkpoint was told by: the recipe, None where it is neither of them, and what was seen."""

    recipe: str | None
    seen: str


@dataclass(frozen=True)
class Lookalikes:
    """Recipes with one form on disk.

    Attributes:
        recipes: their names, as families are named.
        form: whether config, tensors and files have that form.
        mark: what tells them apart, or None: nothing does. A checkpoint without a mark is what config and tensors say.
        described: what each of them is, for messages.
    """

    recipes: tuple[str, ...]
    form: Matches
    mark: Callable[[CheckpointFiles, GetTokenizer], Mark | None] | None
    described: str


@dataclass(frozen=True)
class Doubt:
    """A form that is taken for these families, with a warning: its only mark is one that others may have too."""

    families: tuple[str, ...]
    form: Matches
    says: str


def recognise(name: str, files: CheckpointFiles, tokenizer: GetTokenizer) -> tuple[Family, str]:
    """The family of a checkpoint that its files alone tell, and how they told it.

    Args:
        tokenizer: gives the tokenizer that the checkpoint is to be used with; not called where it tells nothing.

    Raises:
        UnknownModelError, CheckpointError: as `registry.family_of_checkpoint`, or lookalikes cannot be told apart, or
            it is of a recipe that is not supported.
    """
    marked = _marked(name, files, tokenizer)
    if marked is not None:
        return marked
    family = registry.family_of_checkpoint(name, files.config, files.shapes, files.files)
    for doubt in DOUBTS:
        if family.name in doubt.families and doubt.form(files.config, files.shapes, files.files):
            logger.warning("%s is taken for %s: %s", name, family.name, doubt.says)
    return family, "its config and tensors"


def refuse_others(name: str, family: Family, files: CheckpointFiles, tokenizer: GetTokenizer) -> None:
    """Look again once the weights are here: a mark may lie in their values.

    Raises:
        UnknownModelError: the checkpoint is of another recipe than its family.
    """
    marked = _marked(name, files, tokenizer)
    if marked is not None and marked[0] != family:
        raise UnknownModelError(
            f"{name} is {marked[0].name}, told by {marked[1]}. Load it with family={marked[0].name!r}.",
            near=[marked[0].name],
        )


def _marked(name: str, files: CheckpointFiles, tokenizer: GetTokenizer) -> tuple[Family, str] | None:
    """The family that a mark tells, and how; None where there is none."""
    for row in LOOKALIKES:
        if row.mark is not None and row.form(files.config, files.shapes, files.files):
            mark = row.mark(files, tokenizer)
            if mark is not None:
                return _family_of(mark, row, name), f"its config, its tensors and {mark.seen}"
    return None


def _family_of(mark: Mark, row: Lookalikes, name: str) -> Family:
    if mark.recipe is None:
        raise UnknownModelError(
            f"{name} could be {' or '.join(row.recipes)}, which look alike on disk, and has neither's mark: "
            f"{mark.seen}. {row.described} Say which with family=... ({_supported(row)}).",
            near=row.recipes,
        )
    family = registry.FAMILIES.find(mark.recipe)
    if family is None:
        raise UnknownModelError(
            f"{name} is a checkpoint of {mark.recipe}, told by {mark.seen}. {row.described} This version has no family "
            f"{mark.recipe!r}; read as another family it would get wrong scores. To do so all the same, say family=... "
            f"({_supported(row)}).",
            near=row.recipes,
        )
    return family


def _supported(row: Lookalikes) -> str:
    known = {family.name for family in registry.families()}
    return ", ".join(f"{recipe!r}{'' if recipe in known else ': not in this version'}" for recipe in row.recipes)


# InternLM2 with a value head: the reward token has one name in each repository's tokenizer.
_REWARD_TOKENS = {"<|reward|>": "internlm2-reward", "[UNUSED_TOKEN_130]": "polar"}


def _internlm2_value_head(config: Config, tensors: TensorShapes, files: frozenset[str]) -> bool:
    return registry.family_named("internlm2-reward").matches(config, tensors, files)


def _reward_token(files: CheckpointFiles, tokenizer: GetTokenizer) -> Mark:
    token_id = files.config.get("reward_token_id")
    if token_id is None:
        return Mark(None, "config.json names no reward_token_id")
    try:
        token = tokenizer().token(int(token_id))
    except CheckpointError as error:
        return Mark(None, f"its reward token cannot be read ({error.message.rstrip('.')})")
    recipe = _REWARD_TOKENS.get(token)
    return Mark(recipe, f"its reward token {token!r}" if recipe else f"its reward token is {token!r}")


# Qwen3-Reranker answers "yes" or "no"; a classifier that is made of it holds those rows of its LM head.
_ANSWERS = ("no", "yes")
# How far a head may lie from those rows, relative to its length: rounding in half precision, and some fine-tuning.
_NEAR = 0.25


def _qwen3_classifier(config: Config, tensors: TensorShapes, files: frozenset[str]) -> bool:
    named = any(name.endswith("ForSequenceClassification") for name in config.get("architectures") or ())
    return config.get("model_type") == "qwen3" and (named or bool(config.get("is_original_qwen3_reranker")))


def _yes_and_no(files: CheckpointFiles, tokenizer: GetTokenizer) -> Mark | None:
    """vLLM's keys in config.json, the labels, or a head made of the rows of "yes" and "no"."""
    config = files.config
    named = config.get("classifier_from_token")
    if config.get("is_original_qwen3_reranker") or named in (list(_ANSWERS), list(reversed(_ANSWERS))):
        return Mark("qwen3-reranker", "what config.json says of the tokens 'yes' and 'no'")
    labels = config.get("id2label")
    names = {str(label).lower() for label in labels.values()} if isinstance(labels, dict) else set()
    if names and names <= set(_ANSWERS):
        return Mark("qwen3-reranker", f"its labels {' and '.join(map(repr, sorted(names)))}")
    if _is_made_of_answers(files, tokenizer):
        return Mark("qwen3-reranker", "its head, which is made of the LM head's rows of 'yes' and 'no'")
    return None


def _is_made_of_answers(files: CheckpointFiles, tokenizer: GetTokenizer) -> bool:
    """Told where the LM head is still there or tied to the embeddings; of a Hub checkpoint, once it is fetched."""
    shape = files.shapes.get("score.weight", ())
    if files.folder is None or len(shape) != 2 or shape[0] not in (1, 2):
        return False
    try:
        vocabulary = tokenizer()
        token_ids = [vocabulary.token_id(answer) for answer in _ANSWERS]
        head = files.read("score.weight")
        rows = [files.rows(name, token_ids) for name in lm_head_names(files) if _has_rows(files, name, token_ids)]
    except CheckpointError:
        return False  # no such tokens, or no tokenizer or values that can be read: loading says so, where it needs them
    made = [answers if shape[0] == 2 else answers[1:] - answers[:1] for answers in rows]
    return any(np.linalg.norm(head - like) <= _NEAR * np.linalg.norm(like) for like in made)


def _has_rows(files: CheckpointFiles, name: str, token_ids: list[int]) -> bool:
    shape = files.shapes[name]
    return len(shape) == 2 and shape[0] > max(token_ids) and shape[1] == files.shapes["score.weight"][1]


def _stock_classifier(config: Config, tensors: TensorShapes, files: frozenset[str]) -> bool:
    return registry.family_named("sequence-classifier").matches(config, tensors, files)


LOOKALIKES = (
    Lookalikes(
        recipes=("internlm2-reward", "polar"),
        form=_internlm2_value_head,
        mark=_reward_token,
        described="internlm2-reward scores a conversation and has the reward token '<|reward|>'; POLAR scores a "
        "response beside a demonstration and has '[UNUSED_TOKEN_130]'.",
    ),
    Lookalikes(
        recipes=("sequence-classifier", "qwen3-reranker"),
        form=_qwen3_classifier,
        mark=_yes_and_no,
        described="Qwen3-Reranker reads an instruction, a query and a document in a text of its own; "
        "sequence-classifier reads a conversation in the chat template.",
    ),
    Lookalikes(
        recipes=("sequence-classifier", "grm-ft"),
        form=_stock_classifier,
        mark=None,
        described="grm-ft is a stock classifier that is given two bos; only its published ids, or family=, tell it.",
    ),
)

# Families of one linear layer under a usual name, and the class that each of them was published with.
_OWN_CLASSES = {
    "athene": "CustomAutoModelForSequenceClassification",
    "eurus": "EurusRewardModel",
    "ultrarm": "LlamaRewardModel",
}


def _of_another_class(config: Config, tensors: TensorShapes, files: frozenset[str]) -> bool:
    return not set(_OWN_CLASSES.values()) & set(config.get("architectures") or ())


DOUBTS = (
    Doubt(
        families=tuple(_OWN_CLASSES),
        form=_of_another_class,
        says="the name of its head is all that says so, and its class is not that family's. If it was not trained on "
        "that family's text, its scores mean nothing; family=... says that it was, and ends this warning.",
    ),
    Doubt(
        families=("sequence-classifier",),
        form=lambda config, tensors, files: "score.bias" in tensors,
        says="it has a score.bias, which was trained with it and is added; transformers' class has none and leaves it "
        "out, so that its scores differ from these by the bias.",
    ),
)
