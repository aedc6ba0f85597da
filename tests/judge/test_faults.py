"""Servers that fail, and replies without a verdict: an error that says so, never a score."""

from __future__ import annotations

import dataclasses
import json
import logging
import pickle
import socket
import threading

import pytest
from judge_server import Answer, Asked, JudgeOn, Script, completion, fails, in_turn, says, verdict

from reward_hub import BackendError, JudgeParseError, LLMJudge, ServerError, ServerTimeoutError

CONVERSATION = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]


@pytest.mark.parametrize(
    "trouble",
    [
        fails(429),
        fails(500),
        fails(503),
        fails(200, body=b"not json"),
        fails(200, body={"choices": []}),
        fails(200, body={"choices": [{"index": 0}]}),
        fails(200, body={"error": {"message": "overloaded"}}),
        fails(200, body=b"[1, 2]"),
        fails(200, body={"choices": [{"message": {"content": 7}}]}),
    ],
)
def test_what_may_pass_is_asked_again(judge_on: JudgeOn, trouble: Script) -> None:
    judge, server = judge_on(in_turn(trouble, trouble, verdict(4)))
    assert judge.score(prompt="q", response="r") == 4.0
    assert len(server.asked) == 3
    assert judge.usage.calls == 1


def test_the_wait_that_a_server_asks_for_is_kept(judge_on: JudgeOn) -> None:
    judge, server = judge_on(in_turn(fails(429, retry_after="0.3"), verdict(4)))
    assert judge.score(prompt="q", response="r") == 4.0
    first, second = server.asked
    assert second.started - first.started >= 0.3


def test_a_server_that_stays_down_is_an_error_with_its_status(judge_on: JudgeOn) -> None:
    judge, server = judge_on(fails(500), max_retries=2)
    with pytest.raises(ServerError, match=r"status 500.*3 attempts") as caught:
        judge.score(prompt="q", response="r")
    assert caught.value.status == 500
    assert len(server.asked) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_refusal_is_not_asked_again(judge_on: JudgeOn, status: int) -> None:
    judge, server = judge_on(fails(status), structured=False, api_key="topsecret")
    with pytest.raises(ServerError) as caught:
        judge.score(prompt="q", response="r")
    assert caught.value.status == status
    assert len(server.asked) == 1


def test_a_server_that_does_not_answer_in_time_is_an_error(judge_on: JudgeOn) -> None:
    judge, _ = judge_on(verdict(4, delay_s=5.0), timeout_s=0.1, max_retries=1)
    with pytest.raises(ServerTimeoutError, match=r"no answer within 0.1 s.*2 attempts"):
        judge.score(prompt="q", response="r")


def test_a_judgement_has_a_deadline_over_all_its_attempts(judge_on: JudgeOn) -> None:
    judge, _ = judge_on(fails(500, retry_after="5"), deadline_s=0.2)
    with pytest.raises(ServerTimeoutError, match=r"no verdict within deadline_s=0.2"):
        judge.score(prompt="q", response="r")


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n"


@pytest.mark.parametrize("sent", [b"", b"\x00garbage\r\n\r\n", HEAD + b'{"choices"', None])
def test_a_lost_connection_is_an_error(sent: bytes | None) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if sent is not None:  # else nobody listens there
            listening.listen()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        thread = threading.Thread(target=answer_once, args=(listening, sent))
        thread.start()
        with (
            LLMJudge("judge", rubric="from 1-5", api_base=address, max_retries=0) as judge,
            pytest.raises(ServerError, match="the connection failed") as caught,
        ):
            judge.score(prompt="q", response="r")
        thread.join()
    assert caught.value.retryable


def answer_once(listening: socket.socket, sent: bytes | None) -> None:
    if sent is None:
        return
    with listening.accept()[0] as connection:
        connection.recv(1 << 16)
        connection.sendall(sent)


NO_VERDICT: dict[str, tuple[Script, str]] = {
    "empty": (says(""), "empty"),
    "null": (says(None), "empty"),
    "no JSON": (says("I would say four."), "no JSON object"),
    "cut": (says('{"reasoning": "it is', finish_reason="length"), "cut after 20 tokens.*max_tokens"),
    "cut by another name": (says('{"score": 4}', finish_reason="max_tokens"), "cut"),
    "broken off": (says('{"score": 4}', finish_reason="abort"), "broken off.*abort"),
    "cut after a whole verdict": (says('{"score": 4}', finish_reason="length"), "cut"),
    "thinking without end": (says("<think>well, well"), "thinking has no end"),
    "thinking alone": (says(None, reasoning_content='{"score": 4}'), "empty"),
    "out of range": (verdict(9), "not between 1 and 5"),
    "two verdicts": (says('{"score": 4} {"score": 2}'), "2 verdicts that differ"),
}


@pytest.mark.parametrize("name", NO_VERDICT)
def test_a_reply_without_a_verdict_is_asked_for_again_and_then_an_error(judge_on: JudgeOn, name: str) -> None:
    script, words = NO_VERDICT[name]
    judge, server = judge_on(script, parse_retries=1)
    with pytest.raises(JudgeParseError, match=f"(?s){words}.*2 replies"):
        judge.score(prompt="q", response="r")
    assert len(server.asked) == 2
    first, second = (asked.body for asked in server.asked)
    # A greedy judge would say the same again.
    assert (first["temperature"], second["temperature"]) == (0.0, 0.5)
    assert first["seed"] != second["seed"]
    judge, _ = judge_on(in_turn(script, verdict(2)))
    score, details = judge.score(prompt="q", response="r", return_details=True)
    assert (score, details["samples"][0]["attempts"], details["usage"]["calls"]) == (2.0, 2, 2)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (says('{"score": 4}', finish_reason="content_filter"), "content filter"),
        (says(None, refusal="I cannot judge that."), "declined: I cannot judge that"),
    ],
)
def test_a_verdict_that_is_kept_back_is_an_error_at_once(judge_on: JudgeOn, script: Script, words: str) -> None:
    judge, server = judge_on(script)
    with pytest.raises(JudgeParseError, match=words):
        judge.score(prompt="q", response="r")
    assert len(server.asked) == 1


