"""Column values as Redis holds them: PostgreSQL's own text under ISO dates, UTC, exact floats, hex bytea and UTF-8.

``loader`` is asked once for each result column and answers with a function called once for each value, or with the
reason why the column cannot be read; ``render`` puts the texts of a row together as its rule's format wants them. The
values of each family of types are read by a module of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from json.encoder import encode_basestring
from typing import TYPE_CHECKING

from cache import builtin_types as t
from cache.builtin_types import Setting, printed_with
from cache.rules import ValueFormat
from cache.values import geometry, numbers, scalars, times
from cache.values import text_search as search
from cache.values.containers import (
    ArrayFormat,
    multirange_from_binary,
    multirange_from_text,
    range_from_binary,
    range_from_text,
)
from cache.values.encodings import effective_encoding, text_loader
from cache.values.loading import Loader, ValueSettings, guarded, verbatim
from protocol import codes

if TYPE_CHECKING:
    from cache.catalog.tables import Column
    from cache.changes import Value
    from cache.rules import TableRule

__all__ = ["Loader", "Renderer", "ValueSettings", "loader", "render", "renderer", "verbatim"]

_ENCODED = printed_with(Setting.CLIENT_ENCODING) | {t.ANYENUM}
_CHECKED: dict[int, Callable[[bytes], bytes | None]] = {
    t.BYTEA: scalars.bytea_from_text,
    t.CHAR: scalars.char_from_text,
    t.DATE: times.date_from_text,
    t.TIMESTAMP: times.timestamp_from_text,
    t.TIMESTAMPTZ: times.timestamptz_from_text,
    t.INTERVAL: times.interval_from_text,
}
"""Types whose text is looked at, value by value."""

_BINARY: dict[int, Callable[[bytes], bytes | None]] = {
    t.BOOL: numbers.bool_text,
    t.INT2: numbers.int2_text,
    t.INT4: numbers.int4_text,
    t.INT8: numbers.int8_text,
    t.OID: numbers.uint4_text,
    t.XID: numbers.uint4_text,
    t.CID: numbers.uint4_text,
    t.XID8: numbers.uint8_text,
    t.NUMERIC: numbers.numeric_text,
    t.FLOAT4: numbers.float4_text,
    t.FLOAT8: numbers.float8_text,
    t.BYTEA: scalars.bytea_text,
    t.UUID: scalars.uuid_text,
    t.MACADDR: scalars.macaddr_text,
    t.MACADDR8: scalars.macaddr8_text,
    t.INET: scalars.inet_text,
    t.CIDR: scalars.inet_text,
    t.BIT: scalars.bit_text,
    t.VARBIT: scalars.bit_text,
    t.TID: scalars.tid_text,
    t.PG_SNAPSHOT: scalars.pg_snapshot_text,
    t.TXID_SNAPSHOT: scalars.pg_snapshot_text,
    t.DATE: times.date_text,
    t.TIME: times.time_text,
    t.TIMETZ: times.timetz_text,
    t.TIMESTAMP: times.timestamp_text,
    t.TIMESTAMPTZ: times.timestamptz_text,
    t.POINT: geometry.point_text,
    t.LSEG: geometry.lseg_text,
    t.BOX: geometry.box_text,
    t.LINE: geometry.line_text,
    t.CIRCLE: geometry.circle_text,
    t.PATH: geometry.path_text,
    t.POLYGON: geometry.polygon_text,
}
"""Types whose binary format says everything by itself."""
_SAME_IN_BINARY = frozenset({t.NAME, t.TEXT, t.BPCHAR, t.VARCHAR, t.REFCURSOR, t.JSON})
_VERSIONED = frozenset({t.JSONB, t.JSONPATH})
"""Text behind a version byte, which has always been 1."""

_EXTENSION_TYPES = frozenset({"citext", "hstore", "ltree", "lquery", "ltxtquery"})
"""Types of extensions whose output is text that no setting but client_encoding changes."""


def loader(column: Column, format: int, settings: ValueSettings) -> Loader | str:  # noqa: A002  PostgreSQL's word
    """How values of ``column`` become canonical text, or the reason why none can.

    ``format`` is the result column's format code. The loader takes values that are not NULL, never raises, and answers
    None for a single value that cannot be made canonical. It is ``verbatim`` itself where nothing needs to be done.
    """
    if format == codes.TEXT:
        return _text(column, settings)
    if format == codes.BINARY:
        return _binary(column, settings)
    return f"format code {format} is unknown"


def _text(column: Column, settings: ValueSettings) -> Loader | str:
    oid = column.base_oid or column.type_oid
    if oid in t.BY_OID:
        return _base_text(oid, settings)
    if element := _element(column):
        return _through(_base_text(element, settings), settings, _array(element).from_text)
    if oid in t.RANGES:
        return _through(_base_text(t.RANGES[oid], settings), settings, range_from_text)
    if oid in t.MULTIRANGES:
        return _through(_base_text(t.MULTIRANGES[oid], settings), settings, multirange_from_text)
    kind = _base_kind(column)
    if kind == "e":
        return text_loader(settings)
    if kind == "b" and oid >= t.FIRST_USER_OID and column.base_name in _EXTENSION_TYPES:
        return text_loader(settings)
    return _container_text(column, settings)


def _binary(column: Column, settings: ValueSettings) -> Loader | str:
    oid = column.base_oid or column.type_oid
    if oid in t.BY_OID:
        return _base_binary(oid, settings)
    if element := _element(column):
        return _within(_base_binary(element, settings), _array(element).from_binary)
    if oid in t.RANGES:
        return _within(_base_binary(t.RANGES[oid], settings), range_from_binary)
    if oid in t.MULTIRANGES:
        return _within(_base_binary(t.MULTIRANGES[oid], settings), multirange_from_binary)
    kind = _base_kind(column)
    if kind == "e":
        return text_loader(settings)
    if kind == "b" and column.base_name == "citext" and oid >= t.FIRST_USER_OID:
        return text_loader(settings)
    return f"{_describe(column)} is not read in binary format"


def _base_kind(column: Column) -> str:
    return column.base_kind if column.type_kind == "d" else column.type_kind


def _element(column: Column) -> int:
    """The built-in element type of a built-in array type; 0 for every other type."""
    return t.ARRAYS.get(column.base_oid or column.type_oid, 0)


def _array(element: int) -> ArrayFormat:
    return ArrayFormat(b";" if element == t.BOX else b",")


def _base_text(oid: int, settings: ValueSettings) -> Loader | str:
    base = t.BY_OID[oid]
    if base.refused:
        return base.refused
    match base.printed_with:
        case Setting.CLIENT_ENCODING:
            return text_loader(settings)
        case Setting.EXTRA_FLOAT_DIGITS if not settings.float_digits_certain:
            return f"{base.label} prints as extra_float_digits says, which is not certain in this session"
        case Setting.DATE_STYLE if settings.date_style and not settings.iso_dates:
            return f"{base.label} is in DateStyle {settings.date_style}, not ISO"
        case Setting.INTERVAL_STYLE if settings.interval_style not in ("", "postgres"):
            return f"interval is in IntervalStyle {settings.interval_style}, not postgres"
    return guarded(_CHECKED[oid]) if oid in _CHECKED else verbatim


def _base_binary(oid: int, settings: ValueSettings) -> Loader | str:
    if reason := t.BY_OID[oid].refused:
        return reason
    if oid in _BINARY:
        return guarded(_BINARY[oid])
    if oid == t.INTERVAL:
        return guarded(times.interval_text_17 if settings.server_version >= 170_000 else times.interval_text)
    if oid == t.CHAR:
        return guarded(scalars.char_text if settings.server_version >= 150_000 else scalars.char_text_14)
    if oid == t.PG_LSN:
        known = 0 < settings.server_version < 190_000
        return guarded(scalars.pg_lsn_text) if known else "pg_lsn prints differently from version 19 on"
    if oid in (t.INT2VECTOR, t.OIDVECTOR):
        element = numbers.int2_text if oid == t.INT2VECTOR else numbers.uint4_text
        return guarded(_array(0).vector_from_binary(element))
    return _encoded_binary(oid, settings)


def _encoded_binary(oid: int, settings: ValueSettings) -> Loader | str:
    text = text_loader(settings)
    if isinstance(text, str) or oid in _SAME_IN_BINARY:
        return text
    if oid == t.XML:
        if effective_encoding(settings) == "UTF8":
            return text
        return "xml in binary format names its encoding, which is not UTF8"
    if oid == t.TSVECTOR:
        return guarded(search.tsvector_loader(text))
    if oid == t.TSQUERY:
        return guarded(search.tsquery_loader(text))
    assert oid in _VERSIONED
    return guarded(_behind_version(text))


def _behind_version(text: Loader) -> Loader:
    def load(value: bytes) -> bytes | None:
        return text(value[1:]) if value[:1] == b"\x01" else None

    return load


def _through(element: Loader | str, settings: ValueSettings, rebuild: Callable[[Loader], Loader]) -> Loader | str:
    """The loader of a container's text. Canonical or merely encoded elements need no taking apart."""
    if isinstance(element, str) or element is verbatim or element is text_loader(settings):
        return element
    return guarded(rebuild(element))


