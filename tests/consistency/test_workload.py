"""The workload depends on its seed only, and has every kind of statement it should have."""

from functools import cache
from itertools import islice

import pytest

from tests.consistency import tables, workload
from tests.consistency.statements import Statement, literal
from tests.consistency.workload import Copy, EndPrepared, Pipeline, PortalRead, size


@cache
def units_of(seed, session=0, units=3000):
    return list(islice(workload.units(seed, session), units))


def statements(units):
    for unit in units:
        for step in unit:
            if isinstance(step, Statement):
                yield step
            elif isinstance(step, Pipeline):
                yield from step.statements
            elif isinstance(step, Copy | PortalRead):
                yield step.statement


def test_equal_seeds_give_equal_operations():
    assert units_of(7, units=300) == list(islice(workload.units(7, 0), 300))


def test_different_seeds_and_sessions_give_different_operations():
    assert len({repr(units_of(seed, session, 20)) for seed in range(5) for session in range(5)}) == 25


@pytest.mark.parametrize(
    "words",
    [
        "UPDATE ", "INSERT ", "DELETE ", "MERGE ", "TRUNCATE ", "COPY ", "ON CONFLICT (", "DO NOTHING", "RETURNING *",
        " IN (", "ANY(", "% 7 =", "|| md5(", "SET id =", "WITH w AS (UPDATE", "WITH w AS (DELETE", " stable_sleep(",
        "FOR UPDATE", "BEGIN", "ROLLBACK", "COMMIT AND CHAIN", "SAVEPOINT a", "ROLLBACK TO a", "REPEATABLE READ",
        "SERIALIZABLE", "PREPARE TRANSACTION", "PREPARE p", "EXECUTE p", "DECLARE c", "FETCH 3", "1 / 0", "; ",
        "people", "parts_low",
    ],
)  # fmt: skip
def test_workload_has_this_kind_of_statement(words):
    assert any(words in statement.text for statement in statements(units_of(1)))


def test_workload_has_every_kind_of_step_and_every_way_to_send():
    steps = [step for unit in units_of(1) for step in unit]
    assert {type(step).__name__ for step in steps} == {
        "Statement",
        "Pause",
        "Pipeline",
        "PortalRead",
        "Copy",
        "EndPrepared",
    }
    assert {statement.mode for statement in statements(units_of(1))} == {"simple", "extended", "prepared", "binary"}
    assert {step.commit for step in steps if isinstance(step, EndPrepared)} == {True, False}


def test_unit_that_begins_a_block_ends_it():
    for unit in units_of(3):
        texts = [step.text for step in unit if isinstance(step, Statement)]
        if texts and texts[0].startswith("BEGIN"):
            ends = [text for text in texts if text.startswith(("COMMIT", "ROLLBACK", "PREPARE T"))]
            assert ends[-1] in {"COMMIT", "ROLLBACK"} or ends[-1].startswith("PREPARE TRANSACTION")


def test_written_values_are_unique():
    texts = [
        value
        for session in range(3)
        for statement in statements(units_of(5, session))
        for value in statement.values
        if isinstance(value, str) and value.startswith(("v", "{"))
    ]
    assert len(texts) > 1000
    assert len(set(texts)) > 0.9 * len(texts)  # SQL EXECUTE is sent twice


def test_pause_does_not_count_as_an_operation():
    unit = (Statement("BEGIN"), workload.Pause(1), Pipeline((Statement("a"), Statement("b"))), Statement("COMMIT"))
    assert size(unit) == 4


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "NULL"), (True, "true"), (7, "7"), ("it's", "'it''s'"), ([1, 2], "'{1, 2}'"), (["a"], "'{\"a\"}'")],
)
def test_value_is_written_as_an_sql_constant(value, text):
    assert literal(value).replace(",", ", ").replace("  ", " ") == text


def test_parameters_and_constants_are_at_the_same_positions():
    statement = Statement("UPDATE t SET a = {} WHERE b = {}", ("x", 1))
    assert statement.parameterized == "UPDATE t SET a = $1 WHERE b = $2"
    assert statement.literal == "UPDATE t SET a = 'x' WHERE b = 1"


def test_expected_redis_values_of_rows():
    assert tables.expected("users", [("1", "Ada", None)]) == {b"users:1": b"Ada", b"person:1": {b"name": b"Ada"}}
    assert tables.expected("users", [("1", None, None)]) == {}
    assert tables.expected("items", [("1", "2", "a", "3", None)]) == {b"items:1:2": {b"name": b"a", b"n": b"3"}}
    assert tables.expected("docs", [("x", '{"v": 1}', "2", None)]) == {
        b"docs:x": {"body": {"v": 1}, "n": 2, "flag": None}
    }
