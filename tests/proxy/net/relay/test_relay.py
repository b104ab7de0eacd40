"""Sessions through the relay against a real PostgreSQL: transparency, ends of every kind, questions, back-pressure."""

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
from proxy.net.relay import asking, ending
from tests.proxy.conftest import Recorder

STATM = Path("/proc/self/statm")


def startup_packet(database, **parameters):
    pairs = [(b"user", b"postgres"), (b"database", database.encode())]
    pairs += [(name.encode(), value.encode()) for name, value in parameters.items()]
    return bytes(startup.StartupMessage(codes.PROTOCOL_3_0, tuple(pairs)))


def read_until_ready(connection):
    data = b""
    while data[-6:-1] != b"Z\0\0\0\5":
        chunk = connection.recv(65536)
        assert chunk, data
        data += chunk
    return data


def read_to_end(connection):
    data = b""
    while chunk := connection.recv(65536):
        data += chunk
    return data


def open_session(server, database):
    """A bare session, ready for a query."""
    connection = server.dial()
    connection.sendall(startup_packet(database))
    read_until_ready(connection)
    return connection


@pytest.fixture
def backends(connect):
    """How many other backends work on the test's database."""
    watcher = connect()

    def count():
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        return watcher.execute(query).fetchone()[0]

    return count


