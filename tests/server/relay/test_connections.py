"""HTTP/1.1 to workers: kept connections, limits of time and size, and what is no HTTP."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path

import pytest
import uvloop

from server.edge.addresses import PRIVATE_NETWORKS, Addresses
from server.relay import connections
from server.relay.connections import (
    MOST_OVERHEAD,
    MOST_WAITING,
    BrokenAnswer,
    CannotConnect,
    Connection,
    Connections,
)
from tests.server.conftest import until

OK = b"HTTP/1.1 200 OK\r\n"
HELLO = OK + b"Content-Length: 5\r\n\r\nHello"


@pytest.fixture(params=["asyncio", "uvloop"], autouse=True, scope="module")
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    """The tests' loop, and the server's own: their transports differ."""
    return (
        uvloop.EventLoopPolicy() if request.param == "uvloop" else asyncio.DefaultEventLoopPolicy()
    )


Write = Callable[[bytes], Awaitable[None]]
Answer = Callable[[Write], Awaitable[None]]


@dataclass
class Site:
    """A server that answers requests as told, and what it saw."""

    answer: Answer
    requests: list[bytes] = field(default_factory=list)
    open: int = 0
    opened: int = 0
    readers: list[asyncio.StreamReader] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/chat"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open, self.opened = self.open + 1, self.opened + 1
        self.readers.append(reader)
        self.writers.append(writer)

        async def write(data: bytes) -> None:
            writer.write(data)
            await writer.drain()

        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
                self.requests.append(head + await reader.readexactly(length))
                await self.answer(write)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def site(answer: Answer | bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[Site]:
    async def always(write: Write) -> None:
        assert isinstance(answer, bytes)
        await write(answer)

    here = Site(always if isinstance(answer, bytes) else answer)
    server = await asyncio.start_server(here.serve, "127.0.0.1", 0, ssl=tls)
    here.port = server.sockets[0].getsockname()[1]
    yield here
    server.close()
    for writer in here.writers:
        writer.transport.abort()


async def post(
    pool: Connections, url: str, silence: float = 2.0, total: float | None = None
) -> Connection:
    return await pool.post(url, b"{}", {"X-One": "1"}, connect=2.0, silence=silence, total=total)


async def body_of(answer: Connection) -> bytes:
    parts = []
    while part := await answer.read():
        parts.append(part)
    return b"".join(parts)


async def ask(pool: Connections, url: str) -> tuple[int, bytes]:
    """Status and body of one answer."""
    answer = await post(pool, url)
    try:
        return await answer.head(), await body_of(answer)
    finally:
        answer.release()


# ---------------------------------------------------------------- requests and answers


async def test_what_a_request_says() -> None:
    async with site(HELLO) as here, Connections() as pool:
        url = f"http://127.0.0.1:{here.port}/a b/v1/chat"
        assert await ask(pool, url) == (200, b"Hello")
        assert here.requests == [
            b"POST /a%%20b/v1/chat HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nX-One: 1\r\n"
            b"Content-Length: 2\r\n\r\n{}" % here.port
        ]


async def test_an_operators_url_may_have_a_password() -> None:
    async with site(HELLO) as here, Connections() as pool:
        await ask(pool, here.url.replace("127.0.0.1", "me:secr%65t@127.0.0.1"))
        assert b"\r\nAuthorization: Basic bWU6c2VjcmV0\r\n" in here.requests[0]


@pytest.mark.parametrize(
    ("sent", "body"),
    [
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nHe\r\n3\r\nllo\r\n0\r\n\r\n", b"Hello"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + HELLO, b"Hello"),
        (OK + b"Content-Length: 0\r\n\r\n", b""),
    ],
)
async def test_a_body_ends_where_it_says(sent: bytes, body: bytes) -> None:
    async with site(sent) as here, Connections() as pool:
        for _ in range(2):
            assert await ask(pool, here.url) == (200, body)
        assert here.opened == 1


async def test_a_body_without_length_ends_with_the_connection() -> None:
    async def answer(write: Write) -> None:
        await write(OK + b"\r\nHello")
        here.writers[-1].close()

    async with site(answer) as here, Connections() as pool:
        for _ in range(2):
            assert await ask(pool, here.url) == (200, b"Hello")
        assert here.opened == 2


async def test_what_came_before_a_cut_is_read_first() -> None:
    async def answer(write: Write) -> None:
        await write(OK + b"Content-Length: 9\r\n\r\nHello")
        here.writers[-1].close()

    async with site(answer) as here, Connections() as pool:
        answered = await post(pool, here.url)
        await until(lambda: not here.open)
        assert await answered.read() == b"Hello"
        with pytest.raises(BrokenAnswer):
            await answered.read()
        answered.release()


@pytest.mark.parametrize(
    "sent",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nHello",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        OK + b"X-Long: " + b"x" * (MOST_OVERHEAD + 1),
        OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * MOST_OVERHEAD,
    ],
)
async def test_what_is_no_answer_is_broken(sent: bytes) -> None:
    async with site(sent) as here, Connections() as pool:
        with pytest.raises(BrokenAnswer):
            await ask(pool, here.url)
        await until(lambda: not here.open)


# ---------------------------------------------------------------- kept connections


async def test_there_are_as_many_connections_as_requests() -> None:
    async with site(HELLO) as here, Connections() as pool:
        answers = [await post(pool, here.url) for _ in range(150)]
        assert here.opened == 150
        for answer in answers:
            assert await body_of(answer) == b"Hello"
            answer.release()
        await ask(pool, here.url)
        assert here.opened == 150
    await until(lambda: not here.open)


async def test_an_answer_that_is_left_closes_its_connection() -> None:
    async with site(OK + b"Content-Length: 9\r\n\r\nHello") as here, Connections() as pool:
        answer = await post(pool, here.url)
        assert await answer.read() == b"Hello"
        answer.release()
        await until(lambda: not here.open)


@pytest.mark.parametrize(
    "sent",
    [
        OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nHello",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nHello",
        HELLO + HELLO,
    ],
)
async def test_connections_that_are_not_used_again(sent: bytes) -> None:
    async with site(sent) as here, Connections() as pool:
        for _ in range(2):
            assert await ask(pool, here.url) == (200, b"Hello")
        assert here.opened == 2


async def test_what_a_worker_says_unasked_closes_the_connection() -> None:
    async with site(HELLO) as here, Connections() as pool:
        await ask(pool, here.url)
        here.writers[0].write(HELLO)
        await until(lambda: not here.open)
        assert await ask(pool, here.url) == (200, b"Hello")


async def test_a_connection_that_its_worker_closed_is_forgotten() -> None:
    async with site(HELLO) as here, Connections() as pool:
        await ask(pool, here.url)
        here.writers[0].close()
        await until(lambda: not any(pool._idle.values()))
        assert await ask(pool, here.url) == (200, b"Hello")
        assert here.opened == 2


async def test_a_connection_that_was_closed_when_it_was_used_again_is_stale() -> None:
    async def answer(write: Write) -> None:
        if len(here.requests) in (1, 4):
            await write(HELLO)
        elif len(here.requests) == 5:
            await write(OK)  # it has begun to answer
            here.writers[-1].close()
        else:
            here.writers[-1].transport.abort()

    async with site(answer) as here, Connections() as pool:
        stale = []
        for _ in range(5):
            answered = await post(pool, here.url)
            with suppress(OSError):
                await answered.head()
                await body_of(answered)
            stale.append(answered.stale)
            answered.release()
        assert stale == [False, True, False, False, False]


async def test_old_connections_to_other_workers_are_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of one whose machine is gone nobody hears."""
    async with site(HELLO) as left, site(HELLO) as here, Connections() as pool:
        await ask(pool, left.url)
        monkeypatch.setattr(connections, "KEEP_SECONDS", -1.0)
        await ask(pool, here.url)
        await until(lambda: not left.open)


