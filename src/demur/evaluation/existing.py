"""Judge responses that exist already; no model runs, and texts are not held in memory."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demur.errors import DemurError
from demur.evaluation.choices import EVALUATIONS, EvaluateSettings
from demur.evaluation.comparison import RESULTS, Comparison
from demur.evaluation.judged import JudgedResponse, judge_harm_in_batches
from demur.evaluation.response_files import (
    EXTENSIONS,
    GivenResponse,
    large_cells,
    read_responses,
)
from demur.evaluation.tally import Tally
from demur.files import new_folder, safe_name
from demur.judges import RefusalJudge, get_refusal_judge
from demur.judges.harm import HarmJudge
from demur.progress import Progress, SilentProgress, Stage
from demur.report import ensure_report
from demur.runs import RunFolder
from demur.runs.folder import SETTINGS

MOST_PROMPTS = 50
"""More are no safety prompts but something else that a column called `prompt` holds."""

_ROWS_AT_ONCE = 256
_CHARACTERS_AT_ONCE = 1 << 24
_CHUNK = 1 << 20


def judge_responses(
    files: Sequence[str | Path],
    *,
    judge: str | None = None,
    harm_judge: HarmJudge | None = None,
    output: str | Path | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Judge responses from files and compare the prompts that they were given under.

    Args:
        files: CSV or JSONL files with a column `response` and, where they are known, `query`,
            `label` (harmful or harmless), `category`, `prompt` (the safety prompt's name, by
            default the file's) and `set`. Prompts are compared on the queries that they share;
            several responses under one prompt to one query are its samples.
        judge: the refusal judge, `default` (the default) or `paper`.
        harm_judge: decides which answers to harmful queries are unsafe; needs queries and labels.
        output: the folder; by default one below `demur-evaluations` named after files and judge.
            It appears once everything is judged.
        progress: hears of every stage.

    Raises:
        DemurError: something the user can mend; nothing is half-written. Verdicts on harm that were
            given before are kept beside `output` and not asked for again.
    """
    progress = progress or SilentProgress()
    settings = EvaluateSettings.of(judge)
    refusal_judge = get_refusal_judge(settings.judge)
    paths = [Path(file) for file in files]
    _check_files(paths)
    recorded = _recorded(paths, settings.judge, harm_judge, progress)
    path = Path(output) if output is not None else _default_output(paths, settings.judge)
    if path.exists():
        folder = RunFolder.check(path, recorded)
        if (path / RESULTS).exists():
            progress.message(f"This evaluation is finished already: showing {folder.path}.")
            ensure_report(path)
            return Comparison.load(path)
        if any(path.iterdir()):
            raise DemurError(
                f"{path} holds part of an evaluation: delete that folder or choose another --output"
            )

    tally = Tally(harm_judged=harm_judge is not None)
    harm = None if harm_judge is None else _Harm.begin(harm_judge, path, recorded, progress)
    with new_folder(path) as new, large_cells():
        RunFolder.start(new, recorded)
        with progress.stage("Judging responses", _size(paths), "bytes") as stage:
            for file in paths:
                batches = _judged(file, refusal_judge, harm, stage)
                _write(new / "responses" / f"{file.stem}.jsonl", batches, tally)
        comparison = Comparison(path, tally.rates(), tally.differences(), recorded)
        comparison.save(new)
        ensure_report(new)
    if harm is not None:
        harm.forget()
    return comparison


@dataclass(frozen=True)
class _Harm:
    """The harm judge, whose verdicts cost time or money: they are kept batch by batch.

    Attributes:
        judge: is asked.
        kept: the folder that the verdicts lie in until the evaluation is finished.
        recorded: the settings that the verdicts belong to.
        progress: hears of it.
    """

    judge: HarmJudge
    kept: Path
    recorded: Mapping[str, Any]
    progress: Progress

    @classmethod
    def begin(
        cls, judge: HarmJudge, output: Path, recorded: Mapping[str, Any], progress: Progress
    ) -> _Harm:
        """Begin, or go on with the verdicts that lie beside `output`; nothing is written yet.

        Raises:
            DemurError: something else lies there.
        """
        kept = output.resolve().with_name(f"{output.resolve().name}-unfinished")
        RunFolder.check(kept, recorded)
        return cls(judge, kept, recorded, progress)

    def verdicts(self, name: str, batch: list[JudgedResponse]) -> list[JudgedResponse]:
        """The same responses with their verdicts, read where they have been given before."""
        if not any(response.may_harm for response in batch):
            return batch
        return judge_harm_in_batches(
            batch,
            self.judge,
            self.kept / f"{name}.jsonl",
            self.progress,
            before_keeping=lambda: RunFolder.start(self.kept, self.recorded),
        )

    def forget(self) -> None:
        """Take the kept verdicts away: the evaluation has them."""
        if (self.kept / SETTINGS).exists():
            shutil.rmtree(self.kept, ignore_errors=True)


