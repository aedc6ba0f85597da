"""Every form of a row is read alike by score, judge, bench and DrSow's reader, and refused by all in the same words.

A model of ours scores what each of them makes of a row, held against the conversation written out. Its template shows
system prompts, tools and an argument, so that nothing of them can be lost without another number.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from golden_sets import GoldenSet
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reward_hub import AutoRM, BaseRM
from reward_hub.bench.items import instruction_item, preference_item, read_items
from reward_hub.bench.pairwise_scoring import compare_items
from reward_hub.bench.scoring import score_items
from reward_hub.calibration.calibrated_rm import preference_pair
from reward_hub.cli.judge import COMMANDS
from reward_hub.cli.score import SCORE
from reward_hub.data.column_names import Columns
from reward_hub.data.columns import conversation_of, pair_of, preference_of, responses_of, stepwise_of, texts_of
from reward_hub.data.preferences import read_preferences
from reward_hub.data.row_run import RowCommand, RowRun, run_rows
from reward_hub.data.rows import Row, read_rows
from reward_hub.errors import InvalidConversationError
from reward_hub.messages import parse
from reward_hub.types import Conversation

TEMPLATE = (
    "{% if tools %}tools: {{ tools | tojson }}\n{% endif %}{% if terse %}terse: {{ terse }}\n{% endif %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
)
SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "2+2?"}
FOUR, FIVE = ({"role": "assistant", "content": text} for text in "45")
HELLO = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
TOOLS = [{"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}}]
SHAREGPT = [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "2+2?"}]

# (columns beside the response, the messages before it, what the template takes besides)
PROMPTS: dict[str, tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]] = {
    "prompt": ({"prompt": "2+2?"}, [USER], {}),
    "prompt-messages": ({"prompt": [SYSTEM, USER]}, [SYSTEM, USER], {}),
    "prompt-sharegpt": ({"prompt": SHAREGPT}, [SYSTEM, USER], {}),
    "question": ({"question": "2+2?"}, [USER], {}),
    "problem": ({"problem": "2+2?"}, [USER], {}),
    "instruction": ({"instruction": "2+2?"}, [USER], {}),
    "instruction-and-input": (
        {"instruction": "Add.", "input": "2 2"}, [{"role": "user", "content": "Add.\n\n2 2"}], {},
    ),
    "instruction-and-no-input": ({"instruction": "2+2?", "input": ""}, [USER], {}),
    "input": ({"input": "2+2?"}, [USER], {}),
    "system": ({"system": "Be brief.", "prompt": "2+2?"}, [SYSTEM, USER], {}),
    "system_prompt": ({"system_prompt": "Be brief.", "instruction": "2+2?"}, [SYSTEM, USER], {}),
    "system-twice": ({"system": "Be brief.", "prompt": [SYSTEM, USER]}, [SYSTEM, USER], {}),
    "no-system": ({"system": "", "prompt": "2+2?"}, [USER], {}),
    "history": ({"history": [["Hi", "Hello!"]], "prompt": "2+2?"}, [*HELLO, USER], {}),
    "history-and-system": (
        {"history": [["Hi", "Hello!"]], "system": "Be brief.", "instruction": "2+2?"}, [SYSTEM, *HELLO, USER], {},
    ),
    "history-twice": ({"history": [["Hi", "Hello!"]], "prompt": [*HELLO, USER]}, [*HELLO, USER], {}),
    "messages": ({"messages": [SYSTEM, *HELLO, USER]}, [SYSTEM, *HELLO, USER], {}),
    "messages-and-system": ({"messages": [USER], "system": "Be brief."}, [SYSTEM, USER], {}),
    "conversation": ({"conversation": [USER]}, [USER], {}),
    "conversations": ({"conversations": SHAREGPT}, [SYSTEM, USER], {}),
    "prompt-and-messages": ({"prompt": "2+2?", "messages": [SYSTEM, *HELLO, USER]}, [SYSTEM, *HELLO, USER], {}),
    "prompt-and-question": ({"prompt": [SYSTEM, USER], "question": "2+2?"}, [SYSTEM, USER], {}),
    "tools": ({"prompt": "2+2?", "tools": TOOLS}, [USER], {"tools": TOOLS}),
    "tools-as-text": ({"prompt": [SYSTEM, USER], "tools": json.dumps(TOOLS)}, [SYSTEM, USER], {"tools": TOOLS}),
    "tools-and-system": ({"messages": [USER], "system": "Be brief.", "tools": TOOLS}, [SYSTEM, USER], {"tools": TOOLS}),
    "no-tools": ({"prompt": "2+2?", "tools": []}, [USER], {}),
    "chat_template_kwargs": (
        {"prompt": "2+2?", "chat_template_kwargs": {"terse": "yes"}}, [USER], {"terse": "yes"},
    ),
    "plain-data": ({"prompt": "2+2?", "answer": "9", "reference_answer": "9", "source": "x"}, [USER], {}),
    "empty-forms": ({"prompt": "2+2?", "messages": [], "context": "", "images": [], "history": []}, [USER], {}),
}  # fmt: skip
# How a response is written, given the messages before it.
RESPONSES: dict[str, Callable[[str, list[dict[str, Any]]], Any]] = {
    "text": lambda text, before: text,
    "message": lambda text, before: {"role": "assistant", "content": text},
    "messages": lambda text, before: [{"role": "assistant", "content": text}],
    "sharegpt": lambda text, before: {"from": "gpt", "value": text},
    "whole": lambda text, before: [*before, {"role": "assistant", "content": text}],
    "list-of-one": lambda text, before: [text],
}


@pytest.fixture(scope="module")
def rm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaseRM]:
    folder = GoldenSet("seqcls-qwen2", "own").make(tmp_path_factory.mktemp("forms") / "model")
    with AutoRM.load(str(folder), "transformers", torch_dtype="float32", chat_template=TEMPLATE) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def reference(rm: BaseRM) -> Callable[..., float]:
    """The score of written-out messages by plain transformers."""
    folder = rm.name
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()

    def score(messages: list[dict[str, Any]], arguments: dict[str, Any]) -> float:
        text = tokenizer.apply_chat_template(messages, chat_template=TEMPLATE, tokenize=False, **arguments)
        ids = tokenizer(text, add_special_tokens=True, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            return float(model(ids).logits[0, 0])

    return score


def run(command: RowCommand, rm: BaseRM, record: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What a command writes for a file of one row."""
    source, out = folder / "rows.jsonl", io.StringIO()
    source.write_text(json.dumps(record) + "\n")
    run_rows(command, RowRun(source=str(source), out=out, settings={}), lambda: Kept(rm))  # type: ignore[arg-type, return-value]
    (row,) = map(json.loads, out.getvalue().splitlines())
    assert isinstance(row, dict)
    return row