async def test_an_old_connection_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with site(HELLO) as here, Connections() as pool:
        await ask(pool, here.url)
        monkeypatch.setattr(connections, "KEEP_SECONDS", -1.0)
        await ask(pool, here.url)
        assert here.opened == 2
        await until(lambda: here.open == 1)


# ---------------------------------------------------------------- time


async def test_silence_before_the_answer() -> None:
    async def answer(write: Write) -> None:
        await here.readers[-1].read()  # until the other end closes

    async with site(answer) as here, Connections() as pool:
        answer = await post(pool, here.url, silence=0.02)
        with pytest.raises(TimeoutError):
            await answer.head()
        answer.release()
        await until(lambda: not here.open)


async def test_silence_in_the_middle() -> None:
    async def answer(write: Write) -> None:
        await write(OK + b"Content-Length: 9\r\n\r\n")
        for _ in range(5):
            await asyncio.sleep(0.03)
            await write(b"x")
        await here.readers[-1].read()

    async with site(answer) as here, Connections() as pool:
        answered = await post(pool, here.url)
        assert await answered.head() == 200
        answered.limit_silence(0.1)  # less than all that comes takes
        for _ in range(5):
            assert await answered.read() == b"x"
        with pytest.raises(TimeoutError):
            await answered.read()
        answered.release()


