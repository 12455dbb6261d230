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
from demur.evaluation.answerers.rows import GivenFile, PromptNames
from demur.evaluation.settings import FileSettings
from demur.files import open_regular
from demur.progress import Progress, Stage
from demur.prompts import Condition
from demur.reading import (
    ENDINGS,
    FileSpec,
    GivenRequest,
    ResponseReader,
    open_rows,
    read_requests,
)
from demur.reading.spec import TEXT
from demur.records import NO_PROMPT, ConditionRecord, FileRecord, FilesRecord, fingerprint

ROWS_AT_ONCE = 256
_CHARACTERS_AT_ONCE = 1 << 24
_CHUNK = 1 << 20
_ALL = fingerprint("every condition of a file")


class ResponseFiles:
    """Responses that exist already, as something to evaluate.

    Args:
        paths: files, each as `FILE` or as `FILE:FIELD`, which names the column with the responses;
            or data sets, as `hf:ORG/NAME:COLUMN` or `hf:ORG/NAME/CONFIG@SPLIT:COLUMN`.
            A table (`.csv`, `.tsv`, `.parquet`) or JSON (`.json`, `.jsonl`) has them in `response`
            or in the field named, and where they are known `query`, `label` (harmful or harmless),
            `category`, `set`, and in `prompt` the name of the safety prompt, by default the file's.
            Files of tools that are known are read as they are: see `demur.reading.formats`.
            Prompts are compared on the queries that they share; several responses under one prompt
            to one query are its samples. The requests of a batch are given beside its output.

    Example:
        >>> evaluate(ResponseFiles(["answers.csv", "more.jsonl:output.text"]))  # doctest: +SKIP
    """

    takes_queries = False
    default_prompts = ()
    bare_name = NO_PROMPT

    def __init__(self, paths: Sequence[str | Path] | str | Path) -> None:
        given = [paths] if isinstance(paths, (str, Path)) else paths
        self.specs = [FileSpec.parse(str(path)) for path in given]
        self.settings = FileSettings(responses=tuple(map(str, given)))
        self._tasks: list[Task] | None = None

    def describe(self, progress: Progress) -> FilesRecord:
        """What is recorded of the files: their names and checksums.

        Raises:
            DemurError: a file is missing or of another kind, or two have the same name.
        """
        if not self.specs:
            raise DemurError("There are no responses to judge: give a file with --responses.")
        for spec in self.specs:
            _check(spec)
        records: list[FileRecord] = []
        with progress.stage("Reading files", _size(self.specs), "bytes") as stage:
            for spec in self.specs:
                records.append(FileRecord(spec.name, _sha256(spec, stage)))
        requests: dict[str, GivenRequest] = {}
        questions: list[FileRecord] = []
        answers: list[tuple[FileSpec, FileRecord]] = []
        for spec, record in zip(self.specs, records, strict=True):
            found = read_requests(spec)
            if found is None:
                answers.append((spec, record))
                continue
            questions.append(record)
            requests |= found
        if not answers:
            raise DemurError(
                f"{str(self.specs[0].path)!r:.300} holds requests and no responses: give the "
                "output of the batch as well."
            )
        called = _names([spec for spec, _ in answers])
        self._tasks = [
            FileTask(
                GivenFile(spec, name, requests if questions else None), record, tuple(questions)
            )
            for (spec, record), name in zip(answers, called, strict=True)
        ]
        return FilesRecord(tuple(records))

    def condition(self, condition: Condition, name: str) -> ConditionRecord:
        """Not used: the rows of files name their conditions."""
        return condition.record(name)

    def tasks(self, questions: Sequence[Question]) -> list[Task]:
        """One task for each file."""
        if self._tasks is None:
            raise ValueError("describe() comes first")
        return self._tasks

    def check(self, tasks: Sequence[Task], progress: Progress) -> None:
        """Read every row of the files, and say what is left out of them.

        Raises:
            DemurError: a row is damaged, a file holds no response or was changed meanwhile, or what
                should name the prompts does not.
        """
        names = PromptNames()
        given = [task for task in tasks if isinstance(task, FileTask)]
        size = _size([task.given.spec for task in given])
        with progress.stage("Checking files", size, "bytes") as stage:
            readers = [task.given.reader() for task in given]
            for task, reader in zip(given, readers, strict=True):
                for answer in task.answers(stage, reader):
                    names.add(answer, task.given, reader)
        names.finish()
        for reader in readers:
            for remark in reader.remarks:
                progress.message(remark)

    def remarks(self) -> list[str]:
        """Nothing."""
        return []


