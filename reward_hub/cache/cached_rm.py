"""CachedRM: a reward model that keeps its scores on disk, and asks its model only for what is not there.

What is kept is the whole `ScoreDetails` of a result. The key is a hash over the model's fingerprint (weights, recipe,
tokenizer, dtype, settings) and all that is asked: messages with tool calls and further keys, steps and where they
stand, the aggregation, both responses of a pair and whether both orders are judged. An exception is never kept.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
import math
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from reward_hub.base import BaseRM, CallOptions, Result
from reward_hub.cache.store import OnCorrupt, ScoreStore
from reward_hub.errors import RewardHubError
from reward_hub.fingerprints import Settings, derived_fingerprint, fingerprint_of, settings_of, settings_written
from reward_hub.types import Conversation, Message, Pair, ScoreDetails
from reward_hub.wrapper_rm import WrapperRM, refuse_own

# Part of every key; raised when keys or entries change their form.
FORM = 1

Key: TypeAlias = str | int
"""An entry's key; for what has none, its place in the call."""
Call: TypeAlias = Literal["score", "compare", "rank"]

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True)
class _Asked:
    """What one call asks: the key of each place, what is stored, and of the rest the first place of each key."""

    keys: list[Key]
    stored: dict[Key, ScoreDetails]
    missing: dict[Key, int]

    @property
    def places(self) -> list[int]:
        """What has to be asked of the model."""
        return list(self.missing.values())

    @contextmanager
    def in_place(self, options: CallOptions) -> Iterator[None]:
        """An error of the model, which is asked for fewer, gets its place in the caller's batch."""
        try:
            yield
        except RewardHubError as error:
            index, first = getattr(error, "index", None), options.first_index
            if first is not None and isinstance(index, int) and 0 <= index - first < len(self.missing):
                error.index = first + self.places[index - first]  # type: ignore[attr-defined]
            raise


