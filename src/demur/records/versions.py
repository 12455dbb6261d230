"""Versions of the packages that results depend on."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version


@dataclass(frozen=True)
class Versions:
    """Versions of packages, as text; `unknown` for one that is not installed as a package."""

    demur: str
    torch: str
    transformers: str


def current_versions() -> Versions:
    """The versions in this environment."""
    return Versions(*map(version_of, ("demur", "torch", "transformers")))


def version_of(package: str) -> str:
    """The version of a package, or `unknown` where it is on the path but not installed."""
    try:
        found: object = version(package)
    except (PackageNotFoundError, KeyError):  # what an installation left half may have none
        return "unknown"
    return found if isinstance(found, str) else "unknown"
