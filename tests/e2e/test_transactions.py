"""When a change becomes true: blocks, savepoints, two-phase commit, errors at COMMIT, lost connections; and reads whose
snapshot is older than another session's write."""

import threading
import time

import pytest

from protocol import codes, frontend
from tests.e2e.deployment import deploy
from tests.e2e.statement_client import extended, int4, text

SCHEMA = """
    CREATE TABLE users (id int PRIMARY KEY, name text);
    CREATE TABLE unique_names (id int PRIMARY KEY, name text UNIQUE DEFERRABLE INITIALLY DEFERRED);
"""
CONTENT = """
    DELETE FROM users; INSERT INTO users VALUES (1, 'Ada'), (2, 'Ben'), (3, 'Cyd');
    DELETE FROM unique_names; INSERT INTO unique_names VALUES (1, 'one'), (2, 'two');
"""
RULES = [{"name": "users", "key": "id", "value": "name"}, {"name": "unique_names", "key": "id", "value": "name"}]
USERS = {"users:1", "users:2", "users:3"}
NAMES = {"unique_names:1", "unique_names:2"}
ALL_KEYS = USERS | NAMES


@pytest.fixture(scope="module")
def deployment(postgres, valkey, tmp_path_factory):
    directory = tmp_path_factory.mktemp("transactions")
    with deploy(postgres, valkey, directory, schema=SCHEMA, rules=RULES, content=CONTENT) as found:
        yield found


@pytest.fixture
def warm(deployment):
    """The deployment with every key present."""
    deployment.reset(warm=True)
    yield deployment
    deployment.direct.simple("ROLLBACK")


@pytest.fixture
def session(deployment):
    found = deployment.connect()
    yield found
    found.close()


@pytest.fixture
def other(deployment):
    found = deployment.connect()
    yield found
    found.close()


def run(session, *statements):
    for sql in statements:
        answer = session.simple(sql)
        assert not answer.errors, (sql, answer)
    return answer


# -- blocks


def test_changes_reach_redis_only_after_commit(warm, session):
    run(session, "BEGIN", "UPDATE users SET name = 'Eve' WHERE id = 1", "DELETE FROM users WHERE id = 2")
    assert warm.settle_and_check() == ALL_KEYS
    assert warm.redis.get("users:1") == b"Ada"
    run(session, "COMMIT")
    assert warm.settle_and_check() == ALL_KEYS - {"users:2"}
    assert warm.redis.get("users:1") == b"Eve"


def test_last_of_several_writes_of_a_row_is_stored(warm, session):
    run(session, "BEGIN", *(f"UPDATE users SET name = 'v{n}' WHERE id = 1" for n in range(5)), "COMMIT")
    assert warm.settle_and_check() == ALL_KEYS
    assert warm.redis.get("users:1") == b"v4"
    run(session, *(f"UPDATE users SET name = 'w{n}' WHERE id = 1" for n in range(5)))
    assert warm.settle_and_check() == ALL_KEYS
    assert warm.redis.get("users:1") == b"w4"


def test_commit_and_chain_applies_changes_and_begins_another_block(warm, session):
    run(session, "BEGIN", "UPDATE users SET name = 'first' WHERE id = 1", "COMMIT AND CHAIN")
    assert warm.settle_and_check() == ALL_KEYS
    run(session, "UPDATE users SET name = 'second' WHERE id = 1")
    assert warm.settle_and_check() == ALL_KEYS
    run(session, "ROLLBACK AND CHAIN", "UPDATE users SET name = 'third' WHERE id = 2", "COMMIT")
    assert warm.settle_and_check() == ALL_KEYS
    assert warm.redis.mget("users:1", "users:2") == [b"first", b"third"]


