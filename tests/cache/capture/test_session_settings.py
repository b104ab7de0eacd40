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
def test_a_search_path(value, schemas):
    assert parse_search_path(value, "me") == schemas


def test_a_user_who_is_not_certain():
    assert parse_search_path("public", None) == ("public",)
    assert parse_search_path('"$user", public', None) is None


def test_the_scope_stays_the_same_object_until_something_changes():
    found = settings()
    scope = found.scope
    assert scope == Scope(("me", "public"))
    assert found.scope is scope
    assert found.values(float_digits_certain=True) is found.values(float_digits_certain=True)
    assert not found.changed
    found.report("search_path", "other")
    assert found.changed
    assert found.scope.search_path == ("other",)


def test_a_reported_parameter_is_uncertain_until_ready_for_query():
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


def test_settings_that_are_not_reported():
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
    ],
)
def test_what_the_startup_message_asked_for(startup, certain):
    assert settings(startup).values(float_digits_certain=True).float_digits_certain is certain


def test_a_role_in_the_startup_message():
    assert settings({"options": "-c role=x"}).scope.search_path is None


def test_doubt_about_everything():
    found = settings()
    found.mark_uncertain()
    assert found.scope.search_path is None
    assert found.values(float_digits_certain=True).client_encoding == ""
    assert found.readable(b"ascii")
    assert not found.readable("é".encode())
    found.settle()
    assert found.values(float_digits_certain=True).client_encoding == "UTF8"


@pytest.mark.parametrize(("encoding", "readable"), [("UTF8", True), ("latin1", True), ("sjis", False), ("", False)])
def test_texts_whose_literals_can_be_told_apart(encoding, readable):
    assert settings(client_encoding=encoding).readable(b"\xe9") is readable


def test_temporary_relations():
    found = settings()
    found.shadow(["a"])
    found.shadow(["b"])
    assert found.scope.shadowed == {"a", "b"}
    found.discard_temporary()
    assert found.scope.shadowed == frozenset()


def test_strings_that_do_not_conform():
    assert not settings(standard_conforming_strings="off").scope.conforming_strings


def test_a_hot_standby():
    found = settings(in_hot_standby="on")
    assert found.hot_standby
    found.report("in_hot_standby", "off")
    assert not found.hot_standby
