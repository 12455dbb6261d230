"""Every command and every import in the documentation is one that there is."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from demur.cli.command import Command
from demur.cli.verbs import VERBS
from demur.errors import DemurError
from tests.command_line import demur

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PLACEHOLDERS = {"NAME", "MODEL", "RUN", "FOLDER", "FILE", "DIR", "..."}


def blocks(page: Path) -> list[str]:
    """The indented and fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    fenced = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    indented = re.findall(r"(?:^\n)((?:    .*\n|\n)+)", text, re.MULTILINE)
    return [*fenced, *(re.sub(r"^    ", "", one, flags=re.MULTILINE) for one in indented)]


def command_lines() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for block in blocks(page):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("demur "):
                    yield page.name, line


LINES = sorted(set(command_lines()))


@pytest.mark.parametrize(("page", "line"), LINES, ids=[line for _, line in LINES])
def test_a_command_is_understood(
    page: str, line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = shlex.split(line, comments=True)[1:]
    if not words or words[0].startswith("-") or "|" in words or PLACEHOLDERS & set(words):
        return
    if any(re.search(r"\.py\b", word) for word in words):
        return  # a method, attack or judge of the reader's own
    checked: list[object] = []
    real = Command.choose

    def choose(self: Command[Any], given: Mapping[str, object], config: Path | None = None) -> Any:
        checked.append(given if config is not None else real(self, given))
        raise DemurError("The settings are good.")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Command, "choose", choose)
    ended = demur(*words)
    assert checked, f"{page}: {line}: {ended.err}"


def test_the_pages_show_commands_of_every_kind() -> None:
    shown = {line.split()[1] for _, line in LINES}
    assert {verb.name for verb in VERBS} - shown == set()


def python_blocks() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for block in blocks(page):
            if re.search(r"^(from|import) \w+", block, re.MULTILINE) and "demur" in block:
                yield page.name, re.split(r"^demur ", block, flags=re.MULTILINE)[0]


@pytest.mark.parametrize(("page", "block"), list(python_blocks()))
def test_what_python_examples_import_is_there(page: str, block: str) -> None:
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("demur"):
            if node.module == "demur.inspect":  # needs an extra
                continue
            module = import_module(str(node.module))
            for name in node.names:
                assert hasattr(module, name.name), f"{page}: {node.module}.{name.name}"


def test_the_site_has_every_page_of_the_documentation() -> None:
    named = set(re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in PAGES[1:]}
    commands = {f"reference/{verb.name}.md" for verb in VERBS}
    assert named == {*pages, *commands, "reference/python.md"}
