"""vLLM in a process and an environment of its own; stands alone, as that environment has nothing of ours.

    python vllm_worker.py CHECKPOINT DTYPE

A line of standard input is a JSON list of conversations; a line of standard output the CPU seconds and the scores.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


def main() -> None:
    # vLLM prints; only answers go to where the caller reads.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": "1"}
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    import torch
    import vllm

    torch.set_num_threads(1)
    checkpoint, dtype = sys.argv[1:]
    engine: Any = vllm.LLM(
        checkpoint,
        runner="pooling",
        convert="classify",
        dtype=dtype,
        max_model_len=4096,
        enable_prefix_caching=True,
        enforce_eager=True,
        distributed_executor_backend="uni",
    )
    tokenizer = engine.get_tokenizer()
    parameters = vllm.PoolingParams(use_activation=False)
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        started = time.process_time()
        texts = [tokenizer.apply_chat_template(messages, tokenize=False) for messages in json.loads(line)]
        outputs = engine.encode(texts, parameters, pooling_task="classify", use_tqdm=False)
        scores = [float(output.outputs.data.flatten()[0]) for output in outputs]
        print(json.dumps([time.process_time() - started, scores]), file=answers, flush=True)


if __name__ == "__main__":
    main()
