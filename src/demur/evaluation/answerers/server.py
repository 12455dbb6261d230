"""A model behind an OpenAI-compatible server answers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from demur.endpoint import (
    Answer as EndpointAnswer,
)
from demur.endpoint import (
    ChangedOptions,
    EndpointClient,
    EndpointSettings,
    Message,
    Request,
    SamplingOptions,
)
from demur.errors import DemurError
from demur.evaluation.answerers.protocol import (
    Answer,
    Batch,
    Identity,
    Question,
    QuestionTask,
    Settled,
    Task,
)
from demur.evaluation.settings import ServerSettings
from demur.progress import Progress, Stage
from demur.prompts import Condition
from demur.records import (
    FILTERED,
    NO_ANSWER,
    NO_PROMPT,
    REASONING,
    REFUSAL,
    ConditionRecord,
    Query,
    ServerRecord,
    fingerprint,
    identity_of,
    tools_before,
)

AS_SERVED = "as-served"
"""Name of the condition under which nothing is sent before the query."""

RESPONSES_AT_ONCE = 64
"""Number of responses that are stored together, which is what an interruption costs at most."""

_MOST_NAMES = 5


class Server:
    """A model behind an OpenAI-compatible server, as something to evaluate.

    What is measured is what the server does with its own settings: temperature, top-p, top-k and a
    seed for each request are asked for, and one that the server refuses is left out. A limit of
    tokens is never left out.

    Args:
        base_url: address before `/chat/completions`, for example `http://localhost:8000/v1`.
        model: name of the model there; None for the only one that the server has.
        concurrency: number of requests under way at once, 1 to 1,000.
        timeout: seconds in which an answer must be there as a whole, above 0, at most 86,400.
        retries: number of times, 0 to 100, that a request is repeated that failed for a reason that
            may pass.

    Attributes:
        settings: settings by which a command names the server.

    Raises:
        DemurError: a value is out of its range, or the address is not a base URL.

    Example:
        >>> evaluate(Server("http://localhost:8000/v1"), samples=5)  # doctest: +SKIP
    """

    takes_queries = True
    default_prompts = (NO_PROMPT,)
    bare_name = AS_SERVED

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        *,
        concurrency: int = 8,
        timeout: float = 120.0,
        retries: int = 4,
    ) -> None:
        self._endpoint = EndpointSettings(base_url, concurrency, timeout, retries)
        self.settings = ServerSettings(
            endpoint=base_url,
            served_model=model,
            concurrency=concurrency,
            timeout=timeout,
            retries=retries,
        )
        self.model = model
        self._connected: EndpointClient | None = None

    @classmethod
    def of(cls, settings: ServerSettings) -> Server:
        """The server that settings name, which have an `endpoint`.

        Raises:
            DemurError: as for the class.
        """
        assert settings.endpoint is not None
        return cls(
            settings.endpoint,
            settings.served_model,
            concurrency=settings.concurrency,
            timeout=settings.timeout,
            retries=settings.retries,
        )

    @property
    def client(self) -> EndpointClient:
        """The client that asks the server.

        Raises:
            DemurError: the package openai is missing, the server cannot be reached, or it has
                several models and none was named.
        """
        client = self._unnamed_client
        if not client.model:
            client.model = self.model or _only_model(client)
        return client

    @property
    def _unnamed_client(self) -> EndpointClient:
        """The client, whose model need not be known yet."""
        if self._connected is None:
            self._connected = EndpointClient(self.model or "", self._endpoint, SamplingOptions())
        return self._connected

    def describe(self, progress: Progress) -> ServerRecord:
        """What is recorded of the server; a proxy on the way to it is said.

        Raises:
            DemurError: as for `client`.
        """
        self._unnamed_client.announce(progress)
        return ServerRecord(self.client.model, self.client.place)

    def condition(self, condition: Condition, name: str) -> ConditionRecord:
        """What is recorded of a condition; without a safety prompt, it is what the server does.

        Raises:
            DemurError: the safety prompt is trained, which cannot be sent.
        """
        prompt = condition.safety_prompt
        if prompt is None:
            system = condition.system_prompt
            return ConditionRecord(
                name, fingerprint("as served", system_prompt=system), None, False, system
            )
        if prompt.is_trained:
            raise DemurError(
                f"{name!r:.80} is a trained prompt, which cannot be sent to a server: run `demur "
                "export`, serve the export, and evaluate that without --prompt."
            )
        return condition.record(name)

    def tasks(self, questions: Sequence[Question]) -> list[Task]:
        """One task for each question."""
        record = ServerRecord(self.client.model, self.client.place)
        return [
            ServerTask(
                self.client, record, question, self.condition(question.condition, question.name)
            )
            for question in questions
        ]

    def check(self, tasks: Sequence[Task], progress: Progress) -> None:
        """Find answers that would have to begin with a given text; a server says the rest itself.

        Raises:
            DemurError: there is one.
        """
        for task in tasks:
            assert isinstance(task, ServerTask)
            if task.question.protocol.opening is not None:
                raise DemurError(
                    f"The answers on {task.set!r:.80} would have to begin with a given text, which "
                    "the chat of a server does not offer: measure that with a model here."
                )

    def remarks(self) -> list[str]:
        """Nothing: what the server did not take is among the figures."""
        return []


@dataclass(frozen=True)
class ServerTask(QuestionTask):
    """A server answers queries under one condition.

    Attributes:
        client: the client that asks it.
        record: what is recorded of the server.
        question: what it is asked.
        condition: what is recorded of the condition.
    """

    client: EndpointClient
    record: ServerRecord
    question: Question
    condition: ConditionRecord

    @property
    def changed_options(self) -> ChangedOptions | None:
        """How the requests were changed for the server; None where they were not."""
        return self.client.changed_options

    @property
    def identity(self) -> Identity:
        """What the answers depend on."""
        return Identity(
            self.condition.fingerprint,
            self.question.queries.fingerprint,
            self.record.fingerprint,
        )

    @property
    def per_query(self) -> int | None:
        """Number of answers to each query."""
        return self.question.protocol.sampling.samples

    @property
    def width(self) -> int:
        """0: no representations are read."""
        return 0

    @property
    def description(self) -> str:
        """What the stage is called."""
        return f"Asking {self.set}: {self.question.name}"

    def batches(
        self, start: int, most: int | None, settled: Settled | None, stage: Stage
    ) -> Iterator[Batch]:
        """Answers to queries, from a query on."""
        queries, samples = self.question.queries, self.question.protocol.sampling.samples
        at_once = max(1, min(RESPONSES_AT_ONCE, most or RESPONSES_AT_ONCE) // samples)
        stage.advance(start * samples)
        for first in range(start, len(queries), at_once):
            rows = range(first, min(first + at_once, len(queries)))
            places = [(row, sample) for row in rows for sample in range(samples)]
            answers = self.client.chat_all([self._request(*place) for place in places], stage)
            yield Batch(
                [
                    self._answer(row, answer)
                    for (row, _), answer in zip(places, answers, strict=True)
                ],
                len(rows),
            )

    def _request(self, row: int, sample: int) -> Request:
        condition, sampling = self.question.condition, self.question.protocol.sampling
        queries = self.question.queries
        prompt, query = condition.safety_prompt, queries.texts[row]
        texts = (None if prompt is None else prompt.text, condition.system_prompt_for(query))
        system = "\n\n".join(text.strip() for text in texts if text)
        limit = self.question.protocol.limits([queries.harmful[row]])[0]
        return Request(
            [*([Message("system", system)] if system else []), *_messages(query)],
            SamplingOptions(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                max_tokens=limit,
                seed=_seed(sampling.seed, sample, identity_of(query)),
            ),
            tools_before(query),
        )

    def _answer(self, row: int, answer: EndpointAnswer) -> Answer:
        queries = self.question.queries
        return Answer(
            prompt=self.condition.name,
            condition=self.condition.fingerprint,
            set=queries.name,
            label=queries.labels[row],
            category=queries.categories[row],
            query=queries.texts[row],
            text=answer.text,
            end=_end(answer),
        )


def _end(answer: EndpointAnswer) -> str | None:
    """Why a response ended, in the words of `JudgedResponse`."""
    if answer.kind == "none":
        return REASONING if answer.finish == REASONING else NO_ANSWER
    return {"filtered": FILTERED, "refusal": REFUSAL}.get(answer.kind, answer.finish)


def _only_model(client: EndpointClient) -> str:
    models = client.models()
    if len(models) == 1:
        return models[0]
    if not models:
        raise DemurError(f"{client.place} lists no models: name one with --served-model.")
    known = ", ".join(f"{name:.60}" for name in models[:_MOST_NAMES])
    known += ", ..." if len(models) > _MOST_NAMES else ""
    raise DemurError(
        f"{client.place} has {len(models)} models ({known}): name one with --served-model."
    )


def _messages(query: Query) -> list[Message]:
    """The query behind its history, as messages."""
    if isinstance(query, str):
        return [Message("user", query.strip())]
    return [Message(role, text.strip()) for role, text in query.messages]


def _seed(seed: int, sample: int, query: str) -> int:
    """A seed for each response: with one for all, servers draw the same numbers each time."""
    digest = hashlib.sha256(f"{seed}\0{sample}\0{query}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
