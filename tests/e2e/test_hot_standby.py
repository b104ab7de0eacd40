"""A hot standby behind the proxy: what is read there may be older than what its primary's clients have told Redis, so
none of it fills. Once it is promoted, what is read there is what is committed."""

import contextlib

import psycopg
import pytest

from proxy.demo.server_process import Account, run
from proxy.demo.servers import Postgres
from tests.e2e import deployment as scene
from tests.e2e.statement_client import WAYS, Speaker, int4, text

USERS = {"name": "users", "key": "id", "value": "name"}
EVERY = "SELECT id, name FROM users ORDER BY id"
ONE = "SELECT name FROM users WHERE id = $1"
ROWS = [[b"1", b"Ada"], [b"2", b"Grace"]]


@pytest.fixture
def standby(postgres, connect):
    """A standby of `postgres`, made when `database` has its table and thrown away with the test."""
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
    """In front of the standby, connected to Redis and knowing the catalog: nothing else keeps it from filling."""
    found = rowtap([USERS], {"postgres": {"port": standby.port}})
    scene.wait_until_ready(found)
    scene.wait_until_learned(found, database)
    return found


def read(session, way):
    """Rows that carry their key, and one whose key WHERE fixes."""
    names = [[name] for _, name in ROWS]
    assert [row[1:] for row in getattr(session, way)(EVERY).rows] == names
    assert getattr(session, way)(ONE, int4(1)).rows == names[:1]


def test_reading_fills_only_after_promotion(proxy, standby, database, redis_client):
    def held():
        proxy.settle()
        return {key: redis_client.get(key) for key in redis_client.keys("users:*")}

    def session():
        return Speaker(proxy.host, proxy.port, database=database)

    everything = {b"users:" + key: name for key, name in ROWS}
    with session() as old:
        assert old.simple("SHOW in_hot_standby").rows == [[b"on"]]
        for way in WAYS:
            read(old, way)
            with session() as another:
                read(another, way)
        assert old.simple("UPDATE users SET name = 'x' WHERE id = 1").errors == ["25006"]
        assert held() == {}
        with psycopg.connect(standby.dsn(), autocommit=True) as direct:
            assert direct.execute("SELECT pg_promote()").fetchone() == (True,)
        for way in WAYS:
            redis_client.delete(*everything)
            with session() as new:
                assert new.simple("SHOW in_hot_standby").rows == [[b"off"]]
                read(new, way)
                assert held() == everything
        redis_client.delete(*everything)
        old.simple("SELECT 1")  # behind its answer an open session is told that the server is no standby any more
        read(old, "text")
        assert held() == everything
        assert not old.prepared("UPDATE users SET name = $2 WHERE id = $1", int4(1), text("Ada K.")).errors
        assert held() == everything | {b"users:1": b"Ada K."}