def test_nested_savepoints_with_equal_names_undo_only_what_follows(warm, session):
    run(
        session,
        "BEGIN",
        "UPDATE users SET name = 'outside' WHERE id = 1",
        "SAVEPOINT a",
        "UPDATE users SET name = 'in a' WHERE id = 2",
        "SAVEPOINT a",
        "UPDATE users SET name = 'in the second a' WHERE id = 3",
        "ROLLBACK TO a",
        "RELEASE a",
        "SAVEPOINT b",
        "UPDATE users SET name = 'in b' WHERE id = 1",
        "ROLLBACK TO SAVEPOINT b",
        "COMMIT",
    )
    assert warm.settle_and_check() == ALL_KEYS
    assert warm.redis.mget("users:1", "users:2", "users:3") == [b"outside", b"in a", b"Cyd"]


def test_rollback_to_an_outer_savepoint_undoes_inner_savepoints(warm, session):
    run(session, "BEGIN", "SAVEPOINT a", "SAVEPOINT b", "UPDATE users SET name = 'x' WHERE id = 1", "RELEASE b")
    run(session, "ROLLBACK TO a", "UPDATE users SET name = 'y' WHERE id = 2", "COMMIT")
    assert warm.settle_and_check() == ALL_KEYS
    assert warm.redis.mget("users:1", "users:2") == [b"Ada", b"y"]


def test_rollback_to_savepoint_after_an_error_keeps_earlier_changes(warm, session):
    run(session, "BEGIN", "UPDATE users SET name = 'kept' WHERE id = 1", "SAVEPOINT a")
    assert session.simple("UPDATE users SET id = 2 WHERE id = 3").errors == ["23505"]
    assert session.simple("SELECT 1").errors == ["25P02"]
    run(session, "ROLLBACK TO a", "COMMIT")
    assert warm.settle_and_check() == ALL_KEYS
    assert warm.redis.get("users:1") == b"kept"


def test_block_within_one_query_string_is_rolled_back(warm, session):
    run(session, "BEGIN; UPDATE users SET name = 'a' WHERE id = 1; ROLLBACK; UPDATE users SET name = 'b' WHERE id = 2")
    assert warm.settle_and_check() == ALL_KEYS
    assert warm.redis.mget("users:1", "users:2") == [b"Ada", b"b"]


def test_begin_within_a_query_string_includes_earlier_statements(warm, session):
    run(session, "UPDATE users SET name = 'a' WHERE id = 1; BEGIN; UPDATE users SET name = 'b' WHERE id = 2")
    assert warm.settle_and_check() == ALL_KEYS
    assert warm.redis.get("users:1") == b"Ada"
    run(session, "ROLLBACK")
    assert warm.settle_and_check() == ALL_KEYS


def test_error_in_a_pipeline_undoes_its_statements_up_to_sync(warm, session):
    session.send(
        extended("UPDATE users SET name = $1 WHERE id = $2", (text("kept"), int4(1))),
        frontend.SYNC_FRAME,
        extended("UPDATE users SET name = $1 WHERE id = $2", (text("undone"), int4(2))),
        extended("SELECT 1/0", ()),
        extended("UPDATE users SET name = $1 WHERE id = $2", (text("skipped"), int4(3))),
        frontend.SYNC_FRAME,
    )
    assert session.answer(2).errors == ["22012"]
    assert warm.settle_and_check() == ALL_KEYS
    assert warm.redis.mget("users:1", "users:2", "users:3") == [b"kept", b"Ben", b"Cyd"]


def test_begin_within_a_block_changes_nothing(warm, session):
    run(session, "BEGIN", "UPDATE users SET name = 'a' WHERE id = 1", "BEGIN", "COMMIT", "COMMIT", "ROLLBACK")
    assert warm.settle_and_check() == ALL_KEYS
    assert warm.redis.get("users:1") == b"a"


# -- errors at COMMIT


def test_changes_are_discarded_when_a_deferred_constraint_fails_at_commit(warm, session):
    run(session, "BEGIN", "UPDATE unique_names SET name = 'two' WHERE id = 1")
    assert session.simple("COMMIT").errors == ["23505"]
    assert warm.settle_and_check() == ALL_KEYS


