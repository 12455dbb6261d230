"""Rows of binary files: Parquet tables, and the archives of samples that Inspect writes."""

from __future__ import annotations

import importlib
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from demur.errors import DemurError, first_line
from demur.files import open_regular
from demur.limits import MOST_LINE_BYTES, MOST_UNPACKED_BYTES
from demur.reading.files import Watch
from demur.reading.objects import parse_json
from demur.reading.row import Row

_ROWS_AT_ONCE = 8  # a long text that repeats takes no room in the file, and all in memory
_CHUNK = 1 << 20
_SAMPLES = "samples/"


def parquet_rows(path: Path, watch: Watch | None = None) -> Iterator[Row]:
    """The rows of a Parquet file, a few at a time.

    Raises:
        DemurError: pyarrow is not installed, or the file is damaged.
    """
    name = f"{str(path)!r:.300}"
    open_regular(path).close()
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise DemurError(
            f"{name} is a Parquet file, which needs pyarrow: run `pip install 'demur[datasets]'`, "
            "or save it as CSV or JSON Lines."
        ) from error
    with open_regular(path) as stream:
        _watch_all(stream, watch)
        try:
            number = 0
            for batch in parquet.ParquetFile(stream).iter_batches(_ROWS_AT_ONCE):
                if batch.nbytes > _ROWS_AT_ONCE * MOST_LINE_BYTES:
                    raise DemurError(
                        f"{name} has a row above {MOST_LINE_BYTES / 1e6:.0f} MB behind row "
                        f"{number}: check that this is the right file."
                    )
                for value in batch.to_pylist():
                    number += 1
                    yield Row(f"{name} row {number}", value)
        except (DemurError, MemoryError):
            raise
        except Exception as error:  # the package raises several kinds
            raise DemurError(
                f"{name} is a damaged Parquet file ({first_line(error):.200}): write it again."
            ) from error


def log_rows(path: Path, watch: Watch | None = None) -> Iterator[Row]:
    """The samples in a log of Inspect (`.eval`), one at a time.

    Raises:
        DemurError: the file is no such log, is damaged, or its compression is not known here.
    """
    name = f"{str(path)!r:.300}"
    with suppress(ImportError):
        importlib.import_module("zipfile_zstd")  # comes with Inspect, and teaches `zipfile` zstd
    with open_regular(path) as stream:
        _watch_all(stream, watch)
        try:
            archive = zipfile.ZipFile(stream)
            samples = [one for one in archive.infolist() if one.filename.startswith(_SAMPLES)]
            if sum(one.file_size for one in samples) > MOST_UNPACKED_BYTES:
                raise DemurError(f"{name} unpacks to more than is read: give a smaller log.")
            for sample in samples:
                place = f"{name} sample {sample.filename.removeprefix(_SAMPLES)!r:.120}"
                with archive.open(sample) as opened:
                    content = opened.read(MOST_LINE_BYTES + 1)
                if len(content) > MOST_LINE_BYTES:
                    raise DemurError(f"{place} is too large: leave it out of the log.")
                yield Row(place, parse_json(content.decode("utf-8"), place))
        except NotImplementedError as error:
            raise DemurError(
                f"{name} is compressed with zstd: run `pip install 'demur[inspect]'`, or convert "
                "it with `inspect log convert --to json`."
            ) from error
        except DemurError:
            raise
        except Exception as error:  # of the archive, or of one of its methods of compression
            raise DemurError(
                f"{name} is no log of Inspect, or a damaged one ({first_line(error):.200}): copy "
                "it again."
            ) from error


def _watch_all(stream: BinaryIO, watch: Watch | None) -> None:
    """Show all bytes of a file to what watches it, since the format is not read in order."""
    if watch is None:
        return
    while chunk := stream.read(_CHUNK):
        watch.seen(chunk)
    stream.seek(0)
