"""Clients that send far more requests than they read answers: above the limit the proxy stops reading them until the
server has caught up. Neither the clients nor their rows may suffer."""

import asyncio
import contextlib

import asyncpg
import psycopg
import pytest

from protocol import backend, frontend
from protocol.copy_data import CopyData, CopyDone
from proxy.session.pipeline import BYTE_LIMIT, REQUEST_LIMIT
from tests.e2e.processes import wait_until
from tests.script import READY, Client

pytestmark = pytest.mark.measured

USERS = {"name": "users", "key": "id", "value": "name", "redis_key": "users:{id}"}
SYNC = bytes(frontend.Sync())
PARSE = bytes(frontend.Parse(b"", b"UPDATE users SET name = $1 WHERE id = $2", (25, 23)))
KEYS = 50

both_modes = pytest.mark.parametrize("before_commit", [False, True], ids=["", "before_commit"])


@pytest.fixture
def proxy(rowtap, connect, request):
    """A proxy in front of a table with a few rows."""
    direct = connect()
    direct.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    direct.execute("INSERT INTO users SELECT n, 'old' FROM generate_series(1, %s) AS n", [KEYS])
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    before_commit = parameters.get("before_commit", False)
    return rowtap([USERS], {"cache": {"before_commit": True}} if before_commit else {})


def update(number, size):
    """Bind and Execute of an UPDATE; the value of a key begins with the number of its last update."""
    value = b"%d:" % number + b"x" * size
    return bytes(frontend.Bind(b"", b"", (), [value, b"%d" % (number % KEYS + 1)])) + bytes(frontend.Execute(b""))


def expected(updates, size):
    last = {number % KEYS + 1: number for number in range(updates)}
    return {f"users:{key}": b"%d:" % number + b"x" * size for key, number in last.items()}


def held(redis_client):
    keys = [f"users:{key}" for key in range(1, KEYS + 1)]
    return dict(zip(keys, redis_client.mget(keys), strict=True))


def send_all(client, data, wait=30):
    """Send all data before reading a byte."""
    client.socket.settimeout(wait)
    client.socket.sendall(data)


