"""Whether a model may read packed rows: found out on the model itself, never from its name.

Four short conversations, two of which share beginnings, go through the model as its class runs them (its own eager
attention, one row each) and packed. It is packable only if

1. our function was called by every layer: a positive multiple of their number;
2. it was given nothing that it does not look at: no mask but the causal one, no unknown argument, no shorter window;
3. on the queries, keys and values of every layer it gives what the class's own eager attention gives, in float32;
4. other tokens in the neighbours leave a segment as it is, and packed equals alone at every position.

The third finds what drowns in the rounding of half precision (a soft cap), the fourth what mixes tokens beside
attention (convolutions, states). Whatever goes wrong on the way is a no.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from reward_hub.backends.packing.attention import KEYWORD, NotPackableError, PackedRow, Switch, packed, require_plain
from reward_hub.backends.packing.model import PackedModel
from reward_hub.backends.packing.plan import Costs, Forward, plans
from reward_hub.types import TokenInput

RECORDED = "reward_hub_recorded"

# Conversations of the probe: A and B share a beginning, B and C a longer one, D is by itself.
LENGTH = 20
SHARED = 12
SHARED_LONGER = 16
# Two ways to compute attention in float32, relative to the largest number, where scores are up to TELLING_SCORE;
# larger ones are rounded by more.
SAME_ATTENTION = 1e-5
TELLING_SCORE = 30.0
# Two ways to run the model: float32, and half precision (each by itself drifts by some hundredths).
SAME_HIDDEN = {torch.float32: 1e-3}
SAME_HIDDEN_HALF = 0.1
# The first positions of a segment, which the rest would hide: what leaks in there changes them wholly, and all but
# one have to hold (in half precision a router may send one token to another expert).
FIRST = 4
SAME_FIRST_HALF = 0.4


@dataclass(frozen=True)
class Packing:
    """Whether conversations are packed.

    Attributes:
        reason: why not; None: they are.
        longest: most tokens of a conversation that may be packed; None: any number.
    """

    reason: str | None = None
    longest: int | None = None

    def holds(self, item: TokenInput) -> bool:
        """Whether an input may be packed."""
        plain = item.token_type_ids is None and item.decoder_ids is None and not item.media
        fits = self.longest is None or len(item.token_ids) <= self.longest
        return self.reason is None and plain and fits and bool(item.token_ids)

    def __str__(self) -> str:
        if self.reason is not None:
            return f"padded, as {self.reason}"
        return "packed" if self.longest is None else f"packed up to {self.longest} tokens a conversation"


def packing_of(model: Any, device: torch.device) -> Packing:
    """Try a model whose class gives hidden vectors."""
    if any(weight.device.type != "cpu" for weight in model.parameters()):
        return Packing("there is no packed attention for this device yet")
    try:
        with torch.inference_mode():
            return _Probe(model, device).packing()
    except NotPackableError as error:
        return Packing(str(error))
    except Exception as error:  # foreign code may raise anything; what it means is that it cannot be packed
        return Packing(f"trying it failed ({type(error).__name__}: {error})")


@dataclass
class _Call:
    """One call of an attention function."""

    module: Any
    tensors: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    mask: torch.Tensor | None
    arguments: dict[str, Any]


@dataclass
class _Recording:
    """What a model asks of attention in one forward."""

    calls: list[_Call] = field(default_factory=list)
    windows: set[int] = field(default_factory=set)


class _Probe:
    def __init__(self, model: Any, device: torch.device) -> None:
        self._model = model
        self._device = device
        self._ids = _some_ids(model)
        (plan,) = plans(self._ids, [list(range(LENGTH))] * len(self._ids), max_tokens=1000, costs=_ShareAll())
        (self._forward,) = plan.forwards
        self._places = torch.zeros(len(self._ids), LENGTH, dtype=torch.long)
        for read in self._forward.reads:
            self._places[read.conversation, read.position] = read.place

    def packing(self) -> Packing:
        """
        Raises:
            NotPackableError: it is not packable.
        """
        if getattr(self._model.config.get_text_config(), "attn_temperature_tuning", None):
            raise NotPackableError("its attention changes with the position")
        alone, recording = self._recorded()
        self._require_every_layer(len(recording.calls))
        for call in recording.calls:
            self._require_same_attention(call)
        self._require_same_hidden(alone)
        windows = {*recording.windows, *_windows(recording.calls)}
        longest = min(windows, default=None)
        if longest is not None and longest < LENGTH:
            raise NotPackableError(f"its attention reaches {longest} tokens")
        return Packing(longest=longest)

    def _recorded(self) -> tuple[torch.Tensor, _Recording]:
        """The hidden vectors [conversations, tokens, size] by the class's own eager attention."""
        _register()
        recording = _Recording()
        token = _recording.set(recording)
        try:
            with Switch(self._model).to(RECORDED):
                output = self._model(
                    input_ids=torch.tensor(self._ids, device=self._device), use_cache=False, **{KEYWORD: recording}
                )
        finally:
            _recording.reset(token)
        return output.last_hidden_state, recording

    def _require_every_layer(self, n_calls: int) -> None:
        n_layers = self._model.config.get_text_config().num_hidden_layers
        if not n_calls or n_calls % n_layers:
            raise NotPackableError(
                f"{n_calls} of its {n_layers} layers ask transformers for an attention function"
                if n_calls
                else "its class does not ask transformers for an attention function"
            )

    def _require_same_attention(self, call: _Call) -> None:
        """Our function on these queries, keys and values, against the class's own."""
        causal = torch.ones(LENGTH, LENGTH, dtype=torch.bool, device=call.tensors[0].device).tril()
        if call.mask is None or call.mask.shape[-2:] != causal.shape or not bool(((call.mask == 0) == causal).all()):
            raise NotPackableError("its attention mask is not the causal one")
        require_plain(call.module, None, call.arguments)
        query, key, value = (tensor.float() for tensor in call.tensors)
        half = call.tensors[0].dtype not in SAME_HIDDEN
        largest = _largest_score(call, query, key)
        conversation, position = self._first_reads()
        # As they are, and with scores large enough that a cap shows.
        for factor in {1.0, max(1.0, TELLING_SCORE / largest)}:
            tensors = (factor * query, key, value)
            expected = _eager(call.module)(call.module, *tensors, call.mask.float(), **call.arguments)[0]
            row = [tensor[conversation, :, position].transpose(0, 1)[None] for tensor in tensors]
            arguments: dict[str, Any] = {**call.arguments, KEYWORD: PackedRow(self._forward, joined=half)}
            ours, _ = packed(call.module, row[0], row[1], row[2], None, **arguments)
            apart = float((ours[0][self._places] - expected).abs().max() / expected.abs().max())
            if not apart <= SAME_ATTENTION * max(1.0, factor * largest / TELLING_SCORE):
                raise NotPackableError(f"packed attention is not that of its class ({apart:.1e} apart)")

    def _first_reads(self) -> tuple[torch.Tensor, torch.Tensor]:
        """For each place in the row, a conversation and a position that stand there."""
        places = {read.place: (read.conversation, read.position) for read in self._forward.reads}
        at = torch.tensor([places[place] for place in range(self._forward.span.stop)])
        return at[:, 0], at[:, 1]

    def _require_same_hidden(self, alone: torch.Tensor) -> None:
        """The whole model, packed: against each conversation alone, and with other tokens in the neighbours."""
        model = PackedModel(self._model, self._device)
        row = PackedRow(self._forward)
        together = model.hidden(self._forward, row)
        self._require_every_layer(row.n_calls)
        same = SAME_HIDDEN.get(alone.dtype, SAME_HIDDEN_HALF)
        same_first = SAME_HIDDEN.get(alone.dtype, SAME_FIRST_HALF)
        for conversation, places in enumerate(self._places):
            apart = _apart(together[places], alone[conversation])
            starts = (apart[start : start + FIRST] for start in (0, SHARED, SHARED_LONGER))
            alike = [start.kthvalue(FIRST - 1).values <= same_first for start in starts]
            if not (apart.median() <= same and all(alike)):
                raise NotPackableError("packed, its hidden vectors are not those of a conversation alone")
        changed, kept = self._with_other_neighbours()
        apart = _apart(model.hidden(changed, PackedRow(changed))[kept], together[kept])
        if not apart.max() <= same:
            raise NotPackableError("tokens of one conversation change the hidden vectors of another")

    def _with_other_neighbours(self) -> tuple[Forward, torch.Tensor]:
        """The row with other tokens at the ends of A and B, and the places of all that must not notice."""
        ends = torch.cat((self._places[0, SHARED:], self._places[1, SHARED_LONGER:])).tolist()
        token_ids = list(self._forward.token_ids)
        for place, other in zip(ends, reversed(self._ids[3]), strict=False):
            token_ids[place] = other
        kept = [place for place in range(len(token_ids)) if place not in ends]
        return replace(self._forward, token_ids=token_ids), torch.tensor(kept)


