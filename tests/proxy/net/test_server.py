"""The server as a whole: draining, ending, leaks, refusal to listen, and a reload."""

import asyncio
import socket
import time
from pathlib import Path

import psycopg
import pytest

from protocol import codes, frontend, startup
from proxy.config.sections import ProxySection
from proxy.net import server as module

FDS = Path("/proc/self/fd")


def greeting(database):
    pairs = ((b"user", b"postgres"), (b"database", database.encode()))
    return bytes(startup.StartupMessage(codes.PROTOCOL_3_0, pairs))


def session(server, database):
    connection = server.dial()
    connection.sendall(greeting(database))
    data = b""
    while data[-6:-1] != b"Z\0\0\0\5":
        data += connection.recv(65536)
    return connection


def read_to_end(connection):
    data = b""
    while chunk := connection.recv(65536):
        data += chunk
    return data


# Ends.


def test_drain_waits_for_sessions_and_takes_no_new_ones(serve, database):
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
def test_idle_sessions_left_at_the_deadline_are_told(serve, database, recorder, observed):
    observer = recorder()
    server = serve(lambda *_facts: observer if observed else None)
    with session(server, database) as connection:
        connection.sendall(bytes(frontend.Query(b"SELECT 1")))
        data = b""
        while data[-6:-1] != b"Z\0\0\0\5":
            data += connection.recv(65536)
        began = time.monotonic()
        server.run(server.server.drain(0.2))
        assert 0.15 < time.monotonic() - began < 3
        last = read_to_end(connection)
    assert b"C57P01\0" in last
    assert b"terminating connection due to administrator command" in last
    if observed:
        assert observer.ended.wait(1)
        assert observer.closings == [True]


def test_a_busy_session_at_the_deadline_is_cancelled_and_its_outcome_seen(serve, database, recorder):
    observer = recorder()
    server = serve(lambda *_facts: observer)
    with session(server, database) as connection:
        connection.sendall(bytes(frontend.Query(b"SELECT pg_sleep(60)")))
        time.sleep(0.1)
        server.run(server.server.drain(0.1))
        assert read_to_end(connection) == b""
    assert observer.ended.wait(1)
    assert b"57014" in observer.seen("backend")


def test_sessions_that_do_not_end_are_cut(serve, database, recorder, monkeypatch):
    monkeypatch.setattr(module, "END_TIMEOUT", 0.2)
    observer = recorder()
    server = serve(lambda *_facts: observer)
    with session(server, database) as connection:
        # COPY reads from a client that says nothing: no cancel ends that.
        connection.sendall(bytes(frontend.Query(b"CREATE TEMP TABLE t (n int)")))
        connection.recv(65536)
        connection.sendall(bytes(frontend.Query(b"COPY t FROM STDIN")))
        connection.recv(65536)
        server.run(server.server.drain(0.1))
        assert server.server.traffic.sessions == 0
    assert observer.ended.wait(1)


def test_logins_under_way_are_cut_by_close(serve):
    server = serve()
    with server.dial() as connection:
        connection.sendall(b"\0")
        assert server.wait(lambda server: len(server._tasks) == 1)
        server.run(server.server.close())
        assert not server.server._tasks
        assert connection.recv(1) == b""


# Leaks.


@pytest.mark.skipif(not FDS.exists(), reason="open files are counted in /proc")
def test_no_connection_leaves_anything_behind(serve, database, recorder):
    server = serve(lambda *_facts: recorder())
    query = greeting(database) + bytes(frontend.Query(b"SELECT 1")) + bytes(frontend.Terminate())

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
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

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
            connection.sendall(query if number % 3 else greeting(database))
            if number % 2:
                (read_to_end if number % 3 else lambda found: found.recv(10))(connection)
    after, tasks = settle()
    assert after == before
    assert len(tasks) == 1
    assert not server.server._relays
    assert not server.server._addresses


def test_running_out_of_descriptors_is_survived(serve, database, monkeypatch):
    monkeypatch.setattr(module, "ACCEPT_PAUSE", 0.1)
    server = serve()

    class Exhausted:
        def __init__(self, listener):
            self.listener, self.left = listener, 2

        def fileno(self):
            return self.listener.fileno()

        def accept(self):
            if self.left:
                self.left -= 1
                raise OSError(24, "Too many open files")
            return self.listener.accept()

    def replace():
        server.server.stop_accepting()
        server.server._listeners = [Exhausted(listener) for listener in server.server._listeners]
        server.server.start()

    server.call(replace)
    with server.connect(database) as client:
        assert client.execute("SELECT 1").fetchone() == (1,)


def test_reload_changes_what_is_to_come(serve, database):
    server = serve()
    with server.connect(database) as client:
        proxy = ProxySection(max_connections=1)
        server.call(server.server.configure, proxy, server.server.backend._settings)
        with pytest.raises(psycopg.OperationalError, match="too many clients"):
            server.connect(database)
        assert client.execute("SELECT 1").fetchone() == (1,)
