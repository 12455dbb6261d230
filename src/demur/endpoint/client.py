"""Questions to an OpenAI-compatible endpoint, many at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict, replace
from typing import Any

from demur.endpoint.explaining import explained, printable
from demur.endpoint.requests import (
    Answer,
    Asked,
    EndpointSettings,
    Ledger,
    Request,
    SamplingOptions,
    TokenUsage,
)
from demur.errors import DemurError
from demur.progress import Stage

_NO_KEY = "none"  # the client insists on one; local servers ignore it
_IN_BODY = ("top_k",)
_OLD_LIMIT, _NEW_LIMIT = "max_tokens", "max_completion_tokens"  # newer endpoints want the latter


class EndpointClient:
    """Asks one model behind an OpenAI-compatible endpoint.

    The key is that of the variable that the settings name; with a base URL none is needed.

    Args:
        model: name of the model at the endpoint; empty where that is still to be found out.
        settings: where the endpoint is and how it is asked.
        options: options of every request. One that the endpoint refuses is left out from then on.

    Attributes:
        model: name of the model at the endpoint.
        usage: tokens so far.
        refused: names of the options that the endpoint refused.
        ledger: keeps answers and counts a budget, or None.

    Raises:
        DemurError: the `openai` package or the key is missing.
    """

    def __init__(self, model: str, settings: EndpointSettings, options: SamplingOptions) -> None:
        try:
            import openai
        except ImportError as error:
            raise DemurError(
                "An endpoint needs the package openai: run `pip install 'demur[endpoint]'`."
            ) from error
        base_url = settings.base_url or os.environ.get("OPENAI_BASE_URL") or None
        key = os.environ.get(settings.key_variable, "").strip()
        if not key and base_url is None:
            raise DemurError(
                f"OpenAI's endpoint needs a key: set {settings.key_variable}, or give the base URL "
                "of another server."
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
                f"{base_url!r:.100} cannot be used as a base URL ({printable(str(error))}): give "
                "one like http://localhost:8000/v1."
            ) from error
        self._lock = threading.Lock()
        self._options = options
        self.refused: set[str] = set()
        self.ledger: Ledger | None = None
        self._wants_new_limit = False

    def models(self) -> list[str]:
        """The names of the models that the endpoint has.

        Raises:
            DemurError: the endpoint cannot be asked.
        """
        import openai

        try:
            return [str(model.id) for model in self._client.models.list()]
        except (openai.OpenAIError, ValueError, AttributeError, TypeError) as error:
            raise self._explained(error) from error

    def chat_all(self, requests: Sequence[Request], stage: Stage) -> list[Answer]:
        """The answers to many requests, in their order.

        Args:
            requests: any number of requests.
            stage: advanced by one for each.

        Raises:
            DemurError: the endpoint refuses, or cannot be reached in time.
        """
        asked = [self._asked(request) for request in requests]
        kept = [None] * len(asked) if self.ledger is None else self.ledger.recall(asked)
        answers = {row: answer for row, answer in enumerate(kept) if answer is not None}
        stage.advance(len(answers))
        pool = ThreadPoolExecutor(min(self._settings.concurrency, max(1, len(requests))))
        try:
            rows: dict[Future[Answer], int] = {
                pool.submit(self._ask_and_keep, one): row
                for row, one in enumerate(asked)
                if row not in answers
            }
            for future in as_completed(rows):
                answers[rows[future]] = future.result()
                stage.advance()
                usage = self.usage
                stage.note(f"{usage.prompt_tokens + usage.completion_tokens} tokens")
        finally:
            # A ledger keeps the answers that are still under way after an interruption.
            pool.shutdown(wait=self.ledger is not None, cancel_futures=True)
        return [answers[row] for row in range(len(requests))]

    @property
    def place(self) -> str:
        """The endpoint's address, without user name, password and query, which may be secrets."""
        url = self._client.base_url
        return f"{url.scheme}://{url.host}{f':{url.port}' if url.port else ''}{url.path}"

    def _asked(self, request: Request) -> Asked:
        own: dict[str, Any] = dict(request.options.given())
        options = replace(self._options, **own)
        return Asked(self.place, self.model, tuple(request.messages), options)

    def _ask_and_keep(self, asked: Asked) -> Answer:
        answer = self._ask(asked)
        if self.ledger is not None:
            self.ledger.keep(asked, answer)
        return answer

    def _ask(self, asked: Asked) -> Answer:
        import openai

        messages: Any = [asdict(message) for message in asked.messages]
        given = asked.options.given()
        while True:
            options: dict[str, Any] = {
                name: value for name, value in given.items() if name not in self.refused
            }
            if self._wants_new_limit and _OLD_LIMIT in options:
                limit = options.pop(_OLD_LIMIT)
                if _NEW_LIMIT not in self.refused:
                    options.setdefault(_NEW_LIMIT, limit)
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
                    if _OLD_LIMIT in refused and _NEW_LIMIT in said:
                        self._wants_new_limit = True
                        refused.remove(_OLD_LIMIT)
                    self.refused.update(refused)
            except (openai.OpenAIError, ValueError) as error:
                # A body that is not JSON is a ValueError.
                raise self._explained(error) from error
            else:
                return self._read(completion)

    def _read(self, completion: Any) -> Answer:
        if isinstance(completion, (str, bytes)):
            raise DemurError(
                f"{self.place} does not answer as OpenAI's endpoints do: check the base URL (most "
                "end in /v1)."
            )
        counts = getattr(completion, "usage", None)
        read, written = _count(counts, "prompt_tokens"), _count(counts, "completion_tokens")
        with self._lock:
            self.usage = TokenUsage(
                self.usage.prompt_tokens + read,
                self.usage.completion_tokens + written,
                self.usage.answers + 1,
            )
        try:
            choice = completion.choices[0]
            content, finish = choice.message.content, choice.finish_reason
        except (AttributeError, IndexError, TypeError):
            return Answer(None, None, read, written)
        return Answer(
            _whole(content) if isinstance(content, str) else None,
            printable(finish) if isinstance(finish, str) else None,
            read,
            written,
        )

    def _explained(self, error: Exception) -> DemurError:
        return explained(error, self.place, self.model, self._settings)


def _count(usage: Any, name: str) -> int:
    value = getattr(usage, name, None)
    return value if isinstance(value, int) and value > 0 else 0


def _whole(text: str) -> str:
    """The text as it can be written: half of a surrogate pair becomes a replacement character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
