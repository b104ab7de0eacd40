"""A hot standby behind the proxy: rows read there may be older than what the primary's clients have written to Redis,
so none of them fills. After promotion rows read there are current and fill."""

import contextlib

import psycopg
import pytest

from proxy.demo.server_process import Account, run
from proxy.demo.servers import Postgres
from tests.e2e.deployment import wait_until_learned, wait_until_ready
from tests.e2e.statement_client import SEND_MODES, StatementClient, int4, text

USERS = {"name": "users", "key": "id", "value": "name"}
ALL_KEYS = "SELECT id, name FROM users ORDER BY id"
ONE = "SELECT name FROM users WHERE id = $1"
ROWS = [[b"1", b"Ada"], [b"2", b"Grace"]]


@pytest.fixture
def standby(postgres, connect):
    """A standby of `postgres`, made when `database` has its table and removed after the test."""
    connection = connect()
    connection.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    connection.execute("INSERT INTO users VALUES (1, 'Ada'), (2, 'Grace')")
    server = Postgres()
    with contextlib.closing(server):
        command = [str(server.bindir / "pg_basebackup"), "-D", str(server.data_dir), "-d", postgres.dsn()]
        command += ["-R", "-X", "stream", "-c", "fast", "--no-sync", "--no-manifest"]
        run(command, Account.needed(), server.directory)
        server.start()
        yield server


@pytest.fixture
def proxy(rowtap, standby, database):
    """A proxy in front of the standby that has connected to Redis and learned the catalog: no other reason keeps rows
    from filling."""
    found = rowtap([USERS], {"postgres": {"port": standby.port}})
    wait_until_ready(found)
    wait_until_learned(found, database)
    return found


def read(session, mode):
    """One read of rows that carry their key, and one whose key WHERE fixes."""
    names = [[name] for _, name in ROWS]
    assert [row[1:] for row in getattr(session, mode)(ALL_KEYS).rows] == names
    assert getattr(session, mode)(ONE, int4(1)).rows == names[:1]


def test_reads_fill_only_after_promotion(proxy, standby, database, redis_client):
    def held():
        proxy.settle()
        return {key: redis_client.get(key) for key in redis_client.keys("users:*")}

    def session():
        return StatementClient(proxy.host, proxy.port, database=database)

    everything = {b"users:" + key: name for key, name in ROWS}
    with session() as old:
        assert old.simple("SHOW in_hot_standby").rows == [[b"on"]]
        for mode in SEND_MODES:
            read(old, mode)
            with session() as another:
                read(another, mode)
        assert old.simple("UPDATE users SET name = 'x' WHERE id = 1").errors == ["25006"]
        assert held() == {}
        with psycopg.connect(standby.dsn(), autocommit=True) as direct:
            assert direct.execute("SELECT pg_promote()").fetchone() == (True,)
        for mode in SEND_MODES:
            redis_client.delete(*everything)
            with session() as new:
                assert new.simple("SHOW in_hot_standby").rows == [[b"off"]]
                read(new, mode)
                assert held() == everything
        redis_client.delete(*everything)
        old.simple("SELECT 1")  # behind its answer the server reports in_hot_standby = off
        read(old, "text")
        assert held() == everything
        assert not old.prepared("UPDATE users SET name = $2 WHERE id = $1", int4(1), text("Ada K.")).errors
        assert held() == everything | {b"users:1": b"Ada K."}
