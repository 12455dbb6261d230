"""What an endpoint says about a request that it does not answer.

Endpoints agree on a status and on little else. OpenAI's, Azure's and llama.cpp's put an object
`error` with `message`, `type`, `param` and `code` around it, vLLM's older versions put these at the
top, FastAPI and Mistral list `detail` with the place of each mistake, and others send a line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from demur.endpoint.json_values import member, objects_in, text_of, whole_number

_FILTERS = {
    "contentfilter",  # Azure, Moonshot
    "contentpolicyviolation",  # OpenAI, xAI
    "contentpolicyviolationerror",  # LiteLLM
    "responsibleaipolicyviolation",  # Azure, in innererror
    "datainspectionfailed",  # DashScope
    "invalidprompt",  # OpenAI: the prompt was flagged
    "moderationblocked",
    "contentblocked",
    "guardrailintervened",  # Bedrock
    "1301",  # Zhipu
}
"""Codes of a filter that blocked a query, without case and marks."""

_NO_ANSWER = {"toolusefailed", "outputparsefailed"}
"""Codes of what a model wrote instead of an answer (Groq)."""

_NO_ANSWER_TEXT = "could not finish the message because"
"""How OpenAI says that all tokens went into reasoning; it has no code."""

_TOO_LONG = {"contextlengthexceeded", "exceedcontextsizeerror", "stringabovemaxlength"}

_UNSUPPORTED = {
    "unsupportedparameter",
    "unsupportedvalue",
    "unknownparameter",
    "extraforbidden",
    "unrecognizedargument",
}
"""Codes of an option that is not taken at all."""

_SPENT = {"insufficientquota", "billinghardlimitreached", "billingnotactive"}
"""Codes of a quota that no waiting brings back."""


@dataclass(frozen=True)
class Complaint:
    """What an endpoint says instead of an answer.

    Attributes:
        status: status of the reply, or the one that its body names; 200 where neither is a failure.
        message: the endpoint's words, not trusted; may be empty.
        codes: the codes and types in the body, without case and marks.
        param: name of the option that is complained about, or None.
        flagged: whether the body says that the query was flagged.
    """

    status: int
    message: str
    codes: frozenset[str]
    param: str | None
    flagged: bool = False

    @property
    def is_filter(self) -> bool:
        """Whether a filter blocked the query, which is that query's outcome."""
        return self.flagged or bool(self.codes & _FILTERS)

    @property
    def is_no_answer(self) -> bool:
        """Whether the model wrote something else than an answer."""
        said = self.message.lower().startswith(_NO_ANSWER_TEXT)
        return said or bool(self.codes & _NO_ANSWER)

    @property
    def is_too_long(self) -> bool:
        """Whether the query with its answer does not fit into the model's context."""
        return self.status == 413 or bool(self.codes & _TOO_LONG)

    @property
    def is_unsupported(self) -> bool:
        """Whether an option is not taken, whatever its value."""
        return bool(self.codes & _UNSUPPORTED)

    @property
    def is_spent(self) -> bool:
        """Whether the account's quota is used up."""
        return bool(self.codes & _SPENT)


def complaint_in(status: int, body: object, raw: str = "") -> Complaint | None:
    """The complaint in a reply; None where the status is 200 and the body holds none.

    Args:
        status: status of the reply.
        body: the decoded JSON; None where the reply holds none.
        raw: text of a reply that is no JSON.
    """
    found = _error_of(body)
    if status == 200 and found is None:
        return None
    error = body if found is None else found
    details = _details(error)
    said = next(filter(None, (text_of(one) for one in _messages(error, details))), raw)
    return Complaint(
        status=status if status != 200 else _status_in(error),
        message=said,
        codes=frozenset(_codes(error, details)),
        param=_param(error, details),
        flagged=member(error, "metadata", "flagged_input") is not None,
    )


def _error_of(body: object) -> object:
    """The part of a body that describes an error; None where there is none."""
    for name in ("error", "errors"):
        found = member(body, name)
        if found:
            return found
    if member(body, "object") == "error":  # vLLM's older versions
        return body
    choices = objects_in(member(body, "choices"))
    if choices:
        return member(choices[0], "error") or None  # OpenRouter
    said = any(text_of(member(body, name)) for name in ("message", "detail", "msg"))
    return body if said else None


def _details(error: object) -> list[Mapping[str, object]]:
    """The mistakes that a validating server lists."""
    places = (member(error, "detail"), member(error, "message", "detail"), error)
    return [one for place in places for one in objects_in(place)]


def _messages(error: object, details: Iterable[Mapping[str, object]]) -> list[object]:
    names = ("message", "detail", "error", "msg", "title", "description")
    own = [error, *(member(error, name) for name in names)]
    return [*own, *(member(one, name) for one in details for name in ("msg", "message"))]


def _status_in(error: object) -> int:
    """The status that a body names; 200 where it names none."""
    for name in ("code", "status", "status_code", "http_code"):
        number = whole_number(member(error, name))
        if number is not None and 400 <= number <= 599:
            return number
    return 200


def _codes(error: object, details: Iterable[Mapping[str, object]]) -> Iterable[str]:
    inner = (member(error, "innererror"), member(error, "inner_error"), member(error, "metadata"))
    for one in (error, *inner, *details):
        for name in ("code", "type", "error_type", "status", "raw_code"):
            value = member(one, name)
            if isinstance(value, (str, int)) and not isinstance(value, bool):
                yield plain(str(value)[:100])


def _param(error: object, details: Iterable[Mapping[str, object]]) -> str | None:
    """The option's name, without the place of the body that it stands in."""
    value = member(error, "param")
    if isinstance(value, str) and value.strip():
        return value.strip().strip("'\"`").rpartition(".")[2]
    for one in details:
        place = one.get("loc")
        if isinstance(place, list) and place and isinstance(place[-1], str):
            return place[-1]
    return None


def plain(word: str) -> str:
    """A code without case and marks, so that `content_filter` and `ContentFilter` are the same."""
    return "".join(character for character in word.lower() if character.isalnum())
