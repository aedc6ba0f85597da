"""Keeps scores on disk, so that the second run asks no model; needs `pip install 'reward_hub[transformers]'`."""

from reward_hub import AutoRM, CachedRM

prompt = "Ann has 16 eggs. She sells 3. Then she buys 5 more. How many eggs are there?"
responses = ["16 - 3 = 13\n\n13 + 5 = 18", "16 - 3 = 12\n\n12 + 5 = 17"]

with CachedRM(AutoRM.load("builtin/arithmetic-orm"), cache_dir="./rm_cache") as rm:
    for response in responses:
        score, details = rm.score(prompt=prompt, response=response, return_details=True)
        print(f"{score:8.3f}  {'from the cache' if details['cached'] else 'computed'}")
    print(rm.rank(prompt=prompt, responses=responses))  # made of the scores above: asks nothing
    print({name: rm.stats()[name] for name in ("hits", "misses", "entries", "size_bytes")})
