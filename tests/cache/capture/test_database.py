"""When the catalog is asked for, whose answer counts, and when it is certain."""

import json

import pytest

from cache.capture import database
from cache.capture.database import Database
from cache.catalog.tables import Scope
from cache.changes import Change, Kind
from cache.keys import KeyTemplate
from cache.rules import TableRule
from cache.sql.memo import PlanMemo

SCOPE = Scope(search_path=("public",))
TEXT = b"SELECT id, name FROM users WHERE id = 1"


def rule(table="users"):
    names = {"database": "app", "schema": "public", "table": table}
    template = KeyTemplate.parse("{table}:{id}", **names, key_columns=("id",))
    return TableRule("app", "public", table, ("id",), ("name",), template, label=f"app.public.{table}")


def payload(*tables, oid=16384):
    """What the catalog query answers for a database with these tables: id bigint primary key, name text."""
    columns = [
        {"name": name, "number": number, "type": type_oid, "modifier": -1, "generated": False,
         "deterministic": True}
        for number, (name, type_oid) in enumerate((("id", 20), ("name", 25)), 1)
    ]  # fmt: skip
    relations = [
        {"oid": oid + position, "schema": "public", "name": table, "kind": "r", "rewritten": False, "partition": False,
         "inherited": False, "triggers": [], "unique": [["id"]], "columns": columns}
        for position, table in enumerate(tables)
    ]  # fmt: skip
    types: list[object] = [
        {"oid": type_oid, "kind": "b", "name": name, "base": 0, "element": 0, "subtype": None, "attributes": []}
        for type_oid, name in ((20, "int8"), (25, "text"))
    ]
    document = {"relations": relations, "edges": [], "types": types, "homonyms": [], "volatile": [], "harmless": [],
                "float_digits": True}  # fmt: skip
    return json.dumps(document).encode().hex().encode()


@pytest.fixture
def make():
    def make(*rules, **options):
        return Database("app", rules, PlanMemo(100), **options)

    return make


@pytest.fixture
def learned(make):
    found = make(rule())
    found.question().answer(payload("users"))
    assert found.certain
    return found


@pytest.fixture
def at_once(monkeypatch):
    """Failed questions are asked again without a pause."""
    monkeypatch.setattr(database, "RETRY_NS", 0)


def oid(found):
    return found.catalog.bound[0].relation.oid


def test_the_first_session_asks_and_its_answer_is_the_catalog(make):
    heard: list[object] = []
    found = make(rule(), on_learned=heard.append)
    assert not found.certain
    assert found.plans(TEXT, SCOPE)[0][0].fills == (), "nothing is known of any table yet"
    question = found.question()
    assert question.query == found.question_text
    assert b"'users'" in question.query
    question.answer(payload("users"))
    assert found.learned
    assert found.certain
    assert heard == [found.catalog]
    assert [bound.rule for bound in found.catalog.bound] == list(found.rules)
    assert found.question() is None
    assert len(found.plans(TEXT, SCOPE)[0][0].fills) == 1


def test_without_rules_nothing_is_asked(make):
    found = make()
    assert found.question() is None
    assert not found.certain


def test_until_something_is_known_every_session_asks(make):
    found = make(rule())
    first, second = found.question(), found.question()
    assert second is not None, "the first may never be answered, and sessions do not wait for each other"
    second.answer(payload("users", oid=2))
    first.answer(payload("users", oid=1))
    assert found.certain
    assert oid(found) == 1


def test_one_session_asks_again_at_a_time(learned):
    learned.ddl_began()
    learned.ddl_ended()
    question = learned.question()
    assert learned.question() is None
    question.answer(payload("users"))
    assert learned.certain


@pytest.mark.parametrize("answer", [None, b"", b"zz", b"7b7d"])
def test_an_answer_that_is_none_is_asked_for_again_after_a_pause(make, monkeypatch, answer):
    found = make(rule())
    found.question().answer(answer)
    assert not found.learned
    assert found.question() is None
    found = make(rule())
    monkeypatch.setattr(database, "RETRY_NS", 0)
    found.question().answer(answer)
    assert found.question() is not None


def test_a_failed_question_does_not_unlearn(learned, at_once):
    learned.ddl_began()
    learned.ddl_ended()
    before = learned.catalog
    learned.question().answer(None)
    assert learned.catalog is before
    assert not learned.certain
    learned.question().answer(payload("users"))
    assert learned.certain


def test_ddl_makes_the_catalog_uncertain_until_it_was_asked_again(learned):
    learned.ddl_began()
    assert not learned.certain
    assert learned.question() is None, "nobody can see yet what the transaction does"
    learned.ddl_ended()
    assert not learned.certain
    learned.question().answer(payload("users", oid=7))
    assert learned.certain
    assert oid(learned) == 7


def test_all_ddl_has_to_end(learned):
    learned.ddl_began()
    learned.ddl_began()
    learned.ddl_ended()
    assert learned.question() is None
    assert not learned.certain
    learned.ddl_ended()
    assert learned.question() is not None


