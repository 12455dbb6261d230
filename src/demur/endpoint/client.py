"""Questions to an OpenAI-compatible endpoint, many at once."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from typing import Any

from demur.errors import DemurError
from demur.progress import Stage

_KEY_VARIABLE = "OPENAI_API_KEY"
_NO_KEY = "none"  # the client insists on one; local servers ignore it
_IN_BODY = ("top_k", "min_p")


@dataclass(frozen=True)
class EndpointSettings:
    """How an endpoint is asked.

    Attributes:
        base_url: ends before `/chat/completions`, for example `http://localhost:8000/v1`; None for
            the one of the variable `OPENAI_BASE_URL`, else OpenAI's own.
        concurrency: questions under way at once, at least 1.
        timeout: seconds to wait for an answer, above 0.
        retries: how often a question is repeated after a time-out, a lost connection or an answer
            that promises a change (status 408, 409, 429 and 5xx), each time after a longer pause.
    """

    base_url: str | None = None
    concurrency: int = 8
    timeout: float = 60.0
    retries: int = 4

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise DemurError(f"The concurrency is {self.concurrency}; give at least 1")
        if not 0 < self.timeout < float("inf"):
            raise DemurError(f"The time-out is {self.timeout} s; give a number above 0")
        if self.retries < 0:
            raise DemurError(f"The number of retries is {self.retries}; give 0 or more")
        if self.base_url is not None and not re.match(r"https?://[^/\s]", self.base_url):
            raise DemurError(
                f"{self.base_url!r:.100} is no base URL; give one like http://localhost:8000/v1"
            )


@dataclass(frozen=True)
class TokenUsage:
    """What the endpoint counted.

    Attributes:
        prompt_tokens: read.
        completion_tokens: written.
        answers: that were received; those without a count add no tokens.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    answers: int = 0


