"""Queries of our own over a client's session: it sees nothing of them, and never waits for long."""

import time

from protocol import frontend
from proxy.net.relay import asking
from tests.proxy.net.bare import open_session, read_to_end, read_until_ready, startup_packet, wait_for


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
        observer.questions.append(b"SELECT 'asked'")
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
