"""Outcomes: finished statements and transactions' ends in, released changes and counts out."""

from __future__ import annotations

import pytest

from cache.capture.arguments import Arguments
from cache.capture.database import Database
from cache.capture.outcomes import Execution, Outcomes, row_count
from cache.capture.rows import Reader, taps
from cache.capture.session_settings import Settings
from cache.capture.transaction import FAILED_BLOCK, IDLE, IN_BLOCK
from cache.counts import Counts
from cache.sql.memo import PlanMemo
from cache.values.loading import CANONICAL
from protocol.backend import FieldDescription
from tests.cache.catalogs import PUBLIC, USERS

FIELDS = (FieldDescription(b"id", 1, 1, 23, 4), FieldDescription(b"name", 1, 2, 25))
REPORTED = {"client_encoding": "UTF8", "server_encoding": "UTF8", "server_version": "18.1"}


class Sink:
    def __init__(self):
        self.changes = []

    def put(self, changes):
        self.changes += changes


class Server:
    """Runs statements for one session: a word of what each makes true."""

    def __init__(self, database=None, *, learned=True, **reported):
        self.sink = Sink()
        self.counts = Counts()
        self.settings = Settings(REPORTED | reported, {})
        if database is None:
            database = Database("db", [bound.rule for bound in USERS.bound], PlanMemo(100))
            if learned:
                database.catalog, database.learned, database.due_at = USERS, True, 1 << 62
        self.database = database
        self.outcomes = Outcomes(database, self.sink, self.counts, self.settings)
        self.seq = 0

    def execution(self, text, rows=()):
        self.seq += 1
        (plan,), literals = self.database.plans(text.encode(), PUBLIC)
        if plan.ddl:
            self.outcomes.ddl_forwarded()
        execution = Execution(plan, Arguments(literals, settings=CANONICAL), self.seq, self.seq * 10)
        if rows:
            found, _ = taps(plan, FIELDS, (0, 0), CANONICAL)
            execution.readers = tuple(Reader(tap, execution.arguments) for tap in found)
            for reader in execution.readers:
                for row in rows:
                    reader.read(row)
        return execution

    def run(self, text, tag, *, rows=(), status=None):
        """One statement up to its CommandComplete, and up to ReadyForQuery if ``status`` is given."""
        self.outcomes.finished(self.execution(text, rows), tag.encode())
        if status is not None:
            self.ready(status)
        return self.told()

    def fail(self, status):
        self.outcomes.failed()
        self.ready(status)
        return self.told()

    def ready(self, status, *, at_rest=True):
        self.outcomes.ready(status, at_rest=at_rest)

    def told(self):
        found = [f"{change.kind.name} {change.key.decode()}@{change.date}" for change in self.sink.changes]
        self.sink.changes.clear()
        return found

    def begin(self):
        assert self.run("BEGIN", "BEGIN", status=IN_BLOCK) == []

    def update(self, key=1, status=None):
        return self.run(f"UPDATE users SET name = 'a' WHERE id = {key}", "UPDATE 1", status=status)

    def select(self, status=None):
        return self.run("SELECT id, name FROM users", "SELECT 1", rows=[[b"1", b"a"]], status=status)


@pytest.mark.parametrize(
    ("tag", "count"), [(b"UPDATE 12", 12), (b"INSERT 0 3", 3), (b"BEGIN", None), (b"CREATE TABLE", None), (b"", None)]
)
def test_row_count(tag, count):
    assert row_count(tag) == count


def test_a_write_is_true_at_ready_for_query():
    server = Server()
    assert server.update() == []
    server.ready(IDLE)
    assert server.told() == ["STORE users:1@1"]


def test_an_error_undoes_what_came_before_it():
    server = Server()
    server.update()
    assert server.fail(IDLE) == []


def test_a_read_is_put_at_once_and_dated_by_its_transaction():
    server = Server()
    server.begin()
    assert server.select(IN_BLOCK) == ["FILL users:1@1"]
    assert server.run("COMMIT", "COMMIT", status=IDLE) == []
    assert server.select(IDLE) == ["FILL users:1@4"]


@pytest.mark.parametrize("dirty", [False, True])
def test_of_many_rows_the_first_are_put_before_the_last_came(dirty):
    server = Server()
    server.begin()
    if dirty:
        server.run("SELECT unknown_function()", "SELECT 1", status=IN_BLOCK)
    execution = server.execution("SELECT id, name FROM users", [(b"1", b"a"), (b"2", b"b")])
    server.outcomes.many_rows(execution)
    assert [change.key for change in server.sink.changes] == ([] if dirty else [b"users:1", b"users:2"])
    for reader in execution.readers:
        assert reader.rows == []
        reader.read((b"3", b"c"))
    server.outcomes.finished(execution, b"SELECT 3")
    assert [change.key for change in server.sink.changes] == ([] if dirty else [b"users:1", b"users:2", b"users:3"])


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("UPDATE users SET name = 'a' WHERE id = 1", "UPDATE 1"),
        ("INSERT INTO elsewhere VALUES (1)", "INSERT 0 1"),
        ("SELECT unknown_function()", "SELECT 1"),
    ],
)
def test_behind_a_write_of_its_own_a_read_fills_nothing(text, tag):
    server = Server()
    server.begin()
    server.run(text, tag, status=IN_BLOCK)
    assert server.select(IN_BLOCK) == []
    server.run("ROLLBACK", "ROLLBACK", status=IDLE)
    assert server.select(IDLE) != []


