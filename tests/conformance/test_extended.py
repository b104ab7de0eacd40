"""Uncommon uses of the extended protocol, compared message by message."""

import pytest

from cache import builtin_types
from tests.conformance.stages import plain_and_tls
from tests.conformance.wire import (
    FLUSH,
    SYNC,
    TERMINATE,
    bind,
    close_portal,
    close_statement,
    describe_portal,
    describe_statement,
    execute,
    parse,
    query,
    run,
)

UPDATE = "UPDATE items SET name = $1 WHERE id = $2"
DIVISION = "SELECT 1 / (id - id) FROM items"
INT4 = builtin_types.INT4


def test_flush_without_sync_delivers_each_answer(both):
    def script(wire):
        for messages, last in (
            ([parse("SELECT id, name FROM items WHERE id = $1", types=[INT4])], "1"),
            ([bind("1")], "2"),
            ([describe_portal()], "T"),
            ([execute()], "C"),
            ([bind("2"), execute()], "C"),
        ):
            wire.send(*messages, FLUSH)
            wire.read_until(last)
            assert wire.is_silent()
        wire.send(SYNC)
        wire.read_until("Z")

    assert both(script).kinds == "12TDC2DCZ$"


def test_twelve_pipelines_in_one_piece_are_answered_in_order(both):
    def script(wire):
        wire.send(parse(UPDATE, "u", [0, INT4]), describe_statement("u"), SYNC)
        for number in range(1, 11):
            wire.send(bind(f"new {number}", str(number), statement="u"), execute(), SYNC)
        wire.send(run("SELECT id, name FROM items ORDER BY id"), SYNC)
        wire.read_until("Z", 12)

    wire = both(script)
    assert wire.kinds == "1tnZ" + "2CZ" * 10 + "12T" + "D" * 20 + "CZ$"
    assert wire.values()[9] == [b"10", b"new 10"]


@plain_and_tls
@pytest.mark.parametrize("chunk", [1, 5, 7])
def test_pipeline_cut_into_small_pieces_is_relayed_unchanged(both, chunk):
    def script(wire):
        wire.send(run(UPDATE, "split", "3"), SYNC, query("SELECT name FROM items WHERE id = 3"), chunk=chunk)
        wire.read_until("Z", 2)

    assert both(script).values() == [[b"split"]]


@plain_and_tls
def test_error_in_the_middle_of_a_pipeline_undoes_the_whole_pipeline(both):
    def script(wire):
        wire.send(run(UPDATE, "lost", "1"), run(DIVISION), run(UPDATE, "never", "2"), FLUSH, SYNC)
        wire.send(run("SELECT name FROM items WHERE id < 3 ORDER BY id"), SYNC)
        wire.read_until("Z", 2)

    wire = both(script)
    assert wire.kinds == "12nC12TEZ12TDDCZ$"
    assert wire.values() == [[b"item 1"], [b"item 2"]]


@pytest.mark.parametrize(
    ("messages", "sqlstate"),
    [
        ([parse("SELEC 1"), bind(), execute()], "42601"),
        ([parse("SELECT * FROM nowhere"), bind()], "42P01"),
        ([parse("SELECT 1; SELECT 2")], "42601"),
        ([parse("SELECT $1::int"), bind("x")], "22P02"),
        ([parse("SELECT $1::int"), bind()], "08P01"),
        ([parse("SELECT $1::int"), bind(b"\0\0\0\0\1", formats=[1])], "22P03"),
        ([parse("SELECT $1::int"), bind("1", formats=[0, 0])], "08P01"),
        ([parse("SELECT $1::int"), bind("1", formats=[7])], "22023"),
        ([parse("SELECT 1, 2"), bind(results=[1, 1, 1]), execute()], "08P01"),
        ([bind(statement="absent"), execute()], "26000"),
        ([execute("absent")], "34000"),
        ([describe_statement("absent")], "26000"),
        ([describe_portal("absent")], "34000"),
        ([parse("\N{SNOWMAN}", "\N{SNOWMAN}")], "42601"),
        ([b"P\0\0\0\x0b\0'\xff'\0\0\0"], "22021"),
    ],
)
def test_messages_after_an_error_are_skipped_up_to_sync(both, messages, sqlstate):
    skip_to_sync(both, messages, sqlstate)


@pytest.mark.parametrize(
    "frame",
    [b"B\0\0\0\x05\0", b"P\0\0\0\x06a\0", b"D\0\0\0\x06x\0", b"C\0\0\0\x06x\0", b"E\0\0\0\x05\0"],
)
def test_messages_after_a_malformed_body_are_skipped_up_to_sync(both, may_go_blind, frame):
    skip_to_sync(both, [frame], "08P01")


