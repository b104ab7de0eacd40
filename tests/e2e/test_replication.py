"""Replication through the proxy: WAL streams, slots, base backups, a standby and a subscription.

Replication sessions are unobserved: the proxy relays them and sends no catalog query over them.
"""

import contextlib
import subprocess

import psycopg
import pytest
from psycopg import sql

from proxy.demo.servers import Postgres
from tests.e2e import programs
from tests.e2e.processes import wait_until
from tests.e2e.raw_sessions import log_in, values
from tests.fix_postgres import fresh_database

USERS = {"name": "users", "key": "id", "value": "name", "redis_key": "users:{id}"}
SEGMENT = 16 * 1024 * 1024


@pytest.fixture
def table(connect):
    connection = connect()
    connection.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    connection.execute("INSERT INTO users VALUES (1, 'Ada'), (2, 'Grace')")
    return connection


@pytest.fixture
def slot(postgres, request):
    """The name of a replication slot, which is dropped when the test ends."""
    name = f"slot_{abs(hash(request.node.nodeid)) % 10**8}"
    yield name
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        drop = (
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s AND NOT active"
        )
        gone = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = %s"

        def dropped():
            connection.execute(drop, [name])
            return connection.execute(gone, [name]).fetchone() == (0,)

        wait_until(dropped, why="the replication slot stayed in use")


def wal_end(connection):
    """The LSN at which the WAL ends, as text."""
    return connection.execute("SELECT pg_current_wal_flush_lsn()").fetchone()[0]


def no_session_was_observed(proxy):
    """Whether the proxy sent no catalog query over its sessions and observed none of them."""
    text = proxy.log_text()
    return "worker learns the catalog" not in text and "only relayed" not in text and proxy.sessions_blinded() == 0


def test_pg_receivewal_receives_identical_segments(rowtap, table, slot, tmp_path, postgres):
    proxy = rowtap([USERS])
    there = {"port": proxy.port, "database": proxy.database}
    table.execute("SELECT pg_create_physical_replication_slot(%s, true)", [slot])
    programs.run("pg_receivewal", "--create-slot", "--if-not-exists", "--slot", slot, **there)
    (begin,) = table.execute("SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = %s", [slot]).fetchone()
    table.execute("INSERT INTO users SELECT n, repeat('wal', 100) FROM generate_series(10, 20000) AS n")
    end = wal_end(table)
    # The program stops when it has received more than that.
    table.execute("INSERT INTO users VALUES (0, 'behind')")
    directory = tmp_path / "wal"
    directory.mkdir()
    programs.run("pg_receivewal", "--slot", slot, "--no-loop", "--endpos", end, "--no-sync", "-D", directory, **there)
    assert position(end) - position(begin) > 3_000_000
    received = sorted(directory.iterdir())
    assert len(received) == position(end) // SEGMENT - position(begin) // SEGMENT + 1
    for path in received[:-1]:
        assert path.read_bytes() == (postgres.data_dir / "pg_wal" / path.name).read_bytes()
    last, offset = received[-1], position(end) % SEGMENT
    assert last.read_bytes()[:offset] == (postgres.data_dir / "pg_wal" / last.stem).read_bytes()[:offset]
    programs.run("pg_receivewal", "--drop-slot", "--slot", slot, **there)
    assert no_session_was_observed(proxy)


def position(lsn):
    """A place in the WAL as a number of bytes."""
    high, low = lsn.split("/")
    return int(high, 16) << 32 | int(low, 16)


def test_pg_recvlogical_receives_every_change(rowtap, table, slot, tmp_path):
    proxy = rowtap([USERS])
    there = {"port": proxy.port, "database": proxy.database}
    words = ("--slot", slot, "-d", proxy.database)
    programs.run("pg_recvlogical", *words, "--create-slot", "--plugin", "test_decoding", **there)
    assert no_session_was_observed(proxy)
    writer = proxy.connect()
    writer.execute("UPDATE users SET name = 'Ada K.' WHERE id = 1")
    with writer.transaction():
        writer.execute("INSERT INTO users SELECT n, repeat('x', 1000) FROM generate_series(10, 5000) AS n")
        writer.execute("DELETE FROM users WHERE id = 2")
    output = tmp_path / "changes"
    programs.run(
        *("pg_recvlogical", *words, "--start", "--no-loop", "--endpos", wal_end(table), "-f", output),
        *("-o", "skip-empty-xacts=1", "-o", "include-xids=0"),
        **there,
    )
    lines = output.read_text().splitlines()
    assert lines[:3] == ["BEGIN", "table public.users: UPDATE: id[integer]:1 name[text]:'Ada K.'", "COMMIT"]
    assert sum("INSERT" in line for line in lines) == 4991
    assert "table public.users: DELETE: id[integer]:2" in lines