def test_commit_of_a_failed_block():
    server = Server()
    server.begin()
    server.update(status=IN_BLOCK)
    assert server.fail(FAILED_BLOCK) == []
    assert server.run("COMMIT", "ROLLBACK", status=IDLE) == []


def test_commit_and_chain_begins_anew():
    server = Server()
    server.begin()
    server.update(status=IN_BLOCK)
    assert server.run("COMMIT AND CHAIN", "COMMIT", status=IN_BLOCK) == ["STORE users:1@2"]
    assert server.select(IN_BLOCK) == ["FILL users:1@3"], "as old as the new transaction, and it has written nothing"


def test_savepoints():
    server = Server()
    server.begin()
    server.update(1)
    server.run("SAVEPOINT s", "SAVEPOINT")
    server.update(2)
    server.run("ROLLBACK TO s", "ROLLBACK")
    server.update(3)
    server.run("RELEASE s", "RELEASE")
    assert server.run("COMMIT", "COMMIT", status=IDLE) == ["STORE users:1@2", "STORE users:3@6"]


def test_a_transaction_prepared_here_and_committed_there():
    here = Server()
    here.begin()
    here.update(status=IN_BLOCK)
    assert here.run("PREPARE TRANSACTION 'g'", "PREPARE TRANSACTION", status=IDLE) == []
    there = Server(here.database)
    assert there.run("COMMIT PREPARED 'g'", "COMMIT PREPARED", status=IDLE) == ["STORE users:1@2"]
    assert there.run("COMMIT PREPARED 'g'", "COMMIT PREPARED", status=IDLE) == ["FLUSH @2"], "now it is unknown"


def test_a_prepared_transaction_that_is_rolled_back_or_failed():
    server = Server()
    server.begin()
    server.update(status=IN_BLOCK)
    server.run("PREPARE TRANSACTION 'g'", "PREPARE TRANSACTION", status=IDLE)
    assert server.run("ROLLBACK PREPARED 'g'", "ROLLBACK PREPARED", status=IDLE) == []
    assert server.database.prepared == {}
    server.begin()
    server.update(status=IN_BLOCK)
    server.fail(FAILED_BLOCK)
    assert server.run("PREPARE TRANSACTION 'h'", "ROLLBACK", status=IDLE) == []
    assert server.database.prepared == {}


def test_a_suspended_portal_has_read_and_may_have_written():
    server = Server()
    server.outcomes.suspended(server.execution("SELECT id, name FROM users", [[b"1", b"a"]]))
    assert server.told() == ["FILL users:1@1"]
    server.outcomes.suspended(server.execution("UPDATE users SET name = 'a' WHERE id = 1 RETURNING id"))
    server.ready(IDLE)
    assert server.told() == ["EVICT users:1@2"]
    assert list(server.counts.statements.values()) == [1, 1]


def test_while_nothing_is_learned():
    server = Server(learned=False)
    assert server.update(status=IDLE) == ["FLUSH @1"]
    assert server.run("SELECT 1", "SELECT 1", status=IDLE) == []
    assert server.run("SELECT 1", "DELETE 1", status=IDLE) == ["FLUSH @3"], "whatever it was, it wrote"


def test_ddl_makes_the_catalog_uncertain_until_its_transaction_ends():
    server = Server()
    server.begin()
    server.run("ALTER TABLE users ADD x int", "ALTER TABLE", status=IN_BLOCK)
    assert Server(server.database).select(IDLE) == []
    assert server.database.question() is None
    server.run("COMMIT", "COMMIT")
    server.ready(IDLE, at_rest=False)
    assert server.database.question() is None, "more of it may have been sent"
    server.ready(IDLE)
    assert server.database.question() is not None


def test_a_hot_standby_fills_nothing():
    assert Server(in_hot_standby="on").select(IDLE) == []


def test_statements_are_counted_under_their_reason():
    server = Server()
    server.select(IDLE)
    server.select(IDLE)
    server.update(status=IDLE)
    server.run("SELECT 1", "SELECT 1", status=IDLE)
    assert server.counts.statements == {("public.users", "fill"): 2, ("public.users", "store"): 1}


def test_rows_that_cannot_fill_are_counted():
    server = Server()
    execution = server.execution("SELECT id FROM users")
    execution.refused = (("public.users", "column not in the result"),)
    server.outcomes.finished(execution, b"SELECT 7")
    assert server.counts.unfilled == {("public.users", "column not in the result"): 7}


def test_a_lost_session():
    server = Server()
    server.begin()
    server.update(1, status=IN_BLOCK)
    server.outcomes.lost([], may_commit_later=False)
    assert server.told() == [], "it was rolled back"
    server.begin()
    server.update(1, status=IN_BLOCK)
    server.outcomes.lost([server.execution("COMMIT")], may_commit_later=True)
    assert [change.may_commit_later for change in server.sink.changes] == [True]
    assert server.told() == ["EVICT users:1@4"]


def test_a_session_nobody_can_follow():
    server = Server()
    server.update(1)
    server.outcomes.blinded([server.execution("DELETE FROM users WHERE id = 2")], (7, 70))
    assert server.told() == ["EVICT users:1@1", "EVICT users:2@2", "FLUSH @7"]
