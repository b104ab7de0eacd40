"""Statements that name other statements or cursors, or that are no queries: PREPARE and EXECUTE, DECLARE and FETCH,
portals fetched in pieces, WHERE CURRENT OF, COPY, code blocks, definitions, and text nobody can read."""

import pytest

from protocol import codes, frontend
from tests.e2e import deployment as scene
from tests.e2e.statement_client import WAYS, extended
from tests.e2e.tables import CONTENT, EVERY, RULES, SCHEMA, keys


@pytest.fixture(scope="module")
def running(postgres, valkey, tmp_path_factory):
    directory = tmp_path_factory.mktemp("commands")
    with scene.scene(postgres, valkey, directory, schema=SCHEMA, rules=RULES, content=CONTENT) as found:
        yield found


@pytest.fixture
def cold(running):
    running.reset(warm=False)
    return running


@pytest.fixture
def warm(running):
    running.reset(warm=True)
    return running


@pytest.fixture
def session(running):
    """One of its own for each test: a code block may have changed what names mean in a session, so doubt stays."""
    found = running.connect()
    yield found
    found.close()


def run(session, *statements, way="simple"):
    for sql in statements:
        answer = getattr(session, way)(sql)
        assert not answer.errors, (sql, answer)
    return answer


def after(gone, new=""):
    return (EVERY - keys(gone)) | keys(new)


# -- PREPARE and EXECUTE


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("prepare", "execute", "fills"),
    [
        ("PREPARE p AS SELECT id, name FROM users", "EXECUTE p", "users:*"),
        ("PREPARE p (int) AS SELECT name FROM users WHERE id = $1", "EXECUTE p (2)", "users:2"),
        ("PREPARE p AS SELECT name FROM users WHERE id = $1", "EXECUTE p ('2')", "users:2"),
        ("PREPARE p (int) AS SELECT name FROM users WHERE id = $1 OR id = 1", "EXECUTE p (2)", ""),
    ],
)
def test_prepared_reads(cold, session, way, prepare, execute, fills):
    run(session, prepare, execute, "DEALLOCATE p", way=way)
    assert cold.settled() == keys(fills)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("prepare", "execute", "gone"),
    [
        ("PREPARE p (text, int) AS UPDATE users SET name = $1 WHERE id = $2", "EXECUTE p ('Eve', 1)", ""),
        ("PREPARE p AS UPDATE users SET name = $1 WHERE id = $2", "EXECUTE p ('O''E', 1)", ""),
        ("PREPARE p (text) AS UPDATE users SET name = $1 WHERE id = 1", "EXECUTE p (upper('x'))", "users:1"),
        ("PREPARE p (int) AS UPDATE users SET name = 'x' WHERE id = $1", "EXECUTE p (1 + 0)", "users:*"),
        ("PREPARE p (int) AS UPDATE users SET name = name || 'x' WHERE id = $1", "EXECUTE p (3)", "users:3"),
        ("PREPARE p (int) AS DELETE FROM users WHERE id = $1", "EXECUTE p (3)", "users:3"),
        ("PREPARE p AS DELETE FROM users", "EXECUTE p", "users:*"),
    ],
)
def test_prepared_writes(warm, session, way, prepare, execute, gone):
    run(session, prepare, execute, "DEALLOCATE ALL", way=way)
    assert warm.settled() == after(gone)


def test_a_name_that_is_used_again(warm, session):
    run(session, "PREPARE p AS UPDATE users SET name = 'first' WHERE id = 1", "DEALLOCATE p")
    run(session, "PREPARE p AS DELETE FROM users WHERE id = 2", "EXECUTE p", "DEALLOCATE p")
    assert warm.settled() == after("users:2")


