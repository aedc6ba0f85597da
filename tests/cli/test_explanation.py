"""What `inspect --explain` says is what the model was given: over every family, on servers, and of judges."""

from __future__ import annotations

import io
import json
import logging
import re
import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pydantic
import pytest
from golden_sets import GoldenModels, GoldenSet, RecordingBackend, expected_scores, golden_sets
from judge_server import judge_server, says, verdict
from local_servers import NOT_FOUND, Sent, VllmLike, local_server, routes
from made_tokenizers import byte_tokenizer, edit_json, save
from server_process import ServerProcess, serve_command
from tokenizers import decoders

from reward_hub import AutoRM, BaseRM, CachedRM
from reward_hub.cli.explanation import Explanation, explain
from reward_hub.cli.explanation_text import CLOSE, OPEN, colour_of, print_explanation
from reward_hub.messages import parse
from reward_hub.models.shown_tokens import texts_of
from reward_hub.numerics import sigmoid
from reward_hub.registry import family_named
from reward_hub.tokenizer import load_tokenizer
from reward_hub.types import ModelInput

Call = Callable[..., Any]
PROBLEM = "Ann has 16 eggs and sells 3. How many are left?"
RIGHT, WRONG = "16 - 3 = 13", "16 - 3 = 12"
STEPS = f"{WRONG}\n\n12 + 5 = 17"


# -- every family ------------------------------------------------------------------------------------------------------


class Token(pydantic.BaseModel, extra="forbid", strict=True):
    index: int
    id: int
    text: str
    read: bool


class Input(pydantic.BaseModel, extra="forbid", strict=True):
    title: str
    tokens: list[Token]
    decoder_tokens: list[Token]
    text: str | None
    messages: list[dict[str, Any]]


class Step(pydantic.BaseModel, extra="forbid", strict=True):
    text: str
    score: float
    span: list[int] | None


class Explained(pydantic.BaseModel, extra="forbid", strict=True):
    call: str
    score: float
    steps: list[Step]
    inputs: list[Input]
    details: dict[str, Any]


class Printed(pydantic.BaseModel, extra="forbid", strict=True):
    """What --json prints."""

    model: str
    family: str | None
    kind: str
    higher_is_better: bool
    template: str | None
    load_report: dict[str, Any]
    explained: list[Explained]


def items_of(case: dict[str, Any]) -> list[dict[str, Any]]:
    if "response_a" in case:
        responses = (case["response_a"], case["response_b"])
        return [{"messages": [*case["prompt_messages"], {"role": "assistant", "content": r}]} for r in responses]
    return [{"messages": case["messages"], **({"steps": case["steps"]} if "steps" in case else {})}]


def given(one: ModelInput) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """The ids, the decoder's, and where they are read."""
    read = one.decoder_tokens or one.tokens
    return (
        tuple(token.id for token in one.tokens),
        tuple(token.id for token in one.decoder_tokens),
        tuple(token.index for token in read if token.read),
    )


def explained(rm: BaseRM, items: Sequence[dict[str, Any]]) -> Explanation:
    """The explanation, and beside it what reached the backend."""
    RecordingBackend.asked.clear()
    return explain(rm, items)


def printed(explanation: Explanation) -> str:
    out = io.StringIO()
    print_explanation(explanation, file=out)
    return out.getvalue()


