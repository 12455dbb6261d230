"""Questions to an OpenAI-compatible endpoint, many at once."""

from __future__ import annotations

import asyncio
import json
import os
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from demur.endpoint.address import OPENAI, Address
from demur.endpoint.complaints import Complaint, complaint_in
from demur.endpoint.exchange import Door, Method, Reply
from demur.endpoint.explaining import Explainer
from demur.endpoint.failures import RequestFailed
from demur.endpoint.hiding import MOST_READ, Secrets
from demur.endpoint.key import Key
from demur.endpoint.options import Adaptation
from demur.endpoint.reading import (
    FILTERED,
    Malformed,
    completion_in,
    decoded,
    model_names_in,
)
from demur.endpoint.requests import (
    Answer,
    Asked,
    ChangedOptions,
    EndpointSettings,
    Ledger,
    Request,
    SamplingOptions,
    TokenUsage,
)
from demur.endpoint.running import run
from demur.endpoint.waiting import LONGEST_WAIT, pause, wait_in
from demur.errors import DemurError
from demur.progress import Progress, Stage

if TYPE_CHECKING:
    from openai import DefaultAsyncHttpxClient

Result = TypeVar("Result")

_SECONDS_FOR_THE_REST = 1.0
"""Seconds in which answers under way are waited for after a failure, and, where a ledger keeps
them, after an interruption."""


@dataclass(frozen=True)
class _Got:
    """An answer that came, and the row that it belongs to."""

    row: int
    answer: Answer


_Event: TypeAlias = _Got | str
"""An answer, or a remark for the stage."""