@pytest.mark.parametrize(("updates", "size"), [(3 * REQUEST_LIMIT, 1), (8 * BYTE_LIMIT // 8192, 8192)])
@both_modes
def test_updates_without_a_sync_are_answered_and_captured(proxy, redis_client, updates, size, before_commit):
    """The server keeps its answers until it gets a Flush or Sync, while the proxy does not read the client: it must
    send the Flush."""
    with Client(proxy.host, proxy.port) as client:
        client.log_in("postgres", proxy.database)
        client.query("SELECT id, name FROM users")
        send_all(client, PARSE + b"".join(update(number, size) for number in range(updates)))
        send_all(client, SYNC)
        client.expect(backend.ParseComplete())
        for _ in range(updates):
            client.expect(backend.BindComplete(), backend.CommandComplete(b"UPDATE 1"))
        client.expect(READY)
    proxy.settle()
    assert proxy.sessions_blinded() == 0
    found = held(redis_client)
    assert {key: value for key, value in found.items() if value is not None} == expected(updates, size), (
        "each key was written last by one of them, and nothing came between"
    )


@both_modes
def test_error_among_updates_without_a_sync_undoes_their_pipeline(proxy, redis_client, before_commit):
    """The messages behind the error are ignored, and the updates before it are undone."""
    with Client(proxy.host, proxy.port) as client:
        client.log_in("postgres", proxy.database)
        client.query("SELECT id, name FROM users")
        proxy.settle()
        wrong = bytes(frontend.Bind(b"", b"", (), [b"v", b"no number"])) + bytes(frontend.Execute(b""))
        many = b"".join(update(number, 2000) for number in range(1000))
        send_all(client, PARSE + many + wrong + many + SYNC + many + SYNC)
        errors = [m for m in client.receive_until(backend.ReadyForQuery) if isinstance(m, backend.ErrorResponse)]
        assert len(errors) == 1
        client.receive_until(backend.ReadyForQuery)
        client.query("SELECT id, name FROM users")
    proxy.settle()
    assert proxy.sessions_blinded() == 0
    assert held(redis_client) == expected(1000, 2000)


def test_client_over_the_limit_receives_the_same_bytes(proxy, postgres):
    queries = b"".join(bytes(frontend.Query(b"SELECT %d, repeat('x', %d)" % (n, n % 50))) for n in range(10_000))
    unsynced = PARSE + b"".join(update(number, 1000) for number in range(2000)) + SYNC
    lines = bytes(frontend.Query(b"COPY users FROM STDIN")) + bytes(CopyData(b"%d\tcopied\n" % (KEYS + 1)))
    talk = queries + unsynced + lines + bytes(CopyDone()) + bytes(frontend.Query(b"DELETE FROM users WHERE id > 50"))
    answers = []
    for host, port in ((postgres.host, postgres.port), (proxy.host, proxy.port)):
        with Client(host, port) as client:
            client.log_in("postgres", proxy.database)
            client.received.clear()
            send_all(client, talk)
            for _ in range(10_000 + 3):
                client.receive_until(backend.ReadyForQuery)
            answers.append(bytes(client.received))
    assert answers[0] == answers[1]
    proxy.settle()
    assert proxy.sessions_blinded() == 0


@pytest.mark.parametrize("piece", [1021, 65_537])
def test_client_over_the_limit_is_captured_with_any_chunk_size(proxy, redis_client, faulty, piece):
    """The proxy stops reading at the end of a message, but a chunk may end anywhere."""
    updates, size = 400, 8000
    link = faulty(proxy.host, proxy.port)
    link.to_server.chunk = piece
    with Client(link.host, link.port) as client:
        client.log_in("postgres", proxy.database)
        send_all(client, PARSE + b"".join(update(number, size) for number in range(updates)) + SYNC)
        client.receive_until(backend.ReadyForQuery)
    proxy.settle()
    assert proxy.sessions_blinded() == 0
    assert {key: value for key, value in held(redis_client).items() if value is not None} == expected(updates, size)


def test_session_ends_when_a_client_over_the_limit_disconnects(proxy, connect, database):
    connection = Client(proxy.host, proxy.port)
    connection.log_in("postgres", proxy.database)
    connection.send(frontend.Query(b"SELECT pg_sleep(2)"))
    connection.socket.settimeout(0.3)
    sent = 0
    data = bytes(frontend.Query(b"SELECT 1")) * 100_000
    with contextlib.suppress(TimeoutError):
        while sent < len(data):
            sent += connection.socket.send(data[sent : sent + 65536])
    connection.close()
    wait_until(lambda: proxy.status()["sessions"] == 0, 20)
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND query LIKE '%%pg_sleep(2)'"
    wait_until(lambda: connect().execute(query, [database]).fetchone() == (0,), 20)


def test_executemany_of_psycopg_is_captured(proxy, redis_client):
    updates, size = 5000, 1000
    with proxy.connect() as connection, connection.cursor() as cursor:
        values = [(f"{number}:" + "x" * size, number % KEYS + 1) for number in range(updates)]
        cursor.executemany("UPDATE users SET name = %s WHERE id = %s", values)
    proxy.settle()
    found = {key: value for key, value in held(redis_client).items() if value is not None}
    assert found == expected(updates, size)


async def test_executemany_of_asyncpg_is_captured(proxy, redis_client):
    updates, size = 5000, 1000
    connection = await asyncpg.connect(proxy.url())
    try:
        values = [(f"{number}:" + "x" * size, number % KEYS + 1) for number in range(updates)]
        await connection.executemany("UPDATE users SET name = $1 WHERE id = $2", values)
    finally:
        await connection.close()
    await asyncio.to_thread(proxy.settle)
    found = {key: value for key, value in held(redis_client).items() if value is not None}
    assert found == expected(updates, size)


def test_other_session_is_served_beside_a_client_over_the_limit(proxy):
    with Client(proxy.host, proxy.port) as client, psycopg.connect(proxy.dsn(), autocommit=True) as other:
        client.log_in("postgres", proxy.database)
        client.send(frontend.Query(b"SELECT pg_sleep(1)"))
        send_all(client, bytes(frontend.Query(b"SELECT 1")) * 20_000)
        assert other.execute("SELECT name FROM users WHERE id = 1").fetchone() == ("old",)
        for _ in range(20_001):
            client.receive_until(backend.ReadyForQuery)
