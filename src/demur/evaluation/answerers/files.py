"""Files of responses that exist already, as something to evaluate; texts are not held in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from demur.errors import DemurError
from demur.evaluation.answerers.protocol import (
    Answer,
    Batch,
    Identity,
    Question,
    Settled,
    Task,
)
from demur.evaluation.answerers.rows import EXTENSIONS, large_cells, read_answers
from demur.evaluation.settings import FileSettings
from demur.progress import Progress, Stage
from demur.prompts import Condition
from demur.records import NO_PROMPT, ConditionRecord, FileRecord, FilesRecord, fingerprint

MOST_PROMPTS = 50
"""A column with more names than this holds something other than prompts."""

ROWS_AT_ONCE = 256
_CHARACTERS_AT_ONCE = 1 << 24
_CHUNK = 1 << 20
_ALL = fingerprint("every condition of a file")


class ResponseFiles:
    """Responses in CSV or JSONL files, as something to evaluate.

    Args:
        paths: files with a column `response` and, where they are known, `query`, `label` (harmful
            or harmless), `category`, `prompt` (name of the safety prompt, by default the file's)
            and `set`. Prompts are compared on the queries that they share; several responses under
            one prompt to one query are its samples.

    Example:
        >>> evaluate(ResponseFiles(["answers.csv"]))  # doctest: +SKIP
    """

    takes_queries = False
    default_prompts = ()
    bare_name = NO_PROMPT

    def __init__(self, paths: Sequence[str | Path] | str | Path) -> None:
        given = [paths] if isinstance(paths, (str, Path)) else paths
        self.paths = [Path(path) for path in given]
        self.settings = FileSettings(responses=tuple(map(str, self.paths)))
        self._record: FilesRecord | None = None

    def describe(self, progress: Progress) -> FilesRecord:
        """What is recorded of the files: their names and checksums.

        Raises:
            DemurError: a file is missing or of another kind, or two have the same name.
        """
        _check_names(self.paths)
        with progress.stage("Reading files", _size(self.paths), "bytes") as stage:
            files = tuple(FileRecord(path.name, _sha256(path, stage)) for path in self.paths)
        self._record = FilesRecord(files)
        return self._record

    def condition(self, condition: Condition, name: str) -> ConditionRecord:
        """Not used: the rows of files name their conditions."""
        return condition.record(name)

    def tasks(self, questions: Sequence[Question]) -> list[Task]:
        """One task for each file."""
        if self._record is None:
            raise ValueError("describe() comes first")
        return [
            FileTask(path, file) for path, file in zip(self.paths, self._record.files, strict=True)
        ]

    def check(self, tasks: Sequence[Task], progress: Progress) -> None:
        """Read every row of the files.

        Raises:
            DemurError: a row is malformed, a file holds no response or was changed meanwhile, or
                the rows name too many prompts.
        """
        prompts: set[str] = set()
        with progress.stage("Checking files", _size(self.paths), "bytes") as stage:
            for task in tasks:
                assert isinstance(task, FileTask)
                for answer in task.answers(stage):
                    prompts.add(answer.prompt)
                    if len(prompts) > MOST_PROMPTS:
                        raise DemurError(
                            f"The column 'prompt' names more than {MOST_PROMPTS} safety prompts: "
                            "if it holds the queries, call it 'query'."
                        )

    def remarks(self) -> list[str]:
        """Nothing."""
        return []


@dataclass(frozen=True)
class FileTask:
    """The responses in one file.

    Attributes:
        path: the file.
        file: its name and checksum.
    """

    path: Path
    file: FileRecord

    @property
    def identity(self) -> Identity:
        """What the answers depend on: the file."""
        content = self.file.fingerprint
        return Identity(_ALL, content, content)

    @property
    def condition(self) -> ConditionRecord:
        """The file as a whole; each row has its own condition."""
        return ConditionRecord(self.file.name, _ALL, None, False)

    @property
    def set(self) -> str:
        """Name of the file; each row names its own query set."""
        return self.file.name

    @property
    def per_query(self) -> int | None:
        """None: the number of responses to a query varies."""
        return None

    @property
    def width(self) -> int:
        """0: there are no representations."""
        return 0

    @property
    def description(self) -> str:
        """What the stage is called."""
        return f"Judging responses: {self.file.name}"

    @property
    def total(self) -> float:
        """Size of the file in bytes."""
        return _size([self.path])

    @property
    def unit(self) -> str:
        """Unit of the stage."""
        return "bytes"

    def batches(
        self, start: int, most: int | None, settled: Settled | None, stage: Stage
    ) -> Iterator[Batch]:
        """The rows of the file, from one on."""
        at_once = min(ROWS_AT_ONCE, most or ROWS_AT_ONCE)
        batch: list[Answer] = []
        characters = 0
        for answer in islice(self.answers(stage), start, None):
            batch.append(answer)
            characters += len(answer.text or "")
            if len(batch) >= at_once or characters >= _CHARACTERS_AT_ONCE:
                yield Batch(batch, len(batch))
                batch, characters = [], 0
        if batch:
            yield Batch(batch, len(batch))

    def answers(self, stage: Stage) -> Iterator[Answer]:
        """The rows of the file.

        Raises:
            DemurError: a row is malformed, there is none, or the file was changed meanwhile.
        """
        digest, empty = hashlib.sha256(), True
        with large_cells():
            for answer in read_answers(self.path, stage, digest):
                empty = False
                yield answer
        if empty:
            raise DemurError(
                f"{self.file.name!r} holds no responses: give a file with at least one."
            )
        if digest.hexdigest() != self.file.sha256:
            raise DemurError(
                f"{str(self.path)!r} was changed while it was read: run the same command again."
            )


def _check_names(paths: Sequence[Path]) -> None:
    if not paths:
        raise DemurError("There are no responses to judge: give a file with --responses.")
    names: set[str] = set()
    for path in paths:
        if path.suffix.lower() not in EXTENSIONS:
            raise DemurError(
                f"{str(path)!r} is not a file of responses: give one that ends in "
                f"{' or '.join(EXTENSIONS)}."
            )
        try:
            is_file = path.is_file()
        except (OSError, ValueError):  # a name that no file can have
            is_file = False
        if not is_file:
            raise DemurError(f"There is no file {str(path)!r}: check the path of the responses.")
        if path.stem.lower() in names:
            raise DemurError(f"Two files of responses are called {path.stem!r}: rename one.")
        names.add(path.stem.lower())


def _size(paths: Sequence[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


def _sha256(path: Path, stage: Stage) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
                stage.advance(len(chunk))
    except OSError as error:
        raise DemurError(
            f"Cannot read {str(path)!r} ({error.strerror or error}): check the file."
        ) from error
    return digest.hexdigest()
