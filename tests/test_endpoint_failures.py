"""Servers that refuse, fail, stall, flood, redirect, or give the key away."""

from __future__ import annotations

import base64
import gzip
import json
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

pytest.importorskip("openai", reason="openai is not installed: pip install 'demur[endpoint]'")

from demur import DemurError, Server
from demur.endpoint import (
    Answer,
    EndpointClient,
    EndpointSettings,
    Message,
    Request,
    SamplingOptions,
    waiting,
)
from demur.judges import EndpointJudge
from demur.progress import SilentProgress, SilentStage
from tests.command_line import demur
from tests.endpoint_server import Endpoint, Reply, completion, running_server, running_socket

KEY = "sk-Proj/17+secret_key&x"
NONE = {"Content-Type": "application/json"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def client_of(url: str, **settings: Any) -> EndpointClient:
    settings = {"retries": 0, "timeout": 10.0, **settings}
    options = SamplingOptions(temperature=1.0, top_p=0.9, top_k=50, max_tokens=7, seed=3)
    return EndpointClient("m", EndpointSettings(url, **settings), options)


def ask(client: EndpointClient, *texts: str) -> list[Answer]:
    requests = [Request([Message("user", text)]) for text in texts or ("query",)]
    return client.chat_all(requests, SilentStage())


def left_out(client: EndpointClient) -> tuple[str, ...]:
    """Names of the options that an endpoint did not take."""
    changed = client.changed_options
    return () if changed is None else changed.left_out


def failure(url: str, **settings: Any) -> str:
    with pytest.raises(DemurError) as raised:
        ask(client_of(url, **settings))
    message = str(raised.value)
    assert message.endswith(".")
    assert message.isprintable()
    return message


def failure_of(reply: Reply, **settings: Any) -> str:
    with running_server(lambda _: reply) as server:
        return failure(server.url, **settings)


# Options


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("temperature", {"param": "temperature", "code": "unsupported_value", "message": "no"}),
        ("top_k", {"param": "top_k", "code": "unknown_parameter", "message": "Unknown: 'top_k'."}),
        ("top_k", {"param": None, "message": "Unrecognized request argument supplied: top_k"}),
        ("seed", {"param": "body.seed", "code": "extra_forbidden", "message": "no"}),
        ("top_p", "`top_p` is not supported here"),
        ("top_k", {"param": "None", "type": "None", "message": "m does not take ['top_k']"}),
        ("top_k", "Argument not supported on this model: topK"),
        ("seed", "seed is not taken; known are temperature, top_k, top_p and max_tokens"),
    ],
)
def test_an_option_that_is_not_taken_is_left_out(name: str, error: Any) -> None:
    def strict(body: dict[str, Any]) -> Reply:
        return (400, {"error": error}) if name in body else completion("yes")

    with running_server(strict) as server:
        client = client_of(server.url, concurrency=1)
        assert [one.text for one in ask(client, "a", "b")] == ["yes", "yes"]
        assert left_out(client) == (name,)
        assert [name in body for body in server.requests] == [True, False, False]
        others = {"temperature", "top_p", "top_k", "seed", "max_tokens"} - {name}
        assert all(others <= set(body) for body in server.requests)


def test_mistakes_in_a_list_name_their_options() -> None:
    places = [{"loc": ["body", "top_k"], "msg": "Extra inputs", "type": "extra_forbidden"}]

    def strict(body: dict[str, Any]) -> Reply:
        return (422, {"detail": places}) if "top_k" in body else completion("yes")

    with running_server(strict) as server:
        assert ask(client_of(server.url))[0].text == "yes"


def test_a_mistake_that_names_the_kinds_that_were_tried_names_its_option() -> None:
    places = [{"loc": ["body", "top_p", "constrained-float"], "msg": "no"}]
    places.append({"loc": ["body", "top_p", "none"], "msg": "no"})

    def strict(body: dict[str, Any]) -> Reply:
        return (422, {"detail": places}) if "top_p" in body else completion("yes")

    with running_server(strict) as server:
        client = client_of(server.url)
        assert ask(client)[0].text == "yes"
        assert left_out(client) == ("top_p",)


