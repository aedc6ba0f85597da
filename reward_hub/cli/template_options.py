"""What the chat template takes besides the messages, for all conversations of a command."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from reward_hub.cli.usage import UsageError
from reward_hub.data.column_turns import shown
from reward_hub.types import TEMPLATE_ARGUMENTS, TOOLS

_TEMPLATE = "Chat template"


@dataclasses.dataclass(frozen=True)
class TemplateOptions:
    """Tools and further arguments; a row that has others of its own in its columns is an error."""

    tools: Annotated[
        str | None,
        typer.Option(
            metavar="FILE_OR_JSON",
            help="The tools the assistant could call, of every conversation: a JSON list, or its file.",
            rich_help_panel=_TEMPLATE,
        ),
    ] = None
    chat_template_kwargs: Annotated[
        str | None,
        typer.Option(
            metavar="JSON",
            help='Other arguments of the chat template, as in {"enable_thinking": false}; of every conversation.',
            rich_help_panel=_TEMPLATE,
        ),
    ] = None

    def given_of_template(self) -> dict[str, str | None]:
        """What was typed."""
        return {"--tools": self.tools, "--chat-template-kwargs": self.chat_template_kwargs}

    def template_arguments(self) -> dict[str, Any]:
        """Those that were given, as `score` and its like take them.

        Raises:
            UsageError: a file that cannot be read, or JSON of another form.
        """
        tools, others = _tools(self.tools), _kwargs(self.chat_template_kwargs)
        return ({TOOLS: tools} if tools else {}) | ({TEMPLATE_ARGUMENTS: others} if others else {})


def _tools(text: str | None) -> list[dict[str, Any]] | None:
    if text is None:
        return None
    said = f"--tools {text}"
    if text.lstrip()[:1] not in ("[", "{"):
        try:
            text = Path(text).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{said} is neither JSON nor a file that can be read: {_reason(error)}.") from error
    tools = _json(text, said)
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise UsageError(f"{said} holds {shown(tools)}; a list of objects, one a tool, is needed.")
    return tools


def _kwargs(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    arguments = _json(text, f"--chat-template-kwargs {text}")
    if not isinstance(arguments, dict):
        raise UsageError(f'--chat-template-kwargs {text}: an object is needed, as in {{"enable_thinking": false}}.')
    return arguments


def _json(text: str, said: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(f"{said} is not JSON: {error}.") from error


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