class EndpointClient:
    """Asks one model behind an OpenAI-compatible endpoint.

    The key is that of the variable that the settings name; with a base URL none is needed.

    Args:
        model: name of the model at the endpoint; empty where that is still to be found out.
        settings: where the endpoint is and how it is asked.
        options: options of every request. One that the endpoint refuses is left out from then on; a
            limit of tokens is sent under its other name instead.

    Attributes:
        model: name of the model at the endpoint.
        usage: tokens so far.
        ledger: keeps answers and counts a budget, or None.

    Raises:
        DemurError: the `openai` package or the key is missing.
    """

    def __init__(self, model: str, settings: EndpointSettings, options: SamplingOptions) -> None:
        base_url = settings.base_url or os.environ.get("OPENAI_BASE_URL", "").strip() or None
        key = Key.of(settings.key_variable)
        self._address = Address(base_url or OPENAI)
        proxy = self._address.proxy()
        secrets = Secrets(
            [*key.secrets, *self._address.secrets, None if proxy is None else proxy.password]
        )
        self._secrets, self._settings, self._options = secrets, settings, options
        self._explainer = Explainer(self._address, settings, secrets)
        self._door = Door(self._address, _headers(key), settings.timeout, self._explainer)
        if not key.text and base_url is None:
            raise DemurError(
                f"OpenAI's endpoint needs a key: set {settings.key_variable}, or give the base URL "
                "of another server."
            )
        self.model = model
        self.usage = TokenUsage()
        self.ledger: Ledger | None = None
        self._adaptation = Adaptation()
        self._left_out: frozenset[str] = frozenset()
        self._limit: str | None = None
        self._said_proxy = False

    @property
    def changed_options(self) -> ChangedOptions | None:
        """How the requests of the answers so far were changed; None where they were not."""
        if not self._left_out and self._limit is None:
            return None
        return ChangedOptions(self.place, self.model, tuple(sorted(self._left_out)), self._limit)

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

        async def work(_: Callable[[str], None]) -> list[str]:
            async with self._door.opened() as client:
                return await self._persistent(lambda: self._listed(client))

        return run(work, lambda _: None)

    def chat_all(self, requests: Sequence[Request], stage: Stage) -> list[Answer]:
        """The answers to many requests, in their order.

        The first request that fails for good ends all. So does an interruption, at once.

        Args:
            requests: any number of requests.
            stage: advanced by one for each.

        Raises:
            DemurError: the endpoint refuses, or cannot be reached in time.
        """
        asked = [self._asked(request) for request in requests]
        kept = [None] * len(asked) if self.ledger is None else self.ledger.recall(asked)
        answers = {row: answer for row, answer in enumerate(kept) if answer is not None}
        for answer in answers.values():
            self._note(answer)
        stage.advance(len(answers))
        rows = deque(row for row in range(len(asked)) if row not in answers)

        def hear(event: _Event) -> None:
            if isinstance(event, str):
                stage.note(event)
                return
            answers[event.row] = event.answer
            stage.advance()
            stage.note(f"{self.usage.prompt_tokens + self.usage.completion_tokens} tokens")

        async def work(send: Callable[[_Event], None]) -> None:
            await self._all(asked, rows, send)

        if rows:
            run(work, hear)
        return [answers[row] for row in range(len(requests))]

    def _asked(self, request: Request) -> Asked:
        own: dict[str, Any] = dict(request.options.given())
        options = replace(self._options, **own)
        messages, tools = tuple(request.messages), tuple(request.tools)
        return Asked(self.place, self.model, messages, options, tools)

    async def _all(
        self, asked: Sequence[Asked], rows: deque[int], send: Callable[[_Event], None]
    ) -> None:
        """Make the requests of some rows, as many at once as the settings say."""
        ending = asyncio.Event()

        async def worker(client: DefaultAsyncHttpxClient) -> None:
            while rows:
                row = rows.popleft()
                one = asked[row]

                async def attempt(one: Asked = one) -> Answer:
                    return await self._adapted(client, one)

                answer = await self._persistent(attempt, send, ending)
                self._count(answer)
                if self.ledger is not None:
                    self.ledger.keep(one, answer)
                send(_Got(row, answer))

        async with self._door.opened() as client:
            count = min(self._settings.concurrency, len(rows))
            workers = [asyncio.ensure_future(worker(client)) for _ in range(count)]
            wait = True
            try:
                first, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
            except asyncio.CancelledError:
                wait = self.ledger is not None
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

    async def _adapted(self, client: DefaultAsyncHttpxClient, asked: Asked) -> Answer:
        """The answer to one request, with the options that the endpoint takes.

        What is to be changed for an endpoint is known once a request that was changed so is
        answered. Until then it may have been something else that the endpoint complained about.
        """
        given, adaptation = asked.options.given(), self._adaptation
        while True:
            reply = await self._posted(client, asked, adaptation.of(given))
            found = self._read(reply, lambda body: completion_in(body, self._secrets))
            if isinstance(found, Answer):
                self._adaptation = self._adaptation.merged(adaptation)
                return replace(
                    found,
                    left_out=tuple(sorted(adaptation.left_out & given.keys())),
                    limit=adaptation.limit if adaptation.renames_in(given) else None,
                )
            if found.is_filter:
                return Answer("filtered", None, FILTERED)
            if found.is_no_answer:
                return Answer("none", None, None)
            changed = adaptation.after(found, given) if found.status in (400, 422) else None
            if changed is None or changed == adaptation:
                raise self._explainer.refused(found, asked, wait_in(reply.headers))
            adaptation = changed

    async def _posted(
        self, client: DefaultAsyncHttpxClient, asked: Asked, options: dict[str, float | int]
    ) -> Reply:
        messages = [asdict(message) for message in asked.messages]
        body: dict[str, object] = {"model": self.model, "messages": messages, **options}
        if asked.tools:
            body["tools"] = [json.loads(tool) for tool in asked.tools]
        # Half of a surrogate pair is no character and cannot be sent.
        content = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        return await self._exchanged(
            client, "POST", "chat/completions", content, asked.options.most_tokens
        )

    async def _listed(self, client: DefaultAsyncHttpxClient) -> list[str]:
        reply = await self._exchanged(client, "GET", "models")
        names = self._read(reply, model_names_in)
        if isinstance(names, Complaint):
            raise self._explainer.refused(names, None, wait_in(reply.headers))
        return [name for name in names if self._secrets.hidden_in_text(name) == name]

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

    def _count(self, answer: Answer) -> None:
        self.usage = TokenUsage(
            self.usage.prompt_tokens + answer.prompt_tokens,
            self.usage.completion_tokens + answer.completion_tokens,
            self.usage.answers + 1,
        )
        self._note(answer)

    def _note(self, answer: Answer) -> None:
        self._left_out |= frozenset(answer.left_out)
        self._limit = answer.limit or self._limit


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
