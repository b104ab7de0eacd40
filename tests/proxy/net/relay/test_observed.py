"""Chunks that are shown to an observer: before or after they are forwarded, within a limit, and when it fails."""

import asyncio
import time
from itertools import pairwise

import pytest

from protocol import frontend
from proxy.net.relay.observed import SLICE
from tests.proxy.conftest import Fault, Recorder
from tests.proxy.net.bare import open_session, read_to_end, read_until_ready, startup_packet, wait_for

PARSE = bytes(frontend.Parse(b"", b"SELECT $1::text"))
SYNC = bytes(frontend.Sync())


def query(text):
    return bytes(frontend.Query(text.encode()))


def execution(value):
    return bytes(frontend.Bind(b"", b"", (), [value])) + bytes(frontend.Execute(b""))


# Shown before they are forwarded.


class Awaiting(Recorder):
    """Has chunks with `held` in them wait for `awaited()`."""

    before_commit = True

    async def awaited(self):
        await asyncio.sleep(0.3)

    def frontend(self, data):
        super().frontend(data)
        self.before_forwarding = self.awaited() if b"held" in data else None


def test_chunks_wait_for_what_the_observer_awaits_and_keep_their_order(serve, database):
    server = serve(lambda *_facts: Awaiting())
    with open_session(server, database) as connection:
        began = time.monotonic()
        connection.sendall(query("SELECT 'held'"))
        time.sleep(0.05)
        connection.sendall(query("SELECT 'next'"))
        data = read_until_ready(connection, 2)
        assert time.monotonic() - began > 0.3
        assert data.index(b"held") < data.index(b"next")


def test_client_over_its_limit_waits_after_a_chunk_that_had_to_wait(serve, database):
    class Limited(Awaiting):
        @property
        def over_limit(self):
            return self.outstanding

    observer = Limited()
    with open_session(serve(lambda *_facts: observer), database) as connection:
        connection.sendall(query("SELECT 'held', pg_sleep(0.2)"))
        time.sleep(0.4)
        connection.sendall(query("SELECT 'next'"))
        read_until_ready(connection, 2)
    assert observer.ended.wait(5)
    order = [(name, b"next" in data) for name, data in observer.calls if name != "closed"]
    assert order[:3] == [("frontend", False), ("backend", False), ("frontend", True)]


def test_early_chunks_for_which_nothing_is_awaited_are_answered(serve, database):
    server = serve(lambda *_facts: Awaiting())
    with server.dial() as connection:
        connection.sendall(startup_packet(database) + query("SELECT 'early'"))
        assert b"early" in read_until_ready(connection, 2)


@pytest.mark.parametrize("fault", ["", "awaited"])
def test_what_is_awaited_for_early_chunks_holds_nothing_up_and_is_awaited_all_the_same(serve, database, fault):
    class Early(Awaiting):
        def __init__(self):
            super().__init__()
            self.ends = []

        async def awaited(self):
            await asyncio.sleep(0.1)
            self.ends.append("awaited")
            if fault:
                raise Fault(fault)

    observer = Early()
    server = serve(lambda *_facts: observer)
    with server.dial() as connection:
        connection.sendall(startup_packet(database) + query("SELECT 'held'"))
        assert b"held" in read_until_ready(connection, 2)
        wait_for(lambda: observer.ends)
    if fault:
        assert_reported_and_only_relayed(server, observer, fault)


@pytest.mark.parametrize("failing", ["frontend", "before_forwarding", "over_limit"])
def test_fault_before_a_chunk_is_forwarded_is_reported_and_the_session_only_relayed(serve, database, failing):
    observer = Awaiting()
    server = serve(lambda *_facts: observer)
    with open_session(server, database) as connection:
        observer.failing = failing
        for number in range(3):
            connection.sendall(query(f"SELECT {number} AS plain"))
            assert str(number).encode() in read_until_ready(connection)
        observer.failing = ""
    assert_reported_and_only_relayed(server, observer, failing)


def test_fault_in_what_is_awaited_is_reported_and_the_session_only_relayed(serve, database):
    class Failing(Awaiting):
        async def awaited(self):
            await asyncio.sleep(0.1)
            raise Fault("awaited")

    observer = Failing()
    server = serve(lambda *_facts: observer)
    with open_session(server, database) as connection:
        connection.sendall(query("SELECT 'held'"))
        time.sleep(0.05)
        connection.sendall(query("SELECT 'next'"))
        data = read_until_ready(connection, 2)
        assert data.index(b"held") < data.index(b"next")
    assert_reported_and_only_relayed(server, observer, "awaited")


