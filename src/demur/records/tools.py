"""Tools that a conversation offers the model: functions, described as in a request to a server."""

from __future__ import annotations

import json
from collections.abc import Sequence

from demur.errors import DemurError

MOST_TOOLS = 128
MOST_CHARACTERS = 200_000
"""Bounds of the tools of one conversation, far above what a context holds."""


def tools_of(described: object) -> tuple[str, ...]:
    """Tools as a conversation keeps them: the JSON of each, in one form.

    Args:
        described: a list of tools as `tools` of a chat completion request has them, each
            `{"type": "function", "function": {"name": ..., "description": ..., "parameters": ...}}`
            or the function alone.

    Raises:
        DemurError: this is no list of tools, two of them have one name, or there are too many.

    Example:
        >>> tools_of([{"name": "get_time", "description": "The time.", "parameters": {}}])[0][:40]
        '{"type": "function", "function": {"name"'
    """
    if not isinstance(described, (list, tuple)) or not described:
        raise DemurError(
            'Tools are a list of functions: give [{"type": "function", "function": {...}}].'
        )
    if len(described) > MOST_TOOLS:
        raise DemurError(f"There are {len(described)} tools: give at most {MOST_TOOLS}.")
    found = tuple(_tool(one, place) for place, one in enumerate(described, start=1))
    if sum(map(len, found)) > MOST_CHARACTERS:
        raise DemurError(f"The tools have more than {MOST_CHARACTERS:,} characters: shorten them.")
    names = tool_names(found)
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise DemurError(f"Two tools are called {repeated!r:.80}: leave one out.")
    return found


def tool_names(tools: Sequence[str]) -> list[str]:
    """The name of each tool's function.

    Raises:
        DemurError: a text does not describe a tool.
    """
    try:
        names = [json.loads(tool)["function"]["name"] for tool in tools]
    except (ValueError, KeyError, TypeError, RecursionError):
        names = [None]
    if not all(isinstance(name, str) and name.strip() for name in names):
        raise DemurError("A tool is not the JSON of a function with a name: use `tools_of`.")
    return [str(name) for name in names]


def _tool(described: object, place: int) -> str:
    if not isinstance(described, dict):
        raise DemurError(f"Tool {place} is no JSON object: describe a function with its name.")
    kind = described.get("type", "function")
    function = described.get("function", described if "type" not in described else None)
    if kind != "function" or not isinstance(function, dict):
        raise DemurError(f"Tool {place} is no function: give only tools of the type 'function'.")
    name = function.get("name")
    if not isinstance(name, str) or not name.strip():
        raise DemurError(f"Tool {place} has no name: give its function one.")
    parameters = function.get("parameters", {"type": "object", "properties": {}})
    if not isinstance(parameters, dict):
        raise DemurError(f"The parameters of tool {place} are no JSON object: give a JSON schema.")
    content = {"name": name, "description": "", **function, "parameters": parameters}
    try:
        return json.dumps(
            {"type": "function", "function": content}, ensure_ascii=False, allow_nan=False
        )
    except (TypeError, ValueError, RecursionError):
        raise DemurError(f"Tool {place} is no plain JSON: give texts, numbers and lists.") from None