class CachedRM(WrapperRM):
    """Any reward model, with its scores kept in a folder. Threads and processes may share the folder.

    Args:
        rm: any `BaseRM`. Closing this one closes it too.
        cache_dir: made, for its owner alone, where it is missing; several models may share it.
        size_limit: bytes from which old entries make room for new ones.
        eviction: which go first: "least-recently-stored", "least-recently-used" or "least-frequently-used" (with these
            two every hit is a write), "none".
        on_corrupt: what becomes of a folder or an entry that cannot be read or written: "recompute" warns and asks the
            model, "raise" gives a `CacheError`.
        allow_sampling: take a model that gives another score each time, too; its first one is then kept.
        fingerprint: identifies the model, in place of its own; for a class of your own whose attributes do not tell.

    Details have `cached`: whether the result was there. `compare` and `rank` of models that score are made of their
    scores; what a pairwise model says of a pair, or of a list of responses, is one entry each.

    Raises:
        ValueError: the model samples, and `allow_sampling` was not given.
        TypeError: the model cannot be identified.
        CacheError: the folder cannot be used, and `on_corrupt` is "raise".
    """

    _sync_and_async = True

    def __init__(
        self,
        rm: BaseRM,
        *,
        cache_dir: str | Path = "./rm_cache",
        size_limit: int = 2**30,
        eviction: str = "least-recently-stored",
        on_corrupt: OnCorrupt = "recompute",
        allow_sampling: bool = False,
        fingerprint: str | None = None,
    ) -> None:
        super().__init__(rm)
        if fingerprint is not None and not (isinstance(fingerprint, str) and fingerprint):
            raise TypeError(f"fingerprint={fingerprint!r}; a text that identifies the model is needed.")
        if not (rm.deterministic or allow_sampling):
            raise ValueError(
                f"{self.name} samples: it gives another score each time, and a cache would keep the first. Set its "
                "temperature to 0, or pass allow_sampling=True if that first score is what you want."
            )
        self._given_fingerprint = fingerprint
        self._fingerprint: str | None = None
        self._n_seen = 0
        self._keyed: tuple[str, Any] = ("", None)
        self._settings: Settings = []
        self._lock = threading.Lock()
        self._n_hits = 0
        self._n_misses = 0
        if fingerprint is None:
            derived_fingerprint(rm)  # refuses what cannot be identified before anything is scored
        self._store = ScoreStore(cache_dir, size_limit=size_limit, eviction=eviction, on_corrupt=on_corrupt)

    @property
    def fingerprint(self) -> str:
        """The model's; asked for on first use, as it may take reading the weights, and after a training."""
        with self._lock:
            n_trainings = self.rm._n_trainings()
            if self._fingerprint is None or n_trainings != self._n_seen:
                self._n_seen = n_trainings
                if self._given_fingerprint is None:
                    self._settings = settings_of(self.rm)
                self._fingerprint = self._given_fingerprint or fingerprint_of(self.rm)
                self.max_length = self.rm.max_length  # known by now, if the model was loaded for this
            return self._fingerprint

    def stats(self) -> dict[str, Any]:
        """Hits, misses and errors of this object; entries, bytes and limits of the folder, all models together."""
        with self._lock:
            counts = {"hits": self._n_hits, "misses": self._n_misses, "errors": self._store.n_errors}
        return {**counts, **self._store.stats()}

    def clear(self) -> int:
        """Remove every entry of the folder, those of other models too; how many there were."""
        return self._store.clear()

    def export(self, path: str | Path) -> int:
        """Write the folder's entries as JSON lines (key, fingerprint, call, details); how many there were."""
        return self._store.export(path)

    def close(self) -> None:
        self._store.close()
        super().close()

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which uses the same folder."""
        state = {name: value for name, value in vars(self).items() if name not in ("_lock", "_keyed")}
        # A model that is loaded anew there may be of other files; it is asked who it is when it is first needed.
        return state if self.rm.load_call is None else {**state, "_fingerprint": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock(), _keyed=("", None))

    # -- what is stored is read, the rest is asked of the model in one call ------------------------------------------

    def _score_many(self, conversations: Sequence[Conversation], options: CallOptions) -> list[Result]:
        return self._through(
            "score",
            lambda: self._score_keys(conversations, options),
            lambda places: self.rm._score_many([conversations[i] for i in places], options),
            options,
        )

    async def _ascore_many(self, conversations: Sequence[Conversation], options: CallOptions) -> list[Result]:
        return await self._athrough(
            "score",
            lambda: self._score_keys(conversations, options),
            lambda places: self.rm._ascore_many([conversations[i] for i in places], options),
            options,
        )

    def _compare_many(self, pairs: Sequence[Pair], both_orders: bool, options: CallOptions) -> list[Result]:
        refuse_own(self.rm, "compare")
        if not _overrides(self.rm, "_compare_many", "_acompare_many"):
            return super()._compare_many(pairs, both_orders, options)
        return self._through(
            "compare",
            lambda: self._pair_keys(pairs, both_orders),
            lambda places: self.rm._compare_many([pairs[i] for i in places], both_orders, options),
            options,
        )

    async def _acompare_many(self, pairs: Sequence[Pair], both_orders: bool, options: CallOptions) -> list[Result]:
        refuse_own(self.rm, "compare")
        if not _overrides(self.rm, "_compare_many", "_acompare_many"):
            return await super()._acompare_many(pairs, both_orders, options)
        return await self._athrough(
            "compare",
            lambda: self._pair_keys(pairs, both_orders),
            lambda places: self.rm._acompare_many([pairs[i] for i in places], both_orders, options),
            options,
        )

    def _difference(self, a: Result, b: Result) -> Result:
        result = super()._difference(a, b)
        return result if isinstance(result, Exception) else _flagged(result, cached=_all_cached([a, b]))

    def _ranking_of(self, results: Sequence[Result]) -> ScoreDetails:
        return _flagged(super()._ranking_of(results), cached=_all_cached(results))

    def _rank(self, prompt: tuple[Message, ...], responses: Sequence[str]) -> ScoreDetails:
        refuse_own(self.rm, "rank")
        if not _ranks_itself(self.rm):
            return super()._rank(prompt, responses)
        ranked = self._through(
            "rank",
            lambda: self._rank_keys(prompt, responses),
            lambda places: [self.rm._rank(prompt, responses)],
            CallOptions(),
        )
        return _only(ranked)

    async def _arank(self, prompt: tuple[Message, ...], responses: Sequence[str]) -> ScoreDetails:
        refuse_own(self.rm, "rank")
        if not _ranks_itself(self.rm):
            return await super()._arank(prompt, responses)

        async def ask(places: list[int]) -> list[Result]:
            return [await self.rm._arank(prompt, responses)]

        return _only(await self._athrough("rank", lambda: self._rank_keys(prompt, responses), ask, CallOptions()))

    def _through(
        self,
        call: Call,
        keys: Callable[[], list[Key]],
        ask: Callable[[list[int]], list[Result]],
        options: CallOptions,
    ) -> list[Result]:
        asked = self._look_up(keys(), options)
        results: list[Result] = []
        if asked.missing:
            with asked.in_place(options), self._noting_what_it_writes():
                results = ask(asked.places)
        return self._finish(call, asked, results)

    async def _athrough(
        self,
        call: Call,
        keys: Callable[[], list[Key]],
        ask: Callable[[list[int]], Awaitable[list[Result]]],
        options: CallOptions,
    ) -> list[Result]:
        # Files are read and written in other threads: a write may wait for other processes.
        asked = await asyncio.to_thread(lambda: self._look_up(keys(), options))
        results: list[Result] = []
        if asked.missing:
            with asked.in_place(options), self._noting_what_it_writes():
                results = await ask(asked.places)
        return await asyncio.to_thread(self._finish, call, asked, results)

    @contextmanager
    def _noting_what_it_writes(self) -> Iterator[None]:
        """The first time: what a user's class writes to itself is no setting by which another `CachedRM` knows it."""
        with self._lock:
            first, self._settings = self._settings, []
        before = settings_of(self.rm) if first else []
        try:
            yield
        finally:
            if first:
                settings_written(first=first, before=before)

    def _look_up(self, keys: list[Key], options: CallOptions) -> _Asked:
        stored: dict[Key, ScoreDetails] = {}
        missing: dict[Key, int] = {}
        for place, key in enumerate(keys):
            if key not in stored and key not in missing:
                details = self._store.get(key, _details_of) if isinstance(key, str) else None
                if details is None:
                    missing[key] = place
                else:
                    stored[key] = details
        with self._lock:
            self._n_hits += len(keys) - len(missing)
            self._n_misses += len(missing)
        if options.progress is not None:
            options.progress(len(keys) - len(missing))
        return _Asked(keys, stored, missing)

    def _finish(self, call: Call, asked: _Asked, results: Sequence[Result]) -> list[Result]:
        """Keep what the model gave, and put every result in its places."""
        fresh: dict[Key, Result] = dict(zip(asked.missing, results, strict=True))
        texts = {}
        for key, result in fresh.items():
            if isinstance(result, Exception) or not isinstance(key, str):
                continue
            text = self._text_of(call, result)
            if text is not None:
                texts[key] = text
                # What a hit will give: JSON has no tuples.
                fresh[key] = _details_of(text)
        if texts:
            self._store.set_many(texts)
        placed: list[Result] = []
        for place, key in enumerate(asked.keys):
            if key in asked.stored:
                placed.append(_flagged(asked.stored[key], cached=True))
                continue
            result, first = fresh[key], asked.missing[key] == place
            if isinstance(result, Exception):
                # Ours are told their place, each its own; a user's may be of a class that cannot be copied.
                placed.append(copy.copy(result) if isinstance(result, RewardHubError) and not first else result)
            else:
                placed.append(_flagged(result, cached=not first))
        return placed

    def _text_of(self, call: Call, details: ScoreDetails) -> str | None:
        """The entry of a result; None, with a warning, for one that is not JSON."""
        fields = {name: value for name, value in vars(details).items() if value is not None}
        fields["score"] = float(details.score)
        fields["extra"] = {name: value for name, value in details.extra.items() if name != "cached"}
        try:
            return _encode({"call": call, "fingerprint": self.fingerprint, "details": fields})
        except (TypeError, ValueError) as error:
            self._store.failed(f"A result of {self.name} cannot be kept as JSON", error)
            return None

    # -- keys ------------------------------------------------------------------------------------------------------

    def _score_keys(self, conversations: Sequence[Conversation], options: CallOptions) -> list[Key]:
        how = options.aggregation or self._default_aggregation() if self.kind == "process" else None
        return [
            self._key(place, "score", how, c.messages, c.steps, c.step_spans) for place, c in enumerate(conversations)
        ]

    def _pair_keys(self, pairs: Sequence[Pair], both_orders: bool) -> list[Key]:
        return [self._key(place, "compare", both_orders, p.prompt, p.a, p.b) for place, p in enumerate(pairs)]

    def _rank_keys(self, prompt: tuple[Message, ...], responses: Sequence[str]) -> list[Key]:
        return [self._key(0, "rank", None, prompt, responses, None)]

    def _key(self, place: int, call: Call, how: Any, messages: tuple[Message, ...], *asked: Any) -> Key:
        fingerprint = self.fingerprint
        keyed_for, keyed = self._keyed
        if keyed_for != fingerprint:
            keyed = hashlib.blake2b(_encode([FORM, fingerprint]).encode(), digest_size=20)
            self._keyed = (fingerprint, keyed)
        try:
            text = _encode([call, how, [_turn(message) for message in messages], *asked])
        except (TypeError, ValueError):
            return place
        digest = keyed.copy()
        digest.update(text.encode())
        return str(digest.hexdigest())


