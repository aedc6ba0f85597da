"""Tokenizers by the files that a checkpoint has; `reward_hub.tokenizer` finds the right one."""
