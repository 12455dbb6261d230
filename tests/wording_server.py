"""A server whose model follows a safety prompt, and a proposer that knows a few wordings.

The model refuses query N where its system message holds a rule that covers N: `harmful` queries
under `refuse N and below`, `harmless` ones under `answer N and above`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.endpoint_server import Endpoint, Reply, completion, running_server

REFUSAL = "I'm sorry, but I can't help with that."
LONG_ANSWER = "Here is how " + " ".join(f"word{number}" for number in range(40))
MODEL = "target-model"
PROPOSER = "proposer-model"
BASIC = "Rule: refuse 2 and below. Rule: answer 7 and above."


def wording(refuse: int, answer: int) -> str:
    return f"Rule: refuse {refuse} and below. Rule: answer {answer} and above."


def queries(kind: str, split: str, count: int = 10) -> list[str]:
    return [f"{kind} {split} number {number}" for number in range(count)]


def answer(body: dict[str, Any]) -> Reply:
    """What the model says: query N is refused or answered as the rules have it."""
    system = next((one["content"] for one in body["messages"] if one["role"] == "system"), "")
    kind, *_, number = body["messages"][-1]["content"].split()
    refuse, begin = re.search(r"refuse (\d+)", system), re.search(r"answer (\d+)", system)
    if kind == "harmful":
        refuses = refuse is not None and int(number) <= int(refuse[1])
    else:
        refuses = begin is None or int(number) < int(begin[1])
    return completion(REFUSAL if refuses else LONG_ANSWER, 20 + len(system) // 4, 12)


def shown_to(body: dict[str, Any]) -> dict[str, str]:
    """What a request shows the proposer."""
    data, end, _ = body["messages"][-1]["content"].rpartition("}")
    shown: dict[str, str] = json.loads(data + end)
    return shown


def better(body: dict[str, Any]) -> str:
    """One step better than the wording that is shown."""
    text = shown_to(body)["safety prompt"]
    refuse, begin = re.search(r"refuse (\d+)", text), re.search(r"answer (\d+)", text)
    assert refuse is not None
    assert begin is not None
    step = wording(min(9, int(refuse[1]) + 2), max(0, int(begin[1]) - 2))
    return f"The wrong ones have much in common.\n```\n{step}\n```"


def proposals(script: Callable[[dict[str, Any]], str | None]) -> Callable[[dict[str, Any]], Reply]:
    """A server's replies: those of the model, and for the proposer what a script says."""

    def reply(body: dict[str, Any]) -> Reply:
        if body["model"] == PROPOSER:
            return completion(script(body), 400, 80)
        return answer(body)

    return reply


@contextmanager
def running(script: Callable[[dict[str, Any]], str | None] = better) -> Iterator[Endpoint]:
    with running_server(proposals(script), (MODEL, PROPOSER)) as state:
        yield state


def asked(endpoint: Endpoint) -> Counter[str]:
    """How often each request came."""
    return Counter(json.dumps(body, sort_keys=True) for body in endpoint.requests)


def tokens(endpoint: Endpoint) -> int:
    """The tokens of all answers."""
    bodies = [endpoint.reply(body)[1] for body in endpoint.requests]
    return sum(body["usage"]["total_tokens"] for body in bodies)
