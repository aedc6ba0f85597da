"""The HTTP backend: a server of others that holds the model is sent token ids, and the number is made here.

A vLLM server is asked as `vllm_plan` says, SGLang over its native route, LMDeploy where it has the head. On connecting,
a few short texts are read, without and, where it matters, with the server's activation: what answers with probabilities
or normalised vectors, pools otherwise, cuts or tokenises for itself is refused before the first score.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from reward_hub.backends.base import Backend, EngineInfo, EngineOptions, Progress
from reward_hub.backends.class_logits import logits_of
from reward_hub.backends.vllm import plan as vllm_plan
from reward_hub.backends.vllm.attention import held_length
from reward_hub.backends.vllm.folder import pieces_of, weight_shapes
from reward_hub.backends.vllm.plan import WeightRules, plan
from reward_hub.checkpoints.files import CheckpointFiles
from reward_hub.checkpoints.tensors import head_weights, hidden_size, lm_head_rows, refuse_left_out_lm_head
from reward_hub.errors import BackendError, RewardHubError, ServerError, UnsupportedError
from reward_hub.family import Backbone
from reward_hub.http.dialects import lmdeploy, sglang, vllm
from reward_hub.http.dialects.base import NO_SUCH_ROUTE, Connection, Wire
from reward_hub.loops import in_order, run_sync
from reward_hub.reads import HeadOutputs, Read, TokenLogits, TokenLogprobs
from reward_hub.tokenizer import Tokenizer
from reward_hub.types import Array, TokenInput

logger = logging.getLogger(__name__)

# Tokens of one request: a lost one costs little, and many are under way at a time.
REQUEST_TOKENS = 16384
# They begin with the same token, and are read at different ones.
PROBES = ("What is 2 + 2?", "What is 2 + 2? It is 4, of course.", "What colour has the sky", "What they said: 7")
# Of what another first token changes: less between texts with the same one is rounding, in half precision too.
FIRST_TOKEN_SHARE = 0.02
# Model types whose LM head is the embedding matrix where config.json does not say.
_TIED = frozenset({"gemma", "gemma2", "gemma3_text", "cohere"})
# Model types whose final norm multiplies with one plus its weight.
_ONE_PLUS = frozenset({"gemma", "gemma2", "gemma3_text"})


@dataclass(frozen=True)
class Way:
    """One way of asking a server for a read.

    Attributes:
        asks: "prefixes": one request input a position, ending there; "tokens": one input, rows taken at the positions.
        width: numbers of one row as the server gives it.
        native: the server applies the head; else it gives hidden vectors.
        apply: what is left to do here with the rows of one input.
    """

    wire: Wire
    asks: Literal["prefixes", "tokens"]
    width: int
    native: bool
    apply: Callable[[Array], Array]
    label: str = ""

    def token_ids(self, item: TokenInput) -> list[list[int]]:
        """What is sent for one input. Tokens behind the last position change nothing before it."""
        if self.asks == "prefixes":
            return [item.token_ids[: position + 1] for position in item.positions]
        return [item.token_ids[: max(item.positions) + 1]] if item.positions else []

    def output(self, item: TokenInput, rows: list[Array]) -> Array:
        """[n_positions, width of the read] of one input, from what was answered for each of `token_ids`."""
        if not item.positions:
            return np.zeros((0, 1), np.float32)
        return self.apply(np.stack(rows) if self.asks == "prefixes" else rows[0][item.positions])


class HttpBackend(Backend):
    """A model behind somebody else's server. Requests run together, as many as the client allows."""

    waits_elsewhere = True

    def __init__(self, connection: Connection, way: Way, *, max_length: int | None) -> None:
        self.connection = connection
        self.way = way
        self.max_length = max_length
        served = connection.served
        where = connection.client.address
        version = f"{connection.dialect.name} {served.version}".strip()
        # A server does not tell its dtype; scores of two servers are not taken for the same (fingerprint, cache).
        self.info = EngineInfo("api", version, f"as served at {where} ({served.model or served.root})", version)

    @classmethod
    def known_options(cls) -> frozenset[str]:
        return frozenset()

    @classmethod
    def load(
        cls,
        files: CheckpointFiles,
        read: Read,
        *,
        backbone: Backbone | None,
        tokenizer: Tokenizer,
        options: EngineOptions,
    ) -> HttpBackend:
        """Hold a server (`options.extra["connection"]`) to the read.

        Raises:
            UnsupportedError: servers of this dialect cannot answer it.
            ServerError: this one does not, or not as promised.
        """
        connection: Connection = (options.extra or {})["connection"]
        ways = _ways(connection.dialect.name, files, read, backbone, many=options.many_positions)
        stock = files.config if backbone is None else backbone.config
        limit = held_length(connection.served.max_length, stock, where=connection.client.address)
        if limit is not None and isinstance(read, TokenLogprobs):
            limit -= 1  # a generating server needs room for one more token
        probes = _probes(tokenizer)
        norm = _final_norm(files, backbone)
        try:
            way = run_sync(_working_way(connection, ways, probes, norm, files))
        except BaseException:
            connection.client.close()
            raise
        return cls(connection, way, max_length=limit)

    @property
    def load_report(self) -> dict[str, Any]:
        head = "the server" if self.way.native else "reward_hub, of hidden vectors"
        return {"dialect": self.connection.dialect.name, "asked": self.way.label, "head_applied_by": head}

    def read(
        self, inputs: Sequence[TokenInput], *, batch_size: int | None = None, progress: Progress | None = None
    ) -> list[Array]:
        return run_sync(self.aread(inputs, batch_size=batch_size, progress=progress))

    async def aread(
        self, inputs: Sequence[TokenInput], *, batch_size: int | None = None, progress: Progress | None = None
    ) -> list[Array]:
        self.check_media(inputs)
        for item in inputs:
            self._check(item)
        parts = list(self._parts(inputs, batch_size))
        answers = await in_order([self._ask(part, progress) for part in parts])
        return [output for part in answers for output in part]

    def close(self) -> None:
        self.connection.client.close()

    def _check(self, item: TokenInput) -> None:
        if item.decoder_ids is not None or item.token_type_ids is not None:
            raise UnsupportedError("Servers are sent the token ids of decoders alone; load with 'transformers'.")
        if any(not 0 <= p < len(item.token_ids) for p in item.positions):
            raise BackendError(f"A position of {item.positions} lies outside the {len(item.token_ids)} tokens.")
        if self.way.wire is vllm.COMPLETIONS and 0 in item.positions:
            raise BackendError("The first token has no log-probability: nothing stands before it.")

    def _parts(self, inputs: Sequence[TokenInput], size: int | None) -> Iterator[list[TokenInput]]:
        """Consecutive inputs for one request."""
        most = min(size or self.way.wire.inputs_per_request, self.way.wire.inputs_per_request)
        part: list[TokenInput] = []
        n_sent = n_tokens = 0
        for item in inputs:
            sent = self.way.token_ids(item)
            tokens = sum(len(ids) for ids in sent)
            if part and (n_sent + len(sent) > most or n_tokens + tokens > REQUEST_TOKENS):
                yield part
                part, n_sent, n_tokens = [], 0, 0
            part.append(item)
            n_sent += len(sent)
            n_tokens += tokens
        if part:
            yield part

    async def _ask(self, part: list[TokenInput], progress: Progress | None) -> list[Array]:
        # Bodies are made when they are sent, not all at once.
        async with self.connection.client.slot():
            sent = [self.way.token_ids(item) for item in part]
            flat = [ids for several in sent for ids in several]
            n_tokens = sum(map(len, flat))
            logger.debug("%d inputs as %d texts of %d tokens, %s.", len(part), len(flat), n_tokens, self.way.label)
            rows = iter(await rows_of(self.connection, self.way, flat, in_slot=True) if flat else ())
        outputs = [
            self.way.output(item, [next(rows) for _ in several]) for item, several in zip(part, sent, strict=True)
        ]
        if progress is not None:
            progress(len(part))
        return outputs


