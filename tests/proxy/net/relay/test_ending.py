"""How sessions end: clients that vanish or half-close, a server that goes."""

import asyncio
import contextlib
import socket
import threading
import time

import psycopg
import pytest
from structlog.testing import capture_logs

from protocol import backend, frontend, startup
from protocol.authentication import AuthenticationOk
from proxy.net.relay import ending
from tests.proxy.conftest import Recorder
from tests.proxy.net.bare import RESET, open_session, read_to_end, reset, startup_packet, wait_for
from tests.script import READY, FakeServer

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
    monkeypatch.setattr(ending, "SILENCE", 0.4)
    with open_session(serve(), database) as connection:
        connection.sendall(bytes(frontend.Query(b"SELECT repeat('x', 1000) FROM generate_series(1, 20000)")))
        connection.shutdown(socket.SHUT_WR)
        size, tail = 0, b""
        while chunk := connection.recv(262144):
            size, tail = size + len(chunk), (tail + chunk)[-20:]
            if size < 8_000_000:
                time.sleep(0.04)
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


def busy_server(answer=b"", after=0.0):
    """A server that answers no query until its client has gone, then says `answer` after a while and stays."""

    def play(peer):
        packet = peer.accept_login()
        if isinstance(packet, startup.CancelRequest):
            return
        peer.expect(frontend.Query)
        assert peer.socket.recv(100) == b""
        time.sleep(after)
        if answer:
            peer.send(answer)
        with contextlib.suppress(OSError):
            peer.socket.recv(100)

    return FakeServer(play)


def in_front_of(fake, serve, observer=None):
    settings = {"host": fake.host, "port": fake.port, "sslmode": "disable"}
    return serve(lambda *_facts: observer, settings=settings)


def test_backend_that_does_not_end_after_its_client_is_cut(serve, recorder, monkeypatch):
    monkeypatch.setattr(ending, "SILENCE", 0.1)
    monkeypatch.setattr(ending, "GONE_TIMEOUT", 0.1)
    observer = recorder()
    with busy_server(after=0.6) as fake:
        server = in_front_of(fake, serve, observer)
        with capture_logs() as lines:
            connection = open_session(server, "anything")
            connection.sendall(bytes(frontend.Query(b"SELECT 1")))
            wait_for(lambda: observer.calls)
            connection.close()
            assert observer.ended.wait(5)
    assert observer.closings == [False], "its stream was not seen to its end"
    assert "connection cut" in lines[-1]["event"]


def test_client_that_goes_while_its_half_closed_session_is_cancelled_does_not_cancel_again(serve, monkeypatch):
    monkeypatch.setattr(ending, "SILENCE", 0.1)
    monkeypatch.setattr(ending, "GONE_TIMEOUT", 5)
    with busy_server(bytes(READY), 0.5) as fake:
        server = in_front_of(fake, serve)
        connection = open_session(server, "anything")
        connection.sendall(bytes(frontend.Query(b"SELECT 1")))
        connection.shutdown(socket.SHUT_WR)
        assert server.wait(lambda server: server.traffic.cancels == 1)
        reset(connection)
        assert server.wait(lambda server: server.traffic.sessions == 0)
        assert server.call(lambda: server.server.traffic.cancels) == 1


def test_server_that_ends_after_its_client_lost_interest_is_seen_to_its_end(serve, recorder, monkeypatch):
    monkeypatch.setattr(ending, "SILENCE", 0.1)
    observer = recorder()
    with busy_server(bytes(READY), 0.2) as fake:
        server = in_front_of(fake, serve, observer)
        with open_session(server, "anything") as connection:
            connection.sendall(bytes(frontend.Query(b"SELECT 1")))
        assert observer.ended.wait(10)
    assert observer.seen("backend") == bytes(READY)


def breaking_server():
    """A server that says more than its client takes, then resets the connection."""

    def play(peer):
        peer.accept_login()
        peer.expect(frontend.Query)
        peer.socket.settimeout(0.3)
        with contextlib.suppress(TimeoutError):
            while True:
                peer.socket.sendall(b"x" * 1_000_000)
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    return FakeServer(play)


def test_client_that_leaves_the_last_words_of_a_broken_connection_unread_is_cut(serve, monkeypatch):
    monkeypatch.setattr(ending, "LINGER_TIMEOUT", 0.1)
    with breaking_server() as fake:
        server = in_front_of(fake, serve)
        with open_session(server, "anything") as connection:
            connection.sendall(bytes(frontend.Query(b"SELECT 1")))
            time.sleep(0.6)
            # Only a write shows that the server is gone: it is not read while its client does not read.
            connection.sendall(bytes(frontend.Query(b"SELECT 1")))
            assert server.wait(lambda server: server.traffic.sessions == 0)