@pytest.mark.parametrize("golden", golden_sets("own"), ids=str)
def test_what_is_shown_is_what_reached_the_model(golden: GoldenSet, golden_models: GoldenModels) -> None:
    if not golden.registered:
        pytest.skip(f"the family {golden.family} is not registered")
    rm = golden_models.load(golden)
    for case in golden.cases[:3]:
        found = explained(rm, items_of(case))
        (one,) = found.explained
        asked = {
            (tuple(tokens.token_ids), tuple(tokens.decoder_ids or ()), tuple(sorted(set(tokens.positions))))
            for _, tokens in RecordingBackend.asked
        }
        assert {given(model_input) for model_input in one.inputs} == asked
        ids = tuple(case["input_ids"])
        assert ids in {part for model_input in one.inputs for part in given(model_input)[:2]}
        shape = Printed.model_validate_json(json.dumps(found.to_dict()))
        assert (shape.family, shape.kind) == (golden.family, golden.kind)
        assert shape.load_report["reads"] == family_summary(golden)
        steps = [step.score for step in shape.explained[0].steps]
        if "steps" in case:
            assert [step.text for step in shape.explained[0].steps] == case["steps"]
        score = one.details.score
        if golden.kind == "pairwise" and family_named(golden.family).pair_output == "logit":
            assert score == pytest.approx(sigmoid(case["score"]), abs=golden.tolerance)
        else:
            expected = expected_scores(case)
            assert [*steps, *([score] if "score" in case else [])] == pytest.approx(expected, abs=golden.tolerance)
        marks = sum(token.read for i in one.inputs for token in (*i.tokens, *i.decoder_tokens))
        text = printed(found)
        assert text.count(OPEN) - json.dumps(case, ensure_ascii=False).count(OPEN) == marks
        assert text.count(OPEN) == text.count(CLOSE)


def family_summary(golden: GoldenSet) -> str:
    summary = family_named(golden.family).read_summary
    assert summary, f"{golden.family} does not say where it reads"
    return summary


@pytest.mark.parametrize("golden", golden_sets("own"), ids=str)
def test_the_texts_of_tokens_are_the_whole_text(golden: GoldenSet, golden_models: GoldenModels) -> None:
    tokenizer = load_tokenizer(golden.tokenizer)
    for case in golden.cases:
        ids = case["input_ids"]
        assert "".join(texts_of(ids, tokenizer)) == tokenizer.decode(ids)


def test_a_character_of_several_tokens_is_the_last_ones(tmp_path: Path) -> None:
    made = byte_tokenizer([])
    made.decoder = decoders.ByteLevel()
    tokenizer = load_tokenizer(save(made, tmp_path, {}))
    ids = tokenizer.encode("a🥚b")
    assert len(ids) == 6
    assert texts_of(ids, tokenizer) == ["a", "", "", "", "🥚", "b"]
    assert texts_of(ids[:3], tokenizer)[:2] == ["a", ""]


@pytest.mark.parametrize("golden", golden_sets("own"), ids=str)
def test_inspect_names_the_tokens_that_the_family_reads(golden: GoldenSet, golden_models: GoldenModels) -> None:
    if not golden.registered or golden.two_models:
        pytest.skip("a single model is inspected")
    folder = golden_models.checkpoint(golden)
    described = AutoRM.inspect(str(folder), family=None if golden.decidable else golden.family)
    assert described["positions"] == family_summary(golden)
    rm = golden_models.load(golden)
    if golden.kind == "pairwise":
        _, details = rm.compare(prompt="What is 2 + 2?", a="4", b="5", return_details=True)
    elif golden.kind == "process":
        _, details = rm.score_steps(prompt="What is 2 + 2?", steps=["4"], return_details=True)
    else:
        _, details = rm.score(prompt="What is 2 + 2?", response="4", return_details=True)
    n = len(described["read_tokens"])
    shown, read = (
        [(token["index"], token["id"]) for token in tokens[:n]]
        for tokens in (described["read_tokens"], details["read_tokens"])
    )
    assert shown == read


# -- the command -------------------------------------------------------------------------------------------------------


def test_steps_are_shown_with_their_scores(reward_hub: Call, prm: str) -> None:
    ended = reward_hub("inspect", prm, "--explain", PROBLEM, STEPS)
    assert ended.code == 0, ended.err
    with AutoRM.load(prm) as rm:
        first, second = rm.score_steps(prompt=PROBLEM, response=STEPS)
    assert first < second
    assert f"{WRONG}{OPEN}<extra_0>{CLOSE}12 + 5 = 17{OPEN}<extra_0>{CLOSE}<|im_end|>" in ended.out
    assert f"  1  {first:7.4f}  {WRONG}  <- lowest\n  2  {second:7.4f}  12 + 5 = 17\n" in ended.out
    assert "\x1b" not in ended.out
    for words in ("qwen-math-prm (process)", "head at the <extra_0> after each step", "float32", "cpu"):
        assert words in ended.out