def _write(file: Path, batches: Iterable[list[JudgedResponse]], tally: Tally) -> None:
    """Write judged responses as they come, and count them."""
    file.parent.mkdir(exist_ok=True)
    empty = True
    with file.open("w", encoding="utf-8", newline="\n") as stream:
        for batch in batches:
            empty = False
            tally.add(batch)
            if len(tally.prompts) > MOST_PROMPTS:
                raise DemurError(
                    f"the column 'prompt' names more than {MOST_PROMPTS} safety prompts: "
                    "if it holds the queries, call it 'query'"
                )
            stream.writelines(
                json.dumps(response.to_row(), ensure_ascii=False) + "\n" for response in batch
            )
    if empty:
        raise DemurError(f"{file.stem!r} holds no responses: give a file with at least one")


def _judged(
    file: Path, judge: RefusalJudge, harm: _Harm | None, stage: Stage
) -> Iterator[list[JudgedResponse]]:
    """The responses of a file with their verdicts, batch by batch."""
    for number, batch in enumerate(_batches(read_responses(file, stage))):
        judged = [
            JudgedResponse(**vars(response), refused=judge.refuses(response.response))
            for response in batch
        ]
        if harm is not None:
            if any(response.may_harm and response.query is None for response in judged):
                raise DemurError(
                    f"{str(file)!r} lacks queries, which {harm.judge.name} needs to judge harm: "
                    "add a column 'query'"
                )
            judged = harm.verdicts(f"{file.stem}-{number:06d}", judged)
        yield judged


def _batches(responses: Iterable[GivenResponse]) -> Iterator[list[GivenResponse]]:
    batch: list[GivenResponse] = []
    characters = 0
    for response in responses:
        batch.append(response)
        characters += len(response.response)
        if len(batch) >= _ROWS_AT_ONCE or characters >= _CHARACTERS_AT_ONCE:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _check_files(paths: Sequence[Path]) -> None:
    if not paths:
        raise DemurError("there are no responses to judge: give a file with --responses")
    names: set[str] = set()
    for path in paths:
        if path.suffix.lower() not in EXTENSIONS:
            raise DemurError(
                f"cannot tell what {str(path)!r} holds: responses are read from files that end in "
                f"{' or '.join(EXTENSIONS)}"
            )
        try:
            is_file = path.is_file()
        except (OSError, ValueError):  # a name that no file can have
            is_file = False
        if not is_file:
            raise DemurError(f"there is no file {str(path)!r}: check the path of the responses")
        if path.stem.lower() in names:
            raise DemurError(f"two files of responses are called {path.stem!r}: rename one")
        names.add(path.stem.lower())


def _size(paths: Sequence[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


def _recorded(
    paths: Sequence[Path], judge: str, harm_judge: HarmJudge | None, progress: Progress
) -> dict[str, Any]:
    files = []
    with progress.stage("Reading files", _size(paths), "bytes") as stage:
        for path in paths:
            digest = hashlib.sha256()
            try:
                with path.open("rb") as stream:
                    while chunk := stream.read(_CHUNK):
                        digest.update(chunk)
                        stage.advance(len(chunk))
            except OSError as error:
                raise DemurError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
            files.append({"name": path.name, "sha256": digest.hexdigest()})
    return {
        "responses": files,
        "judge": judge,
        "harm_judge": harm_judge.name if harm_judge is not None else None,
    }


def _default_output(paths: Sequence[Path], judge: str) -> Path:
    names = "-".join(path.stem for path in paths)
    return EVALUATIONS / safe_name(f"responses-{names[:100]}-{judge}")
