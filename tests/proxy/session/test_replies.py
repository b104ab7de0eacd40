"""Replies: each message of the server meets the request it answers, in whatever order and size it comes."""

from __future__ import annotations

import pytest

from cache.capture.rows import MAX_BYTES
from protocol import backend, codes, frontend
from proxy.session.session import CAPACITY
from tests.proxy.session.dialogue import BOUND, FIELDS, PARSED, Dialogue, done, error, q, ready, rows

SYNC = frontend.Sync()
SELECT = q("SELECT id, name FROM users")


def blinded(d):
    """Why the session went blind."""
    (reason,) = d.reasons
    return reason


def test_asynchronous_messages_between_any_two_others_change_nothing():
    d = Dialogue()
    notice = bytes(backend.NoticeResponse.of("NOTICE", "00000", "x"))
    told = bytes(backend.NotificationResponse(1, b"c", b"p"))
    d.client(q("SELECT id, name FROM users"))
    for message in [*rows((1, b"ann")), done("SELECT 1"), ready()]:
        d.server(notice, told, backend.ParameterStatus(b"application_name", b"x"), message)
    assert d.got() == ["FILL users:1=ann"]


def test_statement_of_a_portal_fetched_in_pieces_is_counted_once():
    d = Dialogue()
    text = b"SELECT id, name FROM users"
    d.client(frontend.Parse(b"", text), frontend.Bind(b"p", b""), frontend.Describe(codes.PORTAL, b"p"))
    d.client(frontend.Execute(b"p", 1), frontend.Execute(b"p", 1), frontend.Execute(b"p", 0), frontend.Sync())
    d.server(PARSED, BOUND, backend.RowDescription(FIELDS), backend.DataRow([b"1", b"a"]), backend.PortalSuspended())
    assert list(d.counts.statements.values()) == [1]
    d.server(backend.DataRow([b"2", b"b"]), backend.PortalSuspended(), done("SELECT 0"), ready())
    assert list(d.counts.statements.values()) == [1]
    assert d.got() == ["FILL users:1=a", "FILL users:2=b"]


def test_row_too_long_to_look_at_fills_nothing():
    d = Dialogue()
    d.client(q("SELECT id, name FROM users"))
    d.server(*rows((1, b"x" * CAPACITY), (2, b"bob")), done("SELECT 2"), ready())
    assert d.got() == ["FILL users:2=bob"]


def test_write_whose_portal_is_suspended_evicts():
    d = Dialogue()
    text = b"UPDATE users SET name = 'a' WHERE id = 1 RETURNING id"
    d.client(frontend.Parse(b"", text), frontend.Bind(b"", b""), frontend.Execute(b"", 1), frontend.Sync())
    d.server(PARSED, BOUND, backend.DataRow([b"1"]), backend.PortalSuspended(), ready())
    assert d.got() == ["EVICT users:1"]


def test_suspended_write_flushes_without_a_catalog():
    d = Dialogue(learned=False)
    text = b"UPDATE users SET name = 'a' WHERE id = 1 RETURNING id"
    d.client(frontend.Parse(b"", text), frontend.Bind(b"", b""), frontend.Execute(b"", 1), frontend.Sync())
    d.server(PARSED, BOUND, backend.DataRow([b"1"]), backend.PortalSuspended(), ready())
    assert d.got() == ["FLUSH "]


