"""A stand-in for the model hub: the parts of its HTTP API that reading and writing a model use."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]
TOKEN = "hf_stand_in"
READ_ONLY = "hf_read_only"


@dataclass
class Repository:
    """One repository: its commits, oldest first, each with all its files."""

    private: bool
    commits: list[tuple[str, Files]] = field(default_factory=list)

    def add(self, files: Files) -> str:
        oid = hashlib.sha1(repr((len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits.append((oid, files))
        return oid

    def find(self, revision: str) -> tuple[str, Files] | None:
        if revision == "main":
            return self.commits[-1]
        return next((one for one in self.commits if one[0].startswith(revision)), None)


@dataclass
class Hub:
    """The server's state; tests read and change it."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    received: bytes = b""
    always: int | None = None
    """A status that every request gets."""

    def add(self, name: str, files: Files, private: bool = False) -> str:
        repository = self.repositories.setdefault(name, Repository(private))
        return repository.add(
            {**(repository.commits[-1][1] if repository.commits else {}), **files}
        )

    def files(self, name: str) -> Files:
        return self.repositories[name].commits[-1][1]


@contextmanager
def serving_hub() -> Iterator[Hub]:
    """Serve on loopback."""
    hub = Hub()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    state: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._handle(b"")

    def do_HEAD(self) -> None:
        self._handle(b"")

    def do_POST(self) -> None:
        self._handle(self._body())

    def do_PUT(self) -> None:
        self._handle(self._body())

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _handle(self, body: bytes) -> None:
        path = unquote(urlsplit(self.path).path)
        self.state.requests.append(f"{self.command} {path}")
        self.state.received += body
        if self.state.always is not None:
            self._send(self.state.always, {"error": "the stand-in says no"})
            return
        routes: dict[str, Callable[..., None]] = {
            r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?": self._info,
            r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)": self._file,
            r"/api/repos/create": self._create,
            r"/api/validate-yaml": lambda body: self._send(200, {"warnings": [], "errors": []}),
            r"/api/models/([^/]+/[^/]+)/preupload/(.+)": self._preupload,
            r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch": self._batch,
            r"/lfs/(\w+)": self._lfs,
            r"/api/models/([^/]+/[^/]+)/commit/(.+)": self._commit,
        }
        for pattern, answer in routes.items():
            match = re.fullmatch(pattern, path)
            if match:
                answer(body, *match.groups())
                return
        self._send(404, {"error": f"no route {path}"})

    def _send(self, status: int, content: Any = b"", headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    @property
    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _repository(self, name: str) -> Repository | None:
        """The repository, or None after an answer that hides it, as the hub does."""
        found = self.state.repositories.get(name)
        if found is None or (found.private and self._token not in (TOKEN, READ_ONLY)):
            status = 404 if self._token in (TOKEN, READ_ONLY) else 401
            self._send(status, {"error": "not found"}, {"X-Error-Code": "RepoNotFound"})
            return None
        return found

    def _info(self, body: bytes, name: str, revision: str | None) -> None:
        repository = self._repository(name)
        if repository is None:
            return
        commit = repository.find(revision or "main")
        if commit is None:
            self._send(404, {"error": "revision"}, {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = [
            {"rfilename": file, "size": len(data), "blobId": "0"}
            for file, data in commit[1].items()
        ]
        self._send(
            200,
            {
                "_id": "0",
                "id": name,
                "sha": commit[0],
                "private": repository.private,
                "siblings": siblings,
                "tags": [],
                "downloads": 0,
                "likes": 0,
            },
        )

    def _file(self, body: bytes, name: str, revision: str, file: str) -> None:
        repository = self._repository(name)
        if repository is None:
            return
        commit = repository.find(revision)
        if commit is None or file not in commit[1]:
            code = "RevisionNotFound" if commit is None else "EntryNotFound"
            self._send(404, {"error": code}, {"X-Error-Code": code})
            return
        data = commit[1][file]
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        self._send(200, data, {"X-Repo-Commit": commit[0], "ETag": etag})

    def _may_write(self) -> bool:
        if self._token == TOKEN:
            return True
        status = 403 if self._token == READ_ONLY else 401
        self._send(status, {"error": "Invalid username or password." if status == 401 else "no"})
        return False

    def _create(self, body: bytes) -> None:
        if not self._may_write():
            return
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        private = asked.get("private", False) or asked.get("visibility") == "private"
        exists = name in self.state.repositories
        if not exists:
            self.state.add(name, {".gitattributes": b"*.safetensors filter=lfs\n"}, private)
        self._send(409 if exists else 200, {"url": f"{self.state.url}/{name}", "name": name})

    def _preupload(self, body: bytes, name: str, revision: str) -> None:
        if not self._may_write():
            return
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs"
                if file["path"].endswith((".safetensors", ".png"))
                else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        self._send(200, {"files": files})

    def _batch(self, body: bytes, name: str) -> None:
        if not self._may_write():
            return
        objects = [
            {
                **wanted,
                "authenticated": True,
                "actions": {"upload": {"href": f"{self.state.url}/lfs/{wanted['oid']}"}},
            }
            for wanted in json.loads(body)["objects"]
        ]
        self._send(200, {"transfer": "basic", "objects": objects})

    def _lfs(self, body: bytes, oid: str) -> None:
        self.state.blobs[oid] = body
        self._send(200)

    def _commit(self, body: bytes, name: str, revision: str) -> None:
        if not self._may_write():
            return
        files: Files = dict(self.state.files(name))
        for line in body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.state.blobs[value["oid"]]
            elif operation["key"] == "deletedFile":
                del files[value["path"]]
        oid = self.state.repositories[name].add(files)
        self._send(200, {"commitUrl": f"{self.state.url}/{name}/commit/{oid}", "commitOid": oid})
