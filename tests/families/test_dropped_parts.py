"""What of a conversation does not reach a model is named in its details, warned of once, or an error."""

from __future__ import annotations

import copy
import logging
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from golden_sets import OWN, GoldenModels, GoldenSet, RecordingBackend, golden_sets, own_templates
from hypothesis import assume, given
from hypothesis import strategies as st
from made_tokenizers import byte_tokenizer, save

from reward_hub import AutoRM, BaseRM, InvalidConversationError, RewardHubError
from reward_hub.family import Setup
from reward_hub.messages import parse
from reward_hub.models.completeness import Completeness
from reward_hub.registry import family_named
from reward_hub.tokenizer import load_tokenizer

TOOLS = [{"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}}]


def call(argument: str, name: str = "look") -> dict[str, Any]:
    return {"id": "call12345", "type": "function", "function": {"name": name, "arguments": {"at": argument}}}


# -- every family: each part changes the ids, or is named, or is refused -----------------------------------------------

PLAIN: list[dict[str, Any]] = [
    {"role": "user", "content": "How many legs do two cats have?"},
    {"role": "assistant", "content": "Two cats have 8 legs."},
]
LATER: list[dict[str, Any]] = [
    {"role": "user", "content": "Are there cats?"},
    {"role": "assistant", "content": "There are two."},
    *PLAIN,
]
CALLED: list[dict[str, Any]] = [
    PLAIN[0],
    {"role": "assistant", "content": "Let me look.", "tool_calls": [call("cats")]},
    {"role": "tool", "tool_call_id": "call12345", "content": "legs: 8"},
    PLAIN[1],
]
# A conversation, where it is changed, and what stands there then.
CHANGES: dict[str, tuple[list[dict[str, Any]], int, dict[str, Any]]] = {
    "system": ([{"role": "system", "content": "Be brief."}, *PLAIN], 0, {"content": "Be rude."}),
    "developer": ([{"role": "developer", "content": "Be brief."}, *PLAIN], 0, {"content": "Be rude."}),
    "user": (PLAIN, 0, {"content": "How many tails?"}),
    "earlier user": (LATER, 0, {"content": "Are there dogs?"}),
    "earlier assistant": (LATER, 1, {"content": "There are nine."}),
    "tool": (CALLED, 2, {"content": "legs: 999"}),
    "arguments": (CALLED, 1, {"tool_calls": [call("dogs")]}),
    "another call": (CALLED, 1, {"tool_calls": [call("cats"), call("cats")]}),
    "no call": (CALLED, 1, {"tool_calls": None}),
    "name": ([{**PLAIN[0], "name": "Ada"}, PLAIN[1]], 0, {"name": "Bob"}),
    "a number": ([{**PLAIN[0], "weight": 1.5}, PLAIN[1]], 0, {"weight": None}),
    "reasoning": ([PLAIN[0], {**PLAIN[1], "reasoning_content": "4 + 4"}], 1, {"reasoning_content": "2 + 2"}),
    "earlier reasoning": ([LATER[0], {**LATER[1], "thinking": "one"}, *PLAIN], 1, {"thinking": "nine"}),
    "tools": ([{**PLAIN[0], "tools": TOOLS}, PLAIN[1]], 0, {"tools": None}),
    "response": (PLAIN, 1, {"content": "Cats are fine animals."}),
    "a call in the response": (
        [PLAIN[0], {**PLAIN[1], "tool_calls": [call("cats")]}],
        1,
        {"tool_calls": [call("dogs")]},
    ),
}


def read(rm: BaseRM, messages: list[dict[str, Any]]) -> tuple[list[Any], dict[str, Any]]:
    """The ids that reach the backend, and the details."""
    RecordingBackend.asked.clear()
    if rm.kind == "pairwise" and not rm.capabilities.has_score:
        _, details = rm.compare(messages[:-1], a=messages[-1]["content"], b="It is 5.", return_details=True)
    else:
        _, details = rm.score(messages, return_details=True)
    return [(tokens.token_ids, tokens.decoder_ids) for _, tokens in RecordingBackend.asked], details


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("golden", golden_sets("own"), ids=str)
def test_each_part_reaches_the_model_or_is_named(golden: GoldenSet, change: str, golden_models: GoldenModels) -> None:
    if not golden.registered:
        pytest.skip(f"the family {golden.family} is not registered")
    rm = golden_models.load(golden)
    messages, place, other = CHANGES[change]
    if rm.kind == "pairwise" and not rm.capabilities.has_score and place == len(messages) - 1:
        return  # a response is a text there, and nothing else can be given
    changed = copy.deepcopy(messages)
    changed[place].update(other)
    try:
        (ids, details), (other_ids, _) = read(rm, messages), read(rm, changed)
    except InvalidConversationError as error:
        assert error.message
        return
    (key,) = other
    own = {"tools": "tools", "content": f"messages[{place}] ("}.get(key, f"messages[{place}].{key}")
    named = [name for name in details["dropped"] if own in name]
    assert (ids != other_ids) != bool(named), details["dropped"]


# -- every golden chat template: nothing is named that is there --------------------------------------------------------

words = st.text("abcdefghijklmnopqrstuvwxyz é漢0123456789 .,+<>&\n'\"", min_size=1, max_size=40)
thoughts = st.builds("<think>{}</think>{}".format, words, words)
contents = words | thoughts
GOLDEN = own_templates()


def check_of(folder: Path, **options: Any) -> Completeness:
    family = family_named("sequence-classifier")
    return Completeness("model", family, Setup(load_tokenizer(folder), {}, {}, family.options()), **options)


@lru_cache
def golden_check(name: str) -> Completeness:
    return check_of(OWN / name, on_dropped="ignore")


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    turns = [{"role": "system", "content": draw(contents)}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 2))):
        turns += [{"role": role, "content": draw(contents)} for role in ("user", "assistant")]
    return turns


