"""`tools` and `chat_template_kwargs` reach the chat template, or are refused by name where they would be dropped."""

from __future__ import annotations

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
    rm = ToolRM()
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
