"""Observation: constants, rows and row counts become changes; shapes are chosen once and shared."""

from __future__ import annotations

from struct import pack

import pytest

from cache.capture.arguments import Arguments
from cache.capture.known import MAX_FRAME, MAX_FRAMES, MAX_SHAPES, NO_SHAPE, Known
from cache.capture.rows import MAX_BYTES, MAX_RETURNED, Reader, taps
from cache.capture.write_changes import changes_of_write
from cache.rules import ValueFormat
from cache.sql.plans import Operand, OperandSource
from cache.values.loading import CANONICAL
from protocol.backend import FieldDescription, RowDescription
from tests.cache.catalogs import USERS, USERS_COLUMNS, bound, catalog, plan, plans, relation

ID, NAME = FieldDescription(b"id", 1, 1, 23, 4), FieldDescription(b"name", 1, 2, 25)
EMAIL = FieldDescription(b"email", 1, 3, 1043)
ELSEWHERE = FieldDescription(b"id", 2, 1, 23, 4)
TABLE = relation(1, "users", USERS_COLUMNS)
HASH = catalog(TABLE, bound(TABLE, value=("name", "email"), style=ValueFormat.HASH))
PAIR = catalog(TABLE, bound(TABLE, key=("id", "email")))
NOBODY = Arguments(())


def shown(changes):
    return [
        f"{change.kind.name} {change.key.decode()}" + (f" {change.value}" if change.value else "") for change in changes
    ]


def tap(text, *fields, where=USERS, formats=None):
    found, refused = taps(plan(text, where), fields, formats or [0] * len(fields), CANONICAL)
    assert not refused, refused
    (one,) = found
    return one


def read(text, fields, rows, *, where=USERS, formats=None, arguments=NOBODY):
    reader = Reader(tap(text, *fields, where=where, formats=formats), arguments)
    for row in rows:
        reader.read(row)
    return reader.rows


# Arguments


def parameter(raw, formats=(), types=(), index=0, **facts):
    operand = Operand(OperandSource.PARAMETER, index, **facts)
    return Arguments((), [raw], formats, types, settings=CANONICAL).text(USERS.bound[0].key[0], operand)


@pytest.mark.parametrize(
    ("raw", "formats", "types", "text"),
    [
        (b"07", (), (), b"7"),
        (b"7", (0,), (23,), b"7"),
        (pack("!i", 7), (1,), (23,), b"7"),
        (pack("!q", 7), (1,), (20,), b"7"),
        (pack("!q", 7), (1,), (23,), None),
        (b"x", (), (), None),
        (None, (), (), None),
    ],
)
def test_a_parameter_is_what_the_server_reads(raw, formats, types, text):
    assert parameter(raw, formats, types) == text


def test_a_parameter_that_was_not_sent():
    assert parameter(b"7", index=1) is None
    arguments = Arguments((), [b"7", None], [0, 0])
    assert not arguments.is_null(Operand(OperandSource.PARAMETER, 0))
    assert arguments.is_null(Operand(OperandSource.PARAMETER, 1))
    assert not arguments.is_null(Operand(OperandSource.PARAMETER, 2))
    assert arguments.is_null(Operand(OperandSource.NULL))
    assert not arguments.is_null(Operand(OperandSource.TRUE))


def test_the_arguments_of_execute_stand_for_parameters():
    (execute,), literals = plans("EXECUTE p (7, NULL)")
    inner = Arguments((), outer=(Arguments(literals, settings=CANONICAL), execute.arguments))
    key = USERS.bound[0].key[0]
    assert inner.text(key, Operand(OperandSource.PARAMETER, 0)) == b"7"
    assert inner.text(key, Operand(OperandSource.PARAMETER, 1)) is None
    assert inner.is_null(Operand(OperandSource.PARAMETER, 1))
    assert inner.text(key, Operand(OperandSource.PARAMETER, 2)) is None
    assert inner.array(key, Operand(OperandSource.PARAMETER, 0)) is None


