"""When the catalog is asked for, whose answer counts, and when it is certain."""

import pytest

from cache.capture import database
from cache.capture.database import Database
from cache.catalog.tables import Scope
from cache.changes import Change, Kind
from cache.keys import KeyTemplate
from cache.rules import TableRule
from cache.sql.memo import PlanMemo
from cache.values.loading import CANONICAL
from tests.cache.catalog_answers import payload

SCOPE = Scope(search_path=("public",))
TEXT = b"SELECT id, name FROM users WHERE id = 1"


def rule(table="users"):
    names = {"database": "app", "schema": "public", "table": table}
    template = KeyTemplate.parse("{table}:{id}", **names, key_columns=("id",))
    return TableRule("app", "public", table, ("id",), ("name",), template, label=f"app.public.{table}")


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


def test_answer_of_the_first_session_becomes_the_catalog(make):
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


def test_nothing_is_asked_without_rules(make):
    found = make()
    assert found.question() is None
    assert not found.certain


def test_every_session_asks_until_there_is_a_catalog(make):
    found = make(rule())
    first, second = found.question(), found.question()
    assert second is not None, "the first may never be answered, and sessions do not wait for each other"
    second.answer(payload("users", oid=2))
    first.answer(payload("users", oid=1))
    assert found.certain
    assert oid(found) == 1


def test_one_session_at_a_time_asks_again(learned):
    learned.ddl_began()
    learned.ddl_ended()
    question = learned.question()
    assert learned.question() is None
    question.answer(payload("users"))
    assert learned.certain


@pytest.mark.parametrize("answer", [None, b"", b"zz", b"7b7d"])
def test_answer_that_makes_no_sense_is_asked_for_again_after_a_pause(make, monkeypatch, answer):
    found = make(rule())
    found.question().answer(answer)
    assert not found.learned
    assert found.question() is None
    found = make(rule())
    monkeypatch.setattr(database, "RETRY_NS", 0)
    found.question().answer(answer)
    assert found.question() is not None


def test_failed_question_keeps_the_old_catalog_uncertain(learned, at_once):
    learned.ddl_began()
    learned.ddl_ended()
    before = learned.catalog
    learned.question().answer(None)
    assert learned.catalog is before
    assert not learned.certain
    learned.question().answer(payload("users"))
    assert learned.certain


def test_catalog_is_uncertain_from_ddl_until_it_was_asked_for_again(learned):
    learned.ddl_began()
    assert not learned.certain
    assert learned.question() is None, "what the transaction does is not committed yet"
    learned.ddl_ended()
    assert not learned.certain
    learned.question().answer(payload("users", oid=7))
    assert learned.certain
    assert oid(learned) == 7


def test_catalog_is_asked_for_when_all_ddl_has_ended(learned):
    learned.ddl_began()
    learned.ddl_began()
    learned.ddl_ended()
    assert learned.question() is None
    assert not learned.certain
    learned.ddl_ended()
    assert learned.question() is not None


@pytest.mark.parametrize("ended", [False, True])
def test_answer_that_was_asked_for_before_ddl_is_not_taken(learned, ended):
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


def test_answer_that_was_asked_for_before_ddl_that_has_ended_is_not_taken(learned):
    """The question was asked before the DDL was forwarded, its answer came after it was committed."""
    learned.ddl_began()
    learned.ddl_ended()
    early = learned.question()
    learned.ddl_began()
    learned.ddl_ended()
    early.answer(payload("users", oid=7))
    assert not learned.certain


def test_old_catalog_is_asked_for_again_and_stays_certain(make, monkeypatch):
    monkeypatch.setattr(database, "MAX_AGE_NS", 0)
    found = make(rule())
    found.question().answer(payload("users"))
    question = found.question()
    assert question is not None
    assert found.certain, "age alone proves nothing"
    question.answer(payload("users", oid=9))
    assert oid(found) == 9


