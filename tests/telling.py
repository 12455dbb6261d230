"""A progress that keeps what it is told."""

from __future__ import annotations

from demur.progress import SilentProgress


class Telling(SilentProgress):
    """Keeps the messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)