@pytest.mark.parametrize("ended", [False, True])
def test_an_answer_overtaken_by_ddl_says_nothing(learned, ended):
    learned.ddl_began()
    learned.ddl_ended()
    question = learned.question()
    learned.ddl_began()
    if ended:
        learned.ddl_ended()
    before = learned.catalog
    question.answer(payload("users", oid=7))
    assert learned.catalog is before
    assert not learned.certain
    if not ended:
        learned.ddl_ended()
    learned.question().answer(payload("users", oid=8))
    assert learned.certain
    assert oid(learned) == 8


def test_ddl_that_ends_while_the_question_is_under_way(learned):
    """The question was asked before the DDL was forwarded, its answer came after it was committed."""
    learned.ddl_began()
    learned.ddl_ended()
    early = learned.question()
    learned.ddl_began()
    learned.ddl_ended()
    early.answer(payload("users", oid=7))
    assert not learned.certain


def test_an_old_catalog_is_asked_for_again_and_stays_in_use(make, monkeypatch):
    monkeypatch.setattr(database, "MAX_AGE_NS", 0)
    found = make(rule())
    found.question().answer(payload("users"))
    question = found.question()
    assert question is not None
    assert found.certain, "age alone proves nothing"
    question.answer(payload("users", oid=9))
    assert oid(found) == 9


def test_a_stranger_is_asked_about_once(learned):
    learned.strange(4711)
    assert not learned.certain
    learned.question().answer(payload("users", oid=4711))
    assert learned.certain
    learned.strange(4711)
    assert learned.certain
    assert learned.question() is None
    learned.strange(4712)
    assert not learned.certain


def test_a_stranger_overtakes_the_question_under_way(learned):
    learned.ddl_began()
    learned.ddl_ended()
    question = learned.question()
    learned.strange(4711)
    question.answer(payload("users"))
    assert not learned.certain, "asked before the stranger's rows came by"
    assert learned.question() is not None


def test_before_anything_is_known_everybody_is_a_stranger(make):
    found = make(rule())
    question = found.question()
    found.strange(4711)
    question.answer(payload("users"))
    assert found.certain


def test_strangers_are_bounded(learned, monkeypatch):
    monkeypatch.setattr(database, "MAX_STRANGERS", 2)
    for number in (1, 2, 3):
        learned.strange(number)
        learned.question().answer(payload("users"))
    learned.strange(3)
    assert learned.certain
    learned.strange(1)
    assert not learned.certain, "forgotten, so asked about again: dearer, never wrong"


def test_other_rules_are_another_question(learned):
    early = None
    learned.ddl_began()
    learned.ddl_ended()
    early = learned.question()
    learned.configure([rule("users"), rule("orders")])
    assert not learned.learned
    assert not learned.certain
    assert learned.catalog.bound == ()
    early.answer(payload("users"))
    assert not learned.learned, "an answer to the question for other rules"
    question = learned.question()
    assert b"'orders'" in question.query
    question.answer(payload("users", "orders"))
    assert [bound.rule for bound in learned.catalog.bound] == list(learned.rules)
    assert learned.certain


def test_other_rules_forget_a_failure(make):
    found = make(rule())
    found.question().answer(None)
    assert found.question() is None
    found.configure([rule()])
    assert found.question() is not None


def test_no_rules_any_more(learned):
    learned.configure([])
    assert learned.question() is None
    assert not learned.certain


def test_open_ddl_outlives_other_rules(learned):
    learned.ddl_began()
    learned.configure([rule()])
    assert learned.question() is None
    learned.ddl_ended()
    learned.question().answer(payload("users"))
    assert learned.certain


def test_nothing_is_learned_while_a_session_is_not_followed(make):
    followed = False
    found = make(rule(), is_followed=lambda: followed)
    assert found.question() is None
    followed = True
    found.question().answer(payload("users"))
    assert found.certain
    followed = False
    found.ddl_began()
    found.ddl_ended()
    assert found.question() is not None, "who came later is followed or counted by the sessions themselves"


def test_a_catalog_without_the_table(make):
    found = make(rule())
    found.question().answer(payload())
    assert found.certain
    assert [reason for _, reason in found.catalog.unbound] == ["table public.users does not exist"]
    assert found.plans(TEXT, SCOPE)[0][0].fills == ()


def test_a_statement_nobody_could_read_may_do_anything(learned):
    plan = learned.unreadable()
    assert plan.ddl
    assert {write.bound.rule for write in plan.writes} == set(learned.rules)


def test_prepared_transactions_are_kept_by_gid(make, monkeypatch):
    monkeypatch.setattr(database, "MAX_PREPARED", 1)
    found = make(rule())
    change = Change(Kind.EVICT, found.rules[0], b"users:1", None, seq=1, sent_ns=1)
    assert found.prepare("one", [change])
    assert found.prepared == {"one": [change]}
    assert not found.prepare("two", [])
    assert found.prepared.pop("one") == [change]
    assert found.prepare("two", [])