def test_colours_are_for_terminals_or_asked_for(reward_hub: Call, prm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "TERM"):
        monkeypatch.delenv(name, raising=False)
    asked = ("inspect", prm, "--explain", PROBLEM, STEPS)
    plain = reward_hub(*asked).out
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLORTERM", "truecolor")
    coloured = reward_hub(*asked).out
    with AutoRM.load(prm) as rm:
        scores = rm.score_steps(prompt=PROBLEM, response=STEPS)
    red, green = (colour_of(score)[4:-1].replace(",", ";") for score in scores)
    assert f"\x1b[38;2;{red}m{WRONG}" in coloured
    assert f"\x1b[38;2;{green}m12 + 5 = 17" in coloured
    assert OPEN in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[38" not in reward_hub(*asked).out
    assert "\x1b" not in plain


def test_colours_go_from_red_to_green() -> None:
    shades = [tuple(map(int, colour_of(i / 10)[4:-1].split(","))) for i in range(11)]
    assert shades[0][0] > shades[0][1]
    assert shades[-1][1] > shades[-1][0]
    assert [red for red, _, _ in shades] == sorted((red for red, _, _ in shades), reverse=True)
    assert [green for _, green, _ in shades] == sorted(green for _, green, _ in shades)


def test_two_responses_of_a_model_that_scores_are_explained_each(reward_hub: Call, orm: str) -> None:
    found = json.loads(reward_hub("inspect", orm, "--explain", PROBLEM, RIGHT, "--against", "-5", "--json").out)
    with AutoRM.load(orm) as rm:
        expected = [rm.score(prompt=PROBLEM, response=response) for response in (RIGHT, "-5")]
    assert [one["score"] for one in found["explained"]] == pytest.approx(expected)
    assert Printed.model_validate(found).explained[0].call == "score"


def test_a_pairwise_model_needs_two_responses(reward_hub: Call, golden_models: GoldenModels, tmp_path: Path) -> None:
    folder = str(golden_models.checkpoint(GoldenSet("rlhflow-pair-pm", "own")))
    asked = ("inspect", folder, "--family", "rlhflow-pair-pm", "--explain", PROBLEM, RIGHT)
    alone = reward_hub(*asked)
    assert (alone.code, "give the other one with --against RESPONSE" in alone.err) == (2, True)
    both = json.loads(reward_hub(*asked, "--against", WRONG, "--json").out)
    with AutoRM.load(folder, family="rlhflow-pair-pm") as rm:
        expected = rm.compare(prompt=PROBLEM, a=RIGHT, b=WRONG)
    (one,) = both["explained"]
    assert (one["call"], one["score"]) == ("compare", pytest.approx(expected))
    row = tmp_path / "pair.jsonl"
    row.write_text(json.dumps({"prompt": PROBLEM, "chosen": RIGHT, "rejected": WRONG}) + "\n")
    of_row = json.loads(reward_hub(*asked[:4], "--explain-row", str(row), "--json").out)
    assert of_row["explained"] == both["explained"]


def test_an_implicit_reward_shows_what_both_models_read(reward_hub: Call, golden_models: GoldenModels) -> None:
    golden = GoldenSet("dpo-implicit", "own")
    folder = golden_models.checkpoint(golden)
    asked = ("inspect", str(folder / "policy"), "--reference", str(folder / "reference"), "--explain", PROBLEM, RIGHT)
    ended = reward_hub(*asked)
    assert ended.code == 0, ended.err
    with AutoRM.load(str(folder / "policy"), reference=str(folder / "reference")) as rm:
        _, details = rm.score(prompt=PROBLEM, response=RIGHT, return_details=True)
    assert "policy and reference, " in ended.out
    assert f"{details['n_completion_tokens']} read:" in ended.out
    assert ended.out.count(OPEN) == details["n_completion_tokens"]


def test_a_row_is_named_as_bad_rows_are(reward_hub: Call, prm: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": PROBLEM, "response": RIGHT}, {"problem": PROBLEM, "steps": [WRONG, "12"]}, {"prompt": "?"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def steps_at(place: str) -> list[str]:
        found = json.loads(reward_hub("inspect", prm, "--explain-row", place, "--json").out)
        return [step["text"] for one in found["explained"] for step in one["steps"]]

    assert steps_at(str(path)) == [RIGHT]
    assert steps_at(f"{path}:2") == [WRONG, "12"]
    for place, code, words in (
        (f"{path}:4", 2, "has no row 4."),
        (f"{path}:3", 1, "the row has no 'messages'"),
        (f"{tmp_path}/none.jsonl", 2, "none.jsonl cannot be read: No such file or directory."),
        (f"{tmp_path}/rows.txt", 2, "rows are read from .jsonl"),
    ):
        ended = reward_hub("inspect", prm, "--explain-row", place)
        assert (ended.code, words in ended.err) == (code, True), ended.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "cpu"], "--device: without --explain nothing is loaded"),
        (["--against", "x", "--timeout", "3"], "--against, --timeout: without --explain"),
        (["--tools", "[]"], "--tools: without --explain"),
        (["--engine-option", "a=1"], "--engine-option: without --explain"),
        (["--explain", "a", "b", "--explain-row", "rows.jsonl"], "not both"),
        (["--explain-row", "rows.jsonl", "--against", "b"], "--against goes with --explain"),
        (["--explain", "a", "b", "--tools", "{}"], "a list of objects, one a tool, is needed"),
    ],
)
def test_options_that_would_be_ignored_are_refused(
    reward_hub: Call, orm: str, arguments: list[str], words: str
) -> None:
    ended = reward_hub("inspect", orm, *arguments)
    assert (ended.code, words in ended.err) == (2, True), ended.err


