"""When a change becomes true: blocks, savepoints, two-phase commit, errors at COMMIT, sessions that vanish, and what a
reader may have seen before a writer was done."""

import threading
import time

import pytest

from protocol import codes, frontend
from tests.e2e import deployment as scene
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
EVERY = USERS | NAMES


@pytest.fixture(scope="module")
def stage(postgres, valkey, tmp_path_factory):
    directory = tmp_path_factory.mktemp("transactions")
    with scene.scene(postgres, valkey, directory, schema=SCHEMA, rules=RULES, content=CONTENT) as found:
        yield found


@pytest.fixture
def warm(stage):
    """The stage with all keys there."""
    stage.reset(warm=True)
    yield stage
    stage.direct.simple("ROLLBACK")


@pytest.fixture
def session(stage):
    found = stage.connect()
    yield found
    found.close()


@pytest.fixture
def other(stage):
    found = stage.connect()
    yield found
    found.close()


def run(session, *statements):
    for sql in statements:
        answer = session.simple(sql)
        assert not answer.errors, (sql, answer)
    return answer


# -- blocks


def test_nothing_shows_before_commit(warm, session):
    run(session, "BEGIN", "UPDATE users SET name = 'Eve' WHERE id = 1", "DELETE FROM users WHERE id = 2")
    assert warm.settled() == EVERY
    assert warm.redis.get("users:1") == b"Ada"
    run(session, "COMMIT")
    assert warm.settled() == EVERY - {"users:2"}
    assert warm.redis.get("users:1") == b"Eve"


def test_the_last_of_several_writes_counts(warm, session):
    run(session, "BEGIN", *(f"UPDATE users SET name = 'v{n}' WHERE id = 1" for n in range(5)), "COMMIT")
    assert warm.settled() == EVERY
    assert warm.redis.get("users:1") == b"v4"
    run(session, *(f"UPDATE users SET name = 'w{n}' WHERE id = 1" for n in range(5)))
    assert warm.settled() == EVERY
    assert warm.redis.get("users:1") == b"w4"


def test_commit_and_chain_opens_another_block(warm, session):
    run(session, "BEGIN", "UPDATE users SET name = 'first' WHERE id = 1", "COMMIT AND CHAIN")
    assert warm.settled() == EVERY
    run(session, "UPDATE users SET name = 'second' WHERE id = 1")
    assert warm.settled() == EVERY
    run(session, "ROLLBACK AND CHAIN", "UPDATE users SET name = 'third' WHERE id = 2", "COMMIT")
    assert warm.settled() == EVERY
    assert warm.redis.mget("users:1", "users:2") == [b"first", b"third"]


def test_savepoints_nest_and_names_are_used_again(warm, session):
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
    assert warm.settled() == EVERY
    assert warm.redis.mget("users:1", "users:2", "users:3") == [b"outside", b"in a", b"Cyd"]


def test_rolling_back_to_an_outer_savepoint_undoes_the_inner_ones(warm, session):
    run(session, "BEGIN", "SAVEPOINT a", "SAVEPOINT b", "UPDATE users SET name = 'x' WHERE id = 1", "RELEASE b")
    run(session, "ROLLBACK TO a", "UPDATE users SET name = 'y' WHERE id = 2", "COMMIT")
    assert warm.settled() == EVERY
    assert warm.redis.mget("users:1", "users:2") == [b"Ada", b"y"]


def test_a_savepoint_undone_after_an_error_keeps_what_came_before(warm, session):
    run(session, "BEGIN", "UPDATE users SET name = 'kept' WHERE id = 1", "SAVEPOINT a")
    assert session.simple("UPDATE users SET id = 2 WHERE id = 3").errors == ["23505"]
    assert session.simple("SELECT 1").errors == ["25P02"]
    run(session, "ROLLBACK TO a", "COMMIT")
    assert warm.settled() == EVERY
    assert warm.redis.get("users:1") == b"kept"