@dataclass(frozen=True)
class Request:
    """One conversation to be answered.

    Attributes:
        messages: each with `role` and `content`.
        options: of this request alone, a seed for example.
    """

    messages: Sequence[Mapping[str, str]]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        text: None where it holds none.
        finish: why it ended, as the endpoint says: `stop`, `length`, ...
    """

    text: str | None
    finish: str | None


class EndpointClient:
    """Asks one model behind an OpenAI-compatible endpoint.

    The key is that of the variable `OPENAI_API_KEY`; with a base URL none is needed.

    Args:
        model: its name at the endpoint; empty where that is still to be found out.
        settings: where the endpoint is and how it is asked.
        options: of every request. One that the endpoint refuses is left out from then on.

    Attributes:
        model: its name at the endpoint.
        place: the endpoint's address without secrets.
        usage: tokens so far.
        refused: the options that the endpoint refused.

    Raises:
        DemurError: the `openai` package or the key is missing.
    """

    def __init__(self, model: str, settings: EndpointSettings, options: Mapping[str, Any]) -> None:
        try:
            import openai
        except ImportError as error:
            raise DemurError(
                "An endpoint needs openai: run `pip install 'demur[endpoint]'`."
            ) from error
        base_url = settings.base_url or os.environ.get("OPENAI_BASE_URL") or None
        key = os.environ.get(_KEY_VARIABLE, "").strip()
        if not key and base_url is None:
            raise DemurError(
                f"OpenAI's endpoint needs a key; set {_KEY_VARIABLE}, or give the base URL of"
                " another server"
            )
        self.model = model
        self.usage = TokenUsage()
        self._settings = settings
        try:
            self._client = openai.OpenAI(
                api_key=key or _NO_KEY,
                base_url=base_url,
                timeout=settings.timeout,
                max_retries=settings.retries,
            )
        except Exception as error:  # the client passes on errors of the library below it
            raise DemurError(
                f"{base_url!r:.100} cannot be used as base URL ({_printable(str(error))}); give one"
                " like http://localhost:8000/v1"
            ) from error
        self._lock = threading.Lock()
        self._options = dict(options)
        self.refused: set[str] = set()

    def models(self) -> list[str]:
        """The names of the models that the endpoint has.

        Raises:
            DemurError: it cannot be asked.
        """
        import openai

        try:
            return [str(model.id) for model in self._client.models.list()]
        except (openai.OpenAIError, ValueError, AttributeError, TypeError) as error:
            raise self._explained(error) from error

    def chat_all(self, requests: Sequence[Request], stage: Stage) -> list[Answer]:
        """The answers to many requests, in their order.

        Args:
            requests: any number of them.
            stage: advanced by one for each.

        Raises:
            DemurError: the endpoint refuses, or cannot be reached in time.
        """
        answers: dict[int, Answer] = {}
        pool = ThreadPoolExecutor(min(self._settings.concurrency, max(1, len(requests))))
        try:
            rows: dict[Future[Answer], int] = {
                pool.submit(self._ask, request): row for row, request in enumerate(requests)
            }
            for future in as_completed(rows):
                answers[rows[future]] = future.result()
                stage.advance()
                usage = self.usage
                stage.note(f"{usage.prompt_tokens + usage.completion_tokens} tokens")
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return [answers[row] for row in range(len(requests))]

    def _ask(self, request: Request) -> Answer:
        import openai

        messages: Any = [dict(message) for message in request.messages]
        while True:
            given = {**self._options, **request.options}
            options = {name: value for name, value in given.items() if name not in self.refused}
            # What the client does not know as a parameter of its own goes into the body.
            body = {name: options.pop(name) for name in _IN_BODY if name in options}
            try:
                completion: Any = self._client.chat.completions.create(
                    model=self.model, messages=messages, extra_body=body or None, **options
                )
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                said = f"{error} {error.response.text}"
                refused = [name for name in {**options, **body} if name in said]
                if not refused:
                    raise self._explained(error) from error
                with self._lock:
                    self.refused.update(refused)
            except (openai.OpenAIError, ValueError) as error:
                # A body that is no JSON is a ValueError.
                raise self._explained(error) from error
            else:
                return self._read(completion)

    def _read(self, completion: Any) -> Answer:
        if isinstance(completion, (str, bytes)):
            raise DemurError(
                f"{self.place} does not answer as OpenAI's endpoints do; check the base URL"
                " (most end in /v1)"
            )
        counts = getattr(completion, "usage", None)
        with self._lock:
            self.usage = replace(
                self.usage,
                prompt_tokens=self.usage.prompt_tokens + _count(counts, "prompt_tokens"),
                completion_tokens=self.usage.completion_tokens
                + _count(counts, "completion_tokens"),
                answers=self.usage.answers + 1,
            )
        try:
            choice = completion.choices[0]
            content, finish = choice.message.content, choice.finish_reason
        except (AttributeError, IndexError, TypeError):
            return Answer(None, None)
        return Answer(
            content if isinstance(content, str) else None,
            finish if isinstance(finish, str) else None,
        )

    @property
    def place(self) -> str:
        """The endpoint's address, without user name, password and query, which may be secrets."""
        url = self._client.base_url
        return f"{url.scheme}://{url.host}{f':{url.port}' if url.port else ''}{url.path}"

    def _explained(self, error: Exception) -> DemurError:
        """One line that names the mend; never with the key in it."""
        import openai

        place, settings = self.place, self._settings
        if isinstance(error, (openai.AuthenticationError, openai.PermissionDeniedError)):
            return DemurError(
                f"{place} refuses the key (status {error.status_code}); set {_KEY_VARIABLE} to one"
                f" that may use {self.model!r:.80}"
            )
        if isinstance(error, openai.NotFoundError):
            return DemurError(
                f"{place} knows no model {self.model!r:.80}, or is no OpenAI-compatible endpoint;"
                " check the model's name and the base URL"
            )
        if isinstance(error, openai.RateLimitError):
            return DemurError(
                f"{place} says that its limits are reached (status 429); ask less at once"
                f" (concurrency {settings.concurrency}), or look at the account's quota"
            )
        if isinstance(error, openai.APITimeoutError):
            return DemurError(
                f"{place} gave no answer within {settings.timeout:g} s, {settings.retries + 1}"
                " times; allow more time or ask less at once"
            )
        if isinstance(error, openai.APIConnectionError):
            return DemurError(f"{place} cannot be reached; check the base URL and that it runs")
        if isinstance(error, openai.APIStatusError):
            return DemurError(
                f"{place} answers with status {error.status_code}"
                f" ({_printable(error.message)}); look at its log"
            )
        return DemurError(
            f"{place} does not answer as OpenAI's endpoints do ({_printable(str(error))}); check"
            " the base URL"
        )


def _count(usage: Any, name: str) -> int:
    value = getattr(usage, name, None)
    return value if isinstance(value, int) and value > 0 else 0


def _printable(text: str) -> str:
    line = " ".join(text.split())
    return "".join(character for character in line if character.isprintable())[:120]
