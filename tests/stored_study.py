"""A tiny study whose cells travel through a storage: its files, and what is compared of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from demur import Study
from demur.progress import SilentProgress
from tests.tiny_study import FILE, write_study

# A judge that notes how many responses it judges, and a method that notes which run it prepares.
NOTING = """
import os
import time
from pathlib import Path

from demur.optimization.methods.dro import DirectedRepresentation

LOG = Path(os.environ["NOTES"])


def note(name, line):
    with (LOG / name).open("a") as log:
        log.write(f"{line}\\n")


class Noting(DirectedRepresentation):
    name = "noting"

    def prepare(self, context):
        note("log", f"{os.getpid()} {context.seed}")
        while (LOG / f"hold-{context.seed}").exists():
            time.sleep(0.02)
        return super().prepare(context)


def judge(queries, responses):
    note("judged", len(responses))
    return [len(response) % 2 == 0 for response in responses]
"""
_METHODS = '\n[methods.one]\nmethod = "noting.py:Noting"\n'
_SECOND = '\n[methods.two]\nmethod = "noting.py:Noting"\nlearning_rate = 0.05\n'
_HEAD = FILE[: FILE.index("[methods.dro]")].replace('judge = "paper"', 'judge = "noting.py:judge"')


def write_stored(folder: Path, *, seeds: int = 1, methods: int = 1) -> Path:
    """Write a study that names its files by relative paths, all but the model.

    Args:
        folder: an existing folder, in which the command is to be given.
        seeds: number of seeds.
        methods: number of methods, 1 or 2. A seed has one cell and two for each method.

    Returns:
        The study's file. The environment variable `NOTES` must name the folder in which judge and
        method note what they do, for example the new folder `notes` beside it.
    """
    (folder / "notes").mkdir()
    (folder / "noting.py").write_text(NOTING)
    head = _HEAD.replace("{folder}/", "").replace('"tiny"', '"{folder}/tiny"')
    head = head.replace("seeds = [0, 1]", f"seeds = {list(range(seeds))}")
    return write_study(folder, text=head + _METHODS + (_SECOND if methods == 2 else ""))


def do_alone(folder: Path, file: Path) -> None:
    """Do the study of `write_stored` in its folder, in this process and without a storage."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("NOTES", str(folder / "notes"))
        Study.load(file, "out").run(SilentProgress())


def judged(folder: Path) -> int:
    """How many responses the judge has judged."""
    return sum(map(int, (folder / "notes/judged").read_text().split()))


def prepared(folder: Path) -> list[tuple[int, str]]:
    """Process and seed of each run that was begun."""
    log = folder / "notes/log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [(int(pid), seed) for pid, seed in (line.split() for line in lines)]


def content(folder: Path) -> dict[str, bytes]:
    """The files of a study's cells, but for their pages, which have a date."""
    return {
        one.relative_to(folder).as_posix(): one.read_bytes()
        for kind in ("runs", "evaluations")
        for one in (folder / kind).rglob("*")
        if one.is_file() and one.name != "report.html"
    }


def pages(folder: Path) -> set[str]:
    """The pages of a study."""
    return {one.relative_to(folder).as_posix() for one in folder.rglob("report.html")}
