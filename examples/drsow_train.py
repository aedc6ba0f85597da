"""Trains DrSow to prefer kind answers, over a tiny random model; needs `pip install 'reward_hub[train]'`."""

import json
import random
import tempfile
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, set_seed

from reward_hub import DrSow

TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
TEMPLATE += "{% if add_generation_prompt %}<|assistant|>{% endif %}"

set_seed(1)
with tempfile.TemporaryDirectory() as folder:
    pairs, base = Path(folder, "pairs.jsonl"), Path(folder, "base")
    with pairs.open("w") as file:
        for i in range(200):
            kind = random.choice(["With pleasure", "Thank you", "Glad to help", "Of course"])
            rude = random.choice(["Go away", "How stupid", "Who cares", "See yourself"])
            row = {"chosen": f"{kind}, {random.random()}", "rejected": f"{rude}, {random.random()}"}
            file.write(json.dumps({"prompt": f"Number {i}?", **row}) + "\n")

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    plain = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    plain.pre_tokenizer, plain.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<|end|>", chat_template=TEMPLATE)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|assistant|>"]})
    tokenizer.save_pretrained(base)
    size = {"vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    Qwen2ForCausalLM(Qwen2Config(**size, num_attention_heads=4, num_key_value_heads=2)).save_pretrained(base)

    rm = DrSow(base_model=base, preference_data=pairs, device="cpu")
    print(rm.train(output_dir=Path(folder, "run"), epochs=3, show_progress=True))
    print(
        rm.score(prompt="Number 7?", response="Thank you, 0.5"), rm.score(prompt="Number 7?", response="Go away, 0.5")
    )