def test_catalog_is_asked_for_once_for_each_unknown_table(learned):
    learned.note_unknown_tables([4711])
    assert not learned.certain
    learned.question().answer(payload("users", oid=4711))
    assert learned.certain
    learned.note_unknown_tables([4711])
    assert learned.certain
    assert learned.question() is None
    learned.note_unknown_tables([4712])
    assert not learned.certain


def test_answer_that_was_asked_for_before_an_unknown_table_came_is_not_taken(learned):
    learned.ddl_began()
    learned.ddl_ended()
    question = learned.question()
    learned.note_unknown_tables([4711])
    question.answer(payload("users"))
    assert not learned.certain, "it was asked for before the rows of the unknown table came"
    assert learned.question() is not None


def test_unknown_tables_are_not_noted_without_a_catalog(make):
    found = make(rule())
    question = found.question()
    found.note_unknown_tables([4711])
    question.answer(payload("users"))
    assert found.certain


def test_unknown_tables_are_forgotten_when_there_are_too_many(learned, monkeypatch):
    monkeypatch.setattr(database, "MAX_UNKNOWN_TABLES", 2)
    for number in (1, 2, 3):
        learned.note_unknown_tables([number])
        learned.question().answer(payload("users"))
    learned.note_unknown_tables([3])
    assert learned.certain
    learned.note_unknown_tables([1])
    assert not learned.certain, "forgotten, so asked about again: dearer, never wrong"


def test_other_rules_make_another_question_and_refuse_the_answer_to_the_old_one(learned):
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


def test_other_rules_are_asked_for_without_a_pause(make):
    found = make(rule())
    found.question().answer(None)
    assert found.question() is None
    found.configure([rule()])
    assert found.question() is not None


def test_nothing_is_asked_when_the_last_rule_is_gone(learned):
    learned.configure([])
    assert learned.question() is None
    assert not learned.certain


def test_catalog_for_other_rules_is_asked_for_when_ddl_has_ended(learned):
    learned.ddl_began()
    learned.configure([rule()])
    assert learned.question() is None
    learned.ddl_ended()
    learned.question().answer(payload("users"))
    assert learned.certain


def test_first_catalog_is_not_asked_for_while_a_session_is_not_followed(make):
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


def test_rule_without_its_table_is_left_out_with_the_reason(make):
    found = make(rule())
    found.question().answer(payload())
    assert found.certain
    assert [reason for _, reason in found.catalog.unbound] == ["table public.users does not exist"]
    assert found.plans(TEXT, SCOPE)[0][0].fills == ()


def test_unreadable_statement_is_ddl_and_writes_every_rule(learned):
    plan = learned.unreadable()
    assert plan.ddl
    assert {write.bound.rule for write in plan.writes} == set(learned.rules)


def test_prepared_transactions_are_kept_by_gid_up_to_the_limit(make, monkeypatch):
    monkeypatch.setattr(database, "MAX_PREPARED", 1)
    found = make(rule())
    change = Change(Kind.EVICT, found.rules[0], b"users:1", None, seq=1, sent_ns=1)
    assert found.prepare("one", [change])
    assert found.prepared == {"one": [change]}
    assert not found.prepare("two", [])
    assert found.prepared.pop("one") == [change]
    assert found.prepare("two", [])


def test_plan_views_are_shared_by_settings_and_made_again_for_a_new_catalog(learned):
    views = learned.plan_views(SCOPE, CANONICAL)
    assert learned.plan_views(SCOPE, CANONICAL) is views
    assert learned.plan_views(Scope(search_path=("other",)), CANONICAL) is not views
    learned.ddl_began()
    learned.ddl_ended()
    learned.question().answer(payload("users"))
    assert learned.plan_views(SCOPE, CANONICAL) is not views


def test_plan_views_are_forgotten_for_too_many_settings(learned, monkeypatch):
    monkeypatch.setattr(database, "MAX_SETTINGS", 2)
    views = learned.plan_views(SCOPE, CANONICAL)
    for name in ("other", "third"):
        learned.plan_views(Scope(search_path=(name,)), CANONICAL)
    assert learned.plan_views(SCOPE, CANONICAL) is not views