def test_chunk_that_waits_while_the_observation_fails_is_still_forwarded(serve, database):
    observer = Awaiting()
    server = serve(lambda *_facts: observer)
    with open_session(server, database) as connection:
        connection.sendall(query("SELECT 'slow' FROM pg_sleep(0.1)"))
        time.sleep(0.05)
        observer.failing = "backend"
        connection.sendall(query("SELECT 'held'"))
        assert b"held" in read_until_ready(connection, 2)
        observer.failing = ""
    assert_reported_and_only_relayed(server, observer, "backend")


# Forwarded before they are shown.


def assert_reported_and_only_relayed(server, observer, failing):
    """The fault was reported once, the session was told, and not asked or shown anything afterwards."""
    assert observer.ended.wait(5)
    where, error = server.fault()
    assert (where, str(error)) == ("relay", failing)
    assert isinstance(error, Fault)
    assert len(observer.reasons) == 1
    assert len(observer.closings) == 1


@pytest.mark.parametrize("failing", ["frontend", "backend", "over_limit", "wants_catalog"])
def test_fault_while_a_chunk_is_shown_is_reported_and_the_session_only_relayed(serve, database, failing):
    observer = Recorder()
    server = serve(lambda *_facts: observer)
    with open_session(server, database) as connection:
        observer.failing = failing
        for number in range(3):
            connection.sendall(query(f"SELECT {number} AS plain"))
            assert str(number).encode() in read_until_ready(connection)
        observer.failing = ""
    assert_reported_and_only_relayed(server, observer, failing)
    assert len(observer.calls) <= 3, "nothing was shown after the fault but the session's end"


def test_fault_while_early_chunks_are_shown_is_reported_and_they_are_answered(serve, database):
    observer = Recorder(failing="frontend")
    server = serve(lambda *_facts: observer)
    with server.dial() as connection:
        connection.sendall(startup_packet(database) + query("SELECT 'early'") + bytes(frontend.Terminate()))
        assert b"early" in read_to_end(connection)
    assert_reported_and_only_relayed(server, observer, "frontend")


def test_fault_in_the_first_wish_for_the_catalog_is_reported_and_the_client_gets_ready_for_query(serve, database):
    observer = Recorder(failing="wants_catalog")
    server = serve(lambda *_facts: observer)
    with open_session(server, database) as connection:
        connection.sendall(query("SELECT 'answered'"))
        assert b"answered" in read_until_ready(connection)
    assert_reported_and_only_relayed(server, observer, "wants_catalog")


def test_session_that_cannot_be_told_of_a_fault_is_relayed_all_the_same(serve, database):
    observer = Recorder()
    server = serve(lambda *_facts: observer)
    with open_session(server, database) as connection:
        observer.failing = "frontend desynchronize"
        connection.sendall(query("SELECT 'answered'"))
        assert b"answered" in read_until_ready(connection)
    assert observer.ended.wait(5)
    assert [(where, str(error)) for where, error in server.internal_errors] == [
        ("relay", "frontend"),
        ("relay", "desynchronize"),
    ]
    server.internal_errors.clear()


# A client that is over its limit.


class Limited(Recorder):
    """Lets one chunk be unanswered at a time."""

    bulk = False

    @property
    def over_limit(self):
        return self.outstanding


def test_client_over_its_limit_waits_until_it_is_answered(serve, database):
    observer = Limited()
    with open_session(serve(lambda *_facts: observer), database) as connection:
        for number in range(3):
            connection.sendall(query(f"SELECT {number} FROM pg_sleep(0.1)"))
            time.sleep(0.02)
        read_until_ready(connection, 3)
    assert observer.ended.wait(5)
    names = [name for name, _ in observer.calls]
    assert names.count("frontend") in (2, 3), "chunks that arrived meanwhile are read as one"
    assert ("frontend", "frontend") not in pairwise(names), "each was answered before the next was forwarded"


def test_chunk_of_many_requests_is_forwarded_in_slices(serve, database):
    observer = Limited()
    number = 5 * SLICE // len(query("SELECT 0 AS n"))
    with open_session(serve(lambda *_facts: observer), database) as connection:
        connection.sendall(query("SELECT 0 AS n") * number)
        read_until_ready(connection, number)
    assert observer.ended.wait(5)
    assert observer.seen("frontend") == query("SELECT 0 AS n") * number
    assert max(len(data) for name, data in observer.calls if name == "frontend") == SLICE


