"""The server as a whole: draining, ending, leaks, refusal to listen, and a reload."""

import asyncio
import contextlib
import errno
import os
import socket
import time
from pathlib import Path

import psycopg
import pytest
from structlog.testing import capture_logs

from protocol import backend, frontend, startup
from protocol.authentication import AuthenticationOk
from proxy.config.sections import ProxySection
from proxy.net import client_connection
from proxy.net import server as module
from proxy.net.dial import UnreachableError
from proxy.net.server import Server
from tests.proxy.conftest import Fault
from tests.proxy.net.bare import (
    RESET,
    SELECT_1,
    open_session,
    read_to_end,
    read_until_ready,
    reset,
    startup_packet,
    wait_for,
)
from tests.script import READY, FakeServer

FDS = Path("/proc/self/fd")


# Ends.


def test_drain_waits_for_sessions_and_accepts_no_new_ones(serve, database):
    server = serve()
    client = server.connect(database)
    draining = asyncio.run_coroutine_threadsafe(server.server.drain(10), server._loop)
    assert server.wait(lambda server: not server._accepting)
    assert client.execute("SELECT 1").fetchone() == (1,)
    assert not draining.done()
    client.close()
    draining.result(5)
    assert server.server.traffic.sessions == 0


@pytest.mark.parametrize("observed", [True, False])
def test_idle_session_is_told_when_the_deadline_of_a_drain_is_over(serve, database, recorder, observed):
    observer = recorder()
    server = serve(lambda *_facts: observer if observed else None)
    with open_session(server, database) as connection:
        connection.sendall(bytes(frontend.Query(b"SELECT 1")))
        read_until_ready(connection)
        began = time.monotonic()
        server.run(server.server.drain(0.2))
        assert 0.15 < time.monotonic() - began < 3
        last = read_to_end(connection)
    assert b"C57P01\0" in last
    assert b"terminating connection due to administrator command" in last
    if observed:
        assert observer.ended.wait(1)
        assert observer.closings == [True]


def test_busy_session_is_cancelled_at_the_deadline_and_its_outcome_seen(serve, database, recorder):
    observer = recorder()
    server = serve(lambda *_facts: observer)
    with open_session(server, database) as connection:
        connection.sendall(bytes(frontend.Query(b"SELECT pg_sleep(60)")))
        time.sleep(0.1)
        server.run(server.server.drain(0.1))
        assert read_to_end(connection) == b""
    assert observer.ended.wait(1)
    assert b"57014" in observer.seen("backend")


def test_session_that_does_not_end_at_the_deadline_is_cut(serve, database, recorder, monkeypatch):
    monkeypatch.setattr(module, "END_TIMEOUT", 0.2)
    observer = recorder()
    server = serve(lambda *_facts: observer)
    with open_session(server, database) as connection:
        # COPY reads from a client that says nothing: no cancel ends that.
        connection.sendall(bytes(frontend.Query(b"CREATE TEMP TABLE t (n int)")))
        connection.recv(65536)
        connection.sendall(bytes(frontend.Query(b"COPY t FROM STDIN")))
        connection.recv(65536)
        server.run(server.server.drain(0.1))
        assert server.server.traffic.sessions == 0
    assert observer.ended.wait(1)


def test_session_of_a_server_that_does_not_react_is_cut(serve, recorder, monkeypatch):
    monkeypatch.setattr(module, "END_TIMEOUT", 0.1)
    observer = recorder()

    def play(peer):
        if isinstance(peer.accept_login(), startup.StartupMessage):
            peer.expect(frontend.Query)
            with contextlib.suppress(ConnectionResetError):
                assert peer.socket.recv(1) == b""
                time.sleep(0.5)

    with FakeServer(play) as fake:
        server = serve(lambda *_facts: observer, settings={"host": fake.host, "port": fake.port, "sslmode": "disable"})
        with open_session(server, "anything") as connection:
            connection.sendall(SELECT_1)
            wait_for(lambda: observer.calls)
            server.run(server.server.drain(0.05))
            assert server.server.traffic.sessions == 0
    assert observer.closings == [False], "what the server did with the statement is not known"


def test_login_under_way_is_cut_by_close(serve):
    server = serve()
    with server.dial() as connection:
        connection.sendall(b"\0")
        assert server.wait(lambda server: len(server._tasks) == 1)
        server.run(server.server.close())
        assert not server.server._tasks
        assert connection.recv(1) == b""