def _within(element: Loader | str, rebuild: Callable[[Loader], Loader]) -> Loader | str:
    return element if isinstance(element, str) else guarded(rebuild(element))


def _container_text(column: Column, settings: ValueSettings) -> Loader | str:
    """Composites, ranges and arrays of other than built-in types are read as they are, if all within is canonical."""
    if column.inner is None:
        return f"{_describe(column)} is not a type whose text is known to be independent of settings"
    for oid in column.inner:
        reason = _why_not_canonical(oid, settings)
        if reason is not None:
            return f"{_describe(column)}: {reason}"
    if column.inner & _ENCODED:
        return text_loader(settings)
    return verbatim


def _why_not_canonical(oid: int, settings: ValueSettings) -> str | None:
    """Why values of a base type within a container may not be canonical; None when they are, but for their encoding."""
    if oid == t.ANYENUM:
        return None
    base = t.BY_OID.get(oid)
    if base is None:
        return f"type {oid} within it is not built in"
    if oid == t.CHAR:
        return f"{base.label} within it may be printed in several ways"
    match base.printed_with:
        case Setting.CLIENT_ENCODING:
            return None
        case Setting.BYTEA_OUTPUT:
            return f"{base.label} within it may be printed in several ways"
        case Setting.DATE_STYLE if not settings.iso_dates:
            return f"{base.label} within it is not certain to be ISO"
        case Setting.DATE_STYLE if oid == t.TIMESTAMPTZ and not settings.utc:
            return "timestamptz within it is not at UTC"
        case Setting.INTERVAL_STYLE if settings.interval_style != "postgres":
            return "interval within it is not certain to be in IntervalStyle postgres"
    reason = _base_text(oid, settings)
    return reason if isinstance(reason, str) else None


