"""One request and its reply, within bounds of time, size and place."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import urljoin

from demur.endpoint.address import Address
from demur.endpoint.explaining import Explainer
from demur.endpoint.failures import RequestFailed
from demur.errors import DemurError

if TYPE_CHECKING:
    from openai import DefaultAsyncHttpxClient

Method = Literal["GET", "POST"]

MOST_BYTES = 16 << 20
"""Largest reply."""

_BYTES, _BYTES_OF_TOKEN = 4 << 20, 1024
"""Largest reply to a request without tokens, and for each of its tokens. Most take 4 bytes."""

_MOST_REDIRECTS = 5
_REDIRECTS: Mapping[Method, tuple[int, ...]] = {
    "GET": (301, 302, 303, 307, 308),
    "POST": (307, 308),  # the others make a GET of it
}
_COMPRESSED = ("gzip", "x-gzip", "deflate")


@dataclass(frozen=True)
class Reply:
    """What came back.

    Attributes:
        status: HTTP status.
        headers: headers by their names in lower case.
        body: the body, uncompressed.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class _Request:
    """What is sent.

    Attributes:
        method: HTTP method.
        content: body, as JSON, or None.
        most: largest number of bytes in the reply.
    """

    method: Method
    content: bytes | None
    most: int


class Door:
    """Reaches one endpoint.

    Redirects are followed only within the same server, because the key would go with them. The
    proxy is the environment's. A reply must be there as a whole in time.

    Args:
        address: where the endpoint is.
        headers: headers of every request.
        timeout: seconds in which a reply must be there.
        explainer: says what went wrong.

    Attributes:
        proxy: the proxy on the way, or None.

    Raises:
        DemurError: the package openai is missing.
    """

    def __init__(
        self, address: Address, headers: Mapping[str, str], timeout: float, explainer: Explainer
    ) -> None:
        try:
            import openai
        except ImportError as error:
            raise DemurError(
                "An endpoint needs the package openai: run `pip install 'demur[endpoint]'`."
            ) from error
        self._kind = openai.DefaultAsyncHttpxClient
        self._address, self._headers, self._timeout = address, dict(headers), timeout
        self._explainer = explainer
        self.proxy = address.proxy()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[DefaultAsyncHttpxClient]:
        """A client for a number of requests.

        Raises:
            DemurError: the proxy cannot be used.
        """
        direct: dict[str, None] = dict.fromkeys(("all://", "http://", "https://"))
        proxy = self.proxy
        try:
            client = self._kind(
                timeout=None,  # the whole exchange has one
                # Certificates are slow to load, and nothing is encrypted on the way to http.
                verify=proxy is not None or self._address.is_encrypted,
                proxy=None if proxy is None else proxy.url,
                mounts=direct if proxy is None else None,
            )
        except Exception as error:  # of the HTTP library, and of what it is made from
            raise self._explainer.unusable(error, proxy) from None
        async with client:
            yield client

    async def exchange(
        self,
        client: DefaultAsyncHttpxClient,
        method: Method,
        path: str,
        content: bytes | None = None,
        tokens: int | None = 0,
    ) -> Reply:
        """Make a request, and read the reply.

        Args:
            client: what `opened` gave.
            method: HTTP method.
            path: place behind the base URL, for example `chat/completions`.
            content: body of the request, as JSON.
            tokens: largest number of tokens in an answer, which bounds the size of the reply; None
                where it is not known.

        Raises:
            RequestFailed: there is no reply, or none within bounds.
        """
        most = MOST_BYTES if tokens is None else min(MOST_BYTES, _BYTES + tokens * _BYTES_OF_TOKEN)
        request = _Request(method, content, most)
        asked = self._followed(client, request, self._address.url(path))
        try:
            return await asyncio.wait_for(asked, self._timeout)
        except asyncio.TimeoutError:
            raise self._explainer.too_slow() from None
        except RequestFailed:
            raise
        except Exception as error:
            raise self._explainer.unreachable(error, self.proxy) from None

    async def _followed(
        self, client: DefaultAsyncHttpxClient, request: _Request, url: str
    ) -> Reply:
        for _ in range(_MOST_REDIRECTS):
            reply = await self._made(client, request, url)
            place = reply.headers.get("location")
            if not 300 <= reply.status < 400 or place is None:
                return reply
            url = _joined(url, place)
            if reply.status not in _REDIRECTS[request.method] or not self._address.is_origin_of(
                url
            ):
                raise self._explainer.redirected(url)
        raise self._explainer.redirected(url)

    async def _made(self, client: DefaultAsyncHttpxClient, request: _Request, url: str) -> Reply:
        built = client.build_request(
            request.method, url, content=request.content, headers=self._headers
        )
        response = await client.send(built, stream=True, follow_redirects=False)
        try:
            headers = {name.lower(): value for name, value in response.headers.items()}
            body = _Body(headers.get("content-encoding", ""), request.most)
            async for chunk in response.aiter_raw():
                if not body.add(chunk):
                    raise self._explainer.too_large(request.most)
            return Reply(response.status_code, headers, body.whole())
        finally:
            await response.aclose()


class _Body:
    """A body of bounded size.

    Args:
        encoding: how it is compressed, or an empty text.
        most: largest number of bytes, uncompressed.
    """

    def __init__(self, encoding: str, most: int) -> None:
        self._most = most
        encoding = encoding.strip().lower()
        if encoding not in ("", "identity", *_COMPRESSED):
            raise ValueError(f"its encoding is {encoding!r}")
        self._content, self._begun = bytearray(), False
        # Both formats, told apart by their first bytes.
        self._decoder = zlib.decompressobj(47) if encoding in _COMPRESSED else None

    def add(self, chunk: bytes) -> bool:
        """Take in more bytes; False where they are too many."""
        self._begun = True
        if self._decoder is None:
            self._content += chunk
        else:
            self._content += self._decoder.decompress(chunk, self._most + 1)
            if self._decoder.unconsumed_tail:
                return False
        return len(self._content) <= self._most

    def whole(self) -> bytes:
        """All bytes.

        Raises:
            ValueError: the compressed body breaks off.
        """
        if self._decoder is not None and self._begun and not self._decoder.eof:
            raise ValueError("its compressed body breaks off")
        return bytes(self._content)


def _joined(url: str, place: str) -> str:
    """Where a redirect leads to; the place itself where that is no address."""
    try:
        return urljoin(url, place)
    except ValueError:
        return place
