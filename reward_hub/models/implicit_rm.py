"""ImplicitRM: rewards that a language model implies beside a reference model, and the families that are read so.

implicit    DPO and KTO models: beta times the sum over the response of log p(token) - log p_reference(token).
eurus-prm   EurusPRM: the same sum up to the end of each step, times 0.001.
drsow       Dr. SoW: the mean log-ratio of a strong and a weak model, each with a tokenizer of its own.

Unbounded; higher is better. Both models are asked for the log-probability of each response token, given all before it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pydantic

from reward_hub.backends.base import require_finite
from reward_hub.base import BaseRM, CallOptions, Result
from reward_hub.encoding import completion_ids, content_start, steps_of, tokens_ending_by
from reward_hub.errors import BackendError, CheckpointError, InputTooLongError, InvalidConversationError
from reward_hub.family import Checkpoint, Config, Family, Setup, TensorShapes, never
from reward_hub.models.model_rm import Fitted, LoadedModel, each, in_places, read_each, with_other_response
from reward_hub.numerics import aggregate
from reward_hub.reads import TokenLogprobs
from reward_hub.tokenizer import Tokenizer
from reward_hub.types import Array, Conversation, Message, Scored, ScoreDetails, TokenInput

STEP_LABEL = re.compile(r"Step \d+:")


@dataclass(frozen=True)
class StepTokens(TokenInput):
    """Tokens read one after the other, of which some end a step."""

    step_ends: tuple[int, ...] = ()
    """For each step the index in `positions` of the last token that counts for it."""


# -- the families: which tokens are read, and what becomes of the log-ratios -----------------------------------------


class ImplicitOptions(pydantic.BaseModel):
    """`reference_free`: the policy's own log-probabilities, as if the reference gave every response the same."""

    model_config = pydantic.ConfigDict(strict=True)
    reference_free: bool = False


class EurusOptions(pydantic.BaseModel):
    """`boundaries`: "reference" reads where the card does, "exact" from the response's start to each step's end."""

    model_config = pydantic.ConfigDict(strict=True)
    boundaries: Literal["reference", "exact"] = "reference"


class DrSowOptions(pydantic.BaseModel):
    """`mask_special_tokens`: no special token counts, not only the padding token; `system_prompt`: put in front."""

    model_config = pydantic.ConfigDict(strict=True)
    mask_special_tokens: bool = False
    system_prompt: str | None = None


def encode_completion(conversation: Conversation, setup: Setup) -> TokenInput:
    """Read every token of the response, its end of turn and what the template writes behind that included (TRL)."""
    token_ids, start = completion_ids(conversation, setup.tokenizer)
    return TokenInput(token_ids, list(range(start, len(token_ids))))


def encode_drsow(conversation: Conversation, setup: Setup) -> TokenInput:
    """The same, behind a system prompt of the caller's where there is one."""
    if setup.options is not None and setup.options.system_prompt is not None:
        conversation = Conversation((Message("system", setup.options.system_prompt), *conversation.messages))
    return encode_completion(conversation, setup)


def encode_steps(conversation: Conversation, setup: Setup) -> StepTokens:
    """Every step is written as "Step k: ..." (unless it is so already), and a blank line stands between two."""
    given = enumerate(steps_of(conversation), start=1)
    steps = [step if STEP_LABEL.match(step) else f"Step {k}: {step}" for k, step in given]
    whole = conversation.with_response("\n\n".join(steps))
    exact = setup.options is not None and setup.options.boundaries == "exact"
    token_ids, first, last = (_exact_ends if exact else _card_ends)(whole, steps, setup.tokenizer)
    if not 0 < first <= last[0] or last[-1] >= len(token_ids):
        raise InvalidConversationError("the rendered conversation has no token to read for a step.", field="steps")
    ends = tuple(position - first for position in last)
    return StepTokens(token_ids, list(range(first, last[-1] + 1)), step_ends=ends)


