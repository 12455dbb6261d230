"""What was read of a response that exists already, and what reads it from a tool's rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from demur.errors import DemurError
from demur.limits import MOST_TEXT_CHARACTERS
from demur.reading.messages import content_text, own_refusal
from demur.reading.row import Row
from demur.reading.text import check_text
from demur.records import REFUSAL, Label, Query

_FINGERPRINT = re.compile("[0-9a-f]{64}")
LABELS: dict[str, Label] = {"harmful": "harmful", "harmless": "harmless"}


@dataclass(frozen=True)
class GivenResponse:
    """A response that exists already, and what is known of it.

    Attributes:
        text: text of the response; None where there is none.
        end: why it ended, or why there is none; None where that is not known.
        query: what was asked, or None where that is not known.
        system: the system text that stood before it, or None.
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


def response_of(text: str | None, **known: Any) -> GivenResponse:
    """A response; a blank one is none."""
    return GivenResponse(text if text is not None and text.strip() else None, **known)


def response_of_choice(choice: object, place: str, reason: str, **known: Any) -> GivenResponse:
    """A choice of a completion. A refusal in a field of its own says so itself."""
    if not isinstance(choice, Mapping):
        raise DemurError(f"{place} has a choice that is no object: write the file again.")
    message = choice.get("message")
    end = short_name(choice.get(reason))
    if message is None:
        value = choice.get("text")
        text = None if value is None else check_text(value, "text", place)
        return response_of(text, end=end, **known)
    if not isinstance(message, Mapping):
        raise DemurError(f"{place} has a message that is no object: write the file again.")
    refusal = own_refusal(message, place)
    if refusal is not None:
        return response_of(refusal, end=REFUSAL, **known)
    content = message.get("content")
    if isinstance(content, list):
        said = [
            part
            for part in content
            if not isinstance(part, Mapping) or part.get("type") != "refusal"
        ]
        content = content_text(said, place, MOST_TEXT_CHARACTERS)
    if content is None or not str(content).strip():
        return response_of(None, end=end, **known)
    return response_of(check_text(content, "content", place), end=end, **known)


def fingerprint_in(value: object) -> str | None:
    """The fingerprint of a condition, where a field holds one and nothing else."""
    return value if isinstance(value, str) and _FINGERPRINT.fullmatch(value) else None


def short_name(value: object) -> str | None:
    return value[:60] if isinstance(value, str) and value.strip() else None


def is_sequence(value: object) -> bool:
    """Whether a value is a list, which a text is not."""
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))
