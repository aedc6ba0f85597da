"""Makes `compare` honest on problems too hard for the model; needs `pip install 'reward_hub[transformers]'`."""

import random

from reward_hub import AutoRM, calibrate
from reward_hub.builtin.problems import make_pair

rng = random.Random(0)
# The model was trained on numbers up to 99; here they go up to 200.
made = [make_pair(rng, "train", largest=200) for _ in range(300)]
pairs = [{"prompt": p.problem.text, "chosen": p.chosen.response(), "rejected": p.rejected.response()} for p in made]

with AutoRM.load("builtin/arithmetic-orm") as raw:
    for method in ("temperature", "isotonic"):
        rm = calibrate(raw, pairs, method=method)
        report = rm.report
        print(f"{method}: {report.n_pairs} pairs, of which {report.accuracy:.1%} right; on held-out pairs")
        print(f"  calibration error {report.ece_before:.3f} before, {report.ece_after:.3f} afterwards")
        print(f"  log-loss          {report.log_loss_before:.3f} before, {report.log_loss_after:.3f} afterwards")
        question = {"prompt": pairs[0]["prompt"], "a": pairs[0]["chosen"], "b": pairs[0]["rejected"]}
        print(f"  one pair: {raw.compare(**question):.3f} before, {rm.compare(**question):.3f} calibrated")
