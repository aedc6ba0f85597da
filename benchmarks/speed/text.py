"""Made-up prose of a wanted length, and a BPE tokenizer trained on it: the same in every run, and nobody's data."""

from __future__ import annotations

import random
from functools import cache
from itertools import accumulate
from typing import Any

SYLLABLES = [consonant + vowel for consonant in "bcdfghlmnprstvw" for vowel in "aeiou"] + [
    *("a", "e", "i", "o", "an", "el", "en", "er", "in", "is", "on", "or", "us", "ly", "tion", "sta", "tra", "qua")
]
N_WORDS = 12_000
N_TRAINED_ON = 300_000
TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# ChatML, and the same with one token at the end of a turn, as recipes that count tokens from the end want it.
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
)
CHATML_CLOSED = CHATML.replace("<|im_end|>\n", "<|im_end|>")


class Words:
    """Words by Zipf's law, joined into sentences."""

    def __init__(self) -> None:
        generator = random.Random(0)
        words: dict[str, None] = {}
        while len(words) < N_WORDS:
            words["".join(generator.choices(SYLLABLES, k=generator.choice((1, 1, 2, 2, 3, 4))))] = None
        self._words = sorted(words, key=lambda word: (len(word) + generator.random() * 6, word))
        self._weights = list(accumulate(1 / (rank + 3) for rank in range(N_WORDS)))

    def sentence(self, generator: random.Random) -> str:
        words = generator.choices(self._words, cum_weights=self._weights, k=generator.randint(4, 18))
        if len(words) > 9:
            words[len(words) // 2] += ","
        return f"{' '.join(words).capitalize()}{generator.choice('....?')}"


@cache
def trained_tokenizer(size: int) -> Any:
    """A byte-level BPE of `size` pieces."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    pieces = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pieces, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(TOKENS), initial_alphabet=alphabet, show_progress=False
    )
    words, generator = Words(), random.Random(1)
    made.train_from_iterator((words.sentence(generator) for _ in range(N_TRAINED_ON // 11)), trainer)
    return made


class Writer:
    """Texts of a wanted number of tokens."""

    def __init__(self, tokenizer: Any, seed: int) -> None:
        self._words = Words()
        self._tokenizer = tokenizer
        self.generator = random.Random(seed)

    def text(self, n_tokens: int) -> str:
        """Sentences of about so many tokens together; the last one is cut at a word."""
        words: list[str] = []
        n = 0
        while n < n_tokens:
            sentence = self._words.sentence(self.generator).split()
            for word in sentence:
                if n >= n_tokens and words:
                    break
                words.append(word)
                n += len(self._tokenizer.encode(f" {word}").ids)
        return " ".join(words)

    def about(self, n_tokens: int) -> int:
        """A length near to this one: answers to one prompt are of several lengths."""
        return max(2, round(n_tokens * self.generator.uniform(0.6, 1.45)))
