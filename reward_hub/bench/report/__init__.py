"""The report over runs: one page that needs no network, and its figures."""
