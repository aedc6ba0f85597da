"""Chat templates, rendered here: every release of transformers reads some conversations in a way of its own.

5.19 writes "None" for a tool call without content and 5.23 nothing; 5.23 takes `reasoning` for `reasoning_content` and
5.19 does not; both write today's date. Here a conversation is read as 5.23 reads it, on a fixed day.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from reward_hub.errors import CheckpointError, InvalidConversationError
from reward_hub.types import TEMPLATE_ARGUMENTS, TOOLS, Message

DATE_ARGUMENT = "date_string"
"""The argument of a template that sets its day."""
TODAY = datetime(2024, 7, 26)
"""The day that it is in every template: the one that Llama 3's templates name where they are told none."""
_DATE_FORMS = ("%d %b %Y", "%d %B %Y", "%Y-%m-%d")
_CLOCK = "strftime_now"

DEFAULT, FOR_TOOLS = "default", "tool_use"
"""Names of templates that transformers takes by itself: FOR_TOOLS where a conversation has tools."""

# What messages call their reasoning. Templates read the first of these, those of gpt-oss the second.
_REASONING = ("reasoning_content", "thinking", "reasoning")


def chosen(stored: str | Mapping[str, str] | None, chat_template: str | None) -> dict[str, str]:
    """The templates to render with, by name; DEFAULT alone where the caller says which.

    Args:
        stored: the checkpoint's own: one, or several by name.
        chat_template: the name of one of them, a template itself, or its file.

    Raises:
        CheckpointError: there is no such file or name.
    """
    named = {DEFAULT: stored} if isinstance(stored, str) else dict(stored or {})
    if chat_template is None:
        return named
    if "{" in chat_template:
        return {DEFAULT: chat_template}
    path = Path(chat_template)
    if chat_template not in named:
        if not path.is_file():
            known = f" The checkpoint has {_listed(named)}." if named else ""
            raise CheckpointError(
                f"chat_template={chat_template!r} is neither a template text, nor a file, nor a name.{known}"
            )
        return {DEFAULT: path.read_text(encoding="utf-8")}
    if path.is_file():
        raise CheckpointError(
            f"chat_template={chat_template!r} is the name of a template of the checkpoint's and of a file: write the "
            f"file as {path.absolute()}."
        )
    return {DEFAULT: named[chat_template]}


def require_default(templates: Mapping[str, str]) -> None:
    """Raises CheckpointError where there are several templates and none is the one to take."""
    if templates and DEFAULT not in templates:
        raise CheckpointError(
            f"The checkpoint has the chat templates {_listed(templates)}, and none is called {DEFAULT!r}. Say which "
            f"one it is to be: chat_template={sorted(templates)[0]!r}."
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(names)))


def rendered(
    template: str,
    messages: Iterable[Message],
    arguments: Mapping[str, Any],
    *,
    special_tokens: Mapping[str, Any],
    add_generation_prompt: bool,
) -> str:
    """A template's text for these messages.

    Args:
        arguments: what it takes besides (`tools`, and what `chat_template_kwargs` holds).
        special_tokens: the tokenizer's, by their names.

    Raises:
        InvalidConversationError: the template refuses the conversation, or has no place for an argument.
    """
    _require_places(template, arguments)
    turns = [_turn(message) for message in messages]
    if "developer" not in template:
        # Templates older than the role skip such a turn without a word; it is the system prompt by its meaning.
        for turn in turns:
            if turn["role"] == "developer":
                turn["role"] = "system"
    names = {
        _CLOCK: partial(datetime.strftime, _day(template, arguments)),
        TOOLS: None,
        "documents": None,
        **special_tokens,
        **{name: _plain(value) for name, value in arguments.items()},
        "add_generation_prompt": add_generation_prompt,
    }
    compiled = _compiled(template)
    try:
        try:
            return _written(compiled, {"messages": turns, **names})
        except Exception:
            # Some templates ask for content that is none, where most expect that there is no content (DeepSeek-V3's).
            contents = [{"content": None, **turn} for turn in turns]
            if contents == turns:
                raise
            return _written(compiled, {"messages": contents, **names})
    except Exception as error:  # a template is a program of others, and may fail in any way
        raise InvalidConversationError(
            f"the chat template refuses this conversation: {error}", field="messages"
        ) from error


def _written(compiled: Any, names: Mapping[str, Any]) -> str:
    """What a template writes. As jinja's own `render`, which spends more on gathering its globals than on writing."""
    context = compiled.new_context({**compiled.environment.globals, **names}, shared=True)
    return str(compiled.environment.concat(compiled.root_render_func(context)))


@lru_cache(maxsize=64)
def names_in(template: str) -> frozenset[str]:
    """The names that a template's expressions hold.

    Raises:
        CheckpointError: it is not in Jinja's language.
    """
    environment = _compiled(template).environment
    return frozenset(value for _, kind, value in environment.lex(template) if kind == "name")


@lru_cache(maxsize=64)
def strings_in(template: str) -> frozenset[str]:
    """The texts that a template's expressions hold. Raises as `names_in`."""
    from jinja2 import nodes

    found = _compiled(template).environment.parse(template).find_all(nodes.Const)
    return frozenset(node.value for node in found if isinstance(node.value, str))


def tells_the_date(template: str) -> bool:
    return _CLOCK in names_in(template)


