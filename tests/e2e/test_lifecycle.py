"""How sessions, and the process itself, end: clients that vanish, a server that goes, limits, signals, leaks."""

import contextlib
import ctypes
import os
import signal
import socket
import struct
import threading
import time
from pathlib import Path

import psycopg
import pytest

from protocol import backend, codes, frontend, startup
from protocol.copy_data import CopyData
from proxy.demo.servers import HOST
from tests.depth import depth, patient
from tests.e2e import programs
from tests.e2e.dialogues import await_message, log_in, read_to_end, reset, start_packet, values
from tests.e2e.processes import MIB, descriptors, eventually, needs_proc, resident
from tests.script import READY, Client

USERS = {"name": "users", "key": "id", "value": "name", "redis_key": "users:{id}"}
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


def sessions(connection):
    return connection.execute(SESSIONS).fetchone()[0]


# Clients that vanish.

BUSY = [
    b"SELECT pg_sleep(3600)",
    b"SELECT count(*) FROM generate_series(1, 10000000000)",
    b"SELECT repeat('x', 1000000) FROM generate_series(1, 1000000)",
    b"COPY (SELECT repeat('x', 1000) FROM generate_series(1, 100000000)) TO STDOUT",
    b"BEGIN; SELECT pg_advisory_xact_lock(4711); SELECT pg_sleep(3600)",
]


@pytest.mark.parametrize("way", [reset, Client.close])
def test_clients_gone_in_the_middle_leave_no_orphans(rowtap, connect, way):
    proxy, watch = rowtap([USERS]), connect()
    clients = [log_in(proxy) for _ in BUSY]
    for client, query in zip(clients, BUSY, strict=True):
        client.send(frontend.Query(query))
    eventually(lambda: watch.execute(SESSIONS + " AND state = 'active'").fetchone() == (len(BUSY),))
    for client in clients:
        way(client)
    eventually(lambda: sessions(watch) == 0, 4, why="a statement outlived its client")
    eventually(lambda: proxy.status()["sessions"] == 0)


def test_a_client_gone_in_the_middle_of_copy_in_leaves_no_orphan_and_no_rows(rowtap, connect):
    proxy, watch = rowtap([USERS]), connect()
    watch.execute("CREATE TABLE plain (note text)")
    client = log_in(proxy)
    client.send(frontend.Query(b"COPY plain FROM STDIN"), CopyData(b"never\n" * 10_000))
    client.expect(backend.CopyInResponse)
    client.close()
    eventually(lambda: sessions(watch) == 0, 5)
    assert watch.execute("SELECT count(*) FROM plain").fetchone() == (0,)


def test_an_idle_transaction_ends_with_its_client(rowtap, connect, redis_client):
    proxy, watch = rowtap([USERS]), connect()
    watch.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    watch.execute("INSERT INTO users VALUES (1, 'Ada')")
    with log_in(proxy) as client:
        client.query("SELECT id, name FROM users")
        client.query("BEGIN; UPDATE users SET name = 'never' WHERE id = 1")
        reset(client)
    eventually(lambda: sessions(watch) == 0, 5)
    eventually(lambda: proxy.status()["sessions"] == 0)
    proxy.settle()
    assert redis_client.get("users:1") in (b"Ada", None)
    watch.execute("UPDATE users SET name = 'no lock is left' WHERE id = 1")


def test_a_killed_psql_leaves_no_orphan(rowtap, connect):
    proxy, watch = rowtap([USERS]), connect()
    running = programs.start("psql", "-X", "-c", "SELECT pg_sleep(3600)", port=proxy.port, database=proxy.database)
    eventually(lambda: watch.execute(SESSIONS + " AND state = 'active'").fetchone() == (1,))
    running.kill()
    running.wait(10)
    eventually(lambda: sessions(watch) == 0, 5)


