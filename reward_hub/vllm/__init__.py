"""Old names, of reward_hub 0.1; vLLM itself is run by `reward_hub.backends.vllm.engine`."""
