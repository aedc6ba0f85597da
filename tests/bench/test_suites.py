"""Each suite reads the columns as published, and those of prepared files, into the same items."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from bench_examples import DATA, records

from reward_hub.bench.benchmark import BENCHMARKS, suite_named, suite_names, suite_of_hub
from reward_hub.bench.items import Item


def load(name: str, folder: Path, *rows: dict[str, Any], file: str = "rows.jsonl") -> list[Item]:
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    items, _ = suite_named(name).load(str(folder))
    return items


def shown(item: Item) -> tuple[Any, ...]:
    texts = {name: [c.response for c in group] for name, group in item.conversations.items()}
    return item.id, item.subset, [m.content for m in item.prompt], texts, dict(item.truth), item.error


def test_every_suite_is_named_and_found_by_its_data() -> None:
    for name in suite_names():
        suite = suite_named(name)
        assert suite.name == name
        assert all(suite_of_hub(data.repo) is suite for data in suite.hub)
    assert suite_of_hub("org/other") is None
    with pytest.raises(LookupError, match=r"no suite 'arena'; known: .*rewardbench, "):
        suite_named("arena")


def test_rewardbench_reads_text_pairs_with_whole_number_ids(tmp_path: Path) -> None:
    row = {"id": 30, "subset": "hep-go", "prompt": "p", "chosen": "c", "rejected": "r", "chosen_model": "m"}
    (item,) = load("rewardbench", tmp_path, row, file="filtered.jsonl")
    assert shown(item) == ("30", "hep-go", ["p"], {"chosen": ["c"], "rejected": ["r"]}, {}, None)


def test_rewardbench2_keeps_every_response_and_the_ids_of_ties(tmp_path: Path) -> None:
    row = {"id": "tied:3", "subset": "Ties", "prompt": "p", "chosen": ["a", "b"], "rejected": ["c"], "num_correct": 2}
    (item,) = load("rewardbench2", tmp_path, row)
    assert shown(item) == ("tied:3", "Ties", ["p"], {"chosen": ["a", "b"], "rejected": ["c"]}, {}, None)


def test_rm_bench_takes_the_domain_from_its_column_or_from_the_files_name(tmp_path: Path) -> None:
    row = {"id": 1, "prompt": "p", "chosen": ["a", "b", "c"], "rejected": ["d", "e", "f"]}
    (item,) = load("rm-bench", tmp_path / "one", row | {"domain": "safety-refuse"}, file="total_dataset.json")
    assert item.subset == "safety-refuse"
    (item,) = load("rm-bench", tmp_path / "two", row, file="chat_filtered.json")
    assert item.subset == "chat"
    (item,) = load("rm-bench", tmp_path / "three", row | {"chosen": ["a"]}, file="total_dataset.json")
    assert item.error == "row 1: 'chosen' must be a list of 3 texts, one a style."


def test_a_folder_with_files_of_several_kinds_is_read_once(tmp_path: Path) -> None:
    """RM-Bench's repository holds one file for all and one a domain; JudgeBench's one a split."""
    row = {"id": 1, "prompt": "p", "chosen": ["a", "b", "c"], "rejected": ["d", "e", "f"]}
    load("rm-bench", tmp_path / "rm", row, file="chat_filtered.json")
    (item,) = load("rm-bench", tmp_path / "rm", row | {"domain": "math"}, file="total_dataset.json")
    assert item.subset == "math"
    pair = {"source": "livebench-math", "question": "q", "response_A": "a", "response_B": "b", "label": "A>B"}
    load("judgebench", tmp_path / "judge", pair | {"pair_id": "c"}, file="response_model=claude.jsonl")
    (item,) = load("judgebench", tmp_path / "judge", pair | {"pair_id": "g"}, file="response_model=gpt-4o.jsonl")
    assert item.id == "g"
    (item,), _ = suite_named("judgebench").load(str(tmp_path / "judge"), split="claude")
    assert item.id == "c"


@pytest.mark.parametrize(
    ("source", "category"),
    [
        ("mmlu-pro-law", "knowledge"),
        ("livebench-reasoning", "reasoning"),
        ("livebench-math", "math"),
        ("livecodebench", "coding"),
    ],
)
@pytest.mark.parametrize(("label", "chosen"), [("A>B", "a"), ("B>A", "b")])
def test_judgebench_turns_labels_into_chosen_and_rejected(
    source: str, category: str, label: str, chosen: str, tmp_path: Path
) -> None:
    row = {"pair_id": "x", "source": source, "question": "q", "response_A": "a", "response_B": "b", "label": label}
    (item,) = load("judgebench", tmp_path, row, file="dataset=judgebench,response_model=gpt-4o.jsonl")
    rejected = {"a": "b", "b": "a"}[chosen]
    texts = {"chosen": [chosen], "rejected": [rejected]}
    assert shown(item) == ("x", category, ["q"], texts, {"label": label}, None)


def test_a_judgebench_pair_of_no_known_source_has_no_subset(tmp_path: Path) -> None:
    row = {"id": 1, "prompt": "p", "chosen": "a", "rejected": "b"}
    (item,) = load("judgebench", tmp_path, row, file="pairs-gpt.jsonl")
    assert item.subset is None


def test_processbench_knows_the_split_by_the_id(tmp_path: Path) -> None:
    row = {"id": "gsm8k-0", "generator": "g", "problem": "p", "steps": ["a", "b"], "final_answer_correct": False}
    items = load("processbench", tmp_path, row | {"label": 1}, row | {"label": 2, "id": "math-0"}, file="gsm8k.json")
    assert [(item.id, item.subset) for item in items] == [("gsm8k-0", "gsm8k"), ("math-0", None)]
    assert items[0].truth["label"] == 1
    assert items[1].error == "row 2: 'label' is 2; it must be from -1 to 1."


def published_prm_row(idx: str, classification: str, **changes: Any) -> dict[str, Any]:
    return {
        "idx": idx,
        "classification": classification,
        "original_question": "original",
        "modified_question": "modified",
        "original_process": ["a", "b"],
        "modified_process": ["a", "x", "b"],
        "error_steps": [2],
        "modified_steps": [2],
    } | changes


def test_prmbench_keeps_the_first_of_an_id_and_adds_the_originals_of_its_redundency_rows(tmp_path: Path) -> None:
    items = load(
        "prmbench",
        tmp_path,
        published_prm_row("p0", "redundency"),
        published_prm_row("redundency_p1", "redundency"),
        published_prm_row("p0", "multi_solutions", error_steps=[]),
        published_prm_row("p0", "multi_solutions", modified_process=["other"]),
    )
    assert [(item.id, item.subset, item.truth["error_steps"]) for item in items] == [
        ("redundency_p0", "redundency", [2]),
        ("correct_p0", "correct", []),
        ("redundency_p1", "redundency", [2]),
        ("correct_p1", "correct", []),
        ("multi_solutions_p0", "multi_solutions", []),
    ]
    assert [m.content for m in items[0].prompt] == ["modified"]
    assert [m.content for m in items[1].prompt] == ["original"]
    assert items[0].conversations["steps"][0].steps == ("a", "x", "b")
    assert items[1].conversations["steps"][0].steps == ("a", "b")
    assert items[4].conversations["steps"][0].steps == ("a", "x", "b")


def test_llmbar_reads_the_folders_of_its_repository(tmp_path: Path) -> None:
    row = {"input": "i", "output_1": "one", "output_2": "two", "label": 2}
    load("llmbar", tmp_path, row, file="Natural/dataset.json")
    items = load("llmbar", tmp_path, row, row | {"label": 0}, file="Adversarial/GPTOut/dataset.json")
    # Rows are counted over all files, in the order of their paths.
    assert [item.id for item in items] == ["llmbar-adver-GPTOut-1", "2", "llmbar-natural-3"]
    texts = {"chosen": ["two"], "rejected": ["one"]}
    assert shown(items[0]) == ("llmbar-adver-GPTOut-1", "llmbar-adver-GPTOut", ["i"], texts, {}, None)
    assert items[1].error == "row 2: 'label' is 0; 1 or 2, the better output, is read."


def test_the_prepared_files_are_read_whole() -> None:
    if not DATA.exists():
        pytest.skip(f"needs {DATA}")
    counts = {}
    for name, path in {
        "llmbar": "llmbar/llmbar.jsonl",
        "judgebench": "judgebench/pairs_gpt4o.jsonl",
        "processbench": "mr_math/mr_math.jsonl",
        "prmbench": "prmbench/prmbench_sample.jsonl",
    }.items():
        items, _ = suite_named(name).load(str(DATA / path))
        assert [item.error for item in items if item.error is not None] == []
        assert len({item.id for item in items}) == len(items)
        counts[name] = (len(items), Counter(item.subset for item in items))
    assert counts["judgebench"][1] == {"knowledge": 154, "reasoning": 98, "math": 56, "coding": 42}
    assert sorted(counts["llmbar"][1].values()) == [46, 47, 92, 100, 134]
    assert counts["processbench"][0] == 159
    redundency = sum(row["classification"] == "redundency" for row in records("prmbench/prmbench_sample.jsonl"))
    assert counts["prmbench"][0] == 394 + redundency
    assert counts["prmbench"][1]["correct"] == redundency


@pytest.mark.parametrize("name", ["preference", "best-of-n"])
def test_a_rule_for_data_from_anywhere_is_no_suite(name: str) -> None:
    assert BENCHMARKS.get(name).form == name
    with pytest.raises(LookupError, match=f"no suite {name!r}"):
        suite_named(name)