def skip_to_sync(both, messages, sqlstate):
    """`messages` fail with `sqlstate`, and the following statements are executed from the Sync on."""

    def script(wire):
        wire.send(*messages, parse("SELECT 'skipped'"), bind(), execute(), FLUSH)
        wire.read_until("E")
        assert wire.is_silent(0.02)
        wire.send(describe_portal(), SYNC, run("SELECT name FROM items WHERE id = 1"), SYNC)
        wire.read_until("Z", 2)

    wire = both(script)
    assert wire.sqlstates() == [sqlstate]
    assert wire.kinds.endswith("EZ12TDCZ$")


@plain_and_tls
def test_suspended_portals_are_resumed_in_any_order(both):
    def script(wire):
        wire.query("BEGIN")
        wire.send(parse("SELECT id, name FROM items ORDER BY id", "all"))
        wire.send(bind(statement="all", portal="p"), bind(statement="all", portal="q"), SYNC)
        for portal, rows in (
            ("p", 2),
            ("q", 3),
            ("p", 5),
            ("q", 1),
            ("p", 13),
            ("p", 0),
            ("p", 0),
            ("q", 16),
            ("q", -1),
        ):
            wire.send(execute(portal, rows), SYNC)
        wire.send(close_portal("p"), execute("p"), SYNC)
        wire.read_until("Z", 11)
        wire.query("COMMIT")

    wire = both(script)
    assert wire.kinds.count("s") == 6
    assert wire.sqlstates() == ["34000"]


def test_suspended_portal_does_not_exist_after_its_transaction(both):
    def script(wire):
        wire.send(parse("SELECT id FROM items ORDER BY id"), bind(portal="p"), execute("p", 2), FLUSH)
        wire.read_until("s")
        wire.send(execute("p", 2), SYNC, execute("p", 2), SYNC)
        wire.read_until("Z", 2)

    wire = both(script)
    assert wire.kinds == "12DDsDDsZEZ$"


def test_suspended_update_with_returning_is_resumed(both):
    def script(wire):
        wire.query("BEGIN")
        wire.send(
            parse("UPDATE items SET name = 'u' || id WHERE id < 6 RETURNING id, name"), bind(), execute("", 2), SYNC
        )
        wire.send(execute("", 2), SYNC, execute("", 2), SYNC)
        wire.read_until("Z", 3)
        wire.query("COMMIT")

    assert both(script).kinds == "CZ" + "12DDsZ" + "DDsZ" + "DCZ" + "CZ$"


def test_statement_name_can_be_reused_only_after_close_unless_it_is_empty(both):
    def script(wire):
        wire.send(parse("SELECT 1", "s"), SYNC, parse("SELECT 'other'", "s"), SYNC)
        wire.send(bind(statement="s"), execute(), SYNC)
        wire.send(
            close_statement("s"),
            parse("SELECT 'third' FROM items WHERE id = 1", "s"),
            bind(statement="s"),
            execute(),
            SYNC,
        )
        wire.send(parse("SELECT 'a'"), parse("SELECT 'b'"), bind(), parse("SELECT 'c'"), execute(), SYNC)
        wire.read_until("Z", 5)

    wire = both(script)
    assert wire.sqlstates() == ["42P05"]
    assert wire.values() == [[b"1"], [b"third"], [b"b"]]


def test_portal_name_in_use_cannot_be_bound_unless_it_is_empty(both):
    def script(wire):
        wire.query("BEGIN")
        wire.send(
            parse("SELECT $1::text", "s"),
            bind("a", statement="s", portal="p"),
            bind("b", statement="s", portal="p"),
            SYNC,
        )
        wire.query("ROLLBACK")
        wire.read_until("Z")
        wire.send(bind("a", statement="s"), bind("b", statement="s"), execute(), SYNC)
        wire.read_until("Z")

    wire = both(script)
    assert wire.sqlstates() == ["42P03"]
    assert wire.values() == [[b"b"]]


def test_close_of_a_missing_statement_or_portal_succeeds(both):
    def script(wire):
        wire.send(close_statement("absent"), close_portal("absent"), close_statement(), close_portal(), SYNC)
        wire.send(parse("SELECT 1"), close_statement(), bind(), SYNC)
        wire.read_until("Z", 2)

    assert both(script).kinds == "3333Z13EZ$"


@pytest.mark.parametrize("wipe", ["DEALLOCATE ALL", "DISCARD ALL", "DEALLOCATE s"])
@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
def test_statement_names_removed_by_a_command_do_not_exist_afterwards(both, wipe, extended):
    def script(wire):
        wire.send(parse("SELECT 'before'", "s"), parse("SELECT 'kept'", "t"), SYNC)
        wire.read_until("Z")
        if extended:
            wire.send(run(wipe), SYNC)
            wire.read_until("Z")
        else:
            wire.query(wipe)
        wire.send(bind(statement="s"), execute(), SYNC, bind(statement="t"), execute(), SYNC)
        wire.send(parse("SELECT name FROM items WHERE id = 1", "s"), bind(statement="s"), execute(), SYNC)
        wire.read_until("Z", 3)

    wire = both(script)
    assert wire.sqlstates() == ["26000"] * (1 if wipe == "DEALLOCATE s" else 2)
    assert wire.values()[-1] == [b"item 1"]


