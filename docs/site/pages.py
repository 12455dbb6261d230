"""Pages of the documentation that are generated, and links that leave it: hooks of MkDocs.

Every command gets a page with its options, from the settings themselves; every public name of the
package gets its docstring. A link to a file outside `docs` leads to the repository where the
address of that is known (`DEMUR_REPOSITORY`), and is the name of the file elsewhere.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

import demur
from demur.cli.verbs import VERBS
from demur.settings import default_text

ROOT = Path(__file__).parents[2]
_LINK = re.compile(r"\[([^\]]*)\]\(((?:\.\./)+[^)#]+)(#[^)]*)?\)")
_GROUPS = {
    "The model and a run": (
        *("ChatModel", "sampled_at", "optimize", "OptimizeSettings", "Run", "SafetyPrompt"),
    ),
    "Queries": ("QuerySet", "Conversation", "load_query_set", "Condition"),
    "Measuring": (
        *("evaluate", "Comparison", "Server", "ResponseFiles", "attack", "Robustness"),
        *("diagnose", "Diagnosis", "check", "GateResult", "compare_evaluations"),
    ),
}
OTHERS = "Everything else"


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages."""
    for verb in VERBS:
        content = command_page(verb.name)
        files.append(File.generated(config, f"reference/{verb.name}.md", content=content))
    files.append(File.generated(config, "reference/python.md", content=python_page()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Lead links that leave `docs` to the repository.

    Raises:
        PluginError: a link leads to no file.
    """
    folder = (ROOT / "docs" / page.file.src_uri).parent

    def lead(found: re.Match[str]) -> str:
        target = (folder / found[2]).resolve()
        if target.is_relative_to(ROOT / "docs"):
            return found[0]
        if not target.exists() or not target.is_relative_to(ROOT):
            raise PluginError(f"{page.file.src_uri} links to {found[2]}, which is not there.")
        path = target.relative_to(ROOT).as_posix()
        place = os.environ.get("DEMUR_REPOSITORY")
        return f"[{found[1]}]({place}/blob/main/{path})" if place else f"{found[1]} (`{path}`)"

    return _LINK.sub(lead, markdown)


def command_page(name: str) -> str:
    """The page of a command: what it does, and its options."""
    (verb,) = (one for one in VERBS if one.name == name)
    command = verb.load()
    lines = [f"# demur {name}", ""]
    for paragraph in command.help.split("\n\n"):
        lines += [_text(" ".join(paragraph.split())), ""]
    if command.examples:
        lines += ["```", *command.examples, "```", ""]
    panels: dict[str, list[str]] = {}
    for option in command.options:
        default = command.default_texts.get(option.name) or default_text(option, command.presets)
        default = "required" if option.required else _text(default)
        text = _text(option.sentence.removesuffix("."))
        flag = option.metavar if option.positional else option.flag
        key = "" if option.positional else f"`{option.key}`"
        row = f"| `{flag}` | {text} | {default} | {key} |"
        panels.setdefault(command.panel_of(option) or "Options", []).append(row)
    for panel, rows in panels.items():
        head = ["| option | what it is | default | key in a TOML file |", "|---|---|---|---|"]
        lines += [f"## {panel}", "", *head, *rows, ""]
    return "\n".join(lines)


def python_page() -> str:
    """The page with the docstring of every public name."""
    grouped = {name for names in _GROUPS.values() for name in names}
    others = tuple(name for name in demur.__all__ if name not in grouped)
    lines = [
        "# Python",
        "",
        "What `import demur` offers. [The guide](../python.md) shows it in use.",
        "",
    ]
    for title, names in {**_GROUPS, OTHERS: others}.items():
        lines += [f"## {title}", ""]
        for name in names:
            home = getattr(demur, name).__module__
            lines += [f"::: {home}.{name}", ""]
    return "\n".join(lines)


def _text(text: str) -> str:
    """Text that stays text in a table of Markdown."""
    kept = text.replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[")
    return re.sub(r"([*_])", r"\\\1", kept) if "`" not in kept else kept