def test_client_that_reads_the_last_words_of_a_broken_connection_slowly_gets_them(serve, monkeypatch):
    monkeypatch.setattr(ending, "LINGER_TIMEOUT", 0.2)
    with breaking_server() as fake:
        server = in_front_of(fake, serve)
        with open_session(server, "anything") as connection:
            connection.sendall(bytes(frontend.Query(b"SELECT 1")))
            time.sleep(0.6)
            connection.sendall(bytes(frontend.Query(b"SELECT 1")))
            (relay,) = server.call(lambda: list(server.server._relays))
            assert server.wait(lambda _server: relay.backend.lost)
            received = 0
            while chunk := connection.recv(20_000):
                received += len(chunk)
                time.sleep(0.001)
            login = bytes(AuthenticationOk()) + bytes(backend.BackendKeyData(1, b"1234")) + bytes(READY)
        assert len(login) + received == relay.backend.received, "all the proxy had read of the server"


def test_message_cut_short_by_a_server_that_ends_in_the_startup_reaches_the_client(serve):
    cut = b"E\0\0\1\0SFATAL\0"

    def play(peer):
        peer.read_packet()
        peer.socket.sendall(cut)

    with FakeServer(play) as fake, in_front_of(fake, serve).dial() as connection:
        connection.sendall(startup_packet("anything"))
        assert read_to_end(connection) == cut


# Ends that are ours.


@pytest.mark.parametrize("observed", [True, False])
def test_terminated_session_over_its_limit_ends_without_what_waits(serve, database, backends, observed):
    class Limited(Recorder):
        @property
        def over_limit(self):
            return self.outstanding

    observer = Limited()
    server = serve(lambda *_facts: observer if observed else None)
    with open_session(server, database) as connection:
        connection.sendall(bytes(frontend.Query(b"SELECT pg_sleep(30)")))
        time.sleep(0.1)
        connection.sendall(bytes(frontend.Query(b"SELECT 'waits'")))
        time.sleep(0.1)
        server.run(server.server.drain(0.1))
    wait_for(lambda: backends() == 0)
    if observed:
        assert observer.ended.wait(5)
        assert b"waits" not in observer.seen("frontend")


def test_session_terminated_during_a_query_of_ours_is_told_after_its_ready_for_query(serve, database, recorder):
    observer = recorder([b"SELECT pg_sleep(0.5)::text"])
    server = serve(lambda *_facts: observer)
    with server.dial() as connection:
        connection.sendall(startup_packet(database))
        time.sleep(0.2)
        server.run(server.server.drain(0.05))
        data = read_to_end(connection)
    assert bytes(READY) in data
    assert data.index(bytes(READY)) < data.index(b"C57P01\0")
    assert observer.ended.wait(5)


def test_session_terminated_while_it_logs_in_is_told(serve):
    released = threading.Event()

    def play(peer):
        peer.read_packet()
        assert released.wait(10)

    with FakeServer(play) as fake:
        server = in_front_of(fake, serve)
        with server.dial() as connection:
            connection.sendall(startup_packet("anything"))
            assert server.wait(lambda server: server._relays)
            draining = asyncio.run_coroutine_threadsafe(server.server.drain(0.05), server._loop)
            assert b"C57P01\0" in read_to_end(connection)
            released.set()
            draining.result(10)


def test_session_that_has_ended_is_not_terminated(serve, database):
    server = serve()
    with open_session(server, database) as connection:
        (relay,) = server.call(lambda: list(server.server._relays))
        connection.sendall(bytes(frontend.Terminate()))
        assert read_to_end(connection) == b""
    assert server.wait(lambda server: server.traffic.sessions == 0)
    server.call(relay.terminate)
    server.call(relay.abort)
    assert relay.finished


def test_session_whose_client_has_gone_is_terminated_when_its_server_ends(serve, recorder):
    observer = recorder()
    with busy_server(after=0.6) as fake:
        server = in_front_of(fake, serve, observer)
        connection = open_session(server, "anything")
        connection.sendall(bytes(frontend.Query(b"SELECT 1")))
        wait_for(lambda: observer.calls)
        (relay,) = server.call(lambda: list(server.server._relays))
        reset(connection)
        assert server.wait(lambda _server: relay.client.lost)
        server.call(relay.terminate)
        assert not relay.finished
    assert observer.ended.wait(8)
    assert observer.closings == [True]


class Lingering:
    """A client's leg whose transport reports one of `sizes` after the other as still to be sent."""

    lost = False

    def __init__(self, *sizes):
        self.sizes = list(sizes)
        self.cuts = 0
        self.transport = self

    def get_write_buffer_size(self):
        return self.sizes.pop(0)

    def close(self):
        pass

    def cut(self):
        self.cuts += 1


async def test_client_is_cut_when_it_has_read_nothing_for_a_while(monkeypatch):
    monkeypatch.setattr(ending, "LINGER_TIMEOUT", 0.01)
    client, server = Lingering(100, 60, 30, 30), Lingering()
    story = ending.Ending(client, server, busy=lambda: False, cancel=lambda: None, peer="client")  # type: ignore[arg-type]  # as much of a leg as is used
    story.note_server_end(clean=True)
    story.server_first()
    await asyncio.sleep(0.1)
    assert client.sizes == []
    assert client.cuts == 1