def test_only_as_many_options_are_left_out_as_need_be() -> None:
    def strict(body: dict[str, Any]) -> Reply:
        if "temperature" in body and "top_p" in body:
            return 400, {"error": {"message": "`top_p` and `temperature` cannot both be given."}}
        return completion("yes")

    with running_server(strict) as server:
        client = client_of(server.url)
        assert ask(client)[0].text == "yes"
        assert left_out(client) == ("top_p",)


def test_several_options_are_left_out_one_after_the_other() -> None:
    def strict(body: dict[str, Any]) -> Reply:
        unknown = [name for name in ("seed", "top_k") if name in body]
        return (400, f"Unsupported: {', '.join(unknown)}") if unknown else completion("yes")

    with running_server(strict) as server:
        client = client_of(server.url)
        assert ask(client)[0].text == "yes"
        assert left_out(client) == ("seed", "top_k")


def test_an_option_that_one_query_only_mentions_is_kept() -> None:
    """A message may mention an option that the request fails without as well."""

    def strict(body: dict[str, Any]) -> Reply:
        if body["messages"][0]["content"] == "bad":
            return 400, {"error": {"message": "no template for it, try another temperature"}}
        return completion("yes")

    with running_server(strict) as server:
        client = client_of(server.url)
        with pytest.raises(DemurError, match="no template for it"):
            ask(client, "bad")
        ask(client, "good")
        assert left_out(client) == ()
        assert "temperature" in server.requests[-1]


@pytest.mark.parametrize(
    ("old", "new"),
    [("max_tokens", "max_completion_tokens"), ("max_completion_tokens", "max_tokens")],
)
@pytest.mark.parametrize(
    "error",
    [
        {"param": "OLD", "code": "unsupported_parameter", "message": "Not supported."},
        {"param": "OLD", "code": None, "message": "Use 'NEW' instead."},
        {"param": None, "code": None, "message": "'OLD' is not taken: use 'NEW'."},
        {"param": "OLD", "type": "extra_forbidden", "message": "Extra inputs"},
        {"param": "None", "type": "None", "message": "Unsupported parameter: 'OLD'. Use 'NEW'."},
        {"message": "OLD is not supported with this model."},
        {"message": "Unrecognized request argument supplied: OLD"},
    ],
)
def test_a_limit_is_translated(old: str, new: str, error: dict[str, Any]) -> None:
    said = json.loads(json.dumps({"error": error}).replace("OLD", old).replace("NEW", new))

    def strict(body: dict[str, Any]) -> Reply:
        return (400, said) if old in body else completion("yes")

    with running_server(strict) as server:
        options: Any = {old: 7}
        client = EndpointClient(
            "m", EndpointSettings(server.url, concurrency=1), SamplingOptions(**options)
        )
        ask(client, "a", "b", "c")
        assert [(one.get(old), one.get(new)) for one in server.requests] == [
            (7, None),
            *[(None, 7)] * 3,
        ]
        assert left_out(client) == ()


@pytest.mark.parametrize(
    ("error", "says"),
    [
        ({"message": "80 tokens asked for, the context has 64: lower max_tokens", "code": 400}, ""),
        (
            {
                "message": "This model's maximum context length is 64 tokens.",
                "param": "messages",
                "code": "context_length_exceeded",
            },
            "shorten it",
        ),
        ({"message": "too big", "type": "exceed_context_size_error", "code": 400}, "shorten it"),
        ({"message": "64 are supported, not 80: lower max_tokens", "code": 400}, "7 tokens"),
        ({"message": "max_tokens=80 is not supported: at most 64", "code": 400}, "7 tokens"),
        (
            {"message": "max_tokens is too large", "param": "max_tokens", "code": "invalid_value"},
            "another number of tokens",
        ),
        (
            {"message": "max_tokens must be at least 8, see max_completion_tokens_details", **NONE},
            "",
        ),
    ],
)
def test_a_query_that_does_not_fit_is_named_and_the_limit_stays(error: Any, says: str) -> None:
    def strict(body: dict[str, Any]) -> Reply:
        long = len(body["messages"][0]["content"]) > 20
        return (400, {"error": error}) if long else completion("yes")

    with running_server(strict) as server:
        client = client_of(server.url, concurrency=1)
        query = "How long is a piece of string?"
        with pytest.raises(DemurError) as raised:
            ask(client, "short", query, "short too")
        assert f"{len(query)} characters" in str(raised.value)
        assert query in str(raised.value)
        assert error["message"].rstrip(".") in str(raised.value)
        assert says in str(raised.value)
        ask(client, "again")
        assert {body["max_tokens"] for body in server.requests} == {7}


