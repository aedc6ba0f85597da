"""`tools` and `chat_template_kwargs` reach the chat template, or are refused by name where they would be dropped."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from golden_sets import GoldenModels, GoldenSet, golden_sets
from server_process import ServerProcess, serve_command

from reward_hub import AutoRM, BaseRM, CachedRM, InvalidConversationError
from reward_hub.judge import LLMJudge
from reward_hub.messages import parse
from reward_hub.models.remote_rm import connect

TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
CHAT = [{"role": "user", "content": "2+2?", "tools": TOOLS}, {"role": "assistant", "content": "It is 4."}]
PLAIN = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "It is 4."}]


def score(rm: BaseRM, messages: list[dict[str, Any]]) -> Any:
    if rm.kind == "pairwise":
        return rm.compare(messages[:1], a=messages[1]["content"], b="It is 5.")
    return rm.score_steps(messages) if rm.kind == "process" else rm.score(messages)


@pytest.mark.parametrize("golden", golden_sets("own"), ids=str)
def test_no_family_drops_tools(golden: GoldenSet, golden_models: GoldenModels) -> None:
    if not golden.registered:
        pytest.skip(f"the family {golden.family} is not registered")
    rm = golden_models.load(golden)
    plain = score(rm, PLAIN)
    try:
        found = score(rm, CHAT)
    except InvalidConversationError as error:
        assert "'tools'" in error.message
        assert "ignored" in error.message
    else:
        assert found != plain


TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% if loud %}!{% endif %}"
    "{% for m in messages %}{{ m.content }}\n{% endfor %}"
)
LOUD = {"loud": True}
TOLD = [{**CHAT[0], "chat_template_kwargs": LOUD}, CHAT[1]]
STEPS = ["It is 4.", "Surely."]
ANSWER = {"role": "assistant", "content": "It is 4.\n\nSurely."}


@pytest.fixture(scope="module")
def outcome_rm(golden_models: GoldenModels) -> BaseRM:
    folder = golden_models.checkpoint(GoldenSet("seqcls-qwen2", "own"))
    return AutoRM.load(str(folder), "transformers", torch_dtype="float32", chat_template=TEMPLATE)


@pytest.fixture(scope="module")
def process_rm(golden_models: GoldenModels) -> BaseRM:
    template = TEMPLATE.replace("\n{% endfor %}", "<|im_end|>{% endfor %}")
    folder = golden_models.checkpoint(GoldenSet("qwen2.5-math-prm", "own"))
    return AutoRM.load(str(folder), "transformers", torch_dtype="float32", chat_template=template)


def test_arguments_of_a_call_are_those_of_the_first_message(outcome_rm: BaseRM) -> None:
    given: dict[str, Any] = {"tools": TOOLS, "chat_template_kwargs": LOUD}
    told, plain = outcome_rm.score(TOLD), outcome_rm.score(PLAIN)
    assert told != plain
    assert outcome_rm.score(PLAIN, **given) == told
    assert outcome_rm.score(prompt="2+2?", response="It is 4.", **given) == told
    assert outcome_rm.score([PLAIN, TOLD], **given) == [told, told]
    assert outcome_rm.score_batch([PLAIN, PLAIN], **given) == [told, told]
    assert list(outcome_rm.score_iter(iter([PLAIN]), **given)) == [told]
    responses = ["It is 4.", "It is 5."]
    _, details = outcome_rm.rank(prompt="2+2?", responses=responses, return_details=True, **given)
    assert details["scores"] == pytest.approx([told, outcome_rm.score([TOLD[0], {**CHAT[1], "content": "It is 5."}])])
    _, best = outcome_rm.best_of_n(prompt="2+2?", responses=responses, return_details=True, **given)
    assert best["scores"] == details["scores"]
    compared = outcome_rm.compare(TOLD[:1], a=responses[0], b=responses[1])
    assert outcome_rm.compare(prompt="2+2?", a=responses[0], b=responses[1], **given) == compared

    async def later() -> list[Any]:
        return [
            await outcome_rm.ascore(PLAIN, **given),
            *(await outcome_rm.ascore_batch([PLAIN], **given)),
            (await outcome_rm.arank(prompt="2+2?", responses=responses, return_details=True, **given))[1]["scores"],
            (await outcome_rm.abest_of_n(prompt="2+2?", responses=responses, return_details=True, **given))[1][
                "scores"
            ],
            await outcome_rm.acompare(prompt="2+2?", a=responses[0], b=responses[1], **given),
        ]

    assert asyncio.run(later()) == [told, told, details["scores"], details["scores"], compared]


def test_step_calls_take_arguments_for_all_items_and_for_one(process_rm: BaseRM) -> None:
    told = process_rm.score_steps([TOLD[0], ANSWER])
    given: dict[str, Any] = {"tools": TOOLS, "chat_template_kwargs": LOUD}
    item = {"prompt": "2+2?", "response": ANSWER["content"]}
    assert told != process_rm.score_steps(**item)
    assert process_rm.score_steps(**item, **given) == told
    assert process_rm.score_steps(prompt="2+2?", steps=STEPS, **given) == told
    assert process_rm.score_steps_batch([item, {**item, "tools": TOOLS}], **given) == [told, told]
    assert process_rm.score_steps_batch([{**item, **given}]) == [told]
    assert asyncio.run(process_rm.ascore_steps(**item, **given)) == told


def test_other_tools_than_a_messages_own_are_refused(outcome_rm: BaseRM) -> None:
    with pytest.raises(InvalidConversationError, match=r"'tools' is \[\{'name': 'x'\}\], and a message has others"):
        outcome_rm.score(CHAT, tools=[{"name": "x"}])
    with pytest.raises(InvalidConversationError, match="conversation 1: 'tools' is"):
        outcome_rm.score_batch([PLAIN, CHAT], tools=[{"name": "x"}])
    with pytest.raises(InvalidConversationError, match="no place for 'thinking'"):
        outcome_rm.score(PLAIN, chat_template_kwargs={"thinking": True})


class OwnRM(BaseRM):
    def score(self, messages: Any) -> float:  # type: ignore[override]
        return float(len(messages))


class ToolRM(BaseRM):
    seen: Any = None

    def score(self, messages: Any, *, tools: Any = None) -> float:  # type: ignore[override]
        self.seen = (messages, tools)
        return float(len(tools))


class BatchRM(BaseRM):
    def score_batch(self, batch: Any, **options: Any) -> list[float]:
        return [0.0 for _ in batch]


def test_a_class_of_the_users_gets_tools_where_it_takes_them_and_else_refuses_them() -> None:
    with pytest.raises(InvalidConversationError, match=r"OwnRM.score does not take tools: 'tools' would be ignored"):
        OwnRM().score_batch([CHAT])
    with pytest.raises(InvalidConversationError, match=r"BatchRM.score_batch takes messages alone"):
        BatchRM().rank(CHAT[:1], responses=["4", "5"])
    with pytest.raises(InvalidConversationError, match=r"OwnRM.score does not take tools: 'tools' would be ignored"):
        OwnRM().score_batch([PLAIN], tools=TOOLS)
    rm = ToolRM()
    assert rm.score_batch([PLAIN], tools=TOOLS) == [1.0]
    assert rm.score_batch([CHAT, CHAT]) == [1.0, 1.0]
    assert rm.seen == (PLAIN, TOOLS)


def test_a_judge_refuses_tools() -> None:
    with (
        LLMJudge("judge", api_base="http://localhost:9", rubric="Score the response from 1-5.") as judge,
        pytest.raises(InvalidConversationError, match=r"judge is a judge, which is shown messages alone: 'tools'"),
    ):
        judge.score(CHAT)


def test_a_remote_model_and_a_cache_tell_tools_apart(tmp_path: Path) -> None:
    folder = GoldenSet("seqcls-qwen2", "own").make(tmp_path / "model")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    template = "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{{ m.content }}\n{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": template}))
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    with AutoRM.load(str(folder), "transformers", torch_dtype="float32") as rm:
        local, plain = rm.score(CHAT), rm.score(PLAIN)
        assert local != plain
        cached = CachedRM(rm, cache_dir=str(tmp_path / "cache"))
        assert [cached.score(PLAIN), cached.score(CHAT), cached.score(CHAT)] == [plain, local, local]
    server = ServerProcess(serve_command(str(folder), "--dtype", "float32")).start()
    try:
        with connect(server.address) as remote:
            assert remote.score_batch([CHAT, PLAIN]) == pytest.approx([local, plain], abs=1e-5)
            assert remote.rank(CHAT[:1], responses=["It is 4."], return_details=True)[1]["scores"] == pytest.approx(
                [local], abs=1e-5
            )
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([{**CHAT[0], "tools": "add"}, CHAT[1]], "tools is 'add'; a list of dicts"),
        ([PLAIN[0], {**PLAIN[1], "tools": TOOLS}], r"messages\[1\].tools: tools belong to the whole conversation"),
        ([{**CHAT[0], "chat_template_kwargs": {"tools": []}}, CHAT[1]], "holds 'tools', which is set by other means"),
    ],
)
def test_malformed_arguments_are_refused_by_name(messages: Any, words: str) -> None:
    with pytest.raises(InvalidConversationError, match=words):
        parse(messages)


def test_null_and_empty_arguments_are_none() -> None:
    turns = [{**turn, "tools": None, "chat_template_kwargs": {}} for turn in PLAIN]
    assert parse(turns) == parse(PLAIN)


def test_a_conversation_passes_the_border_as_it_is() -> None:
    conversation = parse(CHAT)
    assert parse(conversation) is conversation
    assert OwnRM().score_batch([parse(PLAIN), PLAIN]) == [2.0, 2.0]
    assert parse(conversation.to_dicts()) == conversation
