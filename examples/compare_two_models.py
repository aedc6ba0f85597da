"""Rates recorded scores of two models as RewardBench does and tests the difference; needs `pip install reward_hub`."""

import random

from reward_hub.bench.bias import bias_of
from reward_hub.bench.rules import rewardbench
from reward_hub.bench.statistics import compare_runs


def recorded(skill, taste_for_length, seed):
    """Made-up scores: how well a model tells right from wrong, and how much it likes long responses."""
    rng, rows = random.Random(0), []
    noise = random.Random(seed)
    for subset in rewardbench.EXAMPLE_COUNTS:
        for i in range(60):
            lengths = {"chosen": rng.randint(50, 1500), "rejected": rng.randint(50, 1500)}
            better = {"chosen": skill, "rejected": 0.0}
            scores = {k: [better[k] + taste_for_length * n / 1000 + noise.gauss(0, 1)] for k, n in lengths.items()}
            described = {k: [{"characters": n}] for k, n in lengths.items()}
            rows.append({"id": f"{subset}-{i}", "subset": subset, "scores": scores, "responses": described})
    return rows


runs = {"plain": recorded(1.0, 0.0, seed=1), "likes length": recorded(1.2, 1.5, seed=2)}
results = {name: rewardbench.score(rows) for name, rows in runs.items()}
for name, result in results.items():
    overall, gap = result.metrics["overall"], bias_of(runs[name])["accuracy_gap"]
    low, high = overall["ci95"]
    print(f"{name:12}  overall {overall['accuracy']:.3f} [{low:.3f}, {high:.3f}]  longer - shorter {gap:+.3f}")
items = [[vars(item) for item in result.items] for result in results.values()]
found = compare_runs(*items)
low, high = found.difference.ci95
print(
    f"difference {found.difference.difference:+.3f} [{low:+.3f}, {high:+.3f}], McNemar p = {found.mcnemar.p_value:.2g}"
)
