"""When the catalog is asked for, whose answer counts, and when it is certain."""

import json
import time

import pytest

from cache.capture import database
from cache.capture.database import Database
from cache.catalog.tables import Scope
from cache.changes import Change, Kind
from cache.keys import KeyTemplate
from cache.rules import TableRule
from cache.sql.memo import PlanMemo
from cache.values.loading import CANONICAL
from tests.cache.catalog_answers import payload, short

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


def test_catalog_is_asked_for_again_after_the_interval_and_stays_certain(make):
    found = make(rule(), interval=0)
    found.question().answer(payload("users"))
    question = found.question()
    assert question is not None
    assert found.certain, "age alone proves nothing"
    question.answer(payload("users", oid=9))
    assert oid(found) == 9


def test_catalog_is_not_asked_for_again_without_an_interval(make):
    found = make(rule(), interval=None)
    found.question().answer(payload("users"))
    assert found.due_at - time.monotonic_ns() > 1e18
    assert found.question() is None
    found.ddl_began()
    found.ddl_ended()
    assert found.question() is not None


# -- an answer that differs


@pytest.fixture
def wrong(make):
    """A database whose catalog is always asked for again, with two rules, and the labels that it reported as wrong."""
    labels: list[list[str]] = []
    found = make(
        rule("users"),
        rule("orders"),
        interval=0,
        on_changed=lambda rules: labels.append([each.label for each in rules]),
    )
    found.question().answer(payload("users", "orders"))
    return found, labels


def relations(*changed):
    """Facts of the relations, with ``changed`` in those of users."""
    document = json.loads(bytes.fromhex(payload("users", "orders").decode()))["facts"]["relations"]
    document[0] |= dict(changed)
    return {"relations": document}


@pytest.mark.parametrize("whole", [False, True])
def test_unchanged_answer_keeps_the_catalog_and_flushes_nothing(wrong, whole):
    found, labels = wrong
    before = found.catalog
    answer = payload("users", "orders")
    found.question().answer(answer if whole else short(answer))
    assert found.catalog is before
    assert found.certain
    assert labels == []


def test_question_names_the_digest_of_the_catalog(wrong):
    found, _ = wrong
    assert found.catalog.digest.encode() in found.question().query


def test_short_answer_about_another_catalog_is_none(wrong):
    found, _ = wrong
    before = found.catalog
    found.ddl_began()
    found.ddl_ended()
    found.question().answer(short(payload("users")))
    assert found.catalog is before
    assert not found.certain


def test_unchanged_answer_after_ddl_makes_a_new_catalog_and_flushes_nothing(wrong):
    found, labels = wrong
    before = found.catalog
    found.ddl_began()
    found.ddl_ended()
    found.question().answer(short(payload("users", "orders")))
    assert found.catalog is not before, "a view may read other columns now"
    assert found.certain
    assert labels == []


@pytest.mark.parametrize(
    "other",
    [
        relations(("triggers", [4])),
        relations(("unique", [["id"], ["name"]])),
        relations(("rewritten", True)),
        relations(("rules", [[1, "750"]])),
        relations(("oid", 4711)),
        relations(("partition", True)),
        {"edges": [{"target": 16384, "written": 4712, "how": "cascade", "on_delete": True, "on_update": None}]}
        | {"relations": [*relations()["relations"], {**relations()["relations"][0], "oid": 4712, "name": "owners"}]},
        {"homonyms": [{"oid": 4713, "schema": "acme", "name": "users", "kind": "r"}]},
    ],
)
def test_rule_is_flushed_when_its_facts_change_and_the_other_is_not(wrong, other):
    found, labels = wrong
    found.question().answer(payload("users", "orders", other=other))
    assert labels == [["app.public.users"]]
    assert found.certain


@pytest.mark.parametrize(
    "other",
    [{"started": "1700000001.5"}, {"float_digits_by_role": True}, {"volatile": ["lower"]}],
)
def test_all_rules_are_flushed_when_a_fact_of_the_whole_database_changes(wrong, other):
    found, labels = wrong
    found.question().answer(payload("users", "orders", other=other))
    assert labels == [["app.public.users", "app.public.orders"]]