class Kept:
    """The model, which the end of a run does not close."""

    def __init__(self, rm: BaseRM) -> None:
        self._rm = rm

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rm, name)

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *raised: object) -> None: ...


def by_bench(rm: BaseRM, record: dict[str, Any], read: Any) -> dict[str, Any]:
    return score_items(rm, read_items([Row(1, dict(record))], read))[0]


@pytest.mark.parametrize("form", PROMPTS)
def test_score_judge_and_bench_read_a_conversation_alike(
    rm: BaseRM, reference: Callable[..., float], form: str, tmp_path: Path
) -> None:
    columns, before, arguments = PROMPTS[form]
    expected = pytest.approx(reference([*before, FOUR], arguments), abs=1e-5)
    for column, written in (
        *(("response", written) for written in RESPONSES.values()),
        ("completion", RESPONSES["text"]),
    ):
        record = {**columns, column: written("4", before)}
        assert run(SCORE, rm, record, tmp_path)["score"] == expected
        assert run(COMMANDS["pointwise"], rm, record, tmp_path)["score"] == expected
        assert by_bench(rm, record, instruction_item)["scores"]["response"] == [expected]


@pytest.mark.parametrize("form", PROMPTS)
def test_judge_bench_and_drsow_read_a_pair_alike(
    rm: BaseRM, reference: Callable[..., float], form: str, tmp_path: Path
) -> None:
    columns, before, arguments = PROMPTS[form]
    better, worse = (reference([*before, turn], arguments) for turn in (FOUR, FIVE))
    probability = 1 / (1 + np.exp(worse - better))
    for written in RESPONSES.values():
        record = {**columns, "chosen": written("4", before), "rejected": written("5", before)}
        judged = run(COMMANDS["pairwise"], rm, record, tmp_path)
        assert judged["probability"] == pytest.approx(probability, abs=1e-5)
        scores = by_bench(rm, record, preference_item)["scores"]
        assert [*scores["chosen"], *scores["rejected"]] == pytest.approx([better, worse], abs=1e-5)
        path = tmp_path / "pairs.jsonl"
        path.write_text(json.dumps(record) + "\n")
        (pair,) = read_preferences(path)
        assert rm.score_batch([pair.chosen, pair.rejected]) == pytest.approx([better, worse], abs=1e-5)


