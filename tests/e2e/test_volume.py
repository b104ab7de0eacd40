"""Large volumes: gigabytes of COPY, values of hundreds of megabytes, peers that do not read, dumps and benchmarks.

What is received is compared with what was sent, and the memory of the process with what it was before.
"""

import contextlib
import hashlib
import subprocess
import time

import psycopg
import pytest

from protocol import backend, frontend
from protocol.copy_data import CopyData, CopyDone
from tests.depth import depth, patient
from tests.e2e import programs
from tests.e2e.processes import MIB, needs_proc, peak, reset_peak, wait_until
from tests.fix_postgres import fresh_database, make_certificate
from tests.script import READY, Client

USERS = {"name": "users", "key": "id", "value": "name", "redis_key": "users:{id}"}
LINES = depth(100_000, 3_000_000)
"""Lines of about 1000 bytes."""
PER_SESSION = MIB
"""The largest memory a session may use (docs/operations.md)."""
BACKLOG = 64 * MIB
SLACK = 6 * MIB
"""Growth of the heap that does not depend on sessions: fragmentation, read buffers which all sessions share."""

pytestmark = [patient, pytest.mark.timing("memory peaks where the two peers of a stream get the CPU unevenly")]


def warm_up(proxy, **parameters):
    """Let the memory of the process grow to its working size."""
    with proxy.connect(**parameters) as connection:
        connection.execute("SELECT repeat('x', 1000) FROM generate_series(1, 3000)").fetchall()
        connection.execute("SELECT length(%b::bytea)", [b"x" * 2_000_000]).fetchone()


# COPY.


def copied_out(connection):
    statement = "COPY (SELECT n, repeat(md5(n::text), 31) FROM generate_series(1, {}) AS n) TO STDOUT"
    digest, size = hashlib.sha256(), 0
    with connection.cursor().copy(statement.format(LINES)) as copy:
        for piece in copy:
            digest.update(piece)
            size += len(piece)
    return size, digest.digest()


def test_copy_out_of_many_rows_is_relayed_unchanged(rowtap, connect):
    assert copied_out(rowtap([USERS]).connect()) == copied_out(connect())


