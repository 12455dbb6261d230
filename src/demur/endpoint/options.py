"""What an endpoint does not take: a limit is sent under its other name, an option is left out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from demur.endpoint.complaints import Complaint, plain

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

    def renames_in(self, given: Mapping[str, float | int]) -> bool:
        """Whether a limit among some options is sent under its other name."""
        return self.limit is not None and any(
            name in given and name != self.limit for name in _OTHER_NAME
        )

    def after(self, complaint: Complaint, given: Mapping[str, float | int]) -> Adaptation | None:
        """What to try next, after a complaint about a request.

        The option is the one that the endpoint names as `param`. Where it names none, it is the
        first that its message mentions; whether that was it is seen when the request is made
        without it. An endpoint that refuses several complains again about the next.

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
        named = [(_place(complaint, name), name) for name in sent if name not in _OTHER_NAME]
        found = [(place, name) for place, name in named if place is not None]
        return replace(self, left_out=self.left_out | {min(found)[1]}) if found else None

    def merged(self, other: Adaptation) -> Adaptation:
        """Both together."""
        return Adaptation(self.left_out | other.left_out, other.limit or self.limit)


def _wants_other(complaint: Complaint, limit: str) -> bool:
    """Whether an endpoint takes the limit under its other name, or may do so."""
    if _place(complaint, limit) is None:
        return False
    hinted = _mentioned(complaint.message, _OTHER_NAME[limit]) is not None
    return hinted or complaint.is_unsupported or _is_called_unknown(complaint.message, limit)


def _place(complaint: Complaint, name: str) -> int | None:
    """Where a complaint names an option; None where it is not about that."""
    if complaint.param is not None:
        return 0 if plain(complaint.param) == plain(name) else None
    return _mentioned(complaint.message, name)


def _mentioned(message: str, name: str) -> int | None:
    """Where a message mentions an option, in whatever spelling, for example `maxTokens`."""
    found = re.search(_spelled(name), message, re.IGNORECASE)
    return None if found is None else found.start()


def _is_called_unknown(message: str, name: str) -> bool:
    """Whether a message says of an option that it is not taken, whatever its value."""
    spelled = _spelled(name)
    unknown = r"(?:unsupported|unknown|unrecogni[sz]ed|unexpected|extra|additional|deprecated)"
    not_taken = r"(?:(?:not|n't) (?:supported|permitted|allowed|recogni[sz]ed)|unsupported|unknown)"
    before = rf"{unknown}(?: [a-z]+){{1,4}}\W{{1,6}}{spelled}"
    behind = rf"{spelled}\W{{1,4}}(?:parameter |field |property )?(?:is |are )?{not_taken}"
    return re.search(f"{before}|{behind}", message, re.IGNORECASE) is not None


def _spelled(name: str) -> str:
    return f"(?<![A-Za-z_]){name.replace('_', '[_ -]?')}(?![A-Za-z_])"