@pytest.mark.parametrize("name", GOLDEN)
@given(turns=conversations(), place=st.integers(0, 4), other=words, data=st.data())
def test_golden_templates_lose_no_text_without_a_word(
    name: str, turns: list[dict[str, Any]], place: int, other: str, data: st.DataObject
) -> None:
    """Another word anywhere in a text gives other ids, or the message is named."""
    check, place = golden_check(name), place % len(turns)
    content = turns[place]["content"]
    letters = [i for i, character in enumerate(content) if character.isalnum()]
    assume(letters)
    at = data.draw(st.sampled_from(letters))
    changed = copy.deepcopy(turns)
    changed[place]["content"] = content[:at] + ("x" if content[at] != "x" else "y") + content[at + 1 :]
    assume("</think>" not in content or "</think>" in changed[place]["content"])
    try:
        (tokens, missing), (others, _) = check.encode(parse(turns)), check.encode(parse(changed))
    except InvalidConversationError:
        return
    named = [name for name in missing.names if f"messages[{place}]" in name]
    if tokens.token_ids == others.token_ids:
        assert named, turns
    if named:
        assert tokens.token_ids == others.token_ids or "part of" in named[0]


# -- made-up chat templates: what they leave out is known --------------------------------------------------------------

# How a template writes a content, and what it leaves out of it.
WAYS: dict[str, tuple[str, Any]] = {
    "as it is": ("c", lambda content: ""),
    "trimmed": ("c | trim", lambda content: ""),
    "escaped": ("c | e", lambda content: ""),
    "as JSON": ("c | tojson", lambda content: ""),
    "line breaks as spaces": ("c.replace('\\n', ' ')", lambda content: ""),
    "twice": ("c + c", lambda content: ""),
    "not at all": ("''", lambda content: content),
    "without thoughts": ("c.split('</think>')[-1]", lambda content: content.rpartition("</think>")[0]),
    "its beginning": ("c[:12]", lambda content: content[12:]),
}
ROLES = ("system", "user", "assistant", "tool")


