"""What an endpoint is asked, and what it answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Literal, Protocol

from demur.errors import DemurError

KEY_VARIABLE = "OPENAI_API_KEY"
"""Environment variable that holds the key, where no other is named."""


@dataclass(frozen=True)
class EndpointSettings:
    """How an endpoint is asked.

    Attributes:
        base_url: address before `/chat/completions`, for example `http://localhost:8000/v1`; None
            for the one of the variable `OPENAI_BASE_URL`, else OpenAI's own.
        concurrency: number of questions under way at once, at least 1.
        timeout: seconds to wait for an answer, above 0.
        retries: number of times that a question is repeated after a time-out, a lost connection or
            a status that may pass (408, 409, 429 and 5xx), each time after a longer pause.
        key_variable: name of the environment variable that holds the key.

    Raises:
        DemurError: a value is out of its range, or the base URL is none.
    """

    base_url: str | None = None
    concurrency: int = 8
    timeout: float = 60.0
    retries: int = 4
    key_variable: str = KEY_VARIABLE

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise DemurError(f"The concurrency is {self.concurrency}: give at least 1.")
        if not 0 < self.timeout < float("inf"):
            raise DemurError(f"The time-out is {self.timeout} s: give a number above 0.")
        if self.retries < 0:
            raise DemurError(f"The number of retries is {self.retries}: give 0 or more.")
        if self.base_url is not None and not re.match(r"https?://[^/\s]", self.base_url):
            raise DemurError(
                f"{self.base_url!r:.100} is not a base URL: give one like http://localhost:8000/v1."
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
    """

    messages: Sequence[Message]
    options: SamplingOptions = field(default_factory=SamplingOptions)


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        text: text of the answer, without lone surrogates; None where the answer holds no text.
        finish: reason why it ended, as the endpoint says: `stop`, `length`, ...; None where the
            endpoint does not say.
        prompt_tokens: number of tokens read for this answer; 0 where the endpoint does not say.
        completion_tokens: number of tokens written for it; 0 where the endpoint does not say.
    """

    text: str | None
    finish: str | None
    prompt_tokens: int = 0
    completion_tokens: int = 0


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
    """

    place: str
    model: str
    messages: tuple[Message, ...]
    options: SamplingOptions


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