def test_a_failed_item_is_none_where_that_is_asked_for_and_has_its_place_otherwise(judge_on: JudgeOn) -> None:
    def third_fails(asked: Asked) -> Answer:
        return completion("no" if "bad" in asked.text else json.dumps({"score": 4}))

    judge, _ = judge_on(third_fails, parse_retries=0)
    batch = [[{"role": "user", "content": text}, CONVERSATION[1]] for text in ("a", "b", "bad", "c")]
    results = judge.score_batch(batch, on_error="none", return_details=True)
    assert [score for score, _ in results] == [4, 4, None, 4]
    assert results[2][1]["error"]["type"] == "JudgeParseError"
    with pytest.raises(JudgeParseError, match="conversation 2") as caught:
        judge.score_batch(batch)
    assert (caught.value.index, caught.value.text) == (2, "no")
    copied = pickle.loads(pickle.dumps(caught.value))
    assert (str(copied), copied.index, copied.text) == (str(caught.value), 2, "no")


def test_a_refusal_of_structured_output_that_comes_after_anothers_is_no_error(judge_on: JudgeOn) -> None:
    refused = fails(400, body={"error": {"message": "response_format is not supported"}})

    def late(asked: Asked) -> Answer:
        return dataclasses.replace(refused(asked), delay_s=0.5)

    # Three requests are under way at once; the first refusal is acted on before the two others come.
    refusals = in_turn(refused, late)

    def refuses(asked: Asked) -> Answer:
        return refusals(asked) if "response_format" in asked.body else completion('{"score": 4}')

    judge, server = judge_on(refuses)
    assert judge.score_batch([CONVERSATION] * 3) == [4, 4, 4]
    assert sum("response_format" in asked.body for asked in server.asked) == 3


@pytest.mark.parametrize("status", [400, 422, 500, 501])
def test_a_server_without_structured_output_is_asked_in_words(
    judge_on: JudgeOn, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    def refuses(asked: Asked) -> Answer:
        if "response_format" in asked.body:
            return fails(status, body={"error": {"message": "response_format is not supported"}})(asked)
        return completion('{"score": 4}')

    judge, server = judge_on(refuses)
    with caplog.at_level(logging.INFO, logger="reward_hub"):
        assert judge.score_batch([CONVERSATION] * 3) == [4, 4, 4]
        n = len(server.asked)
        assert judge.score(CONVERSATION) == 4
    assert len(server.asked) == n + 1
    assert sum("refuses response_format" in record.message for record in caplog.records) == 1
    judge, _ = judge_on(refuses, structured=True, max_retries=0)
    with pytest.raises(ServerError, match="response_format is not supported"):
        judge.score(CONVERSATION)
    judge, server = judge_on(refuses, structured=False)
    assert judge.score(CONVERSATION) == 4
    assert len(server.asked) == 1


def test_a_reply_in_parts_is_read_without_its_thinking(judge_on: JudgeOn) -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": '{"score": 1}'}]}
    judge, _ = judge_on(says([thinking, {"type": "text", "text": '{"score": '}, {"type": "text", "text": "4}"}]))
    assert judge.score(CONVERSATION) == 4


def test_a_400_for_another_reason_stays_one(judge_on: JudgeOn) -> None:
    judge, server = judge_on(fails(400, body={"error": {"message": "the prompt is too long"}}))
    with pytest.raises(ServerError, match="the prompt is too long"):
        judge.score(CONVERSATION)
    assert "response_format" not in server.asked[-1].body


def test_the_newer_name_of_max_tokens_is_used_where_the_old_one_is_refused(judge_on: JudgeOn) -> None:
    def newer(asked: Asked) -> Answer:
        if "max_tokens" in asked.body:
            words = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
            return fails(400, body={"error": {"message": words}})(asked)
        return completion('{"score": 4}')

    judge, server = judge_on(newer, max_tokens=77)
    assert [judge.score(CONVERSATION), judge.score(CONVERSATION)] == [4, 4]
    assert [asked.body.get("max_completion_tokens") for asked in server.asked] == [None, 77, 77]
    assert all("response_format" in asked.body for asked in server.asked)


def test_a_number_that_is_none_in_the_reply_is_an_error(judge_on: JudgeOn) -> None:
    judge, _ = judge_on(fails(200, body=b'{"choices": [{"message": {"content": "x"}, "logprobs": NaN}]}'))
    with pytest.raises(BackendError, match="NaN"):
        judge.score(CONVERSATION)


def test_an_error_that_comes_with_status_200_says_where_and_hides_the_key(judge_on: JudgeOn) -> None:
    judge, _ = judge_on(fails(200, body={"error": "no such key: topsecret"}), api_key="topsecret", max_retries=0)
    with pytest.raises(ServerError, match=r"chat/completions: the server answered with an error: .*\*\*\*") as caught:
        judge.score(prompt="q", response="r")
    assert "topsecret" not in str(caught.value)