def test_step_delimiters_are_refused_where_there_are_no_steps(reward_hub: Call, orm: str) -> None:
    ended = reward_hub("inspect", orm, "--explain", PROBLEM, RIGHT, "--step-delimiter", "x")
    assert (ended.code, "has no steps" in ended.err) == (1, True), ended.err


DROPS_SYSTEM = (
    "{% for m in messages %}{% if m.role != 'system' %}<|im_start|>{{ m.content }}<|im_end|>{% endif %}{% endfor %}"
)
TAKES_TOOLS = (
    "{{ tools | tojson if tools }}{% if loud %}!{% endif %}{% for m in messages %}{{ m.content }}\n{% endfor %}"
)


def test_what_is_dropped_and_cut_is_said(
    reward_hub: Call, golden_models: GoldenModels, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = str(golden_models.checkpoint(GoldenSet("seqcls-qwen2", "own")))
    path = tmp_path / "row.json"
    path.write_text(json.dumps([{"system": "Be brief.", "prompt": "word " * 40, "response": RIGHT}]))
    asked = ("inspect", folder, "--explain-row", str(path), "--chat-template", DROPS_SYSTEM)
    ended = reward_hub(*asked, "--max-length", "20", "--truncation", "prompt")
    assert ended.code == 0, ended.err
    lines = dict(line.split(maxsplit=1) for line in ended.out.splitlines() if line.startswith(" ") and line.strip())
    assert lines["dropped"].strip() == "messages[0] (system)"
    assert lines["truncated"].strip().endswith(" tokens")
    assert RIGHT in ended.out
    assert "20 tokens, 1 read" in ended.out
    assert sum("was cut to 20" in record.getMessage() for record in caplog.records) == 1


def test_a_classifier_is_marked_where_its_class_reads(reward_hub: Call, tmp_path: Path) -> None:
    golden = GoldenSet("seqcls-llama3", "own")
    folder = golden.make(tmp_path / "model")
    closing = golden.cases[0]["input_ids"][-1]
    edit_json(folder / "config.json", pad_token_id=closing)
    found = json.loads(reward_hub("inspect", str(folder), "--explain", PROBLEM, RIGHT, "--json").out)
    tokens = found["explained"][0]["inputs"][0]["tokens"]
    assert [token["read"] for token in tokens] == [False] * (len(tokens) - 2) + [True, False]
    assert tokens[-1]["id"] == closing
    assert "the last token that is not the pad token" in found["load_report"]["reads"]
    described = json.loads(reward_hub("inspect", str(folder), "--json").out)
    assert described["positions"] == found["load_report"]["reads"]
    assert [token["id"] for token in described["read_tokens"]] != [closing]


def test_a_text_cannot_move_the_cursor(golden_models: GoldenModels) -> None:
    rm = golden_models.load(GoldenSet("seqcls-qwen2", "own"))
    messages = [{"role": "user", "content": "a\x1b[2J\rb\x9b\u202ec\u2066"}, {"role": "assistant", "content": "c"}]
    text = printed(explain(rm, [{"messages": messages}]))
    assert r"a\x1b[2J\rb\x9b\u202ec\u2066" in text
    assert not {"\x1b", "\r", "\x9b", "\u202e", "\u2066"} & set(text)


def test_the_page_shows_what_is_printed(reward_hub: Call, prm: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "command_line.md").read_text(encoding="utf-8")
    typed = re.search(r"inspect builtin/arithmetic-prm --explain \"(.*?)\" \$'(.*?)'\n", page)
    assert typed is not None
    ended = reward_hub("inspect", prm, "--explain", typed[1], typed[2].replace(r"\n", "\n"))
    shown = page.partition("<!-- -->")[2].partition("Colours are")[0]
    lines = [line[4:] for line in shown.splitlines() if line.strip()]
    assert len(lines) == 4
    assert [line for line in lines if line not in ended.out.splitlines()] == []


def test_the_example_prints_where_each_step_is_read(prm: str, capsys: pytest.CaptureFixture[str]) -> None:
    level = logging.getLogger("reward_hub").level
    try:
        names = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "explain.py"))
    finally:
        logging.getLogger("reward_hub").setLevel(level)
    with AutoRM.load(prm) as rm:
        scores = rm.score_steps(prompt=names["prompt"], response=names["response"])
    lines = capsys.readouterr().out.splitlines()
    assert [line[:6] for line in lines[:2]] == [f"{score:.4f}" for score in scores]
    assert all("'<extra_0>'" in line for line in lines[:2])


