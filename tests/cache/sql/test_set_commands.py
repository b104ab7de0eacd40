"""What SET, RESET and set_config() are understood to do."""

import pytest

from tests.cache.catalogs import plan


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("SET search_path = a, \"B c\", 'd'", (("search_path", 'a, "B c", d', False),)),
        ("SET SESSION search_path TO 'x, y'", (("search_path", '"x, y"', False),)),
        ("SET LOCAL search_path TO a", (("search_path", "a", True),)),
        ("SET search_path TO DEFAULT", (("search_path", None, False),)),
        ("SET SCHEMA 'a'", (("search_path", "a", False),)),
        ("SET TIME ZONE 'UTC'", (("timezone", "UTC", False),)),
        ("SET TIME ZONE LOCAL", (("timezone", None, False),)),
        ("SET TIME ZONE INTERVAL '1' HOUR TO MINUTE", (("timezone", None, False),)),
        ("SET DateStyle = ISO, DMY", (("datestyle", "iso, dmy", False),)),
        ("SET extra_float_digits = -1", (("extra_float_digits", "-1", False),)),
        ("SET NAMES 'LATIN1'", (("client_encoding", "LATIN1", False),)),
        ('SET ROLE "Me"', (("role", "Me", False),)),
        ("SET SESSION AUTHORIZATION DEFAULT", (("session_authorization", None, False),)),
        ("SET my.thing TO 'x'", (("my.thing", "x", False),)),
        ("SET local = 4", (("local", "4", False),)),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", ()),
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", ()),
        ("RESET ALL", (("reset all", None, False),)),
        ("RESET search_path", (("search_path", None, False),)),
        ("RESET TIME ZONE", (("timezone", None, False),)),
        ("RESET SESSION AUTHORIZATION", (("session_authorization", None, False), ("role", None, False))),
        ("DISCARD ALL", (("*", None, False),)),
        ("SELECT set_config('Search_Path', 'a', true)", (("search_path", "a", True),)),
        ("SELECT pg_catalog.set_config('role', 'x', false), 1", (("role", "x", False),)),
        ("SELECT set_config($1, 'x', false)", (("*", None, False),)),
        ("SELECT set_config('role', $1, false)", (("role", None, False),)),
        ("SELECT set_config('role', x, y) FROM t", (("*", None, False),)),
        ("UPDATE pg_settings SET setting = 'x' WHERE name = 'search_path'", (("*", None, False),)),
        ("CREATE TABLE o AS SELECT set_config('role', 'x', false)", (("role", "x", False),)),
        ("CREATE TABLE o AS SELECT set_config('role', 'x', false) WITH NO DATA", ()),
        ("DO $$ BEGIN PERFORM set_config('search_path', 'x', false); END $$", (("*", None, False),)),
        ("SELECT 1", ()),
    ],
)
def test_parameters_are_set_to_the_values_of_the_text(text, settings):
    assert plan(text).settings == settings


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("SET CONSTRAINTS ALL DEFERRED", ()),
        ("SET XML OPTION DOCUMENT", (("xmloption", None, False),)),
        ("SET search_path", (("*", None, False),)),
        ("SET 1 = 2", (("*", None, False),)),
        ("SET datestyle = iso dmy", (("datestyle", None, False),)),
        ("SET search_path = a, b c", (("search_path", None, False),)),
        ("SET search_path = a,", (("search_path", None, False),)),
        ("SET search_path = a, 1 + 1", (("search_path", None, False),)),
        ("SET timezone = 'a', 'b'", (("timezone", None, False),)),
        ("RESET", (("*", None, False),)),
        ("SELECT set_config('role', 'x')", (("*", None, False),)),
        ("SELECT set_config('role', 'x', 1)", (("*", None, False),)),
    ],
)
def test_setting_whose_value_is_not_certain_has_none(text, settings):
    assert plan(text).settings == settings
