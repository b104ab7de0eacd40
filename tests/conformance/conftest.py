"""One database and one proxy in front of it for the whole folder, and `both`: the same thing said to each."""

from operator import attrgetter

import psycopg
import pytest
from psycopg import sql

from proxy.embedded import HOST, free_port
from tests.conformance.wire import Wire
from tests.fix_postgres import fresh_database
from tests.fix_proxy import Proxy

SCHEMA = """
    CREATE TABLE items (id int PRIMARY KEY, name text, price numeric(10, 2), data bytea, tags text[]);
    CREATE TABLE plain (id int, note text);
    CREATE TYPE mood AS ENUM ('calm', 'excited');
    CREATE FUNCTION shout(text) RETURNS text LANGUAGE plpgsql AS
        $$BEGIN RAISE NOTICE 'heard %', $1; RETURN upper($1); END$$;
"""
CONTENT = """
    TRUNCATE items, plain;
    INSERT INTO items SELECT n, 'item ' || n, n / 4.0, decode(md5(n::text), 'hex'), ARRAY['a', n::text]
        FROM generate_series(1, 20) AS n;
"""
TABLE = {"name": "items", "key": "id", "value": "name"}


@pytest.fixture(scope="session")
def conformance_database(postgres):
    """The database both ways lead to."""
    with fresh_database(postgres) as name:
        with psycopg.connect(postgres.dsn(name), autocommit=True) as connection:
            connection.execute(SCHEMA)
        yield name


@pytest.fixture(scope="session")
def proxied(postgres, valkey, conformance_database, tmp_path_factory):
    """The proxy, with a table to observe."""
    config = {
        "proxy": {"listen": f"{HOST}:{free_port()}", "shutdown_timeout": "3s"},
        "postgres": {"host": HOST, "port": postgres.port, "database": conformance_database},
        "redis": {"url": f"{valkey.url}/0"},
        "admin": {"listen": f"{HOST}:{free_port()}"},
        "table": [TABLE],
    }
    import os  # DEV

    if os.environ.get("SELF"):  # DEV
        from tests.recording import Recorder  # DEV

        yield Recorder(postgres.host, postgres.port)  # DEV
        return  # DEV
    proxy = Proxy(tmp_path_factory.mktemp("conformance") / "config.toml", config)
    try:
        proxy.start()
        yield proxy
    finally:
        proxy.finish()


@pytest.fixture
def refill(postgres, conformance_database):
    """`refill()`: the tables as they were at first."""
    if not postgres.running:
        postgres.start()

    def forget_prepared_transactions():
        prepared = connection.execute("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()")
        for (gid,) in prepared.fetchall():
            connection.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(gid)))

    def fill():
        forget_prepared_transactions()
        connection.execute(CONTENT)

    options = "-c lock_timeout=10s"
    with psycopg.connect(postgres.dsn(conformance_database), autocommit=True, options=options) as connection:
        yield fill
        forget_prepared_transactions()


@pytest.fixture
def ways(postgres, proxied):
    """The two addresses: PostgreSQL's own and the proxy's."""
    return (postgres.host, postgres.port), (proxied.host, proxied.port)


@pytest.fixture
def both(ways, refill, conformance_database):
    """`both(script) -> Wire`: run `script(wire)` directly and through the proxy; every message must be the same.

    Returns the direct one, so that a test can say what the answer should have been. `transcript(wire)` is what to
    compare, when it is not all.
    """

    def compare(script, *, started=True, transcript=attrgetter("transcript"), **options):
        wires = []
        for address in ways:
            refill()
            with Wire(*address, **{"database": conformance_database} | options) as wire:
                if started:
                    wire.start()
                script(wire)
                wire.leave()
            wires.append(wire)
        direct, proxied = wires
        assert transcript(proxied) == transcript(direct)
        return direct

    return compare


@pytest.fixture
def senseless():
    """For tests that send what makes no sense, and so may make the proxy give up following the session."""


@pytest.fixture(autouse=True)
def followed(request, proxied):
    """In all others no session may have become one that is only relayed: what passed through had been understood."""
    before = len(_lost(proxied))
    yield
    assert "senseless" in request.fixturenames or _lost(proxied)[before:] == []


def _lost(proxied):
    return [line for line in proxied.log_text().splitlines() if "not followed any longer" in line]
