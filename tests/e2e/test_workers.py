"""Several workers behind one address: work is shared, the dead are replaced, signals reach all."""

import os
import re
import signal
import threading
import time

import psycopg
import pytest

from protocol import backend, frontend
from tests.e2e.processes import alive, children, descriptors, eventually, needs_proc
from tests.e2e.raw_sessions import await_message, log_in
from tests.script import READY

USERS = {"name": "users", "key": "id", "value": "name", "redis_key": "users:{id}"}

pytestmark = needs_proc


@pytest.fixture
def table(connect):
    connection = connect()
    connection.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    connection.execute("INSERT INTO users SELECT n, 'user ' || n FROM generate_series(1, 100) AS n")
    return connection


@pytest.fixture
def workers(rowtap):
    """`workers(2, …)`: a proxy with so many, all of them at work."""

    def start(number, tables=(), **proxy_settings):
        proxy = rowtap(tables, {"proxy": {"workers": number} | proxy_settings})
        expected = len(os.sched_getaffinity(0)) if number == "auto" else number
        eventually(lambda: serving(proxy) == expected, why="not all workers came up")
        return proxy

    return start


def serving(proxy):
    """How many workers answer."""
    return proxy.status()["workers"]


def share(pid):
    """How many sockets a worker has open."""
    return descriptors(pid).count("socket")


def spread(proxy, pids, count=12):
    """Connections until every worker has at least one; they are returned."""
    idle = {pid: share(pid) for pid in pids}
    connections: list[psycopg.Connection] = []
    while len(connections) < 200:
        connections += [proxy.connect() for _ in range(count)]
        if all(share(pid) > idle[pid] for pid in pids):
            return connections
    pytest.fail(f"{len(connections)} connections all went to one worker")


@pytest.mark.parametrize("number", [2, "auto"])
def test_work_is_shared_and_status_is_the_sum(workers, table, redis_client, number):
    proxy = workers(number, [USERS])
    pids = children(proxy.pid)
    assert len(pids) == (2 if number == 2 else len(os.sched_getaffinity(0)))
    clients = spread(proxy, pids)
    assert proxy.status()["sessions"] == len(clients)
    for client in clients:
        # A worker that has not heard of the other's flush at the start yet is told of it by this.
        client.execute("UPDATE users SET name = name WHERE id = 100")
    proxy.settle()
    (before,) = proxy.status()["tables"].values()
    for number_, client in enumerate(clients, 1):
        client.execute("SELECT id, name FROM users WHERE id = %s", [number_])
        client.execute("UPDATE users SET name = %s WHERE id = %s", [f"by session {number_}", number_])
    proxy.settle()
    for number_ in range(1, len(clients) + 1):
        assert redis_client.get(f"users:{number_}") == f"by session {number_}".encode()
    (counts,) = proxy.status()["tables"].values()
    assert counts["stores"] - before["stores"] == len(clients)
    _, text = proxy.get("/metrics")
    (accepted,) = re.findall(r"^rowtap_connections_accepted_total (\S+)", text, re.MULTILINE)
    assert float(accepted) == len(clients)
    assert len(set(re.findall(r'^process_\w+\{worker="(\d+)"', text, re.MULTILINE))) in (0, len(pids))


def test_workers_that_are_slow_to_answer_are_not_given_up(rowtap):
    """Asked without a pause from the first moment on, and stopped for a while."""
    proxy = rowtap(config={"proxy": {"workers": 2}})
    eventually(lambda: serving(proxy) == 2, 30)
    pids = children(proxy.pid)
    os.kill(pids[0], signal.SIGSTOP)
    try:
        assert (proxy.status()["workers"], proxy.status()["pending_changes"]) == (1, None)
        assert "1 of 2 workers do not answer" in proxy.get("/readyz")[1]
    finally:
        os.kill(pids[0], signal.SIGCONT)
    eventually(lambda: serving(proxy) == 2)
    assert proxy.status()["pending_changes"] == 0
    assert children(proxy.pid) == pids
    assert "worker ended unexpectedly" not in proxy.log_text()


def test_a_killed_worker_is_replaced_and_its_tables_flushed(workers, table, redis_client):
    proxy = workers(2, [USERS])
    before = children(proxy.pid)
    clients = spread(proxy, before)
    warmed(proxy, clients[0], redis_client, {f"users:{n}": f"user {n}".encode() for n in range(1, 101)})
    victim = before[0]
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: len(pids := children(proxy.pid)) == 2 and victim not in pids, why="the worker was not replaced")
    # Whether anything was on its way is known to nobody.
    eventually(lambda: not redis_client.keys("users:*"), why="what the dead worker may have left was not flushed")
    survivors = [client for client in clients if lives(client)]
    assert 0 < len(survivors) < len(clients)
    eventually(lambda: serving(proxy) == 2)
    assert proxy.get("/healthz")[0] == 200
    eventually(lambda: proxy.get("/readyz")[0] == 200)
    # Both workers go on. For as long as a statement of the dead one may still commit unseen the table holds no values,
    # and never wrong ones.
    for number, client in enumerate([*survivors[:2], *(proxy.connect() for _ in range(8))]):
        client.execute("UPDATE users SET name = %s WHERE id = 5", [f"after {number}"])
        client.execute("SELECT id, name FROM users")
        proxy.settle()
        assert redis_client.get("users:5") in (None, f"after {number}".encode())
    assert proxy.log_text().count("worker ended unexpectedly") == 1
    assert table.execute("SELECT count(*) FROM users").fetchone() == (100,)