def test_copy_in_of_many_rows_into_a_configured_table_is_stored_unchanged(rowtap, connect, redis_client):
    direct = connect()
    direct.execute("CREATE UNLOGGED TABLE users (id int PRIMARY KEY, name text)")
    proxy = rowtap([USERS])
    client = proxy.connect()
    client.execute("INSERT INTO users VALUES (0, 'zero')")
    client.execute("SELECT * FROM users")
    proxy.settle()
    assert redis_client.get("users:0") == b"zero"
    filler = b"\t" + b"0123456789abcdef" * 62 + b"\n"
    with client.cursor().copy("COPY users FROM STDIN") as copy:
        for first in range(1, LINES + 1, 500):
            last = min(first + 500, LINES + 1)
            copy.write(b"".join(b"%d%b" % (number, filler) for number in range(first, last)))
    count, total, same = direct.execute(
        "SELECT count(*), sum(id::int8), count(*) FILTER (WHERE name = repeat('0123456789abcdef', 62)) FROM users"
    ).fetchone()
    assert (count, total, same) == (LINES + 1, LINES * (LINES + 1) // 2, LINES)
    proxy.settle()
    for key, value in ((0, "zero"), (LINES, "0123456789abcdef" * 62)):
        assert redis_client.get(f"users:{key}") in (None, value.encode())
    client.execute("UPDATE users SET name = 'one' WHERE id = 1")
    proxy.settle()
    assert redis_client.get("users:1") == b"one"


# One large value.


@needs_proc
def test_value_of_300_megabytes_uses_no_more_than_a_sessions_memory(rowtap):
    """Once in a row and once as a parameter."""
    size = 300_000_000
    proxy = rowtap([USERS])
    warm_up(proxy)
    before = reset_peak(proxy.pid)
    with proxy.connect() as connection:
        row = connection.execute("SELECT repeat('rowtap', %s), 'behind'", [size // 6], binary=True).fetchone()
        assert len(row[0]) == size
        assert row[0][:12] + row[0][-6:] == "rowtap" * 3
        assert row[1] == "behind"
        value = row[0].encode()
        del row
        (found,) = connection.execute("SELECT md5(%b::bytea)", [value]).fetchone()
        assert found == hashlib.md5(value).hexdigest()
        del value
        assert connection.execute("SELECT 'and on'").fetchone() == ("and on",)
    assert peak(proxy.pid) - before < PER_SESSION + SLACK


@needs_proc
def test_value_too_large_to_be_observed_is_evicted_and_does_not_fill(rowtap, connect, redis_client):
    """Too large to be looked at, so its key goes and nothing takes its place."""
    size = depth(20_000_000, 300_000_000)
    direct = connect()
    direct.execute("CREATE UNLOGGED TABLE users (id int PRIMARY KEY, name text)")
    direct.execute("ALTER TABLE users ALTER name SET STORAGE EXTERNAL")
    direct.execute("INSERT INTO users SELECT n, 'small' FROM generate_series(1, 3) AS n")
    proxy = rowtap([USERS])
    warm_up(proxy)
    with proxy.connect() as connection:
        connection.execute("SELECT * FROM users")
        proxy.settle()
        assert redis_client.get("users:1") == b"small"
        before = reset_peak(proxy.pid)
        connection.execute("UPDATE users SET name = %s WHERE id = %s", ["y" * size, 1])
        proxy.settle()
        assert redis_client.get("users:1") is None
        found = connection.execute("SELECT id, name FROM users ORDER BY id").fetchall()
        assert [(number, len(name)) for number, name in found] == [(1, size), (2, 5), (3, 5)]
        proxy.settle()
        assert redis_client.get("users:1") is None
        connection.execute("SELECT id, name FROM users WHERE id = 2")
        proxy.settle()
        assert redis_client.get("users:2") == b"small"
    assert proxy.status()["pending_changes"] == 0
    assert peak(proxy.pid) - before < PER_SESSION + SLACK


# Peers that do not read.


@needs_proc
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_clients_that_stop_reading_use_no_more_than_a_sessions_memory(rowtap, connect, database, tmp_path, secure):
    sessions, rows = 8, 2000
    files = make_certificate(tmp_path) if secure else None
    config = {"proxy": {"tls": {"cert": str(files.cert), "key": str(files.key)}}} if files else {}
    proxy = rowtap([USERS], config)
    mode = "require" if secure else "disable"
    warm_up(proxy, sslmode=mode)
    with contextlib.ExitStack() as stack:
        clients = [proxy.connect(sslmode=mode) for _ in range(sessions)]
        for client in clients:
            stack.callback(client.close)
            assert client.pgconn.ssl_in_use == secure
        before = reset_peak(proxy.pid)
        for client in clients:
            client.pgconn.send_query(f"SELECT repeat('x', 1000000) FROM generate_series(1, {rows})".encode())
            client.pgconn.flush()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND wait_event = 'ClientWrite'"
        watch = connect()
        wait_until(lambda: watch.execute(waiting, [database]).fetchone() == (sessions,), 20)
        time.sleep(depth(0.5, 20.0))
        assert watch.execute(waiting, [database]).fetchone() == (sessions,)
        assert peak(proxy.pid) - before < sessions * PER_SESSION + SLACK
        # Other sessions are served, and a client that reads on receives everything.
        assert proxy.connect(sslmode=mode).execute("SELECT 1").fetchone() == (1,)
        reader = clients.pop()
        reader.pgconn.set_single_row_mode()
        count = 0
        wanted = depth(100, rows)
        while (result := reader.pgconn.get_result()) is not None and count < wanted:
            if result.status == psycopg.pq.ExecStatus.SINGLE_TUPLE:
                assert len(result.get_value(0, 0)) == 1_000_000
                count += 1
            result.clear()
        assert count == wanted
        for client in [reader, *clients]:
            client.close()
    assert peak(proxy.pid) - before < sessions * PER_SESSION + SLACK
    wait_until(lambda: watch.execute(waiting, [database]).fetchone() == (0,))


def send_until_full(connection, data, patience=0.5):
    """Send until nothing was accepted for `patience` seconds. Returns how many bytes were sent."""
    connection.settimeout(patience)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < len(data):
            sent += connection.send(data[sent : sent + 65536])
    return sent


@needs_proc
def test_server_that_stops_reading_uses_no_more_than_a_sessions_memory(rowtap, connect):
    """The server waits for a lock while the client already sends its rows."""
    direct = connect(autocommit=False)
    direct.execute("CREATE TABLE plain (note text)")
    direct.commit()
    proxy = rowtap([USERS])
    warm_up(proxy)
    lines = 8000
    data = memoryview(bytes(CopyData(b"x" * 7999 + b"\n")) * lines + bytes(CopyDone()))
    with Client(proxy.host, proxy.port) as client:
        client.log_in("postgres", proxy.database)
        direct.execute("LOCK TABLE plain")
        before = reset_peak(proxy.pid)
        client.send(frontend.Query(b"COPY plain FROM STDIN"))
        sent = send_until_full(client.socket, data)
        assert sent < len(data) / 2, "the kernel buffered everything, so nothing was tested"
        assert peak(proxy.pid) - before < PER_SESSION + SLACK
        direct.rollback()
        client.socket.settimeout(30)
        client.socket.sendall(data[sent:])
        client.expect(backend.CopyInResponse, backend.CommandComplete(b"COPY %d" % lines), READY)
    assert peak(proxy.pid) - before < PER_SESSION + SLACK
    assert direct.execute("SELECT count(*), min(length(note)) FROM plain").fetchone() == (lines, 7999)


REQUESTS = {
    "query": bytes(frontend.Query(b"")),
    "sync": bytes(frontend.Sync()),
    "parse": bytes(frontend.Parse(b"", b"")),
    "bind and execute": bytes(frontend.Bind(b"", b"")) + bytes(frontend.Execute(b"")),
    "large queries": bytes(frontend.Query(b"--" + b"x" * 20_000)),
    "large binds": bytes(frontend.Bind(b"", b"", (), [b"x" * 20_000])),
    "copy done": bytes(CopyDone()),
}


@needs_proc
@pytest.mark.parametrize("message", REQUESTS.values(), ids=REQUESTS.keys())
def test_unanswered_requests_use_bounded_memory(rowtap, connect, message):
    """As many of the smallest requests, or of large ones, as the kernel accepts while the server sleeps."""
    proxy = rowtap([USERS])
    warm_up(proxy)
    data = memoryview(message * (8_000_000 // len(message)))
    with Client(proxy.host, proxy.port) as client:
        client.log_in("postgres", proxy.database)
        before = reset_peak(proxy.pid)
        client.send(frontend.Query(b"SELECT pg_sleep(60)"))
        sent = send_until_full(client.socket, data)
        assert sent > 100_000
        grown = peak(proxy.pid) - before
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%%pg_sleep(60)' AND pid <> %s"
        connection = connect()
        connection.execute(end, [connection.info.backend_pid])
    assert grown < 3 * PER_SESSION, f"{sent} bytes of requests cost {grown}"


# Memory for what a session observes.


@needs_proc
@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_transaction_with_more_changes_than_fit_leaves_no_stale_key(rowtap, connect, redis_client, end):
    """More rows and more bytes than are held until its end: the keys it wrote are absent or right."""
    rows, size = depth(20_000, 300_000), 2000
    direct = connect()
    direct.execute("CREATE UNLOGGED TABLE users (id int PRIMARY KEY, name text)")
    direct.execute("INSERT INTO users SELECT n, 'old' FROM generate_series(0, %s) AS n", [rows])
    proxy = rowtap([USERS])
    warm_up(proxy)
    with proxy.connect() as connection, connection.cursor() as cursor:
        for first in (0, rows - 500):
            cursor.execute("SELECT id, name FROM users WHERE id BETWEEN %s AND %s", [first, first + 499])
        proxy.settle()
        assert redis_client.get("users:0") == redis_client.get(f"users:{rows - 1}") == b"old"
        before = reset_peak(proxy.pid)
        cursor.execute("BEGIN")
        cursor.executemany(
            "UPDATE users SET name = %s WHERE id = %s", ((f"{n}:".ljust(size, "x"), n) for n in range(rows))
        )
        cursor.execute(end)
        proxy.settle()
        grown = peak(proxy.pid) - before
    assert grown < PER_SESSION + SLACK, grown
    wanted = dict(direct.execute("SELECT id, name FROM users"))
    found = {number: redis_client.get(f"users:{number}") for number in (*range(500), *range(rows - 500, rows))}
    assert {number: value for number, value in found.items() if value not in (None, wanted[number].encode())} == {}
    assert any(found.values()) == (end == "ROLLBACK")


@needs_proc
def test_result_of_large_rows_fills_with_bounded_memory(rowtap, connect, redis_client):
    """A session's memory does not grow with the result, and the backlog is bounded for all sessions together."""
    rows, size = 400, 100_000
    direct = connect()
    direct.execute("CREATE UNLOGGED TABLE users (id int PRIMARY KEY, name text)")
    fill = "INSERT INTO users SELECT n, repeat(chr(65 + n %% 26), %s) FROM generate_series(1, %s) AS n"
    direct.execute(fill, [size, rows])
    proxy = rowtap([USERS])
    warm_up(proxy)
    with proxy.connect() as connection:
        before = reset_peak(proxy.pid)
        assert len(connection.execute("SELECT id, name FROM users").fetchall()) == rows
        proxy.settle()
        grown = peak(proxy.pid) - before
    assert sum(redis_client.strlen(f"users:{number}") == size for number in range(1, rows + 1)) == rows
    assert redis_client.get("users:7") == b"H" * size
    assert grown < BACKLOG + PER_SESSION + 2 * SLACK, grown


# A slow server, large objects.


def test_slow_connection_to_the_server_is_relayed_unchanged(rowtap, faulty, postgres, connect):
    link = faulty(postgres.host, postgres.port)
    link.to_client.chunk, link.to_client.delay = 1000, 0.0005
    link.to_server.chunk, link.to_server.delay = 100, 0.0005
    proxy = rowtap([USERS], {"postgres": {"host": link.host, "port": link.port}})
    connect().execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    with proxy.connect() as connection:
        rows = connection.execute("SELECT n, repeat('x', n) FROM generate_series(1, 1000) AS n").fetchall()
        assert [len(text) for _, text in rows] == list(range(1, 1001))
        assert connection.execute("SELECT length(%s)", ["y" * 10_000]).fetchone() == (10_000,)
        connection.execute("INSERT INTO users VALUES (1, 'slow') RETURNING id, name")
    proxy.settle()
    assert connect().execute("SELECT count(*) FROM users").fetchone() == (1,)


def test_large_object_is_written_and_read_by_function_calls(rowtap, connect, tmp_path):
    """psql writes and reads them by function calls."""
    proxy = rowtap([USERS])
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(b"".join(number.to_bytes(4) for number in range(depth(2_000_000, 25_000_000))))
    script = f"\\lo_import '{source}'\n\\lo_export :LASTOID '{copy}'\n\\lo_unlink :LASTOID\n"
    programs.run("psql", "-X", "-v", "ON_ERROR_STOP=1", port=proxy.port, database=proxy.database, text=script)
    assert copy.read_bytes() == source.read_bytes()
    assert connect().execute("SELECT count(*) FROM pg_largeobject_metadata").fetchone() == (0,)


# Programs.


def test_dump_piped_into_psql_through_the_proxy_restores_and_is_captured(rowtap, postgres, connect, redis_client):
    direct = connect()
    direct.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    direct.execute("CREATE TABLE odd (a numeric, b bytea, c text[], d timestamptz DEFAULT now())")
    direct.execute("INSERT INTO users SELECT n, 'user ' || n FROM generate_series(1, 20000) AS n")
    direct.execute(
        "INSERT INTO odd SELECT n / 7.0, decode(md5(n::text), 'hex'), ARRAY[n::text, E'\\t\\n', NULL]"
        " FROM generate_series(1, 20000) AS n"
    )
    digests = [
        f"SELECT md5(string_agg(t::text, '|' ORDER BY t::text)), count(*) FROM {name} AS t" for name in ("users", "odd")
    ]
    with fresh_database(postgres) as target:
        proxy = rowtap([USERS | {"database": target}])
        dump = programs.start("pg_dump", port=proxy.port, database=proxy.database, stdout=subprocess.PIPE)
        restore = programs.start(
            "psql",
            "-X",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            port=proxy.port,
            database=target,
            stdin=dump.stdout,
            stdout=subprocess.DEVNULL,
        )
        dump.stdout.close()
        assert restore.wait(60) == 0
        assert dump.wait(10) == 0
        with psycopg.connect(proxy.dsn(target), autocommit=True) as there:
            for query in digests:
                assert there.execute(query).fetchone() == direct.execute(query).fetchone()
            # The table was created through the proxy, and is captured from then on.
            there.execute("UPDATE users SET name = 'restored' WHERE id = 1")
            there.execute("SELECT id, name FROM users WHERE id = 2")
            proxy.settle()
        assert redis_client.get("users:1") == b"restored"
        assert redis_client.get("users:2") == b"user 2"


def test_pgbench_runs_without_failed_transactions_or_stale_keys(rowtap, connect, redis_client):
    accounts = {"name": "pgbench_accounts", "key": "aid", "value": "abalance", "redis_key": "a:{aid}", "max_rows": 10}
    proxy = rowtap([accounts])
    there = {"port": proxy.port, "database": proxy.database}
    programs.run("pgbench", "-i", "-q", "-s", "1", **there)
    for protocol in ("simple", "extended", "prepared"):
        seconds = depth(1, 60)
        output = programs.run(
            "pgbench",
            "-n",
            "-c",
            "4",
            "-T",
            seconds,
            "-M",
            protocol,
            "-b",
            "tpcb-like@1",
            "-b",
            "select-only@3",
            **there,
        )
        assert output.count("number of failed transactions: 0 (0.000%)") == 3
    sums = [
        connect().execute(f"SELECT coalesce(sum({column}), 0) FROM pgbench_{table}").fetchone()
        for table, column in (
            ("accounts", "abalance"),
            ("branches", "bbalance"),
            ("tellers", "tbalance"),
            ("history", "delta"),
        )
    ]
    assert sums == sums[:1] * 4
    proxy.settle()
    stored = {key: value for key in redis_client.keys("a:*") if (value := redis_client.get(key)) is not None}
    rows = {
        b"a:%d" % aid: b"%d" % balance
        for aid, balance in connect().execute("SELECT aid, abalance FROM pgbench_accounts")
    }
    assert len(stored) > 100
    assert {key: rows[key] for key in stored} == stored


def test_row_of_1600_columns_fills(rowtap, connect, redis_client):
    names = [f"c{number}" for number in range(1, 1600)]
    direct = connect()
    direct.execute(f"CREATE TABLE users ({', '.join(f'{name} int' for name in names)}, name text)")
    direct.execute("ALTER TABLE users ADD PRIMARY KEY (c1)")
    direct.execute(f"INSERT INTO users VALUES ({', '.join('7' for _ in names)}, 'last')")
    proxy = rowtap([USERS | {"key": "c1", "redis_key": "wide:{c1}"}])
    row = proxy.connect().execute("SELECT * FROM users").fetchone()
    assert row == (*(7 for _ in names), "last")
    proxy.settle()
    assert redis_client.get("wide:7") == b"last"


def test_psql_copies_and_describes_tables(rowtap, connect, tmp_path):
    direct = connect()
    direct.execute("CREATE TABLE plain (id int PRIMARY KEY, note text)")
    proxy = rowtap([USERS])
    rows = "".join(f"{number}\tnote {number}\n" for number in range(1, 5001))
    (tmp_path / "in").write_text(rows)
    script = f"""
        \\copy plain from '{tmp_path / "in"}'
        \\copy (SELECT * FROM plain ORDER BY id) to '{tmp_path / "out"}'
        \\d plain
        \\dt+
        \\l
        \\df pg_sleep
        \\set FETCH_COUNT 100
        SELECT count(*) FROM (SELECT * FROM plain) AS all_of_them;
        SELECT id FROM plain ORDER BY id;
        SELECT 'DROP' || ' TABLE plain' \\gexec
    """
    output = programs.run(
        "psql", "-X", "-A", "-v", "ON_ERROR_STOP=1", port=proxy.port, database=proxy.database, text=script
    )
    assert (tmp_path / "out").read_text() == rows
    assert "COPY 5000" in output
    assert '"plain_pkey" PRIMARY KEY, btree (id)' in output
    assert output.count("\n4999\n") == 1
    assert direct.execute("SELECT to_regclass('plain')").fetchone() == (None,)
