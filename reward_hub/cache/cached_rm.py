"""CachedRM: a reward model that keeps its scores on disk, and asks its model only for what is not there.

What is kept is the whole `ScoreDetails` of a result. The key is a hash over the model's fingerprint (weights, recipe,
tokenizer, dtype, settings) and all that is asked: messages with tool calls and further keys, steps and where they
stand, the aggregation, both responses of a pair and whether both orders are judged. An exception is never kept.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

from reward_hub.base import BaseRM
from reward_hub.cache.store import OnCorrupt, ScoreStore
from reward_hub.errors import RewardHubError
from reward_hub.fingerprints import Settings, derived_fingerprint, fingerprint_of, settings_of, settings_written
from reward_hub.reward_model import CallOptions, Result
from reward_hub.types import Conversation, Message, Pair, ScoreDetails
from reward_hub.work import Work, in_thread
from reward_hub.wrapper_rm import WrapperRM, refuse_own

# Part of every key; raised when keys or entries change their form.
FORM = 2

Key: TypeAlias = str | int
"""An entry's key; for what has none, its place in the call."""
CallName: TypeAlias = Literal["score", "compare", "rank"]

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_decode = json.JSONDecoder().decode


@dataclass(frozen=True)
class _Lookup:
    """What was found of the entries of one call.

    Attributes:
        keys: of each place.
        stored: what is there, flagged as cached.
        missing: of the rest the first place of each key: what has to be asked of the model.
    """

    keys: list[Key]
    stored: dict[Key, ScoreDetails]
    missing: dict[Key, int]


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
            n_trainings = self.rm.n_trainings
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

    def scoring_of(self, conversations: Sequence[Conversation], options: CallOptions) -> Work[list[Result]]:
        return self._through(
            "score",
            lambda: self._score_keys(conversations, options),
            lambda places: self.rm.scoring_of([conversations[i] for i in places], options),
            options,
        )

    def comparison_of(self, pairs: Sequence[Pair], both_orders: bool, options: CallOptions) -> Work[list[Result]]:
        refuse_own(self.rm, "compare")
        if not self.capabilities.compares_itself:
            return self._by_differences(pairs, options)
        return self._through(
            "compare",
            lambda: self._pair_keys(pairs, both_orders),
            lambda places: self.rm.comparison_of([pairs[i] for i in places], both_orders, options),
            options,
        )

    def ranking_of(self, prompt: tuple[Message, ...], responses: Sequence[str], options: CallOptions) -> Work[Result]:
        refuse_own(self.rm, "rank")
        if not self.capabilities.ranks_itself:
            return (yield from self._by_scores(prompt, responses, options))

        def ask(places: list[int]) -> Work[list[Result]]:
            return [(yield from self.rm.ranking_of(prompt, responses, options))]

        (result,) = yield from self._through("rank", lambda: self._rank_keys(prompt, responses), ask, CallOptions())
        return result

    def join_details(self, parts: Sequence[ScoreDetails]) -> ScoreDetails:
        return _flagged(super().join_details(parts), cached=all(part.extra["cached"] for part in parts))

    def _through(
        self,
        call: CallName,
        keys: Callable[[], list[Key]],
        ask: Callable[[list[int]], Work[list[Result]]],
        options: CallOptions,
    ) -> Work[list[Result]]:
        # Files are read and written in other threads than an event loop's: a write may wait for other processes.
        lookup = yield from in_thread(lambda: self._look_up(keys(), options))
        results: list[Result] = []
        if lookup.missing:
            with self._noting_what_it_writes():
                results = yield from ask(list(lookup.missing.values()))
        return (yield from in_thread(lambda: self._finish(call, lookup, results)))

    @contextmanager
    def _noting_what_it_writes(self) -> Iterator[None]:
        """The first time: what a user's class writes to itself does not tell it from another one."""
        with self._lock:
            first, self._settings = self._settings, []
        before = settings_of(self.rm) if first else []
        try:
            yield
        finally:
            if first:
                settings_written(first=first, before=before)

    def _look_up(self, keys: list[Key], options: CallOptions) -> _Lookup:
        places: dict[Key, int] = {}
        for place, key in enumerate(keys):
            places.setdefault(key, place)
        read = partial(_details_of, cached=True)
        there = self._store.get_many((key for key in places if isinstance(key, str)), read)
        stored: dict[Key, ScoreDetails] = {key: there[key] for key in places if key in there}
        missing = {key: place for key, place in places.items() if key not in stored}
        with self._lock:
            self._n_hits += len(keys) - len(missing)
            self._n_misses += len(missing)
        options.done(len(keys) - len(missing))
        return _Lookup(keys, stored, missing)

    def _finish(self, call: CallName, lookup: _Lookup, results: Sequence[Result]) -> list[Result]:
        """Keep what the model gave, and put every result in its places."""
        fresh: dict[Key, Result] = dict(zip(lookup.missing, results, strict=True))
        texts = {}
        for key, result in fresh.items():
            if isinstance(result, Exception) or not isinstance(key, str):
                continue
            text = self._text_of(call, result)
            if text is not None:
                texts[key] = text
                # What a hit will give: JSON has no tuples.
                fresh[key] = _details_of(text, cached=False)
        if texts:
            self._store.set_many(texts)
        placed: list[Result] = []
        for place, key in enumerate(lookup.keys):
            if key in lookup.stored:
                placed.append(lookup.stored[key])
                continue
            result, first = fresh[key], lookup.missing[key] == place
            if isinstance(result, Exception):
                # Ours are told their place, each its own; a user's may be of a class that cannot be copied.
                placed.append(copy.copy(result) if isinstance(result, RewardHubError) and not first else result)
            else:
                placed.append(_flagged(result, cached=not first))
        return placed

    def _text_of(self, call: CallName, details: ScoreDetails) -> str | None:
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
        how = options.aggregation or self.capabilities.aggregation if self.kind == "process" else None
        keyed = self._keyed_for_model()
        return [
            _key(keyed, place, "score", how, c.messages, c.steps, c.step_spans) for place, c in enumerate(conversations)
        ]

    def _pair_keys(self, pairs: Sequence[Pair], both_orders: bool) -> list[Key]:
        keyed = self._keyed_for_model()
        return [_key(keyed, place, "compare", both_orders, p.prompt, p.a, p.b) for place, p in enumerate(pairs)]

    def _rank_keys(self, prompt: tuple[Message, ...], responses: Sequence[str]) -> list[Key]:
        return [_key(self._keyed_for_model(), 0, "rank", None, prompt, responses, None)]

    def _keyed_for_model(self) -> Any:
        """The hash that every key of the model as it now is begins with."""
        fingerprint = self.fingerprint
        keyed_for, keyed = self._keyed
        if keyed_for != fingerprint:
            keyed = hashlib.blake2b(_encode([FORM, fingerprint]).encode(), digest_size=20)
            self._keyed = (fingerprint, keyed)
        return keyed


def _key(keyed: Any, place: int, call: CallName, how: Any, messages: tuple[Message, ...], *rest: Any) -> Key:
    try:
        text = _encode([call, how, [_turn(message) for message in messages], *rest])
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
        # JSON makes lists of tuples and texts of all keys, so that two different conversations would be one.
        raise ValueError("not plain JSON")
    return [message.role, message.content, *rest]


_BLANK = ScoreDetails(score=0.0, raw_logits=[], normalized_score=0.0, tokens_scored=None)
_REQUIRED = frozenset({"score", "raw_logits", "normalized_score"})


def _details_of(text: str, *, cached: bool) -> ScoreDetails:
    stored = _decode(text)["details"]
    if not stored.keys() >= _REQUIRED:
        raise ValueError(f"it has no {', '.join(sorted(_REQUIRED - stored.keys()))}")
    details = _BLANK.changed(**{**stored, "extra": {**stored.get("extra", {}), "cached": cached}})
    if not isinstance(details.score, float) or not math.isfinite(details.score):
        raise ValueError(f"its score is {details.score!r}")
    return details


def _flagged(details: ScoreDetails, *, cached: bool) -> ScoreDetails:
    return details.changed(extra={**details.extra, "cached": cached})