def test_change_is_discarded_when_a_deferred_constraint_fails_outside_a_block(warm, session):
    assert session.simple("UPDATE unique_names SET name = 'two' WHERE id = 1").errors == ["23505"]
    assert session.text("UPDATE unique_names SET name = $1 WHERE id = $2", text("two"), int4(1)).errors == ["23505"]
    assert warm.settle_and_check() == ALL_KEYS


def test_changes_are_discarded_after_a_serialization_failure_at_commit(warm, session, other):
    for one in (session, other):
        run(one, "BEGIN ISOLATION LEVEL SERIALIZABLE", "SELECT count(*), max(name) FROM users")
    run(session, "UPDATE users SET name = 'a' WHERE id = 1")
    run(other, "UPDATE users SET name = 'b' WHERE id = 2")
    run(session, "COMMIT")
    assert other.simple("COMMIT").errors == ["40001"]
    assert warm.settle_and_check() == ALL_KEYS
    assert warm.redis.mget("users:1", "users:2") == [b"a", b"Ben"]


# -- two-phase commit


def test_commit_prepared_on_another_session_applies_the_changes(warm, session, other):
    run(session, "BEGIN", "UPDATE users SET name = 'two-phase' WHERE id = 1", "DELETE FROM users WHERE id = 2")
    run(session, "PREPARE TRANSACTION 'known'")
    assert warm.settle_and_check() == ALL_KEYS
    run(session, "UPDATE users SET name = 'meanwhile' WHERE id = 3")
    run(other, "COMMIT PREPARED 'known'")
    assert warm.settle_and_check() == ALL_KEYS - {"users:2"}


def test_rollback_prepared_discards_the_changes(warm, session, other):
    run(session, "BEGIN", "UPDATE users SET name = 'never' WHERE id = 1", "PREPARE TRANSACTION 'undone'")
    run(other, "ROLLBACK PREPARED 'undone'")
    assert warm.settle_and_check() == ALL_KEYS


def test_commit_prepared_of_an_unknown_gid_flushes(warm, session):
    run(warm.direct, "BEGIN", "UPDATE users SET name = 'unseen' WHERE id = 1", "PREPARE TRANSACTION 'past the proxy'")
    run(session, "COMMIT PREPARED 'past the proxy'")
    assert warm.settle_and_check() & {"users:1"} == set()


def test_prepare_transaction_of_a_failed_block_discards_the_changes(warm, session):
    run(session, "BEGIN", "UPDATE users SET name = 'never' WHERE id = 1")
    assert session.simple("SELECT 1/0").errors
    assert session.simple("PREPARE TRANSACTION 'failed'").tags == ["ROLLBACK"]
    assert warm.settle_and_check() == ALL_KEYS


# -- lost connections


def test_changes_are_discarded_when_the_client_disconnects_within_a_block(warm, session):
    run(session, "BEGIN", "UPDATE users SET name = 'never' WHERE id = 1")
    sessions = warm.proxy.status()["sessions"]
    session.abort()
    warm.wait_until(lambda: warm.proxy.status()["sessions"] < sessions)
    assert warm.settle_and_check() == ALL_KEYS


def test_key_is_evicted_when_the_client_disconnects_before_the_answer(warm, session):
    run(warm.direct, "BEGIN", "SELECT name FROM users WHERE id = 1 FOR UPDATE")
    session.send(frontend.Query(b"UPDATE users SET name = 'late' WHERE id = 1"))
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%late%'"
    # Not by warm.direct: an open transaction sees pg_stat_activity as it was at its first look.
    warm.wait_until(lambda: warm.session().simple(waiting).rows)
    sessions = warm.proxy.status()["sessions"]
    session.abort()
    time.sleep(0.05)  # the proxy may notice that before the statement ends, or not
    run(warm.direct, "COMMIT")
    warm.wait_until(lambda: warm.proxy.status()["sessions"] < sessions)
    active = "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%late%' AND state = 'active' AND pid <> pg_backend_pid()"
    warm.wait_until(lambda: not warm.direct.simple(active).rows)
    assert warm.settle_and_check() >= ALL_KEYS - {"users:1"}


