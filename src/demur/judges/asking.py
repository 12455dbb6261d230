"""Asking a model behind an endpoint for one word about texts that are not trusted."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from demur.endpoint import (
    ChangedOptions,
    EndpointClient,
    EndpointSettings,
    Message,
    Request,
    SamplingOptions,
    TokenUsage,
)
from demur.progress import Progress
from demur.records import answer_in
from demur.records.fingerprint import fingerprint

_ANSWER_TOKENS = 1024
"""Most tokens of an answer: models that think before they answer need room."""

# Spelled so that a server that reads special tokens in messages could take it for markup.
_MARKUP = re.compile(r"[<>]|\[(?=/?[A-Z_]+\])")


class Asker:
    """Puts one task to a model behind an OpenAI-compatible endpoint, for many texts.

    Args:
        model: name of the model at the endpoint.
        settings: where the endpoint is and how it is asked.
        task: instruction, sent as the system message.

    Attributes:
        name: what results call a judge that asks here.
        client: the client that asks the endpoint.

    Raises:
        DemurError: the `openai` package or the key is missing.
    """

    def __init__(self, model: str, settings: EndpointSettings, task: str) -> None:
        self._options = SamplingOptions(temperature=0, max_completion_tokens=_ANSWER_TOKENS)
        self.client = EndpointClient(model, settings, self._options)
        self._task = task
        self._said: ChangedOptions | None = None
        self.name = f"endpoint:{model}"

    @property
    def fingerprint(self) -> str:
        """SHA-256 (64 hex digits) of the model's name, the endpoint's address and the task."""
        return fingerprint(
            "endpoint judge",
            model=self.client.model,
            address=self.client.place,
            task=self._task,
            options=self._options.given(),
        )

    @property
    def usage(self) -> TokenUsage:
        """Tokens of all questions so far."""
        return self.client.usage

    def ask(
        self, data: Sequence[Mapping[str, str]], progress: Progress, description: str
    ) -> list[str | None]:
        """The answers to the task, one for each set of texts; None for one that is no text.

        Args:
            data: texts by name, sent as one JSON object in the user's message.
            progress: reports progress.
            description: name of the stage in progress reports.

        Raises:
            DemurError: the endpoint refuses, or cannot be reached.
        """
        requests = [
            Request([Message("system", self._task), Message("user", as_data(texts))])
            for texts in data
        ]
        self.client.announce(progress)
        with progress.stage(f"{description}: {self.name}", len(data), "answers") as stage:
            answers = self.client.chat_all(requests, stage)
        # A judge that refuses to judge, or that a filter stops, has no verdict.
        return [answer.text if answer.kind == "text" else None for answer in answers]

    def report(self, progress: Progress, verdicts: Sequence[object]) -> None:
        """Say what the questions cost, and how many of the verdicts are None."""
        usage, missing = self.usage, sum(verdict is None for verdict in verdicts)
        progress.message(
            f"{self.name}: {usage.prompt_tokens} tokens read and {usage.completion_tokens} written"
            f" so far; no verdict on {missing} of {len(verdicts)}"
        )
        changed = self.client.changed_options
        if changed is not None and changed != self._said:
            self._said = changed
            progress.message(str(changed))


class EndpointIdentity:
    """What every judge that asks an endpoint says of itself: its asker's name, identity and cost.

    Args:
        asker: puts the judge's task to the model behind the endpoint.
    """

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    @property
    def name(self) -> str:
        """What results call the judge."""
        return self._asker.name

    @property
    def fingerprint(self) -> str:
        """SHA-256 (64 hex digits) of the model's name, the endpoint's address and the question."""
        return self._asker.fingerprint

    @property
    def usage(self) -> TokenUsage:
        """Tokens of all questions so far."""
        return self._asker.usage

    @property
    def client(self) -> EndpointClient:
        """The client that asks the endpoint."""
        return self._asker.client

    @property
    def changed_options(self) -> ChangedOptions | None:
        """How the requests were changed for the endpoint; None where they were not."""
        return self._asker.client.changed_options


def as_data(texts: Mapping[str, str]) -> str:
    """Texts as one JSON object that no text can end, and in which none looks like chat markup."""
    encoded = json.dumps(dict(texts), ensure_ascii=False, indent=1)
    encoded = _MARKUP.sub(lambda match: f"\\u{ord(match[0]):04x}", encoded)
    # Half of a surrogate pair is no character and cannot be sent.
    return encoded.encode("utf-8", "replace").decode()


def last_word(answer: str | None, words: Sequence[str]) -> str | None:
    """The one of `words` that the answer consists of, or None.

    Case, marks around the word and any reasoning before it do not count.
    """
    said = None if answer is None else answer_in(answer)
    if said is None:
        return None
    said = said.strip(" \t\r\n*_`\"'.!").lower()
    return said if said in words else None
