"""Shows how step scores come to be: the tokens that are read, and the debug log; needs reward_hub[transformers]."""

import logging

from reward_hub import AutoRM

prompt = "Ann has 16 eggs. She sells 3. Then she buys 5 more. How many eggs are there?"
response = "16 - 3 = 12\n\n12 + 5 = 17"

logging.basicConfig(format="%(name)s: %(message)s")
with AutoRM.load("builtin/arithmetic-prm") as rm:
    logging.getLogger("reward_hub").setLevel(logging.DEBUG)
    step_scores, details = rm.score_steps(prompt=prompt, response=response, return_details=True)

for score, token, (start, end) in zip(step_scores, details["read_tokens"], details["step_spans"], strict=True):
    print(f"{score:.4f} at token {token['index']} {token['text']!r}, after {response[start:end]!r}")
print(f"{details['tokens_scored']} tokens; dropped: {details['dropped'] or 'nothing'}")
# The same on the command line, with all tokens: reward-hub inspect builtin/arithmetic-prm --explain PROMPT RESPONSE
