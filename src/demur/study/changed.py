"""Cells that were begun with other settings than a study has now: which, and what changed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from demur.errors import DemurError
from demur.evaluation.chosen import Chosen
from demur.evaluation.record import KIND as EVALUATION
from demur.evaluation.record import EvaluationRecord
from demur.optimization.plan import Plan
from demur.optimization.recorded import RunRecord
from demur.records import SETTINGS, WorkFolder, kind_of, to_plain
from demur.study.grid import Pair, require_own_folders
from demur.study.outcomes import read_outcomes
from demur.study.record import KIND, Cell, StudyRecord

_MOST = 8
_OF_THE_GRID = {"seed", "basic_prompt", "system_prompt"}


def require_same_cells(
    path: Path, record: StudyRecord, runs: Mapping[Pair, Plan], chosen: Chosen
) -> None:
    """Check that no cell in a study's folder was begun with other settings.

    Args:
        path: folder of the study; need not exist.
        record: what the study is now.
        runs: for names of a basic prompt and a method the plan of a run with the first seed.
        chosen: what the evaluation of all prompts that are measured as they are measures.

    Raises:
        DemurError: some were, or the folder holds something else. The message names what changed
            and all folders to delete.
    """
    WorkFolder.check(path, record, KIND)
    require_own_folders(path, record)
    if kind_of(path) != KIND:
        return
    before = WorkFolder.open(path, StudyRecord, KIND).settings
    # A cell may have been left out meanwhile: what came of it is still there.
    known = {folder: one.content for folder, one in read_outcomes(path).items()}
    known |= {cell.folder: cell.content for cell in before.cells}
    begun = [folder for folder in known if (path / folder / SETTINGS).exists()]
    changed = [
        cell for cell in record.cells if cell.folder in begun and known[cell.folder] != cell.content
    ]
    if not changed:
        return
    told: dict[str, None] = {}
    for cell in changed:
        with suppress(DemurError):  # damaged settings are told when the cell goes on
            told.update(dict.fromkeys(_changes(path, cell, runs, chosen)))
    if not told:
        told = dict.fromkeys(f"settings of the model {cell.model}" for cell in changed)
    places = [str(path / one) for one in patterns([cell.folder for cell in changed], begun)]
    raise DemurError(
        f"Cells of the study in {path} were begun with other settings than it has now "
        f"({_listed(told)}): delete {_listed(places)}, or choose another --output."
    )


def patterns(folders: Collection[str], begun: Collection[str]) -> list[str]:
    """Patterns of a shell that match some folders of cells, and no other ones.

    Args:
        folders: folders of cells, `KIND/MODEL/NAME-seed-SEED`.
        begun: all folders that are there.
    """
    others = [one for one in begun if one not in folders]
    found: list[str] = []
    left = list(folders)
    while left:
        kind, model, name = left[0].split("/")
        stem = name.rpartition("-seed-")[0]
        wide = (f"{kind}/*/*", f"{kind}/*/{stem}-seed-*", f"{kind}/{model}/*")
        for pattern in (*wide, f"{kind}/{model}/{stem}-seed-*", left[0]):
            matched = [one for one in left if _matches(one, pattern)]
            alone = pattern != left[0] and len(matched) < 2
            if not alone and not any(_matches(one, pattern) for one in others):
                found.append(pattern)
                left = [one for one in left if one not in matched]
                break
    return found


def _matches(folder: str, pattern: str) -> bool:
    parts = zip(folder.split("/"), pattern.split("/"), strict=True)
    return all(fnmatchcase(part, wanted) for part, wanted in parts)


def _listed(texts: Collection[str]) -> str:
    more = f" and {len(texts) - _MOST} more" if len(texts) > _MOST else ""
    return ", ".join(list(texts)[:_MOST]) + more


def _changes(path: Path, cell: Cell, runs: Mapping[Pair, Plan], chosen: Chosen) -> Iterator[str]:
    """What is not as it was when a cell was begun."""
    place = path / cell.folder
    if cell.kind == "run":
        assert cell.prompt is not None
        found = WorkFolder.open(place, RunRecord, "run").settings
        yield from _changes_of_run(cell.prompt, found, runs[cell.prompt, cell.method])
        return
    evaluation = WorkFolder.open(place, EvaluationRecord, EVALUATION).settings
    system = chosen.conditions[0].system_prompt if chosen.conditions else None
    if evaluation.system_prompt != system:
        yield "system_prompt"
    elif cell.prompt is None:
        yield from _changes_of_prompts(evaluation, chosen)
    if [one.fingerprint for one in evaluation.sets] != [
        one.queries.fingerprint for one in chosen.sets
    ]:
        yield "queries"
    then, now = evaluation.instructions, chosen.instructions
    if (then and then.fingerprint) != (now and now.queries.fingerprint):
        yield "instructions"
    yield from _differing(to_plain(evaluation.settings.judges), to_plain(chosen.settings.judges))
    if evaluation.settings.sampling.samples != chosen.settings.sampling.samples:
        yield "samples"
    if evaluation.most_tokens != chosen.settings.most_tokens:
        yield "tokens"


def _changes_of_prompts(evaluation: EvaluationRecord, chosen: Chosen) -> Iterator[str]:
    then = {one.name: one.fingerprint for one in evaluation.conditions}
    pairs = zip(chosen.names, chosen.conditions, strict=True)
    now = {name: one.fingerprint for name, one in pairs}
    yield from (f"the prompt {one} is new" for one in now if one not in then)
    yield from (f"the prompt {one} is gone" for one in then if one not in now)
    common = [one for one in now if one in then]
    yield from (f"the prompt {one} is another" for one in common if now[one] != then[one])
    if now == then and [*now] != [*then]:
        yield "order of the prompts"


def _changes_of_run(prompt: str, then: RunRecord, now: Plan) -> Iterator[str]:
    if then.basic_prompt.fingerprint != now.basic.fingerprint:
        yield f"the basic prompt {prompt} is another"
    validation = None if then.validation is None else then.validation.fingerprint
    for name, before, after in (
        ("anchor queries", then.anchors.fingerprint, now.anchors.fingerprint),
        ("validation queries", validation, now.validation and now.validation.fingerprint),
        ("held-out queries", then.held_out.fingerprint, now.held_out.fingerprint),
    ):
        if before != after:
            yield name
    yield from _differing(to_plain(then.settings), now.settings.model_dump(mode="json"))


def _differing(then: Any, now: Any) -> Iterator[str]:
    """The names of the settings that both have, with other values."""
    before, after = dict(_flat(then)), dict(_flat(now))
    for name, value in after.items():
        if name not in _OF_THE_GRID and name in before and before[name] != value:
            yield name


def _flat(data: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each setting by its own name, without the groups that it is in."""
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield from _flat(value)
        else:
            yield name, value