def test_a_block_within_one_query(warm, session):
    run(session, "BEGIN; UPDATE users SET name = 'a' WHERE id = 1; ROLLBACK; UPDATE users SET name = 'b' WHERE id = 2")
    assert warm.settled() == EVERY
    assert warm.redis.mget("users:1", "users:2") == [b"Ada", b"b"]


def test_begin_in_the_middle_of_a_query_takes_what_came_before_along(warm, session):
    run(session, "UPDATE users SET name = 'a' WHERE id = 1; BEGIN; UPDATE users SET name = 'b' WHERE id = 2")
    assert warm.settled() == EVERY
    assert warm.redis.get("users:1") == b"Ada"
    run(session, "ROLLBACK")
    assert warm.settled() == EVERY


def test_one_error_in_a_pipeline_undoes_the_others_up_to_sync(warm, session):
    session.send(
        extended("UPDATE users SET name = $1 WHERE id = $2", (text("kept"), int4(1))),
        frontend.SYNC_FRAME,
        extended("UPDATE users SET name = $1 WHERE id = $2", (text("undone"), int4(2))),
        extended("SELECT 1/0", ()),
        extended("UPDATE users SET name = $1 WHERE id = $2", (text("skipped"), int4(3))),
        frontend.SYNC_FRAME,
    )
    assert session.answer(2).errors == ["22012"]
    assert warm.settled() == EVERY
    assert warm.redis.mget("users:1", "users:2", "users:3") == [b"kept", b"Ben", b"Cyd"]


def test_a_mere_begin_warning_changes_nothing(warm, session):
    run(session, "BEGIN", "UPDATE users SET name = 'a' WHERE id = 1", "BEGIN", "COMMIT", "COMMIT", "ROLLBACK")
    assert warm.settled() == EVERY
    assert warm.redis.get("users:1") == b"a"


# -- errors at COMMIT


def test_a_deferred_constraint_fails_at_commit(warm, session):
    run(session, "BEGIN", "UPDATE unique_names SET name = 'two' WHERE id = 1")
    assert session.simple("COMMIT").errors == ["23505"]
    assert warm.settled() == EVERY


def test_a_deferred_constraint_fails_an_implicit_transaction(warm, session):
    assert session.simple("UPDATE unique_names SET name = 'two' WHERE id = 1").errors == ["23505"]
    assert session.text("UPDATE unique_names SET name = $1 WHERE id = $2", text("two"), int4(1)).errors == ["23505"]
    assert warm.settled() == EVERY


def test_a_serialization_failure_at_commit(warm, session, other):
    for one in (session, other):
        run(one, "BEGIN ISOLATION LEVEL SERIALIZABLE", "SELECT count(*), max(name) FROM users")
    run(session, "UPDATE users SET name = 'a' WHERE id = 1")
    run(other, "UPDATE users SET name = 'b' WHERE id = 2")
    run(session, "COMMIT")
    assert other.simple("COMMIT").errors == ["40001"]
    assert warm.settled() == EVERY
    assert warm.redis.mget("users:1", "users:2") == [b"a", b"Ben"]


# -- two-phase commit


def test_prepared_here_and_committed_elsewhere(warm, session, other):
    run(session, "BEGIN", "UPDATE users SET name = 'two-phase' WHERE id = 1", "DELETE FROM users WHERE id = 2")
    run(session, "PREPARE TRANSACTION 'known'")
    assert warm.settled() == EVERY
    run(session, "UPDATE users SET name = 'meanwhile' WHERE id = 3")
    run(other, "COMMIT PREPARED 'known'")
    assert warm.settled() == EVERY - {"users:2"}


def test_prepared_and_rolled_back(warm, session, other):
    run(session, "BEGIN", "UPDATE users SET name = 'never' WHERE id = 1", "PREPARE TRANSACTION 'undone'")
    run(other, "ROLLBACK PREPARED 'undone'")
    assert warm.settled() == EVERY


