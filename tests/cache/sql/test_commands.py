"""Statements by their leading words."""

import pytest

from cache.sql import commands, queries
from cache.sql.memo import PlanMemo
from cache.sql.plans import Action, Command, Literal, Operand, OperandSource, Reason
from tests.cache.catalogs import PUBLIC, USERS, effects, plan, plans

COMMANDS = [
    ("BEGIN", Command.BEGIN, None),
    ("begin isolation level serializable, read only", Command.BEGIN, None),
    ("START TRANSACTION READ WRITE", Command.BEGIN, None),
    ("COMMIT", Command.COMMIT, None),
    ("END WORK", Command.COMMIT, None),
    ("ROLLBACK", Command.ROLLBACK, None),
    ("ABORT TRANSACTION", Command.ROLLBACK, None),
    ('SAVEPOINT "A b"', Command.SAVEPOINT, "A b"),
    ("SAVEPOINT A", Command.SAVEPOINT, "a"),
    ("RELEASE a", Command.RELEASE, "a"),
    ("RELEASE SAVEPOINT savepoint", Command.RELEASE, "savepoint"),
    ("ROLLBACK TO a", Command.ROLLBACK_TO, "a"),
    ("ROLLBACK WORK TO SAVEPOINT a", Command.ROLLBACK_TO, "a"),
    ("PREPARE TRANSACTION 'it''s'", Command.PREPARE_TRANSACTION, "it's"),
    ("COMMIT PREPARED E'a\\tb'", Command.COMMIT_PREPARED, "a\tb"),
    ("ROLLBACK PREPARED $$x$$", Command.ROLLBACK_PREPARED, "x"),
    ("PREPARE TRANSACTION U&'g'", Command.PREPARE_TRANSACTION, None),
    (r"COMMIT PREPARED E'\u00e9'", Command.COMMIT_PREPARED, None),
    (r"ROLLBACK PREPARED E'\351'", Command.ROLLBACK_PREPARED, None),
    ("EXECUTE q", Command.EXECUTE, "q"),
    ('EXECUTE "Q" (1, $1)', Command.EXECUTE, "Q"),
    ("DEALLOCATE q", Command.DEALLOCATE, "q"),
    ("DEALLOCATE PREPARE ALL", Command.DEALLOCATE, None),
    ("FETCH c", Command.FETCH, "c"),
    ("FETCH FORWARD 10 FROM c", Command.FETCH, "c"),
    ("MOVE ALL IN c", Command.FETCH, "c"),
    ("CLOSE c", Command.CLOSE, "c"),
    ("CLOSE ALL", Command.CLOSE, None),
    ("DISCARD ALL", Command.DISCARD_ALL, None),
    ("DISCARD PLANS", Command.UTILITY, None),
    ("DISCARD TEMP", Command.DISCARD_TEMP, None),
    ("LISTEN x", Command.UTILITY, None),
    ("LOCK users", Command.UTILITY, None),
    ("REFRESH MATERIALIZED VIEW m", Command.UTILITY, None),
    ("SHOW search_path", Command.NONE, None),
    ("COPY users TO STDOUT", Command.COPY, None),
    ("TRUNCATE users", Command.UTILITY, None),
    ("SELECT 1", Command.NONE, None),
    ("(SELECT 1)", Command.NONE, None),
]


@pytest.mark.parametrize(("text", "command", "name"), COMMANDS)
def test_command_and_name_are_recognised_behind_comments_and_semicolons(text, command, name):
    for spelled in (text, f"/* a /* b */ */ {text} ;; -- c"):
        made = plan(spelled)
        assert (made.command, made.name) == (command, name)
        assert not made.whole


@pytest.mark.parametrize(
    ("text", "chain"),
    [("COMMIT AND CHAIN", True), ("COMMIT AND NO CHAIN", False), ("ROLLBACK WORK AND CHAIN", True), ("COMMIT", False)],
)
def test_and_chain_is_recognised(text, chain):
    assert plan(text).chain is chain


def test_declare_and_prepare_hold_the_plan_of_their_statement():
    held = plan("DECLARE c BINARY INSENSITIVE NO SCROLL CURSOR WITH HOLD FOR SELECT name FROM users WHERE id = 4")
    assert (held.command, held.name, held.holdable) == (Command.DECLARE, "c", True)
    assert held.inner.reason is Reason.FILL_FIXED_KEY
    assert not held.fills
    assert not plan("DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1").holdable
    prepared = plan("PREPARE q AS DELETE FROM users WHERE id = $1")
    assert (prepared.command, prepared.name) == (Command.PREPARE, "q")
    assert prepared.inner.writes[0].action is Action.EVICT
    assert not prepared.writes


@pytest.mark.parametrize(
    "text", ["DECLARE c CURSOR", "DECLARE c", "DECLARE", "PREPARE q", "EXPLAIN (ANALYZE", "CREATE"]
)
def test_truncated_command_is_opaque(text):
    made = plan(text)
    assert made.reason is Reason.UNRELATED
    assert made.opaque


def test_materialized_view_without_a_query_is_a_definition():
    made = plan("CREATE MATERIALIZED VIEW users")
    assert not made.opaque
    assert made.ddl


