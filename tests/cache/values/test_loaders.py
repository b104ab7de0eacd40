"""Values without a server: settings, hostile input, and what Redis gets to hold."""

import dataclasses
import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache import builtin_types as t
from cache.catalog.tables import Column
from cache.keys import KeyTemplate
from cache.rules import TableRule, ValueFormat
from cache.values import loaders
from cache.values.encodings import input_loader
from cache.values.loaders import ValueSettings, loader, render, renderer, verbatim
from cache.values.loading import CANONICAL

EVERY_TYPE = sorted(t.BY_OID.keys() | t.ARRAYS.keys() | t.RANGES.keys() | t.MULTIRANGES.keys())


def column(oid, name="value", **facts):
    return Column(name, 1, oid, -1, base_oid=oid, **facts)


def load(oid, value, code=0, settings=CANONICAL):
    chosen = loader(column(oid), code, settings)
    assert not isinstance(chosen, str), chosen
    return chosen(value)


def test_common_types_are_loaded_verbatim():
    for oid in (
        t.INT2,
        t.INT4,
        t.INT8,
        t.BOOL,
        t.UUID,
        t.NUMERIC,
        t.TEXT,
        t.VARCHAR,
        t.BPCHAR,
        t.JSON,
        t.JSONB,
        t.FLOAT8,
    ):
        assert loader(column(oid), 0, CANONICAL) is verbatim
    for oid in (t.TEXT, t.VARCHAR, t.JSON):
        assert loader(column(oid), 1, CANONICAL) is verbatim
    assert verbatim(b"x") == b"x"


def test_settings_are_taken_from_parameter_status():
    parameters = {"client_encoding": "utf8", "server_encoding": "UTF8", "DateStyle": "ISO, MDY", "TimeZone": "Etc/UTC",
                  "IntervalStyle": "postgres", "server_version": "18.1 (Debian 18.1-1)"}  # fmt: skip
    known = ValueSettings.from_parameters(parameters, float_digits_certain=True)
    assert known == ValueSettings("UTF8", "UTF8", "ISO, MDY", "postgres", "Etc/UTC", True, 180001)
    assert known.iso_dates
    assert known.utc
    assert hash(known) == hash(dataclasses.replace(known))
    assert not ValueSettings.from_parameters(parameters).float_digits_certain
    for version in ("11.22", "9.6.24", "", "devel"):
        old = ValueSettings.from_parameters({"server_version": version}, float_digits_certain=True)
        assert not old.float_digits_certain
    assert ValueSettings.from_parameters({"server_version": "19devel"}).server_version == 190000


def test_values_under_unknown_settings_are_read_only_if_their_text_shows_its_style():
    """With nothing known, text that shows by itself what it is is still read."""
    unknown = ValueSettings()
    for oid in (t.TEXT, t.JSON, t.FLOAT8, t.POINT, t.XML):
        assert isinstance(loader(column(oid), 0, unknown), str)
    assert load(t.DATE, b"2024-01-02", settings=unknown) == b"2024-01-02"
    assert load(t.DATE, b"02.01.2024", settings=unknown) is None
    assert load(t.BYTEA, b"a\\\\\\001", settings=unknown) == b"\\x615c01"
    assert load(t.INT4, b"1", settings=unknown) == b"1"
    assert load(t.FLOAT8, struct.pack("!d", 0.1), 1, unknown) == b"0.1"
    assert isinstance(loader(column(t.PG_LSN), 1, unknown), str)
    assert load(t.CHAR, b"\xff", 1, unknown) is None
    assert load(t.INTERVAL, struct.pack("!qii", 2**63 - 1, 2**31 - 1, 2**31 - 1), 1, unknown) is None
    assert isinstance(loader(column(t.INT4), 2, unknown), str)


@pytest.mark.parametrize(
    "text",
    [
        "01-02-2024",
        "01/02/2024",
        "2.1.2024",
        "2024-1-2",
        "2024-01-02 BCE",
        "infinit",
        "",
        "2024-01-02\n",
        "12-17-19970",
    ],
)
def test_dates_of_another_style_are_not_read(text):
    assert load(t.DATE, text.encode()) is None


@pytest.mark.parametrize(
    "text",
    ["Wed Dec 17 07:37:16 1997 PST", "12/17/1997 07:37:16.00 PST", "17.12.1997 07:37:16.00 PST", "1997-12-17 07:37:16",
     "1997-12-17 07:37:16 PST", "1997-12-17 07:37:16+1", "1997-13-17 07:37:16+01", "1997-02-30 07:37:16+01"],
)  # fmt: skip
def test_timestamps_of_another_style_are_not_read(text):
    assert load(t.TIMESTAMPTZ, text.encode()) is None