def test_an_unknown_prepared_transaction_flushes(warm, session):
    run(warm.direct, "BEGIN", "UPDATE users SET name = 'unseen' WHERE id = 1", "PREPARE TRANSACTION 'past the proxy'")
    run(session, "COMMIT PREPARED 'past the proxy'")
    assert warm.settled() & {"users:1"} == set()


def test_preparing_a_failed_block_rolls_back(warm, session):
    run(session, "BEGIN", "UPDATE users SET name = 'never' WHERE id = 1")
    assert session.simple("SELECT 1/0").errors
    assert session.simple("PREPARE TRANSACTION 'failed'").tags == ["ROLLBACK"]
    assert warm.settled() == EVERY


# -- sessions that vanish


def test_a_client_that_vanishes_within_a_block_has_written_nothing(warm, session):
    run(session, "BEGIN", "UPDATE users SET name = 'never' WHERE id = 1")
    sessions = warm.proxy.status()["sessions"]
    session.abort()
    warm.eventually(lambda: warm.proxy.status()["sessions"] < sessions)
    assert warm.settled() == EVERY


def test_a_client_that_vanishes_in_the_middle_of_a_statement(warm, session):
    run(warm.direct, "BEGIN", "SELECT name FROM users WHERE id = 1 FOR UPDATE")
    session.send(frontend.Query(b"UPDATE users SET name = 'late' WHERE id = 1"))
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%late%'"
    warm.eventually(lambda: warm.session().simple(waiting).rows)  # another than the one with a snapshot of it
    sessions = warm.proxy.status()["sessions"]
    session.abort()
    time.sleep(0.05)  # the proxy may notice that before the statement ends, or not
    run(warm.direct, "COMMIT")
    warm.eventually(lambda: warm.proxy.status()["sessions"] < sessions)
    active = "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%late%' AND state = 'active' AND pid <> pg_backend_pid()"
    warm.eventually(lambda: not warm.direct.simple(active).rows)
    assert warm.settled() >= EVERY - {"users:1"}


@pytest.mark.parametrize("end", ["COMMIT", "COMMIT AND CHAIN", "END"])
def test_a_client_that_vanishes_with_commit_on_its_way(warm, session, end):
    run(session, "BEGIN", "UPDATE users SET name = 'perhaps' WHERE id = 1")
    sessions = warm.proxy.status()["sessions"]
    session.send(frontend.Query(end.encode()))
    session.abort()
    warm.eventually(lambda: warm.proxy.status()["sessions"] < sessions)
    warm.eventually(lambda: warm.direct.simple("SELECT name FROM users WHERE id = 1 FOR UPDATE NOWAIT").errors == [])
    assert warm.settled() >= EVERY - {"users:1"}


def test_a_server_process_that_is_killed(warm, session):
    run(session, "BEGIN", "UPDATE users SET name = 'never' WHERE id = 1")
    (pid,) = run(session, "SELECT pg_backend_pid()").rows[0]
    run(warm.direct, f"SELECT pg_terminate_backend({pid.decode()}, 5000)")
    assert warm.settled() >= EVERY - {"users:1"}


# -- reads within transactions


def test_own_uncommitted_rows_never_fill(warm, session):
    warm.reset(warm=False)
    run(session, "BEGIN", "UPDATE users SET name = 'not yet' WHERE id = 1", "SELECT id, name FROM users")
    assert warm.settled() == set()
    run(session, "ROLLBACK")
    assert warm.settled() == set()


def test_own_rows_do_not_fill_even_in_one_query(warm, session):
    warm.reset(warm=False)
    assert session.simple("UPDATE users SET name = 'x' WHERE id = 1; SELECT * FROM users; SELECT 1/0").errors
    assert warm.settled() == set()


def test_own_rows_do_not_fill_within_a_pipeline(warm, session):
    warm.reset(warm=False)
    answer = session.together(
        ("UPDATE users SET name = $1 WHERE id = $2", text("x"), int4(1)), ("SELECT * FROM users",), ("SELECT 1/0",)
    )
    assert answer.errors == ["22012"]
    assert warm.settled() == set()


