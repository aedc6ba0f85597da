"""Attention over a packed row: each segment causal by itself, and joined with what it looks back at.

The function is registered with transformers under `NAME`. What tells segments apart travels as an argument of the
model's forward (`KEYWORD`), down to the attention function; nothing global changes, so threads do not meet. A model
uses it while its config names it (`packed_attention`).

In half precision what is looked back at is computed for all who share it in one call, and the two parts of the
softmax are joined by their log-sum-exp: out = (e^a A + e^b B) / (e^a + e^b). In float32 each segment is computed over
its whole conversation: joining would round by more than the sixth digit, and the products with the weights take most of
the time there anyway.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeGuard

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig

from reward_hub.backends.packing.plan import Forward, Link, Span

NAME = "reward_hub_packed"
KEYWORD = "reward_hub_row"
# The property of a config that names its attention; `set_attn_implementation` sets it where a class allows that.
ATTENTION = "_attn_implementation"

# The op behind torch's attention on CPUs; its public face does not give the log-sum-exp.
FLASH = "_scaled_dot_product_flash_attention_for_cpu"
# Segments up to this length are computed many in one call, where their lengths are about the same.
SHORT = 128
# Rows joined at a time: what is made on the way stays in the cache.
JOINED_ROWS = 256
# Rows of queries at a time where all their scores are held at once.
CAPPED_ROWS = 256
# Rows that torch's kernel computes at a time, at least.
WHOLE_ROWS = 32
# What packed attention heeds. (How far a window reaches is asked at the check; longer conversations are not packed.)
LOOKED_AT = frozenset({"scaling", "dropout", "softcap", "is_causal", "sliding_window"})
# What attention functions are given besides, and which does not change what they should compute.
WITHOUT_EFFECT = frozenset(
    {
        *("position_ids", "cache_position", "past_key_values", "use_cache", "return_dict", "input_ids"),
        *("output_attentions", "output_hidden_states", "output_router_logits", "logits_to_keep"),
    }
)

Output: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""[n, heads, queries, head size], and the log-sum-exp of the scores in float32, [n, heads, queries]."""
Kernel: TypeAlias = Callable[..., Output]
"""(q, k, v, *, scale, causal, cap): q [n, heads, queries, size], k and v [n, heads or fewer, keys, size]. Causal: the
queries are the last of the keys' tokens."""


class NotPackableError(RuntimeError):
    """The model's attention does something that packed attention does not."""


class Kept(NamedTuple):
    """Keys and values of places in the row of a plan, of one attention call."""

    span: Span
    keys: torch.Tensor
    values: torch.Tensor


class Gathered(NamedTuple):
    """Segments that are computed in one call.

    Attributes:
        places: rows, [n, longest].
        own: which of them, flattened, are tokens of the segments.
        rows: where those stand.
    """

    places: torch.Tensor
    own: torch.Tensor
    rows: torch.Tensor


