"""Chat templates are rendered as the newest transformers does it, on a fixed day, by the name that is asked for."""

from __future__ import annotations

import json
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import transformers
from golden_sets import OWN, GoldenSet, own_templates
from hypothesis import given
from hypothesis import strategies as st
from jinja2.exceptions import TemplateError
from made_tokenizers import byte_tokenizer, edit_json, save

from reward_hub import AutoRM, CheckpointError, InvalidConversationError
from reward_hub.messages import parse_messages
from reward_hub.tokenizer import HFTokenizer, load_tokenizer

TOOLS = [
    {
        "type": "function",
        "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}},
    }
]


GOLDEN = own_templates()
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    [" a ", "<|im_end|>", "<think>so</think> 4", "a\r\nb", "<b>&amp;</b>"]
)
calls = st.fixed_dictionaries(
    {
        "id": st.just("call12345"),
        "type": st.just("function"),
        "function": st.fixed_dictionaries(
            {
                "name": st.sampled_from(["f", "g"]),
                "arguments": st.dictionaries(st.sampled_from("xyz"), texts | st.integers()),
            }
        ),
    }
)


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = []
    if draw(st.booleans()):
        turns.append({"role": "system", "content": draw(texts)})
    for _ in range(draw(st.integers(1, 2))):
        turns.append({"role": "user", "content": draw(texts)})
        if draw(st.booleans()):
            turns.append({"role": "assistant", "content": draw(texts), "tool_calls": [draw(calls)]})
            turns.append({"role": "tool", "content": draw(texts)})
        turns.append({"role": "assistant", "content": draw(texts)})
    return turns


@lru_cache
def _both(name: str) -> tuple[HFTokenizer, Any]:
    return load_tokenizer(OWN / name), transformers.PreTrainedTokenizerFast.from_pretrained(str(OWN / name))


def _ours(tokenizer: HFTokenizer, turns: list[dict[str, Any]], **arguments: Any) -> str | None:
    try:
        return tokenizer.render(parse_messages([{**turns[0], **arguments}, *turns[1:]]))
    except InvalidConversationError:
        return None


def _theirs(tokenizer: Any, turns: list[dict[str, Any]], **arguments: Any) -> str | None:
    if "strftime_now" in str(tokenizer.chat_template):
        arguments["date_string"] = "26 Jul 2024"
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, **arguments))
    except (TemplateError, TypeError):
        return None


@pytest.mark.parametrize("name", GOLDEN)
@given(turns=conversations(), with_tools=st.booleans())
def test_every_golden_template_reads_conversations_as_in_transformers(
    name: str, turns: list[dict[str, Any]], with_tools: bool
) -> None:
    ours, theirs = _both(name)
    assert ours.chat_template is not None
    arguments = {"tools": TOOLS} if with_tools and "tools" in ours.chat_template else {}
    assert _ours(ours, turns, **arguments) == _theirs(theirs, turns, **arguments)


@pytest.mark.parametrize("name", GOLDEN)
@given(turns=conversations(), compact=st.booleans())
def test_arguments_as_json_text_are_those_of_the_object(name: str, turns: list[dict[str, Any]], compact: bool) -> None:
    tokenizer, _ = _both(name)
    as_text = json.loads(json.dumps(turns))
    for turn in as_text:
        for call in turn.get("tool_calls", ()):
            separators = (",", ":") if compact else None
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"], separators=separators)
    assert _ours(tokenizer, as_text) == _ours(tokenizer, turns)


def tokenizer_of(folder: Path, template: Any, **config: Any) -> HFTokenizer:
    return load_tokenizer(save(byte_tokenizer([]), folder, {"chat_template": template, **config}))


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"city": "Paris", "text": "t"}'}}
CALLED = [{"role": "user", "content": "?"}, {"role": "assistant", "content": None, "tool_calls": [CALL]}]


def rendered(tokenizer: HFTokenizer, messages: Any = CALLED) -> str:
    return tokenizer.render(parse_messages(messages))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("{{ a | tojson }}", '{"city": "Paris", "text": "t"}'),
        ("{{ a.city }}{{ a.text }}{{ a['city'] }}", "ParistParis"),
        ("{% for k, v in a.items() %}{{ k }}={{ v }};{% endfor %}", "city=Paris;text=t;"),
        ("{% if a is mapping %}object{% endif %}{% if a is string %}text{% endif %}", "object"),
        ("{{ '[' + a + ']' }}", '[{"city": "Paris", "text": "t"}]'),  # DeepSeek-V3's way
    ],
)
def test_templates_read_arguments_as_an_object_or_join_them_as_text(
    written: str, expected: str, tmp_path: Path
) -> None:
    template = "{% for c in messages[1].tool_calls %}{% set a = c.function.arguments %}" + written + "{% endfor %}"
    assert rendered(tokenizer_of(tmp_path, template)) == expected


