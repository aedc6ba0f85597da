"""Published benchmarks, one file each: where the data are and how their rows are read, and how scored rows are counted.

A file ends with `BENCHMARK`, which holds both; there is no other list. `preference` and `best_of_n` count data of that
form from anywhere.

Rules are pure functions over scored rows and call no model: each is `score(rows) -> BenchResult`, some with options of
their own. A row is a mapping as it stands in items.jsonl, with `id`, `subset` (or None) and either `scores`, higher is
better (negate costs before), or `error`:

- preference: `{"scores": {"chosen": [...], "rejected": [...]}}`, or for models that compare
  `{"scores": {"probabilities": [...]}}`, the probability that the chosen response is the better one, once per order in
  which the two were shown, None for an order without a verdict;
- steps: `{"scores": {"steps": [...]}, "label": first wrong step from 0 or -1}`, or `error_steps` counted from 1;
- best of n: `{"scores": {"candidates": [...]}, "grades": [...], "answers": [...] (optional)}`.

A row with an error, or with a score that is missing, NaN or infinite, is a failed item. It counts as wrong unless its
rule says otherwise, is listed with its reason in `BenchResult.items` and counted in `BenchResult.n_failed`.
"""
