"""Queries of our own over a client's session: it sees nothing of them, and never waits for long."""

import time

import pytest

from protocol import backend, frontend, startup
from proxy.net.relay import asking, ending
from tests.proxy.conftest import Fault
from tests.proxy.net.bare import open_session, read_to_end, read_until_ready, startup_packet, wait_for
from tests.script import READY, FakeServer


def test_query_is_answered_before_the_client_gets_its_first_ready_for_query(serve, database, recorder):
    observer = recorder([b"SELECT current_database()::text"])
    with serve(lambda *_facts: observer).connect(database) as connection:
        assert observer.answers == [database.encode()]
        assert connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
        assert connection.execute("SHOW statement_timeout").fetchone() == ("0",)
        assert connection.execute("SHOW search_path").fetchone() == ('"$user", public',)


def test_failing_query_leaves_nothing_behind_in_the_session(serve, database, recorder):
    observer = recorder([b"SELECT 1 / 0", b"SELEC", b"SELECT '3'"])
    with serve(lambda *_facts: observer).connect(database) as connection:
        assert observer.answers[:1] == [None]
        for _ in range(3):
            assert connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
    assert observer.answers == [None, None, b"3"]


def test_query_does_not_disturb_the_unnamed_statement_of_the_client(serve, database, recorder):
    observer = recorder()
    server = serve(lambda *_facts: observer)
    with open_session(server, database) as connection:
        connection.sendall(bytes(frontend.Parse(b"", b"SELECT 'kept'")) + bytes(frontend.Sync()))
        observer.queries.append(b"SELECT 'asked'")
        read_until_ready(connection)
        wait_for(lambda: observer.answers == [b"asked"])
        bound = bytes(frontend.Bind(b"", b"")) + bytes(frontend.Execute(b"")) + bytes(frontend.Sync())
        connection.sendall(bound)
        assert b"kept" in read_until_ready(connection)
    assert b"asked" not in observer.seen("backend")


def test_chunks_of_the_client_wait_until_the_query_is_answered(serve, database, recorder):
    observer = recorder([b"SELECT pg_sleep(0.3)::text || 'slept'"])
    server = serve(lambda *_facts: observer)
    with server.dial() as connection:
        began = time.monotonic()
        connection.sendall(startup_packet(database))
        time.sleep(0.1)
        connection.sendall(bytes(frontend.Query(b"SELECT 'after'")))
        data = read_until_ready(connection)
        if b"after" not in data:
            data += read_until_ready(connection)
        assert time.monotonic() - began > 0.3
        assert b"after" in data
        assert b"slept" not in data
    assert observer.answers == [b"slept"]


def test_late_answer_lets_the_client_go_on_and_never_reaches_it(serve, database, recorder, monkeypatch):
    monkeypatch.setattr(asking, "QUERY_TIMEOUT", 0.2)
    observer = recorder([b"SELECT pg_sleep(0.6)::text || 'late'"])
    with serve(lambda *_facts: observer).connect(database) as connection:
        assert observer.answers == [None]
        assert connection.execute("SELECT 'mine'").fetchone() == ("mine",)
        assert connection.execute("SELECT 'mine too'").fetchone() == ("mine too",)
    assert observer.answers == [None]
    assert b"late" not in observer.seen("backend")


def test_server_that_ends_during_a_query_leaves_it_without_an_answer(serve, database, connect, recorder):
    observer = recorder([b"SELECT pg_sleep(30)::text"])
    server = serve(lambda *_facts: observer)
    with server.dial() as connection:
        connection.sendall(startup_packet(database))
        with connect() as admin:
            ending = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(30)%'"
            wait_for(lambda: admin.execute(ending).rowcount)
        assert b"57P01" in read_to_end(connection)
    assert observer.ended.wait(5)
    assert observer.answers == [None]
    assert observer.closings == [True]


def test_answer_is_still_read_when_the_client_leaves_during_a_query(serve, database, recorder, backends):
    observer = recorder([b"SELECT pg_sleep(0.3)::text || 'done'"])
    server = serve(lambda *_facts: observer)
    with server.dial() as connection:
        connection.sendall(startup_packet(database))
        time.sleep(0.1)
    assert observer.ended.wait(8)
    assert observer.answers == [b"done"]
    wait_for(lambda: backends() == 0)


# What a real server does not do.


def fake_server(script):
    """A server that lets the proxy in and calls `script(peer)` when it has read the query of ours."""

    def play(peer):
        if isinstance(peer.accept_login(), startup.StartupMessage):
            peer.receive_until(frontend.Sync)
            script(peer)

    return FakeServer(play)


def in_front_of(fake, serve, observer):
    settings = {"host": fake.host, "port": fake.port, "sslmode": "disable"}
    return serve(lambda *_facts: observer, settings=settings)


def test_answer_that_makes_no_sense_is_relayed_and_the_session_told(serve, recorder):
    observer = recorder([b"SELECT 'asked'"])
    nonsense = b"Z\0\0\0\7x" + bytes(READY)

    def script(peer):
        peer.send(nonsense)
        peer.expect(frontend.Query)
        peer.send(backend.CommandComplete(b"SELECT 0"), READY)

    with fake_server(script) as fake, in_front_of(fake, serve, observer).dial() as connection:
        connection.sendall(startup_packet("anything"))
        assert read_until_ready(connection, 2).endswith(bytes(READY) + nonsense)
        connection.sendall(bytes(frontend.Query(b"SELECT 1")))
        assert b"SELECT 0" in read_until_ready(connection)
    assert observer.ended.wait(5)
    assert observer.answers == [None]
    assert len(observer.reasons) == 1
    assert observer.seen("frontend") == b"", "it is only relayed"


