"""How sessions and the process end: clients that disconnect, a server that stops, limits, signals, leaks."""

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
from tests.e2e.processes import MIB, descriptors, needs_proc, resident, wait_until
from tests.e2e.raw_sessions import await_message, log_in, read_to_end, reset, start_packet, values
from tests.script import READY, Client

pytestmark = pytest.mark.timing("bounds in seconds on how soon what a peer or a signal ended is gone")

USERS = {"name": "users", "key": "id", "value": "name", "redis_key": "users:{id}"}
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


def sessions(connection):
    return connection.execute(SESSIONS).fetchone()[0]


# Clients that disconnect.

BUSY = [
    b"SELECT pg_sleep(3600)",
    b"SELECT count(*) FROM generate_series(1, 10000000000)",
    b"SELECT repeat('x', 1000000) FROM generate_series(1, 1000000)",
    b"COPY (SELECT repeat('x', 1000) FROM generate_series(1, 100000000)) TO STDOUT",
    b"BEGIN; SELECT pg_advisory_xact_lock(4711); SELECT pg_sleep(3600)",
]


@pytest.mark.parametrize("disconnect", [reset, Client.close])
def test_statements_end_when_their_client_disconnects(rowtap, connect, disconnect):
    proxy, watch = rowtap([USERS]), connect()
    clients = [log_in(proxy) for _ in BUSY]
    for client, query in zip(clients, BUSY, strict=True):
        client.send(frontend.Query(query))
    wait_until(lambda: watch.execute(SESSIONS + " AND state = 'active'").fetchone() == (len(BUSY),))
    for client in clients:
        disconnect(client)
    wait_until(lambda: sessions(watch) == 0, 4, why="a statement outlived its client")
    wait_until(lambda: proxy.status()["sessions"] == 0)


def test_copy_in_is_undone_when_its_client_disconnects(rowtap, connect):
    proxy, watch = rowtap([USERS]), connect()
    watch.execute("CREATE TABLE plain (note text)")
    client = log_in(proxy)
    client.send(frontend.Query(b"COPY plain FROM STDIN"), CopyData(b"never\n" * 10_000))
    client.expect(backend.CopyInResponse)
    client.close()
    wait_until(lambda: sessions(watch) == 0, 5)
    assert watch.execute("SELECT count(*) FROM plain").fetchone() == (0,)


def test_open_transaction_is_rolled_back_when_its_client_disconnects(rowtap, connect, redis_client):
    proxy, watch = rowtap([USERS]), connect()
    watch.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    watch.execute("INSERT INTO users VALUES (1, 'Ada')")
    with log_in(proxy) as client:
        client.query("SELECT id, name FROM users")
        client.query("BEGIN; UPDATE users SET name = 'never' WHERE id = 1")
        reset(client)
    wait_until(lambda: sessions(watch) == 0, 5)
    wait_until(lambda: proxy.status()["sessions"] == 0)
    proxy.settle()
    assert redis_client.get("users:1") in (b"Ada", None)
    watch.execute("UPDATE users SET name = 'no lock is left' WHERE id = 1")


def test_statement_ends_when_psql_is_killed(rowtap, connect):
    proxy, watch = rowtap([USERS]), connect()
    running = programs.start("psql", "-X", "-c", "SELECT pg_sleep(3600)", port=proxy.port, database=proxy.database)
    wait_until(lambda: watch.execute(SESSIONS + " AND state = 'active'").fetchone() == (1,))
    running.kill()
    running.wait(10)
    wait_until(lambda: sessions(watch) == 0, 5)


def test_client_that_closes_its_sending_direction_gets_all_answers(rowtap, connect):
    """After the answers the client receives the end of the stream, and the session ends."""
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
    wait_until(lambda: sessions(watch) == 0)


# A server that stops.


def test_server_shutdown_is_relayed_and_new_sessions_get_08006(rowtap, postgres, connect):
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
    wait_until(lambda: proxy.get("/readyz")[0] == 503)
    assert proxy.get("/healthz")[0] == 200
    wait_until(lambda: proxy.status()["sessions"] == 0)
    postgres.start()
    assert proxy.connect().execute("SELECT 1").fetchone() == (1,)
    wait_until(lambda: proxy.get("/readyz")[0] == 200)