def warmed(proxy, client, redis_client, expected):
    """Reading brings these keys into Redis, once the flush before is older than the reading."""

    def read():
        client.execute("SELECT id, name FROM users").fetchall()
        proxy.settle()
        return {key: redis_client.get(key) for key in expected} == expected

    eventually(read, pause=0.05)


def lives(client):
    try:
        client.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


def test_cancel_requests_arrive_at_any_worker(workers, table):
    proxy = workers(2)
    clients = spread(proxy, children(proxy.pid))
    for client in clients[:10]:
        timer = threading.Timer(0.15, client.cancel_safe)
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            client.execute("SELECT pg_sleep(20)")
        timer.join()


def test_sighup_reaches_every_worker(workers, table, redis_client):
    """A table is added; sessions that are open capture it from then on, whichever worker has them."""
    table.execute("CREATE TABLE pets (id int PRIMARY KEY, name text)")
    proxy = workers(2, [USERS])
    clients = spread(proxy, children(proxy.pid))
    proxy.write_config(table=[USERS, USERS | {"name": "pets", "redis_key": "pets:{id}"}])
    proxy.signal(signal.SIGHUP)
    eventually(lambda: proxy.log_text().count("configuration reloaded") == 2)
    for number, client in enumerate(clients, 1):
        client.execute("INSERT INTO pets VALUES (%s, 'Rex')", [number])

    def filled():
        for number, client in enumerate(clients, 1):
            client.execute("SELECT id, name FROM pets WHERE id = %s", [number])
        proxy.settle()
        return all(redis_client.get(f"pets:{number}") == b"Rex" for number in range(1, len(clients) + 1))

    eventually(filled, pause=0.05, why="not every worker captures the new table")


def test_sigterm_drains_every_worker(workers, table):
    proxy = workers(2, [USERS], shutdown_timeout="1s")
    pids = children(proxy.pid)
    idle = [log_in(proxy) for _ in range(6)]
    busy = [log_in(proxy) for _ in range(6)]
    for client in busy:
        client.send(frontend.Query(b"SELECT 'done' FROM pg_sleep(0.5)"))
    time.sleep(0.1)
    proxy.signal(signal.SIGTERM)
    for client in busy:
        client.expect(backend.RowDescription, backend.DataRow([b"done"]), backend.CommandComplete, READY)
    for client in [*idle, *busy]:
        assert await_message(client, backend.ErrorResponse).sqlstate == b"57P01"
        client.expect_end()
        client.close()
    assert proxy.wait() == 0
    assert not any(alive(pid) for pid in pids)


def test_a_second_sigterm_stops_every_worker_at_once(workers):
    proxy = workers(2, shutdown_timeout="1h")
    pids = children(proxy.pid)
    with log_in(proxy), log_in(proxy) as busy:
        busy.send(frontend.Query(b"SELECT pg_sleep(3600)"))
        proxy.signal(signal.SIGTERM)
        time.sleep(0.5)
        assert all(alive(pid) for pid in [proxy.pid])
        proxy.signal(signal.SIGTERM)
        began = time.monotonic()
        assert proxy.wait() == 0
        assert time.monotonic() - began < 4
    assert not any(alive(pid) for pid in pids)


def test_workers_do_not_outlive_their_supervisor(workers, table, redis_client):
    """Even killed, it takes them along; each drains what it has."""
    proxy = workers(2, [USERS], shutdown_timeout="500ms")
    pids = children(proxy.pid)
    clients = spread(proxy, pids)
    for number, client in enumerate(clients, 1):
        client.execute("UPDATE users SET name = 'last words' WHERE id = %s", [number])
    os.kill(proxy.pid, signal.SIGKILL)
    eventually(lambda: not any(alive(pid) for pid in pids), why="orphaned workers went on")
    proxy.kill()
    assert redis_client.get("users:1") == b"last words"
    # They took their registrations back, so the next start has nothing to flush.
    assert not [field for field in redis_client.hkeys("rowtap:state") if field.startswith(b"w:")]


def test_many_clients_at_once(workers, table):
    """A burst that no single accept takes; every client is served and none hangs."""
    proxy = workers(2, [USERS])
    clients = [log_in(proxy) for _ in range(60)]
    for client in clients:
        client.send(frontend.Query(b"SELECT name FROM users WHERE id = 1"))
    for client in clients:
        client.expect(backend.RowDescription, backend.DataRow([b"user 1"]), backend.CommandComplete, READY)
        client.close()
    eventually(lambda: proxy.status()["sessions"] == 0)
