"""What an endpoint says about a request that it does not answer.

Endpoints agree on a status and on little else. OpenAI's, Azure's and llama.cpp's put an object
`error` with `message`, `type`, `param` and `code` around it, vLLM's older versions put these at the
top, FastAPI and Mistral list `detail` with the place of each mistake, and others send a line.
"""

from __future__ import annotations

import re
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
    "1026",  # MiniMax: the query
    "1027",  # MiniMax: the answer
}
"""Codes of a filter that blocked a query, without case and marks."""

_FILTERED_TEXT = re.compile(
    r"violates? (?:our |the )?(?:usage|content|safety|acceptable)|safety_check"  # xAI
    r"|content exists risk"  # DeepSeek
    r"|content (?:management |safety )?polic(?:y|ies)|content[ _]filter|responsible ai"
    r"|inappropriate content|sensitive (?:words?|content|information)|不安全或敏感"
    r"|(?:prompt|input|query|message|content|text) (?:(?:was|were|is|has been) )?"
    r"(?:flagged|blocked|moderated)|violated guardrail|requires moderation"
    r"|(?:blocked|rejected|flagged|withheld|result) (?:by|of) .{0,40}"
    r"(?:safety|moderation|guardrail)",
    re.IGNORECASE,
)
"""How endpoints whose codes do not tell say that a filter blocked a query."""

_OF_ACCOUNT = re.compile(
    r"(?:your|this|the) (?:account|api[ -]?key|organi[sz]ation|team|project|subscription)\S* "
    r"(?:\S+ )?(?:has|have|was|is|violates?)\b",
    re.IGNORECASE,
)
"""How they say that everything is blocked, and not one query."""

_FILTER_STATUSES = (200, 400, 403, 422, 451)

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

_SAID_IN = ("message", "detail", "msg", "error_msg", "errmsg", "error_message", "status_msg")
"""Names of the member that holds an endpoint's words."""

_SPENT = {
    "insufficientquota",
    "insufficientbalance",
    "billinghardlimitreached",
    "billingnotactive",
}
"""Codes of a quota that no waiting brings back."""

_OF_KEY = {"invalidapikey", "apikeyinvalid", "incorrectapikey", "invalidauthentication"}
_OF_KEY_TEXT = re.compile(
    r"(?:incorrect|invalid|missing|expired|no|wrong) api[ _-]?key"
    r"|api[ _-]?key (?:is |was )?"
    r"(?:not (?:valid|found)|invalid|incorrect|missing|expired|required)",
    re.IGNORECASE,
)
"""How endpoints say that the key is not taken, with another status than 401."""

_OF_MODEL = {"modelnotfound", "invalidmodel", "modelnotexist", "invalidmodelname"}
_OF_MODEL_TEXT = re.compile(
    r"model (?:\S{1,80} )?(?:(?:is |was )?not (?:found|exist)|does not exist)|invalid model name",
    re.IGNORECASE,
)
"""How endpoints say that they have no such model, with another status than 404."""

_NAMES_OF_CODES = (
    "code",
    "type",
    "error_type",
    "error_code",
    "status",
    "status_code",
    "raw_code",
)
_NO_PARAM = ("none", "null", "")
"""What LiteLLM writes where an error names no option."""


@dataclass(frozen=True)
class Complaint:
    """What an endpoint says instead of an answer.

    Attributes:
        status: status of the reply, or the one that its body names; 200 where neither is a failure.
        message: the endpoint's words, not trusted; may be empty.
        codes: the codes and types in the body, without case and marks.
        param: name of the option that is complained about, or None.
        flagged: whether the body says that the query was flagged.
        is_page: whether the words are no JSON, as those of a firewall before the endpoint.
    """

    status: int
    message: str
    codes: frozenset[str]
    param: str | None
    flagged: bool = False
    is_page: bool = False

    @property
    def is_filter(self) -> bool:
        """Whether a filter blocked the query, which is that query's outcome."""
        if self.flagged or self.codes & _FILTERS:
            return True
        said = self.message if self.status in _FILTER_STATUSES and not self.is_page else ""
        return bool(_FILTERED_TEXT.search(said)) and not _OF_ACCOUNT.search(said)

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
    def is_of_key(self) -> bool:
        """Whether the key is not taken."""
        return bool(self.codes & _OF_KEY or _OF_KEY_TEXT.search(self.message))

    @property
    def is_of_model(self) -> bool:
        """Whether there is no such model."""
        return bool(self.codes & _OF_MODEL or _OF_MODEL_TEXT.search(self.message))

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
    if isinstance(body, list) and objects_in(body):
        body = objects_in(body)[0]  # Gemini
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
        is_page=raw != "" and said == raw,
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
    if member(body, "base_resp", "status_code"):  # MiniMax
        return member(body, "base_resp")
    return body if any(text_of(member(body, name)) for name in _SAID_IN) else None


def _details(error: object) -> list[Mapping[str, object]]:
    """The mistakes that a validating server lists."""
    places = (member(error, "detail"), member(error, "message", "detail"), error)
    return [one for place in places for one in objects_in(place)]


def _messages(error: object, details: Iterable[Mapping[str, object]]) -> list[object]:
    own = [error, *(member(error, name) for name in (*_SAID_IN, "error", "title", "description"))]
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
        for name in _NAMES_OF_CODES:
            value = member(one, name)
            if isinstance(value, (str, int)) and not isinstance(value, bool):
                yield plain(str(value)[:100])


def _param(error: object, details: Iterable[Mapping[str, object]]) -> str | None:
    """The option's name, without the place of the body that it stands in."""
    value = member(error, "param")
    name = value.strip().strip("'\"`").rpartition(".")[2] if isinstance(value, str) else ""
    if name.lower() not in _NO_PARAM:
        return name
    for one in details:
        place = one.get("loc")
        # The body, the option, and what kind of value was tried.
        names = [part for part in place if isinstance(part, str)] if isinstance(place, list) else []
        if names[:1] == ["body"]:
            names = names[1:]
        if names:
            return names[0]
    return None


def plain(word: str) -> str:
    """A code without case and marks, so that `content_filter` and `ContentFilter` are the same."""
    return "".join(character for character in word.lower() if character.isalnum())
