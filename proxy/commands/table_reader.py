"""The rows of configured tables, read over a login of their own in key order, page by page, as Redis should hold them.

For the commands that go through whole tables, ``warm`` and ``verify``; ``serve`` never reads anything by itself. One
page is in memory at any time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from psycopg.adapt import Dumper

from cache.catalog import query as catalog_query
from cache.values import loaders as values
from cache.values.loading import ValueSettings
from protocol import codes
from proxy.commands import lookup
from proxy.config import units

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from types import TracebackType

    from cache.catalog.tables import BoundRule, Column
    from cache.changes import Value
    from cache.rules import TableRule
    from proxy.config.sections import PostgresSection

PAGE = 1000
"""Rows of one page at most."""
PAGE_BYTES = 4 << 20
"""What a page's values may take: where rows are large, the next page has fewer of them."""
FIRST_PAGE = 100
CANONICAL = {
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "statement_timeout": "0",
    "default_transaction_read_only": "on",
    # Rather an error than rows that are silently left out.
    "row_security": "off",
}
"""Settings of the session. Under these PostgreSQL's own text is what Redis must hold."""
_REPORTED = ("server_version", "server_encoding", "client_encoding", "DateStyle", "IntervalStyle", "TimeZone")

_ORDER = """
SELECT (SELECT json_agg(a.attname ORDER BY k.number)
        FROM unnest(string_to_array(i.indkey::text, ' ')::int2[]) WITH ORDINALITY AS k(attnum, number)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
        WHERE k.number <= i.indnkeyatts)
FROM pg_catalog.pg_index i
WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indislive AND i.indpred IS NULL AND i.indexprs IS NULL
ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid
"""
_ESTIMATE = """
SELECT coalesce((SELECT sum(greatest(c.reltuples, 0)) FROM pg_catalog.pg_partition_tree(t.oid) p
                 JOIN pg_catalog.pg_class c ON c.oid = p.relid WHERE p.isleaf), t.reltuples)::int8
FROM pg_catalog.pg_class t WHERE t.oid = $1
"""


class ReadFailure(Exception):  # noqa: N818 - the outcome of reading, in one line for people
    """A table, or Redis, could not be read."""


class Misuse(ReadFailure):
    """What was asked for cannot be done, whatever the servers say."""


class Raw(bytes):
    """A parameter in PostgreSQL's own text, for the server to take as what it is compared with."""


class _RawDumper(Dumper):
    """No type is declared, so a row comparison gives the parameter its column's."""

    oid = 0

    def dump(self, obj: Any) -> bytes:
        return bytes(obj)


class Row(NamedTuple):
    """One row as Redis should hold it."""

    key: bytes
    """Its Redis key."""
    value: Value | None
    """None: Redis should hold no such key."""
    parts: tuple[bytes, ...]
    """The key columns' texts."""
    place: tuple[bytes, ...]
    """The ordering columns' texts: the next page begins behind them."""


def select(rules: Sequence[TableRule], names: Sequence[str]) -> list[TableRule]:
    """The rules that ``names`` mean: tables as the configuration spells them, or rules as logs and metrics call them.
    All rules for no names. Raises ``Misuse``."""
    if not rules:
        raise Misuse("no [[table]] is configured")
    if not names:
        return list(rules)
    chosen: set[TableRule] = set()
    for name in names:
        found = [rule for rule in rules if rule.label == name]
        if not found:
            try:
                place = units.table_name(name)
            except ValueError:
                place = ("", name)
            found = [rule for rule in rules if (rule.schema, rule.table) == place]
        if not found:
            known = ", ".join(rule.label for rule in rules)
            raise Misuse(f"no [[table]] is configured for {name!r}; there are {known}")
        chosen.update(found)
    return [rule for rule in rules if rule in chosen]


