"""`reward-hub bench` on the command line: recorded scores, options, files, exit codes, shards, comparisons."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bench_examples import DATA, records
from golden_sets import GoldenModels, GoldenSet

from reward_hub import AutoRM

PAIRS = [
    {"id": "a", "subset": "s", "prompt": "2+2?", "chosen": "4", "rejected": "5"},
    {"id": "b", "subset": "s", "prompt": "2+3?", "chosen": "5", "rejected": "**6**\n\n- no"},
    {"id": "c", "subset": "t", "prompt": "2+4?", "chosen": "6", "rejected": "7"},
]
SCORES = [
    {"id": "a", "chosen_score": 1.0, "rejected_score": 0.5},
    {"id": "b", "chosen_score": 0.25, "rejected_score": 0.25},
    {"id": "c", "chosen_score": [-1.0], "rejected_score": [-2.0]},
]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    return write(tmp_path / "pairs.jsonl", PAIRS)


@pytest.fixture
def scores(tmp_path: Path) -> str:
    return write(tmp_path / "scores.jsonl", SCORES)


def test_recorded_scores_give_metrics_and_files(
    pairs: str, scores: str, tmp_path: Path, reward_hub: Callable[..., Any]
) -> None:
    ended = reward_hub("bench", "--data", pairs, "--scores", scores, "--out", str(tmp_path / "run"))
    assert ended.code == 0, ended.err
    assert "0.6667" in ended.out
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    overall = results["metrics"]["overall"]
    assert (overall["accuracy"], overall["n"], overall["ties"]) == (pytest.approx(2 / 3), 3, 1)
    assert {name: entry["accuracy"] for name, entry in results["metrics"]["subsets"].items()} == {"s": 0.5, "t": 1.0}
    assert results["metrics"]["margins"]["overall"]["mean"] == pytest.approx((0.5 + 0 + 1) / 3)
    assert (results["form"], results["kind"], results["n"], results["n_failed"]) == ("preference", "recorded", 3, 0)
    rows = lines(tmp_path / "run" / "items.jsonl")
    assert [row["scores"] for row in rows] == [
        {"chosen": [1.0], "rejected": [0.5]},
        {"chosen": [0.25], "rejected": [0.25]},
        {"chosen": [-1.0], "rejected": [-2.0]},
    ]
    assert [(row["correct"], row["tie"]) for row in rows] == [(1.0, False), (0.0, True), (1.0, False)]
    assert rows[1]["responses"]["rejected"] == [
        {
            "characters": 11,
            "words": 3,
            "markdown": {"headers": 0, "list_items": 1, "bold": 1, "code_blocks": 0},
            "text": "**6**\n\n- no",
        }
    ]
    assert rows[0]["prompt"] == [{"role": "user", "content": "2+2?"}]


def test_recorded_scores_are_read_from_csv_too(
    pairs: str, scores: str, tmp_path: Path, reward_hub: Callable[..., Any]
) -> None:
    table = tmp_path / "scores.csv"
    table.write_text('id,chosen_score,rejected_score\na,1.0,0.5\nb,0.25,0.25\nc,[-1.0],"[-2.0]"\n')
    found = [
        json.loads(reward_hub("bench", "--data", pairs, "--scores", s, "--json").out) for s in (scores, str(table))
    ]
    assert found[0]["metrics"] == found[1]["metrics"]


def test_a_recorded_row_that_could_not_be_read_is_of_no_item(
    pairs: str, scores: str, tmp_path: Path, reward_hub: Callable[..., Any]
) -> None:
    torn = {"id": None, "line": 2, "error": {"type": "InvalidConversationError", "message": "not JSON"}}
    more = write(tmp_path / "more.jsonl", [SCORES[0], torn, *SCORES[1:]])
    found = [json.loads(reward_hub("bench", "--data", pairs, "--scores", s, "--json").out) for s in (scores, more)]
    assert found[0]["metrics"] == found[1]["metrics"]
    ended = reward_hub("ensemble", more)
    assert (ended.code, "has an error in place of scores" in ended.err) == (2, True)


def test_without_texts_no_text_is_written(
    pairs: str, scores: str, tmp_path: Path, reward_hub: Callable[..., Any]
) -> None:
    reward_hub("bench", "--data", pairs, "--scores", scores, "--out", str(tmp_path / "run"), "--no-texts")
    written = (tmp_path / "run" / "items.jsonl").read_text()
    assert "2+2?" not in written
    assert [row["responses"]["chosen"][0]["characters"] for row in lines(tmp_path / "run" / "items.jsonl")] == [1, 1, 1]


def test_the_items_of_a_run_are_recorded_scores_too(
    pairs: str, scores: str, tmp_path: Path, reward_hub: Callable[..., Any]
) -> None:
    first = reward_hub("bench", "--data", pairs, "--scores", scores, "--out", str(tmp_path / "run"), "--json")
    again = reward_hub("bench", "--data", pairs, "--scores", str(tmp_path / "run" / "items.jsonl"), "--json")
    assert json.loads(again.out)["metrics"] == json.loads(first.out)["metrics"]


def test_an_item_without_a_score_or_with_a_bad_row_has_failed_and_counts_as_wrong(
    scores: str, tmp_path: Path, reward_hub: Callable[..., Any]
) -> None:
    data = write(tmp_path / "pairs.jsonl", [*PAIRS, {"id": "d", "prompt": "p", "chosen": "x"}, PAIRS[0] | {"id": "e"}])
    ended = reward_hub("bench", "--data", data, "--scores", scores, "--out", str(tmp_path / "run"), "--json")
    assert ended.code == 1
    results = json.loads(ended.out)
    assert (results["n"], results["n_failed"]) == (5, 2)
    assert results["metrics"]["overall"]["accuracy"] == pytest.approx(2 / 5)
    errors = [row["error"]["message"] for row in lines(tmp_path / "run" / "items.jsonl") if "error" in row]
    assert errors[0].startswith("row 4: there is no 'rejected'; its columns:")
    assert errors[1:] == [f"{scores} has no scores of it."]
    assert f"item e: InvalidConversationError: {scores} has no scores of it." in ended.err


MODELS = (
    "Ray2333_GRM-Gemma-2B-rewardmodel-ft",
    "Skywork_Skywork-Reward-Gemma-2-27B",
    "internlm_internlm2-7b-reward",
)


@pytest.mark.parametrize("model", MODELS)
def test_recorded_scores_of_judgebench_give_the_published_figures(model: str, reward_hub: Callable[..., Any]) -> None:
    if not (DATA / "judgebench").exists():
        pytest.skip(f"needs {DATA / 'judgebench'}")
    expected = json.loads((DATA / "judgebench" / "expected_accuracy.json").read_text())[model]
    ended = reward_hub(
        *("bench", "--suite", "judgebench", "--data", str(DATA / "judgebench" / "pairs_gpt4o.jsonl")),
        *("--scores", str(DATA / "judgebench" / f"scores_{model}.jsonl"), "--json"),
    )
    metrics = json.loads(ended.out)["metrics"]
    found = {name: entry["accuracy"] for name, entry in metrics["subsets"].items()}
    found["overall"] = metrics["overall"]["accuracy"]
    # The published figures have two decimals.
    assert {name: round(100 * value, 2) for name, value in found.items()} == expected


def test_recorded_step_scores_of_mr_math_give_the_published_f1(reward_hub: Callable[..., Any]) -> None:
    if not (DATA / "mr_math").exists():
        pytest.skip(f"needs {DATA / 'mr_math'}")
    (expected,) = json.loads((DATA / "mr_math" / "expected_processbench_f1.json").read_text()).values()
    ended = reward_hub(
        *("bench", "--suite", "processbench", "--data", str(DATA / "mr_math" / "mr_math.jsonl")),
        *("--scores", str(DATA / "mr_math" / "step_scores_math-shepherd_mistral-7b.jsonl"), "--json"),
    )
    overall = json.loads(ended.out)["metrics"]["overall"]
    assert round(100 * overall["f1"], 2) == expected["f1"]
    assert round(100 * overall["error_accuracy"], 2) == expected["error_acc"]
    assert round(100 * overall["correct_accuracy"], 2) == expected["correct_acc"]
    assert (overall["n_error"], overall["n_correct"]) == (expected["n_error"], expected["n_correct"])


def test_real_candidates_give_best_of_n_curves_with_votes(tmp_path: Path, reward_hub: Callable[..., Any]) -> None:
    """Scored by their length; pass@1, pass@4 and the choice of four are counted here anew."""
    rows = records("gsm8k_solutions/solutions.jsonl")
    recorded = [{"id": row["id"], "scores": [float(len(c["response"])) for c in row["candidates"]]} for row in rows]
    ended = reward_hub(
        *("bench", "--data", str(DATA / "gsm8k_solutions" / "solutions.jsonl"), "--answer-pattern", "A: ?(.+)"),
        *("--scores", write(tmp_path / "scores.jsonl", recorded), "--json"),
    )
    curve = {point["n"]: point for point in json.loads(ended.out)["metrics"]["overall"]["curve"]}
    correct = [[c["correct"] for c in row["candidates"]] for row in rows]
    longest = [max(range(4), key=lambda i, c=row["candidates"]: len(c[i]["response"])) for row in rows]  # type: ignore[misc]
    n = len(rows)
    assert curve[1]["model"] == pytest.approx(sum(map(sum, correct)) / 4 / n)
    assert curve[4]["pass"] == pytest.approx(sum(map(any, correct)) / n)
    assert curve[4]["model"] == pytest.approx(sum(c[i] for c, i in zip(correct, longest, strict=True)) / n)
    assert curve[4]["majority"] == pytest.approx(sum(map(_right_by_majority, rows)) / n)


def _right_by_majority(row: dict[str, Any]) -> float:
    """How often the vote is right over the orders in which the candidates may come."""
    import re

    answers = [re.findall("A: ?(.+)", c["response"]) for c in row["candidates"]]
    told = [found[-1].strip() for found in answers if found]
    if not told:
        return sum(c["correct"] for c in row["candidates"]) / len(row["candidates"])
    most = max(map(told.count, told))
    # Any candidate of an equally frequent answer may be seen first.
    first = [
        c
        for c, found in zip(row["candidates"], answers, strict=True)
        if found and told.count(found[-1].strip()) == most
    ]
    return sum(c["correct"] for c in first) / len(first)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "say what scores with one of --model, --ensemble and --scores; found none"),
        (("--model", "m", "--scores", "{scores}"), "not --model and --scores"),
        (("--scores", "{scores}", "--max-length", "5"), "--max-length is of a reward model that is loaded"),
        (("--scores", "{scores}", "--suite", "arena"), "no suite 'arena'"),
        (("--scores", "{scores}", "--form", "process"), "nothing to compute"),
        (("--scores", "{scores}", "--threshold", "0.5"), "--threshold is of labelled steps"),
        (("--scores", "{scores}", "--answer-pattern", "x"), "the data hold none"),
        (("--scores", "{scores}", "--rule-option", "tie=half"), "the rule preference has no option tie"),
        (("--scores", "{scores}", "--split", "test"), "has no split 'test'"),
        (("--scores", "{scores}", "--config", "c"), "--config is of data on the hub"),
        (("--scores", "{scores}", "--dataset", "org/x"), "--data or --dataset, not both"),
        (("--scores", "{scores}", "--rubric", "x"), "--judge, --rubric and --judge-option go together"),
        (("--scores", "{data}"), "there is no 'chosen_score'"),
        (("--scores", "nowhere.jsonl"), "nowhere.jsonl"),
        (("--model", "m", "--wandb-run", "x"), "--wandb-run of rewardbench: name the model"),
        (("--model", "m", "--pref_sets"), "say --dataset allenai/pref-test-sets"),
        (("--model", "m", "--best_of=8"), "best-of-n data is read by --data"),
        (("--model", "m", "--num_gpus", "2"), "--engine-option tensor_parallel_size=N"),
        (("--model", "m", "--vllm_gpu_util", "0.5"), "--engine-option gpu_memory_utilization=X"),
        (("--model", "m", "--num_threads", "4"), "--max-concurrency N"),
        (("--model", "m", "--force_local"), "--judge --load-method vllm"),
        (("--model", "m", "--quantized"), "no model is quantized here"),
        (("--model", "m", "--ref_free_type", "avg"), "--option reference_free=true"),
        (
            ("--model", "m", "--model=n"),
            "--model is given twice, and takes one value. Several models are an",
        ),
        (("--model", "m", "n", "o"), "'n' is neither a command (compare, report) nor the value of an option"),
        (("--model", "m", "--judge", "--judge-option", "mood=pairwise"), "--judge-option mood: LLMJudge has no such"),
        (("--model", "m", "--judge", "--judge-option", "api_base=http://a"), "there is an option of its own for it"),
        (("--model", "m", "--judge", "--judge-option", "api_key=sk"), "keys come from REWARD_HUB_API_KEY"),
        (("--model", "m", "--engine-option", "token=hf"), "tokens come from HF_TOKEN"),
        (("--model", "m", "--do_not_save", "--push-to-hub", "a/b"), "contradict each other"),
        (("--model", "m", "--push-to-hub", "a b"), "--push-to-hub 'a b' is not a name on the hub"),
        (("--model", "m", "--model-card", "a/b/c"), "--model-card 'a/b/c' is not a name on the hub"),
        (("--model", "builtin/arithmetic-orm", "--upload-model-metadata-to-hf"), "needs a --model on the hub"),
        (("--model", "m", "--out", "{data}"), "cannot be written: File exists"),
        (("--scores", "{scores}", "--step-delimiter", "x"), "--step-delimiter is of a run that scores"),
        (("--scores", "{scores}", "--num-shards", "1", "--shard", "0"), "--num-shards is of a run that scores"),
        (("--scores", "{scores}", "--retry-errors"), "--retry-errors is of a run that scores"),
        (("--model", "m", "--chat-template", "tulu"), "'tulu' is neither a file nor a Jinja template"),
        (("--model", "m", "--force-truncation", "--truncation", "right"), "--force-truncation is --truncation left"),
        (("--model", "m", "--judge", "--dtype", "float32"), "--dtype is of a reward model that is loaded"),
        (("--model", "m", "--judge", "--rubric", "nowhere.txt"), "--rubric nowhere.txt: there is no such file"),
        (("--model", "m", "--num-shards", "2"), "--shard and --num-shards are said together"),
        (("--model", "m", "--num-shards", "2", "--shard", "2", "--out", "x"), "shards are counted from 0"),
        (("--model", "m", "--num-shards", "2", "--shard", "1"), "need --out DIR"),
        (("--ensemble", "nowhere.yaml"), "nowhere.yaml"),
    ],
)
def test_what_cannot_be_asked_is_bad_usage_and_says_what_to_type(
    arguments: tuple[str, ...], words: str, pairs: str, scores: str, reward_hub: Callable[..., Any]
) -> None:
    said = [argument.replace("{scores}", scores).replace("{data}", pairs) for argument in arguments]
    ended = reward_hub("bench", "--data", pairs, *said)
    assert (ended.code, ended.out) == (2, "")
    assert words in ended.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--load_json",), "--load-json is said of a local file: --dataset FILE"),
        (("--data", "nowhere/pairs"), "there is no file or folder nowhere/pairs"),
        (("--suite", "llmbar", "--data", "nowhere"), "there is no file or folder nowhere"),
        (("--dataset", "nowhere.json", "--load_json"), "there is no file or folder nowhere.json"),
    ],
)
def test_data_that_are_not_there_are_named(
    arguments: tuple[str, ...], words: str, reward_hub: Callable[..., Any]
) -> None:
    ended = reward_hub("bench", "--model", "builtin/arithmetic-orm", *arguments)
    assert ended.code == 2
    assert words in ended.err


def test_options_that_may_be_repeated_may_be_repeated(pairs: str, scores: str, reward_hub: Callable[..., Any]) -> None:
    rules = ("--rule-option", "a=1", "--rule-option", "b=2")
    assert "has no option a, b" in reward_hub("bench", "--data", pairs, "--scores", scores, *rules).err


def test_the_first_items_may_be_counted_by_scores_of_all(
    pairs: str, scores: str, reward_hub: Callable[..., Any]
) -> None:
    ended = reward_hub("bench", "--data", pairs, "--scores", scores, "--limit", "2", "--json")
    assert ended.code == 0, ended.err
    overall = json.loads(ended.out)["metrics"]["overall"]
    assert (overall["accuracy"], overall["n"]) == (0.5, 2)


def test_recorded_scores_do_not_take_the_place_of_a_models_run(
    pairs: str, scores: str, tmp_path: Path, reward_hub: Callable[..., Any]
) -> None:
    out = tmp_path / "run"
    reward_hub("bench", "--data", pairs, "--model", "builtin/arithmetic-orm", "--out", str(out))
    before = (out / "results.json").read_bytes()
    again = ("bench", "--data", pairs, "--scores", scores, "--out", str(out))
    refused = reward_hub(*again)
    assert (refused.code, (out / "results.json").read_bytes()) == (2, before)
    assert "holds the run of a model" in refused.err
    assert reward_hub(*again, "--overwrite").code == 0


def test_scores_of_other_data_are_refused(pairs: str, tmp_path: Path, reward_hub: Callable[..., Any]) -> None:
    other = write(tmp_path / "other.jsonl", [*SCORES, {"id": "z", "chosen_score": 1, "rejected_score": 0}])
    ended = reward_hub("bench", "--data", pairs, "--scores", other)
    assert ended.code == 2
    assert "scores of 1 ids that the data have not, for example 'z'" in ended.err
    short = write(tmp_path / "short.jsonl", [SCORES[0] | {"chosen_score": [1.0, 2.0]}])
    assert "2 scores 'chosen'; the item has 1" in reward_hub("bench", "--data", pairs, "--scores", short).err


def test_the_template_raw_of_rewardbench_is_the_texts_alone(
    pairs: str, tmp_path: Path, reward_hub: Callable[..., Any]
) -> None:
    texts = "{% for message in messages %}{{ message.content }}{% endfor %}"
    scores = []
    for template in ("raw", texts):
        ended = reward_hub(
            *("bench", "--data", pairs, "--model", "builtin/arithmetic-orm", "--chat_template", template),
            *("--out", str(tmp_path / str(len(scores)))),
        )
        assert ended.code == 0, ended.err
        scores.append([row["scores"] for row in lines(tmp_path / str(len(scores)) / "items.jsonl")])
    assert scores[0] == scores[1]


@pytest.mark.parametrize("spelling", ["--load-json", "--load_json"])
def test_a_command_line_of_rewardbench_carries_over(
    spelling: str, tmp_path: Path, reward_hub: Callable[..., Any]
) -> None:
    """`rewardbench --model=... --dataset=... --load_json ...`, in both spellings."""
    long = PAIRS[0]["prompt"] * 40
    data = write(tmp_path / "pairs.jsonl", [PAIRS[0] | {"prompt": long}])
    ended = reward_hub(
        *("bench", "--model=builtin/arithmetic-orm", f"--dataset={data}", spelling, "--batch_size", "8"),
        *(
            "--max_length=32",
            "--force_truncation",
            "--not_quantized",
            "--do_not_save",
            "--disable_beaker_save",
            "--trust_remote_code",
            "--torch_dtype",
            "float32",
        ),
        *("--attn_implementation", "eager", "--output_dir", str(tmp_path / "run"), "--json"),
    )
    assert ended.code == 0, ended.err
    run = json.loads(ended.out)["run"]
    assert run["settings"]["truncation"] == "left"
    assert run["settings"]["attn_implementation"] == "eager"
    assert run["truncation_rate"] == 1.0
    assert run["tokens"] == 64
    assert (tmp_path / "run" / "results.json").exists()


def test_shards_meet_in_one_result_that_is_the_whole_runs(
    pairs: str, tmp_path: Path, reward_hub: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ("bench", "--data", pairs, "--model", "builtin/arithmetic-orm")
    whole = reward_hub(*model, "--out", str(tmp_path / "whole"))
    assert whole.code == 0, whole.err
    out = ("--out", str(tmp_path / "shards"))
    first = reward_hub(*model, *out, "--num-shards", "2", "--shard", "1")
    assert (first.code, first.out) == (0, "")
    assert "Shard 1-of-2 is complete; still to come: 0." in first.err
    # The other one as `accelerate launch` would start it.
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    last = reward_hub(*model, *out)
    assert last.code == 0, last.err
    expected, found = (lines(tmp_path / name / "items.jsonl") for name in ("whole", "shards"))
    for row in (*expected, *found):
        scores = row.pop("scores")
        row["close"] = [round(score, 4) for name in ("chosen", "rejected") for score in scores[name]]
    assert found == expected
    results = json.loads((tmp_path / "shards" / "results.json").read_text())
    assert (results["n"], results["run"]["num_shards"]) == (3, 2)


def test_a_finished_run_is_not_scored_again_and_another_one_does_not_mix_with_it(
    pairs: str, tmp_path: Path, reward_hub: Callable[..., Any]
) -> None:
    model = ("bench", "--data", pairs, "--model", "builtin/arithmetic-orm", "--out", str(tmp_path / "run"))
    first = reward_hub(*model, "--json")
    before = (tmp_path / "run" / "items.jsonl").read_bytes()
    again = reward_hub(*model, "--json")
    assert json.loads(again.out)["metrics"] == json.loads(first.out)["metrics"]
    assert json.loads(again.out)["run"]["ended"] == json.loads(first.out)["run"]["ended"]
    assert (tmp_path / "run" / "items.jsonl").read_bytes() == before
    other = reward_hub(*model, "--max-length", "100")
    assert other.code == 2
    assert "max_length = None; this run has 100" in other.err
    write(Path(pairs), [PAIRS[0] | {"chosen": "changed"}, *PAIRS[1:]])
    changed = reward_hub(*model)
    assert changed.code == 2
    assert "has changed" in changed.err
    assert reward_hub(*model, "--overwrite").code == 0


def test_a_finished_run_of_a_checkpoint_that_has_changed_since_is_refused(
    pairs: str, tmp_path: Path, reward_hub: Callable[..., Any]
) -> None:
    from safetensors.numpy import load_file, save_file

    from reward_hub.builtin import path as folder_of

    model = tmp_path / "model"
    shutil.copytree(folder_of("arithmetic-orm"), model)
    ensemble = tmp_path / "ensemble.yaml"
    ensemble.write_text(f"members: [{{model: {model}}}]\n")
    runs = [
        ("bench", "--data", pairs, option, str(path), "--out", str(tmp_path / option))
        for option, path in (("--model", model), ("--ensemble", ensemble))
    ]
    assert [reward_hub(*run).code for run in runs] == [0, 0]
    os.utime(model / "config.json")  # written anew, with the same words
    assert [reward_hub(*run).code for run in runs] == [0, 0]
    tensors = {name: -tensor for name, tensor in load_file(model / "model.safetensors").items()}
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    for ended in [reward_hub(*run) for run in (*runs, *runs)]:
        assert ended.code == 2
        assert "was scored by another model" in ended.err


def test_an_ensemble_file_that_says_something_else_is_another_model(
    pairs: str, tmp_path: Path, reward_hub: Callable[..., Any]
) -> None:
    file = tmp_path / "ensemble.yaml"
    run = ("bench", "--data", pairs, "--ensemble", str(file), "--out", str(tmp_path / "run"))
    file.write_text("members: [{model: builtin/arithmetic-orm}]\n")
    assert reward_hub(*run).code == 0
    file.write_text("members: [{model: builtin/arithmetic-orm, weight: 2}]\nreduce: max\n")
    ended = reward_hub(*run)
    assert ended.code == 2
    assert "was made with ensemble_sha256" in ended.err
    file.write_text("{")
    assert reward_hub(*run).code == 2


def test_a_run_in_another_number_of_shards_does_not_mix_with_what_is_there(
    pairs: str, tmp_path: Path, reward_hub: Callable[..., Any]
) -> None:
    run = ("bench", "--data", pairs, "--model", "builtin/arithmetic-orm", "--out", str(tmp_path / "run"))
    assert reward_hub(*run).code == 0
    sharded = (*run, "--num-shards", "2", "--shard", "0")
    ended = reward_hub(*sharded)
    assert ended.code == 2
    assert "holds a run in another number of shards" in ended.err
    assert reward_hub(*sharded, "--overwrite").code == 0
    assert {path.name.partition("-of-")[2][0] for path in (tmp_path / "run" / "parts").iterdir()} == {"2"}


def test_runs_over_different_data_of_the_same_ids_are_not_compared(
    pairs: str, scores: str, tmp_path: Path, reward_hub: Callable[..., Any]
) -> None:
    """Rows without an id are numbered, so that any two data sets share theirs."""
    reward_hub("bench", "--data", pairs, "--scores", scores, "--out", str(tmp_path / "one"))
    for column, words in (("prompt", "has another prompt"), ("chosen", "has other responses")):
        other = write(tmp_path / "other.jsonl", [row | {column: "quite another"} for row in PAIRS])
        reward_hub("bench", "--data", other, "--scores", scores, "--out", str(tmp_path / "two"))
        ended = reward_hub("bench", "compare", str(tmp_path / "one"), str(tmp_path / "two"))
        assert ended.code == 2
        assert f"item 'a' {words}" in ended.err


def test_what_cannot_be_compared_is_named(tmp_path: Path, reward_hub: Callable[..., Any]) -> None:
    for text, words in (
        ('{"id": 1', "is not what a run wrote"),
        ('{"id": "1", "subset": null}\n', "nothing to compare"),
    ):
        (tmp_path / "items.jsonl").write_text(text)
        ended = reward_hub("bench", "compare", str(tmp_path), str(tmp_path))
        assert ended.code == 2
        assert f"{tmp_path / 'items.jsonl'} " in ended.err
        assert words in ended.err


def test_two_runs_are_compared_item_by_item(
    pairs: str, scores: str, tmp_path: Path, reward_hub: Callable[..., Any]
) -> None:
    """One item differs: McNemar's exact p-value of one disagreement is 1."""
    better = write(tmp_path / "better.jsonl", [SCORES[0], SCORES[1] | {"chosen_score": 1.0}, SCORES[2]])
    for name, file in (("one", scores), ("two", better)):
        reward_hub("bench", "--data", pairs, "--scores", file, "--out", str(tmp_path / name))
    ended = reward_hub("bench", "compare", str(tmp_path / "one"), str(tmp_path / "two"), "--json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert found["difference"]["difference"] == pytest.approx(1 / 3)
    assert (found["mcnemar"]["first_only"], found["mcnemar"]["second_only"]) == (0, 1)
    assert found["mcnemar"]["p_value"] == 1.0
    shown = reward_hub("bench", "compare", str(tmp_path / "one"), str(tmp_path / "two"))
    (difference,) = (line for line in shown.out.splitlines() if "+0.3333" in line)
    assert " ".join(difference.split()).startswith(f"{tmp_path / 'two'} less {tmp_path / 'one'} +0.3333")
    turned = reward_hub("bench", "compare", str(tmp_path / "two"), str(tmp_path / "one"), "--json")
    assert json.loads(turned.out)["difference"]["difference"] == pytest.approx(-1 / 3)
    assert reward_hub("bench", "compare", str(tmp_path / "one"), str(tmp_path)).code == 2


def test_logged_scores_of_instructions_have_no_accuracy(tmp_path: Path, reward_hub: Callable[..., Any]) -> None:
    turns = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "r"}]
    data = write(tmp_path / "rows.jsonl", [{"messages": turns, "subset": "s"}, {"messages": turns}])
    scores = write(tmp_path / "scores.jsonl", [{"id": 1, "score": 1.0}, {"id": 2, "score": 4.0}])
    ended = reward_hub("bench", "--data", data, "--scores", scores, "--json")
    results = json.loads(ended.out)
    assert (results["form"], results["rule"]) == ("instruction", None)
    assert (results["metrics"]["overall"]["mean"], results["metrics"]["subsets"]["s"]["mean"]) == (2.5, 1.0)
    assert "accuracy" not in results["metrics"]["overall"]