def _card_ends(whole: Conversation, steps: Sequence[str], tokenizer: Tokenizer) -> tuple[list[int], int, list[int]]:
    """Ids, first position, last position of each step, by the card's lengths of what is rendered up to each step.

    Its lengths include the template's end of turn and the blank line, so that all steps but the last end one or two
    tokens late; its mask begins one token before the response.
    """

    def length(k: int) -> int:
        text = tokenizer.render(whole.with_response("\n\n".join(steps[:k])).messages).strip()
        return len(tokenizer.encode(text + "\n\n" if 0 < k < len(steps) else text))

    token_ids = tokenizer.encode(tokenizer.render(whole.messages))
    return token_ids, length(0) - 2, [length(k) - 1 for k in range(1, len(steps) + 1)]


def _exact_ends(whole: Conversation, steps: Sequence[str], tokenizer: Tokenizer) -> tuple[list[int], int, list[int]]:
    """The same with the true boundaries: a token that goes beyond a step's last character does not count for it."""
    text = tokenizer.render(whole.messages)
    token_ids, first = completion_ids(whole, tokenizer)
    _, offsets = tokenizer.encode_with_offsets(text)
    end = content_start(text, whole.response)
    last = []
    for step in steps:
        end += len(step)
        last.append(tokens_ending_by(offsets, end) - 1)
        end += len("\n\n")
    return token_ids, first, last


def score_sum(log_ratios: Array, setup: Setup) -> Scored:
    """[n_tokens, 1] -> their sum, before the coefficient."""
    return Scored(float(log_ratios.sum(dtype=np.float64)))


def score_cumulative(log_ratios: Array, setup: Setup) -> Scored:
    """[n_tokens, 1] -> the sum up to each token, before the coefficient; `ImplicitRM` takes those at the step ends."""
    return Scored(steps=log_ratios[:, 0].cumsum(dtype=np.float64).tolist())


def is_left_out(strong: Setup, tokenizer: Tokenizer, token_id: int) -> bool:
    """Whether Dr. SoW leaves a token of either model out of the sums: the strong model's padding token, by its text."""
    mask_special = strong.options is not None and strong.options.mask_special_tokens
    if mask_special and not tokenizer.decode([token_id], skip_special_tokens=True):
        return True
    return tokenizer.token(token_id) == strong.tokenizer.pad_token


def possible(config: Config, tensors: TensorShapes, files: frozenset[str]) -> bool:
    """Any causal LM could be a policy."""
    return any(name.endswith("ForCausalLM") for name in config.get("architectures") or [])


def possible_eurus(config: Config, tensors: TensorShapes, files: frozenset[str]) -> bool:
    return "Qwen2ForCausalLM" in (config.get("architectures") or [])


IMPLICIT = Family(
    name="implicit",
    kind="outcome",
    source="https://arxiv.org/abs/2305.18290",
    matches=never,
    possible=possible,
    encode=encode_completion,
    read=TokenLogprobs(),
    score=score_sum,
    options=ImplicitOptions,
    read_summary="response tokens of policy and reference",
    head_summary="lm_head of both models",
    reading="TRL's mask: the response with its end of turn. RewardBench also counts the assistant's header, adds a bos "
    "and an eos, and applies no beta.",
)
EURUS_PRM = Family(
    name="eurus-prm",
    kind="process",
    source="https://huggingface.co/PRIME-RL/EurusPRM-Stage2",
    checkpoints=(
        Checkpoint("PRIME-RL/EurusPRM-Stage1", license="apache-2.0", note="reference: Qwen/Qwen2.5-Math-7B-Instruct"),
        Checkpoint("PRIME-RL/EurusPRM-Stage2", license="apache-2.0", note="reference: Qwen/Qwen2.5-Math-7B-Instruct"),
    ),
    matches=never,
    possible=possible_eurus,
    encode=encode_steps,
    read=TokenLogprobs(),
    score=score_cumulative,
    options=EurusOptions,
    aggregate="last",
    reads_every_step=False,
    read_summary="response tokens of policy and reference",
    head_summary="lm_head of both models",
    reading="The card, whose mask begins one token before the response and whose inner steps end a token or two late; "
    "the authors' ProcessBench script begins at the response. boundaries='exact' gives the true spans.",
)
DRSOW = Family(
    name="drsow",
    kind="outcome",
    source="https://arxiv.org/abs/2411.02481",
    matches=never,
    encode=encode_drsow,
    read=TokenLogprobs(),
    score=score_sum,
    options=DrSowOptions,
    read_summary="response tokens of the strong and the weak model",
    head_summary="lm_head of both models",
    reading="The published mean over the response tokens. The original skips the first of them where the tokenizer "
    "adds a bos; here all count.",
)