def test_a_statement_prepared_in_one_way_and_run_in_the_other(warm, session):
    run(session, "PREPARE mixed (text, int) AS UPDATE users SET name = $1 WHERE id = $2")
    session.send(frontend.Bind(b"", b"mixed", (), [b"bound", b"1"]), frontend.Execute(b"", 0), frontend.SYNC_FRAME)
    assert not session.answer().errors
    assert warm.settled() == EVERY
    session.send(frontend.Parse(b"other", b"UPDATE users SET name = $1 WHERE id = $2"), frontend.SYNC_FRAME)
    assert not session.answer().errors
    run(session, "EXECUTE other ('executed', 2)", "DEALLOCATE ALL")
    assert warm.settled() >= after("users:2")


# -- cursors


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["", "SCROLL", "NO SCROLL", "BINARY", "INSENSITIVE", "ASENSITIVE"])
def test_cursors(cold, session, way, kind):
    run(session, "BEGIN", f"DECLARE c {kind} CURSOR FOR SELECT id, name FROM users ORDER BY id", way=way)
    run(session, "FETCH c", way=way)
    assert cold.settled() == {"users:1"}
    run(session, "MOVE c", "FETCH NEXT FROM c", "CLOSE c", "COMMIT", way=way)
    assert cold.settled() == {"users:1", "users:3"}


def test_a_cursor_that_reads_again_what_is_its_snapshot(warm, session):
    other = warm.connect()
    run(session, "BEGIN", "DECLARE c SCROLL CURSOR FOR SELECT id, name FROM users ORDER BY id", "FETCH ALL c")
    run(other, "UPDATE users SET name = 'newer' WHERE id = 1", "DELETE FROM users WHERE id = 2")
    warm.settled()
    run(session, "FETCH ABSOLUTE 1 FROM c", "FETCH FORWARD ALL FROM c", "COMMIT")
    assert warm.settled() == after("users:2")


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_a_portal_in_pieces(cold, session, rows):
    bind = (frontend.Parse(b"", b"SELECT id, name FROM users ORDER BY id"), frontend.Bind(b"", b""))
    execute = frontend.Execute(b"", rows)
    session.send(*bind, frontend.Describe(codes.PORTAL, b""), execute, execute, frontend.SYNC_FRAME)
    answer = session.answer()
    assert len(answer.rows) == min(3, 2 * rows)
    assert cold.settled() == {f"users:{n + 1}" for n in range(len(answer.rows))}


def test_a_suspended_write_with_returning(warm, session):
    """The rows are written at the first Execute, however few are fetched."""
    bind = (frontend.Parse(b"", b"UPDATE users SET name = name || '!' RETURNING id, name"), frontend.Bind(b"", b""))
    session.send(*bind, frontend.Describe(codes.PORTAL, b""), frontend.Execute(b"", 1), frontend.SYNC_FRAME)
    assert len(session.answer().rows) == 1
    assert warm.settled() >= EVERY - keys("users:*")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "sql", ["UPDATE users SET name = 'x' WHERE CURRENT OF c", "DELETE FROM users WHERE CURRENT OF c"]
)
def test_where_current_of(warm, session, way, sql):
    run(session, "BEGIN", "DECLARE c CURSOR FOR SELECT * FROM users FOR UPDATE", "FETCH c", way=way)
    run(session, sql, "COMMIT", way=way)
    assert warm.settled() == after("users:*")


# -- COPY


def test_copy_in(warm, session):
    answer = session.simple("COPY users (id, name) FROM STDIN", copy=b"7\tGus\n8\t\\N\n")
    assert not answer.errors
    assert warm.settled() == EVERY


def test_copy_in_that_fails(warm, session):
    answer = session.simple("COPY users (id, name) FROM STDIN", copy=b"7\tGus\n1\tagain\n")
    assert answer.errors == ["23505"]
    assert warm.settled() == EVERY


def test_copy_out(cold, session):
    for sql in ("COPY users TO STDOUT", "COPY (SELECT id, name FROM users) TO STDOUT (FORMAT csv)"):
        run(session, sql)
    assert cold.settled() == set()


def test_copy_of_a_write(warm, session):
    run(session, "COPY (UPDATE users SET name = name || '!' RETURNING id, name) TO STDOUT")
    assert warm.settled() == after("users:*")


