"""What is remembered, for how long, and at what cost."""

import time

from cache.catalog.tables import Scope
from cache.sql.memo import PlanMemo
from tests.cache.catalogs import PUBLIC, USERS, catalog

# What is remembered


def test_plans_are_remembered_by_text_and_template():
    memo = PlanMemo(100)
    first = memo.plans(b"SELECT name FROM users WHERE id = 1", USERS, PUBLIC)
    assert memo.plans(b"SELECT name FROM users WHERE id = 1", USERS, PUBLIC) is first
    second = memo.plans(b"SELECT name FROM users WHERE id = 2", USERS, PUBLIC)
    assert second[0] is first[0]
    assert second[1][0].value == b"2"


def test_scopes_are_told_apart():
    memo = PlanMemo(100)
    text = b"DELETE FROM users WHERE id = 1"
    assert memo.plans(text, USERS, PUBLIC)[0][0].writes
    assert not memo.plans(text, USERS, Scope(("nowhere",)))[0][0].writes
    assert memo.plans(text, USERS, Scope(("public",)))[0][0].writes
    shadowed = Scope(("public",), frozenset(["unknown"]))
    assert memo.plans(text, USERS, shadowed)[0] is memo.plans(text, USERS, PUBLIC)[0]


def test_another_catalog_forgets():
    memo = PlanMemo(100)
    text = b"DELETE FROM users WHERE id = 1"
    first = memo.plans(text, USERS, PUBLIC)
    newer = catalog()
    assert memo.plans(text, newer, PUBLIC)[0][0].writes[0].bound is newer.bound[0]
    assert memo.plans(text, newer, PUBLIC) is not first


def test_memory_is_bounded():
    memo = PlanMemo(10)
    hot = b"SELECT name FROM users WHERE id = 1"
    kept = memo.plans(hot, USERS, PUBLIC)
    for number in range(200):
        memo.plans(b"SELECT a%d" % number, USERS, PUBLIC)
        assert memo.plans(hot, USERS, PUBLIC) is kept
    assert memo.plans(b"SELECT a0", USERS, PUBLIC) is not memo.plans(b"SELECT a1", USERS, PUBLIC)
    entry = memo._by_object[id(PUBLIC)][1]
    assert len(entry.recent) + len(entry._old) <= 20


def test_a_remembered_text_costs_next_to_nothing():
    memo = PlanMemo(100)
    text = b"SELECT name FROM users WHERE id = 1"
    memo.plans(text, USERS, PUBLIC)
    best = min(_timed(memo, text) for _ in range(20))
    assert best < 5e-6


def _timed(memo, text):
    start = time.perf_counter()
    for _ in range(100):
        memo.plans(text, USERS, PUBLIC)
    return (time.perf_counter() - start) / 100
