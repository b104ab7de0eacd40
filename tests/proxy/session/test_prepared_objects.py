"""PreparedObjects: what the names of statements and portals stand for, and what executing one of them does."""

from __future__ import annotations

import pytest

from cache.changes import Kind
from protocol import backend, codes, frontend
from tests.proxy.session.dialogue import BOUND, FIELDS, PARSED, Dialogue, done, error, q, ready, rows

NAME = backend.RowDescription(FIELDS[1:])
SYNC = frontend.Sync()
UPDATE = b"UPDATE users SET name = 'a' WHERE id = 1"


def begun():
    """A dialogue in a transaction block."""
    d = Dialogue()
    return d.client(q("BEGIN")).server(done("BEGIN"), ready("T"))


def executed(d, portal=b"", *answers):
    """Run a portal, as it was bound before."""
    d.client(frontend.Execute(portal), SYNC).server(*answers)
    return d.got()


def test_name_stands_for_the_statement_the_server_confirmed():
    d = Dialogue()
    d.client(frontend.Parse(b"s", b"UPDATE users SET name = 'a' WHERE id = 1"), frontend.Sync())
    d.server(PARSED, ready())
    d.client(frontend.Parse(b"s", b"SELECT 1"), frontend.Sync()).server(error(), ready())
    d.client(frontend.Bind(b"", b"s"), frontend.Execute(b""), frontend.Sync())
    d.server(BOUND, done("UPDATE 1"), ready())
    assert d.got() == ["STORE users:1=a"]


def test_execute_runs_what_prepare_made_and_flushes_if_that_is_unknown():
    d = Dialogue()
    d.client(q("PREPARE p AS UPDATE users SET name = $1 WHERE id = $2")).server(done("PREPARE"), ready())
    d.client(q("EXECUTE p('new', 5)")).server(done("UPDATE 1"), ready())
    assert d.got() == ["STORE users:5=new"]
    d.client(q("DEALLOCATE ALL")).server(done("DEALLOCATE ALL"), ready())
    d.client(q("EXECUTE p('new', 5)")).server(done("UPDATE 1"), ready())
    assert d.got() == ["FLUSH "], "a statement that was prepared unseen may do anything"


def test_fetched_row_has_the_date_of_its_declare():
    d = Dialogue()
    d.client(q("BEGIN")).server(done("BEGIN"), ready("T"))
    d.client(q("DECLARE c CURSOR WITH HOLD FOR SELECT id, name FROM users"))
    d.server(done("DECLARE CURSOR"), ready("T"))
    d.client(q("COMMIT")).server(done("COMMIT"), ready())
    d.sink.seq = 9
    d.client(q("FETCH 1 FROM c")).server(*rows((1, b"ann")), done("FETCH 1"), ready())
    assert [(change.kind, change.seq) for change in d.sink.changes] == [(Kind.FILL, 1)]


@pytest.mark.parametrize("text", ["SELECT name FROM users WHERE id = 5", "SELECT name FROM users WHERE id = $1"])
def test_row_fetched_from_a_portal_that_bind_made_fills(text):
    d = Dialogue()
    d.client(q("BEGIN")).server(done("BEGIN"), ready("T"))
    parameters: list[bytes | None] = [b"5"] if "$1" in text else []
    d.client(frontend.Parse(b"", text.encode()), frontend.Bind(b"c", b"", (), parameters), frontend.Sync())
    d.server(PARSED, BOUND, ready("T"))
    d.client(q("FETCH 1 FROM c"))
    d.server(backend.RowDescription(FIELDS[1:]), backend.DataRow([b"ann"]), done("FETCH 1"), ready("T"))
    assert d.got() == ["FILL users:5=ann"]


def test_parameters_are_read_under_the_settings_at_bind():
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


def test_binary_row_of_a_prepared_statement_fills():
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


