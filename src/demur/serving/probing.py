"""How the server behind writes a conversation: it is asked, before any user is.

The server has the model's chat template, and whether parts of a message are joined with a line
break is an option of its own. So what a text behind the rows must begin with, and whether there is
a system message at all, is read off a conversation of words that no template knows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from demur.chat.templates import THINKING_SWITCHES
from demur.endpoint.json_values import member
from demur.endpoint.reading import Malformed, model_names_in
from demur.errors import DemurError
from demur.serving.conversation import Manner, RequestRefused, opened_request
from demur.serving.prompts import ServedPrompt
from demur.serving.upstream import Got, Upstream

_FIRST, _BEHIND, _QUERY, _ANSWER, _AGAIN = "opalfirst", "quartzbehind", "jadequery", "onyx", "beryl"
_STRING, _PARTS = "\n", "\n\n"
"""What a text behind the rows begins with in vLLM's formats `string` and `openai`."""

_MARK = re.compile(r"<[^\s<>]+>|[\[\]]\S*[^\W\d_]\S*[\[\]]")
_NO_MARK = re.compile(r"think|tool", re.IGNORECASE)
"""Of marks that applications write themselves in answers that they send back."""

_TOKENIZES = "give a vLLM server, 0.21 or later"


async def find_model(upstream: Upstream, wanted: str | None) -> str:
    """The name of the model at the server.

    Raises:
        DemurError: the server does not answer or has no such model, or several to choose from.
    """
    got = await _asked(upstream, "GET", "models")
    if got.status != 200:
        raise DemurError(
            f"The server at {upstream.place} answers with status {got.status} "
            f"({upstream.words(got) or 'no words'}): check --endpoint and its key."
        )
    try:
        names = model_names_in(got.content)
    except Malformed as error:
        raise DemurError(
            f"{upstream.place} is no OpenAI-compatible server ({error}): check --endpoint."
        ) from None
    if wanted is not None and wanted in names:
        return wanted
    shown = ", ".join(names)
    if wanted is not None:
        raise DemurError(
            f"The server at {upstream.place} has no model {wanted!r:.100}: choose one of "
            f"{shown:.300}."
        )
    if len(names) != 1:
        raise DemurError(
            f"The server at {upstream.place} has {len(names)} models ({shown:.300}): choose one "
            "with --served-model."
        )
    return names[0]


async def find_manner(upstream: Upstream, model: str) -> Manner:
    """How the server writes a conversation.

    Raises:
        DemurError: the server does not say, or loses what stands behind the rows.
    """
    for system_role in (True, False):
        loses = False
        for blank_line in (_STRING, _PARTS):
            written = await _written(upstream, model, _conversation(system_role, blank_line))
            if written is None:
                break
            text, pieces = written
            if f"{_FIRST}\n\n{_BEHIND}" in text and _QUERY in text and _AGAIN in text:
                return Manner(system_role, blank_line, _marks(pieces))
            loses = loses or (_FIRST in text and _BEHIND not in text)
        if loses:
            raise DemurError(
                "The chat template of the server loses the text behind a safety prompt: start the "
                "server with --chat-template-content-format string."
            )
    raise DemurError(
        "The chat template of the server writes no blank line between a safety prompt and a text, "
        "as in the run: start the server with --chat-template-content-format string."
    )


async def check_rows(upstream: Upstream, model: str, manner: Manner, prompt: ServedPrompt) -> None:
    """Ask for one token behind a prompt.

    Raises:
        DemurError: the server does not take the rows.
    """
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1, "temperature": 0}
    request = opened_request(body, prompt.data, manner, model)
    got = await _asked(upstream, "POST", "chat/completions", request)
    if got.status != 200 or got.is_failure:
        trained = f" and serves {prompt.trained_on!r:.200}" if prompt.trained_on else ""
        raise DemurError(
            f"The server does not take the rows of {prompt.name!r} (status {got.status}: "
            f"{upstream.words(got).rstrip('.') or 'no words'}): check that it was started with "
            f"--enable-prompt-embeds{trained}."
        )


def _conversation(system_role: bool, blank_line: str) -> list[dict[str, object]]:
    opening = [
        {"type": "text", "text": _FIRST},
        {"type": "text", "text": blank_line + _BEHIND + ("" if system_role else f" {_QUERY}")},
    ]
    later: list[dict[str, object]] = [
        {"role": "assistant", "content": _ANSWER},
        {"role": "user", "content": _AGAIN},
    ]
    if not system_role:
        return [{"role": "user", "content": opening}, *later]
    return [
        {"role": "system", "content": opening},
        {"role": "user", "content": _QUERY},
        *later,
    ]


async def _written(
    upstream: Upstream, model: str, messages: list[dict[str, object]]
) -> tuple[str, list[str]] | None:
    """A conversation as the server writes it, and its tokens; None where it refuses to."""
    request: Mapping[str, object] = {
        "model": model,
        "messages": messages,
        "add_generation_prompt": True,
        "return_token_strs": True,
        "chat_template_kwargs": THINKING_SWITCHES,
    }
    got = await _asked(upstream, "POST", "/tokenize", request)
    if got.status in (404, 405):
        raise DemurError(f"The server at {upstream.place} has no /tokenize: {_TOKENIZES}.")
    tokens, pieces = member(got.content, "tokens"), member(got.content, "token_strs")
    if got.status != 200 or not isinstance(tokens, list):
        return None
    back = await _asked(upstream, "POST", "/detokenize", {"model": model, "tokens": tokens})
    text = member(back.content, "prompt")
    if back.status != 200 or not isinstance(text, str):
        raise DemurError(f"The server at {upstream.place} has no /detokenize: {_TOKENIZES}.")
    found = pieces if isinstance(pieces, list) else []
    return text, [piece for piece in found if isinstance(piece, str)]


def _marks(pieces: list[str]) -> tuple[str, ...]:
    """What the template writes as single tokens that look like marks."""
    found = {one for one in pieces if _MARK.fullmatch(one) and not _NO_MARK.search(one)}
    return tuple(sorted(found))


async def _asked(upstream: Upstream, method: str, path: str, content: object = None) -> Got:
    try:
        return await upstream.got(method, path, content)
    except RequestRefused as error:
        raise _silent(upstream, error) from None


def _silent(upstream: Upstream, error: RequestRefused) -> DemurError:
    said = upstream.reason(error)
    return DemurError(f"{said} at {upstream.place}: start it first, or check --endpoint.")
