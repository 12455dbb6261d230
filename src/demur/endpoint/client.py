"""Questions to an OpenAI-compatible endpoint, many at once."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from demur.endpoint.connection import Connection
from demur.endpoint.exchange import Reply
from demur.endpoint.options import Adaptation
from demur.endpoint.reading import FILTERED, completion_in
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
from demur.endpoint.waiting import wait_in
from demur.progress import Stage

if TYPE_CHECKING:
    from openai import DefaultAsyncHttpxClient


@dataclass(frozen=True)
class _Got:
    """An answer that came, and the row that it belongs to."""

    row: int
    answer: Answer


_Event: TypeAlias = _Got | str
"""An answer, or a remark for the stage."""


class EndpointClient(Connection):
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
        super().__init__(model, settings)
        self._options = options
        self.usage = TokenUsage()
        self.ledger: Ledger | None = None
        self._adaptation = Adaptation()
        self._left_out: frozenset[str] = frozenset()
        self._limit: str | None = None

    @property
    def changed_options(self) -> ChangedOptions | None:
        """How the requests of the answers so far were changed; None where they were not."""
        if not self._left_out and self._limit is None:
            return None
        return ChangedOptions(self.place, self.model, tuple(sorted(self._left_out)), self._limit)

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
            def got(row: int, answer: Answer) -> None:
                self._count(answer)
                if self.ledger is not None:
                    self.ledger.keep(asked[row], answer)
                send(_Got(row, answer))

            await self._each(
                rows,
                lambda client, row: self._adapted(client, asked[row]),
                got,
                send,
                waits=self.ledger is not None,
            )

        if rows:
            run(work, hear)
        return [answers[row] for row in range(len(requests))]

    def _asked(self, request: Request) -> Asked:
        own: dict[str, Any] = dict(request.options.given())
        options = replace(self._options, **own)
        messages, tools = tuple(request.messages), tuple(request.tools)
        return Asked(self.place, self.model, messages, options, tools)

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
