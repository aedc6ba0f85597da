"""What a family's `encode` is built from: rendering, tokenising once, finding the positions that are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from reward_hub.errors import CheckpointError, InvalidConversationError
from reward_hub.tokenizer import Tokenizer
from reward_hub.tokenizers.special_tokens import tokens_around
from reward_hub.types import (
    Config,
    Conversation,
    Message,
    NoResponseError,
    TokenInput,
    last_position,
    template_arguments,
)


def chat_ids(messages: Sequence[Message], tokenizer: Tokenizer) -> list[int]:
    """The chat template's text as ids, nothing added: what `apply_chat_template` gives."""
    return tokenizer.encode(tokenizer.render(messages))


# Enough of a text to hold whatever a tokenizer puts in front, and more tokens behind it.
_HEAD = 500


def special_tokens_around(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before and behind a text: the truth about its bos, whatever its config names so.

    Raises:
        CheckpointError: it changes the text's own tokens when it adds special ones.
    """
    known: tuple[list[int], list[int]] | None = getattr(tokenizer, "around", None)  # a caller's own does not say it
    return tokens_around(tokenizer) if known is None else known


def opening_length(text: str, tokenizer: Tokenizer) -> int:
    """How many characters at the start of a rendered text are what the tokenizer puts in front by itself.

    Token ids tell it, not names: a prefix may have several tokens ([gMASK]<sop>), or none that is called bos.
    """
    prefix, _ = special_tokens_around(tokenizer)
    if not prefix:
        return 0
    opening: str | None = getattr(tokenizer, "opening", None)
    if opening is not None and text.startswith(opening):
        return len(opening)
    token_ids, offsets = tokenizer.encode_with_offsets(text[:_HEAD])
    if token_ids[: len(prefix)] != prefix:
        return 0
    return max(end for _, end in offsets[: len(prefix)])


def opened_once(text: str, tokenizer: Tokenizer) -> list[int]:
    """A rendered text with the tokenizer's own special tokens; what it puts in front is not doubled."""
    return tokenizer.encode(text[opening_length(text, tokenizer) :], add_special_tokens=True)


def one_bos_ids(messages: Sequence[Message], tokenizer: Tokenizer, *, remove_every_bos: bool = False) -> list[int]:
    """The chat template's text with the tokenizer's own special tokens, and never two bos in front.

    Args:
        remove_every_bos: also where a message spells the bos token, as cards with `text.replace(bos_token, "")` do.
    """
    text = tokenizer.render(messages)
    if remove_every_bos and tokenizer.bos_token:
        text = text.replace(tokenizer.bos_token, "")
    return opened_once(text, tokenizer)


def two_bos_ids(messages: Sequence[Message], tokenizer: Tokenizer, *, suffix: str = "") -> list[int]:
    """The chat template's text given to the tokenizer like any text, which puts its own bos before the template's."""
    return tokenizer.encode(tokenizer.render(messages) + suffix, add_special_tokens=True)


def question_and_answer(conversation: Conversation) -> tuple[str, str]:
    """The two texts of a conversation that is one question of the user's and one answer.

    Raises:
        InvalidConversationError: it has more turns or a system prompt, for which the family's recipe has no text.
    """
    if [message.role for message in conversation.prompt] != ["user"]:
        roles = ", ".join(message.role for message in conversation.messages)
        raise InvalidConversationError(
            f"this family scores one question and one answer, and its recipe has no text for the turns {roles}. Give "
            "a single user message and the response.",
            field="messages",
        )
    return conversation.prompt[0].text, conversation.response


def refuse_template_arguments(messages: Sequence[Message], who: str) -> None:
    """For those who read a conversation without a chat template of its own.

    Raises:
        InvalidConversationError: the conversation has `tools` or arguments for the template; `who` says who cannot read
            them.
    """
    names = list(template_arguments(messages))
    if names:
        raise InvalidConversationError(
            f"{who}: {', '.join(map(repr, names))} would be ignored. Leave them out, or use a model that renders with "
            "its checkpoint's chat template.",
            field=names[0],
        )


def read_last(token_ids: list[int], *, n_kept_last: int = 0, passed_over: int | None = None) -> TokenInput:
    """Read at the last token that is not `passed_over`, as stock classifiers pass over their pad token."""
    if not token_ids:
        raise InvalidConversationError("the conversation has no token to read at.", field="messages")
    position = last_position(token_ids, passed_over)
    return TokenInput(token_ids, [position], n_kept_last=n_kept_last, passed_over=passed_over)


def last_match(token_ids: Sequence[int], pattern: Sequence[int], what: str) -> int:
    """Where `pattern` starts for the last time in `token_ids`.

    Raises:
        InvalidConversationError: it does not occur.
    """
    width = len(pattern)
    for start in range(len(token_ids) - width, -1, -1):
        if list(token_ids[start : start + width]) == list(pattern):
            return start
    raise InvalidConversationError(f"{what} does not occur in the rendered conversation.", field="messages")


def gate_and_last(token_ids: list[int], header: str, tokenizer: Tokenizer) -> TokenInput:
    """Read where `header` starts for the last time (look-alike text in the response included), and the last token."""
    gate = last_match(token_ids, tokenizer.encode(header), "the assistant header after a closed turn")
    return TokenInput(token_ids, [gate, len(token_ids) - 1])


def steps_of(conversation: Conversation) -> tuple[str, ...]:
    """The response's steps, which the border has made for every process family."""
    assert conversation.steps is not None, "a process family is given a conversation with steps"
    return conversation.steps


def prompt_text(conversation: Conversation) -> str:
    """Everything before the response as one text: the question, after earlier texts joined by newlines.

    Families without a chat template take one question; the system prompt and earlier turns stand before it.
    """
    return "\n".join(message.text for message in conversation.prompt)


def close_steps(conversation: Conversation, tag: str, tokenizer: Tokenizer) -> TokenInput:
    """Render the conversation with `tag` after every step, and read at those tags alone.

    The tag's text inside a prompt or a step becomes the same token, as in the references, but is not read: the true
    step ends are found by their place in the text, not by searching the id.
    """
    steps = steps_of(conversation)
    content = "".join(step + tag for step in steps)
    text = tokenizer.render(conversation.with_response(content).messages)
    start = content_start(text, content)
    ends = []
    for step in steps:
        start += len(step)
        ends.append(start)
        start += len(tag)
    return tags_at(text, ends, tag, tokenizer)


def tags_at(text: str, starts: Sequence[int], tag: str, tokenizer: Tokenizer) -> TokenInput:
    """Tokenise `text` and read at the tags that start at these characters.

    Raises:
        CheckpointError: `tag` is not a single token of this vocabulary there.
    """
    tag_id = tokenizer.token_id(tag)
    token_ids, offsets = tokenizer.encode_with_offsets(text)
    place = {begin: i for i, (begin, end) in enumerate(offsets) if end > begin}
    positions = []
    for step, begin in enumerate(starts):
        position = place.get(begin)
        if position is None or token_ids[position] != tag_id:
            raise CheckpointError(f"{tag!r} after step {step} is not the one token {tag_id} in this tokenizer.")
        positions.append(position)
    return TokenInput(token_ids, positions)


def completion_ids(conversation: Conversation, tokenizer: Tokenizer) -> tuple[list[int], int]:
    """The rendered conversation's ids, and where the response begins: behind the prompt with its generation prompt.

    The response goes on to the end: its end-of-turn token and what the template writes after it belong to it. Where
    its first characters make one token with the prompt's last ones, that token counts as the response's.

    Raises:
        CheckpointError: the template renders the prompt otherwise when a response follows.
        InvalidConversationError: nothing stands before or after the place where the response begins.
        NoResponseError: the conversation has no response.
    """
    if not conversation.has_response:
        raise NoResponseError("the conversation has no response")
    prompt = tokenizer.render(conversation.prompt, add_generation_prompt=True)
    text = tokenizer.render(conversation.messages)
    if not text.startswith(prompt):
        raise CheckpointError(
            "The chat template renders this prompt otherwise when a response follows, so the response's tokens cannot "
            "be told from the prompt's. Give chat_template= one that does not."
        )
    token_ids, offsets = tokenizer.encode_with_offsets(text)
    prompt_ids = tokenizer.encode(prompt)
    start = len(prompt_ids)
    if token_ids[:start] != prompt_ids:
        start = next(i for i, (_, end) in enumerate(offsets) if end > len(prompt))
    if not 0 < start < len(token_ids):
        raise InvalidConversationError("the rendered conversation has no response token to read.", field="messages")
    return token_ids, start


def require_alternating(prompt: Sequence[Message], family: str) -> None:
    """Raises InvalidConversationError unless the roles are user, assistant, user, ..., user."""
    roles = [message.role for message in prompt]
    expected = ["user" if i % 2 == 0 else "assistant" for i in range(len(roles))]
    if roles != expected or roles[-1] != "user":
        raise InvalidConversationError(
            f"{family} knows user and assistant turns that alternate, from the user's to the user's; got "
            f"{', '.join(roles)}. A system prompt can be put in front of the first user message.",
            field="messages",
        )


def config_id(config: Config, key: str) -> int:
    """A token id that config.json names.

    Raises:
        CheckpointError: it does not.
    """
    if config.get(key) is None:
        raise CheckpointError(f"config.json has no {key}, which tells the token that this family reads at.")
    return int(config[key])


def marked_ids(text: str, marker_id: int, tokenizer: Tokenizer) -> list[int]:
    """`text` behind a marker token, with the tokenizer's special tokens around; the marker stands at index 1."""
    marker = tokenizer.token(marker_id)
    token_ids = tokenizer.encode(marker + text, add_special_tokens=True)
    if token_ids[1:2] != [marker_id]:
        raise CheckpointError(
            f"The tokenizer does not make the one token {marker_id} of {marker!r} before {text[:40]!r}."
        )
    return token_ids


@dataclass(frozen=True)
class MarkedParts:
    """A prompt and two responses as PairRM sees them: each opened by a marker at index 1, closed by one end token."""

    prompt: list[int]
    a: list[int]
    b: list[int]
    n_head: int = 2
    """Tokens at the start of `prompt` that stay whatever is cut; two do in the responses."""

    def joined(self) -> TokenInput:
        """Read at the three markers, whose places follow from the lengths: the same text elsewhere is text."""
        second = len(self.prompt) + 1
        return TokenInput([*self.prompt, *self.a, *self.b], [1, second, second + len(self.a)])

    def cut_prompt(self, length: int, side: str) -> MarkedParts | None:
        """The prompt cut to `length` at its "left" or "right"; None where none of its text would stay."""
        if length <= self.n_head + 1:
            return None
        return replace(self, prompt=shortened(self.prompt, length, side, n_head=self.n_head))

    def cut_responses(self, length: int) -> MarkedParts | None:
        """Both responses cut to `length` at their ends; None where none of their text would stay."""
        if length <= 3:
            return None
        a, b = (shortened(ids, length, "right", n_head=2) for ids in (self.a, self.b))
        return replace(self, a=a, b=b)


def shortened(token_ids: list[int], length: int, side: str, *, n_head: int) -> list[int]:
    """At most `length` ids: the first `n_head` and the last one stay, what lies between is cut at `side`."""
    if len(token_ids) <= length:
        return token_ids
    head, text, end = token_ids[:n_head], token_ids[n_head:-1], token_ids[-1:]
    n = length - n_head - 1
    return head + (text[len(text) - n :] if side == "left" else text[:n]) + end


def cut_marked(
    parts: MarkedParts, max_length: int, truncation: str, *, budgets: tuple[int, int], response_limit: int | None = None
) -> TokenInput | None:
    """PairRM's input within its recipe's budgets; None where it cannot be cut so.

    Args:
        truncation: the side at which the prompt is cut, while the responses lose their ends; "prompt" cuts the
            prompt's oldest tokens alone.
        budgets: the recipe's tokens in all, and those of the prompt; each response gets half of what the prompt
            leaves. At another `max_length` the prompt gets the same share, or more where the responses leave it, and
            nothing is cut that fits as it is.
        response_limit: most tokens of a response, whatever the prompt leaves.
    """
    total, for_prompt = budgets
    left_over = max_length - len(parts.a) - len(parts.b)
    if max_length != total:
        if len(parts.prompt) <= left_over:
            return parts.joined()
        for_prompt = max(max_length * for_prompt // total, left_over)
        response_limit = None
    if truncation == "prompt":
        cut = parts.cut_prompt(min(for_prompt, left_over), "left")
        return None if cut is None else cut.joined()
    cut = parts.cut_prompt(for_prompt, truncation)
    if cut is not None and (max_length == total or len(cut.prompt) > left_over):
        cut = cut.cut_responses(min((max_length - len(cut.prompt)) // 2, response_limit or max_length))
    return None if cut is None else cut.joined()


def steps_apart(
    prompt_ids: Sequence[int], conversation: Conversation, step_end: Sequence[int], tokenizer: Tokenizer
) -> TokenInput:
    """The prompt, then each step tokenised by itself and closed by `step_end`, whose last token is read.

    Nothing merges across these borders, so an empty step is its closing tokens alone.
    """
    token_ids, positions = list(prompt_ids), []
    for step in steps_of(conversation):
        token_ids += [*tokenizer.encode(step), *step_end]
        positions.append(len(token_ids) - 1)
    return TokenInput(token_ids, positions)


def ending_tokens(text: str, ends: Sequence[int], token_id: int, tokenizer: Tokenizer) -> TokenInput:
    """Tokenise `text` with the tokenizer's own special tokens and read at the tokens that end at these characters.

    Ends are what tokenizers agree on; whether the space before a piece counts as its own differs between them.

    Raises:
        InvalidConversationError: another token than `token_id` ends there: a step's mark merged with its neighbours.
    """
    token_ids, offsets = tokenizer.encode_with_offsets(text, add_special_tokens=True)
    place = {end: i for i, (begin, end) in enumerate(offsets) if end > begin}
    positions = []
    for step, end in enumerate(ends):
        position = place.get(end)
        if position is None or token_ids[position] != token_id:
            raise InvalidConversationError(
                f"the mark after step {step} is not tokenised as {tokenizer.token(token_id)!r}: it merges with the "
                "text around it, and the step has no score. Change or leave out the empty step or the text beside it.",
                field=f"steps[{step}]",
            )
        positions.append(position)
    return TokenInput(token_ids, positions)


def tokens_before(offsets: Sequence[tuple[int, int]], characters: Sequence[int]) -> list[int]:
    """How many tokens lie before each of these characters, which ascend (tokens without text count with what precedes
    them)."""
    counts = []
    i = 0
    for character in characters:
        while i < len(offsets) and not offsets[i][1] > offsets[i][0] >= character:
            i += 1
        counts.append(i)
    return counts


def tokens_ending_by(offsets: Sequence[tuple[int, int]], characters: Sequence[int]) -> list[int]:
    """How many tokens end at or before each of these characters, which ascend."""
    counts = []
    i = 0
    for character in characters:
        while i < len(offsets) and offsets[i][1] <= character:
            i += 1
        counts.append(i)
    return counts


def content_start(text: str, content: str) -> int:
    """Where the response's content begins in the rendered text; a template may have trimmed its ends."""
    start = text.rfind(content)
    if start >= 0:
        return start
    trimmed = content.strip()
    start = text.rfind(trimmed)
    if start < 0:
        raise InvalidConversationError(
            "the chat template changes the response's text, so that its steps cannot be found in it.", field="messages"
        )
    return start - (len(content) - len(content.lstrip()))