@pytest.mark.parametrize(
    "text",
    [
        "P1Y2M",
        "PT1S",
        "@ 1 year 2 mons",
        "1-2",
        "1 2:03:04",
        "+1-2 -3 +4:05:06",
        "4:05:06",
        "",
        "1 year ",
        "1 week",
        "0",
    ],
)
def test_intervals_of_another_style_are_not_read(text):
    assert load(t.INTERVAL, text.encode()) is None


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2024-07-01 12:00:00+05:30", "2024-07-01 06:30:00+00"),
        ("2024-01-01 00:00:00.5+01", "2023-12-31 23:00:00.5+00"),
        ("0001-01-01 00:00:00+01", "0001-12-31 23:00:00+00 BC"),
        ("0001-12-31 23:30:00-00:44:30 BC", "0001-01-01 00:14:30+00"),
        ("294276-12-31 23:59:59.999999-01", "294277-01-01 00:59:59.999999+00"),
        ("10000-01-01 00:00:00+00:00:01", "9999-12-31 23:59:59+00"),
        ("0044-03-15 00:00:00+00 BC", "0044-03-15 00:00:00+00 BC"),
        ("infinity", "infinity"),
    ],
)
def test_timestamp_with_offset_is_moved_to_utc(text, utc):
    assert load(t.TIMESTAMPTZ, text.encode()) == utc.encode()


HOSTILE = [b"", b"\0", b"\xff" * 4, b"\xff" * 24, b"\x7f" * 40, b"\0\0\0\1" * 10, b"{", b'{"', b"{" * 50, b"[,)", b"\\",
           struct.pack("!iiIii", 1, 0, 23, 2**31 - 1, 1), struct.pack("!iiI", 7, 0, 23)]  # fmt: skip


def survives(oid, code, value):
    chosen = loader(column(oid), code, CANONICAL)
    result = None if isinstance(chosen, str) else chosen(value)
    assert result is None or isinstance(result, bytes)


@pytest.mark.parametrize("oid", EVERY_TYPE)
def test_no_loader_raises_for_hostile_values(oid):
    for code in (0, 1):
        for value in HOSTILE:
            survives(oid, code, value)


@settings(max_examples=1000)
@given(st.sampled_from(EVERY_TYPE), st.sampled_from([0, 1]), st.binary(max_size=40))
def test_no_loader_raises_for_random_values(oid, code, value):
    survives(oid, code, value)


@pytest.mark.parametrize(
    ("oid", "value"),
    [
        (t.INT4, b"\0\0\0"), (t.INT4, b"\0\0\0\0\0"), (t.BOOL, b""), (t.UUID, b"\0" * 15),
        (t.INET, b"\2\x20\0\4\1\2\3"),
        (t.INET, b"\2\x21\0\4\1\2\3\4"), (t.INET, b"\3\x20\0\4\1\2\3\4"), (t.NUMERIC, b"\0\1\0\0\0\0\0\0"),
        (t.NUMERIC, b"\0\1\0\0\0\0\0\0\x27\x10"), (t.NUMERIC, b"\0\0\0\0\x20\0\0\0"), (t.VARBIT, b"\0\0\0\x09\xff"),
        (t.JSONB, b"\2{}"), (t.JSONB, b""), (t.PATH, b"\2\0\0\0\0"), (t.POLYGON, b"\0\0\0\1"),
        (t.TSVECTOR, b"\0\0\0\1a"),
        (t.TSVECTOR, b"\0\0\0\0x"), (t.TSQUERY, b"\0\0\0\1\2\2"), (t.TSQUERY, b"\0\0\0\1\3\0"), (t.TIME, b"\xff" * 8),
        (1007, struct.pack("!iiIii", 1, 0, 23, 2, 1) + struct.pack("!ii", 4, 1)), (3904, b"\xff"),
        (3904, b"\2\0\0\0\4\0\0\0\1"),
        (4451, b"\0\0\0\1\0\0\0\1\2"), (1007, struct.pack("!iiI", 0, 0, 23) + b"x"),
    ],
)  # fmt: skip
def test_malformed_binary_is_not_read(oid, value):
    assert load(oid, value, 1) is None