def test_rows_fill_before_the_statement_finishes_if_they_are_large():
    d = Dialogue()
    value = b"x" * (MAX_BYTES // 8)
    d.client(SELECT).server(*rows(*[(number, value) for number in range(9)]))
    assert len(d.got()) == 9
    d.server(backend.DataRow([b"9", b"ann"]), done("SELECT 10"), ready())
    assert d.got() == ["FILL users:9=ann"]


def test_rows_of_an_unrelated_statement_are_not_handled():
    d = Dialogue()
    d.client(q("SELECT balance FROM accounts"), q("SELECT 1"))
    d.server(backend.RowDescription(FIELDS[:1]), backend.DataRow([b"1"]), backend.DataRow([b"2"]))
    assert d.session._replies.handlers[backend.DATA_ROW] is None
    d.server(done("SELECT 2"))
    assert d.session._replies.handlers[backend.DATA_ROW] is not None


def test_no_data_answers_describe():
    d = Dialogue()
    d.client(frontend.Parse(b"", b"DELETE FROM users"), frontend.Bind(b"", b""), frontend.Describe(codes.PORTAL, b""))
    d.client(frontend.Execute(b""), SYNC)
    d.server(PARSED, BOUND, backend.NoData(), done("DELETE 2"), ready())
    assert d.got() == ["FLUSH "]


def test_text_that_cannot_be_divided_flushes_however_many_statements_it_has():
    d = Dialogue()
    d.client(q("UPDATE users SET name = 'x; SELECT 1")).server(done("UPDATE 1"), done("SELECT 1"), ready())
    assert d.got() == ["FLUSH "]
    assert not d.session.blinded


def test_more_statements_than_the_text_has_blind_the_session():
    d = Dialogue()
    d.client(q("SELECT 1"), q("SELECT 2")).server(done("SELECT 1"), done("SELECT 1"))
    assert blinded(d) == "Desynchronized: the server found more than 1 statements in a Query"


@pytest.mark.parametrize("row", [backend.DataRow([b"1"]), backend.DataRow([])])
def test_row_with_fewer_columns_than_were_described_blinds_the_session(row):
    d = Dialogue()
    d.client(SELECT).server(backend.RowDescription(FIELDS), row)
    assert blinded(d) == "Desynchronized: a DataRow has fewer columns than were described"


def test_row_with_fewer_columns_declines_the_fast_path_first():
    d = Dialogue()
    d.client(SELECT).server(backend.RowDescription(FIELDS), backend.DataRow([b"1"]), done("SELECT 1"), ready())
    assert blinded(d) == "Desynchronized: a DataRow has fewer columns than were described"


def test_replication_blinds_the_session():
    d = Dialogue()
    d.client(SELECT).server(backend.CopyBothResponse(0, ()))
    assert blinded(d) == "Desynchronized: replication is not observed"


def test_ready_for_query_without_a_status_blinds_the_session():
    d = Dialogue()
    d.client(SELECT).server(b"Z\0\0\0\4")
    assert blinded(d) == "MessageError: ReadyForQuery without a transaction status"


def test_copy_from_evicts_what_it_may_have_written():
    d = Dialogue()
    d.client(q("COPY users FROM STDIN")).server(backend.CopyInResponse(0, (0, 0)))
    assert d.session.is_bulk(b"d")
    d.client(frontend.COPY_DATA.to_bytes() + b"\0\0\0\x0a1\tann\n", b"c\0\0\0\4").server(done("COPY 1"), ready())
    assert d.session.idle
    assert not d.session.blinded


def test_function_call_makes_its_transaction_uncertain():
    d = Dialogue()
    d.client(q("BEGIN")).server(done("BEGIN"), ready("T"))
    d.client(q("UPDATE users SET name = 'a' WHERE id = 1")).server(done("UPDATE 1"), ready("T"))
    d.client(frontend.FunctionCall(1, (), [], 0)).server(backend.FunctionCallResponse(b"x"), ready("T"))
    d.client(q("ROLLBACK")).server(done("ROLLBACK"), ready())
    assert d.got() == ["EVICT users:1"], "the function may have written by other means"


def test_empty_query_string_changes_nothing():
    d = Dialogue()
    d.client(q(""), q("")).server(backend.EmptyQueryResponse(), ready(), backend.EmptyQueryResponse(), ready())
    assert d.session.idle


def test_fatal_error_says_that_nothing_runs_any_more():
    d = Dialogue()
    d.client(q("UPDATE users SET name = 'a' WHERE id = 1")).server(error("FATAL"))
    d.session.closed(backend_ended=False)
    (change,) = d.sink.changes
    assert not change.may_commit_later
    assert d.got() == ["EVICT users:1"]


def test_error_with_nothing_outstanding_changes_nothing():
    d = Dialogue().server(error("FATAL"))
    assert not d.session.blinded


def test_failed_parse_forgets_the_unnamed_statement_and_no_other():
    d = Dialogue()
    for name in (b"", b"s"):
        d.client(frontend.Parse(name, b"SELECT 1"), SYNC).server(PARSED, ready())
    for name in (b"", b"s"):
        d.client(frontend.Parse(name, b"SELECT x"), SYNC).server(error(), ready())
    assert list(d.session._objects.statements) == [b"s"]


def test_error_too_long_to_look_at_is_an_error():
    d = Dialogue()
    long = backend.ErrorResponse.of("ERROR", "XX000", "x" * CAPACITY)
    d.client(q("UPDATE users SET name = 'a' WHERE id = 1; SELECT 1")).server(done("UPDATE 1"), long, ready())
    assert d.got() == []
    assert not d.session.blinded


def test_parameter_too_long_to_look_at_is_ignored():
    d = Dialogue()
    d.client(SELECT).server(backend.ParameterStatus(b"application_name", b"x" * CAPACITY))
    assert not d.session.blinded


def test_other_message_too_long_to_look_at_blinds_the_session():
    d = Dialogue()
    d.client(SELECT).server(backend.RowDescription((backend.FieldDescription(b"x" * CAPACITY),)))
    assert "where a short one was due" in blinded(d)


def test_query_that_was_sent_before_texts_were_read_otherwise_is_read_again():
    """A function may set a parameter unseen, so what is reported before the next Query is what counts."""
    d = Dialogue()
    d.client(q("SELECT unknown_function()"), q(r"UPDATE public.users SET name = 'a\\b' WHERE id = 1"))
    d.server(*rows(), done("SELECT 1"), backend.ParameterStatus(b"standard_conforming_strings", b"off"), ready())
    d.server(done("UPDATE 1"), ready())
    assert d.got() == [r"STORE users:1=a\b"]


def test_execution_runs_only_for_what_is_not_answered():
    d = Dialogue()
    d.client(q("UPDATE users SET name = 'a' WHERE id = 1; DELETE FROM users WHERE id = 2"), q("SELECT 1"))
    d.server(done("UPDATE 1"))
    outstanding = d.session._replies.outstanding()
    assert [execution.plan.reason.value for execution in outstanding] == ["evict-delete", "unrelated"]


def test_rows_described_for_a_query_are_those_of_its_own_statement():
    d = Dialogue()
    d.client(q("SELECT 1; SELECT id, name FROM users"), q("SELECT 1"))
    d.server(backend.RowDescription(FIELDS[:1]), backend.DataRow([b"1"]), done("SELECT 1"))
    d.server(*rows((1, b"ann")), done("SELECT 1"), ready())
    assert d.got() == ["FILL users:1=ann"]
