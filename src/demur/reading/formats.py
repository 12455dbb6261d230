"""What other tools write, told by the fields of its rows: what was asked, and what came back.

- `alpaca_eval`: outputs (`instruction`, `output`, `generator`), which demur writes as well.
- lm-evaluation-harness: `samples_*.jsonl`.
- OpenAI's batch files: requests and answers, joined by `custom_id`.
- Inspect: samples of its logs.
- JailbreakBench: artifacts, whose `prompt` is the attack and whose `goal` is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from demur.errors import DemurError
from demur.limits import MOST_TEXT_CHARACTERS
from demur.reading.messages import Messages, check_query, content_text, read_messages
from demur.reading.objects import parse_json
from demur.reading.row import Row
from demur.reading.text import check_text
from demur.records import REFUSAL, Label, Query

_LABELS: dict[str, Label] = {"harmful": "harmful", "harmless": "harmless"}
_ATTACHMENT = "attachment://"


@dataclass(frozen=True)
class GivenResponse:
    """A response that exists already, and what is known of it.

    Attributes:
        text: text of the response; None where there is none.
        end: why it ended, or why there is none; None where that is not known.
        query: what was asked, or None where that is not known.
        opened: whether it is known what stood before the query.
        system: the system text that stood before it; None for no such text.
        prompt: name of the safety prompt, or None.
        condition: fingerprint of the condition, as demur writes it, or None.
        set: name of the query set, or None.
        label: label of the query, or None.
        category: category of the query, or None.
        request: identifier of the request in another file, or None.
    """

    text: str | None
    end: str | None = None
    query: Query | None = None
    opened: bool = False
    system: str | None = None
    prompt: str | None = None
    condition: str | None = None
    set: str | None = None
    label: Label | None = None
    category: str | None = None
    request: str | None = None


@dataclass(frozen=True)
class GivenRequest:
    """What was asked, in a file of its own.

    Attributes:
        query: what was asked.
        system: the system text before it, or None.
    """

    query: Query
    system: str | None


class Format(Protocol):
    """The rows of a tool."""

    @property
    def name(self) -> str:
        """What people call it."""

    def fits(self, row: Row) -> bool:
        """Whether a row is of this tool."""

    def query(self, row: Row) -> Query | None:
        """What was asked; None where the row does not say it.

        Raises:
            DemurError: it is malformed.
        """

    def responses(self, row: Row) -> list[GivenResponse]:
        """What came back, possibly several; none where nothing was asked or it stands elsewhere.

        Raises:
            DemurError: it is malformed.
        """


@dataclass(frozen=True)
class AlpacaEval:
    """Outputs of `alpaca_eval`."""

    name: str = "outputs of alpaca_eval"

    def fits(self, row: Row) -> bool:
        """Rows with an instruction and an output."""
        return row.has("instruction", "output") and not row.has("response")

    def query(self, row: Row) -> Query | None:
        """The instruction, and its input where it has one."""
        instruction = check_query(row.find("instruction"), "instruction", row.place)
        more = row.name("input")
        if more is None:
            return instruction
        if not isinstance(instruction, str):
            raise DemurError(f"{row.place} has an 'input' beside a conversation: remove it.")
        return f"{instruction}\n\n{more}"

    def responses(self, row: Row) -> list[GivenResponse]:
        """The output."""
        text = check_text(row.find("output"), "output", row.place)
        return [_response(text, query=self.query(row), prompt=row.name("generator"))]


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
        return [_response(text, query=asked, label="harmful", category=category)]


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
        return messages if isinstance(messages, str) else messages.query

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
            _response(
                check_text(text, "resps", row.place),
                query=sent if isinstance(sent, str) else sent.query,
                opened=not isinstance(sent, str),
                system=None if isinstance(sent, str) else sent.system,
            )
            for text in found
        ]

    def _sent(self, row: Row) -> str | Messages:
        arguments = row.get("arguments")
        requests = list(arguments.values() if isinstance(arguments, Mapping) else arguments or ())
        first = requests[0] if requests else None
        parts = list(first.values() if isinstance(first, Mapping) else first or ())
        if len(requests) != 1 or len(parts) < 2 or not isinstance(parts[1], Mapping):
            raise DemurError(
                f"{row.place} holds no generated text but scores of given answers: give the "
                "samples of a task that generates."
            )
        sent = parts[0][0] if isinstance(parts[0], list) and len(parts[0]) == 1 else parts[0]
        text = check_text(sent, "arguments", row.place)
        if text.lstrip().startswith('[{"'):
            return read_messages(parse_json(text, row.place), "arguments", row.place)
        return text


@dataclass(frozen=True)
class BatchRequests:
    """Requests of OpenAI's batch API."""

    name: str = "requests of a batch"

    def fits(self, row: Row) -> bool:
        """Rows with the body of a request."""
        return row.has("custom_id", "body") and not row.has("response")

    def query(self, row: Row) -> Query | None:
        """The query in the request."""
        for key in ("messages", "input"):
            if row.get("body", key) is not None:
                return check_query(row.get("body", key), f"body.{key}", row.place)
        return check_text(row.find("body.prompt"), "body.prompt", row.place)

    def responses(self, row: Row) -> list[GivenResponse]:
        """None: the responses stand in the output."""
        return []

    def request(self, row: Row) -> tuple[str, GivenRequest]:
        """The identifier of a request, and what it asks.

        Raises:
            DemurError: it is malformed.
        """
        identifier = check_text(row.find("custom_id"), "custom_id", row.place)
        for key in ("messages", "input"):
            if isinstance(row.get("body", key), list):
                found = read_messages(row.get("body", key), f"body.{key}", row.place)
                if found.answer is None:
                    return identifier, GivenRequest(found.query, found.system)
        query = self.query(row)
        instructions = row.get("body", "instructions")
        assert query is not None
        return identifier, GivenRequest(query, instructions or None)


