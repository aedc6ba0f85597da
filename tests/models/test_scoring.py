"""The methods of a loaded model: one number per conversation or step, whatever way it is asked for."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest

from reward_hub import AutoRM, InputTooLongError, InvalidConversationError, PRMResult, UnsupportedError
from reward_hub.errors import BackendError
from reward_hub.numerics import sigmoid

PROMPT = "Sam has 12 apples. He buys 5 more and eats 3. How many apples does Sam have?"
RIGHT = "12 + 5 = 17\n17 - 3 = 14"
WRONG = "12 + 5 = 18\n18 - 3 = 15"
STEPS = ["12 + 5 = 17", "17 - 3 = 14"]

ALWAYS = {
    "raw_logits",
    "normalized_score",
    "tokens_scored",
    "truncated",
    "dropped_tokens",
    "family",
    "backend",
    "model",
    "revision",
}


def turns(response):
    return [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": response}]


@pytest.fixture(scope="module")
def orm():
    with AutoRM.load("builtin/arithmetic-orm", load_method="transformers", torch_dtype="float32") as rm:
        yield rm


@pytest.fixture(scope="module")
def prm():
    with AutoRM.load("builtin/arithmetic-prm", load_method="hf", torch_dtype="float32") as rm:
        yield rm


def test_every_way_to_ask_gives_the_same_score(orm):
    score = orm.score(turns(RIGHT))
    assert isinstance(score, float)
    near = pytest.approx(score, abs=1e-5)
    assert orm.score(prompt=PROMPT, response=RIGHT) == near
    assert orm.score([turns(RIGHT), turns(WRONG)])[0] == near
    assert orm.score_batch([turns(WRONG), turns(RIGHT)], batch_size=1)[1] == near
    assert next(orm.score_iter(turns(r) for r in (RIGHT, WRONG))) == near
    assert asyncio.run(orm.ascore(turns(RIGHT))) == near
    assert asyncio.run(orm.ascore_batch([turns(RIGHT)])) == [near]


def test_details_hold_what_is_promised_and_are_json(orm, prm):
    score, details = orm.score(turns(RIGHT), return_details=True)
    assert set(details) >= ALWAYS
    assert details["raw_logits"] == [score]
    assert details["normalized_score"] == pytest.approx(sigmoid(score))
    assert details["tokens_scored"] > 0
    assert (details["truncated"], details["dropped_tokens"], details["backend"]) == (False, 0, "transformers")
    assert (details["family"], details["model"], details["revision"]) == (
        "sequence-classifier",
        "builtin/arithmetic-orm",
        None,
    )
    steps, details = prm.score_steps(prompt=PROMPT, steps=STEPS, return_details=True)
    assert details["step_scores"] == steps
    assert details["step_spans"] == [[0, 11], [13, 24]]
    assert len(details["raw_logits"]) == 4
    assert json.loads(json.dumps(details)) == details


def test_a_failed_item_of_a_batch_is_none_with_its_reason(orm):
    batch = [turns(RIGHT), [{"role": "user", "content": "Hi"}], turns(WRONG)]
    with pytest.raises(InvalidConversationError, match="conversation 1"):
        orm.score_batch(batch)
    assert [s is None for s in orm.score_batch(batch, on_error="none")] == [False, True, False]
    results = orm.score_batch(batch, on_error="none", return_details=True)
    assert results[1][0] is None
    assert results[1][1]["error"]["type"] == "InvalidConversationError"
    assert results[2][0] == pytest.approx(orm.score(turns(WRONG)), abs=1e-5)


def test_a_progress_bar_is_shown_on_request_only(orm, capsys):
    orm.score_batch([turns(RIGHT)])
    assert capsys.readouterr() == ("", "")
    orm.score_batch([turns(RIGHT)], show_progress=True)
    assert "1/1" in capsys.readouterr().err


def test_steps_are_scored_alike_whether_given_or_split(prm):
    given = prm.score_steps(prompt=PROMPT, steps=STEPS)
    assert len(given) == 2
    assert prm.score_steps(prompt=PROMPT, response="\n\n".join(STEPS)) == pytest.approx(given, abs=1e-6)
    assert prm.score_steps(prompt=PROMPT, response=RIGHT, step_delimiter="\n") == pytest.approx(given, abs=1e-6)
    assert prm.score_steps(prompt=PROMPT, response=RIGHT, step_sep="\n") == pytest.approx(given, abs=1e-6)
    assert prm.score_steps(turns(RIGHT), steps=STEPS) == pytest.approx(given, abs=1e-6)
    batch = prm.score_steps_batch(
        [{"messages": turns(RIGHT), "steps": STEPS}, {"prompt": PROMPT, "response": RIGHT, "step_delimiter": "\n"}]
    )
    assert batch[0] == pytest.approx(given, abs=1e-6)
    assert batch[1] == pytest.approx(given, abs=1e-6)
    assert asyncio.run(prm.ascore_steps(prompt=PROMPT, steps=STEPS)) == pytest.approx(given, abs=1e-6)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (None, lambda s: s[0] * s[1]),
        ("prod", lambda s: s[0] * s[1]),
        ("min", min),
        ("last", lambda s: s[-1]),
        ("mean", lambda s: sum(s) / 2),
    ],
)
def test_a_process_score_aggregates_its_steps(prm, how, expected):
    steps = prm.score_steps(turns(WRONG), step_delimiter="\n")
    assert prm.score(turns(WRONG), step_delimiter="\n", aggregation_method=how) == pytest.approx(expected(steps))


def test_the_model_aggregation_reads_the_response_as_one_step(prm):
    whole = prm.score_steps(prompt=PROMPT, steps=[RIGHT])
    assert prm.score(turns(RIGHT), aggregation="model") == pytest.approx(whole[0], abs=1e-6)


def test_the_full_result_of_reward_hub_0_1_is_there(prm):
    result = prm.score(turns(RIGHT), step_delimiter="\n", aggregation_method="last", return_full_prm_result=True)
    assert isinstance(result, PRMResult)
    assert result.score == result.last == result.step_scores[-1]


def test_rank_and_compare_follow_the_scores(orm):
    responses = [WRONG, RIGHT, "no idea"]
    scores = orm.score([turns(r) for r in responses])
    ranking, details = orm.rank(prompt=PROMPT, responses=responses, return_details=True)
    assert ranking == sorted(range(3), key=lambda i: -scores[i])
    assert details["scores"] == pytest.approx(scores, abs=1e-5)
    assert orm.best_of_n(prompt=PROMPT, responses=responses) == ranking[0]
    p = orm.compare(prompt=PROMPT, a=RIGHT, b=WRONG)
    assert p == pytest.approx(sigmoid(scores[1] - scores[0]), abs=1e-5)
    assert orm.compare(messages=turns(RIGHT)[:1], a=WRONG, b=RIGHT) == pytest.approx(1 - p, abs=1e-5)


def test_calls_that_the_kind_cannot_serve_say_what_to_call(orm):
    with pytest.raises(UnsupportedError, match="call score"):
        orm.score_steps(prompt=PROMPT, response=RIGHT)
    with pytest.raises(UnsupportedError, match="no steps"):
        orm.score(turns(RIGHT), aggregation="min")


def test_many_threads_get_the_scores_of_one(orm):
    responses = [f"12 + {i} = {12 + i}" for i in range(16)]
    expected = orm.score([turns(r) for r in responses])
    found = [0.0] * 16

    def work(i):
        found[i] = orm.score(turns(responses[i]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == pytest.approx(expected, abs=1e-5)


def test_many_tasks_at_once_get_the_scores_of_one(orm):
    async def ask():
        return await asyncio.gather(*(orm.ascore(turns(r)) for r in (RIGHT, WRONG, RIGHT)))

    found = asyncio.run(ask())
    assert found == pytest.approx([orm.score(turns(r)) for r in (RIGHT, WRONG, RIGHT)], abs=1e-6)


def test_a_closed_model_is_an_error():
    rm = AutoRM.load("builtin/arithmetic-orm")
    rm.close()
    with pytest.raises(BackendError, match="closed"):
        rm.score(turns(RIGHT))


def test_the_fingerprint_tells_settings_apart():
    one, same, other = (
        AutoRM.load("builtin/arithmetic-prm", aggregation=how, torch_dtype=dtype)
        for how, dtype in (("min", "float32"), ("min", "float32"), ("last", "float32"))
    )
    half = AutoRM.load("builtin/arithmetic-prm", aggregation="min", torch_dtype="bfloat16")
    assert one.fingerprint == same.fingerprint
    assert len({one.fingerprint, other.fingerprint, half.fingerprint}) == 3


class TestTruncation:
    """A limit that the conversation exceeds, in each mode."""

    LONG = "apples and pears " * 40

    def load(self, model, mode, limit):
        return AutoRM.load(model, truncation=mode, max_length=limit, torch_dtype="float32")

    def conversation(self, response=RIGHT):
        return [{"role": "user", "content": self.LONG + PROMPT}, {"role": "assistant", "content": response}]

    def test_error_tells_count_and_limit(self):
        rm = self.load("builtin/arithmetic-orm", "error", 100)
        with pytest.raises(InputTooLongError, match="100") as caught:
            rm.score(self.conversation())
        assert caught.value.max_length == 100
        assert caught.value.n_tokens == rm_tokens("builtin/arithmetic-orm", self.conversation())
        with pytest.raises(InputTooLongError, match="conversation 1"):
            rm.score_batch([turns("14"), self.conversation()])

    @pytest.mark.parametrize("mode", ["prompt", "left"])
    def test_the_oldest_tokens_go_and_the_end_stays(self, mode):
        rm = self.load("builtin/arithmetic-orm", mode, 100)
        score, details = rm.score(self.conversation(), return_details=True)
        n = rm_tokens("builtin/arithmetic-orm", self.conversation())
        assert (details["tokens_scored"], details["truncated"], details["dropped_tokens"]) == (100, True, n - 100)
        ids = rm.model.family.encode(parsed(self.conversation()), rm.model.setup).token_ids[-100:]
        assert score == pytest.approx(plain_score(rm, ids), abs=1e-4)

    def test_right_keeps_the_beginning(self):
        rm = self.load("builtin/arithmetic-orm", "right", 100)
        score, details = rm.score(self.conversation(), return_details=True)
        ids = rm.model.family.encode(parsed(self.conversation()), rm.model.setup).token_ids[:100]
        assert details["tokens_scored"] == 100
        assert score == pytest.approx(plain_score(rm, ids), abs=1e-4)

    def test_prompt_never_cuts_the_response(self):
        rm = self.load("builtin/arithmetic-orm", "prompt", 60)
        with pytest.raises(InputTooLongError, match="never cut"):
            rm.score(prompt=PROMPT, response=self.LONG)

    def test_no_step_is_lost(self):
        steps = [f"{i} + 1 = {i + 1}" for i in range(12)]
        item = {"prompt": self.LONG, "steps": steps}
        scores, details = self.load("builtin/arithmetic-prm", "prompt", 220).score_steps(**item, return_details=True)
        assert len(scores) == 12
        assert details["truncated"]
        for mode in ("left", "right"):
            with pytest.raises(InputTooLongError, match="a position"):
                self.load("builtin/arithmetic-prm", mode, 60).score_steps(**item)


def parsed(messages):
    from reward_hub import messages as border

    return border.parse(messages)


def rm_tokens(model, messages):
    _, details = AutoRM.load(model, max_length=100_000).score(messages, return_details=True)
    return details["tokens_scored"]


def plain_score(rm, ids):
    """The stock classifier of transformers on these ids."""
    import torch
    import transformers

    from reward_hub import builtin

    model = transformers.AutoModelForSequenceClassification.from_pretrained(builtin.path("arithmetic-orm"))
    with torch.no_grad():
        return model(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long)).logits[0, 0].item()