async def rows_of(
    connection: Connection, way: Way, inputs: Sequence[Sequence[int]], *, activated: bool = False, **how: Any
) -> list[Array]:
    """The server's rows for these token ids.

    Raises:
        ServerError: it failed, or its reply has not the promised form.
    """
    body = way.wire.body(connection.served, inputs)
    if activated and way.wire.activation is not None:
        name, _, on = way.wire.activation
        body[name] = on
    reply = await connection.client.post(way.wire.route, body, **how)
    return way.wire.rows(reply, inputs, way.width)


# -- which ways there are ----------------------------------------------------------------------------------------------


def _ways(dialect: str, files: CheckpointFiles, read: Read, backbone: Backbone | None, *, many: bool) -> list[Way]:
    """The ways in which a server of this dialect may answer the read, the one that is meant first.

    Raises:
        UnsupportedError: there is none.
    """
    if dialect == vllm.DIALECT.name:
        return _vllm_ways(files, read, backbone, many=many)
    if isinstance(read, TokenLogprobs) or vllm_plan.why_not(read, files.config, backbone) is not None:
        raise UnsupportedError(f"{read} cannot be had from a {dialect} server. vLLM or load_method='transformers' can.")
    if dialect == sglang.DIALECT.name:
        return _sglang_ways(files, read, backbone)
    if dialect == lmdeploy.DIALECT.name and _has_reward_class(files, read) and not many:
        return [Way(lmdeploy.SCORES, "prefixes", 1, True, _as_they_are, "scores")]
    raise UnsupportedError(
        f"{read} cannot be had from a {dialect} server. A vLLM server (reward-hub serve-args {files.id}) can."
    )


