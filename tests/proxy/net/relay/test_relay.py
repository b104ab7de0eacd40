"""Sessions through the relay against a real PostgreSQL: transparency, cancelling, back-pressure."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import asyncpg
import psycopg
import pytest
from psycopg.rows import tuple_row

from protocol import backend, codes, frontend, startup
from proxy.metrics import Traffic
from proxy.net.pending_connection import PendingConnection, never
from proxy.net.relay.relay import Relay
from tests.proxy.conftest import Recorder
from tests.proxy.net.bare import open_session, read_to_end, read_until_ready, startup_packet

STATM = Path("/proc/self/statm")


# Transparency.


@pytest.mark.parametrize("role", ["postgres", "scram_user", "md5_user", "password_user"])
def test_every_authentication_passes(serve, database, role):
    with serve().connect(database, user=role, password="secret") as connection:
        assert connection.execute("SELECT session_user").fetchone() == (role,)


@pytest.mark.parametrize("role", ["scram_user", "md5_user"])
def test_wrong_password_is_refused_in_the_words_of_the_server(serve, database, role):
    with pytest.raises(psycopg.OperationalError, match=f'password authentication failed for user "{role}"'):
        serve().connect(database, user=role, password="wrong")


def test_psql_prints_the_same_as_without_the_proxy(serve, database, postgres):
    script = "CREATE TABLE t (n int);\nINSERT INTO t VALUES (1),(2);\nSELECT * FROM t;\n\\d t\nSELEC;\n"
    psql = [postgres.bindir / "psql", "-X", "-q", "-d"]

    def run(dsn):
        return subprocess.run([*psql, dsn], input=script, capture_output=True, text=True, check=False, timeout=20)

    direct = run(postgres.dsn(database))
    with psycopg.connect(postgres.dsn(database), autocommit=True) as connection:
        connection.execute("DROP TABLE t")
    proxied = run(serve().dsn(database))
    assert (proxied.stdout, proxied.stderr) == (direct.stdout, direct.stderr)
    assert "(2 rows)" in direct.stdout


def test_asyncpg_works_through_the_proxy(serve, database):
    server = serve()

    async def work():
        connection = await asyncpg.connect(host="127.0.0.1", port=server.port, user="postgres", database=database)
        try:
            assert await connection.fetchval("SELECT $1::int + 1", 41) == 42
            async with connection.transaction():
                rows = await connection.fetch("SELECT generate_series(1, 1000) AS n")
            assert len(rows) == 1000
            with pytest.raises(asyncpg.DivisionByZeroError):
                await connection.fetchval("SELECT 1 / 0")
        finally:
            await connection.close()

    asyncio.run(work())


def test_pipelines_notifications_and_notices_pass(serve, database):
    server = serve()
    with server.connect(database) as connection, server.connect(database) as other:
        with connection.pipeline():
            cursors = [connection.execute("SELECT %s::int", (n,), prepare=True) for n in range(50)]
        assert [cursor.fetchone()[0] for cursor in cursors] == list(range(50))
        notices = []
        connection.add_notice_handler(lambda diagnostic: notices.append(diagnostic.message_primary))
        connection.execute("DO $$ BEGIN RAISE NOTICE 'heard'; END $$")
        assert notices == ["heard"]
        connection.execute("LISTEN news")
        other.execute("NOTIFY news, 'today'")
        assert [notification.payload for notification in connection.notifies(timeout=5, stop_after=1)] == ["today"]


def test_copy_passes_in_both_directions(serve, database):
    with serve().connect(database) as connection:
        connection.execute("CREATE TABLE t (n int, v text)")
        cursor = connection.cursor(row_factory=tuple_row)
        with cursor.copy("COPY t FROM STDIN") as copy:
            for n in range(20_000):
                copy.write_row((n, "x" * 100))
        with cursor.copy("COPY t TO STDOUT") as copy:
            size = sum(len(block) for block in copy)
        assert size > 2_000_000
        with pytest.raises(RuntimeError, match="given up"), cursor.copy("COPY t FROM STDIN"):
            raise RuntimeError("given up")
        assert cursor.execute("SELECT count(*) FROM t").fetchone() == (20_000,)


def test_client_that_sends_single_bytes_is_answered(serve, database):
    server = serve()
    with server.dial() as connection:
        data = bytes(startup.SSLRequest()) + startup_packet(database)
        for position in range(len(data)):
            connection.sendall(data[position : position + 1])
            if position == 7:
                assert connection.recv(1) == b"N"
        read_until_ready(connection)
        for byte in bytes(frontend.Query(b"SELECT 'whole'")):
            connection.sendall(bytes((byte,)))
        assert b"whole" in read_until_ready(connection)


def test_client_that_sends_all_at_once_is_answered_and_observed(serve, database, recorder):
    """Queries behind the startup packet, before anything was answered, are relayed and observed."""
    observer = recorder([b"SELECT 1"])
    server = serve(lambda *_facts: observer)
    with server.dial() as connection:
        query = bytes(frontend.Query(b"SELECT 'early'"))
        connection.sendall(startup_packet(database) + query + bytes(frontend.Terminate()))
        answer = read_to_end(connection)
    assert b"early" in answer
    assert observer.ended.wait(5)
    assert observer.seen("frontend") == query + bytes(frontend.Terminate())
    assert answer.endswith(observer.seen("backend"))
    assert observer.closings == [True]


def test_observer_is_shown_both_directions_and_told_who_connected(serve, database, recorder):
    observer = recorder()
    server = serve(lambda *_facts: observer)
    with server.connect(database, application_name="me") as connection:
        connection.execute("SELECT 'seen'")
    assert observer.ended.wait(5)
    ((facts, _),) = server.observed
    name, user, parameters, sent = facts
    assert (name, user) == (database, "postgres")
    assert parameters["server_version"]
    assert sent["application_name"] == "me"
    assert b"SELECT 'seen'" in observer.seen("frontend")
    assert observer.seen("backend").count(b"Z\0\0\0\5I") == 1


def test_replication_is_relayed_without_an_observer(serve, database, recorder):
    server = serve(lambda *_facts: recorder())
    with server.connect(database, replication="database") as connection:
        assert connection.pgconn.exec_(b"IDENTIFY_SYSTEM").ntuples == 1
    assert server.observed == []


# Cancel.


def test_cancel_request_ends_the_statement_of_its_session(serve, database):
    with serve().connect(database) as connection:
        timer = threading.Timer(0.2, connection.cancel_safe)
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("SELECT pg_sleep(30)")
        timer.join()
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("version", [codes.PROTOCOL_3_0, codes.PROTOCOL_3_2])
def test_cancel_works_with_short_and_long_keys(serve, database, version, postgres):
    if version == codes.PROTOCOL_3_2 and postgres.version < "18":
        pytest.skip("protocol 3.2 came with PostgreSQL 18")
    server = serve()
    with server.dial() as connection:
        pairs = ((b"user", b"postgres"), (b"database", database.encode()))
        connection.sendall(bytes(startup.StartupMessage(version, pairs)))
        data = read_until_ready(connection)
        place = data.index(b"K\0\0")
        size = int.from_bytes(data[place + 1 : place + 5], "big")
        key = backend.BackendKeyData.decode(data[place + 5 : place + 1 + size])
        assert len(key.secret_key) == (4 if version == codes.PROTOCOL_3_0 else 32)
        connection.sendall(bytes(frontend.Query(b"SELECT pg_sleep(30)")))
        time.sleep(0.1)
        with server.dial() as cancel:
            cancel.sendall(bytes(startup.CancelRequest(key.process_id, key.secret_key)))
            assert read_to_end(cancel) == b""
        assert b"57014" in read_until_ready(connection)


# Back-pressure.


def resident():
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not STATM.exists(), reason="resident memory is read from /proc")
@pytest.mark.parametrize("observed", [True, False])
def test_client_that_does_not_read_costs_a_bounded_buffer(serve, database, recorder, observed):
    class Forgetful(Recorder):
        def backend(self, data):
            super().backend(data)
            self.calls.clear()

    server = serve(lambda *_facts: Forgetful() if observed else None)
    with open_session(server, database) as connection:
        before = resident()
        connection.sendall(bytes(frontend.Query(b"SELECT repeat('x', 100000) FROM generate_series(1, 1500)")))
        time.sleep(0.4)
        assert resident() - before < 8_000_000
        received = 0
        while True:
            chunk = connection.recv(1 << 20)
            received += len(chunk)
            if chunk[-6:] == b"Z\0\0\0\5I":
                break
        assert received > 150_000_000
        assert resident() - before < 16_000_000


def test_server_that_does_not_read_stops_the_client(serve, database, connect):
    """COPY into a locked table: what the client can send ahead is bounded by buffers, not by memory."""
    locker = connect(autocommit=False)
    locker.execute("CREATE TABLE t (v text)")
    locker.commit()
    server = serve()
    with open_session(server, database) as connection:
        connection.sendall(bytes(frontend.Query(b"COPY t FROM STDIN")))
        data = b""
        while b"G\0\0\0" not in data:
            data += connection.recv(1000)
        pid = connect().execute("SELECT pid FROM pg_stat_activity WHERE query LIKE 'COPY t%'").fetchone()[0]
        os.kill(pid, signal.SIGSTOP)
        try:
            connection.settimeout(0.5)
            sent = 0
            block = (b"x" * 999 + b"\n") * 65
            message = b"d" + (4 + len(block)).to_bytes(4, "big") + block
            with contextlib.suppress(TimeoutError):
                while sent < 64_000_000:
                    connection.sendall(message)
                    sent += len(message)
            assert sent < 64_000_000
        finally:
            os.kill(pid, signal.SIGCONT)


def test_large_values_pass_in_both_directions(serve, database):
    with serve().connect(database) as connection:
        value = os.urandom(30_000_000)
        assert connection.execute("SELECT %b::bytea", (value,), binary=True).fetchone()[0] == value


def test_pgbench_runs_without_a_failed_transaction(serve, database, postgres):
    if shutil.which("pgbench", path=str(postgres.bindir)) is None:
        pytest.skip("no pgbench beside this PostgreSQL")
    server = serve()
    common = ["-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres", database]
    pgbench = str(postgres.bindir / "pgbench")
    subprocess.run([pgbench, "-i", "-q", *common], check=True, capture_output=True, timeout=30)
    run = [pgbench, "-n", "-S", "-c", "4", "-j", "1", "-t", "200", "-M", "prepared", *common]
    done = subprocess.run(run, check=True, capture_output=True, text=True, timeout=30)
    assert "number of failed transactions: 0" in done.stdout


# A relay by itself.


class Stub:
    """A relay's host: what it was told, in order."""

    def __init__(self):
        self.traffic = Traffic()
        self.told = []

    def observe(self, *_facts):
        self.told.append("observe")

    def on_internal_error(self, _where, error):
        raise error

    def started(self, _relay, _key):
        self.told.append("started")

    def ended(self, _relay):
        self.told.append("ended")


