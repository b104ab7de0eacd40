"""Each statement that finishes on a configured table is counted under exactly one reason, once for each execution, in
whichever mode it was sent: /metrics is read before and after."""

import re
from collections import Counter

import pytest

from protocol import codes, frontend
from tests.e2e.deployment import deploy
from tests.e2e.statement_client import SEND_MODES, int4, text

SCHEMA = """
    CREATE TABLE users (id int PRIMARY KEY, name text, note text);
    CREATE TABLE items (id int PRIMARY KEY, label text);
    CREATE TABLE plain (id int PRIMARY KEY, name text);
    CREATE FUNCTION touch(int) RETURNS int VOLATILE LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
"""
CONTENT = """
    TRUNCATE users, items, plain;
    INSERT INTO users VALUES (1, 'Ada', 'a'), (2, 'Grace', 'b'), (3, 'Edsger', 'c');
    INSERT INTO items VALUES (1, 'pen'), (2, 'ink');
    INSERT INTO plain VALUES (1, 'x');
"""
RULES = [
    {"name": "users", "key": "id", "value": "name"},
    {"name": "items", "key": "id", "value": "label"},
]
USERS, ITEMS = "users", "items"
STATEMENTS = [
    ("fill", "SELECT id, name FROM users"),
    ("fill", "SELECT * FROM users WHERE note <> $1", text("b")),
    ("fill-fixed-key", "SELECT name FROM users WHERE id = $1", int4(1)),
    ("fill-fixed-key", "SELECT name FROM users WHERE id = $1", int4(999)),
    ("self-join", "SELECT a.id, b.name FROM users a JOIN users b ON a.id < b.id"),
    ("set-operation", "SELECT id, name FROM users UNION SELECT id, name FROM plain"),
    ("grouping-sets", "SELECT id, name FROM users GROUP BY ROLLUP (id, name)"),
    ("outer-join", "SELECT users.name FROM plain LEFT JOIN users ON true WHERE users.id = 1"),
    ("not-shown", "SELECT id FROM plain WHERE id IN (SELECT id FROM users)"),
    ("read-with-write", "WITH w AS (UPDATE plain SET name = 'y' RETURNING id) SELECT u.id, u.name FROM users u, w"),
    ("not-run", "EXPLAIN SELECT id, name FROM users"),
    ("store", "UPDATE users SET name = $2 WHERE id = $1", int4(1), text("Ada K.")),
    ("store", "UPDATE users SET name = $2 WHERE id = $1", int4(999), text("no row")),
    ("store", "INSERT INTO users (id, name) VALUES ($1, $2)", int4(4), text("Barbara")),
    ("store-returning", "UPDATE users SET name = upper(name) WHERE note = 'b' RETURNING id, name"),
    ("evict-delete", "DELETE FROM users WHERE id = $1", int4(3)),
    ("evict-expression", "UPDATE users SET name = name || '!' WHERE id = $1", int4(1)),
    ("evict-upsert", "INSERT INTO users (id, name) VALUES (1, 'A') ON CONFLICT (id) DO UPDATE SET name = 'B'"),
    ("evict-key-change", "UPDATE users SET id = 9 WHERE id = 1"),
    ("flush-unknown-key", "UPDATE users SET name = 'x' WHERE note = $1", text("a")),
    ("flush-unknown-key", "DELETE FROM users WHERE note = 'no such note'"),
    ("flush-truncate", "TRUNCATE users"),
    ("nothing-untouched", "UPDATE users SET note = $2 WHERE id = $1", int4(1), text("z")),
    ("nothing-insert", "INSERT INTO users (id, name) SELECT 7, 'Alan'"),
    # Last: what its function did is not known, so names are uncertain from here on.
    ("volatile-function", "SELECT id, name, touch(id) FROM users"),
    ("evict-uncertain-name", "UPDATE users SET name = $2 WHERE id = $1", int4(1), text("Ada L.")),
]
UNRELATED = ["SELECT id, name FROM plain", "INSERT INTO plain VALUES (2, 'y')", "SELECT 1", "BEGIN", "SHOW search_path"]
_SAMPLE = re.compile(r"^rowtap_statements_total\{(.*)\} ([0-9.e+]+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def running(postgres, valkey, tmp_path_factory):
    directory = tmp_path_factory.mktemp("reasons")
    with deploy(postgres, valkey, directory, schema=SCHEMA, rules=RULES, content=CONTENT) as found:
        yield found


@pytest.fixture
def session(running):
    running.reset(warm=False)
    found = running.connect()
    yield found
    found.close()


@pytest.fixture
def counted(running, session):
    """`counted()`: what was counted since the last call or the beginning of the test, by table name and reason."""
    before = read(running)

    def difference():
        nonlocal before
        after = read(running)
        since, before = after - before, after
        return dict(since)

    return difference


def read(running):
    running.settle()
    status, metrics = running.proxy.get("/metrics")
    assert status == 200
    found: Counter[tuple[str, str]] = Counter()
    for labels, value in _SAMPLE.findall(metrics):
        pairs = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        found[pairs["table"].rpartition(".")[2], pairs["reason"]] += round(float(value))
    return found


def check_success(answer):
    """The answer, which must have no errors."""
    assert not answer.errors, answer
    return answer


@pytest.mark.parametrize("mode", SEND_MODES)
def test_statement_counts_once_under_its_reason(running, session, counted, mode):
    found = []
    for _, sql, *arguments in STATEMENTS:
        running.direct.simple(CONTENT)
        check_success(getattr(session, mode)(sql, *arguments))
        found.append((counted(), sql))
    assert found == [({(USERS, reason): 1}, sql) for reason, sql, *_ in STATEMENTS]


@pytest.mark.parametrize("mode", SEND_MODES)
def test_statement_on_other_tables_counts_nowhere(session, counted, mode):
    for sql in UNRELATED:
        check_success(getattr(session, mode)(sql))
    assert counted() == {}


def test_do_block_counts_as_opaque(session, counted):
    check_success(session.simple("DO $$ BEGIN UPDATE users SET name = 'x'; END $$"))
    assert counted() == {(USERS, "opaque"): 1}


@pytest.mark.parametrize("mode", SEND_MODES)
def test_join_of_two_tables_counts_once_for_each(session, counted, mode):
    check_success(getattr(session, mode)("SELECT u.id, u.name, i.id, i.label FROM users u JOIN items i ON i.id = u.id"))
    assert counted() == {(USERS, "fill"): 1, (ITEMS, "fill"): 1}


def test_each_statement_of_a_multi_statement_query_counts(session, counted):
    check_success(
        session.simple("SELECT id, name FROM users; UPDATE users SET name = 'x' WHERE id = 1; SELECT label FROM items")
    )
    assert counted() == {(USERS, "fill"): 1, (USERS, "store"): 1, (ITEMS, "fill"): 1}


def test_each_execution_of_a_prepared_statement_counts(session, counted):
    sql = b"SELECT name FROM users WHERE id = $1"
    session.send(frontend.Parse(b"p", sql), frontend.Describe(codes.PREPARED_STATEMENT, b"p"), frontend.SYNC_FRAME)
    check_success(session.answer())
    assert counted() == {}
    for key in (b"1", b"2", b"1", b"7"):
        session.send(frontend.Bind(b"", b"p", (), [key]), frontend.Execute(b"", 0), frontend.SYNC_FRAME)
        check_success(session.answer())
    assert counted() == {(USERS, "fill-fixed-key"): 4}
    execution = [frontend.Bind(b"", b"p", (), [b"1"]), frontend.Execute(b"", 0)]
    session.send(*execution * 3, frontend.SYNC_FRAME)
    assert check_success(session.answer()).tags == ["SELECT 1"] * 3
    assert counted() == {(USERS, "fill-fixed-key"): 3}


def test_each_sql_execute_counts(session, counted):
    check_success(session.simple("PREPARE p (int) AS UPDATE users SET name = 'x' WHERE id = $1"))
    assert counted() == {}
    check_success(session.simple("EXECUTE p (1)"))
    check_success(session.simple("EXECUTE p (2); EXECUTE p (3)"))
    assert counted() == {(USERS, "store"): 3}


@pytest.mark.parametrize("mode", SEND_MODES)
def test_repeated_statement_counts_each_time(session, counted, mode):
    for _ in range(5):
        check_success(getattr(session, mode)("SELECT id, name FROM users"))
        check_success(getattr(session, mode)("UPDATE users SET name = $2 WHERE id = $1", int4(1), text("x")))
    assert counted() == {(USERS, "fill"): 5, (USERS, "store"): 5}


@pytest.mark.parametrize("mode", SEND_MODES)
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT id, name FROM users WHERE 1 / (id - id) = 1",
        "SELECT nothing FROM users",
        "UPDATE users SET name = 'x' WHERE id = 1 AND 1 / (id - id) = 1",
        "INSERT INTO users (id, name) VALUES (1, 'taken')",
    ],
)
def test_failed_statement_counts_nowhere(session, counted, mode, sql):
    assert getattr(session, mode)(sql).errors
    assert counted() == {}


