"""Make one self-contained HTML file of runs, diagnoses, evaluations and attacks."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path
from typing import get_args

from demur.arguments import require_kind, require_path
from demur.attacks import Robustness
from demur.capability import KIND as CAPABILITY
from demur.diagnosis import Diagnosis
from demur.errors import DemurError
from demur.evaluation.comparison import RESULTS, Comparison
from demur.files import require_no_data, write_bytes
from demur.optimization import Run
from demur.optimization.wording import WordingRun
from demur.records import Verdict, kind_of, not_the_folder, telling_names
from demur.report.cells import breakable, whole_options
from demur.report.charts import chart_svg, dot_groups, share
from demur.report.differences import SideBySide, differences_between
from demur.report.of_attack import subject_of_attack
from demur.report.of_diagnosis import subject_of_diagnosis
from demur.report.of_evaluation import subject_of_evaluation
from demur.report.of_run import subject_of_run
from demur.report.subject import Showing, Subject, View, percent, whole_figures
from demur.settings import command_line

REPORT = "report.html"
SEVERAL = Path("demur-report.html")
SCRIPTS = ("drawing.js", "scatter.js", "responses.js", "changes.js", "page.js")

_DRIVING = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_ESCAPED = re.compile(f"{_DRIVING.pattern}|[<>&\u2028\u2029]")

Work = Run | Comparison | Diagnosis | Robustness
"""Finished work that a report can show."""


def write_report(
    items: Sequence[Work | str | Path] | Work | str | Path,
    output: str | Path | None = None,
    *,
    full: bool = False,
) -> Path:
    """Write one HTML file that shows finished work side by side: runs, evaluations and others.

    The file opens offline, asks nothing of any network and holds everything that it shows. Queries
    and responses are in it as text only. What may do harm is left out of it by default: the text
    of answers to harmful queries (`may_harm`), and the reasoning before other responses to them.

    Args:
        items: what to show: runs, comparisons, diagnoses, what `attack` returns, or their folders;
            one or several.
        output: file to write. Default: `report.html` in the folder, or `demur-report.html` here
            for several.
        full: whether these texts are in the file as well. The page folds the answers until they
            are opened.

    Returns:
        The file.

    Raises:
        DemurError: a folder holds nothing finished or is damaged, or the file cannot be written.

    Example:
        `write_report(["demur-runs/first", "demur-runs/second"], "both.html")`
    """
    wanted = "a run, a diagnosis, an evaluation or its folder"
    require_path("output", output, "the path of a file for the report")
    require_kind("full", full, bool, "True or False")
    require_kind("items", items, (str, Path, *get_args(Work), Iterable), wanted)
    several = [items] if isinstance(items, str | Path | Work) else list(items)
    if not several:
        raise DemurError("There is nothing to report on: give a run, a diagnosis or an evaluation.")
    for one in several:
        require_kind("items", one, (str, Path, *get_args(Work)), wanted)
    opened = [_open(Path(one)) if isinstance(one, str | Path) else one for one in several]
    places = [_folder_of(one) for one in opened]
    if output is not None:
        target = Path(output)
    else:
        target = places[0] / REPORT if len(places) == 1 else SEVERAL
    if target.is_dir():
        other = f"give a file for the report, for example {target / REPORT}"
        fix = other if output is not None else f"delete it, or {other}"
        raise DemurError(f"{target} is a folder: {fix}.")
    require_no_data(target)
    subjects = [_subject(one, place, full=full) for one, place in zip(opened, places, strict=True)]
    differences: list[SideBySide] = []
    if len(subjects) > 1:
        # Two evaluations of one prompt on two days have one title.
        names = telling_names(places)
        subjects = [
            replace(one, title=f"{name}: {one.title}")
            for one, name in zip(subjects, names, strict=True)
        ]
        differences = differences_between(opened, names)
    again = command_line("report", [*map(str, places), *([] if full else ["--full"])])
    # Lone surrogates, which a response may hold, cannot be written as UTF-8.
    write_bytes(target, _plain_text(_page(subjects, differences, again)).encode("utf-8", "replace"))
    return target


def _plain_text(page: str) -> str:
    """A page without characters that drive a terminal, or that turn around the text behind them."""
    return _DRIVING.sub("\N{REPLACEMENT CHARACTER}", page.replace("\r\n", "\n"))


def _open(path: Path) -> Work:
    kind = kind_of(path, finished=True)
    if kind == "run":
        return Run.load(path)
    if kind == "wording run":
        return WordingRun.load(path).comparison
    if kind == "evaluation":
        return Comparison.load(path)
    if kind == "diagnosis":
        return Diagnosis.load(path)
    if kind == "attack":
        return Robustness.load(path)
    if kind == CAPABILITY:
        raise DemurError(
            f"The capability check in {path} is one table and has no report: see it with `demur "
            "show`."
        )
    raise not_the_folder(path, "a run, a diagnosis, an evaluation or an attack")


def _folder_of(work: Work) -> Path:
    return work.folder if isinstance(work, Comparison) else work.path


def _subject(work: Work, path: Path, *, full: bool) -> Subject:
    if isinstance(work, Run):
        subject = subject_of_run(work, full=full)
    elif isinstance(work, Diagnosis):
        subject = subject_of_diagnosis(work, full=full)
    elif isinstance(work, Robustness):
        subject = subject_of_attack(work, full=full)
    else:
        subject = subject_of_evaluation(work, full=full)
    finished = datetime.fromtimestamp((path / RESULTS).stat().st_mtime, timezone.utc)
    return replace(subject, date=finished.strftime("%d %B %Y").lstrip("0"))


def _page(subjects: Sequence[Subject], differences: Sequence[SideBySide], again: str) -> str:
    """The page.

    Args:
        subjects: what it shows.
        differences: how they differ.
        again: the command that shows what is redacted here, or that redacts what is not.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(chart=chart_svg, groups=dot_groups, share=share, percent=percent)
    environment.filters.update(
        whole_figures=whole_figures, breakable=breakable, whole_options=whole_options
    )
    # Top-level names are shared: one function around all parts keeps them to themselves.
    script = "(() => {\n'use strict';\n" + "\n".join(map(_part, SCRIPTS)) + "\n})();"
    style = _part("report.css")
    several = len(subjects) > 1
    return environment.from_string(_part("report.html.jinja")).render(
        title=subjects[0].title if not several else f"{len(subjects)} results side by side",
        subjects=subjects,
        several=several,
        again=again,
        differences=differences,
        meanings=list(dict.fromkeys(text for one in subjects for text in one.uses.values())),
        redacted=sum(one.number("redacted") for one in subjects),
        deflected=any(
            response.verdict is Verdict.DEFLECTS for one in subjects for response in one.responses
        ),
        folded=sum(one.number("folded") for one in subjects),
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
    """What the script reads, as JSON that no text in it can end early; texts are in it whole."""
    plain = [_plain(subject) for subject in subjects]
    text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _plain(subject: Subject) -> Mapping[str, object]:
    frame = subject.frame
    return {
        "title": subject.title,
        "kind": subject.kind,
        "conditions": subject.conditions,
        "compared": subject.compared or (len(subject.conditions) - 2, len(subject.conditions) - 1),
        "use": next(iter(subject.uses), ""),
        "queries": [
            [
                *(one.text, one.label or "", one.category or "", one.set or ""),
                *(int(one.own), one.use),
            ]
            for one in subject.queries
        ],
        "responses": [
            [
                *(one.query, one.condition, one.text, one.verdict, one.harm or ""),
                get_args(Showing).index(one.showing),
            ]
            for one in subject.responses
        ],
        "views": [_plain_view(view) for view in subject.views],
        "frame": None
        if frame is None
        else {
            "axes": frame.axes,
            "harmfulness": asdict(frame.harmfulness),
            "refusal": None if frame.refusal is None else asdict(frame.refusal),
        },
    }


def _plain_view(view: View) -> Mapping[str, object]:
    return {
        "title": view.title,
        "queries": view.queries,
        "series": [asdict(one) for one in view.series],
        "arrows": [[one.start, one.end, one.dashed] for one in view.arrows],
        "steps": view.steps,
    }


def _facts(subjects: Sequence[Subject]) -> list[tuple[str, list[str], bool]]:
    """Each setting with its value in every subject, and whether they differ."""
    names = dict.fromkeys(name for subject in subjects for name in subject.facts)
    rows = []
    for name in names:
        values = [subject.facts.get(name, "") for subject in subjects]
        rows.append((name, values, len(set(values)) > 1))
    return rows