def test_describe_may_be_repeated_omitted_or_come_after_execute(both):
    def script(wire):
        wire.send(
            parse("SELECT name, id FROM items WHERE id = $1", "s"),
            describe_statement("s"),
            describe_statement("s"),
            SYNC,
        )
        wire.send(bind("1", statement="s", results=[0, 1]), describe_portal(), execute(), SYNC)
        wire.send(bind("2", statement="s", results=[1]), execute(), SYNC)
        wire.send(bind("3", statement="s"), execute(), describe_portal(), SYNC)
        wire.send(
            parse("UPDATE items SET name = 'x' WHERE false", "u"), describe_statement("u"), bind(statement="u"), SYNC
        )
        wire.read_until("Z", 5)

    assert both(script).kinds == "1tTtTZ2TDCZ2DCZ2DCTZ1tn2Z$"


def test_prepared_statement_whose_columns_changed_has_the_same_error(both):
    def script(wire):
        wire.query("CREATE TEMP TABLE changing AS SELECT 1 AS a")
        wire.send(parse("SELECT * FROM changing", "s"), describe_statement("s"), bind(statement="s"), execute(), SYNC)
        wire.read_until("Z")
        wire.query("ALTER TABLE changing ADD b text")
        wire.send(bind(statement="s"), execute(), SYNC, describe_statement("s"), SYNC)
        wire.read_until("Z", 2)
        wire.query("DROP TABLE changing")
        wire.send(bind(statement="s"), execute(), SYNC)
        wire.read_until("Z")

    assert both(script).sqlstates() == ["0A000", "0A000", "42P01"]


def test_unnamed_statement_survives_the_injected_catalog_query(both):
    """After DDL the proxy may send its catalog query; sent as a simple query it would destroy the client's unnamed
    statement."""

    def script(wire):
        wire.send(parse("ALTER TABLE items ALTER name SET STATISTICS 100"), bind(), execute(), SYNC)
        wire.read_until("Z")
        wire.send(bind(), execute(), SYNC)
        wire.read_until("Z")
        wire.send(parse("SELECT name FROM items WHERE id = $1"), SYNC)
        wire.read_until("Z")
        wire.send(bind("4"), execute(), SYNC)
        wire.read_until("Z")

    wire = both(script)
    assert wire.kinds == "12CZ2CZ1Z2DCZ$"


def test_rows_without_columns_are_relayed_unchanged(both):
    def script(wire):
        wire.query("SELECT FROM items LIMIT 3")
        wire.send(run("SELECT FROM items LIMIT 3"), SYNC)
        wire.read_until("Z")

    wire = both(script)
    assert wire.kinds == "TDDDCZ12TDDDCZ$"
    assert wire.values() == [[]] * 6


def test_rows_of_1600_columns_are_relayed_unchanged(both):
    def script(wire):
        columns = ", ".join(f"id AS c{number}" for number in range(1599))
        wire.send(run(f"SELECT {columns}, name FROM items"), SYNC)
        wire.read_until("Z")
        wire.query(f"CREATE TEMP TABLE wide ({', '.join(f'c{number} int' for number in range(1600))})")
        wire.query("INSERT INTO wide (c0, c1599) VALUES (1, 2)")
        wire.query("SELECT * FROM wide")

    wire = both(script)
    assert [len(row) for row in wire.values()] == [1600] * 21


def test_bind_of_65535_parameters_is_relayed_unchanged(both):
    numbers = [str(number) for number in range(65_535)]

    def script(wire):
        places = ", ".join(f"${number + 1}" for number in range(65_535))
        wire.send(parse(f"SELECT sum(n) FROM unnest(ARRAY[{places}]) AS n", types=[INT4] * 65_535))
        wire.send(describe_statement(), bind(*numbers), execute(), SYNC)
        wire.read_until("Z")

    assert both(script).values() == [[str(sum(range(65_535))).encode()]]


def test_empty_queries_are_relayed_unchanged(both):
    def script(wire):
        for text in ("", " ", ";", "-- nothing\n", ";;"):
            wire.query(text)
            wire.send(run(text), SYNC)
            wire.read_until("Z")

    wire = both(script)
    assert wire.kinds == "IZ12nIZ" * 4 + "IZ12nIZ$"


