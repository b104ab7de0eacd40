"""The rows of configured tables as Redis should hold them, read over the user's login in key order, page by page.

For ``warm`` and ``verify``, which read whole tables; ``serve`` never reads a row by itself. There is one page in memory
at any time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from psycopg.adapt import Dumper

from cache.catalog.query import typed_template
from cache.values.loaders import Loader, loader, renderer
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

PAGE_ROWS = 1000
"""Rows of one page at most."""
PAGE_BYTES = 4 << 20
"""Bytes that a page's values should take: after a page of large rows the next one has fewer."""
FIRST_PAGE_ROWS = 100
CANONICAL_SETTINGS = {
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "statement_timeout": "0",
    "default_transaction_read_only": "on",
    # An error instead of rows that are silently left out.
    "row_security": "off",
}
"""Settings of the session. Under these PostgreSQL's own text is what Redis must hold."""
_REPORTED_PARAMETERS = (
    "server_version",
    "server_encoding",
    "client_encoding",
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
)

_UNIQUE_INDEXES = """
SELECT (SELECT json_agg(a.attname ORDER BY k.number)
        FROM unnest(string_to_array(i.indkey::text, ' ')::int2[]) WITH ORDINALITY AS k(attnum, number)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
        WHERE k.number <= i.indnkeyatts)
FROM pg_catalog.pg_index i
WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indislive AND i.indpred IS NULL AND i.indexprs IS NULL
ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid
"""
_ESTIMATED_ROWS = """
SELECT coalesce((SELECT sum(greatest(c.reltuples, 0)) FROM pg_catalog.pg_partition_tree(t.oid) p
                 JOIN pg_catalog.pg_class c ON c.oid = p.relid WHERE p.isleaf), t.reltuples)::int8
FROM pg_catalog.pg_class t WHERE t.oid = $1
"""


class ReadFailure(Exception):  # noqa: N818 - the outcome of reading, in one line for people
    """A table, or Redis, could not be read."""


class UsageError(ReadFailure):
    """The command line asks for something that cannot be done, whatever the servers say."""


class TextParameter(bytes):
    """A parameter in PostgreSQL's text format without a declared type: the server gives it the type of what it is
    compared with."""


class _TextParameterDumper(Dumper):
    oid = 0

    def dump(self, obj: Any) -> bytes:
        return bytes(obj)


class ExpectedEntry(NamedTuple):
    """The key and value that Redis should hold for one row."""

    key: bytes
    value: Value | None
    """None: Redis should hold no such key, since the row's value is NULL."""
    key_texts: tuple[bytes, ...]
    """The texts of the key columns."""
    position: tuple[bytes, ...]
    """The texts of the columns that the table is read in the order of. The next page begins behind them."""


def select_rules(rules: Sequence[TableRule], names: Sequence[str]) -> list[TableRule]:
    """The rules that ``names`` mean: tables as the configuration spells them, or rules by their labels in logs and
    metrics. All rules if there are no names. Raises ``UsageError``."""
    if not rules:
        raise UsageError("no [[table]] is configured")
    if not names:
        return list(rules)
    selected: set[TableRule] = set()
    for name in names:
        named = [rule for rule in rules if rule.label == name]
        if not named:
            try:
                table = units.table_name(name)
            except ValueError:
                table = ("", name)
            named = [rule for rule in rules if (rule.schema, rule.table) == table]
        if not named:
            known = ", ".join(rule.label for rule in rules)
            raise UsageError(f"no [[table]] is configured for {name!r}; there are {known}")
        selected.update(named)
    return [rule for rule in rules if rule in selected]