def test_row_without_a_description_fills_nothing():
    d = Dialogue()
    d.client(frontend.Parse(b"", b"SELECT id, name FROM users"), frontend.Bind(b"", b""), frontend.Execute(b""))
    d.client(frontend.Sync())
    d.server(PARSED, BOUND, backend.DataRow([b"1", b"ann"]), done("SELECT 1"), ready())
    assert d.got() == []


def test_statement_that_is_closed_is_unknown_when_bound_and_flushes():
    d = Dialogue()
    d.client(frontend.Parse(b"s", UPDATE), frontend.Close(codes.PREPARED_STATEMENT, b"s"), SYNC)
    d.server(PARSED, backend.CloseComplete(), ready())
    d.client(frontend.Bind(b"", b"s"), frontend.Execute(b""), SYNC).server(BOUND, done("UPDATE 1"), ready())
    assert d.got() == ["FLUSH "]


def test_portal_that_is_closed_is_unknown_when_executed_and_flushes():
    d = Dialogue()
    d.client(frontend.Parse(b"", UPDATE), frontend.Bind(b"p", b""), frontend.Close(codes.PORTAL, b"p"))
    d.client(frontend.Execute(b"p"), SYNC)
    d.server(PARSED, BOUND, backend.CloseComplete(), done("UPDATE 1"), ready())
    assert d.got() == ["FLUSH "]


def test_portal_is_unknown_after_its_transaction():
    d = begun()
    d.client(frontend.Parse(b"", UPDATE), frontend.Bind(b"p", b""), SYNC).server(PARSED, BOUND, ready("T"))
    d.client(q("COMMIT")).server(done("COMMIT"), ready())
    assert executed(d, b"p", done("UPDATE 1"), ready()) == ["FLUSH "]


def test_description_of_a_portal_is_used_for_its_rows():
    d = Dialogue()
    d.client(frontend.Parse(b"", b"SELECT id, name FROM users"), frontend.Bind(b"p", b""))
    d.client(frontend.Describe(codes.PORTAL, b"p"), frontend.Execute(b"p"), SYNC)
    d.server(PARSED, BOUND, *rows((1, b"ann")), done("SELECT 1"), ready())
    assert d.got() == ["FILL users:1=ann"]


@pytest.mark.parametrize("kind", [codes.PORTAL, codes.PREPARED_STATEMENT])
@pytest.mark.parametrize("text", ["SELECT 1", None], ids=["unrelated", "unknown"])
def test_description_that_is_not_needed_is_not_kept(kind, text):
    d = Dialogue()
    if text is not None:
        d.client(frontend.Parse(b"x", text.encode()), frontend.Bind(b"x", b"x"), SYNC).server(PARSED, BOUND, ready("T"))
    d.client(frontend.Describe(kind, b"x"), SYNC).server(NAME, ready("T"))
    objects = d.session._objects
    assert {one.description for one in objects.statements.values()} <= {None}
    assert {one.description for one in objects.portals.values()} <= {None}


def test_description_of_a_statement_is_forgotten_with_the_catalog():
    d = Dialogue()
    d.client(frontend.Parse(b"s", b"SELECT id, name FROM users"), frontend.Describe(codes.PREPARED_STATEMENT, b"s"))
    d.client(SYNC).server(PARSED, backend.ParameterDescription(()), backend.RowDescription(FIELDS), ready())
    again = (frontend.Bind(b"", b"s"), frontend.Execute(b""), SYNC)
    answers = (BOUND, backend.DataRow([b"1", b"ann"]), done("SELECT 1"), ready())
    d.client(*again).server(*answers)
    assert d.got() == ["FILL users:1=ann"]
    d.database.configure(d.database.rules)
    d.learn()
    d.client(*again).server(*answers)
    assert d.got() == [], "column numbers may mean something else now"


