"""What the tests of staging share: files with what is recorded of them, and a web server that can be made to fail."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import uuid4

from loadmaster_staging.checksum import copy, measure
from loadmaster_staging.manifest import InputFile


def given_file(path: Path, content: bytes = b"bytes", **changed: object) -> InputFile:
    """Write a file, and return it as the input of a job, with `changed` facts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    found = measure(str(path))
    facts = {"url": str(path), "size_bytes": found.size_bytes, "checksum": found.checksum, **changed}
    return InputFile("c", uuid4().hex, "raw", {"visit": 1}, **facts)  # type: ignore[arg-type]


@dataclass
class WebServer:
    """A server on the loopback address, and what to do wrong, path by path."""

    files: dict[str, bytes] = field(default_factory=dict)
    has_ranges: bool = True
    errors: dict[str, int] = field(default_factory=dict)  # so many requests are answered with 500
    cuts: dict[str, list[int]] = field(
        default_factory=dict
    )  # after so many bytes of a body, one for each request
    flips: set[str] = field(default_factory=set)  # the next body has one wrong bit
    delay_s: float = 0.0
    requests: list[tuple[str, str, float]] = field(default_factory=list)  # method, path and time
    sent: dict[str, int] = field(default_factory=dict)  # bytes of bodies
    at_once: int = 0  # bodies under way now
    most_at_once: int = 0
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def file(self, name: str, content: bytes, **changed: object) -> InputFile:
        """Serve a file, and return it as the input of a job."""
        self.files[f"/{name}"] = content
        found = copy(_Bytes(content), None)
        facts = {
            "url": f"{self.url}/{name}",
            "size_bytes": found.size_bytes,
            "checksum": found.checksum,
            **changed,
        }
        return InputFile("c", uuid4().hex, "raw", {"visit": 1}, **facts)  # type: ignore[arg-type]

    def n_got(self, name: str) -> int:
        """How many requests for a file's bytes there were."""
        return sum(method == "GET" and path == f"/{name}" for method, path, _ in self.requests)


class _Bytes:
    def __init__(self, content: bytes) -> None:
        self._left = content

    def read(self, size: int = -1, /) -> bytes:
        block, self._left = self._left, b""
        return block


@contextmanager
def web_server(**settings: object) -> Iterator[WebServer]:
    """Serve until the block ends."""
    state = WebServer(**settings)  # type: ignore[arg-type]

    class Handler(_Handler):
        web = state

    server = _Server(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of connections that were cut."""


class _Handler(BaseHTTPRequestHandler):
    web: WebServer

    def do_HEAD(self) -> None:
        self._answer(is_body_sent=False)

    def do_GET(self) -> None:
        self._answer(is_body_sent=True)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _answer(self, *, is_body_sent: bool) -> None:
        web = self.web
        with web.lock:
            web.requests.append((self.command, self.path, time.time()))
            is_broken = web.errors.get(self.path, 0) > 0
            if is_broken:
                web.errors[self.path] -= 1
        if is_broken:
            self.send_error(500)
        elif self.path not in web.files:
            self.send_error(404)
        else:
            self._send(web.files[self.path], is_body_sent=is_body_sent)

    def _send(self, content: bytes, *, is_body_sent: bool) -> None:
        web, begin, end = self.web, 0, len(content)
        wanted = self.headers.get("Range")
        if wanted and web.has_ranges:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            begin, end = int(first), min(int(last) + 1 if last else end, end)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(content)}")
        else:
            self.send_response(200)
        if web.has_ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{hash(content)}"')
        self.send_header("Content-Length", str(end - begin))
        self.end_headers()
        if is_body_sent:
            self._send_body(content[begin:end])

    def _send_body(self, body: bytes) -> None:
        web = self.web
        with web.lock:
            web.at_once += 1
            web.most_at_once = max(web.most_at_once, web.at_once)
            cuts = web.cuts.get(self.path, [])
            cut = cuts.pop(0) if cuts else None
            if self.path in web.flips:
                web.flips.discard(self.path)
                body = body[:-1] + bytes([body[-1] ^ 1])
        try:
            time.sleep(web.delay_s)
            body = body[:cut]
            self.wfile.write(body)
            with web.lock:
                web.sent[self.path] = web.sent.get(self.path, 0) + len(body)
        finally:
            with web.lock:
                web.at_once -= 1
        if cut is not None:
            self.close_connection = True
            self.connection.close()


def bytes_of(files: Mapping[str, Path]) -> dict[str, bytes]:
    """Return the content of staged inputs."""
    return {dataset: path.read_bytes() for dataset, path in files.items()}
