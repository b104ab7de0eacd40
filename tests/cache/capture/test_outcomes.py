"""Outcomes: finished statements and transactions' ends in, released changes and counts out."""

from __future__ import annotations

import pytest

from cache.capture.arguments import Arguments
from cache.capture.database import Database
from cache.capture.outcomes import Execution, Outcomes, row_count
from cache.capture.rows import RowCollector, row_plans
from cache.capture.session_settings import Settings
from cache.changes import Kind
from cache.counts import Counts
from cache.sql.memo import PlanMemo
from cache.values.loading import CANONICAL
from protocol.backend import FieldDescription
from protocol.codes import FAILED_TRANSACTION, IDLE, IN_TRANSACTION
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
            found, _ = row_plans(plan, FIELDS, (0, 0), CANONICAL)
            execution.collectors = tuple(RowCollector(row_plan, execution.arguments) for row_plan in found)
            for collector in execution.collectors:
                for row in rows:
                    collector.add(row)
        return execution

    def run(self, text, tag, *, rows=(), status=None):
        """One statement up to its CommandComplete, and up to ReadyForQuery if ``status`` is given."""
        self.outcomes.finished(self.execution(text, rows), tag.encode())
        if status is not None:
            self.ready(status)
        return self.told()

    def fail(self, status):
        self.outcomes.failed(unseen_code=False)
        self.ready(status)
        return self.told()

    def ready(self, status, *, at_rest=True):
        self.outcomes.ready(status, at_rest=at_rest)

    def told(self):
        found = [f"{change.kind.name} {change.key.decode()}@{change.seq}" for change in self.sink.changes]
        self.sink.changes.clear()
        return found

    def begin(self):
        assert self.run("BEGIN", "BEGIN", status=IN_TRANSACTION) == []

    def update(self, key=1, status=None):
        return self.run(f"UPDATE users SET name = 'a' WHERE id = {key}", "UPDATE 1", status=status)

    def select(self, status=None):
        return self.run("SELECT id, name FROM users", "SELECT 1", rows=[[b"1", b"a"]], status=status)


@pytest.mark.parametrize(
    ("tag", "count"),
    [
        (b"UPDATE 12", 12),
        (b"INSERT 0 3", 3),
        (b"BEGIN", None),
        (b"CREATE TABLE", None),
        (b"", None),
        (b"UPDATE " + b"9" * 5000, None),
    ],
)
def test_row_count_is_the_number_a_tag_ends_with(tag, count):
    assert row_count(tag) == count


def test_write_is_released_at_ready_for_query():
    server = Server()
    assert server.update() == []
    server.ready(IDLE)
    assert server.told() == ["STORE users:1@1"]


def test_error_discards_what_came_before_it():
    server = Server()
    server.update()
    assert server.fail(IDLE) == []


def test_fill_is_put_at_once_with_the_date_of_its_transaction():
    server = Server()
    server.begin()
    assert server.select(IN_TRANSACTION) == ["FILL users:1@1"]
    assert server.run("COMMIT", "COMMIT", status=IDLE) == []
    assert server.select(IDLE) == ["FILL users:1@4"]


@pytest.mark.parametrize("dirty", [False, True])
def test_first_rows_are_put_early_if_they_may_fill_and_dropped_if_not(dirty):
    server = Server()
    server.begin()
    if dirty:
        server.run("SELECT unknown_function()", "SELECT 1", status=IN_TRANSACTION)
    execution = server.execution("SELECT id, name FROM users", [(b"1", b"a"), (b"2", b"b")])
    server.outcomes.fill_early(execution)
    assert [change.key for change in server.sink.changes] == ([] if dirty else [b"users:1", b"users:2"])
    for collector in execution.collectors:
        assert collector.rows == []
        collector.add((b"3", b"c"))
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
def test_read_behind_a_write_of_its_own_transaction_fills_nothing(text, tag):
    server = Server()
    server.begin()
    server.run(text, tag, status=IN_TRANSACTION)
    assert server.select(IN_TRANSACTION) == []
    server.run("ROLLBACK", "ROLLBACK", status=IDLE)
    assert server.select(IDLE) != []


def test_commit_of_a_failed_block_discards_its_changes():
    server = Server()
    server.begin()
    server.update(status=IN_TRANSACTION)
    assert server.fail(FAILED_TRANSACTION) == []
    assert server.run("COMMIT", "ROLLBACK", status=IDLE) == []


