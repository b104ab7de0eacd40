"""Statements that name prepared statements or cursors, or that are not queries: PREPARE and EXECUTE, DECLARE and FETCH,
portals fetched in several parts, WHERE CURRENT OF, COPY, DO blocks, DDL, and text that cannot be read."""

import pytest

from protocol import codes, frontend
from tests.e2e.deployment import deploy
from tests.e2e.statement_client import SEND_MODES, extended
from tests.e2e.tables import ALL_KEYS, CONTENT, RULES, SCHEMA, keys


@pytest.fixture(scope="module")
def running(postgres, valkey, tmp_path_factory):
    directory = tmp_path_factory.mktemp("commands")
    with deploy(postgres, valkey, directory, schema=SCHEMA, rules=RULES, content=CONTENT) as found:
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
    """A session for one test: after a DO block, what names mean in the session is uncertain, and stays so."""
    found = running.connect()
    yield found
    found.close()


def run(session, *statements, mode="simple"):
    for sql in statements:
        answer = getattr(session, mode)(sql)
        assert not answer.errors, (sql, answer)
    return answer


def keys_after(gone, new=""):
    return (ALL_KEYS - keys(gone)) | keys(new)


# -- PREPARE and EXECUTE


@pytest.mark.parametrize("mode", SEND_MODES)
@pytest.mark.parametrize(
    ("prepare", "execute", "fills"),
    [
        ("PREPARE p AS SELECT id, name FROM users", "EXECUTE p", "users:*"),
        ("PREPARE p (int) AS SELECT name FROM users WHERE id = $1", "EXECUTE p (2)", "users:2"),
        ("PREPARE p AS SELECT name FROM users WHERE id = $1", "EXECUTE p ('2')", "users:2"),
        ("PREPARE p (int) AS SELECT name FROM users WHERE id = $1 OR id = 1", "EXECUTE p (2)", ""),
    ],
)
def test_sql_execute_of_a_select_fills(cold, session, mode, prepare, execute, fills):
    run(session, prepare, execute, "DEALLOCATE p", mode=mode)
    assert cold.settle_and_check() == keys(fills)


@pytest.mark.parametrize("mode", SEND_MODES)
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
def test_sql_execute_of_a_write_removes_only_the_keys_it_must(warm, session, mode, prepare, execute, gone):
    run(session, prepare, execute, "DEALLOCATE ALL", mode=mode)
    assert warm.settle_and_check() == keys_after(gone)


def test_reused_prepared_name_means_the_new_statement(warm, session):
    run(session, "PREPARE p AS UPDATE users SET name = 'first' WHERE id = 1", "DEALLOCATE p")
    run(session, "PREPARE p AS DELETE FROM users WHERE id = 2", "EXECUTE p", "DEALLOCATE p")
    assert warm.settle_and_check() == keys_after("users:2")


def test_statement_prepared_by_sql_can_be_executed_by_protocol_and_vice_versa(warm, session):
    run(session, "PREPARE mixed (text, int) AS UPDATE users SET name = $1 WHERE id = $2")
    session.send(frontend.Bind(b"", b"mixed", (), [b"bound", b"1"]), frontend.Execute(b"", 0), frontend.SYNC_FRAME)
    assert not session.answer().errors
    assert warm.settle_and_check() == ALL_KEYS
    session.send(frontend.Parse(b"other", b"UPDATE users SET name = $1 WHERE id = $2"), frontend.SYNC_FRAME)
    assert not session.answer().errors
    run(session, "EXECUTE other ('executed', 2)", "DEALLOCATE ALL")
    assert warm.settle_and_check() >= keys_after("users:2")


# -- cursors


@pytest.mark.parametrize("mode", SEND_MODES)
@pytest.mark.parametrize("kind", ["", "SCROLL", "NO SCROLL", "BINARY", "INSENSITIVE", "ASENSITIVE"])
def test_rows_fetched_from_a_cursor_fill(cold, session, mode, kind):
    run(session, "BEGIN", f"DECLARE c {kind} CURSOR FOR SELECT id, name FROM users ORDER BY id", mode=mode)
    run(session, "FETCH c", mode=mode)
    assert cold.settle_and_check() == {"users:1"}
    run(session, "MOVE c", "FETCH NEXT FROM c", "CLOSE c", "COMMIT", mode=mode)
    assert cold.settle_and_check() == {"users:1", "users:3"}


