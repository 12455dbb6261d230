"""Responses from a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from demur.errors import DemurError, did_you_mean
from demur.limits import MOST_QUERIES, MOST_SET_CHARACTERS, MOST_TEXT_CHARACTERS
from demur.reading.batches import BatchRequests
from demur.reading.files import Watch
from demur.reading.formats import AlpacaEval, with_input
from demur.reading.given import (
    LABELS,
    Format,
    GivenRequest,
    GivenResponse,
    fingerprint_in,
    is_sequence,
)
from demur.reading.messages import (
    CONVERSATION_FIELDS,
    Messages,
    check_query,
    content_text,
    own_refusal,
    read_messages,
    spoken,
)
from demur.reading.row import Row, listed
from demur.reading.rows import format_of, open_rows
from demur.reading.spec import FileSpec
from demur.reading.text import check_text
from demur.records import REFUSAL, Label, text_of

RESPONSE = "response"
_OWN_QUERY_FIELDS = ("query", *CONVERSATION_FIELDS)
_OTHER_QUERY_FIELDS = ("prompt", "instruction", "question", "goal", "input")
QUERY_FIELDS = (*_OWN_QUERY_FIELDS, *_OTHER_QUERY_FIELDS)
"""Fields that hold the query; the first one that a file has counts."""


class ResponseReader:
    """Reads the responses of a file in their order.

    Args:
        spec: the file, and the field of its rows that holds the responses. Without a field it is
            `response`, the assistant's last word in `messages`, or where the tool that wrote the
            file puts it (see `demur.reading.formats`).
        requests: what was asked, by identifier, for answers that only name their requests.

    Attributes:
        query_field: the field that the queries are read from, or None; known once a row was read.
        names_generators: whether the prompts are called after the `generator` of `alpaca_eval`.
        empty: number of rows that were passed over because no response belongs there.
    """

    def __init__(self, spec: FileSpec, requests: Mapping[str, GivenRequest] | None = None) -> None:
        self.spec = spec
        self.query_field: str | None = None
        self.names_generators = False
        self.empty = 0
        self._requests = requests
        self._names_requests = self._is_plain = self._is_spoken = False

    @property
    def remarks(self) -> list[str]:
        """What a person should know of how the file was read, once it was read."""
        name = f"{self.spec.name:.120}"
        found: list[str] = []
        if self.empty:
            rows = "1 row" if self.empty == 1 else f"{self.empty} rows"
            found.append(f"{name}: {rows} without a response of their own left out.")
        if self.query_field not in (None, *_OWN_QUERY_FIELDS):
            found.append(f"The column {self.query_field!r} of {name} is read as the queries.")
        if self.query_field is None and self._is_plain and not self._is_spoken:
            found.append(
                f"{name} has no column of queries ({', '.join(QUERY_FIELDS)}): every response "
                "counts by itself."
            )
        if self._names_requests and self._requests is None:
            found.append(
                f"{name} does not hold the queries: give the file of the requests with --responses "
                "as well, and they are known."
            )
        return found

    def read(self, watch: Watch | None = None) -> Iterator[GivenResponse]:
        """The responses.

        Args:
            watch: sees the bytes that are read.

        Raises:
            DemurError: the file cannot be read, or a row is damaged or holds no response.
        """
        rows, field = open_rows(self.spec, watch)
        self.empty = 0
        tool: Format | None = None
        first = True
        for row in rows:
            if row.is_blank and row.in_table:
                self.empty += 1
                continue
            if first:
                tool = self._start(row, field)
                first = False
            if tool is not None and not tool.fits(row):
                raise DemurError(f"{row.place} is not of {tool.name}, as the first row: drop it.")
            found = self._plain(row, field) if tool is None else tool.responses(row)
            if tool is not None and field is not None:
                found = self._at_field(row, field, tool)
            self.empty += not found
            for response in found:
                yield self._asked(response, row)

    def _start(self, row: Row, field: str | None) -> Format | None:
        """Find out from the first row what the file is."""
        tool = format_of(row)
        if isinstance(tool, BatchRequests):
            raise DemurError(
                f"{row.place} is a request and no response: give the output of the batch as well."
            )
        self.names_generators = isinstance(tool, AlpacaEval)
        if tool is None:
            if not row.columns and (field is not None or not isinstance(row.value, str)):
                raise DemurError(f"{row.place} is not a JSON object: write one JSON object a row.")
            if row.implied is not None and not row.columns:
                raise DemurError(
                    f"{row.place} is a text of the list {row.implied!r:.60}: if it holds the "
                    "responses, name it as FILE:LIST."
                )
            self._is_plain = True
            named = [name for name in QUERY_FIELDS if name != field and _holds_query(row, name)]
            self.query_field = named[0] if named else None
        return tool

    def _asked(self, response: GivenResponse, row: Row) -> GivenResponse:
        """A response with what was asked, where another file says that."""
        if response.request is None:
            return response
        self._names_requests = True
        if self._requests is None:
            return response
        asked = self._requests.get(response.request)
        if asked is None:
            raise DemurError(
                f"{row.place} answers the request {response.request!r:.80}, which no file of "
                "requests has: give the one that belongs to it."
            )
        return replace(response, query=asked.query, system=asked.system)

    def _at_field(self, row: Row, field: str, tool: Format) -> list[GivenResponse]:
        """The responses in a field of a tool's row, with all else as the tool has it."""
        known = tool.responses(row)
        if all(one.text is None for one in known):
            return known  # nothing came back, so there is nothing at the field either
        value = row.find(field)
        if value is None:
            return known  # for example a refusal, which stands in a field of its own
        return [
            replace(
                known[0],
                text=text if text.strip() else None,
                end=REFUSAL if refused else known[0].end,
            )
            for text, refused in _said(value, field, row.place)
        ]

    def _plain(self, row: Row, field: str | None) -> list[GivenResponse]:
        """The responses of a row with fields by their usual names."""
        if field is None and isinstance(row.value, str):
            return [GivenResponse(_present(check_text(row.value, RESPONSE, row.place), row))]
        asked = self._question(row)
        at = field or (RESPONSE if row.has(RESPONSE) else None)
        if at is None:
            if asked is None or asked.answer is None:
                raise DemurError(
                    f"{row.place} has no column {RESPONSE!r}{did_you_mean(RESPONSE, row.columns)}: "
                    f"its columns are {listed(row.columns)}; name the one with the responses as "
                    "FILE:COLUMN."
                )
            said = [(asked.answer, asked.refused)]
        elif asked is not None and asked.answer is not None:
            raise DemurError(
                f"{row.place}: {self.query_field!r} ends with the assistant, beside a response: "
                "end with a message of the user, which is the query."
            )
        else:
            value = row.find(at)
            whole = spoken(value, at, row.place)
            self._is_spoken = self._is_spoken or whole is not None
            said = (
                _said(value, at, row.place)
                if whole is None
                else [(whole.answer or "", whole.refused)]
            )
            asked = asked or whole
        known = GivenResponse(
            text=None,
            end=row.name("end"),
            query=None if asked is None else asked.query,
            system=None if asked is None else asked.system,
            prompt=row.name("safety_prompt") or self._prompt_name(row),
            condition=fingerprint_in(row.get("condition")),
            set=row.name("set"),
            label=_label(row),
            category=row.name("category"),
        )
        return [
            replace(known, text=_present(text, row), end=REFUSAL if refused else known.end)
            for text, refused in said
        ]

    def _prompt_name(self, row: Row) -> str | None:
        """The name in the field `prompt`, where that holds neither the queries nor an object."""
        is_query = self.query_field in _OTHER_QUERY_FIELDS
        return None if is_query or isinstance(row.get("prompt"), Mapping) else row.name("prompt")

    def _question(self, row: Row) -> Messages | None:
        """What was asked, and the answer too where the field holds the whole conversation."""
        if self.query_field is None:
            return None
        own = self.query_field in _OWN_QUERY_FIELDS
        names = _OWN_QUERY_FIELDS if own else (self.query_field,)
        present = [name for name in names if row.has(name)]
        if not present:
            raise DemurError(
                f"{row.place} has no {self.query_field!r}, which the first row has: give every row "
                "its query."
            )
        name = next((one for one in present if row.get(one) is not None), None)
        if name is None:
            return None
        value = row.get(name)
        if isinstance(value, list):
            return read_messages(value, name, row.place)
        query = check_query(value, name, row.place)
        if name == "instruction":
            query = with_input(query, row)
        if isinstance(query, str) and not query.strip():
            raise DemurError(f"{row.place}: the query is blank: fill it in or drop the row.")
        return Messages(query, None, None)