def test_statement_prepared_by_a_portal_is_known():
    d = Dialogue()
    d.client(frontend.Parse(b"", b"PREPARE p AS UPDATE users SET name = $1 WHERE id = $2"), frontend.Bind(b"", b""))
    d.client(frontend.Execute(b""), SYNC).server(PARSED, BOUND, done("PREPARE"), ready())
    d.client(q("EXECUTE p ('new', 5)")).server(done("UPDATE 1"), ready())
    assert d.got() == ["STORE users:5=new"]


def test_statement_prepared_by_an_unknown_portal_is_unknown():
    d = Dialogue()
    assert d.session._objects.prepared_by_portal(b"made unseen").text is None


def test_statement_of_a_query_string_is_prepared_by_its_own_text():
    d = Dialogue()
    d.client(q("SELECT 1; PREPARE p AS DELETE FROM users WHERE id = $1; SELECT 2"))
    d.server(done("SELECT 1"), done("PREPARE"), done("SELECT 1"), ready())
    d.client(q("EXECUTE p (5)")).server(done("DELETE 1"), ready())
    assert d.got() == ["EVICT users:5"]


def test_deallocated_statement_is_unknown_and_others_are_not():
    d = Dialogue()
    for name in ("p", "r"):
        d.client(q(f"PREPARE {name} AS DELETE FROM users WHERE id = $1")).server(done("PREPARE"), ready())
    d.client(q("DEALLOCATE p")).server(done("DEALLOCATE"), ready())
    d.client(q("EXECUTE r (5)")).server(done("DELETE 1"), ready())
    d.client(q("EXECUTE p (5)")).server(done("DELETE 1"), ready())
    assert d.got() == ["EVICT users:5", "FLUSH "]


@pytest.mark.parametrize("command", ["CLOSE c", "CLOSE ALL", "DISCARD ALL"])
def test_row_of_a_cursor_that_was_closed_fills_nothing(command):
    d = Dialogue()
    d.client(q("DECLARE c CURSOR WITH HOLD FOR SELECT id, name FROM users")).server(done("DECLARE CURSOR"), ready())
    d.client(q(command)).server(done(command.rpartition(" ")[0]), ready())
    d.client(q("FETCH 1 FROM c")).server(*rows((1, b"ann")), done("FETCH 1"), ready())
    assert d.got() == []


def test_discard_all_forgets_prepared_statements():
    d = Dialogue()
    d.client(frontend.Parse(b"s", UPDATE), SYNC).server(PARSED, ready())
    d.client(q("DISCARD ALL")).server(done("DISCARD ALL"), ready())
    assert d.session._objects.statements == {}


def test_execute_by_a_portal_has_the_date_of_its_execute():
    d = Dialogue()
    d.client(q("PREPARE p AS SELECT id, name FROM users")).server(done("PREPARE"), ready())
    d.client(frontend.Parse(b"", b"EXECUTE p"), frontend.Bind(b"", b""), frontend.Describe(codes.PORTAL, b""))
    d.sink.seq = 9
    d.client(frontend.Execute(b""), SYNC).server(PARSED, BOUND, *rows((1, b"ann")), done("SELECT 1"), ready())
    assert [change.seq for change in d.sink.changes] == [1], "as old as the transaction that Parse began"


def test_empty_statement_changes_nothing():
    d = Dialogue()
    d.client(frontend.Parse(b"", b""), frontend.Bind(b"", b""), frontend.Execute(b""), SYNC)
    d.server(PARSED, BOUND, backend.EmptyQueryResponse(), ready())
    assert d.got() == []
    assert not d.session.blinded


def test_text_that_an_encoding_makes_ambiguous_flushes():
    d = Dialogue(parameters={"client_encoding": "SJIS"})
    d.client(q("UPDATE users SET name = 'é' WHERE id = 1")).server(done("UPDATE 1"), ready())
    assert d.got() == ["FLUSH "]


