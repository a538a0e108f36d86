"""A store that misbehaves to order: an HTTP proxy on 127.0.0.1 in front of a real S3 server.

What befalls a request is drawn from a seed, the request's line and how often it was made before, not from the order in
which requests happen to come: two runs meet the same faults. Signatures of S3 cover the header Host, which is passed
on as it is.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import fsspec
import s3fs

from sarc_ray.object_server import environment_variables

_NOT_PASSED_ON = {"connection", "expect", "keep-alive", "transfer-encoding"}
_UPSTREAM_LIMIT_S = 30


@dataclass(frozen=True, kw_only=True)
class Faults:
    """Shares of requests that fail, and how.

    Attributes:
        unavailable: are answered with 503 (SlowDown, or ServiceUnavailable: both are met).
        stalled: get no answer for ``stall_s``, then the connection is closed; the store never sees them.
        cut: get half of the answer; the store has done what was asked.
    """

    unavailable: float = 0.0
    stalled: float = 0.0
    cut: float = 0.0
    stall_s: float = 5.0
    seed: int = 0

    def of(self, line: str, number: int) -> str:
        """What befalls the request of this line that comes as this number."""
        drawn = random.Random(f"{self.seed} {line} {number}").random()
        for name in ("unavailable", "stalled", "cut"):
            drawn -= getattr(self, name)
            if drawn < 0:
                return name
        return ""


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A request and what became of it. ``key`` is the path without its query, unquoted: ``/bucket/key``."""

    method: str
    key: str
    fault: str
    status: int


# (method, key) to a status and a code of S3's, or None to go on. Status 0 stalls.
Rule = Callable[[str, str], tuple[int, str] | None]


class FaultProxy:
    """Turn its faults on and off while it runs, and look at what came by."""

    def __init__(self, upstream: str) -> None:
        self.faults = Faults()
        self.rule: Rule = lambda method, key: None
        self.exchanges: list[Exchange] = []
        self.stop = threading.Event()
        self._upstream = urlsplit(upstream)
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._server = _Server(self)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @contextlib.contextmanager
    def serving(self) -> Iterator[FaultProxy]:
        """Listen for the length of the block."""
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.stop.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def forget(self) -> None:
        """Forget what came by; what befalls a request goes on from how often it was made."""
        with self._lock:
            self.exchanges.clear()

    def count(self, method: str, within: str = "") -> Counter[str]:
        """Requests by key."""
        with self._lock:
            return Counter(one.key for one in self.exchanges if one.method == method and within in one.key)

    def faults_met(self) -> Counter[str]:
        """Faults by name."""
        with self._lock:
            return Counter(one.fault for one in self.exchanges if one.fault)

    def judge(self, method: str, path: str) -> tuple[str, str]:
        """The key of a request, and the fault that it meets."""
        key = unquote(urlsplit(path).path)
        with self._lock:
            line = f"{method} {path}"
            self._seen[line] += 1
            return key, self.faults.of(line, self._seen[line])

    def note(self, method: str, key: str, fault: str, status: int) -> None:
        """Keep what became of a request."""
        with self._lock:
            self.exchanges.append(Exchange(method=method, key=key, fault=fault, status=status))

    def ask(
        self, method: str, path: str, headers: list[tuple[str, str]], body: bytes
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """Ask the store: its response, and the body of it."""
        connection = http.client.HTTPConnection(self._upstream.hostname, self._upstream.port, timeout=_UPSTREAM_LIMIT_S)
        with contextlib.closing(connection):
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers:
                if name.lower() not in _NOT_PASSED_ON:
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            response = connection.getresponse()
            return response, response.read()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, proxy: FaultProxy) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.proxy = proxy


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):  # the client went away
            super().handle()

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        proxy = self.server.proxy
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        key, fault = proxy.judge(self.command, self.path)
        refusal = proxy.rule(self.command, key)
        if refusal is not None and refusal[0] == 0:
            refusal, fault = None, "stalled"
        elif refusal is not None:
            fault = "refused"
        elif fault == "unavailable":
            refusal = 503, ("SlowDown", "ServiceUnavailable")[len(key) % 2]
        if refusal is not None:
            proxy.note(self.command, key, fault, refusal[0])
            self._refuse(*refusal)
        elif fault == "stalled":
            proxy.note(self.command, key, fault, 0)
            proxy.stop.wait(proxy.faults.stall_s)
            self.close_connection = True
        else:
            self._pass_on(key, body, cut=fault == "cut")

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def _refuse(self, status: int, code: str) -> None:
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code} to order</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _pass_on(self, key: str, body: bytes, *, cut: bool) -> None:
        response, data = self.server.proxy.ask(self.command, self.path, self.headers.items(), body)
        self.server.proxy.note(self.command, key, "cut" if cut else "", response.status)
        if cut and not data:
            self.close_connection = True
            return
        self.send_response_only(response.status, response.reason)
        for name, value in response.headers.items():
            if name.lower() not in (*_NOT_PASSED_ON, "content-length"):
                self.send_header(name, value)
        length = response.headers.get("Content-Length") if self.command == "HEAD" else str(len(data))
        if length is not None and response.status != 204:
            self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)
        self.close_connection = cut or self.close_connection


# A client takes a silent request for lost after a second; its own default of 15 s would make tests wait.
CLIENT = {"config_kwargs": {"read_timeout": 1.0, "connect_timeout": 5.0}}


@contextlib.contextmanager
def faulty(environment: dict[str, str]) -> Iterator[tuple[FaultProxy, dict[str, str]]]:
    """A proxy in front of the S3 server of ``environment``.

    Yields:
        The proxy, and the environment in which programs that are started speak to it.
    """
    proxy = FaultProxy(environment["AWS_ENDPOINT_URL"])
    with proxy.serving():
        yield proxy, {**environment, "AWS_ENDPOINT_URL": proxy.url, "FSSPEC_S3": json.dumps(CLIENT)}


@contextlib.contextmanager
def faulty_here(environment: dict[str, str]) -> Iterator[FaultProxy]:
    """The same, and this process speaks to the proxy for the length of the block."""
    before = fsspec.config.conf.get("s3")
    with faulty(environment) as (proxy, proxied), environment_variables(proxied):
        fsspec.config.conf["s3"] = CLIENT
        s3fs.S3FileSystem.clear_instance_cache()  # an open client keeps the address that it was opened with
        try:
            yield proxy
        finally:
            fsspec.config.conf.pop("s3")
            if before is not None:
                fsspec.config.conf["s3"] = before
            s3fs.S3FileSystem.clear_instance_cache()
