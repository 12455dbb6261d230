"""What an endpoint is asked, and what it answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from demur.arguments import require_kind
from demur.endpoint.address import Address
from demur.errors import DemurError

KEY_VARIABLE = "OPENAI_API_KEY"
"""Environment variable that holds the key, where no other is named."""

MOST_AT_ONCE = 1000
MOST_SECONDS = 86_400.0
MOST_RETRIES = 100

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")

AnswerKind: TypeAlias = Literal["text", "refusal", "filtered", "none"]
"""What an answer holds: a text; a refusal in the endpoint's own field; nothing, because a filter
withheld it; nothing for another reason, such as reasoning alone or the call of a tool."""


@dataclass(frozen=True)
class EndpointSettings:
    """How an endpoint is asked.

    Attributes:
        base_url: address before `/chat/completions`, for example `http://localhost:8000/v1`; None
            for the one of the variable `OPENAI_BASE_URL`, else OpenAI's own.
        concurrency: number of questions under way at once, 1 to 1,000.
        timeout: seconds in which an answer must be there as a whole, above 0, at most 86,400.
        retries: number of times, 0 to 100, that a question is repeated after a time-out, a lost
            connection, an answer that is none or a status that may pass (408, 409, 425, 429 and
            5xx), each time after a longer pause.
        key_variable: name of the environment variable that holds the key; `Basic USER:PASSWORD` in
            it is sent as a user and a password.

    Raises:
        DemurError: a value is out of its range, or the base URL is none, or holds a secret.
    """

    base_url: str | None = None
    concurrency: int = 8
    timeout: float = 60.0
    retries: int = 4
    key_variable: str = KEY_VARIABLE

    def __post_init__(self) -> None:
        require_kind("concurrency", self.concurrency, int, "a whole number")
        require_kind("timeout", self.timeout, (int, float), "a number of seconds")
        require_kind("retries", self.retries, int, "a whole number")
        if not 1 <= self.concurrency <= MOST_AT_ONCE:
            raise DemurError(
                f"The concurrency is {self.concurrency!s:.20}: give 1 to {MOST_AT_ONCE:,}."
            )
        if not 0 < self.timeout <= MOST_SECONDS:
            raise DemurError(
                f"The time-out is {self.timeout!s:.20} s: give a number above 0, at most "
                f"{MOST_SECONDS:,.0f}."
            )
        if not 0 <= self.retries <= MOST_RETRIES:
            raise DemurError(
                f"The number of retries is {self.retries!s:.20}: give 0 to {MOST_RETRIES}."
            )
        require_kind("key_variable", self.key_variable, str, "the name of a variable")
        if not _VARIABLE.fullmatch(self.key_variable):
            # Not shown: it may be the key.
            raise DemurError(
                "The variable of the key has no usable name: give the name of an environment "
                "variable that holds the key, and not the key itself."
            )
        if self.base_url is not None:
            require_kind("base_url", self.base_url, str, "an address")
            self._require_storable(Address(self.base_url))

    def _require_storable(self, address: Address) -> None:
        if address.holds_secrets:
            raise DemurError(
                f"The address of {address.place} holds a user name, a password or a key, which "
                f"would be stored with the results: leave it out, and set {self.key_variable} to "
                "the key, or to `Basic USER:PASSWORD`."
            )


@dataclass(frozen=True)
class Message:
    """One message of a conversation.

    Attributes:
        role: who says it.
        content: text of the message.
    """

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class SamplingOptions:
    """How an answer is sampled. None leaves an option to the endpoint.

    Attributes:
        temperature: divides the logits; 0 takes the likeliest token.
        top_p: probability that the likeliest tokens which may be drawn reach together.
        top_k: number of the likeliest tokens that may be drawn.
        max_tokens: largest number of tokens in an answer.
        max_completion_tokens: the same under the name that newer endpoints want.
        seed: seed of the sampling, for endpoints that take one.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    seed: int | None = None

    @property
    def most_tokens(self) -> int | None:
        """The limit of tokens, under whatever name."""
        return self.max_completion_tokens if self.max_tokens is None else self.max_tokens

    def given(self) -> dict[str, float | int]:
        """The options that are not None, by name."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Request:
    """One conversation to be answered.

    Attributes:
        messages: messages of the conversation.
        options: options of this request alone; they go before those of the client.
        tools: tools that are offered, the JSON of each; the call of one is no answer.
    """

    messages: Sequence[Message]
    options: SamplingOptions = field(default_factory=SamplingOptions)
    tools: Sequence[str] = ()


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        kind: what the answer holds.
        text: text of the answer or the refusal, without lone surrogates; None for the other kinds.
        finish: reason why it ended, as the endpoint says: `stop`, `length`, ...; None where the
            endpoint does not say.
        prompt_tokens: number of tokens read for this answer; 0 where the endpoint does not say.
        completion_tokens: number of tokens written for it; 0 where the endpoint does not say.
        left_out: names of the options that were asked for and not sent, because the endpoint does
            not take them; in alphabetical order.
        limit: name under which the limit of tokens was sent, where that was not the one asked for;
            else None.
    """

    kind: AnswerKind
    text: str | None
    finish: str | None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    left_out: tuple[str, ...] = ()
    limit: str | None = None


@dataclass(frozen=True)
class ChangedOptions:
    """How requests to an endpoint were changed because it does not take what was asked for.

    Attributes:
        place: address of the endpoint, without secrets.
        model: name of the model there.
        left_out: names of the options that it does not take; in alphabetical order.
        limit: name under which it takes the limit of tokens, where that is not the one asked for;
            else None.
    """

    place: str
    model: str
    left_out: tuple[str, ...] = ()
    limit: str | None = None

    def merged(self, left_out: Iterable[str], limit: str | None) -> ChangedOptions:
        """With further changes."""
        names = tuple(sorted({*self.left_out, *left_out}))
        return replace(self, left_out=names, limit=limit or self.limit)

    def __str__(self) -> str:
        said = []
        if self.left_out:
            said.append(f"does not take {', '.join(self.left_out)}: left out")
        if self.limit is not None:
            said.append(f"takes the limit of tokens as {self.limit}")
        return f"{self.model} at {self.place} {'; '.join(said)}."


@runtime_checkable
class AsksEndpoint(Protocol):
    """Whatever asks a model behind an endpoint."""

    @property
    def changed_options(self) -> ChangedOptions | None:
        """How the requests were changed so far; None where they were not."""


@dataclass(frozen=True)
class TokenUsage:
    """What the endpoint counted.

    Attributes:
        prompt_tokens: number of tokens read.
        completion_tokens: number of tokens written.
        answers: number of answers received; those without a count add no tokens.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    answers: int = 0


@dataclass(frozen=True)
class Asked:
    """A request with everything that its answer depends on.

    Attributes:
        place: address of the endpoint, without secrets.
        model: name of the model there.
        messages: messages of the conversation.
        options: options of the request, those of the client included.
        tools: tools that are offered, the JSON of each.
    """

    place: str
    model: str
    messages: tuple[Message, ...]
    options: SamplingOptions
    tools: tuple[str, ...] = ()


class Ledger(Protocol):
    """Keeps answers, so that nothing is asked twice, and may refuse requests beyond a budget."""

    def recall(self, asked: Sequence[Asked]) -> list[Answer | None]:
        """The answers that are kept already; None for each request that must be made.

        Args:
            asked: requests that are about to be made together.

        Raises:
            DemurError: they must not be made.
        """

    def keep(self, asked: Asked, answer: Answer) -> None:
        """Keep an answer that just came. It is called from several threads."""