def test_prepared_text_that_a_new_encoding_makes_ambiguous_flushes():
    d = Dialogue()
    text = "SELECT 1; PREPARE p AS UPDATE users SET name = 'é' WHERE id = $1"
    d.client(q(text)).server(done("SELECT 1"), done("PREPARE"), ready())
    d.client(q("SET client_encoding = 'SJIS'"))
    d.server(done("SET"), backend.ParameterStatus(b"client_encoding", b"SJIS"), ready())
    d.client(q("EXECUTE p (1)")).server(done("UPDATE 1"), ready())
    assert d.got() == ["FLUSH "]
    assert not d.session.blinded


def setting(name, value):
    """What a client and the server say when it sets a parameter."""
    return (q(f"SET {name} = '{value}'"),), (
        done("SET"),
        backend.ParameterStatus(name.encode(), value.encode()),
        ready(),
    )


def prepared_by_parse(d, text):
    d.client(frontend.Parse(b"s", text), SYNC).server(PARSED, ready())


def prepared_by_sql(d, text):
    d.client(frontend.Query(b"PREPARE s AS " + text)).server(done("PREPARE"), ready())


def prepared_by_portal(d, text):
    d.client(frontend.Parse(b"", b"PREPARE s AS " + text), frontend.Bind(b"", b""), frontend.Execute(b""), SYNC)
    d.server(PARSED, BOUND, done("PREPARE"), ready())


@pytest.mark.parametrize("prepare", [prepared_by_parse, prepared_by_sql, prepared_by_portal])
@pytest.mark.parametrize(
    ("name", "values", "text", "stored"),
    [
        ("client_encoding", ("UTF8", "LATIN1"), b"'\xc3\xa9'", "é"),
        ("standard_conforming_strings", ("on", "off"), rb"'a\\b'", r"a\\b"),
    ],
)
def test_prepared_text_is_unknown_while_texts_are_read_otherwise_than_it_was(prepare, name, values, text, stored):
    d = Dialogue()
    prepare(d, b"UPDATE users SET name = " + text + b" WHERE id = 1")
    for value, made in zip(values, (f"STORE users:1={stored}", "FLUSH "), strict=True):
        sent, answered = setting(name, value)
        d.client(*sent).server(*answered)
        if prepare is prepared_by_parse:
            d.client(frontend.Bind(b"", b"s"), frontend.Execute(b""), SYNC).server(BOUND, done("UPDATE 1"), ready())
        else:
            d.client(q("EXECUTE s")).server(done("UPDATE 1"), ready())
        assert d.got() == [made]
        d.learn()


def test_prepared_text_without_backslash_in_ascii_is_known_whatever_is_set():
    d = Dialogue()
    prepared_by_parse(d, UPDATE)
    for name, value in (("client_encoding", "SJIS"), ("standard_conforming_strings", "off")):
        sent, answered = setting(name, value)
        d.client(*sent).server(*answered)
    d.client(frontend.Bind(b"", b"s"), frontend.Execute(b""), SYNC).server(BOUND, done("UPDATE 1"), ready())
    assert d.got() == ["STORE users:1=a"]


def test_text_that_is_parsed_behind_a_setting_in_the_same_pipeline_is_unknown():
    d = Dialogue()
    run = (frontend.Bind(b"", b""), frontend.Execute(b""))
    d.client(frontend.Parse(b"", b"SET standard_conforming_strings = off"), *run)
    d.client(frontend.Parse(b"", rb"UPDATE users SET name = 'a\\b' WHERE id = 1"), *run, SYNC)
    d.server(PARSED, BOUND, done("SET"), PARSED, BOUND, done("UPDATE 1"))
    d.server(backend.ParameterStatus(b"standard_conforming_strings", b"off"), ready())
    assert d.got() == ["FLUSH "]


