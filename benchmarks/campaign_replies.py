"""A server whose answers are odd, and what an evaluation makes of them."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

from campaign_work import SETS, Case, Outcome, outcome_of, run

Reply = tuple[int, bytes]
Send = Callable[["_Handler"], None]
Ends = Literal["answered", "refused", "filtered", "no answer", "error"] | None
KEY = "secret-key-1234"


def _json(status: int, content: object) -> Reply:
    return status, json.dumps(content).encode()


def _choice(message: object, end: object = "stop") -> dict[str, object]:
    return {"choices": [{"index": 0, "finish_reason": end, "message": message}]}


def _text(content: object, **more: object) -> Reply:
    return _json(200, _choice({"role": "assistant", "content": content, **more}))


def _error(status: int, **error: object) -> Reply:
    return _json(status, {"error": error})


def _raw(data: bytes, *, again: bytes = b"", every: float = 0.05) -> Send:
    """Bytes of the connection itself, and then others for ever; it is closed where there are none.

    Args:
        data: sent first.
        again: sent again and again, until the reader goes away.
        every: seconds between them.
    """

    def send(handler: _Handler) -> None:
        handler.close_connection = True
        with suppress(OSError):
            handler.wfile.write(data)
            while again:
                handler.wfile.write(again)
                time.sleep(every)

    return send


def _with(reply: Reply, **headers: str) -> Send:
    """A reply with more headers."""
    status, body = reply
    return lambda handler: handler.send(
        status, body, {name.replace("_", "-"): value for name, value in headers.items()}
    )


_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
_GOOD = _text("w1 w2")
_TOOL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}

REPLIES: dict[str, tuple[Ends, Reply | Send]] = {
    "text": ("answered", _GOOD),
    "empty text": ("no answer", _text("")),
    "white space": ("no answer", _text(" \n ")),
    "null": ("no answer", _text(None)),
    "no content": ("no answer", _json(200, _choice({"role": "assistant"}))),
    "refusal": ("refused", _text(None, refusal="I will not.")),
    "refusal and empty text": ("refused", _text("", refusal="No.")),
    "empty refusal": ("answered", _text("w1 w2", refusal="")),
    "parts": ("answered", _text([{"type": "text", "text": "w1"}, {"type": "text", "text": "w2"}])),
    "refusal part": ("refused", _text([{"type": "refusal", "refusal": "I will not."}])),
    "picture part": ("no answer", _text([{"type": "image_url", "image_url": {"url": "x"}}])),
    "odd parts": (None, _text([{"type": "image"}, 3, None])),
    "no parts": ("no answer", _text([])),
    "number": (None, _text(3)),
    "object": (None, _text({"a": 1})),
    "reasoning": ("no answer", _text(None, reasoning_content="w1 w2")),
    "reasoning in another field": ("no answer", _text("", reasoning="w1 w2")),
    "open reasoning": ("no answer", _text("<think>w1 w2")),
    "closed reasoning": ("answered", _text("<think>I cannot help.</think>w1 w2")),
    "reasoning only": ("no answer", _text("<think>I cannot help.</think>")),
    "tool call": ("no answer", _json(200, _choice({"tool_calls": [_TOOL]}, "tool_calls"))),
    "function call": (
        "no answer",
        _json(200, _choice({"content": None, "function_call": _TOOL["function"]}, "function_call")),
    ),
    "surrogate": ("answered", (200, b'{"choices": [{"message": {"content": "a\\ud800b"}}]}')),
    "escapes": ("answered", _text("\x1b[2J\x07 w1")),
    "markup": ("answered", _text("[red]w1[/] </script><script>x</script>")),
    "filter": ("filtered", _json(200, _choice({"content": None}, "content_filter"))),
    "filter with text": ("filtered", _json(200, _choice({"content": "w1"}, "content_filter"))),
    "length": ("answered", _json(200, _choice({"content": "w1"}, "length"))),
    "length without text": ("no answer", _json(200, _choice({"content": ""}, "length"))),
    "odd end": (None, _json(200, _choice({"content": "w1"}, 3))),
    "no end": ("answered", _json(200, _choice({"content": "w1"}, None))),
    "two choices": (
        "answered",
        _json(200, {"choices": 2 * _choice({"content": "w1"})["choices"]}),  # type: ignore[operator]
    ),
    "no choices": ("error", _json(200, {"choices": []})),
    "null choices": ("error", _json(200, {"choices": None})),
    "choices object": ("error", _json(200, {"choices": {}})),
    "null choice": ("error", _json(200, {"choices": [None]})),
    "no message": ("error", _json(200, {"choices": [{}]})),
    "message text": ("error", _json(200, {"choices": [{"message": "w1"}]})),
    "completion": ("error", _json(200, {"choices": [{"text": "w1"}]})),
    "stream": ("error", (200, b'data: {"choices": [{"delta": {"content": "w1"}}]}\n\n')),
    "error in 200": ("error", _error(200, message="overloaded")),
    "error text in 200": ("error", _json(200, {"error": "overloaded"})),
    "detail in 200": ("error", _json(200, {"detail": "overloaded"})),
    "list": ("error", _json(200, [])),
    "null body": ("error", (200, b"null")),
    "nothing": ("error", (200, b"")),
    "page": ("error", (200, b"<html>login</html>")),
    "half": ("error", (200, b'{"choices": [{"mess')),
    "not UTF-8": (None, (200, b'{"choices": [{"message": {"content": "\xff"}}]}')),
    "byte order mark": (None, (200, b"\xef\xbb\xbf" + _GOOD[1])),
    "UTF-16": (None, (200, _GOOD[1].decode().encode("utf-16"))),
    "NaN": (None, (200, b'{"choices": [{"message": {"content": NaN}}]}')),
    "deep": ("error", (200, b"[" * 100_000)),
    "long number": ("error", (200, b'{"choices": ' + b"9" * 10_000 + b"}")),
    "long": ("answered", _text("w1 " * 1_000_000)),
    "odd usage": ("answered", _json(200, {**_choice({"content": "w1"}), "usage": "x"})),
    "huge usage": (
        "answered",
        _json(200, {**_choice({"content": "w1"}), "usage": {"completion_tokens": 10**400}}),
    ),
    "400": ("error", _error(400, message="bad request")),
    "400 max_tokens": ("error", _error(400, message="use another", param="max_tokens")),
    "400 context": (None, _error(400, message="too long", code="context_length_exceeded")),
    "400 filter": ("filtered", _error(400, message="filtered", code="content_filter")),
    "400 text": ("error", (400, b"no")),
    "400 list": ("error", (400, b'[{"error": []}]')),
    "401": ("error", _error(401, message="wrong key Bearer secret-key-1234")),
    "402": ("error", _error(402, message="no credit")),
    "403": ("error", _error(403, message="forbidden \x1b[2J")),
    "404": ("error", _error(404, message="no such model")),
    "413": ("error", _error(413, message="too large")),
    "422": ("error", _json(422, {"detail": [{"loc": ["body", "n"], "msg": "not allowed"}]})),
    "429": ("error", _error(429, message="slow down")),
    "429 for a week": ("error", _with(_error(429, message="slow down"), Retry_After="604800")),
    "500": ("error", _error(500, message="broken")),
    "502 page": ("error", (502, b"<html>bad gateway</html>")),
    "204": ("error", (204, b"")),
    "301": ("error", (301, b"")),
    "elsewhere": ("error", _with((302, b""), Location="http://127.0.0.2:1/v1/chat/completions")),
    "in a circle": ("error", _with((307, b""), Location="/again")),
    "999": ("error", (999, b"odd")),
    "gzip that is none": ("error", _with(_GOOD, Content_Encoding="gzip")),
    "closed at once": ("error", _raw(b"")),
    "no HTTP": ("error", _raw(b"SSH-2.0-x\r\n")),
    "cut": ("error", _raw(_HEAD + b"Content-Length: 1000\r\n\r\n" + _GOOD[1])),
    "odd length": ("error", _raw(_HEAD + b"Content-Length: -5\r\n\r\n" + _GOOD[1])),
    "odd chunks": ("error", _raw(_HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n")),
    "header without an end": ("error", _raw(_HEAD + b"X: ", again=b"x" * 65_536, every=0.001)),
    "body without an end": ("error", _raw(_HEAD + b"\r\n", again=b" " * 65_536, every=0.001)),
    "silence": ("error", lambda handler: time.sleep(60)),
    "drip": ("error", _raw(_HEAD + b"\r\n", again=b" ")),
}
"""Replies by name: how their queries must end, None where both a count and an error are right."""


class _Handler(BaseHTTPRequestHandler):
    """Answers by the first part of the path, which names the reply."""

    def do_GET(self) -> None:
        self.send(200, json.dumps({"data": [{"id": "m"}]}).encode(), {})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        part = self.path.split("/")[1]
        name = list(REPLIES)[int(part)] if part.isdecimal() else "in a circle"
        _, reply = REPLIES[name]
        if callable(reply):
            reply(self)
        else:
            self.send(*reply, {})

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        """Answer as HTTP says."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(body)


