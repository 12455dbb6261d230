"""`organisation/name@revision`: the name of a repository on the hub."""

from __future__ import annotations

import re
from dataclasses import dataclass

from demur.errors import DemurError

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_NAME = re.compile(rf"(?P<repository>{_PART}/{_PART})(?:@(?P<revision>[A-Za-z0-9][\w./-]*))?")
_MOST_CHARACTERS = 96


@dataclass(frozen=True)
class HubName:
    """A repository on the hub, and a state of it.

    Attributes:
        repository: name of the repository, `organisation/name`.
        revision: branch, tag or commit; None for the newest state.
    """

    repository: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> HubName | None:
        """The name in a text, or None where the text cannot be one."""
        match = _NAME.fullmatch(text)
        if match is None or not _is_allowed(match["repository"]):
            return None
        return cls(match["repository"], match["revision"])

    @classmethod
    def require(cls, text: str) -> HubName:
        """The name in a text.

        Raises:
            DemurError: the text cannot be a name.
        """
        name = cls.parse(text)
        if name is None:
            raise DemurError(
                f"{text[:100]!r} cannot be a repository's name: write organisation/name, of "
                "letters and digits with single - _ . between them."
            )
        return name

    def __str__(self) -> str:
        return self.repository if self.revision is None else f"{self.repository}@{self.revision}"


def _is_allowed(repository: str) -> bool:
    """The hub's own rules beyond the alphabet."""
    return (
        len(repository) <= _MOST_CHARACTERS
        and "--" not in repository
        and ".." not in repository
        and not repository.endswith((".git", "-", "."))
        and not repository.split("/", maxsplit=1)[0].endswith(("-", "."))
    )