@pytest.mark.parametrize(
    ("record", "before"),
    [
        # As UltraFeedback is published: the prompt, the preferred conversation, and both conversations.
        ({"prompt": "2+2?", "messages": [USER, FOUR], "chosen": [USER, FOUR], "rejected": [USER, FIVE]}, [USER]),
        # One turn of whole conversations beside them: the system prompt and earlier turns stay.
        (
            {"prompt": "2+2?", "chosen": [SYSTEM, *HELLO, USER, FOUR], "rejected": [SYSTEM, *HELLO, USER, FIVE]},
            [SYSTEM, *HELLO, USER],
        ),
        ({"chosen": [SYSTEM, USER, FOUR], "rejected": [SYSTEM, USER, FIVE]}, [SYSTEM, USER]),
        ({"system": "Be brief.", "chosen": [USER, FOUR], "rejected": [USER, FIVE]}, [SYSTEM, USER]),
        ({"conversations": SHAREGPT, "chosen": [SYSTEM, USER, FOUR], "rejected": "5"}, [SYSTEM, USER]),
    ],
    ids=["ultrafeedback", "one-turn", "alone", "system-beside", "sharegpt"],
)  # fmt: skip
def test_whole_conversations_beside_a_prompt_keep_every_turn(
    rm: BaseRM,
    reference: Callable[..., float],
    record: dict[str, Any],
    before: list[dict[str, Any]],
    tmp_path: Path,
) -> None:
    better, worse = (reference([*before, turn], {}) for turn in (FOUR, FIVE))
    judged = run(COMMANDS["pairwise"], rm, record, tmp_path)["probability"]
    assert judged == pytest.approx(1 / (1 + np.exp(worse - better)), abs=1e-5)
    scores = by_bench(rm, record, preference_item)["scores"]
    assert [*scores["chosen"], *scores["rejected"]] == pytest.approx([better, worse], abs=1e-5)
    chosen, rejected = preference_of(record)
    assert rm.score_batch([chosen, rejected]) == pytest.approx([better, worse], abs=1e-5)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"prompt": "2+2?", "context": "Sums."}, "the column 'context' is 'Sums.', and no model here reads it"),
    ({"prompt": "2+2?", "images": ["a.png"]}, "the column 'images' is ['a.png'], and no model here reads it"),
    ({"prompt": "2+2?", "instruction": "3+3?"}, "'instruction' and 'prompt' do not agree: '3+3?' and '2+2?'"),
    ({"prompt": "3+3?", "messages": [USER]}, "'prompt' and 'messages' do not agree: '3+3?' and '2+2?'"),
    ({"messages": [USER], "conversations": [{"from": "human", "value": "?"}]}, "'conversations' and 'messages' do not"),
    ({"prompt": "2+2?", "system": "A", "system_prompt": "B"}, "'system_prompt' and 'system' do not agree"),
    ({"prompt": [SYSTEM, USER], "system": "Be kind."}, "'system' is 'Be kind.', and the messages begin with another"),
    ({"prompt": "2+2?", "system": 5}, "'system' is 5; a text is read"),
    ({"messages": [USER], "history": [["Hi", "Hello!"]]}, "'history' is 'Hi / Hello!', with which the messages do not"),
    ({"prompt": "2+2?", "history": [["Hi"]]}, "'history' is [['Hi']]; a list of pairs is read"),
    ({"prompt": "2+2?", "history": "Hi"}, "'history' is 'Hi'; a list of pairs is read"),
    ({"instruction": [USER], "input": "2"}, "two texts are joined"),
    ({"prompt": "2+2?", "tools": "add"}, "'tools' is 'add', which is not JSON"),
    ({"prompt": "2+2?", "tools": [5]}, "tools is [5]; a list of dicts"),
    ({"prompt": "2+2?", "chat_template_kwargs": [1]}, "chat_template_kwargs is [1]; a dict of names and values"),
    ({"prompt": "2+2?", "chat_template_kwargs": {"messages": 1}}, "holds 'messages', which is set by other means"),
    ({"prompt": [{"from": "robot", "value": "?"}]}, "'prompt': a message is from 'robot'; known are human"),
    ({"prompt": 7}, "'prompt' is 7; a text or a list of messages is read"),
    ({"prompt": "x" * 300, "messages": 7}, "'messages' is 7; a list of messages is read"),
]