def rule(format_, *columns):
    template = KeyTemplate.default(database="d", schema="public", table="t", key_columns=["id"])
    return TableRule("d", "public", "t", ("id",), tuple(one.name for one in columns), template, format_)


def test_string_format_is_the_text_and_null_removes():
    one = column(t.TEXT)
    assert render(rule(ValueFormat.STRING, one), (one,), [b"x"]) == b"x"
    assert render(rule(ValueFormat.STRING, one), (one,), [b""]) == b""
    assert render(rule(ValueFormat.STRING, one), (one,), [None]) is None
    assert renderer(rule(ValueFormat.STRING, one), (one,))([b"x"]) == b"x"


def test_hash_format_leaves_nulls_out():
    columns = (column(t.INT4, "n"), column(t.TEXT, "größe"))
    hashed = rule(ValueFormat.HASH, *columns)
    assert render(hashed, columns, [b"1", b"x"]) == {b"n": b"1", "größe".encode(): b"x"}
    assert render(hashed, columns, [None, b""]) == {"größe".encode(): b""}
    assert render(hashed, columns, [None, None]) is None


JSON_COLUMNS = tuple(
    column(oid, name)
    for name, oid in {
        "i": t.INT8, "f": t.FLOAT8, "n": t.NUMERIC, "b": t.BOOL, "j": t.JSON, "jb": t.JSONB, "s": t.TEXT,
        'q"\\é': t.DATE,
        "a": 1007, "u": t.UUID,
    }.items()
)  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "document"),
    [
        (
            [
                b"42",
                b"1e+20",
                b"1.50",
                b"t",
                b' {"a" : [1]}',
                b'"x"',
                'é"\n\x01'.encode(),
                b"2024-01-01",
                b"{1}",
                b"a0",
            ],
            (
                '{"i":42,"f":1e+20,"n":1.50,"b":true,"j": {"a" : [1]},"jb":"x","s":"é\\"\\n\\u0001",'
                '"q\\"\\\\é":"2024-01-01","a":"{1}","u":"a0"}'
            ),
        ),
        (
            [b"-9223372036854775808", b"NaN", b"Infinity", b"f", None, None, b"", None, None, None],
            (
                '{"i":-9223372036854775808,"f":"NaN","n":"Infinity","b":false,"j":null,"jb":null,"s":"",'
                '"q\\"\\\\é":null,"a":null,"u":null}'
            ),
        ),
        (
            [None] * 10,
            '{"i":null,"f":null,"n":null,"b":null,"j":null,"jb":null,"s":null,"q\\"\\\\é":null,"a":null,"u":null}',
        ),
        (
            [b"0", b"-0", b"0.00001", b"t", b"null", b"1.0", b"\x7f/", b"infinity", b"{}", b""],
            '{"i":0,"f":-0,"n":0.00001,"b":true,"j":null,"jb":1.0,"s":"\x7f/","q\\"\\\\é":"infinity","a":"{}","u":""}',
        ),
    ],
)
def test_json_format_has_the_types_of_json(texts, document):
    rendered = render(rule(ValueFormat.JSON, *JSON_COLUMNS), JSON_COLUMNS, texts)
    assert rendered == document.encode()
    assert list(json.loads(document)) == [one.name for one in JSON_COLUMNS]


@given(st.text(), st.text(min_size=1))
def test_json_format_keeps_any_string(value, name):
    try:
        value.encode(), name.encode()
    except UnicodeEncodeError:
        return
    columns = (column(t.TEXT, name),)
    document = render(rule(ValueFormat.JSON, *columns), columns, [value.encode()])
    assert isinstance(document, bytes)
    assert json.loads(document) == {name: value}


def test_json_format_of_bytes_that_are_not_utf8_is_absent():
    columns = (column(t.TEXT),)
    assert render(rule(ValueFormat.JSON, *columns), columns, [b"\xff"]) is None


def test_render_follows_a_column_that_changed_its_type():
    """The same rule bound anew, to a column that changed its type."""
    ruled = rule(ValueFormat.JSON, column(t.INT4))
    assert render(ruled, (column(t.INT4),), [b"1"]) == b'{"value":1}'
    assert render(ruled, (column(t.TEXT),), [b"1"]) == b'{"value":"1"}'


def test_domain_is_rendered_as_its_base_type():
    domain = Column("value", 1, 20000, -1, "d", t.INT4, base_kind="b")
    assert render(rule(ValueFormat.JSON, domain), (domain,), [b"1"]) == b'{"value":1}'


