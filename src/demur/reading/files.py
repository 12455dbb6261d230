"""A file as lines of text: unpacked, decoded and bounded, whatever it was saved as."""

from __future__ import annotations

import codecs
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Protocol

from demur.errors import DemurError
from demur.files import open_regular
from demur.limits import MOST_LINE_BYTES, MOST_LINES_TOGETHER, MOST_UNPACKED_BYTES, MOST_WHOLE_BYTES

_CHUNK = 1 << 20
_GZIP = b"\x1f\x8b"
_GZIP_HEADER_TOO = 31  # what zlib calls a gzip file with its header
PARQUET, ZIP = b"PAR1", b"PK\x03\x04"

_UNREADABLE = {
    PARQUET: ("a Parquet file", "give it a name that ends in .parquet"),
    ZIP: (
        "a ZIP archive, a document or a spreadsheet",
        "unpack it, or save it as text or as CSV",
    ),
    b"BZh": ("compressed with bzip2", "unpack it"),
    b"\xfd7zXZ\0": ("compressed with xz", "unpack it"),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "unpack it"),
    b"\xd0\xcf\x11\xe0": ("an old spreadsheet", "save it as CSV"),
    b"ARROW1": ("an Arrow file", "save it as .parquet or .jsonl"),
    b"SQLite format 3": ("a database", "export the table as CSV"),
    b"{\\rtf": ("rich text", "save it as plain text"),
    b"%PDF-": ("a PDF", "save its text as a text file"),
}
"""How files begin that are no text, what they are, and what to do about it."""

_WIDE = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Watch(Protocol):
    """Sees the bytes of a file as they are read, for a checksum and for progress."""

    def seen(self, data: bytes) -> None:
        """Take note of more bytes."""


class NoWatch:
    """Takes note of nothing."""

    def seen(self, data: bytes) -> None:
        """Ignore the bytes."""


class TextFile:
    """A text file that is read once, in lines.

    Args:
        path: a regular file: UTF-8, or UTF-16 or UTF-32 with a byte-order mark; possibly gzipped.
        watch: sees its bytes.
        content: its content where that has been read already; nothing is read then.
    """

    def __init__(
        self, path: Path, watch: Watch | None = None, content: bytes | None = None
    ) -> None:
        self.path = path
        self._watch = watch or NoWatch()
        self._content = content
        self._most = MOST_UNPACKED_BYTES

    @property
    def name(self) -> str:
        """The file in quotes, for messages."""
        return f"{str(self.path)!r:.300}"

    def lines(self) -> Iterator[str]:
        """The lines with their ends: `\\n`, `\\r` or `\\r\\n`.

        Raises:
            DemurError: the file cannot be read, is too large, or is no text.
        """
        blank = 0
        for number, line in enumerate(self._bytes_of_lines(), start=1):
            blank = blank + 1 if line.isspace() else 0
            if blank > MOST_LINES_TOGETHER:
                raise DemurError(
                    f"{self.name} line {number} follows {MOST_LINES_TOGETHER:,} blank ones: check "
                    "that this is the right file."
                )
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise DemurError(
                    f"{self.name} is not UTF-8 text (line {number}): save it as UTF-8."
                ) from error
            if "\0" in text:
                raise DemurError(
                    f"{self.name} line {number} holds a NUL character, so it is no plain text: "
                    "save it as UTF-8 (UTF-16 is read where it has a byte-order mark)."
                )
            yield text

    def text(self, most: int = MOST_WHOLE_BYTES) -> str:
        """The whole text.

        Args:
            most: largest number of bytes, unpacked.

        Raises:
            DemurError: as for `lines`, or it is larger.
        """
        self._most = most
        content = b"".join(_decoded(self._unpacked(), self.name))
        if b"\0" in content:
            raise DemurError(
                f"{self.name} holds NUL characters, so it is no plain text: save it as UTF-8."
            )
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise DemurError(
                f"{self.name} is not UTF-8 text (line {line}): save it as UTF-8."
            ) from error

    def _bytes_of_lines(self) -> Iterator[bytes]:
        waiting: list[bytes] = []  # the line that the last chunk broke off in
        number = 1
        for chunk in _decoded(self._unpacked(), self.name):
            waiting.append(chunk)
            if b"\n" in chunk or b"\r" in chunk:
                *whole, last = b"".join(waiting).splitlines(keepends=True)
                yield from whole
                number += len(whole)
                waiting = [last]  # it may go on, and `\r` with `\n`
            if sum(map(len, waiting)) > MOST_LINE_BYTES:
                raise DemurError(
                    f"{self.name} line {number} is above {MOST_LINE_BYTES / 1e6:.0f} MB: check "
                    "that this is the right file, and that its lines have ends."
                )
        yield from b"".join(waiting).splitlines(keepends=True)

    def _unpacked(self) -> Iterator[bytes]:
        chunks = self._raw()
        head = _beginning(chunks, 16)
        whole = chain((head,), chunks)
        if head.startswith(_GZIP):
            whole = chain(_gunzipped(whole, self.name))
            head = _beginning(whole, 16)
            whole = chain((head,), whole)
            if head.startswith(_GZIP):
                raise DemurError(f"{self.name} is gzipped twice: unpack it once.")
        _require_text(head, self.name)
        size = 0
        for chunk in whole:
            size += len(chunk)
            if size > self._most:
                raise DemurError(
                    f"{self.name} is above {self._most / 1e6:.0f} MB, too large for what it should "
                    "hold: split it, or check that this is the right file."
                )
            yield chunk

    def _raw(self) -> Iterator[bytes]:
        if self._content is not None:
            yield self._content
            return
        try:
            with open_regular(self.path) as stream:
                while chunk := stream.read(_CHUNK):
                    self._watch.seen(chunk)
                    yield chunk
        except OSError as error:
            raise DemurError(
                f"Cannot read {self.name} ({error.strerror or error}): check the file."
            ) from error