@pytest.mark.parametrize(("columns", "words"), REFUSED)
def test_what_cannot_be_read_is_refused_by_all_in_the_same_words(
    rm: BaseRM, columns: dict[str, Any], words: str, tmp_path: Path
) -> None:
    single, pair = {**columns, "id": "a", "response": "4"}, {**columns, "id": "a", "chosen": "4", "rejected": "5"}
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(pair) + "\n")
    with pytest.raises(InvalidConversationError) as drsow:
        read_preferences(path)
    with pytest.raises(InvalidConversationError) as calibrate:
        preference_pair(pair, "pair 0")
    said = {
        run(SCORE, rm, single, tmp_path)["error"]["message"],
        run(COMMANDS["pointwise"], rm, single, tmp_path)["error"]["message"],
        run(COMMANDS["pairwise"], rm, pair, tmp_path)["error"]["message"],
        by_bench(rm, single, instruction_item)["error"]["message"].removeprefix("row 1: "),
        by_bench(rm, pair, preference_item)["error"]["message"].removeprefix("row 1: "),
        drsow.value.message.removeprefix(f"{path}, line 1: "),
        calibrate.value.message.removeprefix("pair 0: "),
    }
    (message,) = said
    assert words in message
    assert len(message) < 400


@pytest.mark.parametrize("command", ["score", "pointwise", "pairwise", "bench", "drsow"])
def test_a_template_without_a_place_for_tools_refuses_them(command: str, tmp_path: Path) -> None:
    folder = GoldenSet("seqcls-qwen2", "own").make(tmp_path / "model")
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }} (tools, terse)\n{% endfor %}"
    record = {"prompt": "2+2?", "tools": TOOLS, "response": "4", "chosen": "4", "rejected": "5"}
    with AutoRM.load(str(folder), "transformers", torch_dtype="float32", chat_template=template) as rm:
        if command == "drsow":
            with pytest.raises(InvalidConversationError, match="has no place for 'tools'"):
                rm.score(preference_of(record)[0])  # type: ignore[call-overload]
            return
        commands = {"score": SCORE, **COMMANDS}
        if command == "bench":
            error = by_bench(rm, record, preference_item)["error"]
        else:
            error = run(commands[command], rm, record, tmp_path)["error"]
    assert "the chat template has no place for 'tools', which would be ignored" in error["message"]


# -- agreement, by drawn values --------------------------------------------------------------------------------------

texts = st.text(st.characters(codec="utf-8"), min_size=1)