def test_commit_and_chain_releases_and_begins_another_transaction():
    server = Server()
    server.begin()
    server.update(status=IN_TRANSACTION)
    assert server.run("COMMIT AND CHAIN", "COMMIT", status=IN_TRANSACTION) == ["STORE users:1@2"]
    assert server.select(IN_TRANSACTION) == ["FILL users:1@3"], (
        "as old as the new transaction, and it has written nothing"
    )


def test_changes_behind_a_savepoint_are_discarded_by_a_rollback_to_it():
    server = Server()
    server.begin()
    server.update(1)
    server.run("SAVEPOINT s", "SAVEPOINT")
    server.update(2)
    server.run("ROLLBACK TO s", "ROLLBACK")
    server.update(3)
    server.run("RELEASE s", "RELEASE")
    assert server.run("COMMIT", "COMMIT", status=IDLE) == ["STORE users:1@2", "STORE users:3@6"]


def test_prepared_transaction_is_released_by_commit_prepared_elsewhere_and_flushes_if_unknown():
    here = Server()
    here.begin()
    here.update(status=IN_TRANSACTION)
    assert here.run("PREPARE TRANSACTION 'g'", "PREPARE TRANSACTION", status=IDLE) == []
    there = Server(here.database)
    assert there.run("COMMIT PREPARED 'g'", "COMMIT PREPARED", status=IDLE) == ["STORE users:1@2"]
    assert there.run("COMMIT PREPARED 'g'", "COMMIT PREPARED", status=IDLE) == ["FLUSH @2"], "now it is unknown"


@pytest.mark.parametrize("gid", ["U&'\\0067'", "E'\\u00e9'", "E'\\v'"])
def test_prepared_transaction_whose_gid_is_not_certain_evicts_at_once_and_flushes_when_committed(gid):
    server = Server()
    server.begin()
    server.update(status=IN_TRANSACTION)
    assert server.run(f"PREPARE TRANSACTION {gid}", "PREPARE TRANSACTION", status=IDLE) == ["EVICT users:1@2"]
    assert server.database.prepared == {}
    assert server.run(f"ROLLBACK PREPARED {gid}", "ROLLBACK PREPARED", status=IDLE) == []
    assert server.run(f"COMMIT PREPARED {gid}", "COMMIT PREPARED", status=IDLE) == ["FLUSH @5"]


def test_commit_of_a_prepared_transaction_whose_gid_cannot_be_read_flushes():
    server = Server()
    assert server.run("COMMIT PREPARED 'g'; SELECT B'1'\n'0'", "COMMIT PREPARED", status=IDLE) == ["FLUSH @1"]


def test_prepared_transaction_is_forgotten_if_it_is_rolled_back_or_had_failed():
    server = Server()
    server.begin()
    server.update(status=IN_TRANSACTION)
    server.run("PREPARE TRANSACTION 'g'", "PREPARE TRANSACTION", status=IDLE)
    assert server.run("ROLLBACK PREPARED 'g'", "ROLLBACK PREPARED", status=IDLE) == []
    assert server.database.prepared == {}
    server.begin()
    server.update(status=IN_TRANSACTION)
    server.fail(FAILED_TRANSACTION)
    assert server.run("PREPARE TRANSACTION 'h'", "ROLLBACK", status=IDLE) == []
    assert server.database.prepared == {}


def test_suspended_portal_fills_and_evicts_what_it_may_have_written():
    server = Server()
    server.outcomes.suspended(server.execution("SELECT id, name FROM users", [[b"1", b"a"]]))
    assert server.told() == ["FILL users:1@1"]
    server.outcomes.suspended(server.execution("UPDATE users SET name = 'a' WHERE id = 1 RETURNING id"))
    server.ready(IDLE)
    assert server.told() == ["EVICT users:1@2"]
    assert list(server.counts.statements.values()) == [1, 1]


def test_anything_but_a_read_flushes_without_a_catalog():
    server = Server(learned=False)
    assert server.update(status=IDLE) == ["FLUSH @1"]
    assert server.run("SELECT 1", "SELECT 1", status=IDLE) == []
    assert server.run("SELECT 1", "DELETE 1", status=IDLE) == ["FLUSH @3"], "whatever it was, it wrote"


