"""What a family is: how a conversation becomes token ids, which positions are read, how outputs become a score."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from reward_hub.encoding import refuse_template_arguments
from reward_hub.errors import InvalidConversationError, RewardHubError
from reward_hub.labels import classes_named
from reward_hub.numerics import softmax
from reward_hub.reads import HeadOutputs, Read
from reward_hub.types import (
    Array,
    Checkpoint,
    Config,
    Conversation,
    Kind,
    Message,
    NoResponseError,
    Pair,
    Scored,
    TensorShapes,
    TokenInput,
    template_arguments,
)

if TYPE_CHECKING:
    from pydantic import BaseModel

    from reward_hub.tokenizer import Tokenizer


@dataclass(frozen=True)
class Setup:
    """What a family's functions may look at: the loaded checkpoint's tokenizer, config, tensors and the options."""

    tokenizer: Tokenizer
    config: Config
    tensors: TensorShapes
    options: Any = None
    """An instance of the family's `options` model, or None."""
    pad_token_id: int | None = None
    """Of a stock classifier: the token that its class passes over where it looks for the last one."""


@dataclass(frozen=True)
class Backbone:
    """How a checkpoint that stock transformers classes do not read becomes one that they do.

    Attributes:
        config: a config.json with a `model_type` that transformers knows.
        rename: (regular expression, replacement) pairs that turn a checkpoint's tensor name into the stock base
            model's; the first that matches is applied. A tensor that none matches keeps its name.
        split: cuts a packed tensor into stock ones: (stock name, tensor) -> {stock name: tensor}.
        ignore: regular expressions of tensors (checkpoint names) that are not needed.
        causal: False for encoders, which attend in both directions and need the padding masked.
        weights_file: the pickled weights are in this file, which is not a standard name.
    """

    config: Config
    rename: tuple[tuple[str, str], ...] = ()
    split: Callable[[str, Any], dict[str, Any]] | None = None
    ignore: tuple[str, ...] = ()
    causal: bool = True


@dataclass(frozen=True)
class LogRatio:
    """How a family makes a number of the log-probabilities of two models, a policy and a reference.

    Attributes:
        coefficient: what the sum is multiplied with unless `beta` is given.
        fixed: neither `beta` nor `length_normalize` may be given.
        normalizable: `length_normalize` may be given.
        average: the sum is divided by the policy's number of tokens.
        one_tokenizer: both models read the policy's token ids.
        leaves_out: (the policy's setup, a model's tokenizer, a token of it) -> the token does not count.
    """

    coefficient: float
    fixed: bool = False
    normalizable: bool = False
    average: bool = False
    one_tokenizer: bool = True
    leaves_out: Callable[[Setup, Tokenizer, int], bool] | None = None


BAD_GOOD = ("bad", "good")
"""The classes of a head of two, in the order in which training tools number them."""
FileNames: TypeAlias = frozenset[str]
Matches: TypeAlias = Callable[[Config, TensorShapes, FileNames], bool]


_USUAL = Conversation((Message("user", "What is 2 + 2?"), Message("assistant", "4")))


