"""Reaching PostgreSQL: every address of its name is tried, and the message says where and why none answered."""

import asyncio
import contextlib
import errno
import socket
import ssl

import pytest

from proxy.config.sections import PostgresSection
from proxy.demo.servers import HOST, free_port
from proxy.net import dial as module
from proxy.net.dial import ServerAddress, UnreachableError, addresses, dial, receive, tune, unreachable


def section(**settings):
    return PostgresSection().model_copy(update={"host": HOST} | settings)


@pytest.fixture
def resolve(monkeypatch):
    """`resolve(port, …)`: the server's name stands for these ports of this machine."""

    def replace(*ports):
        found = [ServerAddress(socket.AF_INET, (HOST, port)) for port in ports]

        async def resolved(_settings):
            return found

        monkeypatch.setattr(module, "addresses", resolved)
        return found

    return replace


async def test_first_address_that_answers_is_taken(postgres, resolve):
    candidates = resolve(free_port(), postgres.port)
    address, connection = await dial(section())
    with connection:
        assert address == candidates[1]
        assert connection.getpeername()[1] == postgres.port
        assert not connection.getblocking()


async def test_given_address_is_the_only_one_tried(postgres, resolve):
    resolve(free_port())
    given = ServerAddress(socket.AF_INET, (HOST, postgres.port))
    address, connection = await dial(section(), given)
    connection.close()
    assert address == given


async def test_each_reason_is_named_once(resolve):
    resolve(free_port(), free_port())
    with pytest.raises(
        UnreachableError, match=r"^could not connect to PostgreSQL at 127\.0\.0\.1:1: connection refused$"
    ):
        await dial(section(port=1))


async def test_unix_socket_is_reached(postgres):
    address, connection = await dial(section(host=str(postgres.socket_dir), port=postgres.port))
    with connection:
        assert address.family == socket.AF_UNIX
        assert connection.family == socket.AF_UNIX


async def test_missing_unix_socket_is_named_with_its_reason(tmp_path):
    with pytest.raises(UnreachableError, match="no such file or directory") as failure:
        await dial(section(host=str(tmp_path)))
    assert str(tmp_path) in str(failure.value)


async def test_unix_socket_with_a_full_queue_is_tried_until_there_is_room(tmp_path):
    path = tmp_path / ".s.PGSQL.5432"
    settings = section(host=str(tmp_path))
    with socket.socket(socket.AF_UNIX) as server, contextlib.ExitStack() as stack:
        server.bind(str(path))
        server.listen(0)
        while True:
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            try:
                waiting.connect(str(path))
            except BlockingIOError:
                break
        dialing = asyncio.create_task(dial(settings))
        await asyncio.sleep(0.05)
        assert not dialing.done()
        server.accept()[0].close()
        _, connection = await asyncio.wait_for(dialing, 5)
        connection.close()


async def test_unix_socket_that_stays_full_is_given_up_in_time(tmp_path):
    path = tmp_path / ".s.PGSQL.5432"
    with socket.socket(socket.AF_UNIX) as server, contextlib.ExitStack() as stack:
        server.bind(str(path))
        server.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
                waiting.setblocking(False)
                waiting.connect(str(path))
        with pytest.raises(UnreachableError, match=r"no answer within 0\.05 s$"):
            await dial(section(host=str(tmp_path), connect_timeout=0.05))


async def test_running_out_of_descriptors_is_a_reason_in_words(monkeypatch):
    def exhausted(*_arguments):
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", exhausted)
        with pytest.raises(UnreachableError, match="too many open files"):
            await dial(section(), ServerAddress(socket.AF_INET, (HOST, 1)))


async def test_cancelled_dial_leaves_no_socket(resolve):
    resolve(free_port())
    with socket.create_server((HOST, 0), backlog=1) as server:
        resolve(server.getsockname()[1])
        dialing = asyncio.create_task(dial(section()))
        dialing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialing


async def test_name_is_resolved_without_blocking_and_an_address_at_once():
    assert (socket.AF_INET, (HOST, 5432)) in [(a.family, a.sockaddr) for a in await addresses(section())]
    by_name = await addresses(section(host="localhost"))
    assert HOST in [address.sockaddr[0] for address in by_name] or "::1" in [a.sockaddr[0] for a in by_name]


async def test_name_that_stands_for_nothing_is_named():
    with pytest.raises(UnreachableError, match=r"could not connect to PostgreSQL at host\.invalid:5432: \w") as failure:
        await addresses(section(host="host.invalid"))
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError(), "no answer within 10 s"),
        (TimeoutError(errno.ETIMEDOUT, "Connection timed out"), "connection timed out"),
        (ConnectionResetError("the connection was closed"), "the connection was closed"),
        (ssl.SSLError(1, "wrong version number"), "TLS failed: wrong version number"),
    ],
    ids=repr,
)
def test_failure_is_put_in_words(error, reason):
    assert f"could not connect to PostgreSQL at {HOST}:5432: {reason}" in str(unreachable(section(), error))


async def test_receive_takes_exactly_what_it_is_asked_for():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.send(b"abcdef")
        assert await receive(ours, 4) == b"abcd"
        assert ours.recv(10) == b"ef"
        theirs.close()
        with pytest.raises(ConnectionResetError):
            await receive(ours, 1)


def test_options_that_the_system_lacks_are_left_out(monkeypatch):
    for name in ("TCP_KEEPIDLE", "TCP_KEEPALIVE"):
        monkeypatch.delattr(socket, name, raising=False)
    with socket.socket() as connection:
        tune(connection)
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