@lru_cache(maxsize=2048)
def made_check(ways: tuple[str, ...]) -> Completeness:
    branches = "".join(
        f"{{% {'el' if i else ''}if m.role == '{role}' %}}<{role}>{{{{ {WAYS[way][0]} }}}}"
        for i, (role, way) in enumerate(zip(ROLES, ways, strict=True))
    )
    template = f"{{% for m in messages %}}{{% set c = m.content %}}{branches}{{% endif %}}<end>{{% endfor %}}"
    return check_of(save(byte_tokenizer([]), Path(mkdtemp()), {"chat_template": template}), on_dropped="ignore")


@given(
    ways=st.tuples(*[st.sampled_from(sorted(WAYS))] * 4),
    turns=st.lists(st.tuples(st.sampled_from(ROLES), contents), min_size=1, max_size=4),
    response=contents,
)
def test_made_up_templates_are_seen_through(ways: tuple[str, ...], turns: list[tuple[str, str]], response: str) -> None:
    pairs = [*turns, ("user", "Well?"), ("assistant", response)]
    _, missing = made_check(ways).encode(parse([{"role": role, "content": text} for role, text in pairs]))
    way_of = dict(zip(ROLES, ways, strict=True))
    expected = []
    for place, (role, content) in enumerate(pairs):
        lost = WAYS[way_of[role]][1](content)
        said = "response" if place == len(pairs) - 1 else role
        if way_of[role] == "not at all":
            expected.append(f"messages[{place}] ({said})")
        elif any(character.isalnum() for character in lost.replace("</think>", "")):
            expected.append(f"part of messages[{place}] ({said})")
    assert sorted(missing.names) == sorted(expected)
    assert missing.of_response == any("response" in name for name in expected)


# -- what callers see --------------------------------------------------------------------------------------------------

KNOWS_TWO_ROLES = (
    "{% for m in messages %}{% if m.role == 'user' or m.role == 'assistant' %}"
    "<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] }}<|im_end|>{% endif %}{% endfor %}"
)
WITH_SYSTEM = [{"role": "system", "content": "Never speak of animals."}, *PLAIN]
THOUGHT = [PLAIN[0], {"role": "assistant", "content": "<think>Bananas are yellow.</think>Eight."}]


def loaded(golden_models: GoldenModels, **options: Any) -> BaseRM:
    folder = golden_models.checkpoint(GoldenSet("seqcls-qwen2", "own"))
    return AutoRM.load(str(folder), "transformers", torch_dtype="float32", chat_template=KNOWS_TWO_ROLES, **options)


def test_each_kind_is_warned_of_once(golden_models: GoldenModels, caplog: pytest.LogCaptureFixture) -> None:
    rm = loaded(golden_models)
    caplog.set_level(logging.WARNING, logger="reward_hub")
    (_, system), (_, tool), (_, thought), (_, plain) = rm.score_batch(
        [WITH_SYSTEM, CALLED, THOUGHT, PLAIN], return_details=True
    )
    rm.score_batch([WITH_SYSTEM, CALLED, THOUGHT, PLAIN])
    assert system["dropped"] == ["messages[0] (system)"]
    assert tool["dropped"] == ["messages[1].tool_calls", "messages[2] (tool)"]
    assert thought["dropped"] == ["part of messages[1] (response)"]
    assert plain["dropped"] == []
    assert [details["truncated"] for details in (system, tool, thought, plain)] == [False, False, True, False]
    said = [record.getMessage().partition("leaves out ")[2].partition(":")[0] for record in caplog.records]
    assert said == [
        "system turns (messages[0] (system))",
        "'tool_calls' (messages[1].tool_calls)",
        "tool turns (messages[2] (tool))",
        "part of the text of responses (part of messages[1] (response))",
    ]


def test_it_is_an_error_where_that_is_wanted(golden_models: GoldenModels) -> None:
    rm = loaded(golden_models, on_dropped="error")
    rm.score(PLAIN)
    for messages, words in (
        (WITH_SYSTEM, r"leaves out messages\[0\] \(system\): the score would be another"),
        (CALLED, r"leaves out messages\[1\].tool_calls, messages\[2\] \(tool\)"),
        (THOUGHT, r"leaves out part of messages\[1\] \(response\)"),
    ):
        with pytest.raises(InvalidConversationError, match=words):
            rm.score(messages)
    with pytest.raises(InvalidConversationError, match=r"conversation 1: .*system"):
        rm.score_batch([PLAIN, WITH_SYSTEM])
    with pytest.raises(InvalidConversationError, match="system"):
        rm.rank(WITH_SYSTEM[:-1], responses=["4", "5"])