class _ShareAll(Costs):
    def worth(self, saved: int, n_rows: int) -> bool:
        return True


def _some_ids(model: Any) -> list[list[int]]:
    """A, B, C and D: ordinary tokens, none of those that a config names."""
    config = model.config.get_text_config()
    special = {value for key, value in config.to_dict().items() if key.endswith("_token_id") and isinstance(value, int)}
    n_tokens = model.get_input_embeddings().weight.shape[0]
    ordinary = [token for token in range(min(n_tokens, 50_000)) if token not in special]
    numbers = random.Random(0)

    def some(n: int) -> list[int]:
        return numbers.sample(ordinary, n) if len(ordinary) >= n else numbers.choices(ordinary, k=n)

    a, b, d = some(LENGTH), some(LENGTH), some(LENGTH)
    b = a[:SHARED] + b[SHARED:]
    c = b[:SHARED_LONGER] + some(LENGTH - SHARED_LONGER)
    return [a, b, c, d]


def _apart(found: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """How far vectors [n, size] are from others, each relative to its length."""
    found, expected = found.float(), expected.float()
    apart: torch.Tensor = (found - expected).norm(dim=-1) / expected.norm(dim=-1).clamp_min(1e-6)
    return apart


def _largest_score(call: _Call, query: torch.Tensor, key: torch.Tensor) -> float:
    """The largest product of a query and a key, scaled, of either sign."""
    scaling = call.arguments.get("scaling")
    keys = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    largest = float((query @ keys.transpose(2, 3)).abs().max())
    return max(1e-3, largest * (query.shape[-1] ** -0.5 if scaling is None else float(scaling)))


def _windows(calls: Sequence[_Call]) -> Iterator[int]:
    for call in calls:
        window = call.arguments.get("sliding_window")
        if window is not None:
            yield int(window)


# One ordinary run by the class's own eager attention -----------------------------------------------------------------

_recording: contextvars.ContextVar[_Recording] = contextvars.ContextVar("recording")


def _recorded(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    **arguments: Any,
) -> Any:
    recording = arguments.pop(KEYWORD, None)
    if not isinstance(recording, _Recording):
        raise NotPackableError("its class does not hand the forward's arguments to its attention")
    recording.calls.append(_Call(module, (query, key, value), attention_mask, arguments))
    return _eager(module)(module, query, key, value, attention_mask, **arguments)


def _recorded_mask(*given: Any, local_size: int | None = None, **arguments: Any) -> Any:
    if local_size:  # some classes make a mask of window 0 that no layer takes
        _recording.get().windows.add(int(local_size))
    return ALL_MASK_ATTENTION_FUNCTIONS["eager"](*given, local_size=local_size, **arguments)


def _eager(module: Any) -> Any:
    """The eager attention of a module's class, from the file that it is written in."""
    function = inspect.unwrap(type(module).forward).__globals__.get("eager_attention_forward")
    if function is None:
        raise NotPackableError("its class has no eager attention to hold packed attention to")
    return function


@functools.cache
def _register() -> None:
    AttentionInterface.register(RECORDED, _recorded)
    AttentionMaskInterface.register(RECORDED, _recorded_mask)