def replied(inputs: Path, count: int, seed: int) -> Iterator[Case]:
    """Evaluations of a server that gives one odd reply to every request.

    All queries must end as the reply says, or the evaluation in one clear line, never with the key.

    Args:
        inputs: folder with the inputs.
        count: number of evaluations; every reply comes in turn.
        seed: chooses the order of the replies.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    child = os.fork()  # without threads in this process, which forks again for every command
    if not child:
        server.serve_forever()
    port = server.server_address[1]
    server.server_close()
    os.environ["OPENAI_API_KEY"] = KEY
    order = random.Random(f"{seed} order").sample(range(len(REPLIES)), len(REPLIES))
    try:
        for number in range(count):
            yield partial(_evaluate, inputs, port, order[number % len(order)])
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _evaluate(inputs: Path, port: int, place: int, chance: random.Random) -> Outcome:
    name = list(REPLIES)[place]
    wanted, _ = REPLIES[name]
    command = ["evaluate", "--endpoint", f"http://127.0.0.1:{port}/{place}/v1", *SETS]
    command += ["--samples", str(chance.choice([1, 2])), "--retries", "1", "--judge", "paper"]
    command += ["--concurrency", str(chance.choice([1, 8])), "--timeout", "3"]
    ended = run([*command, "--output", "served"], inputs)
    found = ended.way
    if ended.status == 0:
        found = _counted(inputs / "served" / "results.json")
    elif ended.is_named:
        found = "error"
    said = ended.mistakes or ended.err.splitlines()[-1:]
    shown = ended.out + ended.err
    plain = KEY not in shown and not any(one in shown for one in "\x1b\x07")
    known = found in ("answered", "refused", "filtered", "no answer", "error")
    right = found == wanted if wanted is not None else known
    case = f"reply {name}: {' '.join(said)}"
    way = "one line" if found == "error" else found
    return outcome_of(way if plain else "not plain", case, [ended], allowed=right and plain)


def _counted(results: Path) -> str:
    """How all queries of an evaluation ended."""
    rates = json.loads(results.read_text(encoding="utf-8"))["content"]["figures"]["rates"]
    total = sum(one["responses"] for one in rates)
    refused = sum(one["refused"]["count"] for one in rates if one["refused"])
    queries = sum(one["refused"]["queries"] for one in rates if one["refused"])
    filtered, nothing = (sum(one[key] for one in rates) for key in ("filtered", "no_answer"))
    if filtered or nothing:
        if refused or (filtered and nothing):
            return "mixed"
        return "filtered" if filtered == total else "no answer" if nothing == total else "mixed"
    return "answered" if not refused else "refused" if refused == queries else "mixed"
