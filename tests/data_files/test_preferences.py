"""Preference pairs of a file: what a row may look like, what is told of one that is none, and how pairs are parted."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_hub.data.preferences import PreferencePair, read_preferences, split_by_prompt
from reward_hub.data.rows import RowFormatError
from reward_hub.errors import InvalidConversationError
from reward_hub.messages import parse

USER = {"role": "user", "content": "2+2?"}
FOUR = {"role": "assistant", "content": "4"}
FIVE = {"role": "assistant", "content": "5"}
PAIR = {"prompt": "2+2?", "chosen": "4", "rejected": "5"}


def write(folder: Path, *rows: Any, name: str = "pairs.jsonl") -> Path:
    path = folder / name
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def only_pair(folder: Path, row: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    (pair,) = read_preferences(write(folder, row))
    chosen, rejected = ([turn.to_dict() for turn in c.messages] for c in (pair.chosen, pair.rejected))
    return chosen, rejected


# What a row may look like


@pytest.mark.parametrize(
    "row",
    [
        PAIR,
        {"prompt": [USER], "chosen": [FOUR], "rejected": [FIVE]},
        {"prompt": [USER], "chosen": "4", "rejected": [FIVE]},
        {"prompt": "2+2?", "chosen": [USER, FOUR], "rejected": [USER, FIVE]},
        {"chosen": [USER, FOUR], "rejected": [USER, FIVE]},
        {**PAIR, "id": 7, "score_chosen": 0.5, "tools": None},
    ],
)
def test_texts_messages_and_whole_conversations_are_read(tmp_path: Path, row: dict[str, Any]) -> None:
    assert only_pair(tmp_path, row) == ([USER, FOUR], [USER, FIVE])


def test_a_prompt_of_several_turns_stands_before_both_responses(tmp_path: Path) -> None:
    prompt = [{"role": "system", "content": "Be brief."}, USER, FIVE, {"role": "user", "content": "Sure?"}]
    expected = ([*prompt, FOUR], [*prompt, FIVE])
    assert only_pair(tmp_path, {"prompt": prompt, "chosen": "4", "rejected": "5"}) == expected
    assert only_pair(tmp_path, {"chosen": [*prompt, FOUR], "rejected": [*prompt, FIVE]}) == expected


SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("prompt", "before"),
    [
        ("2+2?", [SYSTEM, USER]),
        ([USER], [SYSTEM, USER]),
        ("2+2?", [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello!"}, USER]),
        ([SYSTEM], [SYSTEM, USER]),
    ],
)
def test_a_prompt_that_is_some_turns_of_whole_conversations_is_not_put_in_front_again(
    tmp_path: Path, prompt: Any, before: list[dict[str, Any]]
) -> None:
    row = {"prompt": prompt, "chosen": [*before, FOUR], "rejected": [*before, FIVE]}
    assert only_pair(tmp_path, row) == ([*before, FOUR], [*before, FIVE])


def test_responses_of_several_turns_go_on_from_the_prompt(tmp_path: Path) -> None:
    row = {"prompt": [USER], "chosen": [FIVE, USER, FOUR], "rejected": [FIVE, USER, FIVE]}
    assert only_pair(tmp_path, row) == ([USER, FIVE, USER, FOUR], [USER, FIVE, USER, FIVE])
    row = {"prompt": [SYSTEM], "chosen": [USER, FOUR], "rejected": [USER, FIVE]}
    assert only_pair(tmp_path, row) == ([SYSTEM, USER, FOUR], [SYSTEM, USER, FIVE])


@pytest.mark.parametrize("write_cell", [json.dumps, repr], ids=["JSON", "Python"])
def test_cells_of_csv_may_hold_messages(tmp_path: Path, write_cell: Any) -> None:
    path = tmp_path / "pairs.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["prompt", "chosen", "rejected"])
        rows.writerow(["2+2?", write_cell([SYSTEM, USER, FOUR]), write_cell([SYSTEM, USER, FIVE])])
        rows.writerow(["2+2?", "[{a}]", '[{"a": 1}]'])
    messages, texts = read_preferences(path)
    assert [turn.to_dict() for turn in messages.rejected.messages] == [SYSTEM, USER, FIVE]
    assert (texts.chosen.response, texts.rejected.response) == ("[{a}]", '[{"a": 1}]')


def test_json_and_parquet_are_read_too(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [
        {"prompt": [USER], "chosen": [FOUR], "rejected": [FIVE]},
        {"prompt": [USER], "chosen": [FIVE], "rejected": [FOUR]},
    ]
    (tmp_path / "pairs.json").write_text(json.dumps(rows))
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    lines = read_preferences(write(tmp_path, *rows))
    for name in ("pairs.json", "pairs.parquet"):
        pairs = read_preferences(tmp_path / name)
        assert [(pair.chosen, pair.rejected) for pair in pairs] == [(pair.chosen, pair.rejected) for pair in lines]
        assert pairs[1].place == f"{tmp_path / name}, row 2"


texts = st.text(st.characters(codec="utf-8"), min_size=1)


@given(st.lists(st.tuples(texts, texts, texts).filter(lambda t: t[1] != t[2]), min_size=1, max_size=5))
def test_every_text_comes_out_as_it_went_in(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]]
) -> None:
    path = write(tmp_path_factory.mktemp("pairs"), *({"prompt": p, "chosen": c, "rejected": r} for p, c, r in rows))
    pairs = read_preferences(path)
    assert [(pair.prompt[0].text, pair.chosen.response, pair.rejected.response) for pair in pairs] == rows


# What is told of a row that is no pair


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ('{"prompt": "torn', "not JSON"),
        ([1, 2], "a JSON list"),
        ({"prompt": "2+2?", "chosen": "4"}, "there is no 'rejected'; its columns: 'prompt', 'chosen'"),
        ({"prompt": "2+2?", "chosen": None, "rejected": "5"}, "there is no 'chosen'"),
        ({**PAIR, "rejected": 5}, "'rejected' is 5; a text or a list"),
        ({**PAIR, "prompt": {"role": "user"}}, "'prompt' is {'role': 'user'}; a text or a list"),
        ({**PAIR, "prompt": []}, "'prompt': there are no messages"),
        ({**PAIR, "prompt": [{"role": "human", "content": "?"}]}, "unknown role 'human'"),
        ({**PAIR, "chosen": [{"role": "assistant"}]}, "'chosen': messages[0] has no content"),
        ({"chosen": "4", "rejected": "5"}, "there is no prompt beside 'chosen' and 'rejected', as of"),
        ({**PAIR, "chosen": [USER]}, "has role 'user'"),
        ({"chosen": [USER, FOUR], "rejected": [{**USER, "content": "?"}, FIVE]}, "different prompts: '2+2?' and '?'"),
        ({**PAIR, "rejected": "4"}, "the same response: '4'"),
        ({**PAIR, "rejected": [USER, FOUR]}, "the same response: '4'"),
        ({**PAIR, "prompt": "2+2", "chosen": [USER, FOUR]}, "'prompt' is not in it: '2+2'. Leave 'prompt' out"),
        ({"query": "?", "chosen": "4", "rejected": "5"}, "'messages'; its columns: 'query', 'chosen', 'rejected'"),
        ({**PAIR, "images": ["a.png"]}, "the column 'images' is ['a.png'], and no model here reads it"),
        ({**PAIR, "tools": "calculator"}, "'tools' is 'calculator', which is not JSON"),
        ({**PAIR, "system": 5}, "'system' is 5; a text is read"),
        ({**PAIR, "chosen": "\ud800"}, "half of a surrogate pair"),
    ],
)  # fmt: skip
def test_a_row_that_is_no_pair_is_told_with_its_line_and_value(tmp_path: Path, row: Any, told: str) -> None:
    path = write(tmp_path, PAIR, "", row, PAIR)
    with pytest.raises(InvalidConversationError) as caught:
        read_preferences(path)
    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert told in str(caught.value)


def test_several_bad_rows_are_told_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, *([PAIR, {**PAIR, "rejected": "4"}] * 7))
    with pytest.raises(InvalidConversationError) as caught:
        read_preferences(path)
    message = str(caught.value)
    assert "7 rows" in message and "and 2 more" in message
    assert [f"line {n}:" in message for n in (2, 4, 6, 8, 10, 12)] == [True] * 5 + [False]


def test_a_long_value_is_cut_short(tmp_path: Path) -> None:
    with pytest.raises(InvalidConversationError) as caught:
        read_preferences(write(tmp_path, {**PAIR, "chosen": "4" * 10_000, "rejected": "4" * 10_000}))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_a_file_without_pairs_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(text)
    with pytest.raises(InvalidConversationError, match="holds no rows"):
        read_preferences(path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RowFormatError, match="the ending"):
        read_preferences(tmp_path / "pairs.txt")


# How pairs are parted


def made(prompts: list[int]) -> list[PreferencePair]:
    """One pair for each prompt named."""
    chosen, rejected = ([parse(prompt=f"{n}?", response=f"{kind} {i}") for i, n in enumerate(prompts)] for kind in "ab")
    return [PreferencePair(*both) for both in zip(chosen, rejected, strict=True)]


@given(
    st.lists(st.integers(0, 9), min_size=2).filter(lambda p: len(set(p)) > 1), st.floats(0.01, 0.99), st.integers(0, 5)
)
def test_no_prompt_is_on_both_sides_and_no_pair_is_lost(prompts: list[int], share: float, seed: int) -> None:
    pairs = made(prompts)
    to_train, held_out = split_by_prompt(pairs, share, seed=seed)
    assert to_train and held_out
    assert not {pair.prompt[0].text for pair in to_train} & {pair.prompt[0].text for pair in held_out}
    assert sorted(map(pairs.index, to_train + held_out)) == list(range(len(pairs)))
    assert split_by_prompt(pairs, share, seed=seed) == (to_train, held_out)


@pytest.mark.parametrize(("share", "n"), [(0.1, 20), (0.25, 50), (0.001, 1)])
def test_the_share_asked_for_is_held_out(share: float, n: int) -> None:
    pairs = made(list(range(200)))
    _, held_out = split_by_prompt(pairs, share, seed=0)
    assert len(held_out) == n
    assert held_out != split_by_prompt(pairs, share, seed=1)[1]


def test_a_prompt_of_many_pairs_is_not_what_is_held_out() -> None:
    pairs = made([0] * 50 + [1] * 2)
    for seed in range(4):
        assert len(split_by_prompt(pairs, 0.01, seed=seed)[1]) == 2


def test_pairs_of_one_prompt_cannot_be_parted() -> None:
    with pytest.raises(InvalidConversationError, match="one prompt"):
        split_by_prompt(made([3, 3, 3]), 0.5, seed=0)