class PackedRow:
    """One forward's row, as the attention function of every layer meets it.

    Args:
        forward: which tokens stand in the row.
        kept: of each attention call of a forward, what the forwards before kept.
        joined: whether parts are joined by their log-sum-exp; None: as the dtype says.
    """

    def __init__(self, forward: Forward, kept: list[list[Kept]] | None = None, *, joined: bool | None = None) -> None:
        self.n_calls = 0
        self.keeps: list[list[Kept]] = []
        self._kept = kept or []
        self._forward = forward
        self._joined = joined
        self._contexts = _contexts(forward)
        self._batches = _batches(forward.segments, forward.span.start)
        alone = [span for span in forward.segments if span not in self._contexts]
        self._alone = _batches(alone, forward.span.start, equal=True)

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, scale: float, cap: float | None
    ) -> torch.Tensor:
        """[1, heads, tokens, size] each; returns [1, tokens, heads, size of values]."""
        call, self.n_calls = self.n_calls, self.n_calls + 1
        own = Kept(self._forward.span, key, value)
        pieces = [*(self._kept[call] if self._kept else ()), own]
        kernel = functools.partial(cpu_kernel, scale=scale, cap=cap)
        joined = query.dtype not in (torch.float32, torch.float64) if self._joined is None else self._joined
        if not joined:
            out, _ = self._segments(self._alone, query, key, value, kernel)
            for span, context in self._contexts.items():
                self._after(query, pieces, span, context, out, kernel)
        else:
            out, lse = self._segments(self._batches, query, key, value, kernel)
            for links in self._forward.links:
                for link in links:
                    self._join(query, pieces, link, out, lse, kernel)
        # Copies: a view would hold on to the whole row.
        kept = [_of(pieces, span) for span in self._forward.keep]
        self.keeps.append([Kept(span, keys.clone(), values.clone()) for span, keys, values in kept])
        return out

    def _segments(
        self,
        batches: list[slice | Gathered],
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        kernel: Kernel,
    ) -> Output:
        """Segments, each by itself: [1, tokens, heads, size], and the log-sum-exp as [1, tokens, heads]."""
        n_heads, n_tokens = query.shape[1:3]
        out = query.new_empty(1, n_tokens, n_heads, value.shape[3])
        lse = query.new_empty((1, n_tokens, n_heads), dtype=torch.float32)
        for batch in batches:
            if isinstance(batch, slice):
                part, sums = kernel(query[:, :, batch], key[:, :, batch], value[:, :, batch], causal=True)
                out[:, batch], lse[:, batch] = part.transpose(1, 2), sums.transpose(1, 2)
                continue
            places, own, rows = (tensor.to(query.device) for tensor in batch)
            gathered = [x[0].transpose(0, 1)[places].transpose(1, 2) for x in (query, key, value)]
            part, sums = kernel(*gathered, causal=True)
            out[0].index_copy_(0, rows, part.transpose(1, 2).flatten(0, 1)[own])
            lse[0].index_copy_(0, rows, sums.transpose(1, 2).flatten(0, 1)[own])
        return out, lse

    def _after(
        self,
        query: torch.Tensor,
        pieces: list[Kept],
        span: Span,
        context: list[Span],
        out: torch.Tensor,
        kernel: Kernel,
    ) -> None:
        """A segment over all the tokens of its conversation, in place."""
        rows = slice(span.start - self._forward.span.start, span.stop - self._forward.span.start)
        seen = [_of(pieces, part) for part in (*context, span)]
        keys = torch.cat([part.keys for part in seen], dim=2)
        values = torch.cat([part.values for part in seen], dim=2)
        out[:, rows] = kernel(query[:, :, rows], keys, values, causal=True)[0].transpose(1, 2)

    def _join(
        self,
        query: torch.Tensor,
        pieces: list[Kept],
        link: Link,
        out: torch.Tensor,
        lse: torch.Tensor,
        kernel: Kernel,
    ) -> None:
        """Let the queries of a link see its keys as well, in place."""
        start, stop = (place - self._forward.span.start for place in link.queries)
        seen = _of(pieces, link.keys)
        part, sums = kernel(query[:, :, start:stop], seen.keys, seen.values, causal=False)
        part, sums = part.transpose(1, 2), sums.transpose(1, 2)
        for block in range(start, stop, JOINED_ROWS):
            rows = slice(block, min(stop, block + JOINED_ROWS))
            theirs = slice(rows.start - start, rows.stop - start)
            weight = torch.sigmoid(sums[:, theirs] - lse[:, rows])[..., None]
            out[:, rows] = out[:, rows].float().lerp_(part[:, theirs].float(), weight)
            lse[:, rows] = torch.logaddexp(lse[:, rows], sums[:, theirs])


def _contexts(forward: Forward) -> dict[Span, list[Span]]:
    """Of each segment that looks back, all that it looks back at, in the order of its conversation."""
    starts = [span.start for span in forward.segments]
    contexts: dict[Span, list[Span]] = {}
    for links in forward.links:
        for link in links:
            first, last = (bisect.bisect_left(starts, place) for place in link.queries)
            for span in forward.segments[first:last]:
                contexts.setdefault(span, []).append(link.keys)
    return contexts


