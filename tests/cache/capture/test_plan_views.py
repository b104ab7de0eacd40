"""PlanViews: what sessions share of plans, texts and RowDescriptions, and how much of it is remembered."""

from __future__ import annotations

import pytest

from cache.capture import plan_views
from cache.capture.plan_views import MAX_MESSAGE, MAX_MESSAGES, MAX_SHAPES, NOTHING_TO_READ, PlanViews
from cache.capture.rows import RowCollector
from cache.values.loading import CANONICAL
from protocol.backend import FieldDescription, RowDescription
from protocol.errors import MessageError
from tests.cache.capture.results import EMAIL, ID, NAME, NO_ARGUMENTS, OF_ANOTHER_TABLE
from tests.cache.catalogs import USERS, plan


def view(text):
    return PlanViews(USERS, CANONICAL).of(plan(text))


def description(*fields):
    return RowDescription(fields).body()


def test_plan_has_one_view():
    views = PlanViews(USERS, CANONICAL)
    found = plan("SELECT 1")
    assert views.of(found) is views.of(found)
    assert views.of(found).plan is found


def test_views_are_forgotten_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr(plan_views, "MAX_VIEWS", 2)
    views = PlanViews(USERS, CANONICAL)
    plans = [plan("SELECT 1") for _ in range(3)]
    first = views.of(plans[0])
    for other in plans[1:]:
        views.of(other)
    assert views.of(plans[0]) is not first


def test_result_shape_is_made_once_and_forgotten_when_there_are_too_many():
    found = view("SELECT * FROM users")
    shape = found.shape(description(ID, NAME))
    assert [row_plan.columns for row_plan in shape.row_plans] == [2]
    assert not shape.needs_arguments
    assert found.shape(description(ID, NAME)) is shape
    assert found.shape(description(NAME, ID, EMAIL)) is not shape
    for number in range(MAX_SHAPES):
        found.shape(description(ID, NAME, FieldDescription(b"%d" % number)))
    assert found.shape(description(ID, NAME)) is not shape


def test_result_shape_needs_arguments_if_the_statement_fixes_a_key():
    found = view("SELECT * FROM users WHERE id = $1")
    assert found.shape(description(NAME)).needs_arguments
    assert not found.shape(description(ID, NAME)).needs_arguments, "the key is in the row"


def test_result_shape_says_why_a_rule_cannot_be_filled():
    shape = view("SELECT * FROM users").shape(description(ID))
    assert (shape.row_plans, shape.refused) == ((), (("public.users", "column not in the result"),))


def test_result_of_a_plan_that_concerns_no_rule_has_nothing_to_read():
    assert view("SELECT 1").shape(description(OF_ANOTHER_TABLE, ID)) is NOTHING_TO_READ


def test_row_description_that_makes_no_sense_is_refused():
    with pytest.raises(MessageError):
        view("SELECT * FROM users").shape(b"\0\1")


@pytest.mark.parametrize(
    ("formats", "read"),
    [
        (b"\0\0", [b"users:1"]),
        (b"\0\1\0\0", [b"users:1"]),
        (b"\0\1\0\1", []),
        (b"\0\2\0\0\0\1", [b"users:1"]),
    ],
    ids=["none", "one, text", "one, binary", "one each"],
)
def test_rows_are_read_in_the_formats_that_bind_asked_for(formats, read):
    shape = view("SELECT * FROM users").shape(description(ID, NAME), formats)
    collector = RowCollector(shape.row_plans[0], NO_ARGUMENTS)
    collector.add([b"1", b"ann"])
    assert [key for key, _ in collector.rows] == read


def test_nothing_is_read_if_there_are_not_as_many_formats_as_columns():
    found = view("SELECT * FROM users")
    formats = b"\0\3\0\0\0\0\0\0"
    assert found.shape(description(ID, NAME), formats) == NOTHING_TO_READ
    assert found.shape(description(OF_ANOTHER_TABLE), formats).unknown_tables == (2,)


@pytest.mark.parametrize(
    ("text", "fields", "unknown"),
    [
        ("SELECT * FROM users", [OF_ANOTHER_TABLE], (2,)),
        ("SELECT * FROM users", [OF_ANOTHER_TABLE, NAME], ()),
        ("SELECT * FROM users", [FieldDescription(b"sum")], ()),
        ("SELECT 1", [OF_ANOTHER_TABLE], ()),
        ("DELETE FROM users RETURNING *", [OF_ANOTHER_TABLE], ()),
    ],
    ids=["none is known", "one is known", "no table", "no configured name", "a write"],
)
def test_result_shape_has_unknown_tables_if_the_catalog_has_none_of_a_read(text, fields, unknown):
    assert view(text).shape(description(*fields)).unknown_tables == unknown


@pytest.mark.parametrize(
    ("text", "only_reads", "reasons"),
    [
        ("SELECT 1", True, ()),
        ("SELECT * FROM users", True, (("public.users", "fill"),)),
        ("SELECT count(*) FROM users", True, (("public.users", "fill"),)),
        ("SELECT strange(1)", False, ()),
        ("DELETE FROM users", False, (("public.users", "flush-unknown-key"),)),
        ("DELETE FROM accounts", False, ()),
        ("BEGIN", False, ()),
        ("SET x.y = 1", False, ()),
        ("CREATE TEMP TABLE t (x int)", False, ()),
    ],
)
def test_view_says_whether_a_statement_only_reads_and_under_what_it_is_counted(text, only_reads, reasons):
    found = view(text)
    assert found.only_reads is only_reads
    assert found.trivial is found.plan.trivial
    assert found.reasons == reasons


def test_long_message_is_not_remembered():
    views = PlanViews(USERS, CANONICAL)
    views.remember_query(b"x" * (MAX_MESSAGE + 1), (view("SELECT 1"), ()))
    views.remember_parse(b"x" * (MAX_MESSAGE + 1), (view("SELECT 1"), (), b"", ()))
    assert not views.queries
    assert not views.parses


def test_messages_are_forgotten_when_there_are_too_many():
    views = PlanViews(USERS, CANONICAL)
    found = view("SELECT 1")
    for number in range(MAX_MESSAGES + 1):
        views.remember_query(b"%d" % number, (found, ()))
        views.remember_parse(b"%d" % number, (found, (), b"", ()))
    assert len(views.queries) == len(views.parses) == 1