def _vllm_ways(files: CheckpointFiles, read: Read, backbone: Backbone | None, *, many: bool) -> list[Way]:
    if isinstance(read, TokenLogprobs):
        plan(read, files.config, weight_shapes(files), backbone=backbone)
        refuse_left_out_lm_head(files, "the server", tied=bool(files.config.get("tie_word_embeddings")))
        return [Way(vllm.COMPLETIONS, "tokens", 1, True, _as_they_are, "log-probabilities of the prompt")]
    pieces = pieces_of(files, read)
    ways: dict[tuple[str, str], Way] = {}
    # The plan itself; then what a server started otherwise may have: all tokens, hidden vectors.
    for native in (True, False):
        for every in dict.fromkeys((many, True)):
            planned = plan(
                read, files.config, weight_shapes(files), backbone=backbone, many=every, pieces=pieces, native=native
            )
            assert planned.task is not None and planned.asks != "logprobs"
            width = _native_width(read) if planned.native else hidden_size(files.config)
            tokens = planned.asks == "tokens"
            way = Way(
                vllm.pooling_wire(planned.task, every_token=tokens),
                "tokens" if tokens else "prefixes",
                width,
                planned.native,
                _apply(files, read, backbone, native=planned.native, bias=planned.bias),
                f"task {planned.task}",
            )
            ways.setdefault((planned.task, "/pooling"), way)
            other = {"classify": vllm.CLASSIFY, "embed": vllm.EMBEDDINGS}.get(planned.task)
            if other is not None:
                ways.setdefault((planned.task, other.route), replace(way, wire=other, label=f"{other.route}"))
    return list(ways.values())


def _sglang_ways(files: CheckpointFiles, read: Read, backbone: Backbone | None) -> list[Way]:
    ways = []
    if isinstance(read, HeadOutputs):
        stock = getattr(read.head, "name", None) == "score" and backbone is None
        if stock or _has_reward_class(files, read):
            ways.append(Way(sglang.SCORES, "prefixes", _native_width(read), True, _as_they_are, "scores"))
    hidden = _apply(files, read, backbone, native=False)
    width = hidden_size(files.config)
    return [*ways, Way(sglang.HIDDEN, "prefixes", width, False, hidden, "pooled hidden states")]


def _has_reward_class(files: CheckpointFiles, read: Read) -> bool:
    """Whether SGLang and LMDeploy have this checkpoint's class, head included: one score at the last token."""
    names = files.config.get("architectures") or [""]
    known = names[0] in ("InternLM2ForRewardModel", "Qwen2ForRewardModel")
    return known and isinstance(read, HeadOutputs) and getattr(read.head, "width", None) == 1


def _native_width(read: Read) -> int:
    if isinstance(read, TokenLogits):
        return len(read.token_ids)
    assert isinstance(read, HeadOutputs)
    return int(getattr(read.head, "width"))  # noqa: B009 - the heads that engines apply have one


def _as_they_are(rows: Array) -> Array:
    return rows


def _apply(
    files: CheckpointFiles, read: Read, backbone: Backbone | None, *, native: bool, bias: str | None = None
) -> Callable[[Array], Array]:
    """What is left to do with the rows that the server gives."""
    if isinstance(read, TokenLogits):
        logits = logits_of(files.config if backbone is None else backbone.config)
        untied = "lm_head.weight" in files.shapes and files.config.get("model_type") not in _TIED
        tied = bool(files.config.get("tie_word_embeddings", not untied))
        if native:
            refuse_left_out_lm_head(files, "the server", tied=tied, token_ids=read.token_ids)
            return logits
        weight, offset = lm_head_rows(files, read.token_ids, tied=tied)
        return lambda hidden: logits(hidden @ weight.T + offset)
    assert isinstance(read, HeadOutputs)
    if native:
        if bias is None:
            return _as_they_are
        added = files.read(bias)
        return lambda rows: rows + added
    head, weights = read.head, head_weights(files, read.head)
    return lambda hidden: head.apply(hidden, weights)


# -- the probes --------------------------------------------------------------------------------------------------------


def _probes(tokenizer: Tokenizer) -> list[list[int]]:
    """Texts with the same first token, and behind them the longest without it."""
    ids = [tokenizer.encode(text) for text in PROBES]
    return [*ids, max(ids, key=len)[1:]]