@pytest.mark.parametrize("end", ["COMMIT", "COMMIT AND CHAIN", "END"])
def test_key_is_evicted_when_the_client_disconnects_after_sending_commit(warm, session, end):
    run(session, "BEGIN", "UPDATE users SET name = 'perhaps' WHERE id = 1")
    sessions = warm.proxy.status()["sessions"]
    session.send(frontend.Query(end.encode()))
    session.abort()
    warm.wait_until(lambda: warm.proxy.status()["sessions"] < sessions)
    warm.wait_until(lambda: warm.direct.simple("SELECT name FROM users WHERE id = 1 FOR UPDATE NOWAIT").errors == [])
    assert warm.settle_and_check() >= ALL_KEYS - {"users:1"}


def test_changes_are_discarded_or_evicted_when_the_backend_is_terminated(warm, session):
    run(session, "BEGIN", "UPDATE users SET name = 'never' WHERE id = 1")
    (pid,) = run(session, "SELECT pg_backend_pid()").rows[0]
    run(warm.direct, f"SELECT pg_terminate_backend({pid.decode()}, 5000)")
    assert warm.settle_and_check() >= ALL_KEYS - {"users:1"}


# -- reads within transactions


def test_rows_read_after_own_uncommitted_write_do_not_fill(warm, session):
    warm.reset(warm=False)
    run(session, "BEGIN", "UPDATE users SET name = 'not yet' WHERE id = 1", "SELECT id, name FROM users")
    assert warm.settle_and_check() == set()
    run(session, "ROLLBACK")
    assert warm.settle_and_check() == set()


def test_rows_read_behind_a_write_in_one_query_string_do_not_fill(warm, session):
    warm.reset(warm=False)
    assert session.simple("UPDATE users SET name = 'x' WHERE id = 1; SELECT * FROM users; SELECT 1/0").errors
    assert warm.settle_and_check() == set()


def test_rows_read_behind_a_write_in_one_pipeline_do_not_fill(warm, session):
    warm.reset(warm=False)
    answer = session.together(
        ("UPDATE users SET name = $1 WHERE id = $2", text("x"), int4(1)), ("SELECT * FROM users",), ("SELECT 1/0",)
    )
    assert answer.errors == ["22012"]
    assert warm.settle_and_check() == set()


def test_rows_of_a_cursor_behind_own_write_do_not_fill(warm, session):
    warm.reset(warm=False)
    run(session, "BEGIN", "UPDATE users SET name = 'x' WHERE id = 1", "DECLARE c CURSOR FOR SELECT * FROM users")
    run(session, "FETCH ALL FROM c", "ROLLBACK")
    assert warm.settle_and_check() == set()


def test_held_cursor_over_own_writes_does_not_fill_old_values(warm, session, other):
    warm.reset(warm=False)
    run(session, "BEGIN", "UPDATE users SET name = 'mine' WHERE id = 1")
    run(session, "DECLARE c CURSOR WITH HOLD FOR SELECT id, name FROM users", "COMMIT")
    run(other, "UPDATE users SET name = 'newer' WHERE id = 1")
    run(session, "FETCH ALL FROM c", "CLOSE c")
    warm.settle_and_check()


