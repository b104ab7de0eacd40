"""How sessions end: clients that vanish or half-close, a server that goes."""

import socket
import time

import psycopg
import pytest

from protocol import frontend
from proxy.net.relay import ending
from tests.proxy.net.bare import open_session, read_to_end, wait_for

# The client first.


@pytest.mark.parametrize("observed", [True, False])
def test_idle_client_that_vanishes_leaves_no_backend(serve, database, backends, recorder, observed):
    server = serve(lambda *_facts: recorder() if observed else None)
    connection = open_session(server, database)
    assert backends() == 1
    connection.close()
    wait_for(lambda: backends() == 0, 2)
    assert server.wait(lambda server: server.traffic.sessions == 0)


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("observed", [True, False])
def test_client_killed_within_a_statement_leaves_no_backend(serve, database, backends, recorder, observed, reset):
    observer = recorder()
    server = serve(lambda *_facts: observer if observed else None)
    connection = open_session(server, database)
    connection.sendall(bytes(frontend.Query(b"SELECT pg_sleep(60)")))
    wait_for(lambda: backends() == 1)
    time.sleep(0.05)
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()
    wait_for(lambda: backends() == 0, 5)
    if observed:
        assert observer.ended.wait(5)
        assert b"57014" in observer.seen("backend")
        assert observer.closings == [True]


def test_outcome_of_a_write_is_seen_after_its_client_has_gone(serve, database, recorder, connect):
    connect().execute("CREATE TABLE t (n int)")
    observer = recorder()
    server = serve(lambda *_facts: observer)
    connection = open_session(server, database)
    connection.sendall(bytes(frontend.Query(b"INSERT INTO t SELECT 1 FROM pg_sleep(0.4)")))
    time.sleep(0.1)
    connection.close()
    assert observer.ended.wait(5)
    written = connect().execute("SELECT count(*) FROM t").fetchone()[0]
    assert (b"INSERT 0 1" in observer.seen("backend")) == bool(written)


def test_half_closed_client_gets_its_answer(serve, database):
    server = serve()
    with open_session(server, database) as connection:
        connection.sendall(bytes(frontend.Query(b"SELECT 'answered' FROM pg_sleep(0.3)")))
        connection.shutdown(socket.SHUT_WR)
        assert b"answered" in read_to_end(connection)


def test_half_closed_client_gets_all_of_a_long_answer(serve, database, monkeypatch):
    monkeypatch.setattr(ending, "SILENCE", 0.1)
    with open_session(serve(), database) as connection:
        connection.sendall(bytes(frontend.Query(b"SELECT repeat('x', 1000) FROM generate_series(1, 20000)")))
        connection.shutdown(socket.SHUT_WR)
        size, tail = 0, b""
        while chunk := connection.recv(262144):
            size, tail = size + len(chunk), (tail + chunk)[-20:]
            if size < 3_000_000:
                time.sleep(0.02)
    assert size > 20_000_000
    assert tail.endswith(b"Z\0\0\0\5I")


# The server first.


def test_terminated_backend_is_reported_in_the_words_of_the_server(serve, database, connect):
    with serve().connect(database) as connection:
        pid = connection.execute("SELECT pg_backend_pid()").fetchone()[0]
        connect().execute("SELECT pg_terminate_backend(%s)", (pid,))
        with pytest.raises(psycopg.errors.AdminShutdown, match="terminating connection due to administrator command"):
            connection.execute("SELECT 1")


def test_killed_server_ends_its_sessions_and_the_proxy_stays(serve, database, postgres, recorder):
    observer = recorder()
    server = serve(lambda *_facts: observer)
    connection = open_session(server, database)
    connection.sendall(bytes(frontend.Query(b"SELECT pg_sleep(60)")))
    time.sleep(0.1)
    postgres.stop("immediate")
    try:
        read_to_end(connection)
        assert observer.ended.wait(5)
        with pytest.raises(
            psycopg.OperationalError, match=r"could not connect to PostgreSQL at 127\.0\.0\.1"
        ) as failure:
            server.connect(database)
        assert failure.value.sqlstate in ("08006", None)
    finally:
        connection.close()
        postgres.start()
    with server.connect(database) as again:
        assert again.execute("SELECT 1").fetchone() == (1,)
