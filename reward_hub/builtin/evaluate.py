"""Measure a built-in model on held-out problems: `python -m reward_hub.builtin.evaluate orm|prm`."""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass

from reward_hub.auto import AutoRM
from reward_hub.base import BaseRM
from reward_hub.builtin.problems import held_out_pairs, held_out_solutions

# As ProcessBench reads a process model, a step below this is called wrong.
THRESHOLD = 0.5


@dataclass(frozen=True)
class PairAccuracy:
    """Share of pairs whose chosen response has the higher score."""

    n_pairs: int
    pair_accuracy: float

    def __str__(self) -> str:
        return f"pair accuracy {self.pair_accuracy:.1%} on {self.n_pairs} held-out pairs"


@dataclass(frozen=True)
class FirstErrorF1:
    """Share of wrong solutions whose first wrong step is found exactly, of right ones passed, and the harmonic mean."""

    n_solutions: int
    error_accuracy: float
    correct_accuracy: float

    @property
    def f1(self) -> float:
        total = self.error_accuracy + self.correct_accuracy
        return 2 * self.error_accuracy * self.correct_accuracy / total if total else 0.0

    def __str__(self) -> str:
        return (
            f"first-error F1 {self.f1:.1%} on {self.n_solutions} held-out solutions "
            f"(of wrong ones {self.error_accuracy:.1%} marked at the first error, of right ones "
            f"{self.correct_accuracy:.1%} passed)"
        )


def pair_accuracy(rm: BaseRM, n: int, *, seed: int = 0) -> PairAccuracy:
    """Score both responses of `n` held-out pairs with an outcome model."""
    pairs = held_out_pairs(n, seed=seed)
    conversations = [
        [
            {"role": "user", "content": pair.problem.text},
            {"role": "assistant", "content": solution.response()},
        ]
        for pair in pairs
        for solution in (pair.chosen, pair.rejected)
    ]
    scores = rm.score_batch(conversations)
    wins = [chosen > rejected for chosen, rejected in zip(scores[0::2], scores[1::2], strict=True)]
    return PairAccuracy(n_pairs=n, pair_accuracy=sum(wins) / n)


def first_error_f1(rm: BaseRM, n: int, *, seed: int = 0) -> FirstErrorF1:
    """Score the steps of `n` held-out solutions, half of them wrong, with a process model."""
    solutions = held_out_solutions(n, seed=seed)
    rows = [
        {"messages": [{"role": "user", "content": problem.text}], "steps": list(solution.steps)}
        for problem, solution in solutions
    ]
    predictions = [_first_below(step_scores) for step_scores in rm.score_steps_batch(rows)]
    right: list[bool] = []
    wrong: list[bool] = []
    for (_, solution), prediction in zip(solutions, predictions, strict=True):
        (right if solution.first_error == -1 else wrong).append(prediction == solution.first_error)
    return FirstErrorF1(n_solutions=n, error_accuracy=sum(wrong) / len(wrong), correct_accuracy=sum(right) / len(right))


def _first_below(step_scores: Sequence[float]) -> int:
    return next((i for i, score in enumerate(step_scores) if score < THRESHOLD), -1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a built-in model on held-out problems.")
    parser.add_argument("kind", choices=("orm", "prm"))
    parser.add_argument("--n", type=int, default=1000, help="held-out pairs (orm) or solutions (prm)")
    parser.add_argument("--seed", type=int, default=0, help="which held-out problems")
    parser.add_argument("--checkpoint", help="a folder; by default what is shipped")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    arguments = parser.parse_args()
    if arguments.n < 2:
        parser.error("--n must be at least 2.")
    with AutoRM.load(arguments.checkpoint or f"builtin/arithmetic-{arguments.kind}", load_method="transformers") as rm:
        if arguments.kind == "orm":
            figures = dataclasses.asdict(accuracy := pair_accuracy(rm, arguments.n, seed=arguments.seed))
            line = str(accuracy)
        else:
            figures = dataclasses.asdict(f1 := first_error_f1(rm, arguments.n, seed=arguments.seed)) | {"f1": f1.f1}
            line = str(f1)
    print(json.dumps(figures) if arguments.json else line)


if __name__ == "__main__":
    main()
