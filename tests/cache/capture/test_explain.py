"""Plans in words."""

import json
from pathlib import Path

from cache.capture.explain import explain
from cache.sql.plans import Reason
from tests.cache.catalogs import PUBLIC, USERS, bound, catalog, relation


def lines(text):
    return [line for one in explain(text, USERS, PUBLIC) for line in one.lines()]


def test_effects_of_reads_and_writes_are_named_with_their_keys():
    assert lines("SELECT name FROM users WHERE id = 42; UPDATE users SET name = 'x' WHERE id IN (1, $1)") == [
        "1. fill-fixed-key: WHERE fixes the key to a constant, so rows that carry every value column fill.",
        "   Fill public.users: id = 42 (if the result has name)",
        "2. store: The key and the new values are constants whose stored text is certain.",
        "   Store public.users: id = 1; id = $1 (if it touches a row)",
    ]


def test_keys_beyond_the_tenth_are_counted():
    (line,) = [line for line in lines("DELETE FROM users WHERE id IN (1,2,3,4,5,6,7,8,9,10,11,12)") if "Evict" in line]
    assert line.endswith("id = 10; and 2 more (if it touches a row)")


def test_returning_and_side_effects_are_noted():
    shown = "\n".join(
        lines("UPDATE users SET name = 'x' WHERE n = 1 RETURNING *; CALL p(); ALTER TABLE users ADD x int")
    )
    assert "or a Store of each row of RETURNING" in shown
    assert "the rest of its transaction fills nothing" in shown
    assert "The catalog is asked again" in shown


def test_returning_of_a_delete_is_noted():
    assert "or an Evict of each row of RETURNING" in "\n".join(lines("DELETE FROM users RETURNING id"))


def test_constant_is_shown_as_it_is_stored_or_else_as_it_is_written():
    assert "   Evict public.users: id = 7; id = x (if it touches a row)" in lines(
        "DELETE FROM users WHERE id IN ('007', 'x', NULL)"
    )
    assert "   Evict public.users: id = ANY({1,2}) (if it touches a row)" in lines(
        "DELETE FROM users WHERE id = ANY('{1,2}')"
    )


def test_keyword_is_shown_by_its_name():
    table = relation(1, "flags", (("id", 1, "bool"), ("name", 2, "text")))
    (one,) = explain("DELETE FROM flags WHERE id = TRUE", catalog(table, bound(table)), PUBLIC)
    assert one.effects[0].keys == ("id = true",)


def test_temporary_table_is_noted():
    text = "CREATE TEMP TABLE users (id int)"
    assert "the session's own temporary users may be meant" in "\n".join(lines(text))


def test_effect_as_json_has_its_keys_and_note():
    (one,) = explain("DELETE FROM users WHERE id = 1", USERS, PUBLIC)
    assert one.to_json()["effects"] == [
        {"table": "public.users", "effect": "evict", "keys": ["id = 1"], "note": "if it touches a row"}
    ]


def test_statement_that_prepare_names_is_explained_within():
    (prepared,) = explain("PREPARE q AS DELETE FROM users WHERE id = ANY ($1)", USERS, PUBLIC)
    assert prepared.lines()[0] == "1. prepare: what it names does this when it runs:"
    assert any("id = ANY($1)" in line for line in prepared.lines())


def test_explanation_as_json_has_plain_values():
    (one,) = explain(b"SET LOCAL search_path TO a", USERS, PUBLIC)
    document = json.loads(json.dumps(one.to_json()))
    assert document["command"] == "set"
    assert document["reason"] == "unrelated"
    assert document["notes"] == ["It sets search_path to a for the transaction."]


def test_any_text_is_explained():
    assert explain("", USERS, PUBLIC) == []
    assert explain("UPDATE users SET name = '\udcff", USERS, PUBLIC)[0].reason.value == "opaque"


def test_manual_lists_every_reason():
    manual = Path(__file__).parents[3].joinpath("docs/capture.md").read_text()
    for reason in Reason:
        assert f"| `{reason.value}` | {reason.sentence} |" in manual
