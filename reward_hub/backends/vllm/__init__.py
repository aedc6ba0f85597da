"""vLLM: the engine in this process, and the plan by which engines and servers are started."""
