"""The workload is what its seed says, and is everything it should be."""

from functools import cache
from itertools import islice

import pytest

from tests.consistency import tables, workload
from tests.consistency.statements import Run, literal
from tests.consistency.workload import Copy, Finish, Portions, Together, size


@cache
def of(seed, session=0, units=3000):
    return list(islice(workload.units(seed, session), units))


def runs(units):
    for unit in units:
        for step in unit:
            if isinstance(step, Run):
                yield step
            elif isinstance(step, Together):
                yield from step.runs
            elif isinstance(step, Copy | Portions):
                yield step.run


def test_a_seed_brings_the_same_operations_back():
    assert of(7, units=300) == list(islice(workload.units(7, 0), 300))


def test_seeds_and_sessions_differ():
    assert len({repr(of(seed, session, 20)) for seed in range(5) for session in range(5)}) == 25


@pytest.mark.parametrize(
    "words",
    [
        "UPDATE ", "INSERT ", "DELETE ", "MERGE ", "TRUNCATE ", "COPY ", "ON CONFLICT (", "DO NOTHING", "RETURNING *",
        " IN (", "ANY(", "% 7 =", "|| md5(", "SET id =", "WITH w AS (UPDATE", "WITH w AS (DELETE", " nap(",
        "FOR UPDATE", "BEGIN", "ROLLBACK", "COMMIT AND CHAIN", "SAVEPOINT a", "ROLLBACK TO a", "REPEATABLE READ",
        "SERIALIZABLE", "PREPARE TRANSACTION", "PREPARE p", "EXECUTE p", "DECLARE c", "FETCH 3", "1 / 0", "; ",
        "people", "parts_low",
    ],
)  # fmt: skip
def test_every_kind_of_statement_comes_up(words):
    assert any(words in run.text for run in runs(of(1)))


def test_every_way_to_send_comes_up():
    steps = [step for unit in of(1) for step in unit]
    assert {type(step).__name__ for step in steps} == {"Run", "Pause", "Together", "Portions", "Copy", "Finish"}
    assert {run.how for run in runs(of(1))} == {"simple", "extended", "prepared", "binary"}
    assert {step.commit for step in steps if isinstance(step, Finish)} == {True, False}


def test_a_unit_that_opens_a_block_ends_it():
    for unit in of(3):
        texts = [step.text for step in unit if isinstance(step, Run)]
        if texts and texts[0].startswith("BEGIN"):
            ends = [text for text in texts if text.startswith(("COMMIT", "ROLLBACK", "PREPARE T"))]
            assert ends[-1] in {"COMMIT", "ROLLBACK"} or ends[-1].startswith("PREPARE TRANSACTION")


def test_values_are_never_written_twice():
    texts = [
        value
        for session in range(3)
        for run in runs(of(5, session))
        for value in run.values
        if isinstance(value, str) and value.startswith(("v", "{"))
    ]
    assert len(texts) > 1000
    assert len(set(texts)) > 0.9 * len(texts)  # SQL EXECUTE is sent twice


def test_a_pause_is_no_operation():
    unit = (Run("BEGIN"), workload.Pause(1), Together((Run("a"), Run("b"))), Run("COMMIT"))
    assert size(unit) == 4


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "NULL"), (True, "true"), (7, "7"), ("it's", "'it''s'"), ([1, 2], "'{1, 2}'"), (["a"], "'{\"a\"}'")],
)
def test_constants(value, text):
    assert literal(value).replace(",", ", ").replace("  ", " ") == text


def test_parameters_and_constants_stand_in_the_same_places():
    run = Run("UPDATE t SET a = {} WHERE b = {}", ("x", 1))
    assert run.parameterized == "UPDATE t SET a = $1 WHERE b = $2"
    assert run.literal == "UPDATE t SET a = 'x' WHERE b = 1"


def test_what_redis_should_hold_of_a_row():
    assert tables.expected("users", [("1", "Ada", None)]) == {b"users:1": b"Ada", b"person:1": {b"name": b"Ada"}}
    assert tables.expected("users", [("1", None, None)]) == {}
    assert tables.expected("items", [("1", "2", "a", "3", None)]) == {b"items:1:2": {b"name": b"a", b"n": b"3"}}
    assert tables.expected("docs", [("x", '{"v": 1}', "2", None)]) == {
        b"docs:x": {"body": {"v": 1}, "n": 2, "flag": None}
    }
