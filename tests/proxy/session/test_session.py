"""Session as a dialogue: frames of both directions in, changes out. No I/O; the catalog is made by hand."""

from __future__ import annotations

import pytest

from protocol import backend, frontend
from proxy.session.pipeline import REQUEST_LIMIT
from proxy.session.session import Session
from tests.proxy.session.dialogue import (
    BOUND,
    PARAMETERS,
    PARSED,
    RULE,
    Dialogue,
    done,
    error,
    fault,
    q,
    ready,
    rows,
)


def test_rows_of_a_simple_query_fill():
    d = Dialogue()
    d.client(q("SELECT id, name FROM users")).server(*rows((1, b"ann"), (2, b"bob")), done("SELECT 2"), ready())
    assert d.got() == ["FILL users:1=ann", "FILL users:2=bob"]


def test_row_with_a_null_key_or_value_fills_nothing():
    d = Dialogue()
    row = backend.DataRow([None, b"x"])
    d.client(q("SELECT id, name FROM users")).server(*rows((1, None)), row, done("SELECT 2"), ready())
    assert d.got() == []


def test_rows_fill_however_the_bytes_are_cut():
    d = Dialogue()
    said = bytes(q("SELECT id, name FROM users"))
    answered = b"".join(map(bytes, [*rows((1, b"ann")), done("SELECT 1"), ready()]))
    for byte in said:
        d.session.frontend(bytes([byte]))
    for byte in answered:
        d.session.backend(bytes([byte]))
    assert d.got() == ["FILL users:1=ann"]
    assert d.session.idle


def test_update_is_stored_at_ready_for_query_and_not_before():
    d = Dialogue()
    d.client(q("UPDATE users SET name = 'new' WHERE id = 7")).server(done("UPDATE 1"))
    assert d.got() == []
    d.server(ready())
    assert d.got() == ["STORE users:7=new"]


def test_update_of_no_row_changes_nothing():
    d = Dialogue()
    d.client(q("UPDATE users SET name = 'new' WHERE id = 7")).server(done("UPDATE 0"), ready())
    assert d.got() == []


def test_error_later_in_the_query_string_undoes_an_update():
    d = Dialogue()
    d.client(q("UPDATE users SET name = 'a' WHERE id = 1; SELECT 1/0")).server(done("UPDATE 1"), error(), ready())
    assert d.got() == []


def test_update_stays_if_the_query_string_commits_it_before_an_error():
    d = Dialogue()
    d.client(q("BEGIN; UPDATE users SET name = 'a' WHERE id = 1; COMMIT; SELECT 1/0"))
    d.server(done("BEGIN"), done("UPDATE 1"), done("COMMIT"), error(), ready())
    assert d.got() == ["STORE users:1=a"]


def test_commit_of_a_failed_block_changes_nothing():
    d = Dialogue()
    d.client(q("BEGIN")).server(done("BEGIN"), ready("T"))
    d.client(q("UPDATE users SET name = 'a' WHERE id = 1")).server(done("UPDATE 1"), ready("T"))
    d.client(q("SELECT 1/0")).server(error(), ready("E"))
    d.client(q("COMMIT")).server(done("ROLLBACK"), ready())
    assert d.got() == []


def test_read_behind_a_write_of_its_own_transaction_fills_nothing():
    d = Dialogue()
    d.client(q("BEGIN")).server(done("BEGIN"), ready("T"))
    d.client(q("UPDATE users SET name = 'a' WHERE id = 1")).server(done("UPDATE 1"), ready("T"))
    d.client(q("SELECT id, name FROM users")).server(*rows((1, b"a")), done("SELECT 1"), ready("T"))
    d.client(q("ROLLBACK")).server(done("ROLLBACK"), ready())
    assert d.got() == []


def test_fill_has_the_date_of_its_transaction():
    d = Dialogue()
    d.client(q("BEGIN")).server(done("BEGIN"), ready("T"))
    d.sink.seq = 9
    d.client(q("SELECT id, name FROM users")).server(*rows((1, b"a")), done("SELECT 1"), ready("T"))
    assert [change.seq for change in d.sink.changes] == [1]