@pytest.mark.parametrize("text", ["{not json", "[1]", '"x"'])
def test_arguments_that_say_no_object_stay_the_text_they_are(text: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(tmp_path, "{{ messages[1].tool_calls[0].function.arguments }}")
    call = {**CALL, "function": {"name": "f", "arguments": text}}
    assert rendered(tokenizer, [CALLED[0], {**CALLED[1], "tool_calls": [call]}]) == text


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}",
        "{% for m in messages %}{{ m.role }}:{{ m['content'] | trim }};{% endfor %}",
        "{% for m in messages %}{{ m.role + ':' }}{% if m.content is defined %}{{ m.content }}{% endif %};{% endfor %}",
    ],
)
def test_a_call_without_content_writes_nothing(template: str, tmp_path: Path) -> None:
    assert rendered(tokenizer_of(tmp_path, template)) == "user:?;assistant:;"


def test_a_template_that_asks_for_content_that_is_none_finds_it(tmp_path: Path) -> None:
    # DeepSeek-V3's first template.
    template = (
        "{% for m in messages %}{% if m['content'] is none %}{{ m.tool_calls[0].function.name }}"
        "{% else %}{{ m.role + ':' + m['content'] + ';' }}{% endif %}{% endfor %}"
    )
    assert rendered(tokenizer_of(tmp_path, template)) == "user:?;f"


@pytest.mark.parametrize("key", ["reasoning_content", "thinking", "reasoning"])
def test_reasoning_is_read_under_any_of_its_names(key: str, tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m.reasoning_content }}|{{ m.thinking }}|{{ m.content }};{% endfor %}"
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "4", key: "2+2"}]
    assert rendered(tokenizer_of(tmp_path, template), messages) == "||?;2+2|2+2|4;"


def test_what_is_no_json_may_stand_where_the_template_does_not_look(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "?", "when": object()}]
    assert rendered(tokenizer_of(tmp_path / "a", "{{ messages[0].content }}"), messages) == "?"
    with pytest.raises(InvalidConversationError, match="it holds a object, which is not plain JSON"):
        rendered(tokenizer_of(tmp_path / "b", "{{ messages[0].when }}"), messages)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__ }}",
        "{{ dict.__call__.__globals__ }}",
        "{% set n = namespace(_x=1) %}",
        "{% set _ = messages.append(1) %}",
    ],
)
def test_templates_are_kept_in_a_sandbox(template: str, tmp_path: Path) -> None:
    try:
        assert rendered(tokenizer_of(tmp_path, template)) == ""
    except InvalidConversationError as error:
        assert "refuses" in error.message


def test_a_template_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a Jinja template"):
        rendered(tokenizer_of(tmp_path, "{% for %}"))


# -- the date ----------------------------------------------------------------------------------------------------------

DATED = "{{ strftime_now('%d %B %Y, %H:%M') }}|{% for m in messages %}{{ m.content }}{% endfor %}"
LLAMA = (
    "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}{{ date_string }}"
)
MACRO = "{% macro day(x) %}{{ strftime_now('%j %Y') }}{% endmacro %}{{ day(1) }}"
ASKED = [{"role": "user", "content": "?"}]


@pytest.mark.parametrize(
    ("template", "expected"), [(DATED, "26 July 2024, 00:00|?"), (LLAMA, "26 Jul 2024"), (MACRO, "208 2024")]
)
def test_it_is_always_the_same_day(template: str, expected: str, tmp_path: Path) -> None:
    assert rendered(tokenizer_of(tmp_path, template), ASKED) == expected


@pytest.mark.parametrize(
    ("template", "date", "expected"),
    [
        (DATED, "01 Feb 2025", "01 February 2025, 00:00|?"),
        (DATED, "2025-02-01", "01 February 2025, 00:00|?"),
        (LLAMA, "01 Feb 2025", "01 Feb 2025"),
        (LLAMA, "some day", "some day"),
        (MACRO, "2025-02-01", "032 2025"),
    ],
)
def test_a_conversation_may_say_the_day(template: str, date: str, expected: str, tmp_path: Path) -> None:
    said = [{**ASKED[0], "chat_template_kwargs": {"date_string": date}}]
    assert rendered(tokenizer_of(tmp_path, template), said) == expected


def test_a_day_that_is_none_is_refused(tmp_path: Path) -> None:
    said = [{**ASKED[0], "chat_template_kwargs": {"date_string": "some day"}}]
    with pytest.raises(InvalidConversationError, match="'some day', and the chat template asks for a day"):
        rendered(tokenizer_of(tmp_path / "a", DATED), said)
    with pytest.raises(InvalidConversationError, match="no place for 'date_string'"):
        rendered(tokenizer_of(tmp_path / "b", "{{ messages[0].content }}"), said)


