"""Files that are damaged at random: each is read, or refused in one line; nothing else happens."""

from __future__ import annotations

import gzip
import io
import json
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest

from demur.errors import DemurError
from demur.reading import FileSpec, ResponseReader, read_given_queries, read_requests

_ODD: list[Any] = [
    *(None, 3, 1.5, True, "", [], {}, "x", [None], {"a": 1}, [[]], "\ud800", "attachment://z"),
    *([{"role": "user"}], [{"role": "user", "content": None}], {"text": "x"}, [["a"]]),
]
_SAID = [{"role": "user", "content": "q, then?"}]
_CHOICE = {"message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}
_ROWS: dict[str, dict[str, Any]] = {
    "own": {"query": {"text": "a", "history": [["b", "c"]]}, "response": "a", "label": "harmful"},
    "messages": {"messages": [*_SAID, {"role": "assistant", "content": "a"}]},
    "alpaca": {"instruction": "a", "input": "b", "output": "c", "generator": "g"},
    "harness": {
        "doc_id": 1,
        "arguments": {"gen_args_0": {"arg_0": json.dumps(_SAID), "arg_1": {"until": []}}},
        "resps": [["a"]],
        "filter": "none",
    },
    "requests": {"custom_id": "r", "body": {"messages": _SAID}},
    "answers": {
        "custom_id": "r",
        "response": {"status_code": 200, "body": {"choices": [_CHOICE]}},
        "error": None,
    },
    "log": {
        "id": 1,
        "epoch": 1,
        "input": _SAID,
        "messages": _SAID,
        "output": {"choices": [_CHOICE]},
        "metadata": {"label": "harmful"},
        "attachments": {},
    },
    "artifact": {"goal": "a", "prompt": "b", "response": "c", "jailbroken": False, "category": "d"},
}
_FIELDS = [
    None,
    None,
    None,
    "response",
    "query",
    "a.b",
    "0",
    "messages.0.content",
    "output.choices",
]


def changed(value: Any, draw: random.Random) -> Any:
    """The same data with some parts exchanged, renamed or left out."""
    if draw.random() < 0.08:
        return draw.choice(_ODD)
    if isinstance(value, dict):
        return {
            key if draw.random() > 0.03 else draw.choice(["query", "response", "x"]): changed(
                inner, draw
            )
            for key, inner in value.items()
            if draw.random() > 0.04
        }
    if isinstance(value, list):
        return [changed(inner, draw) for inner in value if draw.random() > 0.04]
    return value


def packed(rows: list[Any], ending: str) -> bytes:
    if ending == "eval":
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for number, row in enumerate(rows):
                archive.writestr(f"samples/{number}.json", json.dumps(row))
        return stream.getvalue()
    if ending.startswith("jsonl"):
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    else:
        content = json.dumps({"samples": rows} if len(rows) > 2 else rows).encode()
    return gzip.compress(content) if ending.endswith("gz") else content


def scratched(data: bytes, draw: random.Random) -> bytes:
    """The same bytes with some changed, put in or left out."""
    found = bytearray(data)
    for _ in range(draw.randrange(1, 9)):
        at, kind = draw.randrange(len(found) + 1), draw.randrange(3)
        if kind == 0:
            found[at : at + 1] = bytes([draw.randrange(256)])
        elif kind == 1:
            del found[at : at + draw.randrange(1, 40)]
        else:
            found[at:at] = draw.choice([b'"', b",", b"\n", b"{", b"[", b"\\", b"\0", b"\xff"])
    return bytes(found)


def _responses(spec: FileSpec) -> object:
    return list(ResponseReader(spec).read())


@pytest.mark.parametrize("kind", list(_ROWS))
def test_nothing_but_one_line(tmp_path: Path, kind: str) -> None:
    draw = random.Random(len(kind))
    refused = read = 0
    for _ in range(150):
        ending = draw.choice(["json", "jsonl", "jsonl.gz", "eval"])
        rows = [changed(_ROWS[kind], draw) for _ in range(draw.randrange(1, 5))]
        data = packed(rows, ending)
        path = tmp_path / f"f.{draw.choice([ending, ending, ending, 'csv', 'json'])}"
        path.write_bytes(scratched(data, draw) if draw.random() < 0.4 else data)
        spec = FileSpec(path, draw.choice(_FIELDS))
        for attempt in (_responses, read_given_queries, read_requests):
            try:
                attempt(spec)
                read += 1
            except DemurError as error:
                message = str(error)
                refused += 1
                if "\n" in message or not message.endswith(".") or len(message) > 1500:
                    raise AssertionError(message) from error
    assert min(refused, read) > 10
