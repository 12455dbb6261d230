"""What an endpoint does not take: a limit is sent under its other name, an option is left out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from demur.endpoint.complaints import Complaint

_OTHER_NAME = {
    "max_tokens": "max_completion_tokens",
    "max_completion_tokens": "max_tokens",
}
"""The two names of the limit. Newer endpoints want the longer one, older ones the shorter."""


@dataclass(frozen=True)
class Adaptation:
    """How requests are changed for an endpoint.

    Attributes:
        left_out: names of the options that it does not take; never a limit.
        limit: name under which it takes the limit of tokens; None for the one that is asked for.
    """

    left_out: frozenset[str] = frozenset()
    limit: str | None = None

    def of(self, given: Mapping[str, float | int]) -> dict[str, float | int]:
        """The options as they are sent."""
        sent = {name: value for name, value in given.items() if name not in self.left_out}
        if self.limit is not None:
            for name in _OTHER_NAME:
                if name in sent and name != self.limit:
                    sent.setdefault(self.limit, sent.pop(name))
        return sent

    def after(self, complaint: Complaint, given: Mapping[str, float | int]) -> Adaptation | None:
        """What to try next, after a complaint about a request.

        The option is the one that the endpoint names as `param`. Where it names none, it is one
        that its message mentions; whether that was it is seen when the request is made without it.

        Args:
            complaint: what the endpoint said.
            given: the options that were asked for.

        Returns:
            None where the complaint is about something else.
        """
        if complaint.is_too_long:
            return None
        sent = self.of(given)
        limit = next((name for name in _OTHER_NAME if name in sent), None)
        if limit is not None and self.limit is None and _wants_other(complaint, limit):
            return replace(self, limit=_OTHER_NAME[limit])
        if complaint.param is not None:
            named = {complaint.param}
        else:
            named = {name for name in sent if _mentions(complaint.message, name)}
        named = (named & set(sent)) - set(_OTHER_NAME)
        return replace(self, left_out=self.left_out | named) if named else None

    def merged(self, other: Adaptation) -> Adaptation:
        """Both together."""
        return Adaptation(self.left_out | other.left_out, other.limit or self.limit)


def _wants_other(complaint: Complaint, limit: str) -> bool:
    """Whether an endpoint takes the limit under its other name, or may do so."""
    if complaint.param not in (None, limit):
        return False
    hinted = _mentions(complaint.message, _OTHER_NAME[limit])
    if complaint.param == limit:
        return hinted or complaint.is_unsupported
    named = _mentions(complaint.message, limit)
    return named and (hinted or complaint.is_unsupported)


def _mentions(message: str, name: str) -> bool:
    return re.search(rf"(?<![A-Za-z_]){name}(?![A-Za-z_])", message) is not None
