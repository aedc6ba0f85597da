"""How a language model is asked: the clients, their limits, one judgement's questions."""
