"""Make one self-contained HTML file of finished folders."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path
from typing import Any

from demur.errors import DemurError
from demur.files import write_bytes
from demur.report.charts import chart_svg
from demur.report.of_diagnosis import DIAGNOSIS, subject_of_diagnosis
from demur.report.of_evaluation import RESULTS, subject_of_evaluation
from demur.report.of_run import METRICS, subject_of_run
from demur.report.subject import Subject
from demur.runs import RunFolder

REPORT = "report.html"
SEVERAL = Path("demur-report.html")
SCRIPTS = ("drawing.js", "scatter.js", "responses.js", "page.js")

_READERS: dict[str, Callable[[RunFolder], Subject]] = {
    DIAGNOSIS: subject_of_diagnosis,
    RESULTS: subject_of_evaluation,
    METRICS: subject_of_run,
}


def write_report(folders: Sequence[str | Path], output: str | Path | None = None) -> Path:
    """Write one HTML file that shows finished runs, diagnoses and evaluations side by side.

    The file opens offline, asks nothing of any network and holds everything that it shows. Queries
    and responses are in it as text only.

    Args:
        folders: of finished runs, diagnoses or evaluations.
        output: the file; by default `report.html` in the folder, or `demur-report.html` here for
            several.

    Returns:
        The file.

    Raises:
        DemurError: a folder holds nothing finished, or the file cannot be written.
    """
    if not folders:
        raise DemurError(
            "There is nothing to report on: give the folder of a run or an evaluation."
        )
    subjects = [_read(Path(folder)) for folder in folders]
    if output is not None:
        target = Path(output)
    else:
        target = Path(folders[0]) / REPORT if len(folders) == 1 else SEVERAL
    if target.is_dir():
        raise DemurError(
            f"{target} is a folder: give a file for the report, say {target / REPORT}."
        )
    # Lone surrogates, which a response may hold, cannot be written as UTF-8.
    write_bytes(target, _page(subjects).encode("utf-8", "replace"))
    return target


def ensure_report(folder: Path) -> None:
    """Write the report of a finished folder where there is none yet."""
    if not (folder / REPORT).exists():
        write_report([folder])


def _read(path: Path) -> Subject:
    folder = RunFolder.open(path)
    for file, reader in _READERS.items():
        if (path / file).is_file():
            try:
                subject = reader(folder)
            except (KeyError, TypeError, IndexError) as error:
                raise DemurError(
                    f"{path} is damaged: delete it and run its command again."
                ) from error
            finished = datetime.fromtimestamp((path / file).stat().st_mtime, timezone.utc)
            return replace(subject, date=finished.strftime("%d %B %Y").lstrip("0"))
    raise DemurError(f"What lies in {path} is not finished: run its command again to go on.")


def _page(subjects: Sequence[Subject]) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["chart"] = chart_svg
    # Top-level names are shared: one function around all parts keeps them to themselves.
    script = "(() => {\n'use strict';\n" + "\n".join(map(_part, SCRIPTS)) + "\n})();"
    style = _part("report.css")
    several = len(subjects) > 1
    return environment.from_string(_part("report.html.jinja")).render(
        title=subjects[0].title if not several else f"{len(subjects)} results side by side",
        subjects=subjects,
        several=several,
        style=style,
        script=script,
        # Nothing but this very script and style may run or load, whatever a text tries.
        policy=(
            "default-src 'none'; base-uri 'none'; form-action 'none'; "
            f"style-src '{_hash(style)}'; script-src '{_hash(script)}'"
        ),
        data=_data(subjects),
        facts=_facts(subjects),
    )


def _part(name: str) -> str:
    return (resources.files("demur.report") / "page" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _data(subjects: Sequence[Subject]) -> str:
    """What the script reads, as JSON that no text in it can end early."""
    text = json.dumps([_plain(subject) for subject in subjects], ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _plain(subject: Subject) -> Mapping[str, Any]:
    return {
        "title": subject.title,
        "kind": subject.kind,
        "conditions": subject.conditions,
        "queries": [[one.text, one.label, one.category, one.set] for one in subject.queries],
        "responses": [
            [one.query, one.condition, one.text, int(one.refused), one.harm]
            for one in subject.responses
        ],
        "views": subject.views,
        "frame": subject.frame,
    }


def _facts(subjects: Sequence[Subject]) -> list[tuple[str, list[str], bool]]:
    """Each setting with its value in every subject, and whether they differ."""
    names = dict.fromkeys(name for subject in subjects for name in subject.facts)
    rows = []
    for name in names:
        values = [subject.facts.get(name, "") for subject in subjects]
        rows.append((name, values, len(set(values)) > 1))
    return rows
