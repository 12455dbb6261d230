"""The vLLM server behind: requests to it, and what its failures mean to users."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urljoin

import anyio
import httpx2

from demur.endpoint.complaints import complaint_in
from demur.endpoint.hiding import Secrets
from demur.errors import first_line
from demur.markdown import printable
from demur.serving.conversation import RequestRefused
from demur.serving.settings import ServeSettings

MOST_REPLY = 64 << 20
"""Largest reply that is not streamed, in bytes."""

MOST_ERROR = 1 << 16
"""Largest part of a failure that is read, in bytes."""

_SECONDS_TO_CONNECT = 10.0
_SECONDS_KEPT = 2.0
"""Seconds for which an idle connection is used again: fewer than after which servers close one."""

_DATA = re.compile(r"[A-Za-z0-9+/=_-]{200,}")
"""What is no message of a server: rows of a prompt, for example, that it repeats."""


@dataclass(frozen=True)
class Got:
    """A whole reply.

    Attributes:
        status: HTTP status.
        kind: its `Content-Type`.
        body: the body.
        retry_after: its `Retry-After`, or None.
    """

    status: int
    kind: str
    body: bytes
    retry_after: str | None = None

    @property
    def content(self) -> object:
        """The decoded JSON; None where it is none."""
        try:
            found: object = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        return found

    @property
    def is_failure(self) -> bool:
        """Whether it holds an error in spite of its status, and no answer."""
        found = self.content
        return isinstance(found, dict) and bool(found.get("error")) and not found.get("choices")


class Upstream:
    """The server behind, as an asynchronous context manager.

    Only the key that belongs to this server is sent to it, and nothing of the users' headers.

    Args:
        settings: where it is and within which bounds it answers.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._address, self._settings = settings.address, settings
        self.place = settings.address.place
        proxy = self._address.proxy()
        password = None if proxy is None else proxy.password
        self.secrets = Secrets([*settings.key.secrets, *self._address.secrets, password])
        headers = {
            "Accept-Encoding": "identity",
            "Authorization": settings.key.header,
            "Content-Type": "application/json",
            "User-Agent": "demur",
        }
        limits = httpx2.Limits(
            max_connections=settings.concurrency + 8,
            max_keepalive_connections=settings.concurrency,
            keepalive_expiry=_SECONDS_KEPT,
        )
        self._client = httpx2.AsyncClient(
            headers=headers,
            timeout=httpx2.Timeout(settings.timeout, connect=_SECONDS_TO_CONNECT),
            limits=limits,
            # The environment's proxies are read by the address, which knows all its exceptions.
            trust_env=False,
            proxy=None if proxy is None else proxy.url,
            verify=proxy is not None or self._address.is_encrypted,
        )

    async def __aenter__(self) -> Upstream:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    @asynccontextmanager
    async def asked(self, content: bytes) -> AsyncIterator[httpx2.Response]:
        """A chat completion, of which only the headers have been read.

        Raises:
            RequestRefused: the server does not answer.
        """
        request = self._client.build_request(
            "POST", self._address.url("chat/completions"), content=content
        )
        try:
            response = await self._client.send(request, stream=True)
        except httpx2.HTTPError as error:
            raise self.lost(error) from None
        try:
            yield response
        finally:
            await response.aclose()

    async def got(
        self, method: str, path: str, content: object = None, *, seconds: float | None = None
    ) -> Got:
        """A request of the proxy's own.

        Args:
            method: HTTP method.
            path: place at the base URL; behind a `/`, at the folder above it.
            content: what is sent as JSON, or its bytes, or None.
            seconds: seconds in which the whole reply must come, where not those of the settings.

        Raises:
            RequestRefused: the server does not answer.
        """
        url = self._address.url(path)
        if path.startswith("/"):
            base = self._address.url("")
            url = urljoin(base, ("../" if base.endswith("/v1/") else "") + path[1:])
        body = content if isinstance(content, bytes) else None
        if content is not None and body is None:
            body = json.dumps(content).encode()
        timeout = self._client.timeout if seconds is None else httpx2.Timeout(seconds)
        request = self._client.build_request(method, url, content=body, timeout=timeout)
        try:
            # A server may also send its answer byte by byte.
            with anyio.fail_after(self._settings.timeout if seconds is None else seconds):
                response = await self._client.send(request, stream=True)
                try:
                    return await self.whole(response)
                finally:
                    await response.aclose()
        except httpx2.HTTPError as error:
            raise self.lost(error) from None
        except TimeoutError:
            raise RequestRefused("The server behind did not answer in time.", 504) from None

    async def whole(self, response: httpx2.Response) -> Got:
        """The rest of a reply, within bounds.

        Raises:
            RequestRefused: it breaks off, or is too large.
        """
        most = MOST_REPLY if response.status_code == 200 else MOST_ERROR
        body = bytearray()
        try:
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > most:
                    break
        except httpx2.HTTPError as error:
            raise self.lost(error) from None
        if len(body) > most and response.status_code == 200:
            raise RequestRefused("The answer of the server behind is too large.", 502)
        headers = response.headers
        kind = headers.get("content-type", "")
        return Got(response.status_code, kind, bytes(body[:most]), headers.get("retry-after"))

    def lost(self, error: Exception) -> RequestRefused:
        """What a failed connection means to a user; where the server is, is nothing for users."""
        if isinstance(error, httpx2.ConnectTimeout | httpx2.ConnectError):
            return RequestRefused("The server behind cannot be reached.", 502)
        if isinstance(error, httpx2.TimeoutException):
            return RequestRefused("The server behind did not answer in time.", 504)
        return RequestRefused("The connection to the server behind was lost.", 502)

    def refused(self, got: Got) -> RequestRefused:
        """What a failure of the server means to a user: its words, without secrets or data."""
        if got.status in (401, 403):
            return RequestRefused("The server behind refuses the key of this one.", 502)
        said = self.words(got)
        status = got.status if 400 <= got.status <= 599 else 502
        return RequestRefused(said or f"The server behind answered with status {status}.", status)

    def words(self, got: Got) -> str:
        """The server's own words about a failure, in one line; empty where there are none."""
        raw = "" if got.content is not None else got.body.decode("utf-8", "replace")
        complaint = complaint_in(got.status, got.content, raw)
        said = "" if complaint is None or complaint.is_page else complaint.message
        hidden = self.secrets.hidden_in_message(_DATA.sub("[data]", said))
        return " ".join(printable(hidden).split())

    def reason(self, error: Exception) -> str:
        """What went wrong, for the operator's terminal."""
        return self.secrets.hidden_in_message(first_line(error))
