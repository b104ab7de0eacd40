"""One database with a proxy in front of it for the whole folder, and `both`, which holds a dialogue with each of them.

A test can be marked to run with another server or another proxy configuration: see tests/conformance/stages.py.
"""

from operator import attrgetter

import pytest
from psycopg import sql

from tests.conformance.stages import PLAIN, start_stage
from tests.conformance.wire import Wire

CONTENT = """
    TRUNCATE items, plain;
    INSERT INTO items SELECT n, 'item ' || n, n / 4.0, decode(md5(n::text), 'hex'), ARRAY['a', n::text]
        FROM generate_series(1, 20) AS n;
"""


def pytest_collection_modifyitems(items):
    """All share one proxy, so all have it measured: any of them may be the one that starts it."""
    for item in items:
        if "conformance" in item.path.parts:
            item.add_marker(pytest.mark.measured)


@pytest.fixture(scope="session")
def plain_stage(postgres, valkey, tmp_path_factory):
    """The proxy is in front of `postgres`."""
    with start_stage(postgres, f"{valkey.url}/0", tmp_path_factory.mktemp("conformance")) as stage:
        yield stage


@pytest.fixture(scope="session")
def tls_stage(postgres_tls, valkey, tmp_path_factory):
    """The proxy connects to the server with TLS; its clients, and those that connect directly, do not use TLS."""
    directory = tmp_path_factory.mktemp("conformance-tls")
    with start_stage(postgres_tls, f"{valkey.url}/0", directory, sslmode="require") as stage:
        yield stage


@pytest.fixture(scope="session")
def stage15(postgres15, valkey, tmp_path_factory):
    """The proxy is in front of PostgreSQL 15, without TLS."""
    directory = tmp_path_factory.mktemp("conformance-15")
    with start_stage(postgres15, f"{valkey.url}/0", directory, sslmode="disable") as stage:
        yield stage


@pytest.fixture
def stage(request):
    """The stage the test is marked with; without a mark, the one in front of `postgres`."""
    return request.getfixturevalue(getattr(request, "param", PLAIN))


@pytest.fixture
def conformance_database(stage):
    """The name of the database, the same directly and through the proxy."""
    return stage.database


@pytest.fixture
def refill(stage):
    """`refill()` restores the original contents of the tables."""
    if not stage.server.running:
        stage.server.start()

    def roll_back_prepared_transactions():
        prepared = connection.execute("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()")
        for (gid,) in prepared.fetchall():
            connection.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(gid)))

    def fill():
        roll_back_prepared_transactions()
        connection.execute(CONTENT)

    with stage.connect(options="-c lock_timeout=10s") as connection:
        yield fill
        roll_back_prepared_transactions()


@pytest.fixture
def addresses(stage):
    """The two addresses clients connect to: PostgreSQL's and the proxy's."""
    return stage.addresses


@pytest.fixture
def both(addresses, refill, conformance_database):
    """`both(script) -> Wire`: run `script(wire)` directly and through the proxy; every message received must be equal.

    Returns the direct connection, so that a test can check the answers themselves. `transcript(wire)` is what is
    compared, if that is not everything.
    """

    def compare(script, *, started=True, transcript=attrgetter("transcript"), **options):
        wires = []
        for address in addresses:
            refill()
            with Wire(*address, **{"database": conformance_database} | options) as wire:
                if started:
                    wire.start()
                script(wire)
                wire.terminate()
            wires.append(wire)
        direct, proxied = wires
        assert transcript(proxied) == transcript(direct)
        return direct

    return compare


@pytest.fixture
def may_go_blind():
    """Marks a test that sends what the proxy cannot follow: its session may go blind."""


@pytest.fixture(autouse=True)
def sessions_stay_observed(request, stage):
    """In all other tests no session may go blind: the proxy must have understood every message."""
    before = stage.proxy.sessions_blinded()
    yield
    assert "may_go_blind" in request.fixturenames or stage.proxy.sessions_blinded() == before, stage.proxy.log_text()