@example(asked="a", system=None, earlier=[("a", "b")], response="b")
@given(asked=texts, system=st.none() | texts, earlier=st.lists(st.tuples(texts, texts), max_size=2), response=texts)
def test_forms_that_say_the_same_agree_in_every_combination(
    asked: str, system: str | None, earlier: list[tuple[str, str]], response: str
) -> None:
    opening = [] if system is None else [{"role": "system", "content": system}]
    history = [
        {"role": role, "content": t} for pair in earlier for role, t in zip(("user", "assistant"), pair, strict=True)
    ]
    whole = [*opening, *history, {"role": "user", "content": asked}]
    answer = {"role": "assistant", "content": response}
    expected = parse([*whole, answer])
    parts = {"system": system, "history": [list(pair) for pair in earlier], "prompt": asked}
    forms: list[dict[str, Any]] = [
        {**parts, "response": response},
        {**parts, "messages": whole, "response": response},
        {**parts, "messages": [*whole, answer]},
        {**parts, "messages": [*whole, answer], "response": response, "completion": response},
        {**parts, "response": [*whole, answer]},
        {"instruction": whole, "question": asked, "system_prompt": system, "completion": [answer]},
    ]
    assert [conversation_of(form) for form in forms] == [expected] * len(forms)


@given(asked=texts, other=texts, response=texts, another=texts)
def test_forms_that_say_something_else_are_refused(asked: str, other: str, response: str, another: str) -> None:
    user, answer = {"role": "user", "content": asked}, {"role": "assistant", "content": response}
    differing: list[dict[str, Any]] = []
    if other != asked:
        differing += [{"prompt": asked, "question": other, "response": response}]
        differing += [{"prompt": other, "messages": [user, answer]}, {"prompt": other, "response": [user, answer]}]
        system = {"role": "system", "content": other}
        differing += [{"system": asked, "messages": [system, user, answer]}]
    if another != response:
        differing += [{"prompt": asked, "response": response, "completion": another}]
        differing += [{"messages": [user, answer], "response": another}]
    for record in differing:
        with pytest.raises(InvalidConversationError):
            conversation_of(record)


# -- formats ---------------------------------------------------------------------------------------------------------

rows = st.fixed_dictionaries(
    {"prompt": texts, "system": texts, "history": st.lists(st.tuples(texts, texts).map(list), min_size=1, max_size=2)},
    optional={"response": texts},
).map(lambda row: {"response": "", **row})


@settings(max_examples=15)  # each writes five files
@given(st.lists(rows, min_size=1, max_size=3))
def test_every_format_of_a_file_gives_the_same_conversation(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]]
) -> None:
    folder = tmp_path_factory.mktemp("formats")
    expected = [conversation_of(record) for record in records]
    for write in (as_jsonl, as_gzip, as_csv, as_parquet, on_disk):
        source = write(folder, records)
        found = [conversation_of(row.record) for row in read_rows(source)]
        assert found == expected, source


def as_jsonl(folder: Path, records: list[dict[str, Any]]) -> str:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def as_gzip(folder: Path, records: list[dict[str, Any]]) -> str:
    import gzip

    path = folder / "rows.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(record) + "\n" for record in records).encode()))
    return str(path)


def as_csv(folder: Path, records: list[dict[str, Any]]) -> str:
    import csv

    path = folder / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(records[0]), quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows({**record, "history": json.dumps(record["history"])} for record in records)
    return str(path)


def as_parquet(folder: Path, records: list[dict[str, Any]]) -> str:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = folder / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(records), path)
    return str(path)


def on_disk(folder: Path, records: list[dict[str, Any]]) -> str:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(records).save_to_disk(folder / "disk")
    return str(folder / "disk")


def test_rows_of_datasets_and_pandas_are_read_as_they_are() -> None:
    records = [
        {"messages": [SYSTEM, USER, FOUR], "weight": 1.0},
        {"messages": [USER, {**FOUR, "name": "calculator"}], "weight": None},
    ]
    expected = [parse(record["messages"]) for record in records]
    datasets = pytest.importorskip("datasets")
    dataset = datasets.Dataset.from_list(records)
    assert [conversation_of(row).response for row in dataset] == ["4", "4"]
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(records)
    assert [conversation_of(row) for _, row in frame.iterrows()] == expected
    # What a table has for nothing is nothing.
    table = pandas.DataFrame([{"prompt": "2+2?", "response": "4", "system": float("nan"), "tools": pandas.NA}])
    assert conversation_of(table.iloc[0]) == parse([USER, FOUR])