def bind(
    settings: PostgresSection, dsn: str | None, rules: Sequence[TableRule], chosen: Sequence[TableRule]
) -> tuple[dict[str, list[BoundRule]], list[str]]:
    """The chosen ones of ``rules`` by database, and a line for each that cannot be captured. Raises ``ReadFailure``,
    ``Misuse`` where nobody said how to log in."""
    if not lookup.has_login(dsn):
        raise Misuse("no login: give --dsn, or PGUSER and the like")
    found: dict[str, list[BoundRule]] = {}
    problems: list[str] = []
    for database in dict.fromkeys(rule.database for rule in chosen):
        try:
            catalog = lookup.ask(settings, dsn, database, [rule for rule in rules if rule.database == database])
        except lookup.LookupFailure as error:
            raise ReadFailure(f"{database}: {error}") from None
        found[database] = [bound for bound in catalog.bound if bound.rule in chosen]
        problems += [f"{rule.label} is not captured: {reason}" for rule, reason in catalog.unbound if rule in chosen]
    return found, problems


class Reader:
    """One connection to one database, under canonical settings. Use ``async with``."""

    def __init__(self, settings: PostgresSection, dsn: str | None, database: str) -> None:
        self._parameters = lookup.parameters(settings, dsn, database)
        self._connection: psycopg.AsyncConnection[tuple[Any, ...]] | None = None

    async def __aenter__(self) -> Reader:
        try:
            connection = await psycopg.AsyncConnection.connect(**self._parameters, autocommit=True)
            self._connection = connection
            connection.adapters.register_dumper(Raw, _RawDumper)
            for name, value in CANONICAL.items():
                await connection.execute(f"SET {name} TO '{value}'".encode())
        except psycopg.Error as error:
            await self.__aexit__(None, None, None)
            raise ReadFailure(_words(error)) from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def table(self, bound: BoundRule) -> Table:
        """Prepare to read a rule's rows. Raises ``ReadFailure`` when no value of some column can be captured."""
        try:
            (estimate,) = (await self.ask(_ESTIMATE, (bound.relation.oid,)))[0]
            indexes = await self.ask(_ORDER, (bound.relation.oid,))
        except (psycopg.Error, LookupError):
            raise ReadFailure(f"{bound.rule.label}: the table was changed just now") from None
        key = bound.rule.key
        order = next((tuple(columns) for (columns,) in indexes if set(columns) <= set(key)), key)
        return Table(self, bound, order, estimate if estimate > 0 else None)

    async def ask(self, query: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        """A query's rows, as Python values. Raises ``psycopg.Error``."""
        cursor = await self._execute(query, parameters)
        return await cursor.fetchall()

    async def raw(self, query: str, parameters: Sequence[Raw]) -> list[list[bytes | None]]:
        """A query's rows, as the bytes that came. Raises ``psycopg.Error``."""
        result = (await self._execute(query, parameters)).pgresult
        assert result is not None
        columns = range(result.nfields)
        return [[result.get_value(row, column) for column in columns] for row in range(result.ntuples)]

    async def _execute(self, query: str, parameters: Sequence[Any]) -> psycopg.AsyncRawCursor[tuple[Any, ...]]:
        assert self._connection is not None
        cursor = psycopg.AsyncRawCursor(self._connection)
        await cursor.execute(query.encode(), parameters)
        return cursor

    def settings(self) -> ValueSettings:
        """What decides how values of this session are printed."""
        assert self._connection is not None
        info = self._connection.info
        known = {name: info.parameter_status(name) or "" for name in _REPORTED}
        return ValueSettings.from_parameters(known, float_digits_certain=True)


class Table:
    """The rows of one rule. Made by ``Reader.table``."""

    def __init__(self, reader: Reader, bound: BoundRule, order: tuple[str, ...], estimate: int | None) -> None:
        self.rule = bound.rule
        self.bound = bound
        self.order = order
        """The columns of ``place``: those of a unique index within the key, so that each page is an index scan."""
        self.estimate = estimate
        """How many rows the planner supposes there are; None when it does not know."""
        self.template = catalog_query.typed_template(bound)
        self._reader = reader
        names = tuple(dict.fromkeys((*self.rule.key, *self.rule.value)))
        self._key = [(names.index(name), self._loader(column)) for name, column in _named(self.rule.key, bound.key)]
        self._value = [
            (names.index(name), self._loader(column)) for name, column in _named(self.rule.value, bound.value)
        ]
        self._place = [names.index(name) for name in order]
        self._render = values.renderer(self.rule, bound.value)
        columns = ", ".join(_quote(name) for name in names)
        place = f"{_quote(self.rule.schema)}.{_quote(self.rule.table)}"
        self._select = f"SELECT {columns} FROM {place} WHERE "  # noqa: S608 - identifiers, quoted
        self._there = " AND ".join(f"{_quote(name)} IS NOT NULL" for name in self.rule.key)

    def _loader(self, column: Column) -> values.Loader:
        loader = values.loader(column, codes.TEXT, self._reader.settings())
        if isinstance(loader, str):
            raise ReadFailure(f"{self.rule.label} is not captured: column {column.name!r}: {loader}")
        return loader

    async def pages(
        self, begin: Sequence[bytes] = (), *, inclusive: bool = False, limit: int = PAGE
    ) -> AsyncIterator[list[Row]]:
        """All rows with a whole key, in the order of ``order``, from behind ``begin`` on (or from it on).

        No page has more than ``limit`` rows. Raises ``ReadFailure``.
        """
        place = tuple(begin)
        size = min(limit, FIRST_PAGE)
        while True:
            raw = await self._page(place, ">=" if inclusive else ">", size)
            if raw:
                rows = self._rows(raw)
                yield rows
                place, inclusive = rows[-1].place, False
            if len(raw) < size:
                return
            average = sum(len(value or b"") for row in raw for value in row) // len(raw) + 1
            size = max(1, min(limit, PAGE_BYTES // average, 10 * size))

    async def _page(self, place: tuple[bytes, ...], operator: str, size: int) -> list[list[bytes | None]]:
        order = ", ".join(_quote(name) for name in self.order)
        behind = ""
        if place:
            marks = ", ".join(f"${number}" for number in range(1, len(place) + 1))
            behind = f" AND ({order}) {operator} ({marks})"
        query = f"{self._select}{self._there}{behind} ORDER BY {order} LIMIT {size}"
        try:
            return await self._reader.raw(query, [Raw(text) for text in place])
        except psycopg.Error as error:
            raise ReadFailure(f"{self.rule.label}: {_words(error)}") from None

    async def find(self, keys: Sequence[tuple[bytes, ...]]) -> dict[bytes, Row]:
        """The rows with these texts of the key columns, by Redis key; a text that is none of its column's type means
        no row. Raises ``ReadFailure``."""
        if not keys:
            return {}
        numbers = iter(range(1, len(keys) * len(self.rule.key) + 1))
        marks = ", ".join(f"({', '.join(f'${next(numbers)}' for _ in key)})" for key in keys)
        columns = ", ".join(_quote(name) for name in self.rule.key)
        try:
            raw = await self._reader.raw(
                f"{self._select}({columns}) IN ({marks})", [Raw(text) for key in keys for text in key]
            )
        except psycopg.DataError:
            if len(keys) == 1:
                return {}
            half = len(keys) // 2
            return await self.find(keys[:half]) | await self.find(keys[half:])
        except psycopg.Error as error:
            raise ReadFailure(f"{self.rule.label}: {_words(error)}") from None
        wanted = {self.rule.template.render(key) for key in keys}
        # A type's equality may be wider than that of texts.
        return {row.key: row for row in self._rows(raw) if row.key in wanted}

    def _rows(self, raw: Sequence[Sequence[bytes | None]]) -> list[Row]:
        rows = []
        for row in raw:
            parts = tuple([_text(load, row[position]) or b"" for position, load in self._key])
            value = self._render([_text(load, row[position]) for position, load in self._value])
            place = tuple([row[position] or b"" for position in self._place])
            rows.append(Row(self.rule.template.render(parts), value, parts, place))
        return rows


def _text(load: values.Loader, value: bytes | None) -> bytes | None:
    if value is None:
        return None
    text = load(value)
    # What no session's settings let Rowtap read is canonical as it stands under the canonical ones.
    return value if text is None else text


def _named(names: Sequence[str], columns: Sequence[Column]) -> list[tuple[str, Column]]:
    return list(zip(names, columns, strict=True))


def _quote(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def _words(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