# Rows


def test_rows_by_key_and_value():
    rows = [[b"1", b"ann"], [None, b"x"], [b"2", None]]
    assert read("SELECT id, name FROM users", [ID, NAME], rows) == [(b"users:1", b"ann"), (b"users:2", None)]


def test_rows_in_binary():
    rows = [[pack("!i", 1), b"ann"], [b"\0", b"x"]]
    reader = Reader(tap("SELECT id, name FROM users", ID, NAME, formats=[1, 1]), NOBODY)
    for row in rows:
        reader.read(row)
    assert reader.rows == [(b"users:1", b"ann")]
    assert (reader.complete, reader.unreadable) == (False, 1)


def test_a_key_that_the_statement_fixes():
    arguments = Arguments(plans("SELECT name FROM users WHERE id = 5")[1], settings=CANONICAL)
    rows = [[b"ann"], [None]]
    assert read("SELECT name FROM users WHERE id = 5", [NAME], rows, arguments=arguments) == [
        (b"users:5", b"ann"),
        (b"users:5", None),
    ]


def test_a_key_in_the_row_goes_before_one_that_is_fixed():
    found = tap("SELECT id, name FROM users WHERE id = $1", ID, NAME)
    assert found.fixed == (None,)
    assert Reader(found, NOBODY).read([b"1", b"ann"])


def test_a_fixed_key_that_is_not_certain():
    reader = Reader(tap("SELECT name FROM users WHERE id = $1", NAME), Arguments((), [b"x"]))
    assert not reader.read([b"ann"])
    assert (reader.rows, reader.unreadable) == ([], 1)


def test_two_key_columns():
    fields, row = [ID, EMAIL, NAME], [b"1", b"a:b", b"ann"]
    assert read("SELECT id, email, name FROM users", fields, [row], where=PAIR) == [(b"users:1:a%3Ab", b"ann")]
    text = "SELECT email, name FROM users WHERE id = 1"
    arguments = Arguments(plans(text, PAIR)[1], settings=CANONICAL)
    assert read(text, [EMAIL, NAME], [row[1:]], where=PAIR, arguments=arguments) == [(b"users:1:a%3Ab", b"ann")]
    assert read("SELECT email, name FROM users WHERE id = $1", [EMAIL, NAME], [row[1:]], where=PAIR) == []


def test_a_hash():
    fields = [NAME, ID, EMAIL]
    rows = [[b"ann", b"1", None], [None, b"2", None]]
    found = [(b"users:1", {b"name": b"ann"}), (b"users:2", None)]
    assert read("SELECT name, id, email FROM users", fields, rows, where=HASH) == found


@pytest.mark.parametrize(
    ("fields", "reason"),
    [([ID], "column not in the result"), ([ELSEWHERE, NAME], "column not in the result")],
)
def test_what_cannot_be_filled_says_why(fields, reason):
    found, refused = taps(plan("SELECT * FROM users"), fields, [0] * len(fields), CANONICAL)
    assert not found
    assert [reason for _, reason in refused] == [reason]


def test_no_more_rows_than_the_rule_says():
    reader = Reader(tap("SELECT id, name FROM users", ID, NAME), NOBODY)
    most = USERS.bound[0].rule.max_rows
    told = [reader.read([b"%d" % number, b"x"]) for number in range(most + 1)]
    assert told == [True] * (most - 1) + [False] * 2
    assert (len(reader.rows), reader.unreadable) == (most, 1)