def test_all_rules_are_flushed_when_a_function_is_not_harmless_any_more(wrong):
    found, labels = wrong
    found.question().answer(payload("users", "orders", other={"harmless": ["f"]}))
    assert labels == [], "statements that called it were held to change anything"
    found.question().answer(payload("users", "orders"))
    assert labels == [["app.public.users", "app.public.orders"]]


def columns(*names):
    document = relations()
    text = document["relations"][0]["columns"][1]
    key = document["relations"][0]["columns"][0]
    document["relations"][0]["columns"] = [key, *({**text, "name": name, "number": number} for name, number in names)]
    return document


def test_column_behind_those_of_the_rule_flushes_nothing(wrong):
    found, labels = wrong
    found.question().answer(payload("users", "orders", other=columns(("name", 2), ("mail", 3))))
    assert labels == []
    assert list(found.catalog.bound[0].relation.columns) == ["id", "name", "mail"]


def test_columns_renamed_crosswise_flush_the_rule(wrong):
    found, labels = wrong
    found.question().answer(payload("users", "orders", other=columns(("name", 2), ("title", 3))))
    found.question().answer(payload("users", "orders", other=columns(("title", 2), ("name", 3))))
    assert labels == [["app.public.users"]]


def test_column_before_those_of_the_rule_that_is_dropped_flushes_the_rule(wrong):
    found, labels = wrong
    found.question().answer(payload("users", "orders", other=columns(("gone", 2), ("name", 3))))
    found.question().answer(payload("users", "orders", other=columns(("name", 3))))
    assert labels == [["app.public.users"]] * 2, "an INSERT without a column list means other columns"


def test_answer_to_other_rules_is_compared_with_the_answer_before_them(wrong):
    found, labels = wrong
    found.configure([rule("users"), rule("orders")])
    assert b"<> E''" in found.question_text, "the whole answer is asked for"
    found.question().answer(payload("users", "orders", other=relations(("triggers", [4]))))
    assert labels == [["app.public.users"]], "the file was read again between the DDL and the question"


def test_table_that_is_gone_is_not_reported_as_changed(wrong):
    found, labels = wrong
    found.question().answer(payload("orders", oid=16385))
    assert labels == [], "on_learned says why it is not captured"
    found.question().answer(payload("users", "orders"))
    assert labels == [["app.public.users"]]


def test_transactions_from_before_the_change_flush_the_rule_and_later_ones_do_not(wrong):
    found, _ = wrong
    before = (7, time.monotonic_ns())
    assert found.wrong_since(before) == []
    found.question().answer(payload("users", "orders", other=relations(("triggers", [4]))))
    found.configure([rule("users"), rule("orders")])
    assert [(each.kind, each.rule, each.seq) for each in found.wrong_since(before)] == [(Kind.FLUSH, found.rules[0], 7)]
    assert found.wrong_since((8, time.monotonic_ns() + 1)) == []


def test_prepared_transaction_gets_a_flush_of_the_rule_about_which_the_catalog_was_wrong(wrong):
    found, _ = wrong
    assert found.prepare("g", [])
    found.question().answer(payload("users", "orders", other=relations(("triggers", [4]))))
    assert [(each.kind, each.rule.label) for each in found.prepared["g"]] == [(Kind.FLUSH, "app.public.users")]


@pytest.mark.parametrize(("first", "then", "certain"), [(None, True, True), (True, False, False), (True, None, True)])
def test_float_digits_follow_the_newest_session_that_shows_the_server_s(make, first, then, certain):
    found = make(rule(), interval=0)
    answer = payload("users")
    document = json.loads(bytes.fromhex(answer.decode()))
    found.question().answer(json.dumps(document | {"float_digits": first}).encode().hex().encode())
    assert found.catalog.float_digits_certain is bool(first)
    found.question().answer(short(answer, float_digits=then))
    assert found.catalog.float_digits_certain is certain


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


def test_short_answer_to_the_question_before_other_rules_causes_no_pause(make):
    database = make(rule())
    answer = payload("users")
    database.question().answer(answer)
    database.due_at = 0
    question = database.question()
    database.configure([rule("other")])
    question.answer(short(answer))
    assert not database.learned
    assert database.question() is not None


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