def test_numpy_arrays_and_numbers_in_columns_are_plain_values() -> None:
    record = {"prompt": np.array([SYSTEM, USER]), "steps": np.array(["a", "b"]), "weight": np.float32(1)}
    assert stepwise_of(record) == {"messages": [SYSTEM, USER], "steps": ["a", "b"]}
    ranked = {"prompt": np.str_("2+2?"), "responses": np.array(["4", "5"])}
    assert responses_of(ranked) == ([USER], ["4", "5"])


def test_a_damaged_gzip_file_is_named(tmp_path: Path) -> None:
    from reward_hub.data.rows import RowFormatError

    path = Path(as_gzip(tmp_path, [{"prompt": "p", "response": "r" * 1000}] * 50))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RowFormatError, match=r"rows\.jsonl\.gz: not gzip, or not the whole of it"):
        list(read_rows(str(path)))


# -- columns of other names ------------------------------------------------------------------------------------------


def test_a_column_is_read_as_what_it_is_said_to_be(tmp_path: Path) -> None:
    records = [{"question": "2+2?", "answer": "4", "context": "Sums."}, {"question": "2+2?", "answer": None}]
    path = as_jsonl(tmp_path, [*records, {"question": "2+2?", "answered": "4"}])
    sound, empty, without = read_rows(path, Columns({"response": "answer"}, ["context"]))
    assert conversation_of(sound.record) == parse([USER, FOUR])
    with pytest.raises(InvalidConversationError, match="'prompt' and 'response'"):
        conversation_of(empty.record)
    assert without.error is not None
    assert "there is no column 'answer' to be read as 'response'" in without.error


def test_a_column_that_is_no_role_is_refused() -> None:
    with pytest.raises(ValueError, match="no column is read as 'answer'"):
        Columns({"answer": "response"})
    with pytest.raises(ValueError, match="'context' is both read and ignored"):
        Columns({"prompt": "context"}, ["context"])


def test_two_unlabelled_responses_are_compared_as_the_labelled_ones_are() -> None:
    pair = pair_of({"prompt": "2+2?", "a": "4", "b": [USER, FIVE]})
    assert {name: type(c) for name, c in pair.items()} == {"a": Conversation, "b": Conversation}
    assert (pair["a"], pair["b"]) == (parse([USER, FOUR]), parse([USER, FIVE]))
    with pytest.raises(InvalidConversationError, match="two pairs"):
        pair_of({"prompt": "2+2?", "a": "4", "b": "5", "chosen": "4", "rejected": "5"})


# -- what only one of several forms says -----------------------------------------------------------------------------

WITH_TOOLS = {**USER, "tools": TOOLS}
REASONED = {**FOUR, "reasoning_content": "Two and two."}


@pytest.mark.parametrize(
    ("record", "messages"),
    [
        ({"messages": [WITH_TOOLS], "response": [USER, FOUR]}, [WITH_TOOLS, FOUR]),
        ({"prompt": [WITH_TOOLS], "messages": [USER, FOUR]}, [WITH_TOOLS, FOUR]),
        ({"prompt": [WITH_TOOLS], "system": "Be brief.", "response": "4"}, [{**SYSTEM, "tools": TOOLS}, USER, FOUR]),
        ({"messages": [USER, FOUR], "conversation": [WITH_TOOLS, FOUR]}, [WITH_TOOLS, FOUR]),
        ({"messages": [WITH_TOOLS, FOUR], "tools": TOOLS}, [WITH_TOOLS, FOUR]),
        ({"messages": [USER, REASONED], "response": "4"}, [USER, REASONED]),
        ({"messages": [USER, FOUR], "response": REASONED}, [USER, REASONED]),
        ({"messages": [USER, REASONED], "conversation": [USER, FOUR]}, [USER, REASONED]),
        ({"prompt": [{**USER, "name": "Ann"}], "response": [SYSTEM, USER, FOUR]},
         [SYSTEM, {**USER, "name": "Ann"}, FOUR]),
        ({"prompt": "2+2?", "messages": [{**USER, "name": "Ann"}], "response": [USER, FOUR]},
         [{**USER, "name": "Ann"}, FOUR]),
    ],
)  # fmt: skip
def test_what_one_of_several_forms_says_besides_is_kept(record: dict[str, Any], messages: list[dict[str, Any]]) -> None:
    assert conversation_of(record) == parse(messages)


