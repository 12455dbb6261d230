"""The error of a request that brought no answer."""

from __future__ import annotations

from demur.errors import DemurError


class RequestFailed(DemurError):
    """A request brought no answer.

    Args:
        what: what happened, as the beginning of a sentence.
        fix: how to fix it, as its end.
        may_pass: whether the same request may succeed later.
        wait: seconds after which the endpoint wants to be asked again, or None.

    Attributes:
        may_pass: whether the same request may succeed later.
        wait: seconds after which the endpoint wants to be asked again, or None.
    """

    def __init__(
        self, what: str, fix: str, *, may_pass: bool = False, wait: float | None = None
    ) -> None:
        super().__init__(f"{what}: {fix}.")
        self.may_pass, self.wait = may_pass, wait
        self._what, self._fix = what, fix

    def after(self, tries: int) -> RequestFailed:
        """The same failure of the last of several tries."""
        times = f", {tries} times" if tries > 1 else ""
        return RequestFailed(f"{self._what}{times}", self._fix)