@pytest.mark.parametrize(
    ("oid", "text"),
    [
        (1182, b"{01.02.2024}"),
        (1182, b'{2024-01-02,"}'),
        (1182, b"2024-01-02"),
        (1001, b'{"a}'),
        (4535, b"{[2024-01-01,2024-02-01);[2025-01-01,)}"),
        (4535, b"[2024-01-01,2024-02-01)"),
        (3912, b"[01.02.2024,)"),
        (3912, b"2024-01-02"),
    ],
)
def test_container_with_an_element_that_is_not_canonical_is_not_read(oid, text):
    assert load(oid, text) is None


DIMENSION = struct.pack("!ii", 1, 1)
ELEMENT = struct.pack("!ih", 2, 7)


@pytest.mark.parametrize(
    ("oid", "value"),
    [
        (t.INT2VECTOR, struct.pack("!iiI", 2, 0, t.INT2) + DIMENSION * 2 + ELEMENT),
        (t.INT2VECTOR, struct.pack("!iiI", 1, 1, t.INT2) + DIMENSION + struct.pack("!i", -1)),
        (1005, struct.pack("!iiIii", 1, 0, t.INT2, -1, 1)),
        (t.TSQUERY, struct.pack("!I", 2) + b"\1\0\0a\0" * 2),
        (t.TSQUERY, struct.pack("!I", 1) + b"\1\0\0a\0x"),
    ],
)
def test_binary_container_of_another_shape_is_not_read(oid, value):
    assert load(oid, value, 1) is None


def test_composites_are_read_if_everything_in_them_is_canonical():
    def composite(*oids):
        return Column("value", 1, 20000, -1, "c", 20000, base_kind="c", inner=frozenset(oids))

    elsewhere = dataclasses.replace(
        CANONICAL, date_style="German, DMY", interval_style="iso_8601", time_zone="Asia/Kolkata"
    )
    assert loader(composite(t.INT4, t.TEXT, t.DATE, t.TIMESTAMPTZ, t.INTERVAL), 0, CANONICAL) is verbatim
    assert loader(composite(t.INT4), 0, ValueSettings()) is verbatim, "nothing in it depends on a setting"
    without_digits = dataclasses.replace(CANONICAL, float_digits_certain=False)
    in_kolkata = dataclasses.replace(CANONICAL, time_zone="Asia/Kolkata")
    for oid, known, reason in [
        (t.CHAR, CANONICAL, '"char" within it may be printed in several ways'),
        (t.BYTEA, CANONICAL, "bytea within it may be printed in several ways"),
        (t.DATE, elsewhere, "date within it is not certain to be ISO"),
        (t.TIMESTAMPTZ, in_kolkata, "timestamptz within it is not at UTC"),
        (t.INTERVAL, elsewhere, "interval within it is not certain to be in IntervalStyle postgres"),
        (t.FLOAT8, without_digits, "float8 prints as extra_float_digits says"),
        (t.MONEY, CANONICAL, "money prints as lc_monetary says"),
        (20001, CANONICAL, "type 20001 within it is not built in"),
    ]:
        refused = loader(composite(t.INT4, oid), 0, known)
        assert isinstance(refused, str)
        assert reason in refused


@pytest.mark.parametrize(
    ("client", "server", "text", "loaded"),
    [
        ("UTF8", "UTF8", "é".encode(), "é".encode()),
        ("UTF8", "SQL_ASCII", "é".encode(), None),
        ("LATIN1", "UTF8", b"\xe9", "é".encode()),
        ("GBK", "UTF8", b"\xc4\xe3", None),
        ("SJIS", "UTF8", b"a", b"a"),
        ("SJIS", "UTF8", b"~", None),
        ("", "UTF8", b"a", "client_encoding unknown"),
    ],
)
def test_text_of_a_statement_is_what_it_will_be_when_it_is_stored_and_printed(client, server, text, loaded):
    load = input_loader(ValueSettings(client_encoding=client, server_encoding=server))
    assert (load if isinstance(load, str) else load(text)) == loaded


def test_renderers_of_old_configurations_are_forgotten(monkeypatch):
    monkeypatch.setattr(loaders, "_MAX_RENDERERS", 3)
    loaders._renderers.clear()
    one = column(t.INT4)
    for _ in range(10):
        assert render(rule(ValueFormat.HASH, one), (one,), [b"1"]) == {b"value": b"1"}
        assert len(loaders._renderers) <= 3