@pytest.mark.parametrize("failing", ["is_bulk", "message_rest"])
def test_fault_while_a_long_chunk_is_divided_is_reported_and_all_of_it_forwarded(serve, database, failing):
    observer = Limited()
    observer.answers_due = observer.aligned = False
    server = serve(lambda *_facts: observer)
    with open_session(server, database) as connection:
        observer.failing = failing
        connection.sendall(query(f"SELECT '{'x' * 3 * SLICE}'"))
        assert b"x" * 3 * SLICE in read_until_ready(connection)
        observer.failing = ""
    assert_reported_and_only_relayed(server, observer, failing)


@pytest.mark.parametrize("failing", ["answers_due", "between_messages"])
def test_fault_while_the_client_is_stopped_is_reported_and_it_is_not_stopped(serve, database, failing):
    observer = Limited()
    observer.answers_due = False
    server = serve(lambda *_facts: observer)
    with open_session(server, database) as connection:
        observer.failing = failing
        connection.sendall(query("SELECT 1"))
        connection.sendall(query("SELECT 2"))
        read_until_ready(connection, 2)
        observer.failing = ""
    assert_reported_and_only_relayed(server, observer, failing)


def test_server_is_told_to_flush_when_it_would_keep_its_answers_to_itself(serve, database):
    class Unsynced(Limited):
        answers_due = False

        def backend(self, data):
            super().backend(data)
            self.outstanding = False

    with open_session(serve(lambda *_facts: Unsynced()), database) as connection:
        connection.sendall(PARSE + execution(b"flushed"))
        data = b""
        while b"flushed" not in data:
            data += connection.recv(65536)
        connection.sendall(execution(b"next") + SYNC)
        assert b"next" in read_until_ready(connection)


def test_message_is_sent_to_its_end_before_the_client_waits(serve, database):
    class Divided(Limited):
        answers_due = False

        @property
        def between_messages(self):
            return self.seen("frontend").endswith(b"'\0")

        def message_rest(self, data):
            return data.index(b"\0") + 1

    observer = Divided()
    first, second = query("SELECT 'first'"), query("SELECT 'second'")
    with open_session(serve(lambda *_facts: observer), database) as connection:
        connection.sendall(first[:9])
        wait_for(lambda: observer.calls)
        connection.sendall(first[9:] + second)
        data = read_until_ready(connection, 2)
    assert data.index(b"first") < data.index(b"second")
    assert observer.ended.wait(5)
    shown = [data for name, data in observer.calls if name == "frontend"]
    assert shown[:2] == [first[:9], first[9:]]
    assert b"".join(shown) == first + second


def test_resumed_client_whose_chunks_go_over_the_limit_again_waits_again(serve, database):
    observer = Limited()
    with open_session(serve(lambda *_facts: observer), database) as connection:
        connection.sendall(query("SELECT pg_sleep(0.2)"))
        wait_for(lambda: observer.calls)
        for number in range(20):
            connection.sendall(query(f"SELECT {number}"))
            time.sleep(0.002)
        read_until_ready(connection, 21)
    assert observer.ended.wait(5)
    assert observer.seen("frontend").count(b"SELECT") == 21


def test_fault_while_the_client_waits_lets_its_chunks_through(serve, database):
    observer = Limited()
    server = serve(lambda *_facts: observer)
    with open_session(server, database) as connection:
        connection.sendall(query("SELECT 'slow' FROM pg_sleep(0.2)"))
        wait_for(lambda: observer.calls)
        connection.sendall(query("SELECT 'waits'"))
        time.sleep(0.05)
        observer.failing = "backend"
        assert b"waits" in read_until_ready(connection, 2)
        observer.failing = ""
    assert_reported_and_only_relayed(server, observer, "backend")


def test_client_that_is_gone_while_it_waits_leaves_no_backend(serve, database, backends):
    observer = Limited()
    with open_session(serve(lambda *_facts: observer), database) as connection:
        connection.sendall(query("SELECT 'slow' FROM pg_sleep(0.3)"))
        wait_for(lambda: observer.calls)
        for number in range(5):
            connection.sendall(query(f"SELECT {number}"))
            time.sleep(0.002)
    assert observer.ended.wait(8)
    wait_for(lambda: backends() == 0)