def read_requests(spec: FileSpec) -> dict[str, GivenRequest] | None:
    """The requests of a batch by their identifiers; None for a file that holds something else.

    Raises:
        DemurError: the file cannot be read, a request is malformed, or two have one identifier.
    """
    rows, _ = open_rows(spec)
    format_ = BatchRequests()
    found: dict[str, GivenRequest] = {}
    size = 0
    for row in rows:
        if row.is_blank:
            continue
        if not format_.fits(row):
            if not found:
                return None
            raise DemurError(f"{row.place} is no request, as the first row is: drop it.")
        identifier, request = format_.request(row)
        if identifier in found:
            raise DemurError(
                f"{row.place} repeats the custom_id {identifier!r:.80}: give every request its own."
            )
        found[identifier] = request
        size += len(text_of(request.query)) + len(request.system or "")
        if len(found) > MOST_QUERIES or size > MOST_SET_CHARACTERS:
            raise DemurError(
                f"{str(spec.path)!r:.300} holds more than {MOST_QUERIES:,} requests, or "
                f"{MOST_SET_CHARACTERS:,} characters, above what is read: split the batch."
            )
    return found or None


def _holds_query(row: Row, name: str) -> bool:
    """Whether a field may hold the query: other things are called `prompt` or `input` as well."""
    value = row.get(name)
    is_other = isinstance(value, Mapping) and "text" not in value
    return row.has(name) and not (is_other and name in _OTHER_QUERY_FIELDS)