def test_catalog_is_asked_for_when_the_transaction_of_the_ddl_has_ended():
    server = Server()
    server.begin()
    server.run("ALTER TABLE users ADD x int", "ALTER TABLE", status=IN_TRANSACTION)
    assert Server(server.database).select(IDLE) == []
    assert server.database.question() is None
    server.run("COMMIT", "COMMIT")
    server.ready(IDLE, at_rest=False)
    assert server.database.question() is None, "more of it may have been sent"
    server.ready(IDLE)
    assert server.database.question() is not None


def test_read_of_a_hot_standby_fills_nothing():
    assert Server(in_hot_standby="on").select(IDLE) == []


def test_statement_is_counted_under_its_reason():
    server = Server()
    server.select(IDLE)
    server.select(IDLE)
    server.update(status=IDLE)
    server.run("SELECT 1", "SELECT 1", status=IDLE)
    assert server.counts.statements == {("public.users", "fill"): 2, ("public.users", "store"): 1}


def test_rows_that_cannot_fill_are_counted_under_the_reason():
    server = Server()
    execution = server.execution("SELECT id FROM users")
    execution.refused = (("public.users", "column not in the result"),)
    server.outcomes.finished(execution, b"SELECT 7")
    assert server.counts.unfilled == {("public.users", "column not in the result"): 7}


def test_lost_session_discards_or_evicts_by_whether_something_was_unanswered():
    server = Server()
    server.begin()
    server.update(1, status=IN_TRANSACTION)
    server.outcomes.lost([], may_commit_later=False)
    assert server.told() == [], "it was rolled back"
    server.begin()
    server.update(1, status=IN_TRANSACTION)
    server.outcomes.lost([server.execution("COMMIT")], may_commit_later=True)
    assert [change.may_commit_later for change in server.sink.changes] == [True]
    assert server.told() == ["EVICT users:1@4"]


def test_blind_session_evicts_and_flushes_every_rule():
    server = Server()
    server.update(1)
    server.outcomes.blinded([server.execution("DELETE FROM users WHERE id = 2")], (7, 70))
    assert server.told() == ["EVICT users:1@1", "EVICT users:2@2", "FLUSH @7"]


def test_suspended_portal_of_an_unrelated_statement_changes_nothing():
    server = Server()
    server.outcomes.suspended(server.execution("SELECT 1"))
    assert server.told() == []
    assert server.counts.statements == {}


def test_rows_of_returning_are_not_put_early():
    server = Server()
    execution = server.execution("UPDATE users SET name = upper(name) RETURNING id, name", [(b"1", b"A")])
    server.outcomes.fill_early(execution)
    server.outcomes.finished(execution, b"UPDATE 1")
    server.ready(IDLE)
    assert server.told() == ["STORE users:1@1"]


def test_prepared_transaction_evicts_if_too_many_are_remembered(monkeypatch):
    monkeypatch.setattr("cache.capture.database.MAX_PREPARED", 0)
    server = Server()
    server.begin()
    server.update(status=IN_TRANSACTION)
    assert server.run("PREPARE TRANSACTION 'g'", "PREPARE TRANSACTION", status=IDLE) == ["EVICT users:1@2"]


def test_unanswered_commit_prepared_may_make_what_was_prepared_true():
    server = Server()
    server.begin()
    server.update(status=IN_TRANSACTION)
    server.run("PREPARE TRANSACTION 'g'", "PREPARE TRANSACTION", status=IDLE)
    possible = server.outcomes.possible_changes(
        [server.execution("COMMIT PREPARED 'g'"), server.execution("COMMIT PREPARED 'unknown'")]
    )
    assert [(change.kind, change.key) for change in possible] == [(Kind.EVICT, b"users:1"), (Kind.FLUSH, b"")]
    (prepared,) = server.database.prepared["g"]
    assert prepared.kind is Kind.STORE, "what is remembered stays as it was"


# -- the catalog was wrong


def find_wrong(server, *, since):
    """A newer catalog says that statements sent at ``since`` and before were planned by facts that did not hold."""
    server.database._was_wrong_about(list(server.database.rules), since)


def delete_of_a_parent(server, status=None):
    """By the catalog it reaches no rule."""
    return server.run("DELETE FROM owners WHERE id = 1", "DELETE 1", status=status)


def flushes(server, seq):
    return [f"FLUSH @{seq}" for _ in server.database.rules]


