"""How prompts are served."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from demur.endpoint.address import Address
from demur.endpoint.key import Key
from demur.errors import DemurError

PACKAGES = ("starlette", "httpx2", "uvicorn")


@dataclass(frozen=True)
class ServeSettings:
    """Where the server behind is, and within which bounds users are answered.

    Attributes:
        address: base URL of the vLLM server.
        key: key of the vLLM server.
        user_key: key that users must send; empty where anybody may ask.
        timeout: seconds without anything new from the server or a user, after which a request
            ends; above 0.
        concurrency: number of requests under way at once, 1 or more; further ones are refused.
        most_bytes: largest request in bytes.
    """

    address: Address
    key: Key
    user_key: Key
    timeout: float = 600.0
    concurrency: int = 256
    most_bytes: int = 16 << 20


def require_packages() -> None:
    """Check that what serves is installed.

    Raises:
        DemurError: a package is missing.
    """
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise DemurError(
                f"Serving needs the package {package}: run `pip install 'demur[serve]'`."
            )