def _describe(column: Column) -> str:
    kinds = {"e": "enum", "c": "composite", "r": "range", "m": "multirange"}
    kind = "array" if column.element_oid else kinds.get(_base_kind(column), "type")
    return f"{kind} {column.base_name or column.base_oid or column.type_oid}"


Renderer = Callable[[Sequence[bytes | None]], "Value | None"]
"""From the canonical texts of a row's value columns, None for NULL, to what Redis holds; None when it holds nothing."""

_JSON_NUMBERS = frozenset({t.INT2, t.INT4, t.INT8, t.FLOAT4, t.FLOAT8, t.NUMERIC})
_JSON_BOOLEANS = {b"t": b"true", b"f": b"false"}
_JSON_NUMBER = re.compile(rb"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:e[+-]\d+)?")


_renderers: dict[TableRule, tuple[Sequence[Column], Renderer]] = {}
_MAX_RENDERERS = 1024
"""More rules than this are there only after many reloads of the configuration."""


def render(rule: TableRule, columns: Sequence[Column], texts: Sequence[bytes | None]) -> Value | None:
    """What ``rule`` wants Redis to hold for a row; None when the row's key is to be removed.

    ``texts`` are the canonical texts of ``columns``, the value columns in the rule's order.
    """
    if rule.format is ValueFormat.STRING:
        return texts[0]
    known = _renderers.get(rule)
    if known is None or known[0] is not columns:
        if len(_renderers) >= _MAX_RENDERERS:
            _renderers.clear()
        known = _renderers[rule] = (columns, renderer(rule, columns))
    return known[1](texts)


def renderer(rule: TableRule, columns: Sequence[Column]) -> Renderer:
    """``render`` for one rule and its value columns: worth keeping where many rows follow."""
    if rule.format is ValueFormat.STRING:
        return _string
    if rule.format is ValueFormat.HASH:
        return _hash_renderer(tuple(column.name.encode() for column in columns))
    return _json_renderer(columns)


def _string(texts: Sequence[bytes | None]) -> Value | None:
    return texts[0]


def _hash_renderer(fields: tuple[bytes, ...]) -> Renderer:
    def render_hash(texts: Sequence[bytes | None]) -> Value | None:
        return {field: text for field, text in zip(fields, texts, strict=True) if text is not None} or None

    return render_hash


def _json_renderer(columns: Sequence[Column]) -> Renderer:
    members = tuple((f"{encode_basestring(column.name)}:".encode(), _json_encoder(column)) for column in columns)

    def render_json(texts: Sequence[bytes | None]) -> Value | None:
        parts: list[bytes] = []
        for (name, encode), text in zip(members, texts, strict=True):
            try:
                parts.append(name + (b"null" if text is None else encode(text)))
            except UnicodeDecodeError:
                return None
        return b"{%b}" % b",".join(parts)

    return render_json


def _json_encoder(column: Column) -> Callable[[bytes], bytes]:
    oid = column.base_oid or column.type_oid
    if oid in _JSON_NUMBERS:
        return _json_number
    if oid == t.BOOL:
        return _json_boolean
    return _json_document if oid in (t.JSON, t.JSONB) else _json_string


def _json_number(text: bytes) -> bytes:
    """NaN and the infinities are no numbers in JSON."""
    return text if _JSON_NUMBER.fullmatch(text) else _json_string(text)


def _json_boolean(text: bytes) -> bytes:
    return _JSON_BOOLEANS.get(text) or _json_string(text)


def _json_document(text: bytes) -> bytes:
    """As it is: PostgreSQL keeps only valid JSON."""
    text.decode()
    return text


def _json_string(text: bytes) -> bytes:
    return encode_basestring(text.decode()).encode()