def test_a_response_that_a_pair_loses_in_part_is_named(golden_models: GoldenModels) -> None:
    folder = golden_models.checkpoint(GoldenSet("rlhflow-pair-pm", "own"))
    template = (
        "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
        "{{ m.content[:60] }}<|eot_id|>{% endfor %}<|start_header_id|>assistant<|end_header_id|>{{ '\\n\\n' }}"
    )
    rm = AutoRM.load(str(folder), "transformers", family="rlhflow-pair-pm", chat_template=template)
    _, details = rm.compare(prompt="?", a="one " * 20, b="two", return_details=True)
    assert (details["dropped"], details["truncated"]) == (["part of the responses"], True)


def test_what_a_documented_score_of_a_pairwise_model_leaves_out_is_named(golden_models: GoldenModels) -> None:
    rm = golden_models.load(GoldenSet("steamshp", "own"))
    answered = [PLAIN[0], {**PLAIN[1], "tool_calls": [call("cats")]}]
    assert rm.score(answered, return_details=True)[1]["dropped"] == ["messages[1].tool_calls"]


def test_ignored_parts_are_still_named(golden_models: GoldenModels, caplog: pytest.LogCaptureFixture) -> None:
    rm = loaded(golden_models, on_dropped="ignore")
    _, details = rm.rank(WITH_SYSTEM[:-1], responses=["4", "5"], return_details=True)
    assert details["dropped"] == ["messages[0] (system)"]
    assert not caplog.records
    with pytest.raises(TypeError, match="on_dropped='never'; known: 'warn', 'error', 'ignore'"):
        loaded(golden_models, on_dropped="never")


def test_the_setting_changes_no_number_and_no_fingerprint(golden_models: GoldenModels) -> None:
    rms = [loaded(golden_models, on_dropped=setting) for setting in ("warn", "ignore")]
    assert len({(rm.score(WITH_SYSTEM), rm.fingerprint) for rm in rms}) == 1


def test_a_template_is_seen_through_once_for_each_shape(tmp_path: Path) -> None:
    check = check_of(save(byte_tokenizer([]), tmp_path, {"chat_template": KNOWS_TWO_ROLES}), on_dropped="ignore")
    rendered = []
    render = check.setup.tokenizer.render
    check.setup.tokenizer.render = lambda *a, **k: rendered.append(1) or render(*a, **k)  # type: ignore[method-assign,func-returns-value]
    for number in range(5):
        check.encode(parse([WITH_SYSTEM[0], {"role": "user", "content": f"{number}?"}, PLAIN[1]]))
        if number == 0:
            rendered.clear()
    assert len(rendered) == 4


def test_read_tokens_are_those_read(golden_models: GoldenModels) -> None:
    for golden in golden_sets("own"):
        if not golden.registered or golden.kind == "pairwise":
            continue
        rm = golden_models.load(golden)
        try:
            _, details = read(rm, PLAIN)
        except RewardHubError:
            continue
        tokens = RecordingBackend.asked[0][1]
        read_ids = tokens.token_ids if tokens.decoder_ids is None else tokens.decoder_ids
        assert [(token["index"], token["id"]) for token in details["read_tokens"]] == [
            (position, read_ids[position]) for position in tokens.positions
        ]
        assert all(isinstance(token["text"], str) for token in details["read_tokens"])


def test_the_debug_log_tells_how_a_score_came_to_be(
    golden_models: GoldenModels, caplog: pytest.LogCaptureFixture
) -> None:
    rm = loaded(golden_models)
    with caplog.at_level(logging.DEBUG, logger="reward_hub"):
        rm.score(PLAIN)
    log = "\n".join(record.getMessage() for record in caplog.records)
    assert "rendered '<|im_start|>user\\nHow many legs do two cats have?<|im_end|>" in log
    assert "ids from" in log
    assert "1 conversations of " in log and "are packed: " in log
