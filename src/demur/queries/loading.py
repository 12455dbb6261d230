"""Read query sets: the built-in ones, files, and datasets on the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from demur.errors import DemurError
from demur.queries.hub import HUB_PREFIX, read_hub
from demur.queries.messages import check_query
from demur.queries.query_set import QuerySet
from demur.queries.tables import decode, read_csv, read_jsonl, text_lines
from demur.records import Conversation, Label, Query, text_of

BUILT_IN = ("anchors", "held-out")
"""Query sets of pairs that come with the package; each holds both labels."""

SPLITS = ("training", "validation", "test")
"""Larger sets that come with the package, in three splits that share no scenario.

Each has harmful queries and two kinds of harmless ones: `borderline`, the harmless twins of the
harmful queries, and `ordinary`.
"""

KINDS = ("borderline", "ordinary")

_TABLES = (".csv", ".jsonl")
_EXTENSIONS = (".txt", *_TABLES)


def load_query_set(spec: str, label: Label) -> QuerySet:
    """Load the queries that `spec` names, all of them with one label.

    Args:
        spec: one of
            - a built-in name: `anchors` or `held-out`, or `training`, `validation` or `test` (for a
              file so called, write `./anchors`); the harmless queries of the last three in part:
              `training:borderline`, `training:ordinary`;
            - `queries.txt`: one query a line, blank lines skipped;
            - `table.csv:column` or `table.jsonl:column`; in JSON a cell may also be the messages
              of a conversation, which ends with the query;
            - `hf:org/name:column` or `hf:org/name@split:column`: a dataset on the Hugging Face
              hub, by default its split `train`, else its only split.
            Files are UTF-8, with or without a byte-order mark. A spec that is an existing file is
            that file, colons and all.
        label: the label of every query; it also selects the half of a built-in set.

    Returns:
        The queries in their order, stripped of surrounding white space, blanks and repeats
        dropped. `categories` is set for built-in sets only.

    Raises:
        DemurError: `spec` names nothing that can be read, or holds no query.
    """
    built_in = _built_in(spec, label)
    if built_in is not None:
        return built_in
    if spec.startswith(HUB_PREFIX):
        source = spec
        name, queries = read_hub(spec)
    else:
        name, queries = _read_file(spec)
        path, column = _path_and_column(spec)
        source = f"file {path.resolve()}:{column or ''}"
    kept = _distinct(queries)
    if not kept:
        raise DemurError(f"{spec!r} holds no queries: give at least one that is not blank.")
    return QuerySet(name=name, label=label, texts=kept, source=source)


def is_name_of_set(text: str) -> bool:
    """Whether a text names a query set: a built-in one, a file that is there, or one on the hub."""
    name, _, kind = text.partition(":")
    if text in BUILT_IN or (name in SPLITS and kind in ("", *KINDS)):
        return True
    if text.startswith(HUB_PREFIX):
        return " " not in text and ":" in text.removeprefix(HUB_PREFIX)
    try:
        path, _ = _path_and_column(text)
    except DemurError:  # a text file with a column, which is a name that does not fit
        return True
    return path.suffix.lower() in _EXTENSIONS and _exists(path)


def _distinct(queries: Sequence[Query]) -> tuple[Query, ...]:
    """The queries without blanks and repeats; another history makes another query."""
    stripped = (query.strip() if isinstance(query, str) else query for query in queries)
    return tuple(dict.fromkeys(query for query in stripped if text_of(query)))


def _built_in(spec: str, label: Label) -> QuerySet | None:
    """The built-in set that `spec` names, or None where it names none."""
    name, colon, kind = spec.partition(":")
    if spec not in BUILT_IN and name not in SPLITS:
        return None
    if colon and (kind not in KINDS or label == "harmful"):
        raise DemurError(
            f"There are no {label} queries {spec!r:.60}: give {name} for all of them, or "
            f"{' or '.join(f'{name}:{one}' for one in KINDS)} for a part of the harmless ones."
        )
    source = files("demur.queries") / "sets" / f"{name}.jsonl"
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["label"] == label and kind in ("", row.get("kind"))]
    return QuerySet(
        name=spec,
        label=label,
        texts=tuple(_query_of(row) for row in rows),
        categories=tuple(row["category"] for row in rows),
        source=spec,
    )


def _query_of(row: Mapping[str, Any]) -> Query:
    """The query in a row of a built-in set, behind its history where it has one."""
    history = tuple((asked, answered) for asked, answered in row.get("history", ()))
    return Conversation(row["text"], history) if history else str(row["text"])


def _read_file(spec: str) -> tuple[str, Sequence[Query]]:
    """The name of the file (with its column) and its queries, blanks and repeats included."""
    path, column = _path_and_column(spec)
    suffix = path.suffix.lower()
    if not path.suffix and not _exists(path):
        raise DemurError(
            f"No query set is called {spec!r}: give {', '.join((*BUILT_IN, *SPLITS))}, "
            f"a .txt file, FILE.csv:COLUMN, FILE.jsonl:COLUMN or hf:ORG/NAME:COLUMN."
        )
    text = decode(_read_bytes(path), path)
    if suffix in _TABLES:
        name = path.name if column is None else f"{path.name}:{column}"
        if suffix == ".csv":
            return name, read_csv(text, path, column)
        return name, [check_query(*cell) for cell in read_jsonl(text, path, column)]
    return path.name, text_lines(text)


def _path_and_column(spec: str) -> tuple[Path, str | None]:
    """Split `spec` at the first colon that follows the name of a table file.

    A colon may also stand in a file name, after a drive letter, and in a column's name.
    """
    whole = Path(spec)
    if _exists(whole):
        return whole, None
    for position, character in enumerate(spec):
        if character != ":":
            continue
        path = Path(spec[:position])
        suffix = path.suffix.lower()
        if suffix in _TABLES:
            return path, spec[position + 1 :] or None
        if suffix == ".txt":
            raise DemurError(f"{str(path)!r} is a text file without columns: give only its name.")
    return whole, None


def _exists(path: Path) -> bool:
    try:
        return str(path) != "." and path.exists()
    except (OSError, ValueError):  # a name too long, or one that no file can have
        return False


def _read_bytes(path: Path) -> bytes:
    if path.suffix and path.suffix.lower() not in _EXTENSIONS and not path.is_dir():
        raise DemurError(
            f"Cannot tell what {str(path)!r} holds: queries are read from files that end in "
            f"{', '.join(_EXTENSIONS)}."
        )
    if not _exists(path):
        raise DemurError(f"There is no file {str(path)!r}: check the path of the queries.")
    if path.is_dir():
        raise DemurError(f"{str(path)!r} is a folder: name the file of queries in it.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DemurError(f"Cannot read {str(path)!r}: {error.strerror or error}") from error
    if not content.strip():
        raise DemurError(f"{str(path)!r} is empty: put at least one query in it.")
    return content
