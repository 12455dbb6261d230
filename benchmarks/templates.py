"""Chat templates through the check of the export: which pass, which are refused and why.

    python benchmarks/templates.py FOLDER [FOLDER ...]

The folders hold a public collection of templates (`*.jinja`), for example `models/templates` of
llama.cpp's repository; the package's own templates are added. Each is made to open conversations
with safety tokens, and is tried on every form of a conversation. A template whose name ends in
`tool_use` is tried with tools, as engines use it. The tokens are those of the default model. Prints
the table and keeps it in `benchmarks/results/`.
"""

from __future__ import annotations

import argparse
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from common import run, stop, write_results
from demur.chat import ChatModel
from demur.chat.catalog import DEFAULT_MODEL
from demur.chat.rendering import ChatRenderer
from demur.errors import DemurError
from demur.exports.opening import SafetyTokens, open_template
from demur.exports.template_forms import FORMS, with_tools
from demur.prompts import SafetyPrompt

PROMPT = SafetyPrompt("rows", "You are a careful assistant.", torch.randn(8, 16))


def tried(name: str, template: str, tokenizer: Any) -> dict[str, Any]:
    """What the check says of a template."""
    forms = with_tools(FORMS) if name.endswith("tool_use") else FORMS
    try:
        renderer = ChatRenderer(tokenizer, name, template)
        tokens = SafetyTokens.added(tokenizer, PROMPT, name)
        opened = open_template(renderer, tokens, name, forms=forms)
    except DemurError as error:
        return {"template": name, "passes": False, "why": str(error)}
    counts = Counter(trial.outcome for trial in opened.trials)
    refuses = [t.form.name for t in opened.trials if t.outcome == "refused by the template"]
    return {
        "template": name,
        "passes": True,
        "opens": opened.way.place,
        "as_in_the_run": counts["as in the run"],
        "whole": counts["whole"],
        "refuses": refuses,
    }


def shown(rows: list[dict[str, Any]]) -> Table:
    """The table for people."""
    table = Table(title=f"{len(FORMS)} forms of a conversation, as texts and as parts")
    for column in ("template", "opens", "as in the run", "whole", "the template itself refuses"):
        table.add_column(column)
    for row in rows:
        if row["passes"]:
            cells = [row["opens"], row["as_in_the_run"], row["whole"], "; ".join(row["refuses"])]
        else:
            cells = ["refused", "", "", row["why"]]
        table.add_row(row["template"], *map(str, cells))
    return table


def main() -> None:
    """Try all templates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    files = {
        file.stem: file.read_text(encoding="utf-8")
        for folder in parser.parse_args().folders
        for file in sorted(folder.glob("*.jinja"))
    }
    if not files:
        stop("There are no *.jinja files: give a folder with chat templates.")
    for file in resources.files("demur.chat.templates_data").iterdir():
        if file.name.endswith(".jinja"):
            files[f"demur: {Path(file.name).stem}"] = file.read_text(encoding="utf-8")
    tokenizer = ChatModel.load(DEFAULT_MODEL).engine.tokenizer
    rows = []
    for name, template in track(files.items(), "Trying templates"):
        rows.append(tried(name, template, tokenizer))
    Console().print(shown(rows))
    passed = sum(row["passes"] for row in rows)
    print(f"{passed} of {len(rows)} templates pass.")
    forms = [form.name for form in FORMS]
    write_results("templates", {"forms": forms, "passed": passed, "templates": rows})


if __name__ == "__main__":
    run(main)
