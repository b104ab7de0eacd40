"""One database and one proxy in front of it for the whole folder, and `both`: the same thing said to each.

Tests marked with another stage (`tests.conformance.stages`) have a database and a proxy of that.
"""

from operator import attrgetter

import pytest
from psycopg import sql

from tests.conformance.stages import PLAIN, set_up
from tests.conformance.wire import Wire

CONTENT = """
    TRUNCATE items, plain;
    INSERT INTO items SELECT n, 'item ' || n, n / 4.0, decode(md5(n::text), 'hex'), ARRAY['a', n::text]
        FROM generate_series(1, 20) AS n;
"""


@pytest.fixture(scope="session")
def plain_stage(postgres, valkey, tmp_path_factory):
    """In front of `postgres`."""
    with set_up(postgres, f"{valkey.url}/0", tmp_path_factory.mktemp("conformance")) as stage:
        yield stage


@pytest.fixture(scope="session")
def tls_stage(postgres_tls, valkey, tmp_path_factory):
    """The proxy speaks TLS with the server; its clients, and those that go directly, do not."""
    directory = tmp_path_factory.mktemp("conformance-tls")
    with set_up(postgres_tls, f"{valkey.url}/0", directory, sslmode="require") as stage:
        yield stage


@pytest.fixture(scope="session")
def stage15(postgres15, valkey, tmp_path_factory):
    """In front of PostgreSQL 15, without TLS."""
    directory = tmp_path_factory.mktemp("conformance-15")
    with set_up(postgres15, f"{valkey.url}/0", directory, sslmode="disable") as stage:
        yield stage


@pytest.fixture
def stage(request):
    """The stage the test is marked with, in front of `postgres` unless told."""
    return request.getfixturevalue(getattr(request, "param", PLAIN))


@pytest.fixture
def conformance_database(stage):
    """The database both ways lead to."""
    return stage.database


@pytest.fixture
def refill(stage):
    """`refill()`: the tables as they were at first."""
    if not stage.server.running:
        stage.server.start()

    def forget_prepared_transactions():
        prepared = connection.execute("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()")
        for (gid,) in prepared.fetchall():
            connection.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(gid)))

    def fill():
        forget_prepared_transactions()
        connection.execute(CONTENT)

    with stage.connect(options="-c lock_timeout=10s") as connection:
        yield fill
        forget_prepared_transactions()


@pytest.fixture
def ways(stage):
    """The two addresses: PostgreSQL's own and the proxy's."""
    return stage.ways


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
def followed(request, stage):
    """In all others no session may have become one that is only relayed: what passed through had been understood."""
    before = len(_lost(stage.proxy))
    yield
    assert "senseless" in request.fixturenames or _lost(stage.proxy)[before:] == []


def _lost(proxy):
    return [line for line in proxy.log_text().splitlines() if "not followed any longer" in line]
