"""What a message says about an endpoint that does not answer."""

from __future__ import annotations

from demur.endpoint.requests import EndpointSettings
from demur.errors import DemurError

_MOST_CHARACTERS = 120


def explained(error: Exception, place: str, model: str, settings: EndpointSettings) -> DemurError:
    """The error that users see; the key is never in it.

    Args:
        error: error of the `openai` package or below.
        place: address of the endpoint, without secrets.
        model: name of the model there.
        settings: how the endpoint was asked.
    """
    import openai

    if isinstance(error, (openai.AuthenticationError, openai.PermissionDeniedError)):
        return DemurError(
            f"{place} refuses the key (status {error.status_code}): set {settings.key_variable} to "
            f"one that may use {model!r:.80}."
        )
    if isinstance(error, openai.NotFoundError):
        return DemurError(
            f"{place} knows no model {model!r:.80}, or is not an OpenAI-compatible endpoint: check "
            "the model's name and the base URL."
        )
    if isinstance(error, openai.RateLimitError):
        return DemurError(
            f"{place} says that its limits are reached (status 429): ask less at once (concurrency "
            f"{settings.concurrency}), or look at the account's quota."
        )
    if isinstance(error, openai.APITimeoutError):
        return DemurError(
            f"{place} gave no answer within {settings.timeout:g} s, {settings.retries + 1} times: "
            "allow more time or ask less at once."
        )
    if isinstance(error, openai.APIConnectionError):
        return DemurError(f"{place} cannot be reached: check the base URL and that it runs.")
    if isinstance(error, openai.APIStatusError):
        return DemurError(
            f"{place} answers with status {error.status_code} ({printable(error.message)}): look "
            "at its log."
        )
    return DemurError(
        f"{place} does not answer as OpenAI's endpoints do ({printable(str(error))}): check the "
        "base URL."
    )


def printable(text: str) -> str:
    """One line of at most 120 printable characters, from text that is not trusted."""
    line = " ".join(text.split())
    return "".join(filter(str.isprintable, line))[:_MOST_CHARACTERS]
