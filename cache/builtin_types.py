"""PostgreSQL's built-in base types: a row for each, with all that Rowtap knows of it but how to read its values.

A type is looked up by its OID (``BY_OID``) or by a name that casts and declarations spell (``CONSTANT_TYPES``). Where
a fact is not in the table the type is unknown, and nothing is filled or stored from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


class Family(Enum):
    """Types among which a constant of one is a constant of the other with the same text, if it is in range."""

    INTEGER = "integer"
    TEXT = "text"
    BOOL = "bool"
    UUID = "uuid"
    JSON = "json"
    ENUM = "enum"


class Setting(Enum):
    """A setting of the session that decides how a type's values are printed."""

    CLIENT_ENCODING = "client_encoding"
    EXTRA_FLOAT_DIGITS = "extra_float_digits"
    DATE_STYLE = "DateStyle"
    INTERVAL_STYLE = "IntervalStyle"
    BYTEA_OUTPUT = "bytea_output"


class TextForm(NamedTuple):
    """The texts that values of a type can have."""

    pattern: bytes
    """Regular expression that matches each of them whole."""
    alphabet: frozenset[int]
    """Every byte that can occur in one."""


@dataclass(frozen=True, slots=True)
class BuiltinType:
    """One type of pg_catalog. The first three are columns of pg_type."""

    oid: int
    name: str
    category: str
    array_oid: int = 0
    """pg_type.typarray; 0 where arrays of the type are not read."""
    range_oid: int = 0
    """The built-in range type over it, if there is one."""
    multirange_oid: int = 0
    key_words: tuple[str, ...] = ()
    """Its names in PostgreSQL's grammar, as far as Rowtap follows them; a cast to ``name`` itself needs none."""
    has_modifier: bool = False
    """A type modifier can follow its name in parentheses (pg_type.typmodin)."""
    known_to_parser: bool = False
    """The SQL parser takes ``name``, which is no key word of the grammar, for this very type."""
    family: Family | None = None
    """A column of the type stores a constant of this family with unchanged text; None: with a text that is not
    certain."""
    is_key: bool = False
    """Equality means same text (under a deterministic collation), so ``column = constant`` says the column's text."""
    size: int = 0
    """Integers: bytes in binary format (pg_type.typlen)."""
    form: TextForm | None = None
    """What texts its values can have; None for any text."""
    printed_with: Setting | None = None
    """The setting its text depends on; of one that depends on TimeZone too, the other."""
    refused: str = ""
    """Why no value of it is ever read."""

    @property
    def label(self) -> str:
        """Its name for people, as SQL spells it: ``char`` without quotes would be another type."""
        return '"char"' if self.oid == CHAR else self.name


BOOL, BYTEA, CHAR, NAME, INT8, INT2, INT2VECTOR, INT4, TEXT, OID = 16, 17, 18, 19, 20, 21, 22, 23, 25, 26
TID, XID, CID, OIDVECTOR, JSON, XML, XID8 = 27, 28, 29, 30, 114, 142, 5069
POINT, LSEG, PATH, BOX, POLYGON, LINE, CIRCLE = 600, 601, 602, 603, 604, 628, 718
CIDR, INET, MACADDR, MACADDR8 = 650, 869, 829, 774
FLOAT4, FLOAT8, MONEY, NUMERIC = 700, 701, 790, 1700
BPCHAR, VARCHAR, REFCURSOR, BIT, VARBIT, UUID = 1042, 1043, 1790, 1560, 1562, 2950
DATE, TIME, TIMESTAMP, TIMESTAMPTZ, INTERVAL, TIMETZ = 1082, 1083, 1114, 1184, 1186, 1266
TXID_SNAPSHOT, PG_SNAPSHOT, PG_LSN = 2970, 5038, 3220
TSVECTOR, TSQUERY, JSONB, JSONPATH = 3614, 3615, 3802, 4072
UNKNOWN = 705
"""Pseudo-type of a string constant, or of a parameter, whose type is left to the server."""
ANYENUM = 3500
"""Pseudo-type that stands for every enum type where built-in and other types are named together."""
FIRST_USER_OID = 16_384
"""FirstNormalObjectId: types of users and extensions have this OID or a higher one."""

