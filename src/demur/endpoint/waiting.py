"""How long to wait before a request is made again."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

LONGEST_WAIT = 120.0
"""Longest wait, in seconds, that an endpoint may ask for; where it wants more, the work ends."""

_FIRST, _LONGEST = 0.5, 8.0


def pause(tries: int, wanted: float | None) -> float:
    """Seconds to wait after a failure.

    Args:
        tries: number of tries so far, at least 1.
        wanted: what the endpoint asks for, or None.
    """
    own = min(_LONGEST, _FIRST * 2.0 ** min(tries - 1, 10)) * random.uniform(0.75, 1.0)
    return own if wanted is None else max(own, wanted)


def wait_in(headers: Mapping[str, str]) -> float | None:
    """Seconds that `Retry-After` asks for, as a number or a date; None where it says nothing.

    Args:
        headers: headers by their names in lower case; not trusted.
    """
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()[:100]
        try:
            seconds = float(value) / unit
        except ValueError:
            seconds = _until(value)
        if math.isfinite(seconds) and seconds > 0:
            return seconds
    return None


def _until(value: str) -> float:
    """Seconds until a date; 0 where it is none."""
    try:
        date = parsedate_to_datetime(value)
        if date.tzinfo is None:
            date = date.replace(tzinfo=timezone.utc)
        return (date - datetime.now(timezone.utc)).total_seconds()
    except (ValueError, TypeError, OverflowError, IndexError):
        return 0.0
