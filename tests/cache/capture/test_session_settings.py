"""Settings: what decides the meaning of names and the look of values, as statements and the server tell it."""

from __future__ import annotations

import pytest

from cache.capture.session_settings import Settings, parse_search_path
from cache.catalog.tables import Scope

REPORTED = {
    "client_encoding": "UTF8",
    "server_encoding": "UTF8",
    "search_path": '"$user", public',
    "session_authorization": "me",
    "standard_conforming_strings": "on",
    "server_version": "18.1",
}


def settings(startup=None, **reported):
    return Settings(REPORTED | reported, {"user": "me"} | (startup or {}))


@pytest.mark.parametrize(
    ("value", "schemas"),
    [
        ('"$user", public', ("me", "public")),
        ("a,b , c", ("a", "b", "c")),
        ('"A ""quoted"", one", pg_catalog, b', ('A "quoted", one', "b")),
        ("", ()),
        ('"', None),
        ("a b", None),
        (",", None),
    ],
)
def test_search_path_is_divided_into_schemas(value, schemas):
    assert parse_search_path(value, "me") == schemas


def test_search_path_with_user_is_unknown_if_the_user_is():
    assert parse_search_path("public", None) == ("public",)
    assert parse_search_path('"$user", public', None) is None


def test_scope_and_values_stay_the_same_objects_until_something_changes():
    found = settings()
    scope = found.scope
    assert scope == Scope(("me", "public"))
    assert found.scope is scope
    assert found.values(float_digits_certain=True) is found.values(float_digits_certain=True)
    assert not found.changed
    found.report("search_path", "other")
    assert found.changed
    assert found.scope.search_path == ("other",)


def test_parameter_that_was_set_is_uncertain_until_ready_for_query():
    found = settings()
    found.apply([("search_path", "x", False)])
    assert found.scope.search_path is None
    found.report("search_path", "x")
    assert found.scope.search_path is None, "a later statement may have set it again"
    found.settle()
    assert found.scope.search_path == ("x",)
    found.changed = False
    found.settle()
    assert not found.changed


def test_parameters_that_are_not_reported_are_taken_from_statements():
    found = settings()
    assert found.values(float_digits_certain=True).float_digits_certain
    assert not found.values(float_digits_certain=False).float_digits_certain
    found.apply([("extra_float_digits", "3", False)])
    assert found.values(float_digits_certain=True).float_digits_certain
    found.apply([("extra_float_digits", "0", False)])
    assert not found.values(float_digits_certain=True).float_digits_certain
    found = settings()
    found.apply([("role", "other", False)])
    assert found.scope.search_path is None
    found.report("session_authorization", "again")
    assert found.scope.search_path == ("again", "public")


@pytest.mark.parametrize(
    ("startup", "certain"),
    [
        ({}, True),
        ({"extra_float_digits": "2"}, True),
        ({"extra_float_digits": "-1"}, False),
        ({"extra_float_digits": "many"}, False),
        ({"options": "-c extra_float_digits=0"}, False),
        ({"options": "--extra-float-digits=-3"}, False),
        ({"options": "-cExtra_Float_Digits=-3"}, False),
        ({"options": "-c extra_float_digits=-3 --extra_float_digits=2"}, True),
        ({"options": "-c extra_float_digits=2 -c extra-float-digits=0"}, False),
        ({"options": "-c extra_float_digits=0", "Extra_Float_Digits": "3"}, True),
        ({"options": "-c extra_float_digits=0", "extra_float_digits": "0"}, False),
        ({"options": r"-c application_name=a\ --extra_float_digits=0"}, True),
        ({"options": "-e"}, False),
        ({"options": "-c"}, False),
        ({"options": "--extra_float_digits"}, False),
    ],
)
def test_float_digits_are_certain_unless_the_startup_message_asked_for_fewer(startup, certain):
    assert settings(startup).values(float_digits_certain=True).float_digits_certain is certain


@pytest.mark.parametrize(
    "startup", [{"options": "-c role=x"}, {"Role": "x"}, {"options": "--ROLE=x"}, {"options": "-S 4 -c a=b"}]
)
def test_search_path_is_unknown_if_the_startup_message_set_a_role(startup):
    assert settings(startup).scope.search_path is None


@pytest.mark.parametrize("startup", [{"options": "-c my.role=x"}, {"application_name": "role"}])
def test_search_path_is_known_if_the_startup_message_only_mentions_a_role(startup):
    assert settings(startup).scope.search_path is not None


def meanings(*steps):
    """How much the meaning grows with each of the steps."""
    found, grown = settings(), []
    for step in steps:
        before = found.meaning
        step(found)
        grown.append(found.meaning > before)
    return grown


def setting(name, value="x", *, local=False):
    return lambda found: found.apply([(name, value, local)])


