"""What reading a column's values needs to know: the session's settings, and PostgreSQL's built-in types by OID.

Every type family has its own ``values_*`` module; ``values`` chooses among them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Loader = Callable[[bytes], bytes | None]
"""From a value as it came over the wire to its canonical text; None when that cannot be told for this value."""


def verbatim(value: bytes) -> bytes | None:
    """The loader of values that are canonical as they come. Callers may compare with ``is`` and leave out the call."""
    return value


_MALFORMED = (struct.error, ValueError, IndexError, OverflowError)


def guarded(decode: Loader) -> Loader:
    """``decode`` as a loader: values it finds malformed (too short, too long, out of range) become None."""

    def load(value: bytes) -> bytes | None:
        try:
            return decode(value)
        except _MALFORMED:
            return None

    return load


@dataclass(frozen=True, slots=True)
class ValueSettings:
    """The settings of a session that decide how values look on the wire. An empty text is a setting not known."""

    client_encoding: str = ""
    server_encoding: str = ""
    date_style: str = ""
    interval_style: str = ""
    time_zone: str = ""
    float_digits_certain: bool = False
    """extra_float_digits is certainly above 0. It is not reported, so whoever follows the session's SETs must say."""
    server_version: int = 0
    """As PG_VERSION_NUM: 180000 for 18; 0 when not known."""

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str], *, float_digits_certain: bool = False) -> ValueSettings:
        """From the latest value of each ParameterStatus, by name as the server spells it."""
        version = re.match(r"(\d{1,4})(?:\.(\d{1,3}))?", parameters.get("server_version", ""))
        number = int(version[1]) * 10_000 + int(version[2] or 0) if version else 0
        return cls(
            client_encoding=parameters.get("client_encoding", "").upper(),
            server_encoding=parameters.get("server_encoding", "").upper(),
            date_style=parameters.get("DateStyle", ""),
            interval_style=parameters.get("IntervalStyle", ""),
            time_zone=parameters.get("TimeZone", ""),
            # Before version 12 the digits were neither shortest nor, by default, exact.
            float_digits_certain=float_digits_certain and number >= 120_000,
            server_version=number,
        )

    @property
    def iso_dates(self) -> bool:
        """DateStyle is ISO, with whatever order of day and month (which only matters for input)."""
        return self.date_style.split(",")[0].strip() == "ISO"

    @property
    def utc(self) -> bool:
        """TimeZone is known to be another name of UTC."""
        return self.time_zone in _UTC


CANONICAL = ValueSettings(
    "UTF8", "UTF8", "ISO, MDY", "postgres", "UTC", float_digits_certain=True, server_version=180000
)
"""The settings under which PostgreSQL's own text is what Redis must hold."""

_UTC = frozenset(
    prefix + name
    for prefix in ("", "Etc/")
    for name in ("UTC", "UCT", "GMT", "GMT0", "GMT+0", "GMT-0", "Greenwich", "Universal", "Zulu")
)

BOOL, BYTEA, CHAR, NAME, INT8, INT2, INT2VECTOR, INT4, TEXT, OID = 16, 17, 18, 19, 20, 21, 22, 23, 25, 26
TID, XID, CID, OIDVECTOR, JSON, XML, XID8 = 27, 28, 29, 30, 114, 142, 5069
POINT, LSEG, PATH, BOX, POLYGON, LINE, CIRCLE = 600, 601, 602, 603, 604, 628, 718
CIDR, INET, MACADDR, MACADDR8 = 650, 869, 829, 774
FLOAT4, FLOAT8, MONEY, NUMERIC = 700, 701, 790, 1700
BPCHAR, VARCHAR, REFCURSOR, BIT, VARBIT, UUID = 1042, 1043, 1790, 1560, 1562, 2950
DATE, TIME, TIMESTAMP, TIMESTAMPTZ, INTERVAL, TIMETZ = 1082, 1083, 1114, 1184, 1186, 1266
TXID_SNAPSHOT, PG_SNAPSHOT, PG_LSN = 2970, 5038, 3220
TSVECTOR, TSQUERY, JSONB, JSONPATH = 3614, 3615, 3802, 4072
ANYENUM = 3500
"""Stands for any enum type where built-in and other types are named together."""

