"""Continuations of token ids and embeddings at a vLLM server, as the ids of their tokens."""

from __future__ import annotations

import json
import math
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from demur.endpoint.complaints import Complaint
from demur.endpoint.connection import Connection
from demur.endpoint.failures import RequestFailed
from demur.endpoint.json_values import member, objects_in, whole_number
from demur.endpoint.reading import Malformed
from demur.endpoint.requests import Asked, Message, SamplingOptions
from demur.endpoint.running import run
from demur.endpoint.waiting import wait_in
from demur.progress import Stage

if TYPE_CHECKING:
    from openai import DefaultAsyncHttpxClient

NEEDED = "a vLLM server, 0.21 or later"

_ENDS = ("stop", "length")
_ROWS = re.compile("prompt[_-]embeds")


@dataclass(frozen=True)
class Completion:
    """What is to be continued.

    Attributes:
        prompt: gives the conversation as a member of the request: `prompt` with token ids, or
            `prompt_embeds` with rows. It is called for each try, because rows are large.
        options: how the continuations are sampled, by vLLM's names.
        count: number of continuations.
        tokens: largest number of tokens of each.
        text: what is asked, for messages.
    """

    prompt: Callable[[], Mapping[str, object]]
    options: Mapping[str, object]
    count: int
    tokens: int
    text: str


@dataclass(frozen=True)
class Continuation:
    """What a model said.

    Attributes:
        tokens: ids of its tokens; the one that ended it may be the last.
        stopped: whether it was ended by a token, and not by the limit of tokens.
        log_probabilities: those of the tokens, where they were asked for.
    """

    tokens: tuple[int, ...]
    stopped: bool
    log_probabilities: tuple[float, ...] = ()


@dataclass(frozen=True)
class Served:
    """A model at a server.

    Attributes:
        name: its name there.
        context: number of tokens that a conversation may hold there; None where it is not known.
    """

    name: str
    context: int | None


@dataclass(frozen=True)
class _Got:
    row: int
    found: list[Continuation]


_Event: TypeAlias = _Got | str


class CompletionClient(Connection):
    """Asks one model behind a vLLM server to go on with token ids or with embeddings.

    Nothing of a request is changed or left out for the server.
    """

    def served(self) -> list[Served]:
        """The models that the server has.

        Raises:
            DemurError: the server cannot be asked.
        """
        found = self._listing(_served_in)
        return [one for one in found if self._secrets.hidden_in_text(one.name) == one.name]

    def complete_all(self, asked: Sequence[Completion], stage: Stage) -> list[list[Continuation]]:
        """The continuations of each, in their order.

        The first request that fails for good ends all. So does an interruption, at once.

        Args:
            asked: any number of requests.
            stage: advanced by one for each continuation.

        Raises:
            DemurError: the server refuses, or cannot be reached in time.
        """
        found: dict[int, list[Continuation]] = {}
        rows = deque(range(len(asked)))

        def hear(event: _Event) -> None:
            if isinstance(event, str):
                stage.note(event)
                return
            found[event.row] = event.found
            stage.advance(len(event.found))

        async def work(send: Callable[[_Event], None]) -> None:
            await self._each(
                rows,
                lambda client, row: self._completed(client, asked[row]),
                lambda row, found: send(_Got(row, found)),
                send,
            )

        if rows:
            run(work, hear)
        return [found[row] for row in range(len(asked))]

    async def _completed(
        self, client: DefaultAsyncHttpxClient, asked: Completion
    ) -> list[Continuation]:
        body = {
            "model": self.model,
            **asked.prompt(),
            **asked.options,
            "n": asked.count,
            "max_tokens": asked.tokens,
            "return_token_ids": True,
        }
        content = json.dumps(body).encode()
        tokens = asked.tokens * asked.count
        reply = await self._exchanged(client, "POST", "completions", content, tokens)
        found = self._read(reply, lambda body: _continuations_in(body, asked.count))
        if isinstance(found, Complaint):
            if _ROWS.search(f"{found.param} {found.message}"):
                raise RequestFailed(
                    f"{self.place} does not take a trained prompt "
                    f"({self._explainer.shown(found.message)})",
                    "start it with --enable-prompt-embeds",
                )
            options = SamplingOptions(max_tokens=asked.tokens)
            told = Asked(self.place, self.model, (Message("user", asked.text),), options)
            raise self._explainer.refused(found, told, wait_in(reply.headers))
        if found is None:
            raise RequestFailed(
                f"{self.place} does not say which tokens its answers have", f"give {NEEDED}"
            )
        return found


def _served_in(body: object) -> list[Served]:
    """The models in a list.

    Raises:
        Malformed: it is no such list.
    """
    listed = member(body, "data")
    if not isinstance(listed, list):
        raise Malformed("it holds no list of models")
    found: list[Served] = []
    for one in objects_in(listed):
        name, context = one.get("id"), whole_number(one.get("max_model_len"))
        if isinstance(name, str) and name and name.isprintable():
            found.append(Served(name, context))
    return found


def _continuations_in(body: object, count: int) -> list[Continuation] | None:
    """The continuations in a reply; None where the server gives texts and no tokens.

    Raises:
        Malformed: they are not as many as were asked for, or one is none.
    """
    choices = objects_in(member(body, "choices"))
    if len(choices) != count:
        raise Malformed(f"it holds {len(choices)} choices where {count} were asked for")
    ordered = sorted(choices, key=lambda one: whole_number(one.get("index")) or 0)
    if any(one.get("token_ids") is None for one in ordered):
        return None
    return [_continuation(one) for one in ordered]


def _continuation(choice: Mapping[str, object]) -> Continuation:
    finish, tokens = choice.get("finish_reason"), choice.get("token_ids")
    if finish not in _ENDS:
        raise Malformed(f"its finish_reason is {str(finish)!r:.40}")
    likely = member(choice, "logprobs", "token_logprobs")
    return Continuation(
        tuple(_whole(one) for one in tokens) if isinstance(tokens, list) else (),
        finish == "stop",
        tuple(_number(one) for one in likely) if isinstance(likely, list) else (),
    )


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise Malformed("one of its tokens is no whole number")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise Malformed("one of its log-probabilities is no number")
    return float(value)