def test_unnamed_statement_the_fast_path_has_parsed_is_unknown_after_its_encoding_changed():
    d = Dialogue()
    text = "SELECT id, name FROM users WHERE name = 'é'".encode()
    answers = (*rows((1, b"ann")), done("SELECT 1"), ready())
    run = (frontend.Bind(b"", b""), frontend.Describe(codes.PORTAL, b""), frontend.Execute(b""), SYNC)
    d.client(frontend.Parse(b"", text), *run).server(PARSED, BOUND, *answers)
    assert d.got() == ["FILL users:1=ann"]
    d.client(frontend.Parse(b"x", b"SET client_encoding = LATIN1"), frontend.Bind(b"x", b"x"), frontend.Execute(b"x"))
    d.client(SYNC).server(PARSED, BOUND, done("SET"), backend.ParameterStatus(b"client_encoding", b"LATIN1"), ready())
    d.client(*run).server(BOUND, *answers)
    assert d.got() == ["FLUSH "]


def test_views_are_made_again_when_settings_or_the_catalog_change():
    d = Dialogue()
    objects = d.session._objects
    views = objects.views
    assert objects.views is views
    d.client(q("SET search_path = x")).server(done("SET"), backend.ParameterStatus(b"search_path", b"x"), ready())
    changed = objects.views
    assert changed is not views
    d.database.configure(d.database.rules)
    assert objects.views is not changed


# Descriptions and what they speak for

UNSEEN = q("SELECT unknown_function()")


def described(d, text, name=b"s", status="I"):
    """Parse and Describe of a prepared statement."""
    d.client(frontend.Parse(name, text), frontend.Describe(codes.PREPARED_STATEMENT, name), SYNC)
    d.server(PARSED, backend.ParameterDescription(()), backend.RowDescription(FIELDS), ready(status))


def run(d, *between, name=b"s", status="I", tag="SELECT 1"):
    """Bind, what ``between`` are, and Execute; the answer is one row without a description."""
    d.client(frontend.Bind(b"", name), *between, frontend.Execute(b""), SYNC)
    answers = [backend.RowDescription(FIELDS) for one in between if isinstance(one, frontend.Describe)]
    d.server(BOUND, *answers, backend.DataRow([b"1", b"ann"]), done(tag), ready(status))
    return d.got()


READ = b"SELECT id, name FROM users"


def test_row_fills_by_the_description_of_its_statement_until_names_may_mean_something_else():
    d = Dialogue()
    described(d, READ)
    assert run(d) == ["FILL users:1=ann"]
    d.client(q("SET search_path = a, public")).server(done("SET"), ready())
    assert run(d) == []
    described(d, READ)
    assert run(d) == ["FILL users:1=ann"]


def test_row_fills_by_the_description_of_its_portal_whatever_names_mean():
    d = Dialogue()
    described(d, READ)
    d.client(q("SET search_path = a, public")).server(done("SET"), ready())
    assert run(d, frontend.Describe(codes.PORTAL, b"")) == ["FILL users:1=ann"]


@pytest.mark.parametrize("portal", [b"", b"p"])
def test_row_does_not_fill_by_a_statement_that_unseen_code_may_have_replaced(portal):
    d = Dialogue()
    described(d, READ)
    d.client(UNSEEN).server(*rows((1, b"x")), done("SELECT 1"), ready())
    bind = frontend.Bind(portal, b"s"), frontend.Describe(codes.PORTAL, portal), frontend.Execute(portal)
    d.client(*bind, SYNC).server(BOUND, *rows((1, b"ann")), done("SELECT 1"), ready())
    assert d.got() == []


@pytest.mark.parametrize("unseen", [UNSEEN, frontend.FunctionCall(1, (), [], 0)])
def test_row_of_a_cursor_declared_before_unseen_code_does_not_fill(unseen):
    d = begun()
    d.client(q("DECLARE c CURSOR FOR SELECT id, name FROM users")).server(done("DECLARE CURSOR"), ready("T"))
    call = isinstance(unseen, frontend.FunctionCall)
    d.client(unseen).server(backend.FunctionCallResponse(b"1") if call else done("SELECT 0"), ready("T"))
    d.client(q("FETCH 1 FROM c")).server(*rows((1, b"ann")), done("FETCH 1"), ready("T"))
    assert d.got() == []