def test_too_many_tokens_are_not_called_a_long_query() -> None:
    error = {"message": "maximum context length is 64 tokens", "code": "context_length_exceeded"}

    def said(query: str, tokens: int) -> str:
        with running_server(lambda _: (400, {"error": error})) as server:
            client = EndpointClient("m", EndpointSettings(server.url), SamplingOptions())
            options = SamplingOptions(max_tokens=tokens)
            with pytest.raises(DemurError) as raised:
                client.chat_all([Request([Message("user", query)], options)], SilentStage())
            return str(raised.value)

    assert "with up to 100,000 tokens of answer" in said("Why?", 100_000)
    assert said("Why?", 100_000).endswith(": ask for fewer tokens, or serve a longer context.")
    assert "leave it out or shorten it" in said("Why? " * 1000, 64)


@pytest.mark.parametrize(
    ("status", "message", "says"),
    [
        (402, "Insufficient Balance", "no credit left"),
        (400, "API key not valid. Please pass a valid API key.", "refuses the key"),
        (400, "Incorrect API key provided: no***ne.", "refuses the key"),
        (400, "Model not found: m", "knows no model 'm'"),
        (400, "Model Not Exist", "knows no model 'm'"),
        (422, "The model `m` does not exist or you do not have access to it.", "knows no model"),
        (405, "Method Not Allowed", "is not an OpenAI-compatible endpoint"),
        (501, "Unsupported method ('POST')", "is not an OpenAI-compatible endpoint"),
        (426, "Upgrade Required", "is not an OpenAI-compatible endpoint"),
    ],
)
def test_what_concerns_all_queries_is_not_called_one_querys_mistake(
    status: int, message: str, says: str
) -> None:
    with running_server(lambda _: (status, {"error": {"message": message}})) as server:
        said = failure(server.url, retries=3)
        assert len(server.requests) == 1
    assert says in said
    assert message.rstrip(".") in said
    assert "query" not in said


def test_a_key_that_is_refused_for_the_list_of_models_is_said() -> None:
    answer = b'{"error": {"message": "no"}}'
    head = b"HTTP/1.1 401 No\r\nContent-Length: %d\r\n\r\n" % len(answer)
    says = pytest.raises(DemurError, match=r"refuses the key .* to one that it takes\.")
    with running_socket(lambda one: one.sendall(head + answer)) as url, says:
        Server(url).describe(SilentProgress())


def test_old_servers_put_their_errors_at_the_top() -> None:
    body = {"object": "error", "message": "no such thing", "type": "BadRequestError", "code": 400}
    assert "status 400: no such thing" in failure_of((400, body))
    assert "status 422: no" in failure_of((422, {"message": {"detail": [{"msg": "no"}]}}))
    assert "status 400: <html>no</html>" in failure_of((400, "<html>no</html>"))


# Statuses and waiting


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_what_may_pass_is_tried_again(status: int) -> None:
    with running_server(lambda _: completion("yes")) as server:
        server.failures = [(status, {"error": {"message": "busy"}}), (status, "busy")]
        assert ask(client_of(server.url, retries=2))[0].text == "yes"
        assert len(server.requests) == 3


@pytest.mark.parametrize(
    "reply",
    [
        (401, {"error": {"message": "no"}}),
        (403, {"error": {"message": "no"}}),
        (404, {"error": {"message": "no"}}),
        (400, {"error": {"message": "no"}}),
        (429, {"error": {"message": "no", "code": "insufficient_quota"}}),
    ],
)
def test_what_lasts_is_not_tried_again(reply: Reply) -> None:
    with running_server(lambda _: reply) as server:
        assert "no" in failure(server.url, retries=9)
        assert len(server.requests) == 1


