"""Ranks solutions by two built-in models as one, on one scale; needs `pip install 'reward_hub[transformers]'`."""

import json
from importlib.resources import files

from reward_hub import AutoRM, EnsembleRM

problems = json.loads(files("reward_hub.builtin").joinpath("demo.json").read_text(encoding="utf-8"))
solutions = [
    [{"role": "user", "content": problem["prompt"]}, {"role": "assistant", "content": response}]
    for problem in problems
    for response in problem["responses"]
]

# One gives logits without bounds, the other probabilities: their z-scores can be averaged.
with EnsembleRM(
    [(AutoRM.load("builtin/arithmetic-orm"), 0.5), (AutoRM.load("builtin/arithmetic-prm"), 0.5)], normalize="zscore"
) as rm:
    rm.fit(solutions)
    for problem in problems:
        prompt, responses = problem["prompt"], problem["responses"]
        ranking, details = rm.rank(prompt=prompt, responses=responses, return_details=True)
        print(f"\n{prompt}")
        for i in ranking:
            members = ", ".join(f"{member['scores'][i]:+.2f}" for member in details["members"])
            verdict = "right" if problem["first_errors"][i] == -1 else "wrong"
            print(f"  {details['scores'][i]:+.2f}  ({members})  {verdict}: {responses[i].splitlines()[-1]}")