def wait_for(condition, seconds=8.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


# Transparency.


@pytest.mark.parametrize("role", ["postgres", "scram_user", "md5_user", "password_user"])
def test_every_authentication_passes(serve, database, role):
    with serve().connect(database, user=role, password="secret") as connection:
        assert connection.execute("SELECT session_user").fetchone() == (role,)


@pytest.mark.parametrize("role", ["scram_user", "md5_user"])
def test_a_wrong_password_is_refused_in_the_servers_words(serve, database, role):
    with pytest.raises(psycopg.OperationalError, match=f'password authentication failed for user "{role}"'):
        serve().connect(database, user=role, password="wrong")


def test_psql(serve, database, postgres):
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


def test_asyncpg(serve, database):
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


def test_extended_pipeline_notify_and_notice(serve, database):
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


def test_copy_both_ways(serve, database):
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


def test_a_client_that_sends_single_bytes(serve, database):
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


def test_a_client_that_sends_all_at_once(serve, database, recorder):
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


def test_observation_sees_both_directions_and_its_facts(serve, database, recorder):
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


def test_replication_is_never_observed(serve, database, recorder):
    server = serve(lambda *_facts: recorder())
    with server.connect(database, replication="database") as connection:
        assert connection.pgconn.exec_(b"IDENTIFY_SYSTEM").ntuples == 1
    assert server.observed == []


def test_an_observer_that_fails_costs_nothing(serve, database, recorder):
    class Failing(Recorder):
        def backend(self, data):
            super().backend(data)
            raise RuntimeError("observer's mistake")

    observer = Failing()
    server = serve(lambda *_facts: observer)
    with server.connect(database) as connection:
        for number in range(3):
            assert connection.execute("SELECT %s::int", (number,)).fetchone() == (number,)
    assert observer.ended.wait(5)
    assert len([call for call in observer.calls if call[0] == "backend"]) == 1


# Questions of our own.


def test_a_question_is_answered_before_the_client_is_ready(serve, database, recorder):
    observer = recorder([b"SELECT current_database()::text"])
    with serve(lambda *_facts: observer).connect(database) as connection:
        assert observer.answers == [database.encode()]
        assert connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
        assert connection.execute("SHOW statement_timeout").fetchone() == ("0",)
        assert connection.execute("SHOW search_path").fetchone() == ('"$user", public',)


def test_a_failing_question_leaves_nothing_behind(serve, database, recorder):
    observer = recorder([b"SELECT 1 / 0", b"SELEC", b"SELECT '3'"])
    with serve(lambda *_facts: observer).connect(database) as connection:
        assert observer.answers[:1] == [None]
        for _ in range(3):
            assert connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
    assert observer.answers == [None, None, b"3"]


def test_a_question_between_two_uses_of_the_unnamed_statement(serve, database, recorder):
    observer = recorder()
    server = serve(lambda *_facts: observer)
    with open_session(server, database) as connection:
        connection.sendall(bytes(frontend.Parse(b"", b"SELECT 'kept'")) + bytes(frontend.Sync()))
        observer.questions.append(b"SELECT 'asked'")
        read_until_ready(connection)
        wait_for(lambda: observer.answers == [b"asked"])
        bound = bytes(frontend.Bind(b"", b"")) + bytes(frontend.Execute(b"")) + bytes(frontend.Sync())
        connection.sendall(bound)
        assert b"kept" in read_until_ready(connection)
    assert b"asked" not in observer.seen("backend")


def test_what_a_client_sends_during_a_question_waits(serve, database, recorder):
    observer = recorder([b"SELECT pg_sleep(0.3)::text || 'slept'"])
    server = serve(lambda *_facts: observer)
    with server.dial() as connection:
        began = time.monotonic()
        connection.sendall(startup_packet(database))
        time.sleep(0.1)
        connection.sendall(bytes(frontend.Query(b"SELECT 'after'")))
        data = read_until_ready(connection)
        if b"after" not in data:
            data += read_until_ready(connection)
        assert time.monotonic() - began > 0.3
        assert b"after" in data
        assert b"slept" not in data
    assert observer.answers == [b"slept"]


def test_a_late_answer_lets_the_client_go_on_and_never_reaches_it(serve, database, recorder, monkeypatch):
    monkeypatch.setattr(asking, "QUERY_TIMEOUT", 0.2)
    observer = recorder([b"SELECT pg_sleep(0.6)::text || 'late'"])
    with serve(lambda *_facts: observer).connect(database) as connection:
        assert observer.answers == [None]
        assert connection.execute("SELECT 'mine'").fetchone() == ("mine",)
        assert connection.execute("SELECT 'mine too'").fetchone() == ("mine too",)
    assert observer.answers == [None]
    assert b"late" not in observer.seen("backend")


def test_a_server_that_ends_during_a_question(serve, database, connect, recorder):
    observer = recorder([b"SELECT pg_sleep(30)::text"])
    server = serve(lambda *_facts: observer)
    with server.dial() as connection:
        connection.sendall(startup_packet(database))
        with connect() as admin:
            ending = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(30)%'"
            wait_for(lambda: admin.execute(ending).rowcount)
        assert b"57P01" in read_to_end(connection)
    assert observer.ended.wait(5)
    assert observer.answers == [None]
    assert observer.closings == [True]


def test_a_client_that_leaves_during_a_question(serve, database, recorder, backends):
    observer = recorder([b"SELECT pg_sleep(0.3)::text || 'done'"])
    server = serve(lambda *_facts: observer)
    with server.dial() as connection:
        connection.sendall(startup_packet(database))
        time.sleep(0.1)
    assert observer.ended.wait(8)
    assert observer.answers == [b"done"]
    wait_for(lambda: backends() == 0)


# PendingConnection before a write is forwarded.


def test_bytes_wait_for_a_hold_and_keep_their_order(serve, database, recorder):
    class Holding(Recorder):
        before_commit = True
        before_forwarding = None

        def frontend(self, data):
            super().frontend(data)
            self.before_forwarding = asyncio.sleep(0.3) if b"held" in data else None

    observer = Holding()
    server = serve(lambda *_facts: observer)
    with open_session(server, database) as connection:
        began = time.monotonic()
        connection.sendall(bytes(frontend.Query(b"SELECT 'held'")))
        time.sleep(0.05)
        connection.sendall(bytes(frontend.Query(b"SELECT 'next'")))
        data = b""
        while data.count(b"Z\0\0\0\5I") < 2:
            data += connection.recv(65536)
        assert time.monotonic() - began > 0.3
        assert data.index(b"held") < data.index(b"next")


# The client goes first.


@pytest.mark.parametrize("observed", [True, False])
def test_an_idle_client_that_vanishes_leaves_no_backend(serve, database, backends, recorder, observed):
    server = serve(lambda *_facts: recorder() if observed else None)
    connection = open_session(server, database)
    assert backends() == 1
    connection.close()
    wait_for(lambda: backends() == 0, 2)
    assert server.wait(lambda server: server.traffic.sessions == 0)


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("observed", [True, False])
def test_a_client_killed_within_a_statement_leaves_no_backend(serve, database, backends, recorder, observed, reset):
    observer = recorder()
    server = serve(lambda *_facts: observer if observed else None)
    connection = open_session(server, database)
    connection.sendall(bytes(frontend.Query(b"SELECT pg_sleep(60)")))
    wait_for(lambda: backends() == 1)
    time.sleep(0.05)
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()
    wait_for(lambda: backends() == 0, 5)
    if observed:
        assert observer.ended.wait(5)
        assert b"57014" in observer.seen("backend")
        assert observer.closings == [True]


def test_the_outcome_of_a_write_is_seen_after_its_client_has_gone(serve, database, recorder, connect):
    connect().execute("CREATE TABLE t (n int)")
    observer = recorder()
    server = serve(lambda *_facts: observer)
    connection = open_session(server, database)
    connection.sendall(bytes(frontend.Query(b"INSERT INTO t SELECT 1 FROM pg_sleep(0.4)")))
    time.sleep(0.1)
    connection.close()
    assert observer.ended.wait(5)
    written = connect().execute("SELECT count(*) FROM t").fetchone()[0]
    assert (b"INSERT 0 1" in observer.seen("backend")) == bool(written)


def test_a_client_that_half_closes_gets_its_answer(serve, database):
    server = serve()
    with open_session(server, database) as connection:
        connection.sendall(bytes(frontend.Query(b"SELECT 'answered' FROM pg_sleep(0.3)")))
        connection.shutdown(socket.SHUT_WR)
        assert b"answered" in read_to_end(connection)


def test_a_half_closed_client_gets_all_of_a_long_answer(serve, database, monkeypatch):
    monkeypatch.setattr(ending, "SILENCE", 0.1)
    with open_session(serve(), database) as connection:
        connection.sendall(bytes(frontend.Query(b"SELECT repeat('x', 1000) FROM generate_series(1, 20000)")))
        connection.shutdown(socket.SHUT_WR)
        size, tail = 0, b""
        while chunk := connection.recv(262144):
            size, tail = size + len(chunk), (tail + chunk)[-20:]
            if size < 3_000_000:
                time.sleep(0.02)
    assert size > 20_000_000
    assert tail.endswith(b"Z\0\0\0\5I")


# The backend goes first.


def test_a_terminated_backend_says_so_itself(serve, database, connect):
    with serve().connect(database) as connection:
        pid = connection.execute("SELECT pg_backend_pid()").fetchone()[0]
        connect().execute("SELECT pg_terminate_backend(%s)", (pid,))
        with pytest.raises(psycopg.errors.AdminShutdown, match="terminating connection due to administrator command"):
            connection.execute("SELECT 1")


def test_a_killed_server_ends_its_sessions_and_the_proxy_stays(serve, database, postgres, recorder):
    observer = recorder()
    server = serve(lambda *_facts: observer)
    connection = open_session(server, database)
    connection.sendall(bytes(frontend.Query(b"SELECT pg_sleep(60)")))
    time.sleep(0.1)
    postgres.stop("immediate")
    try:
        read_to_end(connection)
        assert observer.ended.wait(5)
        with pytest.raises(
            psycopg.OperationalError, match=r"could not connect to PostgreSQL at 127\.0\.0\.1"
        ) as failure:
            server.connect(database)
        assert failure.value.sqlstate in ("08006", None)
    finally:
        connection.close()
        postgres.start()
    with server.connect(database) as again:
        assert again.execute("SELECT 1").fetchone() == (1,)


# Cancel.


def test_cancel_goes_to_the_session(serve, database):
    with serve().connect(database) as connection:
        timer = threading.Timer(0.2, connection.cancel_safe)
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("SELECT pg_sleep(30)")
        timer.join()
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("version", [codes.PROTOCOL_3_0, codes.PROTOCOL_3_2])
def test_cancel_with_short_and_long_keys(serve, database, version, postgres):
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
def test_a_client_that_does_not_read_costs_a_bounded_buffer(serve, database, recorder, observed):
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


def test_a_server_that_does_not_read_stops_the_client(serve, database, connect):
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


def test_large_values_pass_both_ways(serve, database):
    with serve().connect(database) as connection:
        value = os.urandom(30_000_000)
        assert connection.execute("SELECT %b::bytea", (value,), binary=True).fetchone()[0] == value


def test_pgbench(serve, database, postgres):
    if shutil.which("pgbench", path=str(postgres.bindir)) is None:
        pytest.skip("no pgbench beside this PostgreSQL")
    server = serve()
    common = ["-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres", database]
    pgbench = str(postgres.bindir / "pgbench")
    subprocess.run([pgbench, "-i", "-q", *common], check=True, capture_output=True, timeout=30)
    run = [pgbench, "-n", "-S", "-c", "4", "-j", "1", "-t", "200", "-M", "prepared", *common]
    done = subprocess.run(run, check=True, capture_output=True, text=True, timeout=30)
    assert "number of failed transactions: 0" in done.stdout
