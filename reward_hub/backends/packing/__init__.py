"""Scoring without padding: which tokens go through the model in one row, and attention that keeps them apart."""