@dataclass(frozen=True, kw_only=True)
class Family:
    """One way reward models are built and read. Frozen data and a few plain functions.

    Attributes:
        name: the name used in `family=`.
        kind: what it judges: a response ("outcome"), its steps ("process") or two responses ("pairwise").
        source: URL of the recipe this follows.
        checkpoints: published checkpoints.
        matches: whether config, tensor names and file names say that a checkpoint is of this family.
        possible: whether a checkpoint *could* be of this family where only its id tells (plain causal LMs); such
            checkpoints are not guessed, but this family is named as a candidate.
        architectures: names in config.json that point at this family; a hint only, tensors decide.
        encode: conversation -> token ids and positions. Pairwise families get a `Pair`.
        read: which of the three questions is asked, or a function that builds it from the checkpoint.
        score: outputs at the positions -> score(s).
        backbone: how a foreign checkpoint becomes a stock one; None where it is stock.
        head_files: files beside the weights that hold the head (pickles are read with weights_only).
        options: a pydantic model of the family's own options.
        higher_is_better: False where every checkpoint's score is a cost.
        is_cost: tells from config.json that one checkpoint's score is a cost, where the family has both kinds.
        score_range: where scores lie; decides `normalized_score`.
        range_of: the range where an option of the family changes it.
        aggregate: process families: how step scores become one score, as the authors do.
        step_delimiter: where a response is split when no steps are given.
        reads_every_step: process families: one position a step; False where scores are made of other reads.
        prefixes: process families with one score a response: the shorter conversations whose scores are the steps'.
        both_orders: pairwise families: the card averages both orders of the pair.
        pair_output: what a pairwise family's score is: the "logit" or the "probability" that `a` is the better one.
        cut: pairwise families whose recipe gives the prompt and each response a budget of their own: (pair, setup,
            max_length, truncation) -> the input within the budgets, or None where it cannot be cut so.
        single_against: pairwise families with a documented score of one response: the text it is compared with.
        max_length: most tokens, where the recipe fixes them for every checkpoint.
        stock_classifier: transformers' own classifier class is the reference, so that the last token is read that is
            not the pad token of the config.
        log_ratio: families that read a policy beside a reference model: how the two make a score.
        recipe: version of the recipe, part of the fingerprint; raised whenever a score changes.
        model_types: the model types of its checkpoints, where its recipe fixes them and not every engine runs them.
        reading: one sentence on which reference's number this is and why, where references differ.
    """

    name: str
    kind: Kind
    source: str
    checkpoints: tuple[Checkpoint, ...] = ()
    matches: Matches
    possible: Matches | None = None
    architectures: tuple[str, ...] = ()
    encode: Callable[[Any, Setup], TokenInput]
    read: Read | Callable[[Setup], Read]
    score: Callable[[Array, Setup], Scored]
    backbone: Callable[[Config, TensorShapes], Backbone] | None = None
    head_files: tuple[str, ...] = ()
    options: type[BaseModel] | None = None
    higher_is_better: bool = True
    is_cost: Callable[[Config], bool] | None = None
    score_range: tuple[float, float] = (-math.inf, math.inf)
    range_of: Callable[[Setup], tuple[float, float]] | None = None
    aggregate: str = "min"
    step_delimiter: str = "\n\n"
    reads_every_step: bool = True
    prefixes: Callable[[Conversation], list[Conversation]] | None = None
    both_orders: bool = False
    pair_output: str = "logit"
    cut: Callable[[Pair, Setup, int, str], TokenInput | None] | None = None
    single_against: str | None = None
    max_length: int | None = None
    stock_classifier: bool = False
    log_ratio: LogRatio | None = None
    recipe: int = 1
    model_types: tuple[str, ...] = ()
    read_summary: str = ""
    head_summary: str = ""
    reading: str = ""

    def read_for(self, setup: Setup) -> Read:
        """The read for one checkpoint."""
        return self.read(setup) if callable(self.read) else self.read

    def tokens_of(self, value: Conversation | Pair, setup: Setup) -> TokenInput:
        """What `encode` makes of a conversation or a pair. Raises as `watched`."""
        return self.watched(value, setup)[0]

    def watched(self, value: Conversation | Pair, setup: Setup) -> tuple[TokenInput, WatchedTokenizer]:
        """What `encode` makes of a conversation or a pair, and what it asked the tokenizer for.

        Raises:
            InvalidConversationError: it has `tools` or arguments for the chat template, and this family writes its text
                without them; or no response, and this family reads prompt and response apart.
        """
        tokenizer = WatchedTokenizer(setup.tokenizer)
        own = replace(setup, tokenizer=cast("Tokenizer", tokenizer))
        try:
            tokens = self.encode(value, own)
        except NoResponseError as error:
            raise InvalidConversationError(
                f"family {self.name} reads a prompt and a response apart, and {error}. require_response=False is for "
                "families that read a conversation as a whole.",
                field="messages",
            ) from error
        if template_arguments(value.prompt) and not any(template_arguments(r.messages) for r in tokenizer.renderings):
            refuse_template_arguments(value.prompt, f"family {self.name} writes the conversation's text itself")
        return tokens, tokenizer

    def reads_at(self, setup: Setup) -> str:
        """Where the score is read, in words; of a stock classifier also the token that its config has it pass over."""
        n_behind = self.n_passed_over(setup)
        if not n_behind:
            return self.read_summary
        assert setup.pad_token_id is not None
        token = setup.tokenizer.token(setup.pad_token_id)
        return (
            f"head at the last token that is not the pad token {token!r} ({setup.pad_token_id}), as in transformers' "
            f"class: {n_behind} before the end"
        )

    def n_passed_over(self, setup: Setup) -> int:
        """How many tokens stand behind the one that is read because they are pad tokens, after a usual answer."""
        if setup.pad_token_id is None:
            return 0
        try:
            tokens: TokenInput = self.encode(_USUAL, setup)
        except RewardHubError:
            return 0  # a template that wants other turns
        return len(tokens.token_ids) - 1 - tokens.positions[0]

    def checkpoint(self, model_id: str) -> Checkpoint | None:
        """The published checkpoint of this id, if it is one of the family's."""
        return next((row for row in self.checkpoints if row.id == model_id), None)


