"""Servers of others and how they are spoken to: ONE FILE PER DIALECT, each ending with `DIALECT`."""