def _beginning(chunks: Iterator[bytes], least: int) -> bytes:
    """The first chunks together, until there are enough bytes to tell what a file is."""
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= least:
            break
    return head


def _require_text(head: bytes, name: str) -> None:
    for magic, (kind, fix) in _UNREADABLE.items():
        if head.startswith(magic):
            raise DemurError(f"{name} is {kind} and no text: {fix}.")


def _gunzipped(chunks: Iterable[bytes], name: str) -> Iterator[bytes]:
    """The content of a gzip file, of one member or several, in pieces of bounded size."""
    member = zlib.decompressobj(_GZIP_HEADER_TOO)
    try:
        for chunk in chunks:
            data = chunk
            while data:
                piece = member.decompress(data, _CHUNK)
                if piece:
                    yield piece
                data = member.unconsumed_tail
                if member.eof:
                    data = member.unused_data.lstrip(b"\0")  # padding may follow
                    if data:
                        member = zlib.decompressobj(_GZIP_HEADER_TOO)
    except zlib.error as error:
        raise DemurError(
            f"{name} is a damaged gzip file: copy it again, or unpack it first."
        ) from error
    if not member.eof:
        raise DemurError(f"{name} is a gzip file that is cut short: copy it again.")


def _decoded(chunks: Iterator[bytes], name: str) -> Iterator[bytes]:
    """The chunks as UTF-8 without a byte-order mark."""
    head = next(chunks, b"")
    for mark, encoding in _WIDE:
        if head.startswith(mark):
            yield from _from_wide(chain((head,), chunks), encoding, name)
            return
    yield head.removeprefix(codecs.BOM_UTF8)
    yield from chunks


def _from_wide(chunks: Iterable[bytes], encoding: str, name: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)()
    begun = False
    try:
        for chunk in chunks:
            text = decoder.decode(chunk)
            yield (text if begun else text.removeprefix("\ufeff")).encode("utf-8")
            begun = True
        yield decoder.decode(b"", final=True).encode("utf-8")
    except UnicodeError as error:
        raise DemurError(f"{name} is damaged {encoding.upper()}: save it as UTF-8.") from error