def test_statement_in_a_block_counts_even_if_rolled_back(session, counted):
    check_success(session.simple("BEGIN"))
    check_success(session.text("SELECT id, name FROM users"))
    check_success(session.prepared("UPDATE users SET name = 'x' WHERE id = 1"))
    check_success(session.text("SELECT id, name FROM users"))
    assert counted() == {(USERS, "fill"): 2, (USERS, "store"): 1}
    check_success(session.simple("ROLLBACK"))
    assert counted() == {}


def test_statements_before_the_error_in_a_block_count(session, counted):
    check_success(session.simple("BEGIN; UPDATE users SET name = 'x' WHERE id = 1"))
    assert session.simple("SELECT nothing FROM users").errors
    assert session.simple("SELECT id, name FROM users").errors == ["25P02"]
    check_success(session.simple("COMMIT"))
    assert counted() == {(USERS, "store"): 1}


def test_statements_before_the_error_in_a_pipeline_count(session, counted):
    answer = session.together(
        ("SELECT id, name FROM users",),
        ("UPDATE users SET name = 'x' WHERE id = 1",),
        ("SELECT nothing FROM users",),
        ("SELECT count(*) FROM users",),
    )
    assert answer.errors == ["42703"]
    assert counted() == {(USERS, "fill"): 1, (USERS, "store"): 1}


def test_portal_executed_twice_counts_once(session, counted):
    parts = [frontend.Parse(b"", b"SELECT id, name FROM users"), frontend.Bind(b"", b"", (), [])]
    session.send(*parts, *[frontend.Execute(b"", 2)] * 2, frontend.SYNC_FRAME)
    assert check_success(session.answer()).tags == ["SELECT 1"]
    assert counted() == {(USERS, "fill"): 1}


def test_each_fetch_from_a_cursor_counts(session, counted):
    check_success(session.simple("BEGIN; DECLARE c CURSOR FOR SELECT id, name FROM users"))
    assert counted() == {}
    check_success(session.simple("FETCH 1 FROM c"))
    check_success(session.text("FETCH ALL FROM c"))
    assert counted() == {(USERS, "fill"): 2}
    check_success(session.simple("CLOSE c; COMMIT"))
    assert counted() == {}
