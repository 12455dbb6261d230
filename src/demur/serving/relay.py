"""The answer to a user: what the server behind answers, as it comes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

import anyio
import httpx2
from starlette.responses import JSONResponse, Response

from demur.serving.conversation import RequestRefused
from demur.serving.metrics import LEFT
from demur.serving.upstream import Upstream

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

_STREAM = "text/event-stream"
_MOST_LINE = 1 << 20
_RETRY_AFTER = re.compile(
    r"[0-9]{1,9}|[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT"
)


def refusal(refused: RequestRefused, retry_after: str | None = None) -> JSONResponse:
    """A refusal in the form of OpenAI's errors."""
    headers = {}
    if refused.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if retry_after is not None and _RETRY_AFTER.fullmatch(retry_after):
        headers["Retry-After"] = retry_after
    return JSONResponse(_described(refused), refused.status, headers)


class Relay(Response):
    """Asks the server and passes its answer on. A user who leaves ends the request there as well.

    Args:
        upstream: the server.
        content: request to it.
        seconds: seconds in which a user must take what is sent.
        ended: takes the status and the seconds until the first and the last byte.
    """

    def __init__(
        self,
        upstream: Upstream,
        content: bytes,
        seconds: float,
        ended: Callable[[int, float | None, float], None],
    ) -> None:
        super().__init__()
        self._upstream, self._content, self._seconds = upstream, content, seconds
        self._ended = ended
        self._begun = monotonic()
        self._first: float | None = None
        self._status = LEFT  # until the answer is whole

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, as an application of ASGI."""

        async def leave_with_the_user(group: anyio.CancelScope) -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            group.cancel()

        async def bounded(message: Message) -> None:
            with anyio.fail_after(self._seconds):
                await send(message)

        try:
            async with anyio.create_task_group() as group:
                group.start_soon(leave_with_the_user, group.cancel_scope)
                with suppress(OSError):  # the user takes nothing any more
                    await self._answer(scope, receive, bounded)
                group.cancel_scope.cancel()
        finally:
            self._ended(self._status, self._first, monotonic() - self._begun)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        retry_after = None
        try:
            async with self._upstream.asked(self._content) as response:
                kind = response.headers.get("content-type", "")
                if response.status_code == 200 and kind.startswith(_STREAM):
                    await self._stream(response, send)
                    return
                got = await self._upstream.whole(response)
            if got.status != 200:
                retry_after = got.retry_after
                raise self._upstream.refused(got)
            if not isinstance(got.content, dict):
                raise RequestRefused("The answer of the server behind is no JSON object.", 502)
            if got.is_failure:
                raise self._upstream.refused(got)
        except RequestRefused as refused:
            await refusal(refused, retry_after)(scope, receive, send)
            self._status = refused.status
            return
        self._first = monotonic() - self._begun
        body = self._upstream.secrets.hidden_in_bytes(got.body)
        await Response(body, media_type="application/json")(scope, receive, send)
        self._status = 200

    async def _stream(self, response: httpx2.Response, send: Send) -> None:
        """Pass on what comes, as it comes; a connection that is lost ends in an error event."""
        headers = [(b"content-type", _STREAM.encode()), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        secrets, status, rest = self._upstream.secrets, 200, b""
        try:
            async for chunk in response.aiter_raw():
                if self._first is None:
                    self._first = monotonic() - self._begun
                # A secret may lie in two chunks, and never in two lines.
                ready, rest = _lines(rest + chunk) if secrets.are_long else (chunk, b"")
                if ready:
                    ready = secrets.hidden_in_bytes(ready)
                    await send({"type": "http.response.body", "body": ready, "more_body": True})
        except httpx2.HTTPError as error:
            refused = self._upstream.lost(error)
            rest += f"\n\ndata: {json.dumps(_described(refused))}\n\n".encode()
            status = refused.status
        rest = secrets.hidden_in_bytes(rest)
        await send({"type": "http.response.body", "body": rest, "more_body": False})
        self._status = status


def _lines(data: bytes) -> tuple[bytes, bytes]:
    """Whole lines, and what follows; a line without an end is not waited for."""
    cut = len(data) if len(data) > _MOST_LINE else data.rfind(b"\n") + 1
    return data[:cut], data[cut:]


def _described(refused: RequestRefused) -> dict[str, object]:
    kind = "invalid_request_error" if refused.status < 500 else "server_error"
    error = {"message": str(refused), "type": kind, "param": None, "code": refused.code}
    return {"error": error}