def test_logical_stream_receives_changes_until_its_program_ends(rowtap, table, slot, connect):
    """START_REPLICATION stays open, with its keepalive messages, beside observed sessions."""
    proxy = rowtap([USERS])
    there = {"port": proxy.port, "database": proxy.database}
    words = ("--slot", slot, "-d", proxy.database, "--status-interval", "1")
    programs.run("pg_recvlogical", *words[:4], "--create-slot", "--plugin", "test_decoding", **there)
    running = programs.start(
        *("pg_recvlogical", *words, "--start", "--no-loop", "-f", "-", "-o", "skip-empty-xacts=1"),
        stdout=subprocess.PIPE,
        text=True,
        **there,
    )
    with running:
        try:
            writer = proxy.connect()
            for number in range(5):
                writer.execute("UPDATE users SET name = %s WHERE id = 1", [f"name {number}"])
                found = next(line for line in running.stdout if "UPDATE" in line)
                assert f"'name {number}'" in found
            active = "SELECT count(active_pid) FROM pg_replication_slots WHERE slot_name = %s"
            assert table.execute(active, [slot]).fetchone() == (1,)
        finally:
            running.kill()
            running.wait(10)
    wait_until(lambda: table.execute(active, [slot]).fetchone() == (0,), why="the WAL sender outlived its client")


def test_standby_made_and_fed_through_the_proxy_never_fills(rowtap, table, slot, postgres, redis_client):
    """The standby is made from a base backup through the proxy and receives its WAL through it; reads from it never
    fill."""
    proxy = rowtap([USERS])
    with contextlib.ExitStack() as stack:
        standby = Postgres(settings={})
        stack.callback(standby.close)
        programs.run(
            *("pg_basebackup", "-D", standby.data_dir, "-X", "stream", "-C", "-S", slot, "-R", "-c", "fast"),
            *("--no-sync", "--manifest-checksums=CRC32C"),
            port=proxy.port,
        )
        programs.run("pg_verifybackup", "-n", standby.data_dir, port=proxy.port)
        settings = standby.data_dir / "postgresql.auto.conf"
        assert f"port={proxy.port}" in settings.read_text()
        give_to_server_account(standby)
        standby.start()
        table.execute("INSERT INTO users VALUES (3, 'on the standby')")
        with psycopg.connect(standby.dsn(proxy.database), autocommit=True) as there:
            wait_until(lambda: there.execute("SELECT name FROM users WHERE id = 3").fetchone() == ("on the standby",))
        assert no_session_was_observed(proxy)
        proxy_of_standby = rowtap([USERS], {"postgres": {"port": standby.port}})
        reader = proxy_of_standby.connect()
        assert len(reader.execute("SELECT id, name FROM users").fetchall()) == 3
        proxy_of_standby.settle()
        assert redis_client.keys("users:*") == []
        standby.stop()


def give_to_server_account(server):
    """Give the base backup, which its program wrote with our account, to the account the server runs as."""
    owner = server.directory.stat()
    subprocess.run(["chown", "-R", f"{owner.st_uid}:{owner.st_gid}", server.data_dir], check=True)
    server.data_dir.chmod(0o700)


def test_subscription_through_the_proxy_copies_and_streams(rowtap, table, slot, postgres):
    """The initial copy and the stream use connections of their own."""
    proxy = rowtap([USERS])
    table.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    # A subscription to its own cluster cannot create its slot: CREATE SUBSCRIPTION would wait for itself.
    table.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])
    with fresh_database(postgres) as target, psycopg.connect(postgres.dsn(target), autocommit=True) as there:
        there.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
        create = "CREATE SUBSCRIPTION all_of_it CONNECTION {} PUBLICATION everything WITH (create_slot = off, "
        create += "slot_name = {})"
        there.execute(sql.SQL(create).format(sql.Literal(proxy.dsn(sslmode="disable")), sql.Identifier(slot)))
        try:
            count = "SELECT count(*) FROM users"
            wait_until(lambda: there.execute(count).fetchone() == (2,), 30, why="the initial copy did not arrive")
            proxy.connect().execute("INSERT INTO users SELECT n, 'more' FROM generate_series(10, 1009) AS n")
            wait_until(lambda: there.execute(count).fetchone() == (1002,), 30, why="the stream did not arrive")
        finally:
            there.execute("ALTER SUBSCRIPTION all_of_it DISABLE")
            there.execute("ALTER SUBSCRIPTION all_of_it SET (slot_name = NONE)")
            there.execute("DROP SUBSCRIPTION all_of_it")


@pytest.mark.parametrize("replication", ["database", "true", "on", "1"])
def test_replication_session_is_relayed_unobserved(rowtap, table, redis_client, replication):
    proxy = rowtap([USERS])
    with log_in(proxy, replication=replication) as client:
        ((*_, name),) = values(client.query("IDENTIFY_SYSTEM"))
        assert name.decode() == (proxy.database if replication == "database" else "")
        if replication == "database":
            answers = client.query("SELECT id, name FROM users ORDER BY id; UPDATE users SET name = name WHERE id = 1")
            assert values(answers) == [[b"1", b"Ada"], [b"2", b"Grace"]]
    proxy.settle()
    assert redis_client.keys("users:*") == []
    assert no_session_was_observed(proxy)


@pytest.mark.parametrize("replication", ["false", "off", "0"])
def test_replication_parameter_with_a_false_value_is_an_ordinary_session(rowtap, table, redis_client, replication):
    proxy = rowtap([USERS])
    with log_in(proxy, replication=replication) as client:
        client.query("SELECT id, name FROM users")
    proxy.settle()
    assert redis_client.get("users:1") == b"Ada"