def test_parameters_of_an_update_are_stored():
    d = Dialogue()
    text = b"UPDATE users SET name = $1 WHERE id = $2"
    d.client(frontend.Parse(b"", text), frontend.Bind(b"", b"", (), [b"new", b"3"]), frontend.Execute(b""))
    d.client(frontend.Sync()).server(PARSED, BOUND, done("UPDATE 1"))
    assert d.got() == []
    d.server(ready())
    assert d.got() == ["STORE users:3=new"]


def test_error_in_a_pipeline_undoes_what_came_before_it_up_to_sync():
    d = Dialogue()
    text = b"UPDATE users SET name = 'a' WHERE id = 1"
    first = (frontend.Parse(b"", text), frontend.Bind(b"", b""), frontend.Execute(b""))
    d.client(*first, frontend.Parse(b"", b"SELECT 1/0"), frontend.Bind(b"", b""), frontend.Execute(b""))
    d.client(frontend.Sync(), *first, frontend.Sync())
    d.server(PARSED, BOUND, done("UPDATE 1"), PARSED, BOUND, error(), ready())
    assert d.got() == []
    d.server(PARSED, BOUND, done("UPDATE 1"), ready())
    assert d.got() == ["STORE users:1=a"]


def test_unanswered_write_of_a_lost_session_evicts_and_may_commit_later():
    d = Dialogue()
    d.client(q("UPDATE users SET name = 'a' WHERE id = 1"))
    d.session.closed(backend_ended=False)
    (change,) = d.sink.changes
    assert change.may_commit_later, "the server may still commit it"
    assert d.got() == ["EVICT users:1"]


def test_unanswered_commit_of_a_lost_session_evicts_what_its_block_wrote():
    d = Dialogue()
    d.client(q("BEGIN")).server(done("BEGIN"), ready("T"))
    d.client(q("UPDATE users SET name = 'a' WHERE id = 1")).server(done("UPDATE 1"), ready("T"))
    d.client(q("COMMIT"))
    d.session.closed(backend_ended=True)
    (change,) = d.sink.changes
    assert not change.may_commit_later
    assert d.got() == ["EVICT users:1"]


def test_open_block_of_a_lost_session_at_rest_changes_nothing():
    d = Dialogue()
    d.client(q("BEGIN")).server(done("BEGIN"), ready("T"))
    d.client(q("UPDATE users SET name = 'a' WHERE id = 1")).server(done("UPDATE 1"), ready("T"))
    d.session.closed(backend_ended=True)
    assert d.got() == []


def test_unanswered_pipeline_of_a_lost_session_evicts_what_it_names():
    d = Dialogue()
    text = b"UPDATE users SET name = $1 WHERE id = $2"
    d.client(frontend.Parse(b"", text), frontend.Bind(b"", b"", (), [b"new", b"3"]), frontend.Execute(b""))
    d.session.closed(backend_ended=True)
    assert d.got() == ["EVICT users:3"]


@pytest.mark.parametrize(
    "nonsense",
    [done("SELECT 1"), ready(), BOUND, backend.DataRow([b"1"]), b"\xff\0\0\0\4", b"Z\xff\xff\xff\xff"],
    ids=["tag", "ready", "bind", "row", "type", "length"],
)
def test_bytes_that_make_no_sense_blind_the_session_and_flush(nonsense):
    d = Dialogue()
    d.server(nonsense)
    assert d.session.blinded
    assert d.got() == ["FLUSH "]
    assert len(d.reasons) == d.counts.sessions_blinded == 1
    d.client(q("UPDATE users SET name = 'a' WHERE id = 1")).server(done("UPDATE 1"), ready())
    assert d.got() == []
    d.session.closed(backend_ended=True)
    assert d.got() == ["FLUSH "], "it may have written since"
    assert not d.session.idle


def test_writes_flush_and_reads_do_not_fill_without_a_catalog():
    d = Dialogue(learned=False)
    d.client(q("SELECT id, name FROM users")).server(*rows((1, b"ann")), done("SELECT 1"), ready())
    assert d.got() == []
    d.client(q("UPDATE users SET name = 'a' WHERE id = 1")).server(done("UPDATE 1"), ready())
    assert d.got() == ["FLUSH "]
    assert d.session.wants_catalog() is not None


