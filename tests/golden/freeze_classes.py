"""Write tests/data/class_logprobs.json: tiny models of many classes, and what transformers' own class makes of them.

python tests/golden/freeze_classes.py writes it with the release at hand; tests/backends/test_releases.py holds every
release to it. Weights come from a seed and configs are complete: of a release's own only its forward goes in.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import transformers
from model_classes import tiny_config
from safetensors.torch import load_file

from reward_hub.testing import make_checkpoint

FILE = Path(__file__).parents[1] / "data" / "class_logprobs.json"
TOKEN_IDS = [(7 * i * i + 3) % 900 + 3 for i in range(40)]
POSITIONS = [1, 2, 20, 38, 39]
MAMBA: dict[str, Any] = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1}
HYBRID: dict[str, Any] = {**MAMBA, "layer_types": ["mamba", "attention"], "num_local_experts": 0}
TYPES: dict[str, dict[str, Any]] = {
    **{name: {} for name in ("bloom", "exaone4", "gemma3_text", "glm4", "gpt2", "gpt_neox", "llama", "mistral")},
    **{name: {} for name in ("nemotron", "olmo2", "opt", "phi", "phi3", "qwen2", "qwen3", "starcoder2")},
    "bamba": {**MAMBA, "attn_layer_indices": [1]},
    "cohere": {"logit_scale": 0.25},
    "cohere2": {"logit_scale": 0.25, "sliding_window": 8},
    "falcon_h1": {**MAMBA, "mamba_d_ssm": 64},
    "gemma": {"hidden_act": "gelu_pytorch_tanh"},
    "gemma2": {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 2.0, "sliding_window": 8},
    "granite": {"logits_scaling": 5.0, "attention_multiplier": 0.3, "residual_multiplier": 0.7},
    "granitemoehybrid": {**HYBRID, "shared_intermediate_size": 48, "logits_scaling": 5.0},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "mixtral": {"num_experts_per_tok": 2},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "stablelm": {"partial_rotary_factor": 0.25},
}


def spec_of(model: Any) -> dict[str, Any]:
    """The config as a checkpoint stores it, and its tensors with the mean and deviation of the class's own start."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tensors = load_file(Path(folder) / "model.safetensors")
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    del config["transformers_version"]
    made = {
        name: {
            "shape": list(tensor.shape),
            "mean": round(float(tensor.mean()), 2),
            "std": max(round(float(tensor.std(correction=0)), 2), 0.1),
        }
        for name, tensor in sorted(tensors.items())
    }
    return {"seed": 5, "config": config, "files": {"model.safetensors": made}}


def logprobs(folder: Path) -> list[float]:
    """Of the tokens at POSITIONS, by the class; eager, since sdpa leaves out a cap on attention in some releases."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.inference_mode():
        table = torch.log_softmax(model.eval()(torch.tensor([TOKEN_IDS]), use_cache=False).logits[0], -1)
    return [float(table[position - 1, TOKEN_IDS[position]]) for position in POSITIONS]


def main() -> None:
    models = {}
    for model_type, values in sorted(TYPES.items()):
        torch.manual_seed(3)
        spec = spec_of(transformers.AutoModelForCausalLM.from_config(tiny_config(model_type, **values)).float())
        with tempfile.TemporaryDirectory() as folder:
            models[model_type] = {"spec": spec, "logprobs": logprobs(make_checkpoint(folder, spec))}
    header = {"transformers": transformers.__version__, "token_ids": TOKEN_IDS, "positions": POSITIONS}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(model)}" for name, model in models.items())
    FILE.write_text(json.dumps(header)[:-1] + ', "models": {\n' + lines + "\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
