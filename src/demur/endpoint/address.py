"""Where an endpoint is, and the proxy on the way to it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

from demur.errors import DemurError

OPENAI = "https://api.openai.com/v1"
MOST_CHARACTERS = 2000
PORTS = {"http": 80, "https": 443}

_SECRET = re.compile(r"key|token|secret|pass|sig|auth|cred|^code$", re.IGNORECASE)
"""Names of a query's values that are secret."""


@dataclass(frozen=True)
class Proxy:
    """A proxy of the environment.

    Attributes:
        url: its address; holds a secret where it has a password.
        variable: name of the variable that names it.
    """

    url: str
    variable: str

    @property
    def place(self) -> str:
        """The address without user name and password."""
        return _without_user(urlsplit(self.url))

    @property
    def is_encrypted(self) -> bool:
        """Whether the proxy itself speaks https."""
        return self.url.lower().startswith("https:")

    @property
    def password(self) -> str | None:
        """The password in the address, or None."""
        try:
            password = urlsplit(self.url).password
        except ValueError:
            return None
        return None if password is None else unquote(password)


class Address:
    """The base URL of an endpoint.

    Args:
        base_url: address before `/chat/completions`.

    Attributes:
        place: the address without user name, password and query, which may be secrets.
        host: name of the host.

    Raises:
        DemurError: it is no address of a web server.
    """

    def __init__(self, base_url: str) -> None:
        try:
            parts = urlsplit(base_url)
            self.host, self._port = parts.hostname or "", parts.port
        except ValueError:
            self.host, parts = "", SplitResult("", "", "", "", "")
        usable = parts.scheme in PORTS and base_url.isprintable() and " " not in base_url
        if not usable or not self.host or len(base_url) > MOST_CHARACTERS:
            shown = base_url.rpartition("@")[2].partition("?")[0]  # what was left out may be secret
            raise DemurError(
                f"{shown!r:.100} is not a base URL: give one like http://localhost:8000/v1."
            )
        self._parts = parts._replace(path=f"{parts.path.rstrip('/')}/", fragment="")
        self.place = _without_user(self._parts)

    def url(self, path: str) -> str:
        """The address of something at the endpoint, for example of `chat/completions`."""
        return urlunsplit(self._parts._replace(path=f"{self._parts.path}{path}"))

    @property
    def is_encrypted(self) -> bool:
        """Whether the endpoint speaks https."""
        return self._parts.scheme == "https"

    @property
    def secrets(self) -> list[str]:
        """What in the address may be secret."""
        values = [value for _, value in parse_qsl(self._parts.query)]
        user = (self._parts.username, self._parts.password)
        return [*values, *(unquote(one) for one in user if one)]

    @property
    def holds_secrets(self) -> bool:
        """Whether the address has a user, a password or a key, so that it must not be stored."""
        names = [name for name, _ in parse_qsl(self._parts.query, keep_blank_values=True)]
        return "@" in self._parts.netloc or any(_SECRET.search(name) for name in names)

    def is_origin_of(self, url: str) -> bool:
        """Whether an address belongs to the same server: scheme, host and port are the same."""
        try:
            return origin(urlsplit(url)) == origin(self._parts)
        except ValueError:
            return False

    def proxy(self) -> Proxy | None:
        """The proxy that the environment names for the endpoint, or None."""
        found, scheme = getproxies(), self._parts.scheme
        name = next((one for one in (scheme, "all") if found.get(one)), None)
        if name is None or proxy_bypass(self._parts.netloc.rpartition("@")[2]):
            return None
        if _is_excepted(self.host, found.get("no", "")):
            return None
        url = found[name] if "://" in found[name] else f"http://{found[name]}"
        return Proxy(url, f"{name.upper()}_PROXY")


def origin(parts: SplitResult) -> tuple[str, str, int | None]:
    """Scheme, host and port of an address.

    Raises:
        ValueError: the port is none.
    """
    return parts.scheme, (parts.hostname or "").lower(), parts.port or PORTS.get(parts.scheme)


def _without_user(parts: SplitResult) -> str:
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def _is_excepted(host: str, exceptions: str) -> bool:
    """Whether NO_PROXY names the host by `localhost`, its number or a network that it is in."""
    for each in (one.strip() for one in exceptions.split(",")):
        try:
            if ipaddress.ip_address(host) in ipaddress.ip_network(each.strip("[]"), strict=False):
                return True
        except ValueError:
            continue
    return False
