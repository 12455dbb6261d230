"""A scripted server with vLLM's endpoints and a chat template: what `demur serve` stands before."""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "base-model"
PIECES = 3
"""Events of an answer that is streamed, before the last one."""


@dataclass
class Vllm:
    """The server's state.

    Attributes:
        format: vLLM's `--chat-template-content-format`.
        system_role: whether the chat template takes a system message.
        first_part_only: whether it reads only the first part of a message.
        marks: what begins a message behind which its role stands, what ends that, and what ends it.
        takes_rows: whether the server was started with `--enable-prompt-embeds`.
        failure: status and body of chat completions instead of an answer.
        delay: seconds before an answer, and between the events of one that is streamed.
        cut: whether a streamed answer breaks off after its first event.
        pieces: raw text of a streamed answer, sent piece by piece; empty for events.
        drips: whether the list of models comes byte by byte, without end.
        chats: requests for chat completions.
        headers: headers of these.
        rendered: these as the chat template writes them.
        gone: whether a client left in the middle of an answer.
    """

    format: str = "string"
    system_role: bool = True
    first_part_only: bool = False
    marks: tuple[str, str, str] = ("<|im_start|>", "\n", "<|im_end|>\n")
    takes_rows: bool = True
    failure: tuple[int, Any] | None = None
    delay: float = 0.0
    cut: bool = False
    pieces: list[str] = field(default_factory=list)
    drips: bool = False
    url: str = ""
    chats: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    rendered: list[str] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)
    words: list[str] = field(default_factory=list)

    def render(self, messages: list[dict[str, Any]]) -> str | None:
        """What the template writes; None where it refuses the messages."""
        if not self.system_role and any(one["role"] == "system" for one in messages):
            return None
        begin, behind, end = self.marks
        texts = [f"{begin}{one['role']}{behind}{self.content(one)}{end}" for one in messages]
        return f"{''.join(texts)}{begin}assistant{behind}"

    def content(self, message: dict[str, Any]) -> str:
        content = message["content"]
        if content is None or isinstance(content, str):
            return content or ""
        texts = [
            one["text"] if one["type"] == "text" else f"<{one['type'].removesuffix('_url')}>"
            for one in content
        ]
        if self.first_part_only:
            return texts[0]
        return ("\n" if self.format == "string" else "").join(texts)

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """The answer to a request that is not for a chat."""
        if path == "/tokenize":
            text = self.render(body["messages"])
            if text is None:
                return 400, {"error": {"message": "no system role", "code": 400}}
            own = sorted((mark.strip() for mark in self.marks if mark.strip()), key=len)
            one = "|".join([*map(re.escape, reversed(own)), "."])
            pieces = re.findall(one, text, re.DOTALL)
            self.words += sorted(set(pieces) - set(self.words))
            tokens = [self.words.index(one) for one in pieces]
            return 200, {"tokens": tokens, "token_strs": pieces, "count": len(tokens)}
        if path == "/detokenize":
            return 200, {"prompt": "".join(self.words[one] for one in body["tokens"])}
        return 404, {"detail": "Not Found"}


@contextmanager
def running_vllm(**state: Any) -> Iterator[Vllm]:
    """The server in a thread."""
    vllm = Vllm(**state)
    connections: list[socket.socket] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            if vllm.drips:
                self.drip()
                return
            self.whole(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path != "/v1/chat/completions":
                self.whole(*vllm.answer(self.path, body))
                return
            vllm.chats.append(body)
            vllm.headers.append({name.lower(): value for name, value in self.headers.items()})
            text = vllm.render(body["messages"])
            vllm.rendered.append(text or "")
            if not vllm.takes_rows:
                self.whole(400, {"error": {"message": "You must set `--enable-prompt-embeds`"}})
            elif vllm.failure is not None:
                self.whole(*vllm.failure)
            elif body.get("stream"):
                self.stream()
            else:
                self.wait()
                message = {"role": "assistant", "content": "Here is how."}
                self.whole(200, {"model": MODEL, "choices": [{"index": 0, "message": message}]})

        def wait(self) -> None:
            """Wait, and look whether the client is still there."""
            end = time.monotonic() + vllm.delay
            self.connection.settimeout(0.01)
            while time.monotonic() < end:
                try:
                    if not self.connection.recv(1):
                        vllm.gone.set()
                        return
                except TimeoutError:
                    continue
                except OSError:
                    vllm.gone.set()
                    return
            self.connection.settimeout(None)

        def stream(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream; charset=utf-8")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in vllm.pieces:
                self.chunk(piece)
                time.sleep(0.02)
            for number in range(0 if vllm.pieces else PIECES):
                chunk = {"choices": [{"index": 0, "delta": {"content": f"piece {number}"}}]}
                self.chunk(f"data: {json.dumps(chunk)}\n\n")
                if vllm.cut:
                    self.close_connection = True
                    return
                self.wait()
                if vllm.gone.is_set():
                    self.close_connection = True
                    return
            if not vllm.pieces:
                self.chunk("data: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")

        def drip(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            with suppress(OSError):
                while vllm.drips:
                    self.wfile.write(b" ")
                    time.sleep(0.05)
            self.close_connection = True

        def chunk(self, text: str) -> None:
            self.wfile.write(f"{len(text):x}\r\n{text}\r\n".encode())
            self.wfile.flush()

        def whole(self, status: int, answer: Any) -> None:
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 256

        def get_request(self) -> tuple[socket.socket, Any]:
            connection, address = super().get_request()
            connections.append(connection)
            return connection, address

        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exc_info()[1], OSError):
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    vllm.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield vllm
    finally:
        vllm.drips = False
        server.shutdown()
        thread.join()
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        server.server_close()