def test_tools_belong_to_every_item(
    golden_models: GoldenModels, tmp_path: Path, reward_hub: Callable[..., Any]
) -> None:
    model = str(golden_models.checkpoint(GoldenSet("seqcls-qwen2", "own")))
    template = "{{ tools | tojson if tools }}{% for m in messages %}{{ m.content }}\n{% endfor %}"
    tools, others = [{"name": "add"}], [{"name": "look"}]
    rows = [PAIRS[0], {**PAIRS[1], "tools": tools}, {**PAIRS[2], "tools": others}]
    data, out = write(tmp_path / "rows.jsonl", rows), tmp_path / "run"
    asked = ("bench", "--data", data, "--tools", json.dumps(tools), "--out", str(out))
    ended = reward_hub(*asked, "--model", model, "--chat-template", template)
    assert ended.code == 1, ended.err
    first, second, third = lines(out / "items.jsonl")
    with AutoRM.load(model, chat_template=template) as rm:
        for row, found in ((PAIRS[0], first), (PAIRS[1], second)):
            for name in ("chosen", "rejected"):
                expected = rm.score(prompt=row["prompt"], response=row[name], tools=tools)
                assert found["scores"][name] == [pytest.approx(expected, abs=1e-5)]
    assert "a message has others" in third["error"]["message"]
    recorded = reward_hub(*asked[:-2], "--scores", write(tmp_path / "scores.jsonl", SCORES))
    assert (recorded.code, "--tools is of a run that scores" in recorded.err) == (2, True)
