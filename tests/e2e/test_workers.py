"""Several workers on one address: sessions are distributed, dead workers are replaced, signals reach all workers."""

import os
import re
import signal
import threading
import time
from pathlib import Path

import psycopg
import pytest

from protocol import backend, frontend
from tests.e2e.processes import alive, children, descriptors, needs_proc, wait_until
from tests.e2e.raw_sessions import await_message, log_in
from tests.script import READY

USERS = {"name": "users", "key": "id", "value": "name", "redis_key": "users:{id}"}

pytestmark = [needs_proc, pytest.mark.timing("bounds in seconds on how soon a dead worker is replaced")]


@pytest.fixture
def table(connect):
    connection = connect()
    connection.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    connection.execute("INSERT INTO users SELECT n, 'user ' || n FROM generate_series(1, 100) AS n")
    return connection


@pytest.fixture
def workers(rowtap):
    """`workers(2, …)`: a proxy with that number of workers, all of them running."""

    def start(number, tables=(), **proxy_settings):
        proxy = rowtap(tables, {"proxy": {"workers": number} | proxy_settings})
        expected = len(os.sched_getaffinity(0)) if number == "auto" else number
        wait_until(lambda: running_workers(proxy) == expected, why="not all workers came up")
        return proxy

    return start


def running_workers(proxy):
    """How many workers answer."""
    return proxy.status()["workers"]


def open_sockets(pid):
    """How many sockets a worker has open."""
    return descriptors(pid).count("socket")


def connect_to_every_worker(proxy, pids, count=12):
    """Connect until every worker has at least one session; returns the connections."""
    idle = {pid: open_sockets(pid) for pid in pids}
    connections: list[psycopg.Connection] = []
    while len(connections) < 200:
        connections += [proxy.connect() for _ in range(count)]
        if all(open_sockets(pid) > idle[pid] for pid in pids):
            return connections
    pytest.fail(f"{len(connections)} connections all went to one worker")


@pytest.mark.parametrize("number", [2, "auto"])
def test_sessions_are_distributed_and_status_adds_the_workers_up(workers, table, redis_client, number):
    proxy = workers(number, [USERS])
    pids = children(proxy.pid)
    assert len(pids) == (2 if number == 2 else len(os.sched_getaffinity(0)))
    clients = connect_to_every_worker(proxy, pids)
    assert proxy.status()["sessions"] == len(clients)
    for client in clients:
        # This write tells each worker of the flush another one made at the start.
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


def test_worker_that_does_not_answer_is_not_replaced(rowtap):
    """The workers are asked without a pause from their start on, and one is stopped for a while."""
    proxy = rowtap(config={"proxy": {"workers": 2}})
    wait_until(lambda: running_workers(proxy) == 2, 30)
    pids = children(proxy.pid)
    os.kill(pids[0], signal.SIGSTOP)
    try:
        assert (proxy.status()["workers"], proxy.status()["pending_changes"]) == (1, None)
        assert "1 of 2 workers do not answer" in proxy.get("/readyz")[1]
    finally:
        os.kill(pids[0], signal.SIGCONT)
    wait_until(lambda: running_workers(proxy) == 2)
    assert proxy.status()["pending_changes"] == 0
    assert children(proxy.pid) == pids
    assert "worker process ends unexpectedly" not in proxy.log_text()


def test_killed_worker_is_replaced_and_its_tables_are_flushed(workers, table, redis_client):
    proxy = workers(2, [USERS])
    before = children(proxy.pid)
    clients = connect_to_every_worker(proxy, before)
    read_until_filled(proxy, clients[0], redis_client, {f"users:{n}": f"user {n}".encode() for n in range(1, 101)})
    victim = before[0]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(pids := children(proxy.pid)) == 2 and victim not in pids, why="the worker was not replaced")
    # Whether the dead worker had changes that never reached Redis is unknown.
    wait_until(lambda: not redis_client.keys("users:*"), why="the tables of the dead worker were not flushed")
    survivors = [client for client in clients if is_connected(client)]
    assert 0 < len(survivors) < len(clients)
    wait_until(lambda: running_workers(proxy) == 2)
    assert proxy.get("/healthz")[0] == 200
    wait_until(lambda: proxy.get("/readyz")[0] == 200)
    # Both workers continue. While a statement of the dead worker may still commit unobserved, the table has no keys;
    # a stale one at no time.
    for number, client in enumerate([*survivors[:2], *(proxy.connect() for _ in range(8))]):
        client.execute("UPDATE users SET name = %s WHERE id = 5", [f"after {number}"])
        client.execute("SELECT id, name FROM users")
        proxy.settle()
        assert redis_client.get("users:5") in (None, f"after {number}".encode())
    assert proxy.log_text().count("worker process ends unexpectedly") == 1
    assert table.execute("SELECT count(*) FROM users").fetchone() == (100,)


def read_until_filled(proxy, client, redis_client, expected):
    """Read until these keys are in Redis: reads from before the flush do not fill."""

    def read():
        client.execute("SELECT id, name FROM users").fetchall()
        proxy.settle()
        return {key: redis_client.get(key) for key in expected} == expected

    wait_until(read, pause=0.05)


def is_connected(client):
    try:
        client.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