def _require_places(template: str, arguments: Collection[str]) -> None:
    """Raises InvalidConversationError for an argument of which the template says nothing."""
    for name in arguments:
        if name not in names_in(template) and not (name == DATE_ARGUMENT and tells_the_date(template)):
            raise InvalidConversationError(
                f"the chat template has no place for {name!r}, which would be ignored. Leave it out, or give a "
                "template that takes it with chat_template=.",
                field=name,
            )


def _day(template: str, arguments: Mapping[str, Any]) -> datetime:
    """The day that a conversation says it is."""
    given = arguments.get(DATE_ARGUMENT)
    if given is None or not tells_the_date(template):
        return TODAY
    for form in _DATE_FORMS:
        try:
            return datetime.strptime(str(given), form)
        except ValueError:
            continue
    if DATE_ARGUMENT in names_in(template):
        return TODAY  # it writes what it is given
    raise InvalidConversationError(
        f"{DATE_ARGUMENT} is {given!r}, and the chat template asks for a day: '26 Jul 2024' or '2024-07-26'.",
        field=DATE_ARGUMENT,
    )


# -- what a template is given ------------------------------------------------------------------------------------------


def _turn(message: Message) -> dict[str, Any]:
    """A message as templates read it: what is None is not there, a call's arguments are an object."""
    if not message.extra and not message.tool_calls and type(message.content) is str:
        return {"role": message.role, "content": message.content}
    turn = {"role": message.role, "content": message.content, **message.extra}
    turn = {
        name: _plain(value)
        for name, value in turn.items()
        if value is not None and name not in (TOOLS, TEMPLATE_ARGUMENTS)
    }
    if message.tool_calls:
        turn["tool_calls"] = [_called(call) for call in message.tool_calls]
    reasoning = next((turn[name] for name in _REASONING if name in turn), None)
    if reasoning is not None:
        turn = {"thinking": reasoning, **turn, "reasoning_content": reasoning}
    return turn


class _Arguments(dict[str, Any]):
    """A call's arguments: an object, which can also be joined to a text, as the templates of DeepSeek do."""

    def __init__(self, arguments: Mapping[str, Any], text: str) -> None:
        super().__init__(arguments)
        self.__text = text

    def __add__(self, behind: str) -> str:
        return self.__text + behind

    def __radd__(self, before: str) -> str:
        return before + self.__text


def _called(call: Mapping[str, Any]) -> dict[str, Any]:
    """A tool call with its arguments as an object: in the OpenAI form they are the JSON text of one."""
    plain = {name: _plain(value) for name, value in call.items() if value is not None}
    function = plain.get("function", plain)
    if isinstance(function, dict) and "arguments" in function:
        function["arguments"] = _object(function["arguments"])
    return plain


def _object(arguments: Any) -> Any:
    """The object that a JSON text says; what says none (a model wrote it) stays as it is."""
    if isinstance(arguments, dict):
        return _Arguments(arguments, json.dumps(arguments, ensure_ascii=False))
    if not isinstance(arguments, str):
        return arguments
    try:
        said = json.loads(arguments) if arguments.strip() else {}
    except ValueError:
        return arguments
    return _Arguments(said, arguments) if isinstance(said, dict) else arguments


def _plain(value: Any) -> Any:
    """A value of plain JSON types: a template is foreign code, and objects have methods that write files.

    What is of another type may stand in a message as long as the template does not look at it.
    """
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Mapping):
        return {_plain(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    import jinja2

    return jinja2.StrictUndefined(f"it holds a {type(value).__name__}, which is not plain JSON")


# -- the language ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _compiled(template: str) -> Any:
    """A template in the language that transformers defines: a sandbox, for it is foreign code.

    Raises:
        CheckpointError: it is not in that language.
    """
    import jinja2
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_generation_blocks(), loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _refuse, "dict": _TemplateDict(), "namespace": _namespace_class()}
    # In macros that are called from another scope too.
    environment.globals[_CLOCK] = partial(datetime.strftime, TODAY)
    try:
        return environment.from_string(template)
    except jinja2.exceptions.TemplateSyntaxError as error:
        raise CheckpointError(f"The chat template is not a Jinja template: {error}") from error


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Jinja's own filter escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> None:
    import jinja2

    raise jinja2.exceptions.TemplateError(message)


class _TemplateDict:
    """`dict` without its attributes, through which a template could leave the sandbox."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


@lru_cache(maxsize=1)
def _namespace_class() -> type:
    """Jinja's `namespace` without underscored names, for the same reason."""
    import jinja2

    class Namespace(jinja2.utils.Namespace):
        def __init__(*args: Any, **kwargs: Any) -> None:
            self, *values = args
            for name in (names := dict(*values, **kwargs)):
                _require_open(name)
            jinja2.utils.Namespace.__init__(self, names)

        def __setitem__(self, name: str, value: Any) -> None:
            _require_open(name)
            super().__setitem__(name, value)

    return Namespace


def _require_open(name: Any) -> None:
    import jinja2

    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"A chat template cannot store {name!r} in a namespace.")


@lru_cache(maxsize=1)
def _generation_blocks() -> type:
    """`{% generation %}`, which marks the assistant's text for training: here its content alone."""
    from jinja2.ext import Extension

    class Generation(Extension):
        tags: Any = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            from jinja2 import nodes

            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_content"), [], [], body).set_lineno(line)

        def _content(self, caller: Any) -> str:
            return str(caller())

    return Generation