def test_held_cursor_with_an_old_snapshot_does_not_fill_old_values(warm, session, other):
    run(session, "BEGIN", "DECLARE c CURSOR WITH HOLD FOR SELECT id, name FROM users", "COMMIT")
    run(other, "UPDATE users SET name = 'newer' WHERE id = 1", "DELETE FROM users WHERE id = 2")
    warm.settle_and_check()
    run(session, "FETCH ALL FROM c", "CLOSE c")
    assert warm.settle_and_check() == ALL_KEYS - {"users:2"}
    assert warm.redis.get("users:1") == b"newer"


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_read_in_an_old_snapshot_does_not_fill_old_values(warm, session, other, level):
    run(session, f"BEGIN ISOLATION LEVEL {level}", "SELECT 1 FROM unique_names LIMIT 1")
    run(other, "UPDATE users SET name = 'newer' WHERE id = 1", "UPDATE users SET name = name || '!' WHERE id = 2")
    run(other, "DELETE FROM users WHERE id = 3")
    assert warm.settle_and_check() == ALL_KEYS - {"users:2", "users:3"}
    assert run(session, "SELECT id, name FROM users").rows[0] == [b"1", b"Ada"]
    run(session, "COMMIT")
    assert warm.settle_and_check() == ALL_KEYS - {"users:2", "users:3"}
    run(session, "SELECT id, name FROM users")
    assert warm.settle_and_check() == ALL_KEYS - {"users:3"}


def test_rows_of_a_suspended_portal_do_not_fill_old_values(warm, session, other):
    run(session, "BEGIN")
    session.send(
        frontend.Parse(b"", b"SELECT id, name FROM users ORDER BY id"),
        frontend.Bind(b"p", b""),
        frontend.Describe(codes.PORTAL, b"p"),
        frontend.Execute(b"p", 1),
        frontend.SYNC_FRAME,
    )
    assert session.answer().rows == [[b"1", b"Ada"]]
    run(other, "UPDATE users SET name = 'newer' WHERE id = 2", "DELETE FROM users WHERE id = 3")
    warm.settle_and_check()
    session.send(frontend.Execute(b"p", 0), frontend.SYNC_FRAME)
    assert session.answer().rows == [[b"2", b"Ben"], [b"3", b"Cyd"]]
    run(session, "COMMIT")
    assert warm.settle_and_check() == ALL_KEYS - {"users:3"}


def test_read_forwarded_before_a_write_does_not_fill_old_values(warm, session, other):
    """The read began before the write and is answered after it."""
    session.send(frontend.Query(b"SELECT id, name, pg_sleep(0.1) FROM users ORDER BY id"))
    active = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    warm.wait_until(lambda: warm.direct.simple(active).rows)
    run(other, "UPDATE users SET name = 'newer' WHERE id = 1", "UPDATE users SET name = name || '!' WHERE id = 2")
    warm.settle()
    assert session.answer().rows[0][:2] == [b"1", b"Ada"]
    assert warm.settle_and_check() >= ALL_KEYS - {"users:1", "users:2"}


def test_overlapping_writes_of_one_row_leave_no_stale_key(warm, session, other):
    """The second write waits for the first; the order of the two answers does not tell the order of the commits."""
    run(session, "BEGIN", "UPDATE users SET name = 'first' WHERE id = 1")
    other.send(frontend.Query(b"UPDATE users SET name = 'second' WHERE id = 1"))
    time.sleep(0.05)
    run(session, "COMMIT")
    assert not other.answer().errors
    assert warm.settle_and_check() >= ALL_KEYS - {"users:1"}


def test_concurrent_writers_and_readers_leave_no_stale_key(warm):
    """Writers within and outside blocks, and readers, all on the same rows."""
    failures = []

    def work(number):
        try:
            session = warm.connect()
            for turn in range(15):
                row = (number + turn) % 3 + 1
                session.text("UPDATE users SET name = $1 WHERE id = $2", text(f"{number}.{turn}"), int4(row))
                run(session, "BEGIN", f"UPDATE users SET name = 'b{number}.{turn}' WHERE id = {row}")
                run(session, "COMMIT" if turn % 2 else "ROLLBACK", "SELECT id, name FROM users")
        except (AssertionError, OSError) as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    warm.settle_and_check()
    run(warm.session(), "SELECT id, name FROM users")
    assert warm.settle_and_check() == ALL_KEYS
