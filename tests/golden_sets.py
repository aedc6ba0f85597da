"""Golden sets: a tiny checkpoint and what its reference implementation makes of some conversations.

The project's own lie in tests/data/golden: a spec from which `reward_hub.testing` makes the weights, tokenizer files,
cases. `golden/freeze.py` writes them. The larger ones they were held against lie in ../shared/golden, if it exists.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from reward_hub import AutoRM, BaseRM, registry
from reward_hub.backends.transformers import TransformersBackend
from reward_hub.numerics import sigmoid
from reward_hub.reads import Read, TokenLogprobs
from reward_hub.testing import make_checkpoint
from reward_hub.types import Array, TokenInput

OWN = Path(__file__).parent / "data" / "golden"
SHARED = Path(__file__).parents[2] / "shared" / "golden"
WITHOUT_TOKENS = ("judge-parsers",)  # texts of judges and their verdicts


@dataclass(frozen=True)
class GoldenSet:
    """One folder of golden data. `place` is "own" or "shared"."""

    slug: str
    place: str

    def __str__(self) -> str:
        return self.slug

    @property
    def folder(self) -> Path:
        return (OWN if self.place == "own" else SHARED) / self.slug

    @cached_property
    def data(self) -> dict[str, Any]:
        return json.loads((self.folder / "cases.json").read_text(encoding="utf-8"))

    @cached_property
    def spec(self) -> dict[str, Any]:
        """Of the project's own sets alone."""
        return json.loads((self.folder / "spec.json").read_text(encoding="utf-8"))

    @property
    def family(self) -> str:
        return str(self.data["family_name"])

    @property
    def registered(self) -> bool:
        return self.family in {family.name for family in registry.families()}

    @property
    def kind(self) -> str:
        return registry.family_named(self.family).kind

    @property
    def decidable(self) -> bool:
        """Whether the checkpoint itself tells its family."""
        return self.data["decidable_from_checkpoint"] is True

    @property
    def two_models(self) -> bool:
        return "parts" in self.spec if self.place == "own" else (self.folder / "checkpoint" / "policy").is_dir()

    @property
    def tolerance(self) -> float:
        return float(self.data["tolerance"])

    @property
    def cases(self) -> list[dict[str, Any]]:
        cases: list[dict[str, Any]] = self.data["cases"]
        return cases

    @property
    def tokenizer(self) -> Path:
        """The folder of an own set's tokenizer files; sets may share them."""
        return OWN / self.spec.get("tokenizer", self.slug)

    def make(self, folder: Path, spec: Mapping[str, Any] | None = None) -> Path:
        """The checkpoint of an own set, or a changed form of it."""
        return make_checkpoint(folder, spec or self.spec, tokenizer=self.tokenizer)

    def load(
        self, checkpoint: Path, load_method: str = "transformers", *, detect: bool = True, **options: Any
    ) -> BaseRM:
        """The model in float32; the family is said where the checkpoint does not tell it, or always."""
        options = {"torch_dtype": "float32", **options}
        if self.family == "drsow":
            from reward_hub import DrSow

            parts = {"strong": str(checkpoint / "policy"), "weak": str(checkpoint / "reference")}
            return DrSow(**parts, load_method=load_method, **options)
        if not (detect and self.decidable):
            options["family"] = self.family
        if self.two_models:
            if "beta" in self.data:
                options["beta"] = self.data["beta"]
            return AutoRM.load(
                str(checkpoint / "policy"), load_method, reference=str(checkpoint / "reference"), **options
            )
        return AutoRM.load(str(checkpoint), load_method, **options)


def golden_sets(place: str) -> list[GoldenSet]:
    """Every set of one place, by slug; none where the place is absent."""
    root = OWN if place == "own" else SHARED
    slugs = sorted(path.parent.name for path in root.glob("*/cases.json"))
    return [GoldenSet(slug, place) for slug in slugs if slug not in WITHOUT_TOKENS]


def own_templates() -> list[str]:
    """Folders of the project's own sets with a chat template, one of each that read a conversation in the same way."""
    folders: dict[str, str] = {}
    for path in sorted(OWN.glob("*/tokenizer_config.json")):
        config = json.loads(path.read_text(encoding="utf-8"))
        config.pop("added_tokens_decoder", None)
        if "chat_template" in config:
            file = path.with_name("tokenizer.json")
            parts = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
            ways = [parts.get(part) for part in ("normalizer", "pre_tokenizer", "post_processor")]
            folders.setdefault(json.dumps([config, ways], sort_keys=True), path.parent.name)
    return list(folders.values())