def _turn(message: Message) -> list[Any]:
    if not message.tool_calls and not message.extra:
        return [message.role, message.content]
    # In the order given: a template may write a call's arguments in it, and the model then reads other tokens.
    rest = [list(message.tool_calls), dict(message.extra)]
    if json.loads(_encode(rest)) != rest:
        # Tuples and keys that are no texts: JSON makes what they are not of them, and two conversations one.
        raise ValueError("not plain JSON")
    return [message.role, message.content, *rest]


def _details_of(text: str) -> ScoreDetails:
    entry = json.loads(text)
    details = ScoreDetails(**{"tokens_scored": None, **entry["details"]})
    if not isinstance(details.score, float) or not math.isfinite(details.score):
        raise ValueError(f"its score is {details.score!r}")
    return details


def _flagged(details: ScoreDetails, *, cached: bool) -> ScoreDetails:
    return replace(details, extra={**details.extra, "cached": cached})


def _all_cached(parts: Sequence[Result]) -> bool:
    return all(isinstance(part, ScoreDetails) and part.extra["cached"] for part in parts)


def _only(results: Sequence[Result]) -> ScoreDetails:
    (result,) = results
    assert isinstance(result, ScoreDetails)  # a model that cannot rank raises
    return result


def _overrides(rm: BaseRM, *methods: str) -> bool:
    return any(getattr(type(rm), method) is not getattr(BaseRM, method) for method in methods)


def _ranks_itself(rm: BaseRM) -> bool:
    """Whether a ranking is more than the order of scores (pairwise models, judges of lists)."""
    from reward_hub.models.remote_rm import RemoteRM

    if isinstance(rm, RemoteRM):
        return rm.kind == "pairwise"  # its methods are its own, but of other kinds it asks for the scores
    if isinstance(rm, WrapperRM):
        return _ranks_itself(rm.rm)
    return _overrides(rm, "_rank", "_arank")
