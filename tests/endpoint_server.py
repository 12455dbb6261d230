"""A small server that answers as OpenAI's endpoints do, or fails as a test wants."""

from __future__ import annotations

import json
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, Any] | tuple[int, Any, dict[str, str]]
"""Status, and a body: text and bytes as they are, other things as JSON; and further headers."""


def completion(content: Any, prompt_tokens: int = 10, completion_tokens: int = 1) -> Reply:
    return 200, {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": content},
            }
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }


@dataclass
class Endpoint:
    """The server's state.

    Attributes:
        reply: takes the texts of a judge's request, and says what to answer.
        models: that it says it has.
        failures: answered first, in turn.
        delay: seconds before each answer.
        requests: the bodies received.
        keys: the `Authorization` headers received.
        listing_keys: the same of requests for the list of models.
        most_at_once: requests that were under way together.
    """

    reply: Callable[[dict[str, Any]], Reply]
    models: tuple[str, ...] = ()
    url: str = ""
    failures: list[Reply] = field(default_factory=list)
    delay: float = 0.0
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    listing_keys: list[str] = field(default_factory=list)
    under_way: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def data(self) -> list[dict[str, str]]:
        """The texts that were handed over, in the order in which they came."""
        return [json.loads(request["messages"][1]["content"]) for request in self.requests]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing where a client went away."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def running_endpoint(reply: Callable[[dict[str, str]], Reply]) -> Iterator[Endpoint]:
    """A server that is asked by a judge: `reply` takes the texts that are to be judged."""
    with running_server(lambda body: reply(json.loads(body["messages"][1]["content"]))) as state:
        yield state


@contextmanager
def running_server(
    reply: Callable[[dict[str, Any]], Reply], models: tuple[str, ...] = ()
) -> Iterator[Endpoint]:
    """A server whose `reply` takes the body of a request."""
    state = Endpoint(reply, models)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with state.lock:
                state.requests.append(body)
                state.keys.append(self.headers.get("Authorization", ""))
                state.under_way += 1
                state.most_at_once = max(state.most_at_once, state.under_way)
                failure = state.failures.pop(0) if state.failures else None
            time.sleep(state.delay)
            reply = failure or state.reply(body)
            with state.lock:
                state.under_way -= 1
            self.send(*reply)

        def do_GET(self) -> None:
            state.listing_keys.append(self.headers.get("Authorization", ""))
            known = [{"id": name, "object": "model", "created": 0} for name in state.models]
            self.send(200, {"object": "list", "data": known})

        def send(self, status: int, answer: Any, headers: dict[str, str] | None = None) -> None:
            text = isinstance(answer, (str, bytes))
            content = answer if text else json.dumps(answer)
            content = content if isinstance(content, bytes) else content.encode()
            try:
                self.send_response(status)
                self.send_header("Content-Type", "text/html" if text else "application/json")
                self.send_header("Content-Length", str(len(content)))
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
            except OSError:  # the client gave up waiting
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _drain(connection: socket.socket) -> None:
    """Read what is left of a request: unread, it makes the client see a broken connection."""
    connection.shutdown(socket.SHUT_WR)
    connection.settimeout(1)
    while connection.recv(65536):
        pass


def _encrypted(connection: socket.socket, tls: ssl.SSLContext) -> socket.socket:
    """The connection after its handshake; one that fails ends with the alert that says why."""
    encrypted = tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
    try:
        encrypted.do_handshake()
    except ssl.SSLError:
        with socket.socket(fileno=encrypted.detach()) as plain:
            _drain(plain)
        raise
    return encrypted


@contextmanager
def running_socket(
    talk: Callable[[socket.socket], None], tls: ssl.SSLContext | None = None
) -> Iterator[str]:
    """A server that does as it likes with each connection; gives the base URL.

    Args:
        talk: takes a connection behind whose request headers nothing was read, and answers.
        tls: how the connection is encrypted, or None.
    """
    listening = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def answer(connection: socket.socket) -> None:
        try:
            if tls is not None:
                connection = _encrypted(connection, tls)
            received = b""
            while b"\r\n\r\n" not in received:
                chunk = connection.recv(65536)
                if not chunk:
                    return
                received += chunk
            talk(connection)
            _drain(connection)
        except OSError:  # the client gave up
            pass
        finally:
            connection.close()

    def accept() -> None:
        while not over.is_set():
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    scheme = "http" if tls is None else "https"
    try:
        yield f"{scheme}://127.0.0.1:{listening.getsockname()[1]}/v1"
    finally:
        over.set()
        listening.close()