def test_writes_evict_and_reads_do_not_fill_after_ddl_until_the_catalog_is_asked_again():
    d = Dialogue()
    d.client(q("ALTER TABLE users ADD COLUMN x int"))
    other = Session(d.database, d.sink, d.counts, PARAMETERS, {"user": "me"}, on_internal_error=fault)
    other.frontend(bytes(q("SELECT id, name FROM users")))
    other.backend(b"".join(map(bytes, [*rows((1, b"ann")), done("SELECT 1"), ready()])))
    assert d.got() == [], "while it is on its way"
    assert other.wants_catalog() is None
    d.server(done("ALTER TABLE"), ready())
    assert d.got() == ["FLUSH "]
    d.client(q("UPDATE users SET name = 'a' WHERE id = 1")).server(done("UPDATE 1"), ready())
    assert d.got() == ["EVICT users:1"]
    assert d.session.wants_catalog() is not None


def test_rows_do_not_fill_between_a_setting_and_ready_for_query():
    d = Dialogue()
    d.client(q("SET client_encoding TO latin1; SELECT id, name FROM users"))
    d.server(done("SET"), *rows((1, b"\xe9")), done("SELECT 1"))
    d.server(backend.ParameterStatus(b"client_encoding", b"LATIN1"), ready())
    assert d.got() == []
    d.client(q("SELECT id, name FROM users")).server(*rows((1, b"\xe9")), done("SELECT 1"), ready())
    assert d.got() == ["FILL users:1=é"]


def test_write_behind_a_temporary_table_of_the_same_name_evicts():
    d = Dialogue()
    d.client(q("CREATE TEMP TABLE users (id int, name text); UPDATE users SET name = 'a' WHERE id = 1"))
    d.server(done("CREATE TABLE"), done("UPDATE 1"), ready())
    assert d.got() == ["EVICT users:1"]


def test_rows_of_a_hot_standby_do_not_fill():
    d = Dialogue(parameters={"in_hot_standby": "on"})
    d.client(q("SELECT id, name FROM users")).server(*rows((1, b"ann")), done("SELECT 1"), ready())
    assert d.got() == []


def test_prepared_transaction_is_stored_at_commit_prepared_of_another_session():
    d = Dialogue()
    d.client(q("BEGIN")).server(done("BEGIN"), ready("T"))
    d.client(q("UPDATE users SET name = 'a' WHERE id = 1")).server(done("UPDATE 1"), ready("T"))
    d.client(q("PREPARE TRANSACTION 'g'")).server(done("PREPARE TRANSACTION"), ready())
    assert d.got() == []
    other = Session(d.database, d.sink, d.counts, PARAMETERS, {"user": "me"}, on_internal_error=fault)
    other.frontend(bytes(q("COMMIT PREPARED 'g'")))
    other.backend(bytes(done("COMMIT PREPARED")) + bytes(ready()))
    assert d.got() == ["STORE users:1=a"]
    d.client(q("COMMIT PREPARED 'unknown'")).server(done("COMMIT PREPARED"), ready())
    assert d.got() == ["FLUSH "]


def test_client_is_over_the_limit_until_half_of_its_requests_is_answered():
    d = Dialogue()
    d.client(*[q("SELECT 1")] * (REQUEST_LIMIT + 1))
    assert d.session.over_limit
    assert d.session.answers_due
    d.server(*[backend.EmptyQueryResponse(), ready()] * (REQUEST_LIMIT // 2))
    assert d.session.over_limit
    d.server(backend.EmptyQueryResponse(), ready())
    assert not d.session.over_limit


def test_at_most_max_rows_fill():
    d = Dialogue()
    many = [(number, b"x") for number in range(RULE.max_rows + 5)]
    d.client(q("SELECT id, name FROM users")).server(*rows(*many), done(f"SELECT {len(many)}"), ready())
    assert len(d.got()) == RULE.max_rows