def _batches(segments: Sequence[Span], offset: int, *, equal: bool = False) -> list[slice | Gathered]:
    """What of the row is computed in one call: one segment, or short ones of about the same length (or the very same,
    which gives each the very numbers of a call of its own).
    """
    together: list[list[Span]] = []
    for span in sorted(segments, key=lambda span: -span.size):
        longest = together[-1][0].size if together else 0
        # Beside a call of its own, a little computed in vain is nothing.
        fits = span.size == longest if equal else span.size + 16 >= longest * 3 // 4
        if together and longest <= SHORT and fits:
            together[-1].append(span)
        else:
            together.append([span])
    return [
        slice(spans[0].start - offset, spans[0].stop - offset) if len(spans) == 1 else _gathered(spans, offset)
        for spans in together
    ]


def _gathered(spans: list[Span], offset: int) -> Gathered:
    """Segments side by side, the longest first; shorter ones repeat their last token, which comes after all of them."""
    starts = torch.tensor([span.start - offset for span in spans])[:, None]
    lasts = torch.tensor([span.stop - offset - 1 for span in spans])[:, None]
    places = starts + torch.arange(spans[0].size)
    own = (places <= lasts).flatten().nonzero()[:, 0]
    places = places.minimum(lasts)
    return Gathered(places, own, places.flatten()[own])


def _of(pieces: list[Kept], span: Span) -> Kept:
    """The keys and values of these places, from the pieces that hold them."""
    found = [(piece, piece.span & span) for piece in pieces if (piece.span & span).size]
    rows = [slice(inside.start - piece.span.start, inside.stop - piece.span.start) for piece, inside in found]
    keys = [piece.keys[:, :, part] for (piece, _), part in zip(found, rows, strict=True)]
    values = [piece.values[:, :, part] for (piece, _), part in zip(found, rows, strict=True)]
    if len(found) == 1:
        return Kept(span, keys[0], values[0])
    return Kept(span, torch.cat(keys, dim=2), torch.cat(values, dim=2))


# Kernels ----------------------------------------------------------------------------------------------------------