def test_close_cancels_the_statements_it_cuts(serve, database, backends):
    server = serve()
    with open_session(server, database) as connection:
        connection.sendall(bytes(frontend.Query(b"SELECT pg_sleep(60)")))
        time.sleep(0.1)
        assert backends() == 1
        server.run(server.server.close())
        assert read_to_end(connection) == b""
    wait_for(lambda: backends() == 0)


def test_close_does_not_wait_for_cancel_requests_that_hang(serve, database, monkeypatch):
    monkeypatch.setattr(module, "CANCEL_TIMEOUT", 0.05)
    server = serve()

    async def hang(*_arguments):
        await asyncio.sleep(60)

    with open_session(server, database):
        monkeypatch.setattr(server.server.backend, "cancel", hang)
        began = time.monotonic()
        server.run(server.server.close())
        assert time.monotonic() - began < 5
    assert not server.server._tasks


def test_starting_and_stopping_twice_is_like_once(serve, database):
    server = serve()
    server.call(server.server.start)
    with server.connect(database) as client:
        assert client.execute("SELECT 1").fetchone() == (1,)
    for _ in range(2):
        server.call(server.server.stop_accepting)


# Counts.


def test_bytes_of_open_sessions_are_counted(serve, database):
    server = serve()
    with open_session(server, database) as connection:
        connection.sendall(SELECT_1)
        answer = read_until_ready(connection)
        carried = server.call(server.server.carried)
        assert carried.client_bytes == len(SELECT_1)
        assert carried.backend_bytes > len(answer)
        assert server.server.traffic.client_bytes == 0
    assert server.wait(lambda server: server.traffic.client_bytes == len(SELECT_1))


# Faults.


async def failing():
    raise Fault("task")


def test_fault_of_a_task_is_reported(serve):
    server = serve()
    server.call(server.server.spawn, failing(), "failing")
    assert server.fault()[0] == "server"


def test_fault_is_logged_where_it_is_reported_to_no_worker(serve):
    server = serve()
    alone = server.call(lambda: Server(ProxySection(), server.server.backend._settings, lambda *_facts: None, []))
    with capture_logs() as lines:
        server.call(alone.spawn, failing(), "failing")
        assert server.wait(lambda _server: lines)
    assert (lines[0]["event"], lines[0]["where"]) == ("internal error", "server")
    assert isinstance(lines[0]["exc_info"], Fault)


def test_fault_in_a_login_is_reported_and_leaves_no_session(serve, database, monkeypatch):
    def fail(*_arguments, **_named):
        raise Fault("relay")

    monkeypatch.setattr(client_connection, "Relay", fail)
    server = serve()
    with server.dial() as connection:
        connection.sendall(startup_packet(database))
        assert read_to_end(connection) == b""
    assert server.fault()[0] == "server"
    assert server.wait(lambda server: server.traffic.sessions == 0 and server._connections == 0)


def test_statement_that_cannot_be_cancelled_is_logged(serve, database, monkeypatch):
    server = serve()

    async def refuse(*_arguments):
        raise UnreachableError("could not connect")

    with open_session(server, database) as connection, capture_logs() as lines:
        monkeypatch.setattr(server.server.backend, "cancel", refuse)
        connection.sendall(bytes(frontend.Query(b"SELECT pg_sleep(2)")))
        time.sleep(0.1)
        reset(connection)
        assert server.wait(lambda _server: lines)
    assert lines[0]["event"] == "a statement without its client could not be cancelled"
    assert lines[0]["reason"] == "could not connect"
    server.run(server.server.close())


def test_session_of_a_server_without_cancel_keys_is_relayed(serve):
    def play(peer):
        peer.read_packet()
        peer.send(AuthenticationOk(), READY)
        peer.expect(frontend.Query)
        peer.send(backend.CommandComplete(b"SELECT 0"), READY)
        assert peer.socket.recv(1) == b""

    with FakeServer(play) as fake:
        server = serve(settings={"host": fake.host, "port": fake.port, "sslmode": "disable"})
        with open_session(server, "anything") as connection:
            connection.sendall(SELECT_1)
            read_until_ready(connection)
            assert not server.server._addresses
        assert server.wait(lambda server: server.traffic.sessions == 0)


# Leaks.


