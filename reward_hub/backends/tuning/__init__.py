"""What `tune=True` does to a transformers model on a CPU: faster ways to compute the same, tried and measured."""