@pytest.mark.parametrize("name", ["search_path", "role", "session_authorization", "*"])
def test_meaning_grows_with_the_setting_and_with_the_end_of_its_transaction(name):
    undone, ended = Settings.undone, Settings.transaction_ended
    assert meanings(setting(name), undone, undone, ended, ended, undone) == [True, True, True, True, False, False]


@pytest.mark.parametrize("name", ["datestyle", "extra_float_digits", "my.role"])
def test_meaning_stays_with_settings_that_name_no_relation(name):
    assert meanings(setting(name), Settings.undone, Settings.transaction_ended) == [False, False, False]


def test_meaning_stays_with_reset_all_unless_the_search_path_was_set():
    reset = setting("reset all", None)
    steps = reset, setting("search_path"), reset, Settings.transaction_ended, reset, Settings.discard_all, reset
    assert meanings(*steps) == [False, True, True, True, True, True, False]


def test_meaning_grows_with_a_report_of_another_value_only():
    def report(name, value):
        return lambda found: found.report(name, value)

    steps = report("search_path", "a"), report("search_path", "a"), report("session_authorization", "b")
    assert meanings(*steps, report("TimeZone", "UTC")) == [True, False, True, False]


def test_meaning_grows_with_temporary_relations_definitions_and_unseen_code():
    steps = (lambda found: found.shadow(["a"])), Settings.change_names, Settings.run_unseen_code, Settings.discard_all
    assert meanings(*steps) == [True, True, True, True]


def test_temporary_relations_are_unknown_after_unseen_code_until_all_is_discarded():
    found = settings()
    assert not found.scope.temporary_unknown
    found.run_unseen_code()
    found.settle()
    found.transaction_ended()
    assert found.scope.temporary_unknown
    found.discard_all()
    assert not found.scope.temporary_unknown


def test_reported_parameters_are_unknown_from_the_end_of_their_transaction_until_ready_for_query():
    found = settings()
    found.apply([("search_path", "acme", True)])
    found.settle()
    assert found.scope.search_path is not None
    found.undone()
    assert found.scope.search_path is None
    found.settle()
    found.transaction_ended()
    assert found.scope.search_path is None
    found.settle()
    found.transaction_ended()
    assert found.scope.search_path is not None


def test_everything_is_unknown_after_something_unseen_until_ready_for_query():
    found = settings()
    found.run_unseen_code()
    assert found.scope.search_path is None
    assert found.values(float_digits_certain=True).client_encoding == ""
    assert found.readable(b"ascii")
    assert not found.readable("é".encode())
    found.settle()
    assert found.values(float_digits_certain=True).client_encoding == "UTF8"


@pytest.mark.parametrize(("encoding", "readable"), [("UTF8", True), ("latin1", True), ("sjis", False), ("", False)])
def test_text_is_readable_unless_its_encoding_is_ambiguous(encoding, readable):
    assert settings(client_encoding=encoding).readable(b"\xe9") is readable


def test_text_with_a_backslash_is_not_readable_until_standard_conforming_strings_is_reported():
    found = settings()
    assert found.readable(b"a\\b")
    found.apply([("standard_conforming_strings", "off", False)])
    assert not found.readable(b"a\\b")
    assert found.readable(b"a")
    found.report("standard_conforming_strings", "off")
    found.settle()
    assert found.readable(b"a\\b")


@pytest.mark.parametrize(
    ("text", "parameter", "alike"),
    [
        (b"ascii", "client_encoding", True),
        (b"\xc3\xa9", "client_encoding", False),
        (b"\xc3\xa9", "search_path", True),
        (b"a\\b", "standard_conforming_strings", False),
        (b"ascii", "standard_conforming_strings", True),
    ],
)
def test_text_is_read_alike_unless_what_decides_its_literals_changes(text, parameter, alike):
    found = settings()
    reading = found.reading
    found.apply([(parameter, "x", False)])
    assert found.reads_alike(text, reading) is alike
    found.report(parameter, "x")
    found.settle()
    assert found.reads_alike(text, reading) is alike
    found.report(parameter, REPORTED[parameter])
    assert found.reads_alike(text, reading)


def test_temporary_relations_shadow_until_they_are_discarded():
    found = settings()
    found.shadow(["a"])
    found.shadow(["b"])
    assert found.scope.shadowed == {"a", "b"}
    found.discard_all()
    assert found.scope.shadowed == frozenset()


def test_scope_says_whether_strings_conform():
    assert not settings(standard_conforming_strings="off").scope.conforming_strings


def test_hot_standby_is_what_was_reported_last():
    found = settings(in_hot_standby="on")
    assert found.hot_standby
    found.report("in_hot_standby", "off")
    assert not found.hot_standby