@dataclass(frozen=True)
class Recipe:
    """How a family makes a number of two models' log-probabilities.

    Attributes:
        coefficient: what the sum is multiplied with unless `beta` is given.
        fixed: neither `beta` nor `length_normalize` may be given.
        normalizable: `length_normalize` may be given.
        average: the sum is divided by the policy's number of tokens.
        one_tokenizer: both models read the policy's token ids.
        leaves_out: (the policy's setup, a model's tokenizer, a token of it) -> the token does not count.
    """

    family: Family
    coefficient: float
    fixed: bool = False
    normalizable: bool = False
    average: bool = False
    one_tokenizer: bool = True
    leaves_out: Callable[[Setup, Tokenizer, int], bool] | None = None


RECIPES = {
    recipe.family.name: recipe
    for recipe in (
        Recipe(IMPLICIT, coefficient=0.1, normalizable=True),
        Recipe(EURUS_PRM, coefficient=0.001),
        Recipe(DRSOW, coefficient=1.0, fixed=True, average=True, one_tokenizer=False, leaves_out=is_left_out),
    )
}
FAMILIES = tuple(recipe.family for recipe in RECIPES.values())


# -- what AutoRM.load asks ---------------------------------------------------------------------------------------------


def is_implicit(family: Family) -> bool:
    return family in FAMILIES


def check_arguments(
    family: Family,
    *,
    reference: object,
    beta: float | None,
    length_normalize: bool,
    options: Mapping[str, Any] | None,
) -> None:
    """Raises TypeError where `reference`, `beta` or `length_normalize` do not go with the family, or are missing."""
    if not is_implicit(family):
        if reference is not None:
            raise TypeError(f"reference={reference!r}: {family.name} is no implicit reward, it reads one model.")
        if beta is not None or length_normalize:
            raise TypeError("beta and length_normalize belong to an implicit reward; give reference= too.")
        return
    recipe = RECIPES[family.name]
    if reference is None and not needs_no_reference(options):
        raise TypeError(f"{family.name} compares a model with another one; give reference= too.")
    if recipe.fixed and beta is not None:
        raise TypeError(f"beta={beta}: {family.name} has no coefficient.")
    if beta is not None and not (math.isfinite(beta) and beta > 0):
        raise TypeError(f"beta={beta}; a positive number is needed.")
    if length_normalize and not recipe.normalizable:
        raise TypeError(f"length_normalize=True: {family.name} has its own way of dividing by the length, or none.")


def needs_no_reference(options: Mapping[str, Any] | None) -> bool:
    return bool((options or {}).get("reference_free"))


def check_tokenizers(family: Family, policy: Setup, reference: Setup) -> None:
    """Where both models read the same ids, these must mean the same: one vocabulary, one bos, eos and unk.

    The padding token may differ: it is never read, and training scripts choose one as they please.

    Raises:
        CheckpointError: they do not share the tokenizer.
    """
    if not RECIPES[family.name].one_tokenizer or policy.tokenizer is reference.tokenizer:
        return
    advice = "Both models read the policy's token ids; a tokenizer= given by name is taken for both."
    for name in ("bos_token_id", "eos_token_id", "unk_token_id"):
        ours, theirs = getattr(policy.tokenizer, name), getattr(reference.tokenizer, name)
        if ours != theirs:
            raise CheckpointError(f"The policy's {name} is {ours}, the reference's {theirs}. {advice}")
    ours, theirs = (_vocabulary(setup.tokenizer) for setup in (policy, reference))
    if ours is not None and theirs is not None and ours != theirs:
        other = sorted({token for token, _ in set(ours.items()) ^ set(theirs.items())})
        raise CheckpointError(
            f"Policy and reference have different vocabularies: {len(other)} token(s) differ, such as "
            f"{', '.join(map(repr, other[:3]))}. {advice}"
        )