def in_seconds(seconds: float) -> str:
    return format_datetime(datetime.now(timezone.utc) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    "headers",
    [{"Retry-After": "2"}, {"Retry-After-Ms": "1500"}, {"Retry-After": in_seconds(4)}],
)
def test_a_server_may_say_when_to_come_again(headers: dict[str, str]) -> None:
    if headers["Retry-After" if "Retry-After" in headers else "Retry-After-Ms"].endswith("GMT"):
        headers = {"Retry-After": in_seconds(3)}
    with running_server(lambda _: completion("yes")) as server:
        server.failures = [(429, {"error": {"message": "slow"}}, headers)]
        before = time.monotonic()
        ask(client_of(server.url, retries=1))
        assert 1.2 < time.monotonic() - before < 8


@pytest.mark.parametrize("value", ["nan", "inf", "-7", "soon", "", "1e400", "Fri, 99 Foo 1"])
def test_a_wait_that_is_none_is_left_out(value: str) -> None:
    with running_server(lambda _: completion("yes")) as server:
        server.failures = [(429, {"error": {"message": "slow"}}, {"Retry-After": value})]
        before = time.monotonic()
        ask(client_of(server.url, retries=1))
        assert time.monotonic() - before < 5


@pytest.mark.parametrize("value", ["86400", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_wait_of_hours_ends_the_work(value: str) -> None:
    reply = (429, {"error": {"message": "slow"}}, {"Retry-After": value})
    with running_server(lambda _: reply) as server:
        assert "wants to be asked again in" in failure(server.url, retries=9)
        assert len(server.requests) == 1
    assert waiting.LONGEST_WAIT < 86400


# Time and size

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def drip(opening: bytes) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        connection.sendall(opening)
        while True:
            connection.sendall(b" ")
            time.sleep(0.05)

    return talk


@pytest.mark.parametrize(
    "talk",
    [
        drip(HEAD + b"Content-Length: 1000000\r\n\r\n{"),
        drip(HEAD + b"\r\n"),
        drip(HEAD + b"X-Long: "),
        lambda _: time.sleep(3),
    ],
)
def test_an_answer_must_be_whole_in_time(talk: Callable[[socket.socket], None]) -> None:
    with running_socket(talk) as url:
        before = time.monotonic()
        assert "no answer within 0.5 s" in failure(url, timeout=0.5)
        assert time.monotonic() - before < 2.5


def flood(opening: bytes, piece: bytes) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        connection.sendall(opening)
        while True:
            connection.sendall(piece)

    return talk


ZEROS = gzip.compress(b" " * (1 << 26))
PACKED = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(ZEROS)


@pytest.mark.parametrize(
    "talk",
    [
        flood(HEAD + b"\r\n{", b" " * 65536),
        flood(HEAD.replace(b"200 OK", b"500 No") + b"\r\n", b"x" * 65536),
        lambda connection: connection.sendall(PACKED + ZEROS),
    ],
)
def test_an_answer_without_end_is_cut(talk: Callable[[socket.socket], None]) -> None:
    with running_socket(talk) as url:
        assert "more than 4 MB" in failure(url, timeout=30, retries=3)


def test_the_largest_answer_grows_with_the_tokens_that_are_asked_for() -> None:
    with running_server(lambda _: completion("yes " * (5 << 18))) as server:
        assert "more than 4 MB" in failure(server.url)
        client = EndpointClient("m", EndpointSettings(server.url), SamplingOptions())
        options = SamplingOptions(max_tokens=5000)
        (found,) = client.chat_all([Request([Message("user", "q")], options)], SilentStage())
        assert found.text is not None
        assert len(found.text) == 5 << 20


def test_a_compressed_answer_is_read() -> None:
    body = gzip.compress(json.dumps(completion("yes")[1]).encode())
    head = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    with running_socket(lambda one: one.sendall(head % len(body) + body)) as url:
        assert ask(client_of(url))[0].text == "yes"
    with running_socket(lambda one: one.sendall(head % 30 + body[:30])) as url:
        assert "breaks off" in failure(url)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        HEAD + b"Content-Length: 500\r\n\r\n{}",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
        HEAD + b"Content-Length: many\r\n\r\n{}",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x0a",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"x" * 200_000 + b"\r\n\r\n",
        HEAD + b"Content-Encoding: br\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
def test_what_breaks_off_or_is_no_http_is_said(answer: bytes) -> None:
    with running_socket(lambda connection: connection.sendall(answer)) as url:
        assert "breaks off its answer" in failure(url)


def test_a_broken_connection_is_tried_again() -> None:
    body = json.dumps(completion("yes")[1]).encode()
    answers = [b"", HEAD + b"Content-Length: 500\r\n\r\n{}"]
    answers.append(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    with running_socket(lambda connection: connection.sendall(answers.pop(0))) as url:
        assert ask(client_of(url, retries=2))[0].text == "yes"


def test_a_name_that_is_long_looked_up_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(8))
    before = time.monotonic()
    assert "no answer within" in failure("http://slow.example/v1", timeout=0.5)
    assert time.monotonic() - before < 3


@pytest.mark.parametrize(
    "settings",
    [
        {"timeout": 1e9},
        {"timeout": float("inf")},
        {"timeout": float("nan")},
        {"timeout": 10**400},
        {"timeout": "5"},
        {"concurrency": 10**9},
        {"concurrency": 1.5},
        {"retries": 10**400},
        {"base_url": 7},
        {"base_url": "http://"},
        {"base_url": "http://h:99999/v1"},
        {"base_url": "http://h/v1\n"},
        {"base_url": "file:///etc/passwd"},
    ],
)
def test_settings_out_of_range_are_said_at_once(settings: dict[str, Any]) -> None:
    with pytest.raises(DemurError) as raised:
        Server(**{"base_url": "http://h/v1", **settings})
    assert len(str(raised.value)) < 200


# Redirects, proxies and certificates


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_server_is_refused(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with running_server(lambda _: completion("stolen")) as other:
        place = {"Location": f"{other.url}/chat/completions"}
        message = failure_of((status, "", place), retries=3)
        assert f"redirects to '{other.url}/chat/completions'" in message
        assert other.requests == []
        assert other.keys == []


def test_a_redirect_within_the_server_is_followed() -> None:
    with running_server(lambda _: completion("yes")) as server:
        server.failures = [(307, "", {"Location": "/v1/chat/completions/"})]
        assert ask(client_of(server.url))[0].text == "yes"
        assert len(server.requests) == 2
    assert "not followed" in failure_of((307, "", {"Location": "/v1/round"}))
    assert "not followed" in failure_of((302, "", {"Location": "/login"}))
    assert "not followed" in failure_of((307, "", {"Location": "http://[half"}))


class Heard(SilentProgress):
    def __init__(self) -> None:
        self.said: list[str] = []

    def message(self, text: str) -> None:
        self.said.append(text)


def test_a_proxy_is_said_and_used(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard()
    with running_server(lambda _: completion("through the proxy")) as proxy:
        address = proxy.url.removeprefix("http://").removesuffix("/v1")
        monkeypatch.setenv("http_proxy", f"http://me:pass-word@{address}")
        server = Server("http://model.example/v1", "m")
        server.describe(heard)
        server.describe(heard)
        assert len(heard.said) == 1
        assert f"through the proxy http://{address} (HTTP_PROXY)" in heard.said[0]
        assert "pass-word" not in heard.said[0]
        assert ask(server.client)[0].text == "through the proxy"
        judge = EndpointJudge("m", EndpointSettings("http://model.example/v1"))
        judge.judge(["q"], ["r"], heard)
        assert "http://model.example/v1/ is asked through the proxy" in heard.said[1]
    with running_server(lambda _: (502, "no such user me:pass-word")) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("http://", "http://me:pass-word@"))
        assert "pass-word" not in failure("http://model.example/v1")
    monkeypatch.setenv("http_proxy", f"http://me:pass-word@{address}")
    message = failure("http://model.example/v1")
    assert f"cannot be reached through the proxy http://{address} (HTTP_PROXY)" in message
    assert "pass-word" not in message


@pytest.mark.parametrize("exception", ["127.0.0.1", "127.0.0.0/8", "*", "x.example, 127.0.0.1"])
def test_a_host_in_no_proxy_is_asked_directly(
    exception: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", exception)
    with running_server(lambda _: completion("yes"), ("m",)) as server:
        heard = Heard()
        one = Server(server.url)
        one.describe(heard)
        assert heard.said == []
        assert ask(one.client)[0].text == "yes"


@pytest.mark.parametrize("proxy", ["ftp://127.0.0.1:9", "http://host:port", "nonsense://"])
def test_a_proxy_that_cannot_be_used_is_said(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    assert "proxy" in failure("http://model.example/v1")


def test_a_proxy_that_wants_a_password_is_said() -> None:
    message = failure_of((407, "Proxy Authentication Required"))
    assert "proxy" in message
    assert "status 407" in message


OPENSSL = (
    "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout key.pem -out certificate.pem "
    "-subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    folder = tmp_path_factory.mktemp("tls")
    made = subprocess.run(
        OPENSSL.split(),
        cwd=folder,
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("openssl makes no certificate here")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return context, folder / "certificate.pem"


def test_certificates_and_encryption_are_told_apart(
    tls: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, certificate = tls
    body = json.dumps(completion("yes")[1]).encode()
    answer = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with running_socket(lambda connection: connection.sendall(answer), context) as url:
        message = failure(url, retries=3)
        assert "certificate" in message
        assert "self-signed" in message.replace("self signed", "self-signed")
        assert "SSL_CERT_FILE" in message
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert ask(client_of(url))[0].text == "yes"
        other = url.replace("127.0.0.1", "localhost")
        assert "is not valid for 'localhost'" in failure(other)
        plain = failure(url.replace("https", "http"))
        assert "breaks off its answer" in plain
        assert "try https" in plain
    with running_server(lambda _: completion("yes")) as server:
        message = failure(server.url.replace("http", "https"))
        assert "The encrypted connection to" in message
        assert "https or http" in message
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent/file.pem")
    assert "SSL_CERT_FILE" in failure("https://127.0.0.1:9/v1")


def test_a_certificate_of_the_proxy_is_told_apart(
    tls: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_socket(lambda _: None, tls[0]) as url:
        monkeypatch.setenv("HTTPS_PROXY", url.removesuffix("/v1"))
        message = failure("https://model.example/v1")
    assert "The certificate of https://model.example/v1/, or of the proxy https://" in message


def test_a_server_that_wants_a_certificate_of_the_client_is_said(
    tls: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, certificate = tls
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with running_socket(lambda _: None, context) as url:
        assert "wants a certificate of the client" in failure(url, retries=3)


def test_what_is_no_host_is_said_and_not_tried_again() -> None:
    message = failure("http://999.1.1.1/v1", retries=5)
    assert "999.1.1.1/v1/ is not an address" in message
    assert "times" not in message
    with pytest.raises(DemurError, match="is not a base URL") as raised:
        EndpointSettings(f"http://127.0.0.1:9/{'p' * 100_000}/v1")
    assert len(str(raised.value)) < 300


def test_an_unknown_host_is_said() -> None:
    message = failure("http://no-such-host.invalid/v1")
    assert "The host 'no-such-host.invalid'" in message
    assert "not found" in message


# The key

ECHOES: dict[str, Callable[[str], str]] = {
    "plain": lambda key: f"bad header 'Authorization: Bearer {key}'",
    "upper": lambda key: f"bad key {key.upper()}",
    "address": lambda key: f"GET /?key={quote(key, safe='')}",
    "twice in an address": lambda key: quote(quote(key, safe=""), safe=""),
    "json": lambda key: json.dumps(json.dumps({"key": key})),
    "unicode": lambda key: "".join(f"\\u{ord(character):04x}" for character in key),
    "html": lambda key: key.replace("&", "&amp;"),
    "numbers": lambda key: "".join(f"&#{ord(character)};" for character in key),
    "base64": lambda key: base64.b64encode(f"Bearer {key}".encode()).decode(),
    "hex": lambda key: f"{key}".encode().hex(),
    "taken apart": "\u200b".join,
    "in control characters": lambda key: key.replace("P", "\x1bP").replace("s", "s\x00"),
    "at the cut": lambda key: "x" * 190 + key,
    "often": lambda key: key * 3000,
}


@pytest.mark.parametrize("way", ECHOES)
@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 429, 500])
def test_an_echoed_key_is_never_shown(
    way: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    said = ECHOES[way](KEY)
    bodies: list[Any] = [{"error": {"message": said, "code": said, "param": said}}, said, [said]]
    with running_server(lambda _: (status, bodies[0], {"X-Key": KEY})) as server:
        while bodies:
            server.keys.clear()
            message = failure(server.url)
            bodies.pop(0)
            assert server.keys == [f"Bearer {KEY}"]
            assert_hidden(message)


def assert_hidden(text: str) -> None:
    """No piece of the key of some length is in a text, in whatever form."""
    forms = {KEY, quote(KEY, safe=""), KEY.encode().hex()}
    forms.add(base64.b64encode(f"Bearer {KEY}".encode()).decode())
    for form in forms:
        for start in range(len(form) - 9):
            assert form[start : start + 10].lower() not in text.lower()


def test_an_echoed_key_is_in_no_answer_name_or_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    body = completion(f"Your header is Bearer {KEY}.")[1]
    body["choices"][0]["finish_reason"] = KEY
    with running_server(lambda _: (200, body), (KEY, "m")) as server:
        (answer,) = ask(client_of(server.url))
        assert answer.text == "Your header is Bearer [key]."
        assert answer.finish == "[key]"
        assert Server(server.url).describe(SilentProgress()).name == "m"
    body["choices"][0] = {"message": {"content": None, "refusal": f"no {KEY}"}}
    with running_server(lambda _: (200, body)) as server:
        assert ask(client_of(server.url))[0].text == "no [key]"
    assert_hidden(failure_of((307, "", {"Location": f"http://x.example/?{KEY}"})))
    with running_socket(lambda one: one.sendall(f"{KEY}\r\n\r\n".encode())) as url:
        assert_hidden(failure(url))


def test_the_placeholder_of_a_local_server_stays_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "EMPTY")
    with running_server(lambda _: completion("The glass is empty.")) as server:
        assert ask(client_of(server.url))[0].text == "The glass is empty."


@pytest.mark.parametrize("key", ["sk-\u20ac", "sk-a\nb", "sk-\x07"])
def test_a_key_that_cannot_be_sent_is_said(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(DemurError, match="The key in OPENAI_API_KEY") as raised:
        client_of("http://h/v1")
    assert "sk-" not in str(raised.value)


SECRET_ADDRESSES = [
    "http://me:pass-word@localhost:9/v1",
    "http://t0ken-in@localhost:9/v1",
    "http://localhost:9/v1?api-key=t0ken-in",
    "http://localhost:9/v1?api-version=1&code=t0ken-in",
]


@pytest.mark.parametrize("address", SECRET_ADDRESSES)
@pytest.mark.parametrize(
    "options",
    [
        ["evaluate", "--endpoint", "ADDRESS", "--served-model", "m", "--output", "out"],
        ["evaluate", "--judge", "endpoint:m", "--base-url", "ADDRESS", "--output", "out"],
        ["evaluate", "--harm-judge", "endpoint:m", "--base-url", "ADDRESS", "--output", "out"],
        ["optimize", "--judge", "endpoint:m", "--base-url", "ADDRESS", "--output", "out"],
        ["optimize", "--method", "text", "--endpoint", "ADDRESS", "--output", "out"],
        [
            *("optimize", "--method", "text", "--endpoint", "http://h/v1"),
            *("--proposer-endpoint", "ADDRESS", "--output", "out"),
        ],
    ],
    ids=["server", "judge", "harm", "optimize", "wording", "proposer"],
)
def test_a_secret_in_an_address_is_refused_before_anything_is_written(
    address: str, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = demur(*(address if option == "ADDRESS" else option for option in options))
    assert result.status == 2
    assert "OPENAI_API_KEY" in result.err
    assert "pass-word" not in result.err
    assert "t0ken-in" not in result.err
    assert not (tmp_path / "out").exists()


def test_a_secret_in_what_is_no_address_is_not_shown() -> None:
    for address in ("me:pass-word@host/v1", "htps://me:pass-word@host/v1", "host?key=pass-word"):
        with pytest.raises(DemurError, match="is not a base URL") as raised:
            EndpointSettings(address)
        assert "pass-word" not in str(raised.value)


def test_an_address_may_have_a_query_that_is_no_secret() -> None:
    EndpointSettings("https://h/openai/deployments/m?api-version=2024-10-21")


def test_a_user_and_a_password_take_the_place_of_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = base64.b64encode(b"me:pass-word").decode()
    for key in ("Basic me:pass-word", f"Basic {encoded}", f"basic  {encoded}"):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        with running_server(lambda _: completion("yes")) as server:
            ask(client_of(server.url))
            assert server.keys == [f"Basic {encoded}"]
        for echoed in ("no pass-word", f"no {encoded}", f"no Authorization: Basic {encoded}"):
            message = failure_of((500, {"error": {"message": echoed}}))
            assert "pass-word" not in message
            assert encoded not in message


@pytest.mark.parametrize("name", ["sk-proj-17", "", "a b", "x" * 300, "K\n"])
def test_a_key_in_the_place_of_its_variables_name_is_not_shown(name: str) -> None:
    with pytest.raises(DemurError, match="not the key itself") as raised:
        EndpointSettings("http://h/v1", key_variable=name)
    assert not name or name not in str(raised.value)


def test_secrets_in_the_environments_address_are_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The variable is stored nowhere, so it may hold a password."""
    said = {"error": {"message": "no pass-word for some-user, no t0ken-in"}}
    with running_server(lambda _: (500, said)) as one:
        url = one.url.replace("http://", "http://some-user:pass-word@") + "?auth=t0ken-in"
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        client = EndpointClient("m", EndpointSettings(retries=0), SamplingOptions())
        with pytest.raises(DemurError) as raised:
            ask(client)
        assert one.keys == ["Basic " + base64.b64encode(b"some-user:pass-word").decode()]
    message = str(raised.value)
    assert one.url in message
    for secret in ("pass-word", "some-user", "t0ken-in"):
        assert secret not in message


# The list of models


@pytest.mark.parametrize(
    ("models", "says"),
    [
        ([], "lists no models"),
        (["a\x1b[31m", ""], "lists no models"),
        ([f"model-{number}" + "x" * 500 for number in range(90)], "90 models"),
    ],
)
def test_a_list_of_models_is_not_trusted(models: list[str], says: str) -> None:
    with running_server(lambda _: completion("yes"), tuple(models)) as server:
        with pytest.raises(DemurError, match=says) as raised:
            Server(server.url).describe(SilentProgress())
        assert str(raised.value).isprintable()
        assert len(str(raised.value)) < 600


# Interruptions

PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background jobs
from demur.cli import main
main()
"""


@pytest.mark.parametrize("kind", ["silent", "waiting", "refusing"])
def test_an_interruption_ends_the_command_at_once(kind: str, tmp_path: Path) -> None:
    over = threading.Event()
    (tmp_path / "queries.txt").write_text("\n".join(f"query {row}" for row in range(40)))

    def reply(body: dict[str, Any]) -> Reply:
        if kind == "silent":
            over.wait(60)
        if kind == "waiting":
            return 429, {"error": {"message": "slow"}}, {"Retry-After": "100"}
        if kind == "refusing":
            time.sleep(0.3)
        return 401, {"error": {"message": "no"}}

    with running_server(reply) as server:
        command = [sys.executable, "-c", PROGRAM, "evaluate", "--endpoint", server.url]
        command += ["--served-model", "m", "--timeout", "300", "--retries", "50"]
        command += ["--harmful", "queries.txt", "--harmless", "queries.txt", "--judge", "paper"]
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        wait_for(server, process)
        time.sleep(0.1)
        before, sent = time.monotonic(), len(server.requests)
        process.send_signal(signal.SIGINT)
        try:
            said = process.communicate(timeout=30)[1]
        finally:
            over.set()
            process.kill()
        assert time.monotonic() - before < 4  # two seconds, on a machine that has time
        assert len(server.requests) - sent <= 8  # those that were on their way
        assert process.returncode == 130, said


def wait_for(server: Endpoint, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 120
    while not server.requests and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    assert server.requests


def test_an_interruption_cuts_off_what_is_under_way() -> None:
    """The caller has its interruption within a second, and no further request is made."""
    over = threading.Event()

    class Stage(SilentStage):
        def advance(self, amount: float = 1) -> None:
            if amount:
                raise KeyboardInterrupt

    def reply(body: dict[str, Any]) -> Reply:
        if body["messages"][0]["content"] != "first":
            over.wait(20)
        return completion("yes")

    with running_server(reply) as server:
        client = client_of(server.url, concurrency=4, timeout=100.0)
        requests = [Request([Message("user", text)]) for text in ("first", *"abcdefgh")]
        before = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            client.chat_all(requests, Stage())
        assert time.monotonic() - before < 5
        time.sleep(0.3)
        assert len(server.requests) <= 6
        over.set()
