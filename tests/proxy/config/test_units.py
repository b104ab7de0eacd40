"""Durations, addresses and names as the configuration spells them."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import units
from proxy.config.units import Address


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2ms", 0.002),
        ("250us", 0.00025),
        ("30s", 30.0),
        ("1.5 s", 1.5),
        ("10min", 600.0),
        ("10m", 600.0),
        ("1h", 3600.0),
        ("7d", 604_800.0),
        ("0s", 0.0),
        (" 5s ", 5.0),
    ],
)
def test_duration_is_read_in_seconds(text, value):
    assert units.seconds(text) == pytest.approx(value)


@pytest.mark.parametrize(
    "text", ["", "30", "s", "-1s", "1 week", "1h30m", "1e3s", "٣s", "nan", "1S", "36501d", "9" * 400 + "d"]
)
def test_malformed_or_too_long_duration_is_refused(text):
    with pytest.raises(ValueError, match=r"must be a duration|longer than a hundred years"):
        units.seconds(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:6432", Address("127.0.0.1", 6432)),
        ("localhost:0", Address("localhost", 0)),
        ("[::1]:6432", Address("::1", 6432)),
        ("*:6432", Address("", 6432)),
        (":6432", Address("", 6432)),
        ("/run/rowtap:6432", Address("", 6432, "/run/rowtap/.s.PGSQL.6432")),
        ("/run/rowtap/:6432", Address("", 6432, "/run/rowtap/.s.PGSQL.6432")),
    ],
)
def test_address_is_read_as_host_and_port_or_socket_path(text, expected):
    assert units.address(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "6432", "localhost", "localhost:", "a:b", "a:65536", "a:-1", "::1:6432", "a b:1", "[::1:6432", "a/b:1", "a:²"],
)
def test_malformed_address_is_refused(text):
    with pytest.raises(ValueError, match=r"must be|beyond|brackets"):
        units.address(text)


def test_socket_path_that_is_too_long_is_refused():
    with pytest.raises(ValueError, match="103 bytes"):
        units.address("/" + "a" * 90 + ":6432")


@pytest.mark.parametrize("text", ["127.0.0.1:6432", "[::1]:6432", "*:6432", "localhost:1"])
def test_address_is_printed_as_it_was_written(text):
    assert str(units.address(text)) == text


def test_directory_with_an_at_sign_is_in_the_abstract_namespace():
    assert units.socket_path("@rowtap", 5432) == "\0rowtap/.s.PGSQL.5432"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("users", ("public", "users")),
        ("public.users", ("public", "users")),
        ("Sales.Users", ("Sales", "Users")),
        ('"a.b".users', ("a.b", "users")),
        ('"say ""hi"""', ("public", 'say "hi"')),
        ('public."with space"', ("public", "with space")),
        ("über.straße", ("über", "straße")),
    ],
)
def test_table_name_is_split_into_schema_and_table(text, expected):
    assert units.table_name(text) == expected


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a.b.c", '"a', '"a"b', '""', "a\0b", "é" * 32])
def test_malformed_table_name_is_refused(text):
    with pytest.raises(ValueError, match=r"must|parts|closed|longer"):
        units.table_name(text)


@given(st.text())
def test_any_text_is_read_or_raises_value_error(text):
    for read in (units.seconds, units.address, units.table_name, units.identifier):
        with contextlib.suppress(ValueError):
            read(text)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("127.0.0.1:1", "127.0.0.1"),
        ("*:1", "localhost"),
        ("0.0.0.0:1", "127.0.0.1"),
        ("[::]:1", "::1"),
        ("db.example:1", "db.example"),
        ("/run/rowtap:1", "/run/rowtap"),
    ],
)
def test_client_host_is_one_that_a_client_on_this_machine_can_connect_to(text, host):
    assert units.address(text).client_host == host