@pytest.mark.parametrize("how", ["immediate", "kill"])
def test_uncertain_write_is_evicted_when_the_server_crashes(rowtap, postgres, redis_client, connect, how):
    direct = connect()
    direct.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    direct.execute("INSERT INTO users VALUES (1, 'Ada')")
    proxy = rowtap([USERS])
    with log_in(proxy) as idle, log_in(proxy) as writer:
        idle.query("SELECT id, name FROM users")
        proxy.settle()
        assert redis_client.get("users:1") == b"Ada"
        writer.send(frontend.Query(b"UPDATE users SET name = 'uncertain' WHERE id = 1 AND pg_sleep(3600) IS NULL"))
        time.sleep(0.2)
        postgres.kill() if how == "kill" else postgres.stop("immediate")
        if how == "immediate":
            for client in (idle, writer):
                last = await_message(client, backend.NoticeResponse)
                assert last.message == b"terminating connection due to immediate shutdown command"
        idle.expect_end()
        writer.expect_end()
    wait_until(lambda: proxy.status()["sessions"] == 0)
    proxy.settle()
    # Whether the UPDATE was committed is unknown.
    assert redis_client.get("users:1") is None
    with pytest.raises(psycopg.OperationalError, match="could not connect to PostgreSQL"):
        proxy.connect()
    postgres.start()
    client = proxy.connect()
    assert client.execute("SELECT id, name FROM users").fetchall() == [(1, "Ada")]
    proxy.settle()
    assert redis_client.get("users:1") in (b"Ada", None)


def test_terminated_backend_ends_its_session_only(rowtap, connect):
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
    """Duplicates of the TCP connections of another process."""
    library = ctypes.CDLL(None, use_errno=True)
    pidfd = os.pidfd_open(pid)
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            if not str(entry.readlink()).startswith("socket:"):
                continue
            # pidfd_getfd has this number on every architecture.
            found = library.syscall(ctypes.c_long(438), pidfd, int(entry.name), 0)
            if found < 0:
                pytest.skip(f"this kernel does not permit pidfd_getfd: {os.strerror(ctypes.get_errno())}")
            with socket.socket(fileno=found) as connection:
                if connection.family == socket.AF_INET:
                    yield connection
    finally:
        os.close(pidfd)


@needs_proc
def test_both_connections_of_a_session_have_keepalive_and_no_delay(rowtap):
    proxy = rowtap([USERS])
    with log_in(proxy):
        seen = {}
        for connection in sockets_of(proxy.pid):
            with contextlib.suppress(OSError):
                peer, own = connection.getpeername()[1], connection.getsockname()[1]
                side = {proxy.port: "client", proxy.admin_port: None}.get(own) or (
                    "backend" if peer == proxy.config["postgres"]["port"] else None
                )
                if side:
                    seen[side] = (
                        connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY),
                        connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                        connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
                        connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
                        connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
                    )
    assert seen == {"client": (1, 1, 60, 10, 6), "backend": (1, 1, 60, 10, 6)}


# Limits.


def test_client_above_max_connections_gets_53300_and_can_still_cancel(rowtap):
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
    # A CancelRequest is still accepted.
    timer = threading.Timer(0.3, clients[0].cancel_safe)
    timer.start()
    with pytest.raises(psycopg.errors.QueryCanceled):
        clients[0].execute("SELECT pg_sleep(30)")
    timer.join()
    clients.pop().close()
    wait_until(lambda: proxy.status()["sessions"] == 2)
    assert proxy.connect().execute("SELECT 1").fetchone() == (1,)
    assert 'rowtap_connections_refused_total{reason="53300"} 1.0' in proxy.get("/metrics")[1]


# Signals and exit statuses.


def test_sessions_may_finish_after_sigterm(rowtap):
    proxy = rowtap([USERS], {"proxy": {"shutdown_timeout": "20s"}})
    with log_in(proxy) as busy, log_in(proxy) as idle:
        busy.send(frontend.Query(b"SELECT 'done' FROM pg_sleep(1)"))
        time.sleep(0.1)
        proxy.signal(signal.SIGTERM)
        wait_until(lambda: not connectable(proxy), why="new clients are still accepted")
        assert proxy.get("/readyz")[0] == 503
        assert "draining" in proxy.get("/readyz")[1]
        assert proxy.get("/healthz")[0] == 200
        busy.expect(backend.RowDescription, backend.DataRow([b"done"]), backend.CommandComplete, READY)
        # Open sessions may continue.
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