def test_sync_alone_and_within_a_block_is_answered(both):
    def script(wire):
        wire.send(SYNC, SYNC, FLUSH, SYNC)
        wire.read_until("Z", 3)
        wire.send(run("BEGIN"), run(UPDATE, "inside", "1"), SYNC, run("SELECT name FROM items WHERE id = 1"), SYNC)
        wire.send(run("SELECT 1 / 0"), SYNC, run("SELECT 2"), SYNC, run("COMMIT"), SYNC)
        wire.send(run("SELECT name FROM items WHERE id = 1"), SYNC)
        wire.read_until("Z", 6)

    wire = both(script)
    assert wire.values() == [[b"inside"], [b"item 1"]]
    assert wire.sqlstates() == ["22012", "25P02"]


def test_transaction_commands_within_one_pipeline_take_effect(both):
    def script(wire):
        wire.send(run(UPDATE, "kept", "1"), run("COMMIT"), run(UPDATE, "lost", "2"), run("SELECT 1 / 0"), SYNC)
        wire.send(run("BEGIN"), run(UPDATE, "lost", "3"), run("ROLLBACK"), run(UPDATE, "kept", "4"), SYNC)
        wire.send(run("SAVEPOINT s"), SYNC, run("SELECT name FROM items WHERE id < 5 ORDER BY id"), SYNC)
        wire.read_until("Z", 4)

    wire = both(script)
    assert [value for (value,) in wire.values()] == [b"kept", b"item 2", b"item 3", b"kept"]


def test_simple_query_within_a_pipeline_destroys_unnamed_statement_and_portals(both):
    def script(wire):
        wire.send(parse("SELECT 'unnamed'"), bind(), query("SELECT 'simple'"), execute(), SYNC, bind(), SYNC)
        wire.read_until("Z", 3)
        wire.send(parse("SELECT 'named'", "n"), bind(statement="n", portal="p"), query("SELECT 1"), execute("p"), SYNC)
        wire.read_until("Z", 2)

    wire = both(script)
    assert wire.values() == [[b"simple"], [b"1"]]
    assert wire.sqlstates() == ["34000", "26000", "34000"]


def test_binary_and_text_formats_in_both_directions_are_relayed_unchanged(both):
    def script(wire):
        wire.send(parse("SELECT id, name, price, data, tags FROM items WHERE id = $1 OR name = $2", "s", [INT4, 25]))
        for results in ((), (0,), (1,), (0, 1, 0, 1, 0), (1, 0, 1, 0, 1)):
            wire.send(bind(b"\0\0\0\x05", "item 6", statement="s", formats=[1, 0], results=results), execute())
        wire.send(bind(None, b"item 7", statement="s", formats=[1]), execute(), SYNC)
        wire.read_until("Z")

    wire = both(script)
    assert wire.kinds == "1" + "2DDC" * 5 + "2DCZ$"
    assert wire.values()[4][0] == b"\0\0\0\x05"


def test_values_of_several_megabytes_in_both_directions_are_relayed_unchanged(both):
    size = 3 << 20

    def script(wire):
        wire.send(run("INSERT INTO plain VALUES (1, $1)", "x" * size), SYNC)
        wire.send(run("UPDATE items SET data = $1 WHERE id = 1", "\\x" + "00ff" * size), SYNC)
        wire.send(run("SELECT note FROM plain"), run("SELECT data, name FROM items WHERE id = 1"), SYNC)
        wire.read_until("Z", 3)

    wire = both(script)
    assert [len(value) for row in wire.values() for value in row] == [size, 2 + 4 * size, 6]


def test_cursors_and_statements_made_by_sql_commands_are_usable_by_messages(both):
    def script(wire):
        wire.query("BEGIN; DECLARE c CURSOR FOR SELECT id, name FROM items ORDER BY id")
        wire.query("FETCH 2 FROM c; FETCH ABSOLUTE 5 FROM c; MOVE BACKWARD 2 IN c")
        wire.send(describe_portal("c"), execute("c", 2), SYNC, run("FETCH ALL FROM c"), SYNC)
        wire.read_until("Z", 2)
        wire.query("CLOSE c; COMMIT")
        wire.query("PREPARE q(int) AS SELECT name FROM items WHERE id = $1; EXECUTE q(3)")
        wire.send(describe_statement("q"), bind("4", statement="q"), execute(), SYNC)
        wire.send(run("EXECUTE q(5)"), SYNC, close_statement("q"), SYNC, run("EXECUTE q(5)"), SYNC)
        wire.read_until("Z", 4)

    wire = both(script)
    assert wire.values()[-3:] == [[b"item 3"], [b"item 4"], [b"item 5"]]
    assert wire.sqlstates() == ["26000"]


def test_terminate_within_a_pipeline_ends_the_session(both):
    def script(wire):
        wire.send(run(UPDATE, "gone", "1"), FLUSH)
        wire.read_until("C")
        wire.send(run(UPDATE, "gone", "2"), TERMINATE)
        wire.read_to_end()

    assert both(script).kinds == "12nC$"
