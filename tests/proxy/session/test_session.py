"""Session as a dialogue: frames of both directions in, changes out. No I/O; the catalog is made by hand."""

from __future__ import annotations

import pytest

from cache.changes import Kind
from protocol import backend, codes, frontend
from proxy.session.session import CAPACITY, Session
from tests.proxy.session.dialogue import (
    BOUND,
    FIELDS,
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


def test_a_simple_select_fills():
    d = Dialogue()
    d.client(q("SELECT id, name FROM users")).server(*rows((1, b"ann"), (2, b"bob")), done("SELECT 2"), ready())
    assert d.got() == ["FILL users:1=ann", "FILL users:2=bob"]


def test_a_row_without_key_or_value_fills_nothing():
    d = Dialogue()
    row = backend.DataRow([None, b"x"])
    d.client(q("SELECT id, name FROM users")).server(*rows((1, None)), row, done("SELECT 2"), ready())
    assert d.got() == []


def test_however_the_bytes_are_cut():
    d = Dialogue()
    said = bytes(q("SELECT id, name FROM users"))
    answered = b"".join(map(bytes, [*rows((1, b"ann")), done("SELECT 1"), ready()]))
    for byte in said:
        d.session.frontend(bytes([byte]))
    for byte in answered:
        d.session.backend(bytes([byte]))
    assert d.got() == ["FILL users:1=ann"]
    assert d.session.idle


def test_an_update_is_stored_when_it_is_true_and_not_before():
    d = Dialogue()
    d.client(q("UPDATE users SET name = 'new' WHERE id = 7")).server(done("UPDATE 1"))
    assert d.got() == []
    d.server(ready())
    assert d.got() == ["STORE users:7=new"]


def test_an_update_that_touched_nothing_says_nothing():
    d = Dialogue()
    d.client(q("UPDATE users SET name = 'new' WHERE id = 7")).server(done("UPDATE 0"), ready())
    assert d.got() == []


def test_an_error_later_in_the_string_undoes_an_update():
    d = Dialogue()
    d.client(q("UPDATE users SET name = 'a' WHERE id = 1; SELECT 1/0")).server(done("UPDATE 1"), error(), ready())
    assert d.got() == []


def test_a_commit_in_the_string_stands():
    d = Dialogue()
    d.client(q("BEGIN; UPDATE users SET name = 'a' WHERE id = 1; COMMIT; SELECT 1/0"))
    d.server(done("BEGIN"), done("UPDATE 1"), done("COMMIT"), error(), ready())
    assert d.got() == ["STORE users:1=a"]


def test_commit_of_a_failed_block_is_a_rollback():
    d = Dialogue()
    d.client(q("BEGIN")).server(done("BEGIN"), ready("T"))
    d.client(q("UPDATE users SET name = 'a' WHERE id = 1")).server(done("UPDATE 1"), ready("T"))
    d.client(q("SELECT 1/0")).server(error(), ready("E"))
    d.client(q("COMMIT")).server(done("ROLLBACK"), ready())
    assert d.got() == []


def test_what_a_transaction_wrote_is_not_what_others_may_read():
    d = Dialogue()
    d.client(q("BEGIN")).server(done("BEGIN"), ready("T"))
    d.client(q("UPDATE users SET name = 'a' WHERE id = 1")).server(done("UPDATE 1"), ready("T"))
    d.client(q("SELECT id, name FROM users")).server(*rows((1, b"a")), done("SELECT 1"), ready("T"))
    d.client(q("ROLLBACK")).server(done("ROLLBACK"), ready())
    assert d.got() == []


def test_a_read_is_as_old_as_its_transaction():
    d = Dialogue()
    d.client(q("BEGIN")).server(done("BEGIN"), ready("T"))
    d.sink.seq = 9
    d.client(q("SELECT id, name FROM users")).server(*rows((1, b"a")), done("SELECT 1"), ready("T"))
    assert [change.seq for change in d.sink.changes] == [1]


def test_a_prepared_statement_in_binary():
    d = Dialogue()
    d.client(
        frontend.Parse(b"s", b"SELECT name FROM users WHERE id = $1"),
        frontend.Describe(codes.PREPARED_STATEMENT, b"s"),
        frontend.Sync(),
    )
    d.server(PARSED, backend.ParameterDescription((23,)), backend.RowDescription(FIELDS[1:]), ready())
    d.client(frontend.Bind(b"", b"s", (1,), [(42).to_bytes(4, "big")], (1,)), frontend.Execute(b""), frontend.Sync())
    d.server(BOUND, backend.DataRow([b"ann"]), done("SELECT 1"), ready())
    assert d.got() == ["FILL users:42=ann"]


def test_without_a_description_rows_say_nothing():
    d = Dialogue()
    d.client(frontend.Parse(b"", b"SELECT id, name FROM users"), frontend.Bind(b"", b""), frontend.Execute(b""))
    d.client(frontend.Sync())
    d.server(PARSED, BOUND, backend.DataRow([b"1", b"ann"]), done("SELECT 1"), ready())
    assert d.got() == []


def test_parameters_of_an_update():
    d = Dialogue()
    text = b"UPDATE users SET name = $1 WHERE id = $2"
    d.client(frontend.Parse(b"", text), frontend.Bind(b"", b"", (), [b"new", b"3"]), frontend.Execute(b""))
    d.client(frontend.Sync()).server(PARSED, BOUND, done("UPDATE 1"))
    assert d.got() == []
    d.server(ready())
    assert d.got() == ["STORE users:3=new"]


def test_an_error_in_a_pipeline_undoes_what_came_before_it():
    d = Dialogue()
    text = b"UPDATE users SET name = 'a' WHERE id = 1"
    first = (frontend.Parse(b"", text), frontend.Bind(b"", b""), frontend.Execute(b""))
    d.client(*first, frontend.Parse(b"", b"SELECT 1/0"), frontend.Bind(b"", b""), frontend.Execute(b""))
    d.client(frontend.Sync(), *first, frontend.Sync())
    d.server(PARSED, BOUND, done("UPDATE 1"), PARSED, BOUND, error(), ready())
    assert d.got() == []
    d.server(PARSED, BOUND, done("UPDATE 1"), ready())
    assert d.got() == ["STORE users:1=a"]


def test_a_name_is_what_the_server_confirmed():
    d = Dialogue()
    d.client(frontend.Parse(b"s", b"UPDATE users SET name = 'a' WHERE id = 1"), frontend.Sync())
    d.server(PARSED, ready())
    d.client(frontend.Parse(b"s", b"SELECT 1"), frontend.Sync()).server(error(), ready())
    d.client(frontend.Bind(b"", b"s"), frontend.Execute(b""), frontend.Sync())
    d.server(BOUND, done("UPDATE 1"), ready())
    assert d.got() == ["STORE users:1=a"]


def test_a_write_whose_portal_is_suspended_has_happened():
    d = Dialogue()
    text = b"UPDATE users SET name = 'a' WHERE id = 1 RETURNING id"
    d.client(frontend.Parse(b"", text), frontend.Bind(b"", b""), frontend.Execute(b"", 1), frontend.Sync())
    d.server(PARSED, BOUND, backend.DataRow([b"1"]), backend.PortalSuspended(), ready())
    assert d.got() == ["EVICT users:1"]


def test_sql_prepare_and_execute():
    d = Dialogue()
    d.client(q("PREPARE p AS UPDATE users SET name = $1 WHERE id = $2")).server(done("PREPARE"), ready())
    d.client(q("EXECUTE p('new', 5)")).server(done("UPDATE 1"), ready())
    assert d.got() == ["STORE users:5=new"]
    d.client(q("DEALLOCATE ALL")).server(done("DEALLOCATE ALL"), ready())
    d.client(q("EXECUTE p('new', 5)")).server(done("UPDATE 1"), ready())
    assert d.got() == ["FLUSH "], "a statement made where nobody saw it may do anything"


def test_a_cursor_is_as_old_as_its_declaration():
    d = Dialogue()
    d.client(q("BEGIN")).server(done("BEGIN"), ready("T"))
    d.client(q("DECLARE c CURSOR WITH HOLD FOR SELECT id, name FROM users"))
    d.server(done("DECLARE CURSOR"), ready("T"))
    d.client(q("COMMIT")).server(done("COMMIT"), ready())
    d.sink.seq = 9
    d.client(q("FETCH 1 FROM c")).server(*rows((1, b"ann")), done("FETCH 1"), ready())
    assert [(change.kind, change.seq) for change in d.sink.changes] == [(Kind.FILL, 1)]


def test_a_lost_connection_with_a_write_under_way_evicts():
    d = Dialogue()
    d.client(q("UPDATE users SET name = 'a' WHERE id = 1"))
    d.session.closed(backend_ended=False)
    (change,) = d.sink.changes
    assert change.may_commit_later, "the server may still commit it"
    assert d.got() == ["EVICT users:1"]


def test_a_commit_under_way_evicts_what_its_block_wrote():
    d = Dialogue()
    d.client(q("BEGIN")).server(done("BEGIN"), ready("T"))
    d.client(q("UPDATE users SET name = 'a' WHERE id = 1")).server(done("UPDATE 1"), ready("T"))
    d.client(q("COMMIT"))
    d.session.closed(backend_ended=True)
    (change,) = d.sink.changes
    assert not change.may_commit_later
    assert d.got() == ["EVICT users:1"]


def test_a_block_lost_at_rest_was_rolled_back():
    d = Dialogue()
    d.client(q("BEGIN")).server(done("BEGIN"), ready("T"))
    d.client(q("UPDATE users SET name = 'a' WHERE id = 1")).server(done("UPDATE 1"), ready("T"))
    d.session.closed(backend_ended=True)
    assert d.got() == []


def test_a_lost_pipeline_is_judged_by_what_was_sent():
    d = Dialogue()
    text = b"UPDATE users SET name = $1 WHERE id = $2"
    d.client(frontend.Parse(b"", text), frontend.Bind(b"", b"", (), [b"new", b"3"]), frontend.Execute(b""))
    d.session.closed(backend_ended=True)
    assert d.got() == ["EVICT users:3"]


def test_a_query_too_long_to_look_at_may_write_anything():
    d = Dialogue()
    d.client(q("SELECT '" + "x" * CAPACITY + "'")).server(done("SELECT 1"), ready())
    assert d.got() == ["FLUSH "]
    assert not d.session.blinded


def test_a_parameter_too_long_to_look_at_hides_the_key():
    d = Dialogue()
    text = b"UPDATE users SET name = $1 WHERE id = $2"
    d.client(frontend.Parse(b"", text), frontend.Bind(b"", b"", (), [b"x" * CAPACITY, b"3"]), frontend.Execute(b""))
    d.client(frontend.Sync()).server(PARSED, BOUND, done("UPDATE 1"), ready())
    assert d.got() == ["FLUSH "]


def test_a_parameter_too_long_to_look_at_hides_no_literal():
    d = Dialogue()
    text = b"UPDATE users SET name = $1 WHERE id = 3"
    d.client(frontend.Parse(b"", text), frontend.Bind(b"", b"", (), [b"x" * CAPACITY]), frontend.Execute(b""))
    d.client(frontend.Sync()).server(PARSED, BOUND, done("UPDATE 1"), ready())
    assert d.got() == ["EVICT users:3"]
    assert not d.session.blinded


@pytest.mark.parametrize("text", ["SELECT name FROM users WHERE id = 5", "SELECT name FROM users WHERE id = $1"])
def test_fetch_from_a_portal_that_bind_made(text):
    d = Dialogue()
    d.client(q("BEGIN")).server(done("BEGIN"), ready("T"))
    parameters: list[bytes | None] = [b"5"] if "$1" in text else []
    d.client(frontend.Parse(b"", text.encode()), frontend.Bind(b"c", b"", (), parameters), frontend.Sync())
    d.server(PARSED, BOUND, ready("T"))
    d.client(q("FETCH 1 FROM c"))
    d.server(backend.RowDescription(FIELDS[1:]), backend.DataRow([b"ann"]), done("FETCH 1"), ready("T"))
    assert d.got() == ["FILL users:5=ann"]


def test_a_portal_is_of_the_settings_it_was_bound_under():
    d = Dialogue()
    d.client(q("BEGIN")).server(done("BEGIN"), ready("T"))
    d.client(
        frontend.Parse(b"", b"UPDATE users SET name = $1 WHERE id = 5"), frontend.Bind(b"p", b"", (), [b"\xc3\xa9"])
    )
    d.client(frontend.Sync()).server(PARSED, BOUND, ready("T"))
    d.client(q("SET client_encoding TO latin1"))
    d.server(done("SET"), backend.ParameterStatus(b"client_encoding", b"LATIN1"), ready("T"))
    d.client(frontend.Execute(b"p"), frontend.Sync()).server(done("UPDATE 1"), ready("T"))
    d.client(q("COMMIT")).server(done("COMMIT"), ready())
    assert d.got() == ["STORE users:5=é"]


def test_a_row_too_long_to_look_at_is_left_out():
    d = Dialogue()
    d.client(q("SELECT id, name FROM users"))
    d.server(*rows((1, b"x" * CAPACITY), (2, b"bob")), done("SELECT 2"), ready())
    assert d.got() == ["FILL users:2=bob"]


@pytest.mark.parametrize(
    "nonsense",
    [done("SELECT 1"), ready(), BOUND, backend.DataRow([b"1"]), b"\xff\0\0\0\4", b"Z\xff\xff\xff\xff"],
    ids=["tag", "ready", "bind", "row", "type", "length"],
)
def test_what_makes_no_sense_blinds_and_flushes(nonsense):
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


def test_without_a_catalog_writes_flush_and_reads_do_not_fill():
    d = Dialogue(learned=False)
    d.client(q("SELECT id, name FROM users")).server(*rows((1, b"ann")), done("SELECT 1"), ready())
    assert d.got() == []
    d.client(q("UPDATE users SET name = 'a' WHERE id = 1")).server(done("UPDATE 1"), ready())
    assert d.got() == ["FLUSH "]
    assert d.session.wants_catalog() is not None


def test_ddl_makes_the_catalog_uncertain_until_it_is_asked_again():
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


def test_a_setting_counts_from_its_statement_on():
    d = Dialogue()
    d.client(q("SET client_encoding TO latin1; SELECT id, name FROM users"))
    d.server(done("SET"), *rows((1, b"\xe9")), done("SELECT 1"))
    d.server(backend.ParameterStatus(b"client_encoding", b"LATIN1"), ready())
    assert d.got() == []
    d.client(q("SELECT id, name FROM users")).server(*rows((1, b"\xe9")), done("SELECT 1"), ready())
    assert d.got() == ["FILL users:1=é"]


def test_a_temporary_table_in_the_same_string_shadows():
    d = Dialogue()
    d.client(q("CREATE TEMP TABLE users (id int, name text); UPDATE users SET name = 'a' WHERE id = 1"))
    d.server(done("CREATE TABLE"), done("UPDATE 1"), ready())
    assert d.got() == ["EVICT users:1"]


def test_a_hot_standby_never_fills():
    d = Dialogue(parameters={"in_hot_standby": "on"})
    d.client(q("SELECT id, name FROM users")).server(*rows((1, b"ann")), done("SELECT 1"), ready())
    assert d.got() == []


def test_two_phase_commit_across_sessions():
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


def test_asynchronous_messages_between_any_two_others():
    d = Dialogue()
    notice = bytes(backend.NoticeResponse.of("NOTICE", "00000", "x"))
    told = bytes(backend.NotificationResponse(1, b"c", b"p"))
    d.client(q("SELECT id, name FROM users"))
    for message in [*rows((1, b"ann")), done("SELECT 1"), ready()]:
        d.server(notice, told, backend.ParameterStatus(b"application_name", b"x"), message)
    assert d.got() == ["FILL users:1=ann"]


def test_at_most_max_rows_fill():
    d = Dialogue()
    many = [(number, b"x") for number in range(RULE.max_rows + 5)]
    d.client(q("SELECT id, name FROM users")).server(*rows(*many), done(f"SELECT {len(many)}"), ready())
    assert len(d.got()) == RULE.max_rows


def test_a_portal_fetched_in_pieces_counts_once():
    d = Dialogue()
    text = b"SELECT id, name FROM users"
    d.client(frontend.Parse(b"", text), frontend.Bind(b"p", b""), frontend.Describe(codes.PORTAL, b"p"))
    d.client(frontend.Execute(b"p", 1), frontend.Execute(b"p", 1), frontend.Execute(b"p", 0), frontend.Sync())
    d.server(PARSED, BOUND, backend.RowDescription(FIELDS), backend.DataRow([b"1", b"a"]), backend.PortalSuspended())
    assert list(d.counts.statements.values()) == [1]
    d.server(backend.DataRow([b"2", b"b"]), backend.PortalSuspended(), done("SELECT 0"), ready())
    assert list(d.counts.statements.values()) == [1]
    assert d.got() == ["FILL users:1=a", "FILL users:2=b"]


def test_a_suspended_write_counts_though_no_catalog_is_known():
    d = Dialogue(learned=False)
    text = b"UPDATE users SET name = 'a' WHERE id = 1 RETURNING id"
    d.client(frontend.Parse(b"", text), frontend.Bind(b"", b""), frontend.Execute(b"", 1), frontend.Sync())
    d.server(PARSED, BOUND, backend.DataRow([b"1"]), backend.PortalSuspended(), ready())
    assert d.got() == ["FLUSH "]