def test_a_cursor_over_own_rows_does_not_fill(warm, session):
    warm.reset(warm=False)
    run(session, "BEGIN", "UPDATE users SET name = 'x' WHERE id = 1", "DECLARE c CURSOR FOR SELECT * FROM users")
    run(session, "FETCH ALL FROM c", "ROLLBACK")
    assert warm.settled() == set()


def test_a_held_cursor_over_rows_of_its_own_transaction(warm, session, other):
    warm.reset(warm=False)
    run(session, "BEGIN", "UPDATE users SET name = 'mine' WHERE id = 1")
    run(session, "DECLARE c CURSOR WITH HOLD FOR SELECT id, name FROM users", "COMMIT")
    run(other, "UPDATE users SET name = 'newer' WHERE id = 1")
    run(session, "FETCH ALL FROM c", "CLOSE c")
    warm.settled()


def test_a_held_cursor_shows_what_was_long_ago(warm, session, other):
    run(session, "BEGIN", "DECLARE c CURSOR WITH HOLD FOR SELECT id, name FROM users", "COMMIT")
    run(other, "UPDATE users SET name = 'newer' WHERE id = 1", "DELETE FROM users WHERE id = 2")
    warm.settled()
    run(session, "FETCH ALL FROM c", "CLOSE c")
    assert warm.settled() == EVERY - {"users:2"}
    assert warm.redis.get("users:1") == b"newer"


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_an_old_snapshot_does_not_put_an_old_value_back(warm, session, other, level):
    run(session, f"BEGIN ISOLATION LEVEL {level}", "SELECT 1 FROM unique_names LIMIT 1")
    run(other, "UPDATE users SET name = 'newer' WHERE id = 1", "UPDATE users SET name = name || '!' WHERE id = 2")
    run(other, "DELETE FROM users WHERE id = 3")
    assert warm.settled() == EVERY - {"users:2", "users:3"}
    assert run(session, "SELECT id, name FROM users").rows[0] == [b"1", b"Ada"]
    run(session, "COMMIT")
    assert warm.settled() == EVERY - {"users:2", "users:3"}
    run(session, "SELECT id, name FROM users")
    assert warm.settled() == EVERY - {"users:3"}


def test_an_open_portal_shows_an_old_snapshot(warm, session, other):
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
    warm.settled()
    session.send(frontend.Execute(b"p", 0), frontend.SYNC_FRAME)
    assert session.answer().rows == [[b"2", b"Ben"], [b"3", b"Cyd"]]
    run(session, "COMMIT")
    assert warm.settled() == EVERY - {"users:3"}


def test_a_statement_that_waited_shows_an_old_snapshot(warm, session, other):
    """It began before the write, and is answered after it."""
    session.send(frontend.Query(b"SELECT id, name, pg_sleep(0.1) FROM users ORDER BY id"))
    active = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    warm.eventually(lambda: warm.direct.simple(active).rows)
    run(other, "UPDATE users SET name = 'newer' WHERE id = 1", "UPDATE users SET name = name || '!' WHERE id = 2")
    warm.settle()
    assert session.answer().rows[0][:2] == [b"1", b"Ada"]
    assert warm.settled() >= EVERY - {"users:1", "users:2"}


def test_two_writers_of_one_row(warm, session, other):
    """The second waits for the first, so which of two overlapping answers came last says nothing."""
    run(session, "BEGIN", "UPDATE users SET name = 'first' WHERE id = 1")
    other.send(frontend.Query(b"UPDATE users SET name = 'second' WHERE id = 1"))
    time.sleep(0.05)
    run(session, "COMMIT")
    assert not other.answer().errors
    assert warm.settled() >= EVERY - {"users:1"}


def test_many_sessions_at_once(warm):
    """Writers in and out of blocks and readers, all on the same rows."""
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
    warm.settled()
    run(warm.session(), "SELECT id, name FROM users")
    assert warm.settled() == EVERY
