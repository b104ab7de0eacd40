"""A fault of Rowtap's own in a session: it is reported as one, the session goes blind, and every key is flushed."""

from __future__ import annotations

import pytest

from cache.capture.outcomes import Outcomes
from cache.capture.transaction import TransactionBuffer
from proxy.session.fast_path import FastPath
from proxy.session.prepared_objects import PreparedObjects
from proxy.session.replies import Replies
from tests.proxy.session.dialogue import Dialogue, done, q, ready, rows
from tests.proxy.session.test_commit_gate import Blocks

SELECT, UPDATE = q("SELECT id, name FROM users"), q("UPDATE users SET name = 'a' WHERE id = 1")


class Faulty(Dialogue):
    """A dialogue whose session has faults, which are kept."""

    def __init__(self, **facts):
        self.errors: list[tuple[str, str]] = []
        super().__init__(on_internal_error=lambda where, error: self.errors.append((where, str(error))), **facts)


@pytest.fixture
def break_(monkeypatch):
    """``break_(class, method)``: from now on the method raises TypeError."""

    def set_up(owner, method):
        def broken(*_arguments, **_named):
            raise TypeError(f"injected in {method}")

        monkeypatch.setattr(owner, method, broken)

    return set_up


def test_fault_in_a_request_is_reported_and_flushes(break_):
    break_(PreparedObjects, "plans")
    d = Faulty().client(UPDATE)
    assert d.errors == [("session", "injected in plans")]
    assert d.reasons == ["TypeError: injected in plans"]
    assert d.counts.sessions_blinded == 1
    assert d.got() == ["FLUSH "]


def test_fault_in_a_reply_is_reported_and_flushes(break_):
    break_(Outcomes, "finished")
    d = Faulty().client(UPDATE).server(done("UPDATE 1"), ready())
    assert d.errors == [("session", "injected in finished")]
    assert d.got() == ["EVICT users:1", "FLUSH "]


@pytest.mark.parametrize("method", ["takes", "finishes"])
def test_fault_on_the_fast_path_is_reported_and_flushes(break_, method):
    break_(FastPath, method)
    d = Faulty().client(SELECT).server(*rows((1, b"ann")), done("SELECT 1"), ready())
    assert d.errors == [("session", f"injected in {method}")]
    assert d.got() == ["FLUSH "]


def test_fault_at_the_end_of_a_session_is_reported_and_flushes(break_):
    d = Faulty().client(UPDATE)
    break_(Outcomes, "lost")
    d.session.closed(backend_ended=True)
    assert d.errors == [("session", "injected in lost"), ("session", "injected in lost")]
    assert d.got() == ["FLUSH "]


def test_fault_while_a_session_goes_blind_is_reported_too_and_flushes(break_):
    break_(PreparedObjects, "query_execution")
    d = Faulty().client(UPDATE).server(done("UPDATE 1"), ready())
    assert d.errors == [("session", "injected in query_execution")] * 2
    assert d.got() == ["FLUSH "]


def test_flushes_are_put_and_ddl_ends_whatever_fails_in_what_was_outstanding(break_):
    d = Faulty().client(q("ALTER TABLE users ADD COLUMN x int"))
    break_(TransactionBuffer, "lost")
    d.session.desynchronize("bytes were missed")
    assert d.errors == [("session", "injected in lost")]
    assert d.got() == ["FLUSH "]
    assert d.database.question() is not None, "the catalog can be asked for again"


def test_fault_at_the_end_of_a_blind_session_is_reported(break_):
    d = Faulty()
    d.session.desynchronize("bytes were missed")
    break_(Outcomes, "flush_all")
    d.session.closed(backend_ended=True)
    assert d.errors == [("session", "injected in flush_all")]


def test_fault_before_a_commit_is_reported_and_releases_the_keys(break_):
    sink = Blocks(confirmed=True)
    d = Faulty(before_commit=True, sink=sink).client(UPDATE)
    assert d.session.before_forwarding is not None
    d.session.before_forwarding.close()
    break_(Replies, "outstanding")
    d.client(UPDATE)
    assert d.errors == [("session", "injected in outstanding")] * 2
    assert [block.released for block in sink.made] == [True]
    assert d.got() == ["FLUSH "]


def test_session_is_closed_once(break_):
    d = Faulty()
    d.session.closed(backend_ended=True)
    break_(Outcomes, "lost")
    d.session.closed(backend_ended=True)
    assert d.errors == []


def test_bytes_that_make_no_sense_are_not_reported_as_a_fault():
    d = Faulty().server(b"\xff\0\0\0\4")
    assert d.session.blinded
    assert d.errors == []


def test_bytes_that_were_missed_blind_once_and_are_not_reported_as_a_fault():
    d = Faulty(on_blind=False)
    d.session.desynchronize("bytes were missed")
    d.session.desynchronize("and more of them")
    assert d.counts.sessions_blinded == 1
    assert d.errors == []