# -- judges and servers ------------------------------------------------------------------------------------------------


def test_a_judge_shows_what_it_was_asked_and_replied(reward_hub: Call) -> None:
    reply = "Feedback: It is good. [RESULT] 4"
    with judge_server(says(reply)) as server:
        asked = (
            *("inspect", "prometheus-eval/prometheus-7b-v2.0", "--explain", PROBLEM, RIGHT),
            *("--load-method", "api", "--api-base", server.api_base),
        )
        ended = reward_hub(*asked)
        found = json.loads(reward_hub(*asked, "--json").out)
    assert ended.code == 0, ended.err
    sent = server.asked[0].body["messages"]
    assert [one["messages"] for one in found["explained"][0]["inputs"]] == [sent]
    assert all(" ".join(message["content"].split())[:200] in " ".join(ended.out.split()) for message in sent)
    assert f"reply, read as 4:\n{reply}" in ended.out
    Printed.model_validate(found)


def test_a_judge_of_pairs_shows_both_orders() -> None:
    from reward_hub import LLMJudge

    with (
        judge_server(says(json.dumps({"reasoning": "", "winner": "A"}))) as server,
        LLMJudge("judge", api_base=server.api_base, rubric="Which is better?", mode="pairwise") as judge,
    ):
        items = [
            {"messages": [{"role": "user", "content": PROBLEM}, {"role": "assistant", "content": r}]} for r in "xy"
        ]
        (one,) = explain(judge, items).explained
    assert [i.title for i in one.inputs] == ["a before b", "b before a"]
    sent = sorted(json.dumps(asked.body["messages"]) for asked in server.asked)
    assert sorted(json.dumps(i.messages) for i in one.inputs) == sent


