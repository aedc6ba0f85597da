"""Evaluate a small built-in model on pairs, and read what the run wrote. Needs: reward_hub[transformers]."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

PAIRS = [
    {"subset": "add", "prompt": "Ann has 2 eggs and finds 3.", "chosen": "2 + 3 = 5", "rejected": "2 + 3 = 6"},
    {"subset": "add", "prompt": "Bob has 4 pens and buys 4.", "chosen": "4 + 4 = 8", "rejected": "4 + 4 = 9"},
    {"subset": "take", "prompt": "Cy has 9 nuts and eats 2.", "chosen": "9 - 2 = 7", "rejected": "9 - 2 = 5"},
]

with tempfile.TemporaryDirectory() as folder:
    data, out = Path(folder, "pairs.jsonl"), Path(folder, "run")
    data.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    command = ["bench", "--data", str(data), "--model", "builtin/arithmetic-orm", "--out", str(out)]
    subprocess.run([sys.executable, "-m", "reward_hub", *command], check=True)

    results = json.loads((out / "results.json").read_text())
    print("accuracy", results["metrics"]["overall"]["accuracy"])
    for line in (out / "items.jsonl").read_text().splitlines():
        item = json.loads(line)
        print(item["id"], item["subset"], item["scores"], "right" if item["correct"] else "wrong")