@dataclass(frozen=True)
class FileTask:
    """The responses in one file.

    Attributes:
        given: the file.
        file: its name and checksum.
        requests: the files that say what was asked.
    """

    given: GivenFile
    file: FileRecord
    requests: tuple[FileRecord, ...] = ()

    @property
    def identity(self) -> Identity:
        """What the answers depend on: the file, and those with its requests."""
        content = self.file.fingerprint
        if self.requests:
            asked = [one.fingerprint for one in self.requests]
            content = fingerprint("answers to requests", answers=content, requests=asked)
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
        return _size([self.given.spec])

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

    def answers(self, stage: Stage, reader: ResponseReader | None = None) -> Iterator[Answer]:
        """The responses in the file.

        Args:
            stage: advanced by the bytes that are read.
            reader: reads the file; by default a new one.

        Raises:
            DemurError: a row is damaged, there is none, or the file was changed meanwhile.
        """
        watch, empty = _Checksum(stage), True
        for answer in self.given.answers(reader or self.given.reader(), watch):
            empty = False
            yield answer
        if empty:
            raise DemurError(
                f"{self.file.name!r:.300} holds no responses: give a file with at least one."
            )
        if watch.sha256 != self.file.sha256:
            raise DemurError(
                f"{str(self.given.spec.path)!r:.300} was changed while it was read: run the same "
                "command again."
            )


class _Checksum:
    """The checksum of the bytes that were read, and their number for a stage."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """64 hex digits."""
        return self._digest.hexdigest()

    def seen(self, data: bytes) -> None:
        """Take note of more bytes."""
        self._digest.update(data)
        self._stage.advance(len(data))


def _check(spec: FileSpec) -> None:
    """Check that there is a file or a data set, and that its name says what it holds."""
    if spec.data_set is not None:
        _ = spec.data_set.loaded
        return
    open_regular(spec.path).close()
    if spec.kind is None:
        open_rows(spec)  # says what may be given
    if spec.kind in (None, TEXT):
        raise DemurError(
            f"{str(spec.path)!r:.300} is not a file of responses: give one that ends in "
            f"{', '.join(ending for ending in ENDINGS if ending != '.txt')} or .gz behind that."
        )


def _names(specs: Sequence[FileSpec]) -> list[str]:
    """What the prompts of files are called whose rows name none; no two are the same.

    Raises:
        DemurError: two files have one name.
    """
    stems = [spec.stem for spec in specs]
    paths = [spec.path for spec in specs]
    # Several columns of one file are told apart by their names.
    names = [
        spec.name if spec.field is not None and paths.count(spec.path) > 1 else stem
        for spec, stem in zip(specs, stems, strict=True)
    ]
    lowered = [name.lower() for name in names]
    for name in names:
        if lowered.count(name.lower()) > 1:
            raise DemurError(f"Two files of responses are called {name!r:.200}: rename one.")
    return names


def _size(specs: Sequence[FileSpec]) -> int:
    """Size of all files in bytes; that of a data set is not known beforehand."""
    return sum(spec.path.stat().st_size for spec in specs if spec.data_set is None)


def _sha256(spec: FileSpec, stage: Stage) -> str:
    checksum, path = _Checksum(stage), spec.path
    if spec.data_set is not None:
        for _ in spec.data_set.rows(checksum):
            pass
        return checksum.sha256
    try:
        with open_regular(path) as stream:
            while chunk := stream.read(_CHUNK):
                checksum.seen(chunk)
    except OSError as error:
        raise DemurError(
            f"Cannot read {str(path)!r:.300} ({error.strerror or error}): check the file."
        ) from error
    return checksum.sha256