def test_execute_has_operands_for_constants_and_is_opaque_if_it_calls():
    found, literals = plans("EXECUTE q (1, -2, 'it''s', NULL, true, $2, 1 + 1, '3'::int)")
    arguments = found[0].arguments
    assert arguments[:6] == (
        Operand(OperandSource.LITERAL, 0),
        Operand(OperandSource.LITERAL, 1, negative=True),
        Operand(OperandSource.LITERAL, 2),
        Operand(OperandSource.NULL),
        Operand(OperandSource.TRUE),
        Operand(OperandSource.PARAMETER, 1),
    )
    assert arguments[6:] == (None, None)
    assert literals[2] == Literal(b"it's", "string")
    assert not found[0].opaque
    assert plan("EXECUTE q (mine(1))").opaque


def test_semicolons_within_a_routine_or_rule_end_no_statement():
    text = (
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END;"
        "CREATE RULE r AS ON INSERT TO o DO (DELETE FROM a; DELETE FROM b); SELECT 1"
    )
    assert [one.command for one in plans(text)[0]] == [Command.UTILITY, Command.UTILITY, Command.NONE]


@pytest.mark.parametrize(
    ("text", "opaque"),
    [
        ("SET TRANSACTION SNAPSHOT '00000003-0000001B-1'", True),
        ("SET LOCAL TRANSACTION SNAPSHOT '00000003-0000001B-1'", True),
        ("set session transaction /* x */ snapshot E'00000003-0000001B-1'", True),
        ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY", False),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE", False),
        ("SET LOCAL transaction_isolation = 'serializable'", False),
        ("SET x.transaction TO snapshot", False),
        ("BEGIN ISOLATION LEVEL REPEATABLE READ", False),
        ("SELECT pg_export_snapshot()", False),
        ("SELECT pg_import_system_collations('public')", True),
        ("LOCK TABLE users IN SHARE MODE", False),
        ("REFRESH MATERIALIZED VIEW CONCURRENTLY m", True),
        ("EXPLAIN ANALYZE DECLARE c CURSOR FOR SELECT mine()", True),
        ("EXPLAIN DECLARE c CURSOR FOR SELECT mine()", False),
    ],
)
def test_statement_that_may_read_what_is_not_committed_is_opaque(text, opaque):
    made = plan(text)
    assert made.opaque is opaque
    assert not made.writes
    assert made.inner is None


def test_definition_whose_query_cannot_be_read_flushes_what_it_may_write():
    made = plan("CREATE TABLE o2 AS WITH d AS (DELETE FROM users FOO BAR RETURNING *) SELECT * FROM d")
    assert [write.action for write in made.writes] == [Action.FLUSH]
    assert made.opaque
    read = "CREATE TABLE o2 AS WITH d AS (DELETE FROM users WHERE id = 1 RETURNING *) TABLE d"
    assert effects(read) == "evict 1 uncounted"
    assert not plan("CREATE TABLE o2 AS SELECT * FROM users CROSS APPLY f()").writes


@pytest.mark.parametrize(
    "text",
    [
        "EXECUTE q 1",
        "EXECUTE q (1) x",
        "COPY users",
        "COPY users (id",
        "PREPARE TRANSACTION x",
        "SAVEPOINT 1",
        "(1",
        "1",
    ],
)
def test_command_with_another_grammar_is_opaque(text):
    assert plan(text).opaque


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("EXPLAIN (SELECT id, name FROM users)", Reason.NOT_RUN),
        ("EXPLAIN (VERBOSE, ANALYZE true) DELETE FROM users WHERE id = 1", Reason.EVICT_DELETE),
        ("EXPLAIN ANALYZE VERBOSE DELETE FROM users WHERE id = 1", Reason.EVICT_DELETE),
        ("EXPLAIN (ANALYZE 0) DELETE FROM users WHERE id = 1", Reason.NOT_RUN),
        ("EXPLAIN (COSTS) SELECT id, name FROM users", Reason.NOT_RUN),
    ],
)
def test_explain_runs_its_statement_with_analyze_only(text, reason):
    assert plan(text).reason is reason


def test_text_with_more_queries_than_the_parser_gets_ends_in_opaque_ones():
    found = plans("DELETE FROM users WHERE id = 1; BEGIN; " * (commands.MAX_QUERIES + 1))[0]
    deletes = [one for one in found if one.command is Command.NONE]
    assert [one.reason for one in deletes] == [Reason.EVICT_DELETE] * commands.MAX_QUERIES + [Reason.OPAQUE]
    assert found[-1].command is Command.BEGIN, "a command needs no parser"


def test_fault_of_the_reader_is_reported_and_its_statement_opaque(monkeypatch):
    def fail(tokens, aliases):
        raise AttributeError("a fault of ours")

    monkeypatch.setattr(queries, "read_query", fail)
    reported = []
    memo = PlanMemo(10, lambda where, error: reported.append((where, str(error))))
    (first, second), _ = memo.plans(b"DELETE FROM users WHERE id = 1; COMMIT", USERS, PUBLIC)
    assert reported == [("sql", "a fault of ours")]
    assert (first.reason, second.command) == (Reason.OPAQUE, Command.COMMIT)
    assert [write.action for write in first.writes] == [Action.FLUSH]
    with pytest.raises(AttributeError):
        PlanMemo(10).plans(b"DELETE FROM users WHERE id = 1", USERS, PUBLIC)