BASE_TYPES: dict[int, str] = {
    BOOL: "bool", BYTEA: "bytea", CHAR: '"char"', NAME: "name", INT8: "int8", INT2: "int2", INT2VECTOR: "int2vector",
    INT4: "int4", TEXT: "text", OID: "oid", TID: "tid", XID: "xid", CID: "cid", OIDVECTOR: "oidvector", JSON: "json",
    XML: "xml", XID8: "xid8", POINT: "point", LSEG: "lseg", PATH: "path", BOX: "box", POLYGON: "polygon", LINE: "line",
    CIRCLE: "circle", CIDR: "cidr", INET: "inet", MACADDR: "macaddr", MACADDR8: "macaddr8", FLOAT4: "float4",
    FLOAT8: "float8", MONEY: "money", NUMERIC: "numeric", BPCHAR: "bpchar", VARCHAR: "varchar",
    REFCURSOR: "refcursor", BIT: "bit", VARBIT: "varbit", UUID: "uuid", DATE: "date", TIME: "time",
    TIMESTAMP: "timestamp", TIMESTAMPTZ: "timestamptz", INTERVAL: "interval", TIMETZ: "timetz",
    TXID_SNAPSHOT: "txid_snapshot", PG_SNAPSHOT: "pg_snapshot", PG_LSN: "pg_lsn", TSVECTOR: "tsvector",
    TSQUERY: "tsquery", JSONB: "jsonb", JSONPATH: "jsonpath",
}  # fmt: skip

_OBJECT = "prints names of database objects, which change without the row and are spelled by search_path"
_INTERNAL = "is internal to PostgreSQL"
REFUSED: dict[int, str] = {
    MONEY: "money prints as lc_monetary says, which no session tells",
    **{
        oid: f"{name} {_OBJECT}"
        for oid, name in {
            24: "regproc", 2202: "regprocedure", 2203: "regoper", 2204: "regoperator", 2205: "regclass",
            2206: "regtype", 3734: "regconfig", 3769: "regdictionary", 4089: "regnamespace", 4096: "regrole",
            4191: "regcollation", 1033: "aclitem",
        }.items()
    },
    **{
        oid: f"{name} {_INTERNAL}"
        for oid, name in {
            194: "pg_node_tree", 3361: "pg_ndistinct", 3402: "pg_dependencies", 3642: "gtsvector",
            4600: "pg_brin_bloom_summary", 4601: "pg_brin_minmax_multi_summary", 5017: "pg_mcv_list",
        }.items()
    },
}  # fmt: skip
"""Base types of which no value is ever read, and why."""

ARRAYS: dict[int, int] = {
    1000: BOOL, 1001: BYTEA, 1002: CHAR, 1003: NAME, 1016: INT8, 1005: INT2, 1006: INT2VECTOR, 1007: INT4, 1009: TEXT,
    1028: OID, 1010: TID, 1011: XID, 1012: CID, 1013: OIDVECTOR, 199: JSON, 143: XML, 271: XID8, 1017: POINT,
    1018: LSEG, 1019: PATH, 1020: BOX, 1027: POLYGON, 629: LINE, 719: CIRCLE, 651: CIDR, 1041: INET, 1040: MACADDR,
    775: MACADDR8, 1021: FLOAT4, 1022: FLOAT8, 791: MONEY, 1231: NUMERIC, 1014: BPCHAR, 1015: VARCHAR,
    2201: REFCURSOR, 1561: BIT, 1563: VARBIT, 2951: UUID, 1182: DATE, 1183: TIME, 1115: TIMESTAMP, 1185: TIMESTAMPTZ,
    1187: INTERVAL, 1270: TIMETZ, 2949: TXID_SNAPSHOT, 5039: PG_SNAPSHOT, 3221: PG_LSN, 3643: TSVECTOR, 3645: TSQUERY,
    3807: JSONB, 4073: JSONPATH,
}  # fmt: skip
"""Element type of each built-in array type over a base type."""

RANGES: dict[int, int] = {
    3904: INT4, 3926: INT8, 3906: NUMERIC, 3908: TIMESTAMP, 3910: TIMESTAMPTZ, 3912: DATE,
}  # fmt: skip
"""Subtype of each built-in range type."""

MULTIRANGES: dict[int, int] = {
    4451: INT4, 4536: INT8, 4532: NUMERIC, 4533: TIMESTAMP, 4534: TIMESTAMPTZ, 4535: DATE,
}  # fmt: skip
"""Subtype of each built-in multirange type."""
