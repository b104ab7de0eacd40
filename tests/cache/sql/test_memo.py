"""What is remembered, for how long, and at what cost."""

import dataclasses
import time

from cache.catalog.tables import Scope
from cache.sql import memo as memo_module
from cache.sql.memo import PlanMemo
from tests.cache.catalogs import PUBLIC, USERS, catalog

# What is remembered


def test_text_or_template_seen_before_has_the_same_plans():
    memo = PlanMemo(100)
    first = memo.plans(b"SELECT name FROM users WHERE id = 1", USERS, PUBLIC)
    assert memo.plans(b"SELECT name FROM users WHERE id = 1", USERS, PUBLIC) is first
    second = memo.plans(b"SELECT name FROM users WHERE id = 2", USERS, PUBLIC)
    assert second[0] is first[0]
    assert second[1][0].value == b"2"


def test_scope_with_another_search_path_has_other_plans():
    memo = PlanMemo(100)
    text = b"DELETE FROM users WHERE id = 1"
    assert memo.plans(text, USERS, PUBLIC)[0][0].writes
    assert not memo.plans(text, USERS, Scope(("nowhere",)))[0][0].writes
    assert memo.plans(text, USERS, Scope(("public",)))[0][0].writes
    shadowed = Scope(("public",), frozenset(["unknown"]))
    assert memo.plans(text, USERS, shadowed)[0] is memo.plans(text, USERS, PUBLIC)[0]


def test_newer_catalog_of_a_database_replaces_its_plans():
    memo = PlanMemo(100)
    text = b"DELETE FROM users WHERE id = 1"
    first = memo.plans(text, USERS, PUBLIC)
    newer = catalog()
    assert memo.plans(text, newer, PUBLIC)[0][0].writes[0].bound is newer.bound[0]
    assert memo.plans(text, newer, PUBLIC) is not first


def test_only_the_texts_used_last_are_remembered():
    memo = PlanMemo(10)
    hot = b"SELECT name FROM users WHERE id = 1"
    kept = memo.plans(hot, USERS, PUBLIC)
    for number in range(200):
        memo.plans(b"SELECT a%d" % number, USERS, PUBLIC)
        assert memo.plans(hot, USERS, PUBLIC) is kept
    assert memo.plans(b"SELECT a0", USERS, PUBLIC) is not memo.plans(b"SELECT a1", USERS, PUBLIC)
    entry = memo._by_object[id(PUBLIC)][1]
    assert len(entry.recent) + len(entry._old) <= 20


def test_remembered_text_is_found_within_five_microseconds():
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


def test_catalogs_of_several_databases_are_remembered_side_by_side():
    memo = PlanMemo(100)
    text = b"DELETE FROM users WHERE id = 1"
    other = dataclasses.replace(catalog(), database="other")
    first, second = memo.plans(text, USERS, PUBLIC), memo.plans(text, other, PUBLIC)
    assert first is not second
    assert memo.plans(text, USERS, PUBLIC) is first
    assert memo.plans(text, other, PUBLIC) is second


def test_scopes_are_forgotten_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr(memo_module, "MAX_SCOPES", 3)
    memo = PlanMemo(100)
    text = b"DELETE FROM users WHERE id = 1"
    first = memo.plans(text, USERS, PUBLIC)
    for number in range(2):
        memo.plans(text, USERS, Scope((f"s{number}",)))
    assert memo.plans(text, USERS, PUBLIC) is first
    memo.plans(text, USERS, Scope(("one too many",)))
    assert memo.plans(text, USERS, PUBLIC) is not first
    assert memo.plans(text, USERS, PUBLIC)[0][0].writes[0].targets == first[0][0].writes[0].targets


def test_scope_objects_are_forgotten_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr(memo_module, "MAX_SCOPE_OBJECTS", 3)
    memo = PlanMemo(100)
    text = b"DELETE FROM users WHERE id = 1"
    first = memo.plans(text, USERS, PUBLIC)
    for _ in range(5):
        assert memo.plans(text, USERS, Scope(("public",))) is first, "equal scopes share their plans"
    assert len(memo._by_object) <= 3