def test_cancel_request_works_at_any_worker(workers, table):
    proxy = workers(2)
    clients = connect_to_every_worker(proxy, children(proxy.pid))
    for client in clients[:10]:
        timer = threading.Timer(0.15, client.cancel_safe)
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            client.execute("SELECT pg_sleep(20)")
        timer.join()


def test_sighup_adds_a_table_in_every_worker(workers, table, redis_client):
    """Open sessions capture the new table as well."""
    table.execute("CREATE TABLE pets (id int PRIMARY KEY, name text)")
    proxy = workers(2, [USERS])
    clients = connect_to_every_worker(proxy, children(proxy.pid))
    proxy.write_config(table=[USERS, USERS | {"name": "pets", "redis_key": "pets:{id}"}])
    proxy.signal(signal.SIGHUP)
    wait_until(lambda: proxy.log_text().count("worker takes over the new configuration") == 2)
    for number, client in enumerate(clients, 1):
        client.execute("INSERT INTO pets VALUES (%s, 'Rex')", [number])

    def filled():
        for number, client in enumerate(clients, 1):
            client.execute("SELECT id, name FROM pets WHERE id = %s", [number])
        proxy.settle()
        return all(redis_client.get(f"pets:{number}") == b"Rex" for number in range(1, len(clients) + 1))

    wait_until(filled, pause=0.05, why="not every worker captures the new table")


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


def test_second_sigterm_stops_every_worker_at_once(workers):
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


def test_workers_drain_and_end_when_their_supervisor_is_killed(workers, table, redis_client):
    """Even killed, it takes them along; each drains what it has."""
    proxy = workers(2, [USERS], shutdown_timeout="500ms")
    pids = children(proxy.pid)
    clients = connect_to_every_worker(proxy, pids)
    for number, client in enumerate(clients, 1):
        client.execute("UPDATE users SET name = 'last words' WHERE id = %s", [number])
    os.kill(proxy.pid, signal.SIGKILL)
    wait_until(lambda: not any(alive(pid) for pid in pids), why="workers outlived their supervisor")
    proxy.kill()
    assert redis_client.get("users:1") == b"last words"
    # They removed their registrations, so the next start flushes nothing.
    assert not [field for field in redis_client.hkeys("rowtap:state") if field.startswith(b"w:")]


def test_burst_of_clients_is_served_completely(workers, table):
    """A burst that no single accept takes; every client is served and none hangs."""
    proxy = workers(2, [USERS])
    clients = [log_in(proxy) for _ in range(60)]
    for client in clients:
        client.send(frontend.Query(b"SELECT name FROM users WHERE id = 1"))
    for client in clients:
        client.expect(backend.RowDescription, backend.DataRow([b"user 1"]), backend.CommandComplete, READY)
        client.close()
    wait_until(lambda: proxy.status()["sessions"] == 0)


@pytest.fixture
def failing_writer(tmp_path):
    """The environment of a proxy, and the file that makes the writer of one of its workers fail."""
    file = tmp_path / "fail"
    return {"PYTHONPATH": str(Path(__file__).parent / "failing_writer"), "FAIL_WRITER": str(file)}, file


def test_worker_whose_writer_fails_is_replaced_and_counted_and_its_tables_are_flushed(
    rowtap, table, redis_client, failing_writer
):
    environment, file = failing_writer
    proxy = rowtap([USERS], {"proxy": {"workers": 2}}, env=environment)
    proxy.faults_injected = True
    wait_until(lambda: running_workers(proxy) == 2, 30)
    before = children(proxy.pid)
    expected = {f"users:{n}": f"user {n}".encode() for n in range(1, 101)}
    read_until_filled(proxy, proxy.connect(), redis_client, expected)
    file.touch()
    wait_until(lambda: len(pids := children(proxy.pid)) == 2 and pids != before, 20, why="the worker was not replaced")
    wait_until(lambda: not redis_client.keys("users:*"), why="the tables of the failed worker were not flushed")
    wait_until(lambda: proxy.get("/readyz")[0] == 200, 20)
    assert proxy.status()["internal_errors"] == 1
    assert 'rowtap_internal_errors_total{where="worker"} 1.0' in proxy.get("/metrics")[1]
    log = proxy.log_text()
    assert "RuntimeError: injected" in log
    assert "worker stops because its writer failed" in log
    assert log.count("worker process ends unexpectedly") == 1


def test_single_worker_whose_writer_fails_ends_with_status_1_and_the_next_start_flushes(
    rowtap, table, redis_client, failing_writer
):
    environment, file = failing_writer
    proxy = rowtap([USERS], env=environment)
    proxy.faults_injected = True
    with proxy.connect() as client:
        read_until_filled(proxy, client, redis_client, {"users:5": b"user 5"})
        file.touch()
        assert proxy.wait() == 1
        with pytest.raises(psycopg.OperationalError):
            client.execute("SELECT 1")
    assert "RuntimeError: injected" in proxy.log_text()
    table.execute("UPDATE users SET name = 'unseen' WHERE id = 5")
    assert redis_client.get("users:5") == b"user 5"
    proxy.start()
    wait_until(lambda: redis_client.get("users:5") is None, why="the stale key was not flushed")