def _present(text: str, row: Row) -> str | None:
    """A response, or None where the row says that there is none.

    Raises:
        DemurError: it is blank, and the row does not say why.
    """
    # Rows that demur wrote tell an empty answer, which was judged, from none at all.
    if not text and row.has("refused") and row.get("refused") is None:
        return None
    if not text.strip() and row.name("end") is None:
        raise DemurError(f"{row.place}: the response is blank: fill it in or drop the row.")
    return text


def _said(value: object, column: str, place: str) -> list[tuple[str, bool]]:
    """The responses in a cell, one or a list of samples, and whether each is a refusal by itself.

    Only a message of the assistant can be: its refusal stands in a field of its own.
    """
    if isinstance(value, Mapping) or not is_sequence(value):
        return [(check_text(value, column, place), False)]
    items = list(value) if isinstance(value, (list, tuple)) else []
    if not items:
        raise DemurError(f"{place}: {column!r:.80} is an empty list: fill it in or drop the row.")
    where = f"{place}: {column!r:.80}"
    if len(items) == 1 and isinstance(items[0], Mapping) and items[0].get("role") == "assistant":
        refusal = own_refusal(items[0], where)
        if refusal is not None:
            return [(refusal, True)]
        return [(content_text(items[0].get("content"), where, MOST_TEXT_CHARACTERS), False)]
    if len(items) == 1 and isinstance(items[0], list):
        return _said(items[0], column, place)
    if all(isinstance(item, Mapping) for item in items):
        return [(content_text(items, where, MOST_TEXT_CHARACTERS), False)]
    return [(check_text(item, column, place), False) for item in items]


def _label(row: Row) -> Label | None:
    label = (row.name("label") or "").lower()
    if label and label not in LABELS:
        raise DemurError(
            f"{row.place} has the label {label!r:.40}: give harmful or harmless, or call the "
            "column otherwise."
        )
    return LABELS.get(label)