def test_what_the_server_tells_the_client_meanwhile_is_passed_on_and_shown(serve, recorder):
    observer = recorder([b"SELECT 'asked'"])
    notice = bytes(backend.NotificationResponse(7, b"news", b"today"))
    error = backend.ErrorResponse.of("ERROR", "42501", "permission denied")

    def script(peer):
        peer.send(notice + bytes(error) + bytes(READY))
        peer.receive_until(frontend.Sync)
        peer.send(backend.CloseComplete(), READY)

    with fake_server(script) as fake, in_front_of(fake, serve, observer).dial() as connection:
        connection.sendall(startup_packet("anything"))
        assert read_until_ready(connection).endswith(notice + bytes(READY))
    assert observer.ended.wait(5)
    assert observer.answers == [None]
    assert observer.seen("backend") == notice


def test_what_follows_the_answer_in_its_chunk_is_the_clients(serve, recorder):
    observer = recorder([b"SELECT 'asked'"])
    fatal = bytes(backend.ErrorResponse.of("FATAL", "57P01", "terminating connection"))

    def script(peer):
        peer.send(bytes(backend.ErrorResponse.of("ERROR", "42501", "permission denied")) + bytes(READY))
        peer.receive_until(frontend.Sync)
        peer.send(bytes(backend.CloseComplete()) + bytes(READY) + fatal)

    with fake_server(script) as fake, in_front_of(fake, serve, observer).dial() as connection:
        connection.sendall(startup_packet("anything"))
        assert read_to_end(connection).endswith(bytes(READY) + fatal)
    assert observer.ended.wait(5)
    assert observer.seen("backend") == fatal


def test_nothing_is_sent_to_the_server_after_a_client_that_left_during_a_late_query(serve, recorder, monkeypatch):
    monkeypatch.setattr(asking, "QUERY_TIMEOUT", 0.1)
    monkeypatch.setattr(ending, "SILENCE", 0.1)
    observer = recorder([b"SELECT 'asked'"])

    def script(peer):
        assert peer.socket.recv(1) == b"", "the client has ended"
        peer.send(backend.ErrorResponse.of("ERROR", "57014", "canceling statement due to statement timeout"), READY)
        assert peer.socket.recv(1) == b""

    with fake_server(script) as fake:
        server = in_front_of(fake, serve, observer)
        with server.dial() as connection:
            connection.sendall(startup_packet("anything"))
            read_until_ready(connection)
        assert observer.ended.wait(5)
    assert observer.answers == [None]


@pytest.mark.parametrize("failing", ["query", "answer"])
@pytest.mark.parametrize("first", [True, False])
def test_fault_in_a_query_is_reported_and_the_client_goes_on(serve, database, recorder, failing, first):
    observer = recorder([b"SELECT 'asked'"] if first else [], failing)
    server = serve(lambda *_facts: observer)
    with open_session(server, database) as connection:
        if not first:
            observer.queries.append(b"SELECT 'asked'")
        for number in range(2):
            connection.sendall(bytes(frontend.Query(b"SELECT %d" % number)))
            read_until_ready(connection)
        observer.failing = ""
    assert observer.ended.wait(5)
    where, error = server.fault()
    assert (where, str(error)) == ("relay", failing)
    assert isinstance(error, Fault)
    assert len(observer.reasons) == 1


def test_fault_in_a_late_query_never_lets_its_answer_through(serve, database, recorder, monkeypatch):
    monkeypatch.setattr(asking, "QUERY_TIMEOUT", 0.1)
    observer = recorder([b"SELECT pg_sleep(0.4)::text || 'late'"], "answer")
    server = serve(lambda *_facts: observer)
    with open_session(server, database) as connection:
        connection.sendall(bytes(frontend.Query(b"SELECT 'mine'")))
        data = read_until_ready(connection)
        assert b"mine" in data
        assert b"late" not in data
    assert observer.ended.wait(5)
    assert server.fault()[0] == "relay"


def test_fault_while_the_answer_is_read_is_reported_and_the_answer_still_kept_from_the_client(serve, recorder):
    observer = recorder([b"SELECT 'asked'"], "backend")
    notice = bytes(backend.NotificationResponse(7, b"news", b"today"))
    error = backend.ErrorResponse.of("ERROR", "42501", "permission denied")

    def script(peer):
        peer.send(notice)
        time.sleep(0.1)
        peer.send(notice + bytes(error) + bytes(READY))
        peer.receive_until(frontend.Sync)
        peer.send(backend.CloseComplete(), READY)

    with fake_server(script) as fake:
        server = in_front_of(fake, serve, observer)
        with server.dial() as connection:
            connection.sendall(startup_packet("anything"))
            assert read_until_ready(connection).endswith(2 * notice + bytes(READY))
        assert observer.ended.wait(5)
    assert server.fault()[0] == "relay"
    assert observer.answers == [None]
