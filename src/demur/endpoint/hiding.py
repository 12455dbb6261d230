"""Keeping the key out of everything that an endpoint sends back."""

from __future__ import annotations

import base64
import binascii
import html
import json
import re
from collections.abc import Callable, Iterable
from urllib.parse import quote, quote_plus, unquote, unquote_plus

HIDDEN = "[key]"
WITHHELD = "a message that repeats the key"

_LEAST = 4
"""Shorter keys are the placeholders of local servers, and are part of many words."""

_LEAST_IN_TEXT = 8
"""The same for the texts of answers, which must not be changed for a placeholder's sake."""

MOST_READ = 20_000
"""Number of characters of a message that are read; it may be cut to as many, not to fewer."""

_MOST_KEPT = 2_000
_ROUNDS = 3
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})|\\(.)")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{8,}")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2}){4,}")


class Secrets:
    """What must not be shown or stored: the key, and passwords in addresses.

    Args:
        values: the secrets; short ones and None are left alone.
    """

    def __init__(self, values: Iterable[str | None]) -> None:
        self._values = tuple({one for one in values if one and len(one) >= _LEAST})
        long = [one for one in self._values if len(one) >= _LEAST_IN_TEXT]
        forms = {form.encode("utf-8", "replace") for one in long for form in _forms(one)}
        self._passed = sorted(forms, key=len, reverse=True)

    @property
    def are_long(self) -> bool:
        """Whether there is one that is hidden in what is passed on."""
        return bool(self._passed)

    def hidden_in_message(self, text: str) -> str:
        """The beginning of a message, without the secrets in any usual encoding."""
        shown = self._replaced(text[:MOST_READ], self._values)
        shown = self._without_beginning(shown)[:_MOST_KEPT]
        found = [shown]
        for _ in range(_ROUNDS if self._values else 0):
            found = [again for one in found for again in _decoded(one)]
            if any(_holds(one, secret) for one in found for secret in self._values):
                return WITHHELD
        return shown

    def hidden_in_text(self, text: str) -> str:
        """The text of an answer, without the secrets as they are, in JSON or in an address."""
        return self._replaced(text, [one for one in self._values if len(one) >= _LEAST_IN_TEXT])

    def hidden_in_bytes(self, data: bytes) -> bytes:
        """Whole lines that are passed on, without the secrets as `hidden_in_text` finds them."""
        for form in self._passed:
            data = data.replace(form, HIDDEN.encode())
        return data

    def _without_beginning(self, text: str) -> str:
        """A text without the beginning of a secret at its end, where the text was cut."""
        folded = text.casefold()
        for form in (form.casefold() for secret in self._values for form in _forms(secret)):
            for length in range(min(len(form), len(folded)), _LEAST - 1, -1):
                if folded.endswith(form[:length]):
                    return text[:-length] + HIDDEN
        return text

    @staticmethod
    def _replaced(text: str, secrets: Iterable[str]) -> str:
        forms = {form for secret in secrets for form in _forms(secret)}
        for form in sorted(forms, key=len, reverse=True):
            text = re.sub(re.escape(form), HIDDEN, text, flags=re.IGNORECASE)
        return text


def _forms(secret: str) -> Iterable[str]:
    """How a secret is usually written."""
    encoded = base64.b64encode(secret.encode("utf-8", "replace")).decode()
    return (
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret)[1:-1].replace("/", "\\/"),
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        html.escape(secret),
        encoded,
        encoded.rstrip("="),
    )


def _holds(text: str, secret: str) -> bool:
    return secret.casefold() in text.casefold()


def _decoded(text: str) -> list[str]:
    """What a text stands for in the usual encodings."""
    ways: tuple[Callable[[str], str], ...] = (unquote, unquote_plus, html.unescape, _unescaped)
    plain = [way(text) for way in ways]
    plain += [_from_base64(match) for match in _BASE64.findall(text)]
    plain += [bytes.fromhex(match).decode("latin-1") for match in _HEX.findall(text)]
    # Characters that are not shown may stand within a secret.
    shown = ("".join(filter(str.isprintable, one)) for one in plain)
    return list(dict.fromkeys(one for one in shown if one != text))


def _unescaped(text: str) -> str:
    """Escapes of JSON and of Python as the characters that they stand for."""

    def character(match: re.Match[str]) -> str:
        digits = match[1] or match[2]
        return chr(int(digits, 16)) if digits else match[3]

    return _ESCAPE.sub(character, text)


def _from_base64(text: str) -> str:
    standard = text.replace("-", "+").replace("_", "/")
    try:
        decoded = base64.b64decode(standard[: len(standard) // 4 * 4])
    except (binascii.Error, ValueError):
        return ""
    return decoded.decode("latin-1")