_INTEGER = TextForm(rb"(?:0|-?[1-9][0-9]{0,18})", frozenset(b"-0123456789"))
_UNSIGNED = TextForm(rb"(?:0|[1-9][0-9]{0,9})", frozenset(b"0123456789"))
_UUID = TextForm(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", frozenset(b"-0123456789abcdef"))
_BOOL = TextForm(rb"[ft]", frozenset(b"ft"))

_ENCODING, _DIGITS = Setting.CLIENT_ENCODING, Setting.EXTRA_FLOAT_DIGITS
_OBJECT = "prints names of database objects, which change without the row and are spelled by search_path"
_INTERNAL = "is internal to PostgreSQL"


def _integer(
    oid: int, name: str, size: int, array_oid: int, *key_words: str, ranges: tuple[int, int] = (0, 0)
) -> BuiltinType:
    return BuiltinType(
        oid, name, "N", array_oid, *ranges, key_words=key_words, known_to_parser=True,
        family=Family.INTEGER, is_key=True, size=size, form=_INTEGER,
    )  # fmt: skip


def _refused(oid: int, name: str, category: str, reason: str) -> BuiltinType:
    return BuiltinType(oid, name, category, refused=f"{name} {reason}")


TABLE: tuple[BuiltinType, ...] = (
    # Numbers
    _integer(INT2, "int2", 2, 1005, "smallint"),
    _integer(INT4, "int4", 4, 1007, "int", "integer", ranges=(3904, 4451)),
    _integer(INT8, "int8", 8, 1016, "bigint", ranges=(3926, 4536)),
    BuiltinType(FLOAT4, "float4", "N", 1021, key_words=("real",), known_to_parser=True, printed_with=_DIGITS),
    BuiltinType(
        FLOAT8, "float8", "N", 1022, key_words=("float", "double precision"), known_to_parser=True, printed_with=_DIGITS
    ),
    BuiltinType(
        NUMERIC, "numeric", "N", 1231, 3906, 4532, key_words=("numeric", "decimal", "dec"), has_modifier=True
    ),
    BuiltinType(MONEY, "money", "N", 791, refused="money prints as lc_monetary says, which no session tells"),
    BuiltinType(OID, "oid", "N", 1028, known_to_parser=True, form=_UNSIGNED),
    # Text
    BuiltinType(
        TEXT, "text", "S", 1009, known_to_parser=True, family=Family.TEXT, is_key=True, printed_with=_ENCODING
    ),
    BuiltinType(
        VARCHAR, "varchar", "S", 1015, key_words=("varchar", "character varying"), has_modifier=True,
        family=Family.TEXT, is_key=True, printed_with=_ENCODING,
    ),
    BuiltinType(
        BPCHAR, "bpchar", "S", 1014, key_words=("character", "char", "nchar"), has_modifier=True, known_to_parser=True,
        printed_with=_ENCODING,
    ),
    BuiltinType(NAME, "name", "S", 1003, known_to_parser=True, printed_with=_ENCODING),
    BuiltinType(CHAR, "char", "Z", 1002),
    BuiltinType(REFCURSOR, "refcursor", "U", 2201, printed_with=_ENCODING),
    # Documents
    BuiltinType(JSON, "json", "U", 199, known_to_parser=True, family=Family.JSON, printed_with=_ENCODING),
    BuiltinType(JSONB, "jsonb", "U", 3807, known_to_parser=True, printed_with=_ENCODING),
    BuiltinType(JSONPATH, "jsonpath", "U", 4073, printed_with=_ENCODING),
    BuiltinType(XML, "xml", "U", 143, known_to_parser=True, printed_with=_ENCODING),
    BuiltinType(TSVECTOR, "tsvector", "U", 3643, printed_with=_ENCODING),
    BuiltinType(TSQUERY, "tsquery", "U", 3645, printed_with=_ENCODING),
    # Dates and times
    BuiltinType(DATE, "date", "D", 1182, 3912, 4535, known_to_parser=True, printed_with=Setting.DATE_STYLE),
    BuiltinType(TIME, "time", "D", 1183, key_words=("time",), has_modifier=True),
    BuiltinType(TIMETZ, "timetz", "D", 1270, has_modifier=True, known_to_parser=True),
    BuiltinType(
        TIMESTAMP, "timestamp", "D", 1115, 3908, 4533, key_words=("timestamp",), has_modifier=True,
        printed_with=Setting.DATE_STYLE,
    ),
    BuiltinType(
        TIMESTAMPTZ, "timestamptz", "D", 1185, 3910, 4534, has_modifier=True, known_to_parser=True,
        printed_with=Setting.DATE_STYLE,
    ),
    BuiltinType(
        INTERVAL, "interval", "T", 1187, key_words=("interval",), has_modifier=True,
        printed_with=Setting.INTERVAL_STYLE,
    ),
    # Geometry
    BuiltinType(POINT, "point", "G", 1017, printed_with=_DIGITS),
    BuiltinType(LSEG, "lseg", "G", 1018, printed_with=_DIGITS),
    BuiltinType(PATH, "path", "G", 1019, printed_with=_DIGITS),
    BuiltinType(BOX, "box", "G", 1020, printed_with=_DIGITS),
    BuiltinType(POLYGON, "polygon", "G", 1027, printed_with=_DIGITS),
    BuiltinType(LINE, "line", "G", 629, printed_with=_DIGITS),
    BuiltinType(CIRCLE, "circle", "G", 719, printed_with=_DIGITS),
    # Others
    BuiltinType(
        BOOL, "bool", "B", 1000, key_words=("boolean",), known_to_parser=True, family=Family.BOOL, is_key=True,
        form=_BOOL,
    ),
    BuiltinType(UUID, "uuid", "U", 2951, known_to_parser=True, family=Family.UUID, is_key=True, form=_UUID),
    BuiltinType(BYTEA, "bytea", "U", 1001, known_to_parser=True, printed_with=Setting.BYTEA_OUTPUT),
    BuiltinType(BIT, "bit", "V", 1561, key_words=("bit",), has_modifier=True),
    BuiltinType(VARBIT, "varbit", "V", 1563, has_modifier=True),
    BuiltinType(CIDR, "cidr", "I", 651),
    BuiltinType(INET, "inet", "I", 1041),
    BuiltinType(MACADDR, "macaddr", "U", 1040),
    BuiltinType(MACADDR8, "macaddr8", "U", 775),
    BuiltinType(INT2VECTOR, "int2vector", "A", 1006),
    BuiltinType(OIDVECTOR, "oidvector", "A", 1013),
    BuiltinType(TID, "tid", "U", 1010),
    BuiltinType(XID, "xid", "U", 1011),
    BuiltinType(CID, "cid", "U", 1012),
    BuiltinType(XID8, "xid8", "U", 271),
    BuiltinType(TXID_SNAPSHOT, "txid_snapshot", "U", 2949),
    BuiltinType(PG_SNAPSHOT, "pg_snapshot", "U", 5039),
    BuiltinType(PG_LSN, "pg_lsn", "U", 3221),
    # Never read
    _refused(24, "regproc", "N", _OBJECT),
    _refused(2202, "regprocedure", "N", _OBJECT),
    _refused(2203, "regoper", "N", _OBJECT),
    _refused(2204, "regoperator", "N", _OBJECT),
    _refused(2205, "regclass", "N", _OBJECT),
    _refused(2206, "regtype", "N", _OBJECT),
    _refused(3734, "regconfig", "N", _OBJECT),
    _refused(3769, "regdictionary", "N", _OBJECT),
    _refused(4089, "regnamespace", "N", _OBJECT),
    _refused(4096, "regrole", "N", _OBJECT),
    _refused(4191, "regcollation", "N", _OBJECT),
    _refused(1033, "aclitem", "U", _OBJECT),
    _refused(194, "pg_node_tree", "Z", _INTERNAL),
    _refused(3361, "pg_ndistinct", "Z", _INTERNAL),
    _refused(3402, "pg_dependencies", "Z", _INTERNAL),
    _refused(3642, "gtsvector", "U", _INTERNAL),
    _refused(4600, "pg_brin_bloom_summary", "Z", _INTERNAL),
    _refused(4601, "pg_brin_minmax_multi_summary", "Z", _INTERNAL),
    _refused(5017, "pg_mcv_list", "Z", _INTERNAL),
)  # fmt: skip

BY_OID: dict[int, BuiltinType] = {row.oid: row for row in TABLE}
"""Without arrays, ranges and multiranges: see the next three."""
ARRAYS: dict[int, int] = {row.array_oid: row.oid for row in TABLE if row.array_oid}
"""Element type of each built-in array type whose arrays are read, and of money[]."""
RANGES: dict[int, int] = {row.range_oid: row.oid for row in TABLE if row.range_oid}
"""Subtype of each built-in range type."""
MULTIRANGES: dict[int, int] = {row.multirange_oid: row.oid for row in TABLE if row.multirange_oid}
"""Subtype of each built-in multirange type."""
CONSTANT_TYPES: dict[str, BuiltinType] = {
    name: row for row in TABLE if row.family is not None for name in (row.name, *row.key_words)
}
"""By every name in casts and declarations: the types of which a constant's text is certain."""


def printed_with(setting: Setting) -> frozenset[int]:
    """OIDs of the types whose text depends on ``setting``."""
    return frozenset(row.oid for row in TABLE if row.printed_with is setting)


def family_of_type(oid: int) -> Family | None:
    """The family of a base type; None for most types, and for those that are not built in."""
    row = BY_OID.get(oid)
    return None if row is None else row.family


def family_of_name(name: str) -> Family | None:
    """The family of the type that a cast or a declaration spells like this."""
    row = CONSTANT_TYPES.get(name)
    return None if row is None else row.family
