"""Rows of a result: which columns are read, and what keys and values they make."""

from __future__ import annotations

from struct import pack

import pytest

from cache.capture.arguments import Arguments
from cache.capture.rows import MAX_BYTES, MAX_RETURNED, RowCollector, row_plans
from cache.changes import Kind
from cache.values.loading import CANONICAL
from tests.cache.capture.results import (
    DATED,
    DATED_HASH,
    EMAIL,
    HASH,
    ID,
    NAME,
    NO_ARGUMENTS,
    OF_ANOTHER_TABLE,
    PAIR,
    SEEN,
    collect,
    row_plan,
)
from tests.cache.catalogs import USERS, plan, plans

MAX_ROWS = USERS.bound[0].rule.max_rows
SELECT = "SELECT id, name FROM users"
RETURNING = "UPDATE users SET name = upper(name) RETURNING id, name"


def constants(text, where=USERS):
    return Arguments(plans(text, where)[1], settings=CANONICAL)


def test_row_makes_its_key_and_value():
    rows = [[b"1", b"ann"], [b"2", None]]
    assert collect(SELECT, [ID, NAME], rows).rows == [(b"users:1", b"ann"), (b"users:2", None)]


def test_row_with_a_null_key_is_left_out_and_is_not_unreadable():
    collector = collect(SELECT, [ID, NAME], [[None, b"x"]])
    assert (collector.rows, collector.complete, collector.unreadable) == ([], True, 0)


def test_binary_row_is_read_and_one_with_an_uncertain_key_is_unreadable():
    rows = [[pack("!i", 1), b"ann"], [b"\0", b"x"]]
    collector = collect(SELECT, [ID, NAME], rows, formats=[1, 1])
    assert collector.rows == [(b"users:1", b"ann")]
    assert (collector.complete, collector.unreadable) == (False, 1)


@pytest.mark.parametrize(
    ("text", "fields", "where", "row"),
    [
        ("SELECT id, seen FROM users", [ID, SEEN], DATED, [b"1", b"soon"]),
        ("SELECT seen FROM users WHERE id = 5", [SEEN], DATED, [b"soon"]),
        ("SELECT id, name, seen FROM users", [ID, NAME, SEEN], DATED_HASH, [b"1", b"ann", b"soon"]),
    ],
    ids=["key in the row", "key fixed", "several values"],
)
def test_row_whose_value_is_not_certain_is_unreadable(text, fields, where, row):
    arguments = constants(text, where)
    collector = collect(text, fields, [row], where=where, arguments=arguments)
    assert (collector.rows, collector.unreadable) == ([], 1)
    certain = [*row[:-1], b"2024-01-01 00:00:00+00"]
    assert len(collect(text, fields, [certain], where=where, arguments=arguments).rows) == 1


def test_key_fixed_by_the_statement_is_that_of_each_row():
    text = "SELECT name FROM users WHERE id = 5"
    rows = collect(text, [NAME], [[b"ann"], [None]], arguments=constants(text)).rows
    assert rows == [(b"users:5", b"ann"), (b"users:5", None)]


def test_key_in_the_row_is_preferred_to_the_one_the_statement_fixes():
    found = row_plan("SELECT id, name FROM users WHERE id = $1", ID, NAME)
    assert found.fixed == (None,)
    assert RowCollector(found, NO_ARGUMENTS).add([b"1", b"ann"])


def test_rows_are_unreadable_if_the_fixed_key_is_not_certain():
    collector = RowCollector(row_plan("SELECT name FROM users WHERE id = $1", NAME), Arguments((), [b"x"]))
    assert not collector.add([b"ann"])
    assert (collector.rows, collector.unreadable) == ([], 1)


def test_key_of_two_columns_is_read_from_the_row_the_statement_or_both():
    fields, row = [ID, EMAIL, NAME], [b"1", b"a:b", b"ann"]
    made = [(b"users:1:a%3Ab", b"ann")]
    assert collect("SELECT id, email, name FROM users", fields, [row], where=PAIR).rows == made
    text = "SELECT email, name FROM users WHERE id = 1"
    arguments = constants(text, PAIR)
    assert collect(text, [EMAIL, NAME], [row[1:]], where=PAIR, arguments=arguments).rows == made
    text = "SELECT email, name FROM users WHERE id = $1"
    assert collect(text, [EMAIL, NAME], [row[1:]], where=PAIR).rows == [], "the constant is not certain"