# -- code, definitions, odd text


OTHERS = [
    "ALTER TABLE users ADD COLUMN more int; ALTER TABLE users DROP COLUMN more",
    "TRUNCATE users, codes",
    "CREATE RULE r AS ON DELETE TO users DO ALSO NOTHING; DROP RULE r ON users",
    "CREATE INDEX CONCURRENTLY ON users (age)",
    "VACUUM FULL users",
    "CLUSTER users USING users_pkey",
    "LOCK TABLE users",
    "REINDEX TABLE users",
    "COMMENT ON TABLE users IS 'people'",
    "GRANT SELECT ON users TO PUBLIC",
    "CALL nothing()",
    "DO $$BEGIN NULL; END$$",
    "EXPLAIN ANALYZE UPDATE users SET name = 'explained' WHERE id = 1",
    "EXPLAIN UPDATE users SET name = 'explained' WHERE id = 1",
    "NOTIFY users",
    ";;UPDATE users SET name = 'x' WHERE id = 1; ;",
    "/* UPDATE users */ SELECT 'UPDATE users SET name = ''x''' -- DELETE FROM users\n",
    "UPDATE users SET name = 'x' WHERE id = 1 /* /* nested */ OR true */",
    "((SELECT id, name FROM users))",
    "WITH RECURSIVE r AS (VALUES (1) UNION ALL TABLE r) UPDATE users SET name = 'r' WHERE id IN (TABLE r LIMIT 1)",
    "SELECT * FROM users AS u (id, name) CROSS JOIN notes FOR NO KEY UPDATE OF u",
    "UPDATE users SET name[1] = 'x' WHERE false",
]


@pytest.mark.parametrize(
    ("way", "sql"), [(way, sql) for sql in OTHERS for way in WAYS if way == "simple" or "; " not in sql]
)
def test_other_statements(warm, session, way, sql):
    """Whatever they do, no key may be stale afterwards; and other tables' keys stay."""
    getattr(session, way)(sql)
    assert warm.settled() >= EVERY - keys("users:* codes:*")
    run(session, "SELECT * FROM users")
    warm.settled()


def test_a_statement_of_a_megabyte(warm, session):
    padding = "x" * 1_000_000
    assert not session.simple(f"UPDATE users SET name = '{padding}' WHERE id = 1").errors
    assert "users:1" not in warm.settled() or warm.redis.strlen("users:1") == len(padding)
    answer = session.simple(f"UPDATE users SET name = 'x' /* {padding} */ WHERE id = 2")
    assert not answer.errors
    warm.settled()


def test_a_list_of_ten_thousand(warm, session):
    numbers = ", ".join(str(n) for n in range(2, 10_002))
    assert not session.simple(f"UPDATE users SET name = 'listed' WHERE id IN ({numbers})").errors
    present = warm.settled()
    assert "users:1" in present or not present & keys("users:*")
    assert not session.simple(f"SELECT id, name FROM users WHERE id IN ({numbers})").errors
    warm.settled()


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE users SET name = 'unbalanced WHERE id = 1",
        "UPDATE users SET \"name = 'x' WHERE id = 1",
        "UPDATE users SET name = $a$x$b$ WHERE id = 1",
        "UPDATE users SET name = " + "(" * 3000 + "'x'" + ")" * 3000 + " WHERE id = 1",
        "SELECT " + "(" * 3000 + "1" + ")" * 3000 + " FROM users",
        "SELECT id, name FROM users WHERE " + " AND ".join(["id > 0"] * 3000),
        "SELECT " + "NOT " * 5000 + "true",
        "\0",
    ],
)
def test_hostile_text(warm, session, sql):
    if sql == "\0":
        session.send(b"Q" + (7).to_bytes(4, "big") + b"\xff'\0", extended("SELECT 1", ()), frontend.SYNC_FRAME)
        session.answer(2)
    else:
        session.simple(sql)
    assert session.simple("SELECT 1").rows == [[b"1"]]
    assert warm.settled() >= EVERY - keys("users:*")
