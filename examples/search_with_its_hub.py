"""Searches of its_hub with built-in models; needs `pip install 'reward_hub[transformers]' its-hub`."""

import random

from its_hub import AbstractLanguageModel, BestOfN
from its_hub.core.algorithms.particle_gibbs import ParticleFiltering
from its_hub.core.lms.step_generation import StepGeneration

from reward_hub import AutoRM
from reward_hub.integrations.its_hub import RewardHubORM, RewardHubPRM

PROMPT = "At first, Omar has 12 coins. Then Omar gets 15 more. Omar gives away 6. How many coins are there now?"
random.seed(0)


class Careless(AbstractLanguageModel):
    """Stands for a language model: 12 + 15 - 6 step by step, off by one in half of the steps."""

    def next_step(self, steps):
        if len(steps) == 2:
            return f"The answer is {steps[1].split()[-1]}."
        left, operator, right = (12, "+", 15) if not steps else (int(steps[0].split()[-1]), "-", 6)
        return f"{left} {operator} {right} = {(left + 15 if not steps else left - 6) + random.choice((0, 0, -1, 1))}"

    async def agenerate_single(self, messages, **options):
        steps = []
        while len(steps) < 3:
            steps.append(self.next_step(steps))
        return {"role": "assistant", "content": "\n\n".join(steps)}

    async def agenerate(self, messages, **options):
        partials = [turns[-1].content.strip().split("\n\n") if len(turns) > 1 else [] for turns in messages]
        return [{"role": "assistant", "content": self.next_step(steps)} for steps in partials]


with AutoRM.load("builtin/arithmetic-orm") as orm, AutoRM.load("builtin/arithmetic-prm") as prm:
    steps = StepGeneration(max_steps=5, step_token="\n\n", stop_token="The answer is")
    for search in (BestOfN(RewardHubORM(orm)), ParticleFiltering(steps, RewardHubPRM(prm))):
        print(type(search).__name__, repr(search.infer(Careless(), PROMPT, budget=8)["content"]))
