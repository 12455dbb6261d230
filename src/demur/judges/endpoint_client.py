"""Short questions to an OpenAI-compatible endpoint, many at once."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import Any

from demur.errors import DemurError
from demur.progress import Progress

_KEY_VARIABLE = "OPENAI_API_KEY"
_NO_KEY = "none"  # the client insists on one; local servers ignore it
_ANSWER_TOKENS = 1024
"""Room for models that think before the one word that is asked of them."""

# Spelled so that it could be taken for markup by a server that reads special tokens in messages.
_MARKUP = re.compile(r"[<>]|\[(?=/?[A-Z_]+\])")


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


class EndpointClient:
    """Asks one model behind an OpenAI-compatible endpoint.

    The key is that of the variable `OPENAI_API_KEY`; with a base URL none is needed.

    Attributes:
        model: its name at the endpoint.
        usage: tokens so far.

    Raises:
        DemurError: the `openai` package or the key is missing.
    """

    def __init__(self, model: str, settings: EndpointSettings) -> None:
        try:
            import openai
        except ImportError as error:
            raise DemurError(
                "An endpoint as judge needs openai: run `pip install 'demur[endpoint]'`."
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
        # Not every endpoint takes these; one that it refuses is left out from then on.
        self._options: dict[str, Any] = {
            "temperature": 0,
            "max_completion_tokens": _ANSWER_TOKENS,
        }

    def ask_all(
        self, task: str, data: Sequence[dict[str, str]], progress: Progress, description: str
    ) -> list[str | None]:
        """The answers to one task on many data, None where one holds no text.

        Args:
            task: what to do, the system message.
            data: handed over as JSON, the user's message.
            progress: hears of it.
            description: of the stage.

        Raises:
            DemurError: the endpoint refuses, or cannot be reached in time.
        """
        answers: list[str | None] = [None] * len(data)
        pool = ThreadPoolExecutor(min(self._settings.concurrency, max(1, len(data))))
        try:
            with progress.stage(description, len(data), "answers") as stage:
                rows: dict[Future[str | None], int] = {
                    pool.submit(self._ask, task, as_data(texts)): row
                    for row, texts in enumerate(data)
                }
                for future in as_completed(rows):
                    answers[rows[future]] = future.result()
                    stage.advance()
                    usage = self.usage
                    stage.note(f"{usage.prompt_tokens + usage.completion_tokens} tokens")
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return answers

    def _ask(self, task: str, data: str) -> str | None:
        import openai

        while True:
            options = dict(self._options)
            try:
                completion: Any = self._client.chat.completions.create(
                    model=self.model,
                    messages=[
                        {"role": "system", "content": task},
                        {"role": "user", "content": data},
                    ],
                    **options,
                )
            except openai.BadRequestError as error:
                refused = [name for name in options if name in str(error)]
                if not refused:
                    raise self._explained(error) from error
                with self._lock:
                    for name in refused:
                        self._options.pop(name, None)
            except (openai.OpenAIError, ValueError) as error:
                # A body that is no JSON is a ValueError.
                raise self._explained(error) from error
            else:
                return self._read(completion)

    def _read(self, completion: Any) -> str | None:
        if isinstance(completion, (str, bytes)):
            raise DemurError(
                f"{self._place} does not answer as OpenAI's endpoints do; check the base URL"
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
            content = completion.choices[0].message.content
        except (AttributeError, IndexError, TypeError):
            return None
        return content if isinstance(content, str) else None

    @property
    def _place(self) -> str:
        # Without user name, password and query, which may be secrets.
        url = self._client.base_url
        return f"{url.scheme}://{url.host}{f':{url.port}' if url.port else ''}{url.path}"

    def _explained(self, error: Exception) -> DemurError:
        """One line that names the mend; never with the key in it."""
        import openai

        place, settings = self._place, self._settings
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


def as_data(texts: dict[str, str]) -> str:
    """Texts as one JSON object that no text can leave, nor look like chat markup inside of."""
    encoded = json.dumps(texts, ensure_ascii=False, indent=1)
    encoded = _MARKUP.sub(lambda match: f"\\u{ord(match[0]):04x}", encoded)
    # Half of a surrogate pair is no character and cannot be sent.
    return encoded.encode("utf-8", "replace").decode()


def last_word(answer: str | None, words: Sequence[str]) -> str | None:
    """Which of `words` the answer is, whatever its case and the marks around it; None for others.

    What a model thought before its answer does not count.
    """
    if answer is None:
        return None
    said = answer.rpartition("</think>")[2].strip(" \t\r\n*_`\"'.!").lower()
    return said if said in words else None


def _count(usage: Any, name: str) -> int:
    value = getattr(usage, name, None)
    return value if isinstance(value, int) and value > 0 else 0


def _printable(text: str) -> str:
    line = " ".join(text.split())
    return "".join(character for character in line if character.isprintable())[:120]
