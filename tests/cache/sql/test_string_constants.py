"""String constants of every spelling, by example and as a real server reads them."""

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.sql import lexer
from cache.sql.string_constants import MalformedEscapeError, undoubled, unescaped


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"", b""),
        (b"it''s", b"it's"),
        (rb"it\'s", b"it's"),
        (rb"\\", b"\\"),
        (rb"\b\f\n\r\t", b"\b\f\n\r\t"),
        (rb"\q\8", b"q8"),
        (rb"\1011", b"A1"),
        (rb"\x41\x4g", b"A\x04g"),
        (rb"\u0041\U00000042", b"AB"),
        ("é\\é".encode(), "éé".encode()),
        (b"\\\n", b"\n"),
    ],
)
def test_escapes_become_their_bytes(body, value):
    assert unescaped(body) == (value, True)


@pytest.mark.parametrize(
    "body", [rb"\351", rb"\xe9", rb"\u00e9", rb"\U0001f600", rb"\0", rb"\x0", rb"\u0000", rb"\400", rb"\v"]
)
def test_escape_that_depends_on_encoding_or_version_is_not_certain(body):
    value, certain = unescaped(b"y" + body + b"z")
    assert not certain
    assert (value[:1], value[-1:]) == (b"y", b"z")


@pytest.mark.parametrize("body", [rb"\x", rb"\xg", rb"\u004", rb"\U0000004", rb"a\u"])
def test_escape_without_its_digits_is_refused(body):
    with pytest.raises(MalformedEscapeError):
        unescaped(body)


def test_quotes_are_undoubled_in_pairs():
    assert undoubled("a''b''''c", "'") == "a'b''c"
    assert undoubled(b'a""b', b'"') == b'a"b'


# --- against PostgreSQL ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def servers(postgres):
    """A connection for each value of standard_conforming_strings."""
    with (
        psycopg.connect(postgres.dsn(), autocommit=True) as on,
        psycopg.connect(postgres.dsn(), autocommit=True) as off,
    ):
        for connection in (on, off):
            connection.execute("SET escape_string_warning = off")
        off.execute("SET standard_conforming_strings = off")
        yield {True: on, False: off}


def answer(connection, text):
    """What the server takes the one constant of ``SELECT …`` for; None when it refuses the text."""
    result = connection.pgconn.exec_(text.encode())
    if result.status != psycopg.pq.ExecStatus.TUPLES_OK or result.ntuples != 1 or result.nfields != 1:
        return None
    return result.get_value(0, 0)


pieces = st.sampled_from(
    ["a", "é", "''", "'", "\\", "\\\\", r"\'", r"\n", r"\101", r"\7", r"\x41", r"\x", r"\u0041", r"\u00", r"\v", r"\q",
     "\n", "\r", "--", "$", "$$", "/*", '"', " "]
)  # fmt: skip
bodies = st.lists(pieces, max_size=5).map("".join)
gaps = st.sampled_from(["\n", " \n ", "\r\n\t", " -- it's\n", "\n-- x\n--\n ", " ", "", "/**/\n"])
constants = st.one_of(
    st.builds("{}'{}'".format, st.sampled_from(["", "E", "e", "N", "n", "U&", "u&"]), bodies),
    st.builds("{0}'{1}'{3}'{2}'".format, st.sampled_from(["", "E", "N", "U&"]), bodies, bodies, gaps),
    st.builds("{0}{1}{0}".format, st.sampled_from(["$$", "$a$", "$é1$", "$1$"]), bodies),
    st.builds("U&'d!0061t{}' {} '!'".format, bodies, st.sampled_from(["UESCAPE", "uescape/**/\n", "UESCAPED"])),
)


@given(constants, st.booleans())
@settings(max_examples=1000, deadline=None)
def test_lexer_reads_constants_as_the_server_does(servers, constant, conforming):
    text = f"SELECT {constant}"
    try:
        tokens = lexer.tokenize(text, conforming)
    except lexer.LexicalError:
        return  # what is not read is opaque, whatever the server does with it
    expected = answer(servers[conforming], text)
    if len(tokens) != 2 or tokens[1].kind != lexer.STRING:
        return  # several constants, or a comment swallowed the rest
    if tokens[1].certain:
        assert expected == tokens[1].text.encode()