@pytest.mark.skipif(not FDS.exists(), reason="open files are counted in /proc")
def test_connections_of_every_kind_leave_nothing_behind(serve, database, recorder):
    server = serve(lambda *_facts: recorder())
    query = startup_packet(database) + bytes(frontend.Query(b"SELECT 1")) + bytes(frontend.Terminate())

    def play(kind):
        with server.dial() as connection:
            if kind == 0:
                connection.sendall(b"\0")
            elif kind == 1:
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            elif kind == 2:
                connection.sendall(bytes(startup.SSLRequest()))
                connection.recv(1)
            elif kind == 3:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def settle():
        assert server.wait(lambda server: not server._tasks and server.traffic.sessions == 0)
        assert server.wait(lambda server: server._connections == 0)
        time.sleep(0.1)
        server.observed.clear()
        links = {path.name: str(path.readlink()) for path in FDS.iterdir() if path.is_symlink()}
        return {name: link for name, link in links.items() if not link.endswith("/fd")}, server.call(asyncio.all_tasks)

    play(0)
    with server.dial() as connection:
        connection.sendall(query)
        read_to_end(connection)
    before, _ = settle()
    for number in range(3000):
        play(number % 5)
    for number in range(100):
        with server.dial() as connection:
            connection.sendall(query if number % 3 else startup_packet(database))
            if number % 2:
                (read_to_end if number % 3 else lambda found: found.recv(10))(connection)
    after, tasks = settle()
    assert after == before
    assert len(tasks) == 1
    assert not server.server._relays
    assert not server.server._addresses


class Refusing:
    """A listener whose first `times` calls of `accept` fail with error number `number`."""

    def __init__(self, listener, number, times):
        self.listener, self.number, self.left = listener, number, times

    def fileno(self):
        return self.listener.fileno()

    def accept(self):
        if self.left:
            self.left -= 1
            raise OSError(self.number, os.strerror(self.number))
        return self.listener.accept()


def refuse(server, number, times=2):
    """Have the listeners of `server` fail."""

    def replace():
        server.server.stop_accepting()
        server.server._listeners = [Refusing(listener, number, times) for listener in server.server._listeners]
        server.server.start()

    server.call(replace)


def test_accepting_goes_on_after_descriptors_ran_out(serve, database, monkeypatch):
    monkeypatch.setattr(module, "ACCEPT_PAUSE", 0.1)
    server = serve()
    with capture_logs() as lines:
        refuse(server, errno.EMFILE)
        with server.connect(database) as client:
            assert client.execute("SELECT 1").fetchone() == (1,)
    assert [line["reason"] for line in lines] == ["too many open files"] * 2


def test_accepting_goes_on_after_another_error(serve, database):
    server = serve()
    with capture_logs() as lines:
        refuse(server, errno.EPROTO)
        with server.connect(database) as client:
            assert client.execute("SELECT 1").fetchone() == (1,)
    assert [line["event"] for line in lines] == ["accepting failed"] * 2


def test_pause_after_descriptors_ran_out_ends_when_accepting_stops(serve, database, monkeypatch):
    monkeypatch.setattr(module, "ACCEPT_PAUSE", 60)
    server = serve()
    refuse(server, errno.ENFILE)
    with server.dial():
        assert server.wait(lambda server: server._pause is not None)
        server.call(server.server.stop_accepting)
        server.call(server.server.start)
        assert server.wait(lambda server: server._pause is not None), "it is tried again at once"
    server.call(server.server.stop_accepting)


def test_worker_that_shares_its_listeners_accepts_one_connection_a_turn(serve, database):
    server = serve()
    server.server._burst = 1
    clients = [server.connect(database) for _ in range(3)]
    for client in clients:
        assert client.execute("SELECT 1").fetchone() == (1,)
        client.close()


def test_unfinished_logins_beyond_the_limit_are_closed_at_once(serve, database):
    server = serve(max_connections=1)
    allowed = 2 * 1 + module.BURST + 1
    with contextlib.ExitStack() as stack, capture_logs() as lines:
        opened = [stack.enter_context(server.dial()) for _ in range(allowed + 5)]
        for connection in opened[allowed:]:
            assert read_to_end(connection) == b""
        assert server.wait(lambda server: server._connections == allowed)
    assert {line["reason"] for line in lines} == {"too many unfinished logins"}
    assert server.wait(lambda server: server._connections == 0)


def test_reload_applies_to_connections_that_come_after_it(serve, database):
    server = serve()
    with server.connect(database) as client:
        proxy = ProxySection(max_connections=1)
        server.call(server.server.configure, proxy, server.server.backend._settings)
        with pytest.raises(psycopg.OperationalError, match="too many clients"):
            server.connect(database)
        assert client.execute("SELECT 1").fetchone() == (1,)
