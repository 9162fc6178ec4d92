"""A TCP proxy that does harm: between a client and an HTTP server it cuts, delays, answers itself or loses replies.

It looks into what passes only as far as it must: to see where a request begins, and what it asks for.
"""

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

# Few and short tries, so that a test need not wait for the patience that suits a night's run.
IMPATIENT = '{"config_kwargs": {"retries": {"max_attempts": 2}, "connect_timeout": 3, "read_timeout": 5}}'
_BLOCK_BYTES = 1 << 14
_HEAD_BYTES = 1 << 16


@dataclass
class Fault:
    """What happens to the next requests that `match` ("METHOD /path?query")."""

    match: str
    times: int = 1  # so many of them; -1: all
    cut_sent_after: int = -1  # bytes of the request's body, then both connections are reset
    cut_reply_after: int = -1  # bytes of the reply; 0 loses the reply to what the server has done
    status: int = 0  # what is answered without asking the server
    code: str = "InternalError"  # what S3 calls that
    delay_s: float = 0.0
    bytes_per_s: float = 0.0  # of the reply; 0: as fast as it goes
    n_met: int = 0  # requests that it happened to


@dataclass
class Proxy:
    """A proxy that runs in a thread of its own."""

    host: str
    port: int
    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)  # "METHOD /path?query" of all that came
    is_down: bool = False  # nobody is let in
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, match: str, **what: float | str) -> Fault:
        """Let something go wrong from now on."""
        fault = Fault(match, **what)  # type: ignore[arg-type]
        with self._lock:
            self.faults.append(fault)
        return fault

    def fault_of(self, request: str) -> Fault | None:
        """Return what is to go wrong with a request."""
        with self._lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault.times and re.search(fault.match, request):
                    fault.times -= 1
                    fault.n_met += 1
                    return fault
        return None


@contextmanager
def proxy_to(url: str) -> Iterator[Proxy]:
    """Stand between clients and the server at `url` until the block ends."""
    place = urlsplit(url)
    assert place.hostname
    proxy = Proxy(place.hostname, place.port or 80)
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(
        asyncio.start_server(lambda r, w: _serve(proxy, r, w), "127.0.0.1", 0, limit=_HEAD_BYTES)
    )
    proxy.url = "http://127.0.0.1:{1}".format(*server.sockets[0].getsockname())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.close()
        asyncio.run_coroutine_threadsafe(_end_all(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _end_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _serve(proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    if proxy.is_down:
        writer.transport.abort()
        return
    upstream_reader, upstream = await asyncio.open_connection(proxy.host, proxy.port)
    connection = _Connection(proxy, reader, writer, upstream_reader, upstream)
    with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
        await connection.carry()
    for end in (writer, upstream):
        with suppress(Exception):
            end.close()


class _CutError(ConnectionError):
    """The connections are to be reset now."""


class _Connection:
    """A client's connection and the one to the server that goes with it."""

    def __init__(
        self,
        proxy: Proxy,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        upstream_reader: asyncio.StreamReader,
        upstream: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._reader, self._writer = reader, writer
        self._upstream_reader, self._upstream = upstream_reader, upstream
        self._fault: Fault | None = None
        self._replied = 0  # bytes, to the request that is on

    async def carry(self) -> None:
        """Carry requests and replies until one side ends or a fault cuts it."""
        replies = asyncio.create_task(self._carry_replies())
        try:
            while not replies.done():
                await self._carry_request()
        except _CutError:
            self._reset()
        finally:
            replies.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await replies

    def _reset(self) -> None:
        self._writer.transport.abort()
        self._upstream.transport.abort()

    async def _carry_request(self) -> None:
        head = await self._reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        fault = self._proxy.fault_of(f"{method} {target}")
        self._fault, self._replied = fault, 0
        if fault is not None:
            await asyncio.sleep(fault.delay_s)
            if fault.status:
                await self._answer(fault, head)
                return
        self._upstream.write(head)
        sent = 0
        async for block in _body(self._reader, head):
            if fault is not None and 0 <= fault.cut_sent_after < sent + len(block):
                self._upstream.write(block[: fault.cut_sent_after - sent])
                await self._upstream.drain()
                raise _CutError
            sent += len(block)
            self._upstream.write(block)
            await self._upstream.drain()
        if fault is not None and fault.cut_sent_after >= sent:
            raise _CutError

    async def _answer(self, fault: Fault, head: bytes) -> None:
        """Say no in the server's stead."""
        is_body_kept = b"100-continue" in head.lower()  # the client waits to be told to send it
        if not is_body_kept:
            async for _ in _body(self._reader, head):
                pass
        text = "" if head.startswith(b"HEAD ") else f"<Error><Code>{fault.code}</Code></Error>"
        self._writer.write(
            f"HTTP/1.1 {fault.status} No\r\nContent-Type: application/xml\r\nContent-Length: {len(text)}\r\n"
            f"Connection: {'close' if is_body_kept else 'keep-alive'}\r\n\r\n{text}".encode()
        )
        await self._writer.drain()
        if is_body_kept:
            raise ConnectionError

    async def _carry_replies(self) -> None:
        while block := await self._upstream_reader.read(_BLOCK_BYTES):
            fault = self._fault
            if fault is not None and fault.cut_reply_after >= 0 and b" 100 Continue" not in block:
                self._writer.write(block[: max(fault.cut_reply_after - self._replied, 0)])
                if self._replied + len(block) >= fault.cut_reply_after:
                    await self._writer.drain()
                    self._reset()
                    return
            else:
                self._writer.write(block)
            self._replied += len(block)
            if fault is not None and fault.bytes_per_s:
                await asyncio.sleep(len(block) / fault.bytes_per_s)
            await self._writer.drain()
        self._writer.close()


async def _body(reader: asyncio.StreamReader, head: bytes) -> AsyncIterator[bytes]:
    """Yield the blocks of a request's body as they are on the wire."""
    headers = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
    if b"chunked" in headers.get(b"transfer-encoding", b""):
        while True:
            line = await reader.readuntil(b"\r\n")
            yield line
            size = int(line.split(b";")[0], 16)
            if not size:
                while (trailer := await reader.readuntil(b"\r\n")) != b"\r\n":
                    yield trailer
                yield b"\r\n"
                return
            yield await reader.readexactly(size + 2)
    left = int(headers.get(b"content-length", 0))
    while left:
        block = await reader.read(min(left, _BLOCK_BYTES))
        if not block:
            raise ConnectionError
        left -= len(block)
        yield block
