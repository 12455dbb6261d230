"""The key of an endpoint, or a user name with a password in its place."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass, field

from demur.errors import DemurError

_NO_KEY = "none"  # local servers ignore it
_BASIC = "basic "


@dataclass(frozen=True)
class Key:
    """What shows an endpoint who asks.

    Attributes:
        text: the key; empty where there is none. `Basic USER:PASSWORD` is a user with a password.
    """

    text: str = field(repr=False)

    @classmethod
    def of(cls, variable: str) -> Key:
        """The key in a variable of the environment.

        Raises:
            DemurError: it cannot be sent.
        """
        key = os.environ.get(variable, "").strip()
        if not key.isascii() or not key.isprintable():
            raise DemurError(
                f"The key in {variable} holds characters that cannot be sent: set it again, as one "
                "line of plain letters, digits and marks."
            )
        return cls(key)

    @property
    def header(self) -> str:
        """The header `Authorization`."""
        login = self._login
        return f"Bearer {self.text or _NO_KEY}" if login is None else f"Basic {_encoded(login)}"

    @property
    def secrets(self) -> list[str]:
        """What of it must not be shown."""
        login = self._login
        if login is None:
            return [self.text]
        return [self.text, login, _encoded(login), login.partition(":")[2]]

    @property
    def _login(self) -> str | None:
        """User and password; None for a key."""
        if not self.text.lower().startswith(_BASIC):
            return None
        login = self.text[len(_BASIC) :].strip()
        if ":" in login:
            return login
        try:  # the header as it is sent
            return base64.b64decode(login, validate=True).decode("ascii")
        except ValueError:
            return login


def _encoded(login: str) -> str:
    return base64.b64encode(login.encode()).decode()