def test_write_that_was_under_way_when_the_catalog_was_found_wrong_flushes_the_rule():
    server = Server()
    execution = server.execution("DELETE FROM owners WHERE id = 1")
    find_wrong(server, since=execution.sent_ns)
    server.outcomes.finished(execution, b"DELETE 1")
    server.ready(IDLE)
    assert server.told() == flushes(server, 1)


def test_write_after_the_catalog_was_found_wrong_flushes_nothing():
    server = Server()
    find_wrong(server, since=9)
    assert delete_of_a_parent(server, IDLE) == []


def test_read_that_was_under_way_when_the_catalog_was_found_wrong_flushes_nothing():
    server = Server()
    find_wrong(server, since=10)
    assert server.run("SELECT 1", "SELECT 1", status=IDLE) == []


@pytest.mark.parametrize(("tag", "flushed"), [("COMMIT", True), ("ROLLBACK", False)])
def test_block_that_wrote_before_the_catalog_was_found_wrong_flushes_when_it_commits(tag, flushed):
    server = Server()
    server.begin()
    delete_of_a_parent(server, IN_TRANSACTION)
    find_wrong(server, since=25)
    assert server.told() == []
    assert server.run("SELECT 1", "SELECT 1", status=IN_TRANSACTION) == []
    assert server.run("COMMIT", tag, status=IDLE) == (flushes(server, 1) if flushed else [])
    assert delete_of_a_parent(server, IDLE) == []


def test_implicit_transaction_of_several_statements_flushes_at_its_end():
    server = Server()
    delete_of_a_parent(server)
    find_wrong(server, since=15)
    server.run("SELECT 1", "SELECT 1")
    server.ready(IDLE)
    assert server.told() == flushes(server, 1)


def test_block_that_only_read_before_the_catalog_was_found_wrong_flushes_nothing():
    server = Server()
    server.begin()
    server.select(IN_TRANSACTION)
    find_wrong(server, since=25)
    assert server.run("COMMIT", "COMMIT", status=IDLE) == []


def test_flush_for_a_wrong_catalog_is_undone_with_its_savepoint():
    server = Server()
    server.begin()
    server.run("SAVEPOINT s", "SAVEPOINT", status=IN_TRANSACTION)
    delete_of_a_parent(server, IN_TRANSACTION)
    server.run("ROLLBACK TO s", "ROLLBACK", status=IN_TRANSACTION)
    find_wrong(server, since=45)
    assert server.run("COMMIT", "COMMIT", status=IDLE) == []


def test_commit_of_a_block_that_wrote_under_a_wrong_catalog_is_announced():
    server = Server()
    server.begin()
    delete_of_a_parent(server, IN_TRANSACTION)
    find_wrong(server, since=25)
    found = server.outcomes.possible_changes([])
    assert [change.kind for change in found] == [Kind.FLUSH for _ in server.database.rules]


def test_transaction_prepared_after_the_catalog_was_found_wrong_flushes_when_it_is_committed():
    server = Server()
    server.begin()
    delete_of_a_parent(server, IN_TRANSACTION)
    find_wrong(server, since=25)
    assert server.run("PREPARE TRANSACTION 'g'", "PREPARE TRANSACTION", status=IDLE) == []
    assert server.run("COMMIT PREPARED 'g'", "COMMIT PREPARED", status=IDLE) == flushes(server, 1)


def test_transaction_prepared_before_the_catalog_was_found_wrong_flushes_when_it_is_committed():
    server = Server()
    server.begin()
    delete_of_a_parent(server, IN_TRANSACTION)
    server.run("PREPARE TRANSACTION 'g'", "PREPARE TRANSACTION", status=IDLE)
    find_wrong(server, since=45)
    assert server.told() == []
    assert server.run("COMMIT PREPARED 'g'", "COMMIT PREPARED", status=IDLE) == flushes(server, 0)


@pytest.mark.parametrize("unanswered", [False, True])
def test_session_lost_in_a_block_that_wrote_under_a_wrong_catalog(unanswered):
    server = Server()
    server.begin()
    delete_of_a_parent(server, IN_TRANSACTION)
    find_wrong(server, since=25)
    outstanding = [server.execution("COMMIT")] if unanswered else []
    server.outcomes.lost(outstanding, may_commit_later=unanswered)
    assert all(change.may_commit_later for change in server.sink.changes)
    assert server.told() == (flushes(server, 1) if unanswered else [])
