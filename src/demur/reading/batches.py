"""Batch files of OpenAI's API: the requests, and the answers that name them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from demur.endpoint.complaints import complaint_in
from demur.errors import DemurError
from demur.limits import MOST_QUERY_CHARACTERS
from demur.reading.given import GivenRequest, GivenResponse, response_of_choice
from demur.reading.messages import Messages, check_query, read_messages
from demur.reading.row import Row
from demur.reading.text import check_text
from demur.records import FILTERED, Query


@dataclass(frozen=True)
class BatchRequests:
    """Requests of OpenAI's batch API."""

    name: str = "requests of a batch"

    def fits(self, row: Row) -> bool:
        """Rows with the body of a request."""
        return row.has("custom_id", "body") and not row.has("response")

    def query(self, row: Row) -> Query | None:
        """The query in the request, with its system text."""
        asked = self.request(row)[1]
        return Messages(asked.query, asked.system, None).whole

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
            value = row.get("body", key)
            if not isinstance(value, list):
                continue
            found = read_messages(value, f"body.{key}", row.place)
            if found.answer is not None:
                check_query(value, f"body.{key}", row.place)  # says what is wrong
            # The API of responses has its system text in a field of its own as well.
            system = [text for text in (self._instructions(row), found.system) if text]
            return identifier, GivenRequest(found.query, "\n\n".join(system) or None)
        key = "input" if row.get("body", "input") is not None else "prompt"
        text = check_text(row.find(f"body.{key}"), f"body.{key}", row.place, MOST_QUERY_CHARACTERS)
        return identifier, GivenRequest(text, self._instructions(row))

    def _instructions(self, row: Row) -> str | None:
        value = row.get("body", "instructions")
        text = "" if value is None else check_text(value, "body.instructions", row.place)
        return text.strip() or None


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
        """None, since it stands in another file.

        Raises:
            DemurError: always, and says so.
        """
        raise DemurError(
            f"{row.place} is an answer of a batch, without its query: give the file of the "
            "requests."
        )

    def responses(self, row: Row) -> list[GivenResponse]:
        """The choices of an answer; one without text where the request failed."""
        request = row.text("custom_id")
        status = row.get("response", "status_code")
        if row.get("error") is not None or status not in (200, None):
            code = row.get("error", "code") or status
            if _is_filtered(row, status):
                return [GivenResponse(None, end=FILTERED, request=request)]
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
            response_of_choice(choice, row.place, "finish_reason", request=request)
            for choice in choices
        ]


def _is_filtered(row: Row, status: object) -> bool:
    """Whether a filter blocked the query of a failed request."""
    bodies = [{"error": row.get("error")}, row.get("response", "body")]
    number = status if isinstance(status, int) and status != 200 else 400
    found = [complaint_in(number, body) for body in bodies]
    return any(one is not None and one.is_filter for one in found)


def _of_output(body: Mapping[str, Any], place: str, request: str | None) -> GivenResponse:
    """An answer of the API of responses: the parts of its messages together."""
    parts: list[object] = []
    for one in body["output"]:
        if isinstance(one, Mapping) and one.get("type") == "message":
            content = one.get("content")
            parts += content if isinstance(content, list) else []
    choice = {"message": {"content": parts}, "end": body.get("status")}
    return response_of_choice(choice, place, "end", request=request)