class RecordingBackend(TransformersBackend):
    """The Transformers backend, which notes what crosses from the family to it."""

    asked: ClassVar[list[tuple[Read, TokenInput]]] = []

    def read(self, inputs: Sequence[TokenInput], **options: Any) -> list[Array]:
        self.asked.extend((self._read, item) for item in inputs)
        return super().read(inputs, **options)


@dataclass(frozen=True)
class Observed:
    """What a model made of one case."""

    scores: list[float]
    details: dict[str, Any]
    tokens: TokenInput
    read: Read


def observe(rm: BaseRM, case: Mapping[str, Any]) -> Observed:
    """Score one case with a model that runs on `RecordingBackend`."""
    RecordingBackend.asked.clear()
    scores, details = score_case(rm, case)
    # Of two orders of a pair the first, of a policy and its reference the policy, of growing prefixes the whole.
    asked = RecordingBackend.asked
    read, tokens = asked[0] if "response_a" in case else max(asked, key=lambda pair: len(pair[1].token_ids))
    return Observed(scores, details, tokens, read)


def score_case(rm: BaseRM, case: Mapping[str, Any]) -> tuple[list[float], dict[str, Any]]:
    """The numbers that the case's `score` or `step_scores` hold, and the details."""
    if "response_a" in case:
        value, details = rm.compare(
            messages=case["prompt_messages"], a=case["response_a"], b=case["response_b"], return_details=True
        )
        if registry.family_named(str(rm.family)).pair_output != "logit":
            return [value], details
        assert abs(value - sigmoid(details["raw_logits"][0])) < 1e-6, "compare is the sigmoid of the logit"
        return [details["raw_logits"][0]], details
    if "steps" in case:
        scores, details = rm.score_steps(messages=case["messages"], steps=case["steps"], return_details=True)
        return scores + ([rm.score(case["messages"])] if "score" in case else []), details
    score, details = rm.score(case["messages"], return_details=True)
    return [score], details


def expected_scores(case: Mapping[str, Any]) -> list[float]:
    """The step scores, where there are any, and the score, where there is one."""
    steps = case.get("step_scores") or case.get("details", {}).get("prefix_scores_extension") or []
    return [*steps, case["score"]] if "score" in case else steps


def differences(rm: BaseRM, golden: GoldenSet) -> Iterator[tuple[str, float, list[str]]]:
    """For each case its name, the largest difference of a score, and what does not fit."""
    for case in golden.cases:
        observed = observe(rm, case)
        wrong = _wrong_tokens(observed, case)
        expected = expected_scores(case)
        difference = float("inf")
        if len(observed.scores) == len(expected):
            difference = max(abs(a - b) for a, b in zip(observed.scores, expected, strict=True))
        if not difference <= golden.tolerance:
            wrong.append(f"scores {observed.scores} instead of {expected}")
        yield str(case.get("name") or case.get("id")), difference, wrong


def _wrong_tokens(observed: Observed, case: Mapping[str, Any]) -> list[str]:
    wrong = []
    tokens = observed.tokens
    if tokens.token_ids != case["input_ids"]:
        wrong.append(f"token ids {tokens.token_ids} instead of {case['input_ids']}")
    if "positions" in case:
        if tokens.positions != case["positions"]:
            wrong.append(f"positions {tokens.positions} instead of {case['positions']}")
    elif "read_positions" in case and not _same_positions(observed, case["read_positions"]):
        wrong.append(f"positions {tokens.positions} instead of {case['read_positions']}")
    return wrong


def _same_positions(observed: Observed, expected: list[int]) -> bool:
    """The shared files name the tokens *after* which a decoder is read, and of spans of tokens only some."""
    positions = observed.tokens.positions
    if not isinstance(observed.read, TokenLogprobs):
        return positions == expected
    if observed.tokens.decoder_ids is not None:
        return [position - 1 for position in positions] == expected
    return set(expected) <= set(positions) and positions[-1] == expected[-1]


@dataclass
class GoldenModels:
    """The golden models of a test session, each made and loaded once."""

    folder: Path
    _loaded: dict[tuple[str, str], BaseRM] = field(default_factory=dict)

    def checkpoint(self, golden: GoldenSet) -> Path:
        if golden.place == "shared":
            return golden.folder / "checkpoint"
        folder = self.folder / golden.slug
        return folder if folder.exists() else golden.make(folder)

    def load(self, golden: GoldenSet) -> BaseRM:
        """The model on the recording backend."""
        key = (golden.place, golden.slug)
        if key not in self._loaded:
            self._loaded[key] = golden.load(self.checkpoint(golden), "recording")
        return self._loaded[key]


registry.register_backend("recording", f"{__name__}:RecordingBackend")