def test_the_day_belongs_to_the_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dated, plain = tokenizer_of(tmp_path / "a", DATED), tokenizer_of(tmp_path / "b", "{{ messages[0].content }}")
    before = dated.fingerprint(), plain.fingerprint()
    monkeypatch.setattr("reward_hub.tokenizers.hf.TODAY", datetime(2031, 5, 17))
    assert dated.fingerprint() != before[0]
    assert plain.fingerprint() == before[1]


# -- several templates -------------------------------------------------------------------------------------------------

NAMED = [{"name": name, "template": f"{name}:{{{{ messages[0].content }}}}"} for name in ("rag", "tool_use")]


def test_several_templates_without_a_default_are_named_in_the_error(tmp_path: Path) -> None:
    folder = GoldenSet("seqcls-llama3", "own").make(tmp_path / "model")
    edit_json(folder / "tokenizer_config.json", chat_template=NAMED)
    with pytest.raises(
        CheckpointError, match=r"templates 'rag', 'tool_use', and none is called 'default'. Say .*'rag'"
    ):
        AutoRM.load(str(folder), "transformers")
    with pytest.raises(
        CheckpointError, match=r"chat_template='other' is neither .* The checkpoint has 'rag', 'tool_use'"
    ):
        AutoRM.load(str(folder), "transformers", chat_template="other")
    scores = {
        name: AutoRM.load(str(folder), "transformers", chat_template=name).score(prompt="?", response="4")
        for name in ("rag", "tool_use", "rag:{{ messages[0].content }}")
    }
    assert scores["rag"] != scores["tool_use"]
    assert scores["rag"] == scores["rag:{{ messages[0].content }}"]


def test_families_that_write_their_text_need_no_template(tmp_path: Path) -> None:
    folder = GoldenSet("ultrarm", "own").make(tmp_path / "model")
    edit_json(folder / "tokenizer_config.json", chat_template=NAMED)
    AutoRM.load(str(folder), "transformers").score(prompt="?", response="4")


def test_a_template_for_tools_is_taken_where_there_are_some(tmp_path: Path) -> None:
    named = [*NAMED[:1], {"name": "tool_use", "template": "tools:{{ tools[0].function.name }}"}]
    tokenizer = tokenizer_of(tmp_path, [*named, {"name": "default", "template": "{{ messages[0].content }}"}])
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(str(tmp_path))
    told = [{**ASKED[0], "tools": TOOLS}]
    assert rendered(tokenizer, ASKED) == "?" == theirs.apply_chat_template(ASKED, tokenize=False)
    assert rendered(tokenizer, told) == "tools:f" == theirs.apply_chat_template(ASKED, tools=TOOLS, tokenize=False)
    other = load_tokenizer(tmp_path, chat_template="rag")
    assert rendered(other, ASKED) == "rag:?"
    assert other.fingerprint() != tokenizer.fingerprint()


def test_a_name_that_is_a_files_too_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer_of(tmp_path / "model", NAMED)
    monkeypatch.chdir(tmp_path)
    Path("rag").write_text("{{ messages[0].content }}!", encoding="utf-8")
    with pytest.raises(CheckpointError, match="the name of a template of the checkpoint's and of a file"):
        load_tokenizer(tmp_path / "model", chat_template="rag")
    assert rendered(load_tokenizer(tmp_path / "model", chat_template=str(tmp_path / "rag")), ASKED) == "?!"


def test_a_folder_of_more_templates_is_read(tmp_path: Path) -> None:
    folder = save(byte_tokenizer([]), tmp_path, {"chat_template": None})
    (folder / "chat_template.jinja").write_text("main:{{ messages[0].content }}", encoding="utf-8")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text("rag:{{ messages[0].content }}", encoding="utf-8")
    assert rendered(load_tokenizer(folder), ASKED) == "main:?"
    assert rendered(load_tokenizer(folder, chat_template="rag"), ASKED) == "rag:?"


@pytest.mark.parametrize(
    "statement",
    [
        "{{ m.content.index('q') }}",
        "{{ 1 // (m.content | length - 1) }}",
        "{{ m.content.split('')[0] }}",
        "{{ range(10**9) }}",
    ],
)
def test_a_template_that_breaks_on_a_conversation_refuses_that_one_alone(statement: str) -> None:
    template = "{% for m in messages %}" + statement + "{{ m.content }}{% endfor %}"
    rm = AutoRM.load("builtin/arithmetic-orm", chat_template=template)
    broken = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    with pytest.raises(InvalidConversationError, match="the chat template refuses this conversation"):
        rm.score(broken)
    assert rm.score_batch([broken, broken], on_error="none") == [None, None]