def test_a_reader_says_when_it_holds_much():
    reader = Reader(tap("SELECT id, name FROM users", ID, NAME), NOBODY)
    value = b"x" * (MAX_BYTES // 4)
    for number in range(4):
        assert reader.read([b"%d" % number, value])
    assert reader.room == 0
    assert reader.read([b"4", value])
    assert reader.room < 0
    assert len(reader.take()) == 5
    assert (reader.rows, reader.room, reader.complete) == ([], MAX_BYTES, True)
    most = USERS.bound[0].rule.max_rows
    told = [reader.read([b"%d" % number, b"x"]) for number in range(5, most + 1)]
    assert told == [True] * (most - 6) + [False] * 2, "what was taken counts"


def test_of_many_rows_that_were_written_the_keys_are_held():
    text = "UPDATE users SET name = upper(name) RETURNING id, name"
    reader = Reader(tap(text, ID, NAME), NOBODY)
    value = b"x" * (MAX_BYTES // 2)
    for number in range(4):
        assert reader.read([b"%d" % number, value])
    assert reader.rows == [(b"users:0", value), (b"users:1", value), (b"users:2", None), (b"users:3", None)]
    assert reader.complete


# Writes


def written(text, count, *, where=USERS, arguments=None, rows=None, fields=(ID, NAME), certain=True):
    (found,), literals = plans(text, where)
    arguments = arguments or Arguments(literals, settings=CANONICAL)
    (write,) = found.writes
    reader = None
    if rows is not None:
        ((tap,), _) = taps(found, fields, [0] * len(fields), CANONICAL)
        reader = Reader(tap, arguments)
        for row in rows:
            reader.read(row)
    return shown(changes_of_write(write, arguments, count, reader, (1, 1), certain=certain))


ONE = "UPDATE users SET name = 'a' WHERE id = 1"


@pytest.mark.parametrize(
    ("text", "count", "changes"),
    [
        (ONE, 1, ["STORE users:1 b'a'"]),
        (ONE, 0, []),
        (ONE, None, ["EVICT users:1"]),
        ("UPDATE users SET name = NULL WHERE id = 1", 1, ["EVICT users:1"]),
        ("UPDATE users SET name = 'a' WHERE id = 'x'", 1, ["FLUSH "]),
        ("UPDATE users SET name = 'a' WHERE name = 'b'", 3, ["FLUSH "]),
        ("UPDATE users SET name = 'a' WHERE id IN (1, 2)", 2, ["STORE users:1 b'a'", "STORE users:2 b'a'"]),
        ("DELETE FROM users WHERE id = 1", 1, ["EVICT users:1"]),
        ("DELETE FROM users", 0, []),
    ],
)
def test_a_write(text, count, changes):
    assert written(text, count) == changes


def test_no_row_has_a_null_key():
    arguments = Arguments((), [None])
    assert written("UPDATE users SET name = 'a' WHERE id = $1", 1, arguments=arguments) == []


def test_fewer_rows_than_keys_leave_all_of_them_in_doubt():
    text = "UPDATE users SET name = 'a' WHERE id IN (1, 2)"
    assert sorted(written(text, 1)) == ["EVICT users:1", "EVICT users:2"]


def test_nothing_is_stored_by_an_uncertain_catalog():
    assert written(ONE, 1, certain=False) == ["EVICT users:1"]
    returning = "UPDATE users SET name = upper(name) RETURNING id, name"
    assert written(returning, 1, rows=[[b"1", b"A"]], certain=False) == ["EVICT users:1"]


def test_the_rows_of_returning():
    text = "UPDATE users SET name = upper(name) RETURNING id, name"
    assert written(text, 2, rows=[[b"1", b"A"], [b"2", None]]) == ["STORE users:1 b'A'", "EVICT users:2"]
    assert written(text, 3, rows=[[b"1", b"A"], [b"2", b"B"]]) == ["FLUSH "], "one row was not seen"
    assert written(text, 2, rows=[[b"1", b"A"]], fields=(ID,)) == ["FLUSH "]
    assert written(text, 1, rows=[[b"1"]], fields=(ID,)) == ["EVICT users:1"]
    many = [[b"%d" % number, b"x"] for number in range(MAX_RETURNED + 1)]
    assert written(text, len(many), rows=many) == ["FLUSH "]


def test_some_fields_of_a_hash():
    (found,), literals = plans("UPDATE users SET name = 'a' WHERE id = 1", HASH)
    (change,) = changes_of_write(
        found.writes[0], Arguments(literals, settings=CANONICAL), 1, None, (1, 1), certain=True
    )
    assert (change.partial, change.value, change.removed) == (True, {b"name": b"a"}, ())
    (found,), literals = plans("UPDATE users SET email = NULL WHERE id = 1", HASH)
    (change,) = changes_of_write(
        found.writes[0], Arguments(literals, settings=CANONICAL), 1, None, (1, 1), certain=True
    )
    assert (change.partial, change.value, change.removed) == (True, {}, (b"email",))


# What sessions share


def known(where=USERS):
    strangers: list[int] = []
    return Known(where, CANONICAL, strangers.append), strangers


def description(*fields):
    return RowDescription(fields).body()


def test_a_shape_is_made_once():
    view = known()[0].view(plan("SELECT * FROM users"))
    shape = view.shape(description(ID, NAME))
    assert shape.columns == 2
    assert not shape.arguments
    assert view.shape(description(ID, NAME)) is shape
    assert view.shape(description(NAME, ID, EMAIL)).columns == 2
    for number in range(MAX_SHAPES):
        view.shape(description(ID, NAME, FieldDescription(b"%d" % number)))
    assert view.shape(description(ID, NAME)) is not shape, "it was forgotten"


@pytest.mark.parametrize(
    ("formats", "loaded"),
    [
        (b"\0\0", [b"users:1"]),
        (b"\0\1\0\0", [b"users:1"]),
        (b"\0\1\0\1", []),
        (b"\0\2\0\0\0\1", [b"users:1"]),
        (b"\0\3\0\0\0\0\0\0", None),
    ],
)
def test_result_formats_as_bind_says_them(formats, loaded):
    shape = known()[0].view(plan("SELECT * FROM users")).shape(description(ID, NAME), formats)
    if loaded is None:
        assert shape is NO_SHAPE
        return
    reader = Reader(shape.taps[0], NOBODY)
    reader.read([b"1", b"ann"])
    assert [key for key, _ in reader.rows] == loaded


def test_strangers_are_told_of():
    where, strangers = known()
    view = where.view(plan("SELECT * FROM users"))
    view.shape(description(ELSEWHERE, NAME))
    assert strangers == [], "one of the tables is known"
    view.shape(description(ELSEWHERE))
    view.shape(description(ELSEWHERE))
    assert strangers == [2]
    where.view(plan("SELECT 1")).shape(description(ELSEWHERE, ID))
    assert strangers == [2], "only where a configured name stands in the statement"


@pytest.mark.parametrize(
    ("text", "only_reads", "counted"),
    [
        ("SELECT 1", True, ()),
        ("SELECT * FROM users", True, (("public.users", "fill"),)),
        ("SELECT count(*) FROM users", True, None),
        ("SELECT strange(1)", False, ()),
        ("DELETE FROM users", False, (("public.users", "flush-unknown-key"),)),
        ("DELETE FROM accounts", False, ()),
        ("BEGIN", False, ()),
        ("SET x.y = 1", False, ()),
        ("CREATE TEMP TABLE t (x int)", False, ()),
    ],
)
def test_what_only_reads(text, only_reads, counted):
    found = plan(text)
    view = known()[0].view(found)
    assert view.only_reads is only_reads
    assert view.quiet is found.trivial
    if counted is not None:
        assert view.counted == counted


def test_what_is_known_is_bounded():
    where, _ = known()
    view = where.view(plan("SELECT 1"))
    where.remember_query(b"x" * (MAX_FRAME + 1), view, ())
    assert not where.queries
    for number in range(MAX_FRAMES + 1):
        where.remember_query(b"%d" % number, view, ())
        where.remember_parsed(b"%d" % number, (view, (), b"", ()))
    assert len(where.queries) == len(where.parsed) == 1
