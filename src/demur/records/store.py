"""Measurements on disk, by key. A measurement grows by appending."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from demur.errors import DemurError
from demur.records.codec import from_line, from_plain, to_line, to_plain
from demur.records.journal import Journal
from demur.records.measurements import ConditionRecord, Measurement, MeasurementKey, Queries
from demur.records.responses import JudgedResponse

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = "measurements"


@dataclass(frozen=True)
class MeasurementHeader:
    """What a stored measurement is.

    Attributes:
        key: identity of the measurement.
        condition: what stood before the queries.
        set: name of the query set; for people.
        per_query: number of responses stored for each query, or None where it varies.
        width: d, the length of each representation; 0 where none are stored.
    """

    key: MeasurementKey
    condition: ConditionRecord
    set: str
    per_query: int | None
    width: int


class StoredMeasurement:
    """One measurement on disk, finished or not: read it, or append to it.

    Three files lie side by side: `ID.jsonl` with a judged response a line, `ID.f32` with a
    representation a row (little-endian float32), and `ID.journal`, which checks both. The ID is the
    beginning of the key's fingerprint.
    """

    def __init__(self, folder: Path, key: MeasurementKey) -> None:
        name = key.fingerprint[:16]
        self.key = key
        self.rows_file = folder / f"{name}.jsonl"
        self.states_file = folder / f"{name}.f32"
        self._journal = Journal(folder / f"{name}.journal", (self.rows_file, self.states_file))
        self.header: MeasurementHeader | None = None

    def read(self) -> bool:
        """Read what is there; whether there is anything.

        Raises:
            DemurError: a file is damaged.
        """
        if not self._journal.read():
            return False
        try:
            self.header = from_plain(MeasurementHeader, self._journal.header)
        except ValueError as error:
            raise self._journal.damaged("its first line is incomplete") from error
        if self.header.key != self.key:
            raise self._journal.damaged("it belongs to another measurement")
        return True

    def begin(self, header: MeasurementHeader) -> None:
        """Start with nothing stored."""
        self.header = header
        self._journal.begin(to_plain(header))

    @property
    def items(self) -> int:
        """Number of queries (or, of files, rows) that are stored."""
        return self._journal.items

    @property
    def finished(self) -> bool:
        """Whether everything is stored."""
        return self._journal.finished

    def append(
        self, rows: Sequence[JudgedResponse], items: int, states: Tensor | None = None
    ) -> None:
        """Append judged responses, and the representations of their queries.

        Args:
            rows: responses, those to one query next to each other.
            items: number of queries that they answer.
            states: (items, d), or None where none are stored.
        """
        lines = b"".join(map(to_line, rows))
        self._journal.append((lines, b"" if states is None else _to_bytes(states)), items)

    def finish(self) -> None:
        """Note that everything is stored."""
        if not self.finished:
            self._journal.append((b"", b""), 0, finished=True)

    def rows(self) -> Iterator[JudgedResponse]:
        """The stored responses in their order, one at a time."""
        last = self._journal.last
        left = 0 if last is None else last.files[0][0]
        with self.rows_file.open("rb") as stream:
            while left > 0:
                line = stream.readline()
                left -= len(line)
                try:
                    yield from_line(JudgedResponse, line)
                except ValueError as error:
                    raise self._journal.damaged(
                        "a line holds no response", self.rows_file
                    ) from error

    def states(self) -> Tensor | None:
        """The stored representations, (items, d) float32 on the CPU; None where there are none."""
        assert self.header is not None
        if not self.header.width:
            return None
        import numpy
        import torch

        last = self._journal.last
        length = 0 if last is None else last.files[1][0]
        data = self.states_file.read_bytes()[:length]
        table = numpy.frombuffer(data, dtype="<f4").reshape(-1, self.header.width)
        if len(table) != self.items:
            raise self._journal.damaged("representations are missing", self.states_file)
        return torch.from_numpy(table.astype(numpy.float32))

    def measurement(self, queries: Queries) -> Measurement:
        """The finished measurement.

        Args:
            queries: the queries that were measured.

        Raises:
            DemurError: it is not finished, or belongs to other queries.
        """
        header = self.header
        if header is None or not self.finished or header.per_query is None:
            raise DemurError(
                f"The measurement in {self.rows_file} is not finished: run its command again to go "
                "on."
            )
        rows, each = list(self.rows()), header.per_query
        responses = tuple(tuple(rows[start : start + each]) for start in range(0, len(rows), each))
        known = tuple(answers[0].query for answers in responses)
        if known != queries.texts:
            raise self._journal.damaged("it holds other queries", self.rows_file)
        return Measurement(self.key, header.condition, queries, responses, self.states())

    def queries(self) -> Queries:
        """The queries that the stored responses answer."""
        assert self.header is not None
        first = [row for place, row in enumerate(self.rows()) if not place % (self._each)]
        return Queries(
            self.header.set,
            tuple(row.query or "" for row in first),
            tuple(row.label or "harmless" for row in first),
            tuple(row.category for row in first),
        )

    @property
    def _each(self) -> int:
        assert self.header is not None
        return self.header.per_query or 1


class MeasurementStore:
    """The measurements in one folder.

    Args:
        folder: folder of a run, an evaluation or a diagnosis; measurements lie in its subfolder
            `measurements`.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FOLDER

    @property
    def is_begun(self) -> bool:
        """Whether any measurement has begun, so that the folder is one of work."""
        return any(self.path.glob("*.journal"))

    @property
    def has_rows(self) -> bool:
        """Whether any response is stored."""
        return any(file.stat().st_size for file in self.path.glob("*.jsonl"))

    def stored(self, key: MeasurementKey) -> StoredMeasurement:
        """The measurement with a key, whether it is there or not; call `read` on it."""
        return StoredMeasurement(self.path, key)

    def has_all(self, keys: Iterable[MeasurementKey]) -> bool:
        """Whether the measurements with some keys are all there and finished.

        Raises:
            DemurError: the files of one are damaged.
        """
        return all(stored.read() and stored.finished for stored in map(self.stored, keys))

    def require_stored(self, key: MeasurementKey) -> StoredMeasurement:
        """The finished measurement with a key, as it lies on disk.

        Raises:
            DemurError: it is missing, unfinished or damaged.
        """
        stored = self.stored(key)
        if not stored.read() or not stored.finished:
            raise DemurError(
                f"{stored.rows_file} is missing or not finished: run the command of that folder "
                "again to go on."
            )
        return stored

    def find(self, key: MeasurementKey, queries: Queries) -> Measurement | None:
        """The finished measurement with a key; None where there is none.

        Raises:
            DemurError: its files are damaged.
        """
        stored = self.stored(key)
        return stored.measurement(queries) if stored.read() and stored.finished else None

    def require(self, key: MeasurementKey) -> Measurement:
        """The finished measurement with a key, with the queries that its files name.

        Raises:
            DemurError: it is missing, unfinished or damaged.
        """
        stored = self.require_stored(key)
        queries = stored.queries()
        if queries.fingerprint != key.queries:
            raise DemurError(
                f"{stored.rows_file} holds other queries than its key says: delete it and run the "
                "command that made it again."
            )
        return stored.measurement(queries)

    def borrow(
        self,
        key: MeasurementKey,
        lenders: Sequence[Path],
        name: str | None = None,
        set: str | None = None,
    ) -> Path | None:
        """Copy a finished measurement from another folder, where one has the very same.

        Does nothing where the measurement is here already, begun or finished.

        Args:
            key: identity of the measurement.
            lenders: folders of runs, evaluations and diagnoses.
            name: name of the condition here, for people; by default the lender's.
            set: name of the query set here, for people; by default the lender's.

        Returns:
            The folder that it was copied from, or None.
        """
        own = self.stored(key)
        if own.read():
            return None
        for lender in lenders:
            other = MeasurementStore(lender).stored(key)
            try:
                if not other.read() or not other.finished or other.header is None:
                    continue
                rows, states = list(other.rows()), other.states()
            except (DemurError, OSError, ValueError):  # another folder may hold anything
                continue
            there = other.header
            called, of_set = name or there.condition.name, set or there.set
            own.begin(replace(there, condition=replace(there.condition, name=called), set=of_set))
            renamed = [replace(row, prompt=called, set=of_set) for row in rows]
            own.append(renamed, other.items, states)
            own.finish()
            return lender
        return None


def _to_bytes(states: Tensor) -> bytes:
    import numpy

    table: numpy.ndarray[tuple[int, ...], numpy.dtype[numpy.float32]] = (
        states.detach().float().cpu().numpy()
    )
    return table.astype("<f4").tobytes()