def test_scroll_cursor_with_an_old_snapshot_does_not_fill_old_values(warm, session):
    other = warm.connect()
    run(session, "BEGIN", "DECLARE c SCROLL CURSOR FOR SELECT id, name FROM users ORDER BY id", "FETCH ALL c")
    run(other, "UPDATE users SET name = 'newer' WHERE id = 1", "DELETE FROM users WHERE id = 2")
    warm.settle_and_check()
    run(session, "FETCH ABSOLUTE 1 FROM c", "FETCH FORWARD ALL FROM c", "COMMIT")
    assert warm.settle_and_check() == keys_after("users:2")


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_rows_of_a_portal_executed_twice_fill(cold, session, rows):
    bind = (frontend.Parse(b"", b"SELECT id, name FROM users ORDER BY id"), frontend.Bind(b"", b""))
    execute = frontend.Execute(b"", rows)
    session.send(*bind, frontend.Describe(codes.PORTAL, b""), execute, execute, frontend.SYNC_FRAME)
    answer = session.answer()
    assert len(answer.rows) == min(3, 2 * rows)
    assert cold.settle_and_check() == {f"users:{n + 1}" for n in range(len(answer.rows))}


def test_suspended_update_with_returning_evicts_rows_not_fetched(warm, session):
    """The first Execute writes all rows, however few are fetched."""
    bind = (frontend.Parse(b"", b"UPDATE users SET name = name || '!' RETURNING id, name"), frontend.Bind(b"", b""))
    session.send(*bind, frontend.Describe(codes.PORTAL, b""), frontend.Execute(b"", 1), frontend.SYNC_FRAME)
    assert len(session.answer().rows) == 1
    assert warm.settle_and_check() >= ALL_KEYS - keys("users:*")


@pytest.mark.parametrize("mode", SEND_MODES)
@pytest.mark.parametrize(
    "sql", ["UPDATE users SET name = 'x' WHERE CURRENT OF c", "DELETE FROM users WHERE CURRENT OF c"]
)
def test_where_current_of_flushes_the_table(warm, session, mode, sql):
    run(session, "BEGIN", "DECLARE c CURSOR FOR SELECT * FROM users FOR UPDATE", "FETCH c", mode=mode)
    run(session, sql, "COMMIT", mode=mode)
    assert warm.settle_and_check() == keys_after("users:*")


# -- COPY


def test_copy_in_of_new_rows_keeps_all_keys(warm, session):
    answer = session.simple("COPY users (id, name) FROM STDIN", copy=b"7\tGus\n8\t\\N\n")
    assert not answer.errors
    assert warm.settle_and_check() == ALL_KEYS


def test_failed_copy_in_keeps_all_keys(warm, session):
    answer = session.simple("COPY users (id, name) FROM STDIN", copy=b"7\tGus\n1\tagain\n")
    assert answer.errors == ["23505"]
    assert warm.settle_and_check() == ALL_KEYS


def test_copy_out_fills_nothing(cold, session):
    for sql in ("COPY users TO STDOUT", "COPY (SELECT id, name FROM users) TO STDOUT (FORMAT csv)"):
        run(session, sql)
    assert cold.settle_and_check() == set()


def test_copy_of_an_update_flushes_the_table(warm, session):
    run(session, "COPY (UPDATE users SET name = name || '!' RETURNING id, name) TO STDOUT")
    assert warm.settle_and_check() == keys_after("users:*")


# -- DO blocks, DDL, unusual texts


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
    ("mode", "sql"), [(mode, sql) for sql in OTHERS for mode in SEND_MODES if mode == "simple" or "; " not in sql]
)
def test_other_statement_leaves_no_stale_key_and_keeps_other_tables_keys(warm, session, mode, sql):
    """No key is stale afterwards, and the keys of other tables are kept."""
    getattr(session, mode)(sql)
    assert warm.settle_and_check() >= ALL_KEYS - keys("users:* codes:*")
    run(session, "SELECT * FROM users")
    warm.settle_and_check()


def test_statement_of_a_megabyte_leaves_no_stale_key(warm, session):
    padding = "x" * 1_000_000
    assert not session.simple(f"UPDATE users SET name = '{padding}' WHERE id = 1").errors
    assert "users:1" not in warm.settle_and_check() or warm.redis.strlen("users:1") == len(padding)
    answer = session.simple(f"UPDATE users SET name = 'x' /* {padding} */ WHERE id = 2")
    assert not answer.errors
    warm.settle_and_check()


def test_in_list_of_ten_thousand_leaves_no_stale_key(warm, session):
    numbers = ", ".join(str(n) for n in range(2, 10_002))
    assert not session.simple(f"UPDATE users SET name = 'listed' WHERE id IN ({numbers})").errors
    present = warm.settle_and_check()
    assert "users:1" in present or not present & keys("users:*")
    assert not session.simple(f"SELECT id, name FROM users WHERE id IN ({numbers})").errors
    warm.settle_and_check()


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
def test_unreadable_text_leaves_no_stale_key(warm, session, sql):
    if sql == "\0":
        session.send(b"Q" + (7).to_bytes(4, "big") + b"\xff'\0", extended("SELECT 1", ()), frontend.SYNC_FRAME)
        session.answer(2)
    else:
        session.simple(sql)
    assert session.simple("SELECT 1").rows == [[b"1"]]
    assert warm.settle_and_check() >= ALL_KEYS - keys("users:*")