def test_half_closed_clients_get_their_answers(rowtap, connect):
    """All of the answer, then the end of the stream, and the session is gone."""
    proxy, watch = rowtap([USERS]), connect()
    with log_in(proxy) as client:
        client.send(
            frontend.Query(b"SELECT 'first' FROM pg_sleep(0.5)"),
            frontend.Query(b"SELECT repeat('x', 1000000) FROM generate_series(1, 5)"),
        )
        client.half_close()
        client.expect(backend.RowDescription, backend.DataRow([b"first"]), backend.CommandComplete, READY)
        assert [len(row[0]) for row in values(client.receive_until(backend.ReadyForQuery))] == [1_000_000] * 5
        client.expect_end()
    eventually(lambda: sessions(watch) == 0)


# A server that goes.


def test_a_server_restart_is_told_in_the_servers_own_words(rowtap, postgres, connect):
    proxy = rowtap([USERS])
    with log_in(proxy) as idle, log_in(proxy) as busy:
        busy.send(frontend.Query(b"SELECT pg_sleep(3600)"))
        time.sleep(0.2)
        postgres.stop("fast")
        for client in (idle, busy):
            last = await_message(client, backend.ErrorResponse)
            assert (last.severity, last.sqlstate) == (b"FATAL", b"57P01")
            assert last.message == b"terminating connection due to administrator command"
            client.expect_end()
    with pytest.raises(psycopg.OperationalError, match="could not connect to PostgreSQL") as refused:
        proxy.connect()
    assert f"{HOST}:{postgres.port}: connection refused" in str(refused.value)
    with Client(proxy.host, proxy.port) as client:
        client.send(startup.StartupMessage(codes.PROTOCOL_3_0, ((b"user", b"postgres"),)))
        error = await_message(client, backend.ErrorResponse)
        assert (error.severity, error.sqlstate) == (b"FATAL", b"08006")
        client.expect_end()
    eventually(lambda: proxy.get("/readyz")[0] == 503)
    assert proxy.get("/healthz")[0] == 200
    eventually(lambda: proxy.status()["sessions"] == 0)
    postgres.start()
    assert proxy.connect().execute("SELECT 1").fetchone() == (1,)
    eventually(lambda: proxy.get("/readyz")[0] == 200)


@pytest.mark.parametrize("how", ["immediate", "kill"])
def test_a_server_that_crashes(rowtap, postgres, redis_client, connect, how):
    direct = connect()
    direct.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    direct.execute("INSERT INTO users VALUES (1, 'Ada')")
    proxy = rowtap([USERS])
    with log_in(proxy) as idle, log_in(proxy) as writer:
        idle.query("SELECT id, name FROM users")
        proxy.settle()
        assert redis_client.get("users:1") == b"Ada"
        writer.send(frontend.Query(b"UPDATE users SET name = 'who knows' WHERE id = 1 AND pg_sleep(3600) IS NULL"))
        time.sleep(0.2)
        postgres.kill() if how == "kill" else postgres.stop("immediate")
        if how == "immediate":
            for client in (idle, writer):
                last = await_message(client, backend.NoticeResponse)
                assert last.message == b"terminating connection due to immediate shutdown command"
        idle.expect_end()
        writer.expect_end()
    eventually(lambda: proxy.status()["sessions"] == 0)
    proxy.settle()
    # Nobody can say what became of it.
    assert redis_client.get("users:1") is None
    with pytest.raises(psycopg.OperationalError, match="could not connect to PostgreSQL"):
        proxy.connect()
    postgres.start()
    client = proxy.connect()
    assert client.execute("SELECT id, name FROM users").fetchall() == [(1, "Ada")]
    proxy.settle()
    assert redis_client.get("users:1") in (b"Ada", None)


def test_a_backend_that_is_terminated(rowtap, connect):
    proxy, watch = rowtap([USERS]), connect()
    with log_in(proxy) as client, log_in(proxy) as other:
        ((process_id,),) = values(client.query("SELECT pg_backend_pid()"))
        watch.execute("SELECT pg_terminate_backend(%s)", [int(process_id)])
        last = await_message(client, backend.ErrorResponse)
        assert last.sqlstate == b"57P01"
        client.expect_end()
        assert other.query("SELECT 1")[-1] == READY


