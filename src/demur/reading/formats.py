"""What other tools write, told by the fields of its rows: what was asked, and what came back.

- `alpaca_eval`: outputs (`instruction`, `output`, `generator`), which demur writes as well.
- lm-evaluation-harness: `samples_*.jsonl`.
- OpenAI's batch files: requests and answers, joined by `custom_id`.
- Inspect: samples of its logs.
- JailbreakBench: artifacts, whose `prompt` is the attack and whose `goal` is left alone.
- HarmBench: completions, a list for every behavior.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from demur.errors import DemurError
from demur.reading.batches import BatchAnswers, BatchRequests
from demur.reading.given import (
    LABELS,
    Format,
    GivenResponse,
    fingerprint_in,
    response_of,
    response_of_choice,
)
from demur.reading.messages import (
    Messages,
    check_query,
    content_text,
    is_conversation,
    read_messages,
)
from demur.reading.objects import parse_json
from demur.reading.row import Row
from demur.reading.text import check_text
from demur.records import Query

_ATTACHMENT = "attachment://"
_MESSAGES = re.compile(r"\s*\[\s*\{")


@dataclass(frozen=True)
class AlpacaEval:
    """Outputs of `alpaca_eval`."""

    name: str = "outputs of alpaca_eval"

    def fits(self, row: Row) -> bool:
        """Rows with an instruction and an output."""
        return row.has("instruction", "output") and not row.has("response")

    def query(self, row: Row) -> Query | None:
        """The instruction, and its input where it has one."""
        return with_input(check_query(row.find("instruction"), "instruction", row.place), row)

    def responses(self, row: Row) -> list[GivenResponse]:
        """The output."""
        text = check_text(row.find("output"), "output", row.place)
        return [response_of(text, query=self.query(row), prompt=row.name("generator"))]


@dataclass(frozen=True)
class JailbreakBench:
    """Artifacts of JailbreakBench."""

    name: str = "an artifact of JailbreakBench"

    def fits(self, row: Row) -> bool:
        """Rows with a goal, an attack and what it achieved."""
        return row.has("goal", "prompt", "response", "jailbroken")

    def query(self, row: Row) -> Query | None:
        """The attack; None where none was found."""
        return row.text("prompt")

    def responses(self, row: Row) -> list[GivenResponse]:
        """The response to the attack."""
        asked, text = row.text("prompt"), row.text("response")
        if asked is None and text is None:
            return []
        category = row.name("category")
        return [response_of(text, query=asked, label="harmful", category=category)]


@dataclass(frozen=True)
class HarmBench:
    """Completions of HarmBench."""

    name: str = "completions of HarmBench"

    def fits(self, row: Row) -> bool:
        """Rows with a test case and what a model generated."""
        return row.has("test_case", "generation")

    def query(self, row: Row) -> Query | None:
        """The test case."""
        return check_query(row.find("test_case"), "test_case", row.place)

    def responses(self, row: Row) -> list[GivenResponse]:
        """The generation."""
        text = check_text(row.find("generation"), "generation", row.place)
        return [response_of(text, query=self.query(row), label="harmful")]


@dataclass
class HarnessSamples:
    """Samples of lm-evaluation-harness. It writes each response once for every filter.

    Attributes:
        filters: the first filter that was seen.
    """

    name: str = "samples of lm-evaluation-harness"
    filters: set[str] = field(default_factory=set)

    def fits(self, row: Row) -> bool:
        """Rows with the arguments of requests and their responses."""
        return row.has("doc_id", "arguments", "resps")

    def query(self, row: Row) -> Query | None:
        """What was sent; the messages where they were sent as such."""
        messages = self._sent(row)
        return messages if isinstance(messages, str) else messages.whole

    def responses(self, row: Row) -> list[GivenResponse]:
        """The responses to the one request of a sample."""
        name = str(row.get("filter"))
        self.filters = self.filters or {name}
        if name not in self.filters:
            return []  # another view of responses that were read
        sent, found = self._sent(row), row.get("resps")
        while isinstance(found, list) and len(found) == 1 and isinstance(found[0], list):
            (found,) = found
        if not isinstance(found, list) or not found:
            raise DemurError(f"{row.place}: 'resps' holds no responses: write the samples again.")
        return [
            response_of(
                check_text(text, "resps", row.place),
                query=sent if isinstance(sent, str) else sent.query,
                system=None if isinstance(sent, str) else sent.system,
            )
            for text in found
        ]

    def _sent(self, row: Row) -> str | Messages:
        requests = _items(row.get("arguments"))
        parts = _items(requests[0]) if requests else []
        if len(requests) != 1 or len(parts) < 2 or not isinstance(parts[1], Mapping):
            raise DemurError(
                f"{row.place} holds no generated text but scores of given answers: give the "
                "samples of a task that generates."
            )
        sent = parts[0]
        if not is_conversation(sent):
            sent = sent[0] if isinstance(sent, list) and len(sent) == 1 else sent
            text = check_text(sent, "arguments", row.place)
            sent = _json_in(text, row.place)
            if not is_conversation(sent):
                return text
        return read_messages(sent, "arguments", row.place)


@dataclass(frozen=True)
class InspectLog:
    """Samples in logs of Inspect."""

    name: str = "a log of Inspect"

    def fits(self, row: Row) -> bool:
        """Rows with an epoch of a sample."""
        return row.has("id", "epoch", "input", "output")

    def query(self, row: Row) -> Query | None:
        """The input of the sample. System messages that a solver added are no part of it."""
        asked = row.find("input")
        if isinstance(asked, str):
            return self._asked(row)[0]
        return check_query(asked, "input", row.place)

    def responses(self, row: Row) -> list[GivenResponse]:
        """What the model said at last; none where it failed."""
        query, system = self._asked(row)
        label = row.get("metadata", "label")
        known = {
            name: value
            for name in ("prompt", "set", "category")
            if isinstance(value := row.get("metadata", name), str) and value.strip()
        }
        choices = row.get("output", "choices") or [{}]
        if not isinstance(choices, list):
            raise DemurError(f"{row.place}: 'output.choices' is no list: write the log again.")
        found = [
            response_of_choice(
                choice,
                row.place,
                "stop_reason",
                query=query,
                system=system,
                condition=fingerprint_in(row.get("metadata", "condition")),
                label=LABELS.get(label) if isinstance(label, str) else None,
                **known,
            )
            for choice in choices
        ]
        failed = row.get("error") is not None
        return [
            replace(
                one,
                text=None if failed else _attached(one.text, row),
                end="failed" if failed else one.end,
            )
            for one in found
        ]

    def _asked(self, row: Row) -> tuple[Query, str | None]:
        """The query, and the system text that the solver or the sample put before it."""
        asked = row.find("input")
        said = row.get("messages")
        opening = [
            _attached(content_text(one.get("content"), row.place), row) or ""
            for one in (said if isinstance(said, list) else [])
            if isinstance(one, Mapping) and one.get("role") == "system"
        ]
        system = "\n\n".join(opening) or None
        if isinstance(asked, str):
            text = _attached(check_text(asked, "input", row.place), row)
            return text or "", system
        found = read_messages(asked, "input", row.place)
        if found.answer is not None:
            raise DemurError(f"{row.place}: 'input' ends with the assistant: give other samples.")
        return found.query, system or found.system


def formats() -> tuple[Format, ...]:
    """Every tool whose rows are known, for the reading of one file."""
    return (
        BatchRequests(),
        BatchAnswers(),
        HarnessSamples(),
        InspectLog(),
        JailbreakBench(),
        HarmBench(),
        AlpacaEval(),
    )


def _json_in(text: str, place: str) -> object:
    """The value of a text that is JSON; None for any other text."""
    if _MESSAGES.match(text):
        with suppress(DemurError):
            return parse_json(text, place)
    return None


def _items(value: object) -> list[Any]:
    """The items of a list, or the values of an object; none of anything else."""
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, list) else []


def with_input(instruction: Query, row: Row) -> Query:
    """An instruction with what stands in the field `input` beside it, if anything does.

    Raises:
        DemurError: the instruction is a conversation and has an input.
    """
    more = row.name("input")
    if more is None:
        return instruction
    if not isinstance(instruction, str):
        raise DemurError(f"{row.place} has an 'input' beside a conversation: remove it.")
    return f"{instruction}\n\n{more}"


def _attached(text: str | None, row: Row) -> str | None:
    """The text itself, where a log of Inspect keeps it once for all its places."""
    if text is None or not text.startswith(_ATTACHMENT):
        return text
    found = row.get("attachments", text.removeprefix(_ATTACHMENT))
    return check_text(found, "attachments", row.place)