def test_a_pair_keeps_what_the_messages_say_besides() -> None:
    chosen, rejected = preference_of({"messages": [WITH_TOOLS], "chosen": [USER, FOUR], "rejected": [USER, FIVE]})
    assert (chosen, rejected) == (parse([WITH_TOOLS, FOUR]), parse([WITH_TOOLS, FIVE]))
    chosen, rejected = preference_of({"messages": [USER, REASONED], "chosen": "4", "rejected": "5"})
    assert (chosen, rejected) == (parse([USER, REASONED]), parse([USER, FIVE]))


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"messages": [WITH_TOOLS], "response": [{**USER, "tools": TOOLS * 2}, FOUR]}, "a message has others"),
        ({"messages": [WITH_TOOLS, FOUR], "conversation": [{**USER, "tools": TOOLS * 2}, FOUR]}, "has others"),
        ({"prompt": [WITH_TOOLS], "tools": TOOLS * 2, "response": "4"}, "has others: in 'prompt'"),
        ({"messages": [USER, REASONED], "response": {**FOUR, "reasoning_content": "r"}}, "ends with the response '4'"),
        ({"messages": [{**USER, "name": "Ann"}, FOUR], "prompt": [{**USER, "name": "Bob"}]}, "do not agree"),
        # Which of the two questions is Ann's?
        ({"messages": [USER, FOUR, USER, FOUR], "prompt": [{**USER, "name": "Ann"}]}, "do not agree"),
    ],
)
def test_forms_that_say_different_things_besides_are_refused(record: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidConversationError, match=words):
        conversation_of(record)


def test_an_input_beside_an_empty_instruction_is_a_prompt() -> None:
    assert conversation_of({"instruction": "", "input": "2+2?", "response": "4"}) == parse([USER, FOUR])
    for prompt in ({"prompt": "q"}, {"messages": [{"role": "user", "content": "q"}]}):
        with pytest.raises(InvalidConversationError, match="'input'"):
            conversation_of({"instruction": "", "input": "x", **prompt, "response": "a"})


@pytest.mark.parametrize("more", [{"reasoning_content": "Two and two."}, {"name": "Ann"}])
def test_a_response_that_says_more_than_its_text_is_not_compared(more: dict[str, Any]) -> None:
    (key,) = more
    pair = pair_of({"prompt": "2+2?", "chosen": {**FOUR, **more}, "rejected": "5"})
    with pytest.raises(InvalidConversationError, match=f"'chosen' has {key}; texts are compared"):
        texts_of(pair)
    with pytest.raises(InvalidConversationError, match=rf"'responses\[1\]' has {key}; texts are compared"):
        responses_of({"prompt": "2+2?", "responses": ["5", {**FOUR, **more}]})
    empty = pair_of({"prompt": "2+2?", "chosen": {**FOUR, key: None}, "rejected": "5"})
    assert texts_of(empty) == ([USER], ["4", "5"])


def test_an_item_whose_response_says_more_than_its_text_is_not_compared(rm: BaseRM) -> None:
    item = preference_item({"id": 1, "prompt": "2+2?", "chosen": REASONED, "rejected": "5"})
    (scored,) = compare_items(rm, [item])
    assert "hold one that has reasoning_content" in str(scored)