# Sockets.


def sockets_of(pid):
    """Duplicates of the TCP connections another process has."""
    library = ctypes.CDLL(None, use_errno=True)
    pidfd = os.pidfd_open(pid)
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            if not str(entry.readlink()).startswith("socket:"):
                continue
            found = library.syscall(ctypes.c_long(438), pidfd, int(entry.name), 0)  # pidfd_getfd, everywhere
            if found < 0:
                pytest.skip(f"this kernel lets nobody look at another's sockets: {os.strerror(ctypes.get_errno())}")
            with socket.socket(fileno=found) as connection:
                if connection.family == socket.AF_INET:
                    yield connection
    finally:
        os.close(pidfd)


@needs_proc
def test_keepalive_and_no_delay_on_both_legs(rowtap):
    proxy = rowtap([USERS])
    with log_in(proxy):
        seen = {}
        for connection in sockets_of(proxy.pid):
            with contextlib.suppress(OSError):
                peer, own = connection.getpeername()[1], connection.getsockname()[1]
                leg = {proxy.port: "client", proxy.admin_port: None}.get(own) or (
                    "backend" if peer == proxy.config["postgres"]["port"] else None
                )
                if leg:
                    seen[leg] = (
                        connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY),
                        connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                        connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
                        connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
                        connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
                    )
    assert seen == {"client": (1, 1, 60, 10, 6), "backend": (1, 1, 60, 10, 6)}


# Limits.


def test_too_many_clients(rowtap):
    proxy = rowtap([USERS], {"proxy": {"max_connections": 3}})
    clients = [proxy.connect() for _ in range(3)]
    with Client(proxy.host, proxy.port) as client:
        client.send(startup.StartupMessage(codes.PROTOCOL_3_0, ((b"user", b"postgres"),)))
        error = await_message(client, backend.ErrorResponse)
        assert (error.severity, error.sqlstate, error.message) == (
            b"FATAL",
            b"53300",
            b"sorry, too many clients already",
        )
        client.expect_end()
    # To cancel is possible all the same.
    timer = threading.Timer(0.3, clients[0].cancel_safe)
    timer.start()
    with pytest.raises(psycopg.errors.QueryCanceled):
        clients[0].execute("SELECT pg_sleep(30)")
    timer.join()
    clients.pop().close()
    eventually(lambda: proxy.status()["sessions"] == 2)
    assert proxy.connect().execute("SELECT 1").fetchone() == (1,)
    assert 'rowtap_connections_refused_total{reason="53300"} 1.0' in proxy.get("/metrics")[1]


# Signals and exit statuses.


def test_sigterm_lets_sessions_finish(rowtap):
    proxy = rowtap([USERS], {"proxy": {"shutdown_timeout": "20s"}})
    with log_in(proxy) as busy, log_in(proxy) as idle:
        busy.send(frontend.Query(b"SELECT 'done' FROM pg_sleep(1)"))
        time.sleep(0.1)
        proxy.signal(signal.SIGTERM)
        eventually(lambda: not connectable(proxy), why="new clients are still taken in")
        assert proxy.get("/readyz")[0] == 503
        assert "draining" in proxy.get("/readyz")[1]
        assert proxy.get("/healthz")[0] == 200
        busy.expect(backend.RowDescription, backend.DataRow([b"done"]), backend.CommandComplete, READY)
        # Whoever is there may go on.
        assert idle.query("SELECT 1")[-1] == READY
        assert busy.query("SELECT 1")[-1] == READY
        began = time.monotonic()
        for client in (busy, idle):
            client.send(frontend.Terminate())
            client.expect_end()
    assert proxy.wait() == 0
    assert time.monotonic() - began < 5


def connectable(proxy):
    try:
        socket.create_connection((proxy.host, proxy.port), 1).close()
    except OSError:
        return False
    return True