def test_sessions_at_the_shutdown_deadline_get_57p01(rowtap, connect, redis_client):
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
    wait_until(lambda: sessions(watch) == 0)
    assert watch.execute("SELECT name FROM users WHERE id = 1").fetchone() == ("Ada",)
    assert redis_client.get("users:2") == b"Grace"
    assert redis_client.get("users:1") in (None, b"Ada")


def test_second_sigterm_ends_all_sessions_at_once(rowtap, connect):
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
    wait_until(lambda: sessions(watch) == 0, why="a backend outlived the proxy")


def test_backends_end_when_the_proxy_is_killed(rowtap, connect):
    watch = connect()
    proxy = rowtap([USERS])
    with log_in(proxy), log_in(proxy) as block:
        block.query("BEGIN")
        proxy.kill()
    wait_until(lambda: sessions(watch) == 0)


def test_port_can_be_used_again_while_the_old_proxy_drains(rowtap):
    """A new proxy can accept clients while the last sessions of the old one end."""
    old = rowtap([USERS], {"proxy": {"shutdown_timeout": "20s"}})
    with log_in(old) as client:
        old.signal(signal.SIGTERM)
        wait_until(lambda: not connectable(old))
        new = rowtap([USERS], {"proxy": {"listen": f"{HOST}:{old.port}"}})
        assert new.connect().execute("SELECT 1").fetchone() == (1,)
        assert client.query("SELECT 1")[-1] == READY
    assert old.wait() == 0


def test_exit_status_is_1_for_a_port_in_use_and_2_for_a_bad_configuration(rowtap, rowtap_command):
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


def connect_and_end(proxy, number):
    """One connection, ended in one of eight ways."""
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
def test_thousands_of_connections_leave_no_descriptor_and_no_memory(rowtap, connect):
    proxy, watch = rowtap([USERS]), connect()
    count = depth(2000, 10_000)

    def no_session_left():
        return proxy.status()["sessions"] == 0 and sessions(watch) == 0

    for number in range(400):
        connect_and_end(proxy, number)
    wait_until(no_session_left)
    open_before, before = stable_descriptors(proxy.pid), resident(proxy.pid)
    for number in range(count):
        connect_and_end(proxy, number)
    wait_until(no_session_left)
    assert stable_descriptors(proxy.pid) == open_before
    assert resident(proxy.pid) - before < 4 * MIB
    assert "internal error" not in proxy.log_text()


def stable_descriptors(pid):
    """The open descriptors, once they have not changed for half a second."""
    found = [None]

    def same():
        found.append(descriptors(pid))
        return len(found) > 5 and all(one == found[-1] for one in found[-5:])

    wait_until(same, pause=0.1, why="the open descriptors keep changing")
    return found[-1]


@needs_proc
@patient
def test_connections_that_send_one_byte_affect_no_other_session(rowtap):
    proxy = rowtap([USERS])
    other = proxy.connect()
    for _ in range(300):
        one_byte(proxy).close()
    wait_until(lambda: accepted(proxy) >= 301)
    open_before, before = stable_descriptors(proxy.pid), resident(proxy.pid)
    count = depth(3000, 100_000)
    slowest = 0.0
    for number in range(count):
        one_byte(proxy).close()
        if number % 100 == 0:
            began = time.monotonic()
            assert other.execute("SELECT %s::int", [number]).fetchone() == (number,)
            slowest = max(slowest, time.monotonic() - began)
    wait_until(lambda: accepted(proxy) >= 301 + count)
    assert stable_descriptors(proxy.pid) == open_before
    assert resident(proxy.pid) - before < 3 * MIB
    assert slowest < 2.0
    assert proxy.status()["sessions"] == 1


@needs_proc
@patient
def test_idle_connections_before_login_are_closed_at_the_timeout_or_the_limit(rowtap):
    """They are closed when client_login_timeout is over, or at once when there are too many of them."""
    proxy = rowtap([USERS], {"proxy": {"client_login_timeout": "2s", "max_connections": 100}})
    other = proxy.connect()
    open_before = stable_descriptors(proxy.pid)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(one_byte(proxy)) for _ in range(600)]
        assert other.execute("SELECT 1").fetchone() == (1,)
        assert len(descriptors(proxy.pid)) <= len(open_before) + 2 * 100 + 64 + 2
        for connection in silent:
            assert read_to_end(connection) == b""
    assert stable_descriptors(proxy.pid) == open_before
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
