"""What a message says about an endpoint that does not answer."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Sequence

from demur.endpoint.address import Address, Proxy
from demur.endpoint.complaints import Complaint
from demur.endpoint.failures import RequestFailed
from demur.endpoint.hiding import MOST_READ, Secrets
from demur.endpoint.requests import Asked, EndpointSettings
from demur.endpoint.waiting import LONGEST_WAIT
from demur.errors import DemurError, first_line

MOST_CHARACTERS = 200
_NO_TLS = ("WRONG_VERSION_NUMBER", "UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE")
_INTERRUPTED = (
    ssl.SSLWantReadError,
    ssl.SSLWantWriteError,
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
    ssl.SSLSyscallError,
)
"""Errors of a connection that breaks off, which only happens to be encrypted."""

_PASSING = (408, 409, 425, 429)
_NO_ENDPOINT = (405, 410, 411, 421, 426, 501, 505)
_AGAIN = "and run the same again to go on"
_LOOK = "look at its log"


class Explainer:
    """Puts failures of one endpoint into one line; the key is never in it.

    Args:
        address: where the endpoint is.
        settings: how it is asked.
        secrets: what must not be shown.

    Attributes:
        model: name of the model at the endpoint.
    """

    def __init__(self, address: Address, settings: EndpointSettings, secrets: Secrets) -> None:
        self.model = ""
        self._address, self._settings, self._secrets = address, settings, secrets

    def shown(self, text: str) -> str:
        """One line of at most 200 printable characters, from text that is not trusted."""
        line = " ".join(text.split())
        # Secrets are looked for last: what is taken out may have stood within one.
        line = "".join(filter(str.isprintable, line))
        return self._secrets.hidden_in_message(line)[:MOST_CHARACTERS].rstrip(" .:")

    def too_slow(self) -> RequestFailed:
        """The reply is not there in time."""
        return RequestFailed(
            f"{self._address.place} gave no answer within {self._settings.timeout:g} s",
            f"allow more time or ask less at once, {_AGAIN}",
            may_pass=True,
        )

    def too_large(self, most: int) -> RequestFailed:
        """The reply is too large."""
        return RequestFailed(
            f"{self._address.place} sends more than {most >> 20} MB for one answer",
            f"check that it is an OpenAI-compatible endpoint, or {_LOOK}",
        )

    def redirected(self, url: str) -> RequestFailed:
        """The endpoint sends the request elsewhere, where the key must not go, or in a circle."""
        what = f"{self._address.place} redirects to {self.shown(url)!r}, which was not followed"
        if self._address.is_origin_of(url):
            return RequestFailed(what, "give the base URL that it redirects to")
        return RequestFailed(
            f"{what}, because your key and texts would go to another server",
            "give that address as the base URL if you trust it",
        )

    def malformed(self, why: str, body: bytes) -> RequestFailed:
        """The reply is not what it should be."""
        begins = self.shown(body[:MOST_READ].decode("utf-8", "replace"))
        said = f"{why} and begins {begins!r}" if begins else "it is empty"
        return RequestFailed(
            f"{self._address.place} does not answer as OpenAI's endpoints do ({said})",
            "check the base URL (most end in /v1), or look at the server's log",
            may_pass=True,
        )

    def unusable(self, error: Exception, proxy: Proxy | None) -> DemurError:
        """No client can be made."""
        said = self.shown(first_line(error))
        if proxy is not None:
            return DemurError(
                f"The proxy {proxy.place} cannot be used ({said}): correct {proxy.variable}, or "
                "name the endpoint's host in NO_PROXY."
            )
        return DemurError(
            f"No client for {self._address.place} can be made ({said}): check SSL_CERT_FILE and "
            "SSL_CERT_DIR."
        )

    def unreachable(self, error: Exception, proxy: Proxy | None) -> RequestFailed:
        """The network, the proxy or the encryption fails."""
        place, chain = self._address.place, list(_chain(error))
        said = self.shown(_words(chain))
        through = "" if proxy is None else f" through the proxy {proxy.place} ({proxy.variable})"
        kinds = {type(one).__name__ for one in chain}
        if "InvalidURL" in kinds:
            return RequestFailed(f"{place} is not an address ({said})", "correct the base URL")
        for one in chain:
            if isinstance(one, ssl.SSLCertVerificationError):
                why = self.shown(one.verify_message or first_line(one))
                if proxy is not None and proxy.is_encrypted:
                    through = f", or of{through.removeprefix(' through')},"
                return RequestFailed(
                    f"The certificate of {place}{through} is not trusted ({why})",
                    "point SSL_CERT_FILE at the certificate of its authority, or correct the "
                    "address",
                )
            if isinstance(one, ssl.SSLError) and "CERTIFICATE_REQUIRED" in (one.reason or ""):
                return RequestFailed(
                    f"{place} wants a certificate of the client{through}, which cannot be given",
                    "use an address that takes a key",
                )
            if isinstance(one, ssl.SSLError) and not isinstance(one, _INTERRUPTED):
                return RequestFailed(
                    f"The encrypted connection to {place} fails{through} "
                    f"({self.shown(one.reason or first_line(one))})",
                    "check whether it speaks https or http, and its TLS settings",
                    may_pass=one.reason not in _NO_TLS,
                )
        if proxy is not None and kinds & {"ProxyError", "ConnectError", "OSError"}:
            return RequestFailed(
                f"{place} cannot be reached{through}; {said}",
                f"correct {proxy.variable}, or name the endpoint's host in NO_PROXY",
                may_pass=True,
            )
        if any(isinstance(one, socket.gaierror) for one in chain):
            return RequestFailed(
                f"The host {self._address.host!r:.100} of {place} is not found ({said})",
                "check the spelling of the base URL, and the connection",
                may_pass=True,
            )
        if kinds & {"ConnectError", "ConnectTimeout"}:
            return RequestFailed(
                f"{place} cannot be reached",
                "check the base URL and that it runs",
                may_pass=True,
            )
        return RequestFailed(
            f"{place} breaks off its answer{through} ({said or type(error).__name__})",
            f"{_LOOK}{self._maybe_encrypted}, {_AGAIN}",
            may_pass=True,
        )

    @property
    def _maybe_encrypted(self) -> str:
        """What to try where a connection without encryption gets no answer."""
        return "" if self._address.is_encrypted else ", or try https if it speaks that"

    def refused(
        self, complaint: Complaint, asked: Asked | None, wait: float | None
    ) -> RequestFailed:
        """The endpoint says why it does not answer.

        Args:
            complaint: what it says.
            asked: the request; None for one that asks nothing of the model.
            wait: seconds after which it wants to be asked again, or None.
        """
        place, status = self._address.place, complaint.status
        said = self._said(complaint, wait)
        if status == 407:
            return RequestFailed(
                f"The proxy on the way to {place} wants a password ({said})",
                "give HTTP_PROXY or HTTPS_PROXY with it, or name the host in NO_PROXY",
            )
        if status in (401, 403) or complaint.is_of_key:
            return self._forbidden(complaint, said)
        if status == 404 or complaint.is_of_model:
            return RequestFailed(
                f"{place} knows no model {self.model!r:.80}, or is not an OpenAI-compatible "
                f"endpoint ({said})",
                "check the model's name and the base URL",
            )
        if status in _NO_ENDPOINT:
            return RequestFailed(
                f"{place} is not an OpenAI-compatible endpoint ({said})",
                "check the base URL (most end in /v1)",
            )
        if status == 402 or complaint.is_spent:
            return RequestFailed(
                f"{place} says that the account has no credit left ({said})",
                f"look at the account's quota, {_AGAIN}",
            )
        if status == 429:
            return RequestFailed(
                f"{place} says that its limits are reached ({said})",
                f"ask less at once (concurrency {self._settings.concurrency}), or look at the "
                f"account's quota, {_AGAIN}",
                may_pass=True,
                wait=wait,
            )
        if 400 <= status < 500 and status not in _PASSING:
            return self._not_taken(complaint, asked, said)
        return RequestFailed(
            f"{place} fails ({said})", f"{_LOOK}, {_AGAIN}", may_pass=True, wait=wait
        )

    def _forbidden(self, complaint: Complaint, said: str) -> RequestFailed:
        """The key is not taken, or not for this."""
        what = (
            "the key or the request" if complaint.status == 403 and complaint.codes else "the key"
        )
        model = f" that may use {self.model!r:.80}" if self.model else " that it takes"
        return RequestFailed(
            f"{self._address.place} refuses {what} ({said})",
            f"set {self._settings.key_variable} to one{model}",
        )

    def _not_taken(self, complaint: Complaint, asked: Asked | None, said: str) -> RequestFailed:
        """A request that will never be answered as it is."""
        place = self._address.place
        if asked is None:
            return RequestFailed(f"{place} does not say which models it has ({said})", "name one")
        query, limit = asked.messages[-1].content, asked.options.most_tokens
        what = (
            f"{place} does not take the query of {len(query):,} characters that begins "
            f"{self.shown(query)[:60]!r}"
        )
        if limit is not None:
            what += f" with up to {limit:,} tokens of answer"
        what += f" ({said})"
        characters = sum(len(message.content) for message in asked.messages)
        if complaint.is_too_long and limit is not None and limit * 4 > characters:
            fix = "ask for fewer tokens, or serve a longer context"
        elif complaint.is_too_long:
            fix = "leave it out or shorten it, or serve a longer context"
        elif complaint.param in ("max_tokens", "max_completion_tokens"):
            fix = "ask for another number of tokens, or shorten the query if that is long"
        else:
            fix = "change what it complains about: the query, the number of tokens or the settings"
        return RequestFailed(what, fix)

    def _said(self, complaint: Complaint, wait: float | None) -> str:
        words = self.shown(complaint.message)
        said = f"status {complaint.status}: {words}" if words else f"status {complaint.status}"
        if wait is not None and wait > LONGEST_WAIT:
            said += f"; it wants to be asked again in {min(wait, 1e9):,.0f} s"
        return said


def _words(chain: Sequence[BaseException]) -> str:
    """What the system says about an error, else the library that noticed it."""
    for one in chain:
        if isinstance(one, OSError) and one.strerror:
            return one.strerror
    return next((first_line(one) for one in chain if str(one).strip()), "")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it came from, groups included, the first cause last."""
    seen: set[int] = set()
    left = [error]
    while left:
        one = left.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        left += [
            cause for cause in (one.__cause__, one.__context__) if isinstance(cause, Exception)
        ]
        left += [each for each in getattr(one, "exceptions", ()) if isinstance(each, Exception)]