async def waiting(connection):
    found = PendingConnection(never)
    await asyncio.get_running_loop().connect_accepted_socket(lambda: found, connection)
    return found


@pytest.fixture
async def join():
    """`await join(host)`: a relay between two socket pairs, both ends of which are returned, and what begins it."""
    opened: list[socket.socket] = []

    async def make(host):
        pending, ends = [], []
        for _ in range(2):
            ours, theirs = socket.socketpair()
            theirs.setblocking(False)
            opened.append(theirs)
            ends.append(theirs)
            pending.append(await waiting(ours))
        relay = Relay(host, None, strip_channel_binding=False, peer="client")
        return relay, pending, ends

    yield make
    for connection in opened:
        connection.close()


async def test_server_that_ended_before_the_relay_began_is_not_written_to(join):
    host = Stub()
    relay, (client, backend_), (client_end, server_end) = await join(host)
    server_end.send(b"E\0\0\0\5\0")
    server_end.shutdown(socket.SHUT_WR)
    await asyncio.wait_for(backend_.wait(), 5)
    backend_.transport.pause_reading()
    client.transport.pause_reading()
    relay.begin(client, backend_, b"early")
    async with asyncio.timeout(5):
        while not relay.finished:
            await asyncio.sleep(0.005)
    assert client_end.recv(100) == b"E\0\0\0\5\0"
    assert client_end.recv(100) == b""
    assert server_end.recv(100) == b"", "nothing of what the client sent"
    assert host.told == ["ended"]
