"""A server whose answers are odd, and what an evaluation makes of them."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from campaign_work import SETS, Tally, run

Reply = tuple[int, bytes]


def _json(status: int, content: object) -> Reply:
    return status, json.dumps(content).encode()


def _choice(message: object, end: object = "stop") -> dict[str, object]:
    return {"choices": [{"index": 0, "finish_reason": end, "message": message}]}


def _text(content: object, **more: object) -> Reply:
    return _json(200, _choice({"role": "assistant", "content": content, **more}))


def _error(status: int, **error: object) -> Reply:
    return _json(status, {"error": error})


REPLIES: dict[str, Reply] = {
    "text": _text("w1 w2"),
    "empty text": _text(""),
    "null": _text(None),
    "refusal": _text(None, refusal="I cannot help."),
    "parts": _text([{"type": "text", "text": "w1"}, {"type": "text", "text": "w2"}]),
    "odd parts": _text([{"type": "image"}, 3, None]),
    "number": _text(3),
    "object": _text({"a": 1}),
    "reasoning": _text(None, reasoning_content="w1 w2"),
    "open reasoning": _text("<think>w1 w2"),
    "surrogate": (200, b'{"choices": [{"message": {"content": "a\\ud800b"}}]}'),
    "escapes": _text("\x1b[2J\x07 w1"),
    "filter": _json(200, _choice({"content": None}, "content_filter")),
    "length": _json(200, _choice({"content": "w1"}, "length")),
    "odd end": _json(200, _choice({"content": "w1"}, 3)),
    "no choices": _json(200, {"choices": []}),
    "null choices": _json(200, {"choices": None}),
    "choices object": _json(200, {"choices": {}}),
    "no message": _json(200, {"choices": [{}]}),
    "message text": _json(200, {"choices": [{"message": "w1"}]}),
    "error in 200": _error(200, message="overloaded"),
    "list": _json(200, []),
    "nothing": (200, b""),
    "page": (200, b"<html>login</html>"),
    "half": (200, b'{"choices": [{"mess'),
    "not UTF-8": (200, b'{"choices": [{"message": {"content": "\xff"}}]}'),
    "deep": (200, b"[" * 100_000),
    "long number": (200, b'{"choices": ' + b"9" * 10_000 + b"}"),
    "long": _text("w1 " * 1_000_000),
    "odd usage": _json(200, {**_choice({"content": "w1"}), "usage": "x"}),
    "400": _error(400, message="bad request"),
    "400 max_tokens": _error(400, message="use max_completion_tokens", param="max_tokens"),
    "400 context": _error(400, message="too long", code="context_length_exceeded"),
    "400 filter": _error(400, message="filtered", code="content_filter"),
    "400 text": (400, b"no"),
    "401": _error(401, message="wrong key Bearer secret"),
    "403": _error(403, message="forbidden"),
    "404": _error(404, message="no such model"),
    "429": _error(429, message="slow down"),
    "500": _error(500, message="broken"),
    "502 page": (502, b"<html>bad gateway</html>"),
    "204": (204, b""),
    "301": (301, b""),
    "999": (999, b"odd"),
}


class _Handler(BaseHTTPRequestHandler):
    """Answers by the first part of the path, which names the reply."""

    def do_GET(self) -> None:
        self._send(200, json.dumps({"data": [{"id": "m"}]}).encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._send(*list(REPLIES.values())[int(self.path.split("/")[1])])

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def replied(inputs: Path, count: int, chance: random.Random, tally: Tally) -> None:
    """Evaluate a server that gives one odd reply to every request.

    The evaluation is done, with what came counted, or ends in one clear line.

    Args:
        inputs: folder with the inputs.
        count: number of evaluations; every reply comes in turn.
        chance: source of the settings beside the reply.
        tally: counts how they ended.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    child = os.fork()  # without threads in this process, which forks again for every command
    if not child:
        server.serve_forever()
    port = server.server_address[1]
    server.server_close()
    os.environ["OPENAI_API_KEY"] = "secret"
    try:
        for number in range(count):
            place = number % len(REPLIES)
            command = ["evaluate", "--endpoint", f"http://127.0.0.1:{port}/{place}/v1", *SETS]
            command += ["--samples", str(chance.choice([1, 2])), "--retries", "1"]
            command += ["--concurrency", str(chance.choice([1, 8])), "--timeout", "5"]
            ended = run([*command, "--output", "served"], inputs)
            tally.measure(ended)
            said = ended.mistakes or ended.err.splitlines()[-1:]
            case = f"reply {list(REPLIES)[place]}: {' '.join(said)}"
            allowed = ended.way in ("one line", "done") and "secret" not in ended.out + ended.err
            tally.count(ended.way, case, allowed=allowed)
            shutil.rmtree(inputs / "served", ignore_errors=True)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