def test_a_served_model_tells_where_it_reads(reward_hub: Call, prm: str) -> None:
    server = ServerProcess(serve_command(prm)).start()
    try:
        ended = reward_hub(
            "inspect", prm, "--explain", PROBLEM, STEPS, "--load-method", "api", "--api-base", server.address
        )
    finally:
        server.stop()
    assert ended.code == 0, ended.err
    assert "[user] " + PROBLEM in ended.out
    assert "head at the <extra_0> after each step" in ended.out
    assert "'<extra_0>'" in ended.out
    assert "<- lowest" in ended.out


def test_token_ids_for_a_server_are_shown_as_they_are_sent(golden_models: GoldenModels) -> None:
    golden = GoldenSet("seqcls-qwen2", "own")
    folder = golden_models.checkpoint(golden)
    with local_server(VllmLike(golden_models.load(golden), "classify")) as server:
        with AutoRM.load("rm", "api", api_base=server.address, checkpoint=str(folder)) as rm:
            found = explain(rm, items_of(golden.cases[0]))
        with AutoRM.load("rm", "api", api_base=server.address) as scorer:
            by_server = explain(scorer, items_of(golden.cases[0]))
    assert [token.id for token in found.explained[0].inputs[0].tokens] == golden.cases[0]["input_ids"]
    assert found.rm.load_report["asked"] == "task classify"
    assert list(by_server.explained[0].inputs[0].messages) == golden.cases[0]["messages"]
    assert by_server.explained[0].details.extra["rendered_by"] == "server"


def test_rendered_text_for_a_server_is_shown_as_it_is_sent(golden_models: GoldenModels) -> None:
    golden = GoldenSet("seqcls-qwen2", "own")
    folder = golden_models.checkpoint(golden)
    (item,) = items_of(golden.cases[0])

    def tei(sent: Sent) -> Any:
        if sent.path == "/info":
            classifier = {"classifier": {"id2label": {"0": "LABEL_0"}}}
            return 200, {"model_id": "org/rm", "model_type": classifier, "max_input_length": 512}
        if sent.path != "/predict":
            return NOT_FOUND
        (texts,) = sent.body["inputs"]
        score = len("".join(texts)) - 2.5
        shown = score if sent.body["raw_scores"] else 1 / (1 + 2.718281828**-score)
        return 200, [[{"score": shown, "label": "LABEL_0"}]]

    def lmdeploy(sent: Sent) -> Any:
        n = len(sent.body["input"])
        return 200, {"data": [{"index": 0, "data": n * 1.5}], "usage": {"prompt_tokens": n}}

    with local_server(tei) as server:
        with AutoRM.load("rm", "api", api_base=server.address, tokenizer=str(folder)) as rm:
            (given_text,) = explain(rm, [item]).explained[0].inputs
        assert server.sent[-1].body["inputs"] == [[given_text.text]]
    table = {"/v1/models": {"data": [{"id": "rm", "owned_by": "lmdeploy", "root": "rm"}]}, "/pooling": lmdeploy}
    with (
        local_server(routes(table)) as server,
        AutoRM.load("rm", "api", api_base=server.address, tokenizer=str(folder)) as rm,
    ):
        (given_ids,) = explain(rm, [item]).explained[0].inputs
    assert [token.id for token in given_ids.tokens] == golden.cases[0]["input_ids"]
    assert not any(token.read for token in given_ids.tokens), "where the server reads is not known"


def test_a_wrapper_says_what_its_model_says(golden_models: GoldenModels, tmp_path: Path) -> None:
    rm = golden_models.load(GoldenSet("qwen2.5-math-prm", "own"))
    conversation = rm.with_steps(parse(prompt=PROBLEM, response=STEPS))
    cached = CachedRM(rm, cache_dir=str(tmp_path))
    assert cached.inputs_of(conversation) == rm.inputs_of(conversation)
    assert cached.load_report == rm.load_report
    (one,) = explain(cached, [{"messages": conversation.to_dicts()}]).explained
    assert one.details.step_scores == pytest.approx(rm.score_steps(prompt=PROBLEM, response=STEPS))