def cpu_kernel(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, scale: float, causal: bool, cap: float | None
) -> Output:
    """Torch's flash attention for CPUs; with a soft cap, plain products."""
    if cap is not None:
        return capped(q, k, v, scale=scale, causal=causal, cap=cap)
    n_queries, n_heads, n_groups, size = q.shape[2], q.shape[1], k.shape[1], v.shape[3]
    if not causal and n_heads > n_groups:
        # Heads that share keys are as good as further queries.
        q = q.reshape(q.shape[0], n_groups, -1, q.shape[3])
    elif n_heads > n_groups and not _groups_heads():
        k, v = (x.repeat_interleave(n_heads // n_groups, dim=1) for x in (k, v))
    if size < q.shape[3]:  # as in latent attention; the op takes one size
        v = torch.nn.functional.pad(v, (0, q.shape[3] - size))
    before = k.shape[2] - n_queries
    if causal and q.dtype == torch.float32:
        # Few rows are summed in another order than many: in whole blocks a token's numbers are always the same.
        q = torch.cat([q, q[:, :, -1:].expand(-1, -1, -n_queries % WHOLE_ROWS, -1)], dim=2)
    mask = None
    if causal and before > 0:
        mask = _later(0, q.shape[2], k.shape[2], q.device, before=before)
        mask = torch.zeros(mask.shape, dtype=q.dtype, device=q.device).masked_fill_(mask, -math.inf)[None, None]
    out, lse = _flash()(q, k, v, 0.0, causal and mask is None, attn_mask=mask, scale=scale)
    if not causal and n_heads > n_groups:
        out, lse = out.reshape(-1, n_heads, n_queries, out.shape[3]), lse.reshape(-1, n_heads, n_queries)
    return out[:, :, :n_queries, :size], lse[:, :, :n_queries]


def _flash() -> Any:
    return getattr(torch.ops.aten, FLASH)


@functools.cache
def _groups_heads() -> bool:
    """Whether the op takes fewer heads of keys than of queries; older ones do not."""
    try:
        _flash()(torch.zeros(1, 2, 1, 8), torch.zeros(1, 1, 1, 8), torch.zeros(1, 1, 1, 8), 0.0, True, scale=1.0)
    except RuntimeError:
        return False
    return True


def capped(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, scale: float, causal: bool, cap: float | None
) -> Output:
    """Attention whose scores are capped softly: cap * tanh(score / cap). In blocks of queries."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    n_queries, before = q.shape[2], k.shape[2] - q.shape[2]
    q = torch.cat([q, q[:, :, -1:].expand(-1, -1, -n_queries % WHOLE_ROWS, -1)], dim=2)
    outs, sums = [], []
    for start in range(0, q.shape[2], CAPPED_ROWS):
        block = q[:, :, start : start + CAPPED_ROWS]
        scores = (block @ k.transpose(2, 3)).float() * scale
        if cap is not None:
            scores = torch.tanh(scores.div_(cap)).mul_(cap)
        if causal:
            later = _later(start, start + block.shape[2], k.shape[2], q.device, before=before)
            scores = scores.masked_fill_(later, -math.inf)
        lse = torch.logsumexp(scores, dim=-1)
        outs.append(scores.sub_(lse[..., None]).exp_().to(v.dtype) @ v)
        sums.append(lse)
    return torch.cat(outs, dim=2)[:, :, :n_queries], torch.cat(sums, dim=2)[:, :, :n_queries]


def _later(start: int, stop: int, n_keys: int, device: torch.device, *, before: int) -> torch.Tensor:
    """[queries, keys]: which keys come after a query, where so many keys come before the first one."""
    places = before + torch.arange(start, stop, device=device)
    return torch.arange(n_keys, device=device) > places[:, None]


# The function that transformers calls -----------------------------------------------------------------------------


def packed(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any = None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """An attention function of transformers, over the row that came with the call."""
    row = others.pop(KEYWORD, None)
    if not isinstance(row, PackedRow):
        raise NotPackableError("the class does not hand the forward's arguments to its attention")
    require_plain(module, attention_mask, others)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return row.attend(query, key, value, scale=scale, cap=softcap), None


def require_plain(module: Any, attention_mask: Any, others: Mapping[str, Any]) -> None:
    """
    Raises:
        NotPackableError: attention is given something that packed attention would not look at.
    """
    if attention_mask is not None:
        raise NotPackableError("its attention is given a mask")
    if others.get("is_causal", getattr(module, "is_causal", True)) is False:
        raise NotPackableError("its attention is not causal")
    given = {name for name, argument in others.items() if argument is not None} - WITHOUT_EFFECT - LOOKED_AT
    if given:
        raise NotPackableError(f"its attention is given {', '.join(sorted(given))}")


def no_mask(*_: Any, **__: Any) -> None:
    """The mask of packed attention: none, as segments are told apart by the row."""


@functools.cache
def register() -> None:
    """Make the function known to transformers."""
    AttentionInterface.register(NAME, packed)
    AttentionMaskInterface.register(NAME, no_mask)


class Switch:
    """Sets which attention function a model's configs name, for a while."""

    def __init__(self, model: Any) -> None:
        register()
        self._configs = _configs(model)

    @contextlib.contextmanager
    def to(self, name: str) -> Iterator[None]:
        before = [getattr(config, ATTENTION) for config in self._configs]
        try:
            for config in self._configs:
                setattr(config, ATTENTION, name)
            yield
        finally:
            for config, own in zip(self._configs, before, strict=True):
                setattr(config, ATTENTION, own)


def _configs(model: Any) -> list[PreTrainedConfig]:
    """Those of all modules and the ones inside those, outer ones first: setting one sets what is inside it."""
    found = [config for module in model.modules() if _is_config(config := getattr(module, "config", None))]
    for config in found:
        found += [inner for key in config.sub_configs if _is_config(inner := getattr(config, key, None))]
    return list({id(config): config for config in found}.values())


def _is_config(value: Any) -> TypeGuard[PreTrainedConfig]:
    return isinstance(value, PreTrainedConfig)