def bind_rules(
    settings: PostgresSection, dsn: str | None, rules: Sequence[TableRule], selected: Sequence[TableRule]
) -> tuple[dict[str, list[BoundRule]], list[str]]:
    """The ``selected`` ones of ``rules`` by database, and a line for each that cannot be captured. Raises
    ``ReadFailure``, and ``UsageError`` if no login is given."""
    if not lookup.has_login(dsn):
        raise UsageError("no login: give --dsn, or PGUSER and the like")
    by_database: dict[str, list[BoundRule]] = {}
    problems: list[str] = []
    for database in dict.fromkeys(rule.database for rule in selected):
        # All rules of the database: of two that can make the same key none is captured, whichever is selected.
        of_database = [rule for rule in rules if rule.database == database]
        try:
            catalog = lookup.fetch_catalog(settings, dsn, database, of_database)
        except lookup.LookupFailure as error:
            raise ReadFailure(f"{database}: {error}") from None
        by_database[database] = [bound for bound in catalog.bound if bound.rule in selected]
        problems += [f"{rule.label} is not captured: {reason}" for rule, reason in catalog.unbound if rule in selected]
    return by_database, problems


class CanonicalConnection:
    """One connection to one database, under ``CANONICAL_SETTINGS``. Use ``async with``."""

    def __init__(self, settings: PostgresSection, dsn: str | None, database: str) -> None:
        self._parameters = lookup.connection_parameters(settings, dsn, database)
        self._connection: psycopg.AsyncConnection[tuple[Any, ...]] | None = None

    async def __aenter__(self) -> CanonicalConnection:
        try:
            connection = await psycopg.AsyncConnection.connect(**self._parameters, autocommit=True)
            self._connection = connection
            connection.adapters.register_dumper(TextParameter, _TextParameterDumper)
            for name, value in CANONICAL_SETTINGS.items():
                await connection.execute(f"SET {name} TO '{value}'".encode())
        except psycopg.Error as error:
            await self.__aexit__(None, None, None)
            raise ReadFailure(one_line(error)) from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def table(self, bound: BoundRule) -> TableRows:
        """The rows of a rule's table. Raises ``ReadFailure`` if the values of a column cannot be captured."""
        try:
            (estimate,) = (await self.rows(_ESTIMATED_ROWS, (bound.relation.oid,)))[0]
            indexes = await self.rows(_UNIQUE_INDEXES, (bound.relation.oid,))
        except (psycopg.Error, LookupError):
            raise ReadFailure(f"{bound.rule.label}: the table was changed just now") from None
        key = bound.rule.key
        order = next((tuple(columns) for (columns,) in indexes if set(columns) <= set(key)), key)
        return TableRows(self, bound, order, estimate if estimate > 0 else None)

    async def rows(self, query: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        """A query's rows, as Python values. Raises ``psycopg.Error``."""
        cursor = await self._execute(query, parameters)
        return await cursor.fetchall()

    async def texts(self, query: str, parameters: Sequence[TextParameter]) -> list[list[bytes | None]]:
        """A query's rows, in PostgreSQL's text format. Raises ``psycopg.Error``."""
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
        """The session's settings that decide how the server prints values."""
        assert self._connection is not None
        info = self._connection.info
        parameters = {name: info.parameter_status(name) or "" for name in _REPORTED_PARAMETERS}
        return ValueSettings.from_parameters(parameters, float_digits_certain=True)


class TableRows:
    """The rows of one rule's table. Made by ``CanonicalConnection.table``."""

    def __init__(
        self, connection: CanonicalConnection, bound: BoundRule, order: tuple[str, ...], estimate: int | None
    ) -> None:
        self.rule = bound.rule
        self.order = order
        """The columns of ``ExpectedEntry.position``: those of a unique index on columns of the key, so that the server
        reads each page by an index scan."""
        self.estimate = estimate
        """How many rows the planner estimates; None when it does not know."""
        self.template = typed_template(bound)
        self._connection = connection
        names = tuple(dict.fromkeys((*self.rule.key, *self.rule.value)))
        self._key = [(names.index(name), self._loader(column)) for name, column in _named(self.rule.key, bound.key)]
        self._value = [
            (names.index(name), self._loader(column)) for name, column in _named(self.rule.value, bound.value)
        ]
        self._position = [names.index(name) for name in order]
        self._render = renderer(self.rule, bound.value)
        columns = ", ".join(_quote(name) for name in names)
        table = f"{_quote(self.rule.schema)}.{_quote(self.rule.table)}"
        self._select = f"SELECT {columns} FROM {table} WHERE "  # noqa: S608 - identifiers, quoted
        self._key_not_null = " AND ".join(f"{_quote(name)} IS NOT NULL" for name in self.rule.key)

    def _loader(self, column: Column) -> Loader:
        load = loader(column, codes.TEXT, self._connection.settings())
        if isinstance(load, str):
            raise ReadFailure(f"{self.rule.label} is not captured: column {column.name!r}: {load}")
        return load

    async def pages(
        self, begin: Sequence[bytes] = (), *, inclusive: bool = False, limit: int = PAGE_ROWS
    ) -> AsyncIterator[list[ExpectedEntry]]:
        """All rows without a NULL in their key, in the order of ``order``: those behind the position ``begin``, or from
        it on if ``inclusive``.

        No page has more than ``limit`` rows. Raises ``ReadFailure``.
        """
        position = tuple(begin)
        size = min(limit, FIRST_PAGE_ROWS)
        while True:
            rows = await self._page(position, ">=" if inclusive else ">", size)
            if rows:
                entries = self._entries(rows)
                yield entries
                position, inclusive = entries[-1].position, False
            if len(rows) < size:
                return
            average = sum(len(value or b"") for row in rows for value in row) // len(rows) + 1
            size = max(1, min(limit, PAGE_BYTES // average, 10 * size))

    async def _page(self, position: tuple[bytes, ...], operator: str, size: int) -> list[list[bytes | None]]:
        order = ", ".join(_quote(name) for name in self.order)
        behind = ""
        if position:
            marks = ", ".join(f"${number}" for number in range(1, len(position) + 1))
            behind = f" AND ({order}) {operator} ({marks})"
        query = f"{self._select}{self._key_not_null}{behind} ORDER BY {order} LIMIT {size}"
        try:
            return await self._connection.texts(query, [TextParameter(text) for text in position])
        except psycopg.Error as error:
            raise ReadFailure(f"{self.rule.label}: {one_line(error)}") from None

    async def find(self, keys: Sequence[tuple[bytes, ...]]) -> dict[bytes, ExpectedEntry]:
        """The rows with these texts of the key columns, by Redis key. A text that is not of its column's type finds no
        row. Raises ``ReadFailure``."""
        if not keys:
            return {}
        numbers = iter(range(1, len(keys) * len(self.rule.key) + 1))
        marks = ", ".join(f"({', '.join(f'${next(numbers)}' for _ in key)})" for key in keys)
        columns = ", ".join(_quote(name) for name in self.rule.key)
        try:
            rows = await self._connection.texts(
                f"{self._select}({columns}) IN ({marks})", [TextParameter(text) for key in keys for text in key]
            )
        except psycopg.DataError:
            # One of the texts is not of its column's type: look for either half of the keys by itself.
            if len(keys) == 1:
                return {}
            half = len(keys) // 2
            return await self.find(keys[:half]) | await self.find(keys[half:])
        except psycopg.Error as error:
            raise ReadFailure(f"{self.rule.label}: {one_line(error)}") from None
        wanted = {self.rule.template.render(key) for key in keys}
        # The server may call values equal whose texts differ, such as the numerics 1.0 and 1.00.
        return {entry.key: entry for entry in self._entries(rows) if entry.key in wanted}

    def _entries(self, rows: Sequence[Sequence[bytes | None]]) -> list[ExpectedEntry]:
        entries = []
        for row in rows:
            key_texts = tuple([_text(load, row[column]) or b"" for column, load in self._key])
            value = self._render([_text(load, row[column]) for column, load in self._value])
            position = tuple([row[column] or b"" for column in self._position])
            entries.append(ExpectedEntry(self.rule.template.render(key_texts), value, key_texts, position))
        return entries


def _text(load: Loader, value: bytes | None) -> bytes | None:
    if value is None:
        return None
    text = load(value)
    # None: the loader cannot tell whether the text is canonical. Under CANONICAL_SETTINGS it is.
    return value if text is None else text


def _named(names: Sequence[str], columns: Sequence[Column]) -> list[tuple[str, Column]]:
    return list(zip(names, columns, strict=True))


def _quote(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def one_line(error: BaseException) -> str:
    """The message of a library's exception on one line; the exception's type if it has no message."""
    return " ".join(str(error).split()) or type(error).__name__
