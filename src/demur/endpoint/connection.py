"""A connection to one endpoint: many requests at once, each again where its failure may pass."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from demur.endpoint.address import OPENAI, Address
from demur.endpoint.complaints import Complaint, complaint_in
from demur.endpoint.exchange import Door, Method, Reply
from demur.endpoint.explaining import Explainer
from demur.endpoint.failures import RequestFailed
from demur.endpoint.hiding import MOST_READ, Secrets
from demur.endpoint.key import Key
from demur.endpoint.reading import Malformed, decoded, model_names_in
from demur.endpoint.requests import EndpointSettings
from demur.endpoint.running import run
from demur.endpoint.waiting import LONGEST_WAIT, pause, wait_in
from demur.errors import DemurError
from demur.progress import Progress

if TYPE_CHECKING:
    from openai import DefaultAsyncHttpxClient

Result = TypeVar("Result")

_SECONDS_FOR_THE_REST = 1.0
"""Seconds in which answers under way are waited for after a failure, and, where they are kept,
after an interruption."""


class Connection:
    """Reaches one endpoint.

    The key is that of the variable that the settings name; with a base URL none is needed.

    Args:
        model: name of the model at the endpoint; empty where that is still to be found out.
        settings: where the endpoint is and how it is asked.

    Attributes:
        model: name of the model at the endpoint.

    Raises:
        DemurError: the `openai` package or the key is missing.
    """

    def __init__(self, model: str, settings: EndpointSettings) -> None:
        base_url = settings.base_url or os.environ.get("OPENAI_BASE_URL", "").strip() or None
        key = Key.of(settings.key_variable)
        self._address = Address(base_url or OPENAI)
        proxy = self._address.proxy()
        secrets = Secrets(
            [*key.secrets, *self._address.secrets, None if proxy is None else proxy.password]
        )
        self._secrets, self._settings = secrets, settings
        self._explainer = Explainer(self._address, settings, secrets)
        self._door = Door(self._address, _headers(key), settings.timeout, self._explainer)
        if not key.text and base_url is None:
            raise DemurError(
                f"OpenAI's endpoint needs a key: set {settings.key_variable}, or give the base URL "
                "of another server."
            )
        self.model = model
        self._said_proxy = False

    @property
    def place(self) -> str:
        """The endpoint's address, without user name, password and query, which may be secrets."""
        return self._address.place

    def announce(self, progress: Progress) -> None:
        """Say once that a proxy stands between here and the endpoint, if one does."""
        proxy = self._door.proxy
        if proxy is not None and not self._said_proxy:
            self._said_proxy = True
            progress.message(
                f"{self.place} is asked through the proxy {proxy.place} ({proxy.variable}); "
                "NO_PROXY names hosts that are asked directly."
            )

    def models(self) -> list[str]:
        """The names of the models that the endpoint has.

        Raises:
            DemurError: the endpoint cannot be asked.
        """
        names = self._listing(model_names_in)
        return [name for name in names if self._secrets.hidden_in_text(name) == name]

    def _listing(self, take: Callable[[object], Result]) -> Result:
        """What is taken from the list of models.

        Raises:
            DemurError: the endpoint cannot be asked.
        """

        async def work(_: Callable[[str], None]) -> Result:
            async with self._door.opened() as client:
                return await self._persistent(lambda: self._listed(client, take))

        return run(work, lambda _: None)

    async def _each(
        self,
        rows: deque[int],
        attempt: Callable[[DefaultAsyncHttpxClient, int], Awaitable[Result]],
        got: Callable[[int, Result], None],
        send: Callable[[str], None],
        *,
        waits: bool = False,
    ) -> None:
        """Make the requests of some rows, as many at once as the settings say.

        The first request that fails for good ends all.

        Args:
            rows: the rows; those that are under way or done are taken out.
            attempt: makes the request of a row once.
            got: takes what came back for a row.
            send: takes a remark about a request that is repeated.
            waits: whether an interruption waits a moment for answers that are under way.
        """
        ending = asyncio.Event()

        async def worker(client: DefaultAsyncHttpxClient) -> None:
            while rows:
                row = rows.popleft()

                async def one_try(row: int = row) -> Result:
                    return await attempt(client, row)

                got(row, await self._persistent(one_try, send, ending))

        async with self._door.opened() as client:
            count = min(self._settings.concurrency, len(rows))
            workers = [asyncio.ensure_future(worker(client)) for _ in range(count)]
            wait = True
            try:
                first, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
            except asyncio.CancelledError:
                wait = waits
                raise
            finally:
                rows.clear()
                ending.set()
                if wait:
                    await asyncio.wait(workers, timeout=_SECONDS_FOR_THE_REST)
                for one in workers:
                    one.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
            for one in first:
                one.result()

    async def _persistent(
        self,
        attempt: Callable[[], Awaitable[Result]],
        send: Callable[[str], None] = lambda _: None,
        ending: asyncio.Event | None = None,
    ) -> Result:
        """Try again what may pass, each time after a longer pause, until all comes to an end."""
        tries = 1
        while True:
            try:
                return await attempt()
            except RequestFailed as failure:
                too_long = failure.wait is not None and failure.wait > LONGEST_WAIT
                last = tries > self._settings.retries or (ending is not None and ending.is_set())
                if last or too_long or not failure.may_pass:
                    raise failure.after(tries) from None
                seconds = pause(tries, failure.wait)
            send(f"try {tries + 1} in {seconds:.0f} s")
            await asyncio.sleep(seconds)
            tries += 1

    async def _listed(
        self, client: DefaultAsyncHttpxClient, take: Callable[[object], Result]
    ) -> Result:
        reply = await self._exchanged(client, "GET", "models")
        found = self._read(reply, take)
        if isinstance(found, Complaint):
            raise self._explainer.refused(found, None, wait_in(reply.headers))
        return found

    async def _exchanged(
        self,
        client: DefaultAsyncHttpxClient,
        method: Method,
        path: str,
        content: bytes | None = None,
        tokens: int | None = 0,
    ) -> Reply:
        self._explainer.model = self.model
        return await self._door.exchange(client, method, path, content, tokens)

    def _read(self, reply: Reply, take: Callable[[object], Result]) -> Result | Complaint:
        """What is taken from the JSON of a reply, or what the endpoint says instead."""
        succeeded, why = 200 <= reply.status < 300, None
        try:
            body = decoded(reply.body)
        except Malformed as error:
            body, why = None, str(error)
        raw = "" if succeeded else reply.body[:MOST_READ].decode("utf-8", "replace")
        complaint = complaint_in(200 if succeeded else reply.status, body, raw)
        if complaint is not None:
            return complaint
        if why is None:
            try:
                return take(body)
            except Malformed as error:
                why = str(error)
        del body  # may be large, and the error keeps what is here
        raise self._explainer.malformed(why, reply.body[:MOST_READ])


def _headers(key: Key) -> dict[str, str]:
    """Headers of every request."""
    named = {"OpenAI-Organization": "OPENAI_ORG_ID", "OpenAI-Project": "OPENAI_PROJECT_ID"}
    given = {header: os.environ.get(variable, "") for header, variable in named.items()}
    return {
        "Authorization": key.header,
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
        "User-Agent": "demur",
        **{header: value for header, value in given.items() if value and value.isascii()},
    }