def _vocabulary(tokenizer: Tokenizer) -> dict[str, int] | None:
    """Token -> id; None for a tokenizer of the caller's that does not tell."""
    vocabulary = getattr(tokenizer, "vocabulary", None)
    return None if vocabulary is None else dict(vocabulary())


@dataclass(frozen=True)
class _Pair:
    """One conversation as both models read it; without a reference the second is None."""

    policy: Fitted
    reference: Fitted | None

    @property
    def tokens(self) -> TokenInput:
        return self.policy.tokens

    @property
    def aligned(self) -> bool:
        """Whether both models read the same tokens, so that there is a ratio for each."""
        return self.reference is None or self.reference.tokens.token_ids == self.tokens.token_ids


class ImplicitRM(BaseRM):
    """A reward model made of a policy and, unless it is reference-free, a reference model."""

    def __init__(
        self,
        policy: LoadedModel,
        reference: LoadedModel | None,
        *,
        beta: float | None = None,
        length_normalize: bool = False,
    ) -> None:
        recipe = RECIPES[policy.family.name]
        models = [model for model in (policy, reference) if model is not None]
        limits = [model.max_length for model in models if model.max_length is not None]
        self.max_length = min(limits, default=None)
        self.policy = replace(policy, max_length=self.max_length)
        self.reference = None if reference is None else replace(reference, max_length=self.max_length)
        self.beta = recipe.coefficient if beta is None else float(beta)
        self.length_normalize = length_normalize or recipe.average
        self.name = policy.name
        self.family = policy.family.name
        self.kind = policy.family.kind
        self.step_delimiter = policy.family.step_delimiter
        self._recipe = recipe
        self._fingerprint: str | None = None

    @property
    def model(self) -> LoadedModel:
        """The policy: what the user named."""
        return self.policy

    @property
    def fingerprint(self) -> str:
        if self._fingerprint is None:
            reference = None if self.reference is None else self.reference.fingerprint()
            self._fingerprint = self.policy.fingerprint(
                reference=reference, beta=self.beta, length_normalize=self.length_normalize
            )
        return self._fingerprint

    def close(self) -> None:
        self.policy.backend.close()
        if self.reference is not None:
            self.reference.backend.close()

    def _default_aggregation(self) -> str:
        return self.policy.aggregation or self.policy.family.aggregate

    def _score_many(self, conversations: Sequence[Conversation], options: CallOptions) -> list[Result]:
        pairs = each(conversations, self._fit, options)
        fitting = [pair for pair in pairs if isinstance(pair, _Pair)]
        outputs = self._outputs(fitting, options)
        return in_places(
            pairs,
            outputs,
            lambda i, pair, output: self._details(conversations[i], pair, output, options.aggregation),
            options,
        )

    def _outputs(self, pairs: Sequence[_Pair], options: CallOptions) -> list[Array | BackendError]:
        """For each conversation the policy's log-probabilities, and below them the reference's."""
        if self.reference is None:
            return read_each(self.policy, [pair.policy for pair in pairs], options)
        first = read_each(self.policy, [pair.policy for pair in pairs], replace(options, progress=None))
        theirs = [pair.reference for pair in pairs if pair.reference is not None]
        second = read_each(self.reference, theirs, options)
        return [_stacked(ours, theirs) for ours, theirs in zip(first, second, strict=True)]

    def tokens_read(self, conversation: Conversation) -> TokenInput:
        """What the policy reads of a conversation, within the length limit; `positions` are the tokens that count."""
        return self._fit_to(self.policy, conversation).tokens

    def _fit(self, conversation: Conversation) -> _Pair:
        ours = self._fit_to(self.policy, conversation)
        if self.reference is None:
            return _Pair(ours, None)
        return _Pair(ours, ours if self._recipe.one_tokenizer else self._fit_to(self.reference, conversation))

    def _fit_to(self, model: LoadedModel, conversation: Conversation) -> Fitted:
        """One model's tokens within the length limit, every response token still among them."""
        fitted = model.fit(lambda c: self._counted(model, c), conversation, with_other_response)
        positions = fitted.tokens.positions
        if positions[0] < 1 or len(set(positions)) < len(positions):
            n = len(fitted.tokens.token_ids) + fitted.dropped
            raise InputTooLongError(
                f"{n} tokens, and the models take {self.max_length}: truncation={model.truncation!r} would cut off "
                "tokens of the response.",
                n_tokens=n,
                max_length=self.max_length or 0,
            )
        return fitted

    def _counted(self, model: LoadedModel, conversation: Conversation) -> TokenInput:
        """One model's tokens; what the recipe leaves out is not read."""
        tokens = model.family.encode(conversation, model.setup)
        leaves_out, strong = self._recipe.leaves_out, self.policy.setup
        if leaves_out is None:
            return tokens
        ids = tokens.token_ids
        positions = [p for p in tokens.positions if not leaves_out(strong, model.setup.tokenizer, ids[p])]
        if not positions:
            raise InvalidConversationError("the response has no token that counts.", field="messages")
        return replace(tokens, positions=positions)

    def _details(self, conversation: Conversation, pair: _Pair, output: Array, how: str | None) -> ScoreDetails:
        n = len(pair.tokens.positions)
        ours, theirs = np.split(require_finite(output), [n])
        terms = ours - theirs if pair.aligned and len(theirs) else np.concatenate([ours, -theirs])
        scored = self.policy.family.score(terms, self.policy.setup)
        scale = self.beta / n if self.length_normalize else self.beta
        steps = None
        if scored.steps is not None:
            assert isinstance(pair.tokens, StepTokens)
            steps = [scale * scored.steps[end] for end in pair.tokens.step_ends]
            score = aggregate(steps, how or self._default_aggregation())
        else:
            assert scored.score is not None
            score = scale * scored.score
        spans = conversation.step_spans
        both = [fitted for fitted in (pair.policy, pair.reference) if fitted is not None]
        return replace(
            self.policy.details(score, terms, pair.policy),
            truncated=any(fitted.dropped > 0 for fitted in both),
            dropped_tokens=max(fitted.dropped for fitted in both),
            step_scores=steps,
            step_spans=[list(span) for span in spans] if steps is not None and spans is not None else None,
            extra=self._sums(ours, theirs),
        )

    def _sums(self, ours: Array, theirs: Array) -> dict[str, Any]:
        """What the score was made of; `raw_logits` are the log-ratios of the tokens.

        Where two tokenizers cut the text differently there is no ratio a token: `raw_logits` are then the policy's
        log-probabilities, followed by the reference's with their sign turned.
        """
        policy, reference = (float(part.sum(dtype=np.float64)) for part in (ours, theirs))
        sums = {
            "logp_policy_sum": policy,
            "logratio_sum": policy - reference,
            "logratio_mean": (policy - reference) / len(ours),
            "n_completion_tokens": len(ours),
            "beta": self.beta,
        }
        if self.reference is None:
            return sums
        return {**sums, "logp_reference_sum": reference, "reference": self.reference.name}


def _stacked(ours: Array | BackendError, theirs: Array | BackendError) -> Array | BackendError:
    if isinstance(ours, BackendError):
        return ours
    return theirs if isinstance(theirs, BackendError) else np.concatenate([ours, theirs])