@pytest.mark.parametrize(
    ("row", "formats", "unreadable"),
    [([None, b"a", b"x"], [0, 0, 0], 0), ([b"\0", b"a", b"x"], [1, 0, 0], 1)],
    ids=["NULL", "not certain"],
)
def test_row_without_all_parts_of_its_key_is_left_out(row, formats, unreadable):
    collector = collect("SELECT id, email, name FROM users", [ID, EMAIL, NAME], [row], where=PAIR, formats=formats)
    assert (collector.rows, collector.unreadable) == ([], unreadable)


def test_hash_has_the_columns_that_are_not_null_and_none_of_all_null_rows():
    fields = [NAME, ID, EMAIL]
    rows = [[b"ann", b"1", None], [None, b"2", None]]
    made = [(b"users:1", {b"name": b"ann"}), (b"users:2", None)]
    assert collect("SELECT name, id, email FROM users", fields, rows, where=HASH).rows == made


@pytest.mark.parametrize("fields", [[ID], [NAME], [OF_ANOTHER_TABLE, NAME]], ids=["value", "key", "key of another"])
def test_result_without_a_column_that_is_needed_is_refused_with_the_reason(fields):
    found, refused = row_plans(plan("SELECT * FROM users"), fields, [0] * len(fields), CANONICAL)
    assert not found
    assert [reason for _, reason in refused] == ["column not in the result"]


def test_write_without_returning_reads_no_rows():
    assert row_plans(plan("UPDATE users SET name = 'a'"), [ID, NAME], [0, 0], CANONICAL) == ((), ())


def test_returning_without_the_values_reads_the_keys_alone():
    found = row_plan(RETURNING, ID)
    assert (found.kind, found.columns, found.limit) == (Kind.EVICT, 1, MAX_RETURNED)
    assert collect(RETURNING, [ID], [[b"1"]]).rows == [(b"users:1", None)]


def test_returning_without_the_key_reads_nothing_and_refuses_nothing():
    assert row_plans(plan(RETURNING), [NAME], [0], CANONICAL) == ((), ())


def test_returned_row_whose_value_is_not_certain_keeps_its_key():
    text = "UPDATE users SET seen = now() RETURNING id, seen"
    collector = collect(text, [ID, SEEN], [[b"1", b"soon"]], where=DATED)
    assert (collector.rows, collector.complete) == ([(b"users:1", None)], True)


def test_no_more_rows_are_collected_than_the_rule_allows():
    collector = RowCollector(row_plan(SELECT, ID, NAME), NO_ARGUMENTS)
    wanted = [collector.add([b"%d" % number, b"x"]) for number in range(MAX_ROWS + 1)]
    assert wanted == [True] * (MAX_ROWS - 1) + [False] * 2
    assert (len(collector.rows), collector.unreadable) == (MAX_ROWS, 1)


def test_bytes_left_falls_below_zero_when_too_much_is_kept_and_take_frees_it():
    collector = RowCollector(row_plan(SELECT, ID, NAME), NO_ARGUMENTS)
    value = b"x" * (MAX_BYTES // 4)
    for number in range(4):
        assert collector.add([b"%d" % number, value])
    assert collector.bytes_left == 0
    assert collector.add([b"4", value])
    assert collector.bytes_left < 0
    assert len(collector.take()) == 5
    assert (collector.rows, collector.bytes_left, collector.complete) == ([], MAX_BYTES, True)


def test_rows_that_were_taken_count_towards_the_limit():
    collector = RowCollector(row_plan(SELECT, ID, NAME), NO_ARGUMENTS)
    for number in range(5):
        collector.add([b"%d" % number, b"x"])
    collector.take()
    wanted = [collector.add([b"%d" % number, b"x"]) for number in range(5, MAX_ROWS + 1)]
    assert wanted == [True] * (MAX_ROWS - 6) + [False] * 2


def test_bytes_of_a_hash_are_those_of_its_names_and_values():
    collector = collect("SELECT name, id, email FROM users", [NAME, ID, EMAIL], [[b"ann", b"1", b"a@b"]], where=HASH)
    assert collector.bytes_left == MAX_BYTES - len(b"nameannemaila@b")


def test_of_too_many_values_a_write_returned_only_the_keys_are_kept():
    collector = RowCollector(row_plan(RETURNING, ID, NAME), NO_ARGUMENTS)
    value = b"x" * (MAX_BYTES // 2)
    for number in range(4):
        assert collector.add([b"%d" % number, value])
    assert collector.rows == [(b"users:0", value), (b"users:1", value), (b"users:2", None), (b"users:3", None)]
    assert collector.complete