def test_sessions_left_at_the_deadline_are_told(rowtap, connect, redis_client):
    watch = connect()
    watch.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    watch.execute("INSERT INTO users VALUES (1, 'Ada')")
    proxy = rowtap([USERS], {"proxy": {"shutdown_timeout": "1s"}})
    with log_in(proxy) as idle, log_in(proxy) as block, log_in(proxy) as busy:
        block.query("BEGIN")
        block.query("UPDATE users SET name = 'in a block' WHERE id = 1")
        busy.send(frontend.Query(b"SELECT pg_sleep(3600)"))
        idle.query("INSERT INTO users VALUES (2, 'Grace') RETURNING id, name")
        began = time.monotonic()
        proxy.signal(signal.SIGTERM)
        for client in (idle, block):
            error = await_message(client, backend.ErrorResponse)
            assert (error.severity, error.sqlstate) == (b"FATAL", b"57P01")
            client.expect_end()
        assert 0.9 < time.monotonic() - began < 3
        busy.expect_end()
        assert proxy.wait() == 0
    eventually(lambda: sessions(watch) == 0)
    assert watch.execute("SELECT name FROM users WHERE id = 1").fetchone() == ("Ada",)
    assert redis_client.get("users:2") == b"Grace"
    assert redis_client.get("users:1") in (None, b"Ada")


def test_a_second_sigterm_stops_at_once(rowtap, connect):
    watch = connect()
    proxy = rowtap([USERS], {"proxy": {"shutdown_timeout": "1h"}})
    with log_in(proxy) as idle, log_in(proxy) as busy:
        busy.send(frontend.Query(b"SELECT pg_sleep(3600)"))
        time.sleep(0.1)
        proxy.signal(signal.SIGTERM)
        time.sleep(0.5)
        assert proxy.process.poll() is None
        began = time.monotonic()
        proxy.signal(signal.SIGTERM)
        assert proxy.wait() == 0
        assert time.monotonic() - began < 3
        idle.expect_end()
        busy.expect_end()
    eventually(lambda: sessions(watch) == 0, why="a backend outlived the proxy")


def test_a_killed_proxy_leaves_no_backends(rowtap, connect):
    watch = connect()
    proxy = rowtap([USERS])
    with log_in(proxy), log_in(proxy) as block:
        block.query("BEGIN")
        proxy.kill()
    eventually(lambda: sessions(watch) == 0)


def test_the_port_is_free_as_soon_as_draining_begins(rowtap):
    """So that a successor can take over while the last sessions of this one end."""
    old = rowtap([USERS], {"proxy": {"shutdown_timeout": "20s"}})
    with log_in(old) as client:
        old.signal(signal.SIGTERM)
        eventually(lambda: not connectable(old))
        new = rowtap([USERS], {"proxy": {"listen": f"{HOST}:{old.port}"}})
        assert new.connect().execute("SELECT 1").fetchone() == (1,)
        assert client.query("SELECT 1")[-1] == READY
    assert old.wait() == 0


def test_exit_statuses(rowtap, rowtap_command):
    proxy = rowtap([USERS])
    taken = rowtap_command("serve", config={"proxy": {"listen": f"{HOST}:{proxy.port}"}, "admin": {"listen": "off"}})
    assert taken.returncode == 1
    assert f"{HOST}:{proxy.port} is already in use" in taken.stderr
    unusable = rowtap_command("serve", config={"proxy": {"listen": 7}})
    assert unusable.returncode == 2
    for number in (signal.SIGTERM, signal.SIGINT):
        ending = rowtap([USERS])
        ending.signal(number)
        assert ending.wait() == 0


# Leaks.


