"""Read query sets: the built-in ones, files, and datasets on the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

from demur.errors import DemurError
from demur.queries.query_set import QuerySet
from demur.reading import (
    ENDINGS,
    HUB_PREFIX,
    FileSpec,
    GivenQueries,
    exists,
    read_given_queries,
)
from demur.records import Conversation, Label, Query

BUILT_IN = ("anchors", "held-out")
"""Query sets of pairs that come with the package; each holds both labels."""

SPLITS = ("training", "validation", "test")
"""Larger sets that come with the package, in three splits that share no scenario.

Each has harmful queries and two kinds of harmless ones: `borderline`, the harmless twins of the
harmful queries, and `ordinary`.
"""

KINDS = ("borderline", "ordinary")


def is_own_set(name: str) -> bool:
    """Whether a set is of the user's own queries: neither built in nor a public benchmark.

    Args:
        name: name of the set, also in a later turn (`name_in_turn`).
    """
    from demur.queries.benchmark_table import BENCHMARKS

    parts = name.split(", ", maxsplit=1)[0].split("+")
    return any(
        one not in BUILT_IN and one not in BENCHMARKS and one.partition(":")[0] not in SPLITS
        for one in parts
    )


def own_files(specs: Iterable[str]) -> list[str]:
    """Those of several specs that name files of the user's own; see `load_query_set`."""
    return [one for one in specs if is_own_set(one) and not one.startswith(HUB_PREFIX)]


def load_query_set(spec: str, label: Label) -> QuerySet:
    """Load the queries that `spec` names, all of them with one label.

    Args:
        spec: one of
            - a built-in name: `anchors` or `held-out`, or `training`, `validation` or `test` (for a
              file so called, write `./anchors`); the harmless queries of the last three in part:
              `training:borderline`, `training:ordinary`;
            - `queries.txt`: one query a line, blank lines skipped;
            - `FILE:FIELD`, for example `table.csv:goal` or `rows.json:data.goal`: a column of a
              table (`.csv`, `.tsv`, `.parquet`) or a field of JSON (`.json`, `.jsonl`), which may
              be a dotted path. In JSON a cell may also be the messages of a conversation, which
              ends with the query and may begin with the system text of its own application;
            - `FILE` alone, for a JSON list of texts, and for files of tools that are known: see
              `demur.reading.formats`;
            - `hf:ORG/NAME:COLUMN`, or with a configuration and a split
              `hf:ORG/NAME/CONFIG@SPLIT:COLUMN`: a dataset on the Hugging Face hub or in a folder
              here, by default its split `train`, else its only split.
            Files are UTF-8, or UTF-16 with a byte-order mark, and may be gzipped (`.gz`). A spec
            that is an existing file is that file, colons and all.
        label: the label of every query; it also selects the half of a built-in set.

    Returns:
        The queries in their order, stripped of surrounding white space, blanks and repeats
        dropped; `remark` says how many. `categories` is set for built-in sets only.

    Raises:
        DemurError: `spec` names nothing that can be read, a row of it is damaged, or it holds no
            query.
    """
    built_in = _built_in(spec, label)
    if built_in is not None:
        return built_in
    file = _file_of(spec)
    name, given = file.name, read_given_queries(file)
    place = file.path.resolve() if file.data_set is None else file.path
    source = f"file {place}:{file.field or ''}"
    kept = tuple(dict.fromkeys(given.queries))
    if not kept:
        raise DemurError(f"{spec!r:.300} holds no queries: give at least one that is not blank.")
    return QuerySet(name, label, kept, source=source, remark=_remark(name, given, len(kept)))


def is_name_of_set(text: str) -> bool:
    """Whether a text names a query set: a built-in one, a file that is there, or one on the hub."""
    name, _, kind = text.partition(":")
    if text in BUILT_IN or (name in SPLITS and kind in ("", *KINDS)):
        return True
    if text.startswith(HUB_PREFIX):
        return " " not in text and ":" in text.removeprefix(HUB_PREFIX)
    file = FileSpec.parse(text)
    return file.kind is not None and exists(file.path)


def _remark(name: str, given: GivenQueries, kept: int) -> str:
    """How many rows were left out, as a sentence; empty where none was."""
    counts = {
        "blank row": given.blank,
        "repeated query": len(given.queries) - kept,
    }
    plural = {"blank row": "blank rows", "repeated query": "repeated queries"}
    parts = [
        f"{count} {what if count == 1 else plural[what]}" for what, count in counts.items() if count
    ]
    return f"{name:.120}: {' and '.join(parts)} left out, {kept} kept." if parts else ""


def _file_of(spec: str) -> FileSpec:
    """The file that a spec names."""
    file = FileSpec.parse(spec)
    if file.kind is None and not file.path.suffix and not exists(file.path):
        raise DemurError(
            f"No query set is called {spec!r:.300}: give {', '.join((*BUILT_IN, *SPLITS))}, a .txt "
            f"file, FILE:COLUMN (of {', '.join(ENDINGS[1:])}) or hf:ORG/NAME:COLUMN."
        )
    return file


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