# -- the log -----------------------------------------------------------------------------------------------------------


def log_of(caplog: pytest.LogCaptureFixture, call: Callable[[], Any]) -> str:
    caplog.clear()
    with caplog.at_level(logging.DEBUG, logger="reward_hub"):
        call()
    return "\n".join(record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    "slug", ["seqcls-qwen2", "qwen2.5-math-prm", "rlhflow-pair-pm", "steamshp", "dpo-implicit", "pairrm-hf"]
)
def test_the_debug_log_shows_texts_positions_batches_and_times(
    slug: str, golden_models: GoldenModels, caplog: pytest.LogCaptureFixture
) -> None:
    golden = GoldenSet(slug, "own")
    rm = golden_models.load(golden)
    case = golden.cases[0]
    log = log_of(caplog, lambda: explain(rm, items_of(case)))
    content = case.get("response_a") or case["messages"][-1]["content"]
    written = [line for line in log.splitlines() if ": rendered " in line or ": wrote " in line]
    assert any(content.split()[0] in line for line in written)
    batches = (" are packed: ", " forwards.") if " are packed" in log else (" inputs in ", " batches: ", "A batch of ")
    for words in (": read at ", "; ids from ", *batches, " made in ", " s."):
        assert words in log, words


def test_the_debug_log_shows_a_judges_request_and_reply(caplog: pytest.LogCaptureFixture) -> None:
    from reward_hub import LLMJudge

    with (
        judge_server(verdict(4)) as server,
        LLMJudge("judge", api_base=server.api_base, api_key="sk-secret", rubric="Score from 1-5.") as judge,
    ):
        log = log_of(caplog, lambda: judge.score(prompt=PROBLEM, response=RIGHT))
    assert "judge is asked ChatRequest(" in log
    assert PROBLEM in log
    assert "judge replied " in log
    assert "sk-secret" not in log


def test_the_debug_log_shows_what_goes_to_servers(
    golden_models: GoldenModels, caplog: pytest.LogCaptureFixture
) -> None:
    golden = GoldenSet("seqcls-qwen2", "own")
    case = golden.cases[0]
    folder = golden_models.checkpoint(golden)
    with local_server(VllmLike(golden_models.load(golden), "classify")) as server:
        with AutoRM.load("rm", "api", api_base=server.address, checkpoint=str(folder), api_key="sk-secret") as rm:
            ours = log_of(caplog, lambda: rm.score(case["messages"]))
        with AutoRM.load("rm", "api", api_base=server.address) as scorer:
            theirs = log_of(caplog, lambda: scorer.score(case["messages"]))
    assert "rm: rendered " in ours
    assert "; ids from " in ours
    assert f"1 inputs as 1 texts of {len(case['input_ids'])} tokens, task classify." in ours
    assert f"POST {server.address}/" in ours
    assert ", status 200 and " in ours
    assert "sk-secret" not in ours
    assert "rm is sent " in theirs
    assert case["messages"][0]["content"][:20] in theirs


# -- tools -------------------------------------------------------------------------------------------------------------

TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
LOUD = {"loud": True}


