"""A family on a backend as a reward model: one file a kind, and the client of our own server."""
