"""How fast reward models are scored, beside the ways in which others score them.

    python -m benchmarks.speed                         every workload (about five minutes on a calm machine)
    python -m benchmarks.speed --workload pairs-64     one of them; --help lists the names and the options
    python -m benchmarks.speed --write-docs            docs/speed.md from the newest result

All methods but vLLM run in one process, on one torch thread, by turns in a new order in every repeat. What is measured
is the CPU time of the process; a ratio is taken within its repeat. `workloads/` has what is scored, `methods/` how.
"""
