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
BESIDE_THE_SITE = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
"""Pages whose links the site's own build does not check."""

OF_THE_SITE = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*BESIDE_THE_SITE, *OF_THE_SITE]
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
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in OF_THE_SITE}
    commands = {f"reference/{verb.name}.md" for verb in VERBS}
    assert named == {*pages, *commands, "reference/python.md"}


def anchors(page: Path) -> set[str]:
    """The places of a page that a link can name, as GitHub derives them from its headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", BESIDE_THE_SITE, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_what_is_there(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    assert targets or page.parent != ROOT
    for target in targets:
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), target
        assert place.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(place), target