@dataclass(frozen=True)
class Rendering:
    """What a chat template wrote."""

    messages: tuple[Message, ...]
    add_generation_prompt: bool
    text: str


class WatchedTokenizer:
    """A tokenizer that remembers what it rendered and which texts it encoded."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.renderings: list[Rendering] = []
        self.encoded: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def render(self, messages: Iterable[Message], *, add_generation_prompt: bool = False) -> str:
        turns = tuple(messages)
        text = self._tokenizer.render(turns, add_generation_prompt=add_generation_prompt)
        self.renderings.append(Rendering(turns, add_generation_prompt, text))
        return text

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        self.encoded.append(text)
        return self._tokenizer.encode(text, add_special_tokens=add_special_tokens)

    def encode_with_offsets(
        self, text: str, *, add_special_tokens: bool = False
    ) -> tuple[list[int], list[tuple[int, int]]]:
        self.encoded.append(text)
        return self._tokenizer.encode_with_offsets(text, add_special_tokens=add_special_tokens)

    def encode_pair(self, first: str, second: str) -> tuple[list[int], list[int]]:
        self.encoded += [first, second]
        return self._tokenizer.encode_pair(first, second)


def head_output(outputs: Array, setup: Setup) -> Scored:
    """[1, width] -> the last output as the score: a head's only one, or what normalisation made of it."""
    return Scored(float(outputs[0, -1]))


def step_probability(column: int) -> Callable[[Array, Setup], Scored]:
    """The `score` of process families that read two logits a step: the softmax's share of one of them."""

    def score(logits: Array, setup: Setup) -> Scored:
        """[n_steps, 2] logits -> probability a step."""
        return Scored(steps=softmax(logits)[:, column].tolist())

    return score


def good_class_probability(logits: Array, setup: Setup) -> Scored:
    """The `score` of process families with a head of two classes a step: [n_steps, 2] logits -> P(good) a step."""
    _, good = classes_named(setup.config, BAD_GOOD)
    return Scored(steps=softmax(logits)[:, good].tolist())


def calls_itself(*architectures: str) -> Matches:
    """The `possible` of families whose checkpoints are plain language models: nothing but this name is in them."""

    def possible(config: Config, tensors: TensorShapes, files: FileNames) -> bool:
        return bool(set(architectures) & set(config.get("architectures") or ()))

    return possible


def never(config: Config, tensors: TensorShapes, files: FileNames) -> bool:
    """For families that no checkpoint tells of itself."""
    return False


__all__ = [
    "Backbone",
    "Checkpoint",
    "Config",
    "Conversation",
    "Family",
    "HeadOutputs",
    "LogRatio",
    "Pair",
    "Setup",
    "TensorShapes",
    "head_output",
    "never",
]