def test_row_fetched_by_a_description_fills_while_the_cursor_is_the_same_one():
    d = begun()
    declare = q("DECLARE c CURSOR FOR SELECT id, name FROM users")
    d.client(declare).server(done("DECLARE CURSOR"), ready("T"))
    described(d, b"FETCH 1 FROM c", status="T")
    assert run(d, status="T", tag="FETCH 1") == ["FILL users:1=ann"]
    d.client(q("CLOSE c")).server(done("CLOSE CURSOR"), ready("T"))
    d.client(declare).server(done("DECLARE CURSOR"), ready("T"))
    assert run(d, status="T", tag="FETCH 1") == []
    assert run(d, frontend.Describe(codes.PORTAL, b""), status="T", tag="FETCH 1") == ["FILL users:1=ann"]


def test_row_of_execute_fills_by_a_description_while_the_statement_is_the_same_one():
    d = Dialogue()
    prepare = q("PREPARE p AS SELECT id, name FROM users")
    d.client(prepare).server(done("PREPARE"), ready())
    described(d, b"EXECUTE p")
    assert run(d) == ["FILL users:1=ann"]
    d.client(q("DEALLOCATE p")).server(done("DEALLOCATE"), ready())
    d.client(prepare).server(done("PREPARE"), ready())
    assert run(d) == []
    d.client(q("SET role = a")).server(done("SET"), ready())
    described(d, b"EXECUTE p")
    assert run(d) == [], "p was analysed under another role"


def test_failed_code_that_cannot_be_seen_makes_names_uncertain():
    for request in (q("DO $$ x $$"), q("EXECUTE p"), frontend.Execute(b"c")):
        d = begun()
        d.client(q("PREPARE p AS SELECT unknown_function()")).server(done("PREPARE"), ready("T"))
        d.client(frontend.Parse(b"", b"SELECT unknown_function()"), frontend.Bind(b"c", b""), SYNC)
        d.server(PARSED, BOUND, ready("T"))
        d.client(request, *([SYNC] if isinstance(request, frontend.Execute) else [])).server(error(), ready("E"))
        d.client(q("ROLLBACK")).server(done("ROLLBACK"), ready())
        d.client(q(UPDATE.decode())).server(done("UPDATE 1"), ready())
        assert d.got() == ["EVICT users:1"]


@pytest.mark.parametrize("request_", [q("SELECT 1/0"), q(""), frontend.Execute(b"missing"), q("FETCH missing")])
def test_other_errors_leave_names_certain(request_):
    d = Dialogue()
    d.client(request_, *([SYNC] if isinstance(request_, frontend.Execute) else [])).server(error(), ready())
    d.client(q(UPDATE.decode())).server(done("UPDATE 1"), ready())
    assert d.got() == ["STORE users:1=a"]


def test_row_does_not_fill_by_a_description_from_before_discard_temp_or_drop():
    for text, tag in ((b"DISCARD TEMP", "DISCARD TEMP"), (b"DROP TABLE users", "DROP TABLE")):
        d = Dialogue()
        described(d, READ)
        d.client(q(text.decode())).server(done(tag), ready())
        d.got()
        assert run(d) == []


def test_row_does_not_fill_where_bind_was_too_long_to_be_looked_at():
    d = Dialogue()
    described(d, READ)
    assert run(d, name=b"s") == ["FILL users:1=ann"]
    d.client(frontend.Bind(b"p", b"s", (), [bytes(300_000)]), frontend.Execute(b"p"), SYNC)
    d.server(BOUND, backend.DataRow([b"1", b"ann"]), done("SELECT 1"), ready())
    assert d.got() == []
