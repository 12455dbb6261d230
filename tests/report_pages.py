"""A page that demur wrote, taken apart."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any


class Page(HTMLParser):
    """Tags, attributes and the text of scripts, styles and everything else."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.blocks: dict[str, list[str]] = {"script": [], "style": []}
        self.words: list[str] = []
        self._block = ""
        self._inline = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        # A span is part of the text around it.
        self._inline = tag == "span"
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag in self.blocks:
            self._block = tag
            self.blocks[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._block:
            self._block = ""
        self._inline = tag == "span"

    def handle_data(self, data: str) -> None:
        if self._block:
            self.blocks[self._block][-1] += data
        elif self._inline and self.words:
            self.words[-1] += data
        else:
            self.words.append(data)
        self._inline = False

    @property
    def data(self) -> Any:
        return json.loads(self.blocks["script"][0])


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))
