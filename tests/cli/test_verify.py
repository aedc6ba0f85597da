"""`reward-hub verify`: backends are held against each other, and a difference is a failure."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from reward_hub import BaseRM, InvalidConversationError
from reward_hub.bench.agreement import PROMPTS, agreement, check_groups, kendall_tau, measure
from reward_hub.cli import app


class LengthRM(BaseRM):
    def score(self, messages):
        return len(messages[-1]["content"]) / 100


def run(*arguments):
    return CliRunner().invoke(app, ["verify", *map(str, arguments)], catch_exceptions=False)


@pytest.mark.parametrize("model", ["builtin/arithmetic-orm", "builtin/arithmetic-prm"])
def test_the_backends_here_agree(model):
    result = run(model, "--json", "--backend", "transformers", "--backend", "server")
    report = json.loads(result.stdout)
    assert result.exit_code == 0
    assert [row["backend"] for row in report["backends"]] == ["transformers", "server"]
    for row in report["backends"]:
        assert row["n"] >= 16
        assert row["largest"] <= 1e-5
        assert row["kendall_tau"] == pytest.approx(1.0)
        assert row["same_best"] == 1.0


def test_a_difference_above_the_tolerance_exits_with_1(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(group) + "\n" for group in PROMPTS))
    arguments = ("builtin/arithmetic-orm", "--data", rows, "--backend", "transformers", "--dtype", "bfloat16")
    result = run(*arguments, "--tolerance", "0", "--json")
    drift = json.loads(result.stdout)["backends"][0]["largest"]
    # In bfloat16 padding changes a number; were it ever not to, nothing would exceed a tolerance of nought.
    assert result.exit_code == (1 if drift > 0 else 0)
    assert run(*arguments, "--tolerance", "10").exit_code == 0


def test_a_backend_that_is_not_there_is_bad_usage():
    from reward_hub.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["verify", "builtin/arithmetic-orm", "--backend", "sglang"])
    assert ended.value.code == 2


def test_agreement_is_recomputed_from_the_numbers():
    expected = measure(LengthRM(), PROMPTS)
    assert expected[0] == [[0.1], [0.34], [0.01], [0.19]]
    found = [[[x + 0.01 * (i == 1) for x in row] for i, row in enumerate(group)] for group in expected]
    agreed = agreement(expected, found)
    assert agreed.n == 16
    assert agreed.largest == pytest.approx(0.01)
    assert agreed.mean == pytest.approx(0.01 * 4 / 16)
    assert agreement(expected, [[[-x for x in row] for row in group] for group in expected]).same_best == 0.0


@given(st.lists(st.integers(0, 5), min_size=2, max_size=12), st.randoms(use_true_random=False))
def test_kendall_tau_is_one_for_the_same_ranking_and_minus_one_for_the_reverse(values, numbers: random.Random):
    tau = kendall_tau(values, [3 * v + 1 for v in values])
    if len(set(values)) == 1:
        assert tau is None
        return
    assert tau == pytest.approx(1.0)
    assert kendall_tau(values, [-v for v in values]) == pytest.approx(-1.0)
    shuffled = numbers.sample(values, len(values))
    other = kendall_tau(values, shuffled)
    assert other == pytest.approx(kendall_tau(shuffled, values))


def test_kendall_tau_with_ties_is_the_textbook_value():
    # scipy.stats.kendalltau([12, 2, 1, 12, 2], [1, 4, 7, 1, 0]) of its documentation.
    assert kendall_tau([12, 2, 1, 12, 2], [1, 4, 7, 1, 0]) == pytest.approx(-0.47140452079103173)


def test_rows_of_each_form_become_groups():
    rows = [
        {"prompt": "a", "responses": ["b", "c"]},
        {"prompt": "a", "response": "b"},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    ]
    groups = check_groups(rows)
    assert [len(group["responses"]) for group in groups] == [2, 1, 1]
    assert measure(LengthRM(), groups)[2] == [[0.01]]
    with pytest.raises(InvalidConversationError, match="row 0"):
        check_groups([{"question": "a"}])
