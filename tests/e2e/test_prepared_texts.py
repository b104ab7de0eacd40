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


def run(statement, name=b""):
    """Parse, Bind and Execute of one statement."""
    return frontend.Parse(name, statement), frontend.Bind(b"", name), frontend.Execute(b"")


@pytest.mark.parametrize("name", CASES)
def test_prepared_text_leaves_no_stale_key_when_texts_are_read_otherwise(proxy, connect, redis_client, name):
    before, after, text = CASES[name]
    update = b"UPDATE users SET name = " + text + b" WHERE id = %d"
    sync = frontend.Sync()
    with Client(proxy.host, proxy.port) as session:
        session.log_in(proxy.user, proxy.database)
        session.query("SELECT id, name FROM users")
        session.query(f"SET {name} = '{before}'")
        session.send(frontend.Query(b"PREPARE s AS " + update % 1), frontend.Parse(b"t", update % 2), sync)
        # In one pipeline the third is read by what an earlier statement has set.
        setting = f"SET {name} = '{after}'".encode()
        session.send(*run(setting), *run(update % 3), sync)
        session.send(frontend.Query(b"EXECUTE s"), frontend.Bind(b"", b"t"), frontend.Execute(b""), sync)
        replies = []
        for _ in range(5):
            replies += session.receive_until(backend.ReadyForQuery)
        assert not [reply for reply in replies if isinstance(reply, backend.ErrorResponse)]
    proxy.settle()
    for key, stored in connect().execute("SELECT id, name FROM users").fetchall():
        assert stored != "old"
        assert redis_client.get(f"users:{key}") in (None, stored.encode()), key