@pytest.mark.parametrize("from_file", [True, False])
def test_tools_reach_the_template_of_every_command(
    reward_hub: Call, golden_models: GoldenModels, tmp_path: Path, from_file: bool
) -> None:
    outcome = str(golden_models.checkpoint(GoldenSet("seqcls-qwen2", "own")))
    process = str(golden_models.checkpoint(GoldenSet("qwen2.5-math-prm", "own")))
    template = tmp_path / "template.jinja"
    template.write_text(TAKES_TOOLS)
    tools = json.dumps(TOOLS)
    if from_file:
        (tmp_path / "tools.json").write_text(tools)
        tools = str(tmp_path / "tools.json")
    said = ("--chat-template", str(template), "--tools", tools, "--chat-template-kwargs", json.dumps(LOUD))
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": PROBLEM, "response": RIGHT}) + "\n")
    ranked = tmp_path / "ranked.jsonl"
    ranked.write_text(json.dumps({"prompt": PROBLEM, "responses": [RIGHT, WRONG]}) + "\n")

    def first(*arguments: str) -> Any:
        ended = reward_hub(*arguments, *said)
        assert ended.code == 0, ended.err
        return json.loads(ended.out if "inspect" in arguments else ended.out.splitlines()[0])

    arguments: dict[str, Any] = {"tools": TOOLS, "chat_template_kwargs": LOUD}
    with AutoRM.load(outcome, chat_template=str(template)) as rm:
        told = rm.score(prompt=PROBLEM, response=RIGHT, **arguments)
        assert told != rm.score(prompt=PROBLEM, response=RIGHT)
        _, details = rm.rank(prompt=PROBLEM, responses=[RIGHT, WRONG], return_details=True, **arguments)
    with AutoRM.load(process, chat_template=str(template)) as rm:
        steps = rm.score_steps(prompt=PROBLEM, response=RIGHT, **arguments)
    assert first("score", str(rows), "-m", outcome)["score"] == pytest.approx(told)
    assert first("rank", str(ranked), "-m", outcome)["scores"] == pytest.approx(details["scores"])
    assert first("steps", str(rows), "-m", process)["step_scores"] == pytest.approx(steps)
    explained = first("inspect", outcome, "--explain", PROBLEM, RIGHT, "--json")["explained"][0]
    assert explained["score"] == pytest.approx(told)
    assert "".join(t["text"] for t in explained["inputs"][0]["tokens"]).startswith('[{"type": "function"')


def test_tools_of_a_row_and_other_ones_of_the_command_are_an_error_of_the_row(
    reward_hub: Call, golden_models: GoldenModels, tmp_path: Path
) -> None:
    outcome = str(golden_models.checkpoint(GoldenSet("seqcls-qwen2", "own")))
    rows = tmp_path / "rows.jsonl"
    row = {"prompt": PROBLEM, "response": RIGHT}
    same, other = {**row, "tools": TOOLS}, {**row, "tools": [{"name": "other"}]}
    rows.write_text("".join(json.dumps(one) + "\n" for one in (row, same, other)))
    out = tmp_path / "scores.jsonl"
    asked = ("score", str(rows), "-m", outcome, "--chat-template", TAKES_TOOLS, "--out", str(out))
    ended = reward_hub(*asked, "--tools", json.dumps(TOOLS))
    first, second, third = map(json.loads, out.read_text().splitlines())
    assert ended.code == 1
    assert first["score"] == second["score"]
    assert third["error"]["type"] == "InvalidConversationError"
    assert "and a message has others" in third["error"]["message"]
    again = reward_hub(*asked, "--tools", '[{"name": "other"}]')
    assert (again.code, "was made with tools" in again.err) == (2, True), again.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tools", "none.json"], "--tools none.json is neither JSON nor a file that can be read: No such file"),
        (["--tools", '{"name": "x"}'], "a list of objects, one a tool, is needed"),
        (["--tools", "[1]"], "a list of objects, one a tool, is needed"),
        (["--tools", "[{]"], "is not JSON"),
        (["--chat-template-kwargs", "[]"], "an object is needed"),
        (["--chat-template-kwargs", "loud"], "is not JSON"),
    ],
)
@pytest.mark.parametrize("command", ["score", "steps", "rank"])
def test_tools_of_another_form_are_bad_usage(
    reward_hub: Call, orm: str, tmp_path: Path, command: str, arguments: list[str], words: str
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": PROBLEM, "response": RIGHT}) + "\n")
    ended = reward_hub(command, str(rows), "-m", orm, *arguments)
    assert (ended.code, words in ended.err) == (2, True), ended.err