async def test_the_time_for_everything() -> None:
    async def answer(write: Write) -> None:
        await write(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        while True:
            await write(b"1\r\nx\r\n")
            await asyncio.sleep(0.01)

    async with site(answer) as here, Connections() as pool:
        answered = await post(pool, here.url, total=0.1)
        with pytest.raises(TimeoutError):
            await body_of(answered)
        answered.release()


async def test_a_worker_waits_for_a_slow_reader_and_is_not_called_silent() -> None:
    size, sent = 64 * MOST_WAITING, 0

    async def answer(write: Write) -> None:
        nonlocal sent
        await write(OK + b"Content-Length: %d\r\n\r\n" % size)
        for _ in range(64):
            await write(b"x" * MOST_WAITING)
            sent += MOST_WAITING

    async with site(answer) as here, Connections() as pool:
        answered = await post(pool, here.url, silence=0.05)
        assert await answered.head() == 200
        await asyncio.sleep(0.2)
        assert sent < size
        assert len(await body_of(answered)) == size
        answered.release()


async def test_a_connection_that_was_not_read_to_its_end_is_not_used_again() -> None:
    """It may have been told to read no more, and the next answer there would never be heard."""
    size = MOST_WAITING + 1

    async def answer(write: Write) -> None:
        await write(OK + b"Content-Length: %d\r\n\r\n" % size + b"x" * size)

    async with site(answer) as here, Connections() as pool:
        for _ in range(3):
            answered = await post(pool, here.url)
            assert await answered.head() == 200
            await until(lambda answered=answered: answered._whole)
            answered.release()
        assert await ask(pool, here.url) == (200, b"x" * size)


# ---------------------------------------------------------------- whom to connect to


async def test_nobody_is_there() -> None:
    async with site(HELLO) as here:
        pass
    async with Connections() as pool:
        with pytest.raises(CannotConnect):
            await ask(pool, here.url)
        with pytest.raises(CannotConnect):
            await ask(pool, "http://no.such.name.invalid/v1")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_addresses_are_checked_when_connecting(host: str) -> None:
    async with site(HELLO) as here:
        url = here.url.replace("127.0.0.1", host)
        async with Connections(Addresses([ip_network("10.0.0.0/8")])) as pool:
            with pytest.raises(CannotConnect):
                await ask(pool, url)
        assert not here.opened
        for permitted in (
            Addresses(PRIVATE_NETWORKS),
            Addresses([ip_network("10.0.0.0/8")], own_urls=[url]),
        ):
            async with Connections(permitted) as pool:
                assert await ask(pool, url) == (200, b"Hello")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A file with a key and a certificate of localhost."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    file = tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    made = subprocess.run([*command, "-keyout", "-"], check=True, capture_output=True)
    file.write_bytes(made.stdout)
    return file


@pytest.mark.parametrize("addresses", [None, Addresses(PRIVATE_NETWORKS)])
async def test_certificates_are_checked(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, addresses: Addresses | None
) -> None:
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(certificate)
    async with site(HELLO, own) as here, Connections(addresses) as pool:
        url = f"https://localhost:{here.port}/v1/chat"
        with pytest.raises(CannotConnect):
            await ask(pool, url)
        trusting = ssl.create_default_context(cafile=str(certificate))
        monkeypatch.setattr(connections, "_tls", lambda: trusting)
        for _ in range(2):
            assert await ask(pool, url) == (200, b"Hello")
        with pytest.raises(CannotConnect):  # the name is another one
            await ask(pool, url.replace("localhost", "127.0.0.1"))