async def _working_way(
    connection: Connection, ways: Sequence[Way], probes: list[list[int]], norm: Array | None, files: CheckpointFiles
) -> Way:
    """The first way that the server answers as it should.

    Raises:
        ServerError: it answers none; each is named with what was wrong.
    """
    problems = []
    for way in ways:
        try:
            await _probe(connection, way, probes, norm, regression=files.config.get("problem_type") == "regression")
            return way
        except ServerError as error:
            if error.status not in NO_SUCH_ROUTE | {200, 400, 422}:
                raise
            problems.append((way, error))
    # What a route that is there gave is worth more than the routes that are not.
    telling = [(way, error) for way, error in problems if error.status == 200] or problems
    answers = "; ".join(f"{way.label}: {error.message}" for way, error in telling)
    raise ServerError(
        f"{connection.client.address} does not answer as {files.id} is read. {answers} "
        f"{_how_to_start(connection.dialect.name, files)}",
        status=telling[0][1].status,
    )


def _how_to_start(dialect: str, files: CheckpointFiles) -> str:
    if dialect != vllm.DIALECT.name:
        return f"A vLLM server can be started as `reward-hub serve-args {files.id}` says."
    return f"Start the server as `reward-hub serve-args {files.id}` says."


async def _probe(
    connection: Connection, way: Way, probes: list[list[int]], norm: Array | None, *, regression: bool
) -> None:
    """Read the probes without and with activation, and check what can be known of the answers."""
    tables = await rows_of(connection, way, probes)
    if way.wire is vllm.COMPLETIONS:
        return
    rows = [table[-1] if table.ndim == 2 else table for table in tables]
    if not way.native:
        _check_hidden(rows, norm)
    elif _could_be_probabilities(rows) and not regression:
        again = rows if way.wire.activation is None else await _activated(connection, way, probes)
        can_be_told_apart = way.wire.activation is not None
        same = all(np.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(rows, again, strict=True))
        if same and (can_be_told_apart or _sum_to_one(rows)):
            raise _refused(
                f"it gives {_shown(rows)} with and without activation: probabilities, not the raw outputs that were "
                "asked for"
            )
    if _reads_the_first_token(rows):
        raise _refused("texts with the same first token get the same answer: it does not read the last token")


def _reads_the_first_token(rows: Sequence[Array]) -> bool:
    """Whether the answers to `_probes` differ with the first token alone, but for rounding.

    The last probe ends as another one does, so where the last token is read it is not far from that one.
    """
    *same, other = rows
    between = max(float(np.linalg.norm(row - same[0])) for row in same[1:])
    across = max(float(np.linalg.norm(row - other)) for row in same)
    return between <= FIRST_TOKEN_SHARE * across


async def _activated(connection: Connection, way: Way, probes: list[list[int]]) -> list[Array]:
    tables = await rows_of(connection, way, probes, activated=True)
    return [table[-1] if table.ndim == 2 else table for table in tables]


def _could_be_probabilities(rows: Sequence[Array]) -> bool:
    return all((row >= 0).all() and (row <= 1).all() for row in rows)


def _sum_to_one(rows: Sequence[Array]) -> bool:
    return all(abs(float(row.sum()) - 1.0) < 1e-3 for row in rows)


def _check_hidden(rows: Sequence[Array], norm: Array | None) -> None:
    """Hidden vectors after the final norm have, divided by its weights, a mean square of one; no mean of them has."""
    for row in rows:
        if abs(float(np.linalg.norm(row)) - 1.0) < 1e-3:
            raise _refused("the vectors have length 1: it normalises them, although use_activation is false")
        if norm is None or norm.shape != row.shape:
            continue
        kept = np.abs(norm) > 1e-3 * np.abs(norm).max()
        size = float(np.sqrt(np.mean((row[kept] / norm[kept]) ** 2)))
        if not 0.95 < size < 1.05:
            raise _refused(
                f"the vectors are not those of one token after the final norm (root mean square {size:.2f}, not 1): it "
                "pools otherwise"
            )


def _final_norm(files: CheckpointFiles, backbone: Backbone | None) -> Array | None:
    """What the final norm multiplies with; None where it cannot be told."""
    rules = WeightRules(rename=() if backbone is None else backbone.rename)
    name = next((name for name in files.shapes if rules.stock_name(name) == "model.norm.weight"), None)
    if name is None:
        return None
    try:
        weight = files.read(name)
    except RewardHubError:
        return None
    stock = files.config if backbone is None else backbone.config
    return weight + 1 if stock.get("model_type") in _ONE_PLUS else weight


def _refused(problem: str) -> ServerError:
    return ServerError(f"{problem}.", status=200)


def _shown(rows: Sequence[Array]) -> str:
    return ", ".join(str([round(float(x), 4) for x in row[:4]]) for row in rows)