@dataclass(frozen=True)
class BatchAnswers:
    """Answers of OpenAI's batch API."""

    name: str = "answers of a batch"

    def fits(self, row: Row) -> bool:
        """Rows with the answer to a request, or an error in its place."""
        if not row.has("custom_id") or not row.has("response"):
            return False
        return row.get("response") is None or isinstance(row.get("response"), Mapping)

    def query(self, row: Row) -> Query | None:
        """None: the query stands in the input."""
        return None

    def responses(self, row: Row) -> list[GivenResponse]:
        """The choices of an answer; one without text where the request failed."""
        request = row.text("custom_id")
        status = row.get("response", "status_code")
        if row.get("error") is not None or status not in (200, None):
            code = row.get("error", "code") or status
            return [GivenResponse(None, end=f"failed: {code!s:.40}", request=request)]
        body = row.get("response", "body")
        if not isinstance(body, Mapping):
            return [GivenResponse(None, end="failed", request=request)]
        if isinstance(body.get("output"), list):
            return [_of_output(body, row.place, request)]
        choices = body.get("choices")
        if not isinstance(choices, list) or not choices:
            return [GivenResponse(None, end="no choices", request=request)]
        return [
            _of_choice(choice, row.place, "finish_reason", request=request) for choice in choices
        ]


@dataclass(frozen=True)
class InspectLog:
    """Samples in logs of Inspect."""

    name: str = "a log of Inspect"

    def fits(self, row: Row) -> bool:
        """Rows with an epoch of a sample."""
        return row.has("id", "epoch", "input", "output")

    def query(self, row: Row) -> Query | None:
        """The input of the sample."""
        return self._asked(row)[0]

    def responses(self, row: Row) -> list[GivenResponse]:
        """What the model said at last; none where it failed."""
        query, system = self._asked(row)
        label = row.get("metadata", "label")
        known = {
            name: value
            for name in ("prompt", "condition", "set", "category")
            if isinstance(value := row.get("metadata", name), str) and value.strip()
        }
        choices = row.get("output", "choices") or [{}]
        found = [
            _of_choice(
                choice,
                row.place,
                "stop_reason",
                query=query,
                opened=True,
                system=system,
                label=_LABELS.get(label) if isinstance(label, str) else None,
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
        AlpacaEval(),
    )


def _response(text: str | None, **known: Any) -> GivenResponse:
    """A response; a blank one is none."""
    return GivenResponse(text if text is not None and text.strip() else None, **known)


def _of_choice(choice: object, place: str, reason: str, **known: Any) -> GivenResponse:
    """A choice of a completion. A refusal in a field of its own says so itself."""
    if not isinstance(choice, Mapping):
        raise DemurError(f"{place} has a choice that is no object: write the file again.")
    message = choice.get("message")
    end = _name(choice.get(reason))
    if message is None:
        value = choice.get("text")
        text = None if value is None else check_text(value, "text", place)
        return _response(text, end=end, **known)
    if not isinstance(message, Mapping):
        raise DemurError(f"{place} has a message that is no object: write the file again.")
    content, refusal = message.get("content"), message.get("refusal")
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, Mapping)]
        refused = [part.get("refusal") for part in parts if part.get("type") == "refusal"]
        said = [part for part in content if part not in parts or part.get("type") != "refusal"]
        content, refusal = (
            content_text(said, place, MOST_TEXT_CHARACTERS),
            (refused or [refusal])[0],
        )
    if content is None or not str(content).strip():
        if isinstance(refusal, str) and refusal.strip():
            return _response(check_text(refusal, "refusal", place), end=REFUSAL, **known)
        return _response(None, end=end, **known)
    return _response(check_text(content, "content", place), end=end, **known)


def _of_output(body: Mapping[str, Any], place: str, request: str | None) -> GivenResponse:
    """An answer of the API of responses: the parts of its messages together."""
    parts: list[object] = []
    for one in body["output"]:
        if isinstance(one, Mapping) and one.get("type") == "message":
            content = one.get("content")
            parts += content if isinstance(content, list) else []
    choice = {"message": {"content": parts}, "end": body.get("status")}
    return _of_choice(choice, place, "end", request=request)


def _name(value: object) -> str | None:
    return value[:60] if isinstance(value, str) and value.strip() else None


def _attached(text: str | None, row: Row) -> str | None:
    """The text itself, where a log of Inspect keeps it once for all its places."""
    if text is None or not text.startswith(_ATTACHMENT):
        return text
    found = row.get("attachments", text.removeprefix(_ATTACHMENT))
    return check_text(found, "attachments", row.place)


def is_sequence(value: object) -> bool:
    """Whether a value is a list, which a text is not."""
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))