def play(proxy, number):
    """One connection, in one of the ways there are."""
    with socket.create_connection((proxy.host, proxy.port), 10) as connection:
        kind = number % 8
        if kind == 0:
            connection.sendall(start_packet(proxy.database, frontend.Query(b"SELECT 1"), frontend.Terminate()))
            assert b"SELECT 1" in read_to_end(connection)
        elif kind == 1:
            connection.sendall(start_packet(proxy.database, frontend.Query(b"SELECT 1")))
            connection.recv(10)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif kind == 2:
            connection.sendall(start_packet("no such database"))
            assert b"3D000" in read_to_end(connection)
        elif kind == 3:
            connection.sendall(bytes(startup.SSLRequest()))
            assert connection.recv(1) == b"N"
        elif kind == 4:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert read_to_end(connection) == b""
        elif kind == 5:
            connection.sendall(bytes(startup.CancelRequest(4711, b"\1\2\3\4")))
            assert read_to_end(connection) == b""
        elif kind == 6:
            connection.sendall(start_packet(proxy.database)[: number % 40])


@needs_proc
@patient
def test_connections_one_after_the_other_leave_nothing(rowtap, connect):
    proxy, watch = rowtap([USERS]), connect()
    count = depth(2000, 10_000)

    def quiet():
        return proxy.status()["sessions"] == 0 and sessions(watch) == 0

    for number in range(400):
        play(proxy, number)
    eventually(quiet)
    open_before, before = settled_descriptors(proxy.pid), resident(proxy.pid)
    for number in range(count):
        play(proxy, number)
    eventually(quiet)
    assert settled_descriptors(proxy.pid) == open_before
    assert resident(proxy.pid) - before < 4 * MIB
    assert "internal error" not in proxy.log_text()


def settled_descriptors(pid):
    """The open descriptors, once they have been the same for a while."""
    found = [None]

    def same():
        found.append(descriptors(pid))
        return len(found) > 5 and all(one == found[-1] for one in found[-5:])

    eventually(same, pause=0.1, why="descriptors come and go")
    return found[-1]


@needs_proc
@patient
def test_connections_that_send_one_byte_harm_nobody(rowtap):
    proxy = rowtap([USERS])
    other = proxy.connect()
    for _ in range(300):
        one_byte(proxy).close()
    eventually(lambda: accepted(proxy) >= 301)
    open_before, before = settled_descriptors(proxy.pid), resident(proxy.pid)
    count = depth(3000, 100_000)
    slowest = 0.0
    for number in range(count):
        one_byte(proxy).close()
        if number % 100 == 0:
            began = time.monotonic()
            assert other.execute("SELECT %s::int", [number]).fetchone() == (number,)
            slowest = max(slowest, time.monotonic() - began)
    eventually(lambda: accepted(proxy) >= 301 + count)
    assert settled_descriptors(proxy.pid) == open_before
    assert resident(proxy.pid) - before < 3 * MIB
    assert slowest < 2.0
    assert proxy.status()["sessions"] == 1


@needs_proc
@patient
def test_many_connections_that_say_one_byte_and_stay(rowtap):
    """They are let go one by one when their time to log in is over, or at once when there are too many."""
    proxy = rowtap([USERS], {"proxy": {"client_login_timeout": "2s", "max_connections": 100}})
    other = proxy.connect()
    open_before = settled_descriptors(proxy.pid)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(one_byte(proxy)) for _ in range(600)]
        assert other.execute("SELECT 1").fetchone() == (1,)
        assert len(descriptors(proxy.pid)) <= len(open_before) + 2 * 100 + 64 + 2
        for connection in silent:
            assert read_to_end(connection) == b""
    assert settled_descriptors(proxy.pid) == open_before
    assert other.execute("SELECT 1").fetchone() == (1,)
    assert proxy.connect().execute("SELECT 1").fetchone() == (1,)


def one_byte(proxy):
    connection = socket.create_connection((proxy.host, proxy.port), 10)
    with contextlib.suppress(OSError):
        connection.sendall(b"\0")
    return connection


def accepted(proxy):
    _, text = proxy.get("/metrics")
    return next(
        float(line.split()[1]) for line in text.splitlines() if line.startswith("rowtap_connections_accepted_total ")
    )
