"""A prepared statement keeps the meaning its text had when it was prepared, whatever the session sets afterwards: Redis
holds what PostgreSQL stored, or no key."""

import pytest

from protocol import backend, frontend
from tests.script import Client

USERS = {"name": "users", "key": "id", "value": "name", "redis_key": "users:{id}"}
CASES = {
    "client_encoding": ("LATIN1", "UTF8", b"'\xc3\xa9'"),
    "standard_conforming_strings": ("off", "on", rb"'a\\b'"),
}


@pytest.fixture
def proxy(rowtap, connect):
    """A proxy in front of three rows."""
    connect().execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    connect().execute("INSERT INTO users SELECT n, 'old' FROM generate_series(1, 3) n")
    return rowtap([USERS])


def run(statement):
    """Parse, Bind and Execute of one statement."""
    return frontend.Parse(b"", statement), frontend.Bind(b"", b""), frontend.Execute(b"")


def answered(session, count):
    """Wait until the server has answered with so many ReadyForQuery, and none of it an error."""
    for _ in range(count):
        replies = session.receive_until(backend.ReadyForQuery)
        assert not [reply for reply in replies if isinstance(reply, backend.ErrorResponse)]


def stale(proxy, connect, redis_client):
    """The rows whose key has another value than they have."""
    proxy.settle()
    rows = connect().execute("SELECT id, name FROM users").fetchall()
    return [row for row in rows if redis_client.get(f"users:{row[0]}") not in (None, row[1].encode())]


@pytest.mark.parametrize("name", CASES)
def test_prepared_text_leaves_no_stale_key_when_texts_are_read_otherwise(proxy, connect, redis_client, name):
    before, after, text = CASES[name]
    update, sync = b"UPDATE users SET name = " + text + b" WHERE id = %d", frontend.Sync()
    with Client(proxy.host, proxy.port) as session:
        session.log_in(proxy.user, proxy.database)
        session.query("SELECT id, name FROM users")
        session.query(f"SET {name} = '{before}'")
        session.send(frontend.Query(b"PREPARE s AS " + update % 1), frontend.Parse(b"t", update % 2), sync)
        answered(session, 2)
        session.query(f"SET {name} = '{after}'")
        session.send(frontend.Query(b"EXECUTE s"), frontend.Bind(b"", b"t"), frontend.Execute(b""), sync)
        answered(session, 2)
    assert stale(proxy, connect, redis_client) == []


@pytest.mark.parametrize("name", CASES)
def test_text_that_is_parsed_behind_a_setting_in_one_pipeline_leaves_no_stale_key(proxy, connect, redis_client, name):
    before, after, text = CASES[name]
    with Client(proxy.host, proxy.port) as session:
        session.log_in(proxy.user, proxy.database)
        session.query("SELECT id, name FROM users")
        session.query(f"SET {name} = '{before}'")
        setting = f"SET {name} = '{after}'".encode()
        session.send(*run(setting), *run(b"UPDATE users SET name = " + text + b" WHERE id = 3"), frontend.Sync())
        answered(session, 1)
    assert stale(proxy, connect, redis_client) == []
