"""A package that adds one of each: a family, a backend, a judge's form, a benchmark and a command."""
