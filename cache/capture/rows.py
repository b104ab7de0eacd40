"""Reads rows: chooses, once for a result's shape, what to look at in each row, and makes of it keys and values.

A ``Tap`` is the choice for one rule and is shared by all executions; a ``Reader`` is one execution's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from cache.changes import Kind, weight
from cache.rules import ValueFormat
from cache.sql.plans import Returning
from cache.values import loaders as values

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cache.capture.arguments import Arguments
    from cache.catalog.tables import BoundRule, Column
    from cache.changes import Value
    from cache.sql.plans import Operand, Plan, WritePlan
    from cache.values.loaders import Loader
    from cache.values.loading import ValueSettings
    from protocol.backend import FieldDescription

    Source = tuple[int, Loader]
    """A column's position in the row, and how its value becomes canonical text."""
    Row = tuple[bytes, Value | None]
    """A key and what Redis is to hold there: None for nothing."""
    Read = Callable[[Sequence[bytes | None], Sequence[bytes | None]], Row | None]
    """From a row's values, and the key parts the statement fixes (None for the others), to the row's key and value;
    None for a row without a key, which has no place in Redis, and UNREADABLE where a value is not certain."""

MAX_RETURNED = 10_000
"""Rows of a RETURNING result that are followed; a write of more than that is judged by its plan alone."""
MAX_BYTES = 1 << 20
"""Of values that are held of one result: then what was read is passed on, and what was written is only an Evict."""
UNREADABLE: Final[Row] = (b"", None)


class Tap(NamedTuple):
    """What to read from each row of one result for one rule."""

    bound: BoundRule
    kind: Kind
    """FILL, or STORE or EVICT for the rows of a RETURNING."""
    write: WritePlan | None
    fixed: tuple[Operand | None, ...]
    """For each key column that is not in the row, the operand the statement fixes it to."""
    read: Read
    columns: int
    """How many of the row's first columns are looked at."""
    limit: int
    """How many rows are read."""


def taps(
    plan: Plan, fields: Sequence[FieldDescription], formats: Sequence[int], settings: ValueSettings
) -> tuple[tuple[Tap, ...], tuple[tuple[BoundRule, str], ...]]:
    """What to read from rows of this shape, and for the rules that cannot be filled from them, why.

    ``formats`` are the result-column format codes in force: one for each field.
    """
    found: list[Tap] = []
    refused: list[tuple[BoundRule, str]] = []
    for fill in plan.fills:
        tap = _tap(fill.bound, Kind.FILL, None, fill.fixed, fields, formats, settings)
        if isinstance(tap, str):
            refused.append((fill.bound, tap))
        else:
            found.append(tap)
    for write in plan.writes:
        if write.returning is Returning.NO:
            continue
        kind = Kind.STORE if write.returning is Returning.STORE else Kind.EVICT
        nothing = (None,) * len(write.bound.key)
        tap = _tap(write.bound, kind, write, nothing, fields, formats, settings)
        if isinstance(tap, str) and kind is Kind.STORE:
            tap = _tap(write.bound, Kind.EVICT, write, nothing, fields, formats, settings)
        if not isinstance(tap, str):
            found.append(tap)
    return tuple(found), tuple(refused)


def _tap(
    bound: BoundRule,
    kind: Kind,
    write: WritePlan | None,
    fixed: tuple[Operand | None, ...],
    fields: Sequence[FieldDescription],
    formats: Sequence[int],
    settings: ValueSettings,
) -> Tap | str:
    positions: dict[int, int] = {}
    for position, field in enumerate(fields):
        if field.table_oid == bound.relation.oid:
            positions.setdefault(field.column_number, position)
    key: list[Source | None] = []
    missing: list[Operand | None] = []
    for column, operand in zip(bound.key, fixed, strict=True):
        source = _source(column, positions, formats, settings)
        if isinstance(source, str) and operand is None:
            return source
        # What the row shows is certain, whatever else fixes it.
        key.append(None if isinstance(source, str) else source)
        missing.append(operand if isinstance(source, str) else None)
    value: list[Source] = []
    for column in bound.value if kind is not Kind.EVICT else ():
        source = _source(column, positions, formats, settings)
        if isinstance(source, str):
            return source
        value.append(source)
    used = [source[0] for source in (*key, *value) if source is not None]
    limit = bound.rule.max_rows if kind is Kind.FILL else MAX_RETURNED
    return Tap(bound, kind, write, tuple(missing), _reading(bound, kind, key, value), max(used, default=-1) + 1, limit)


def _source(column: Column, positions: dict[int, int], formats: Sequence[int], settings: ValueSettings) -> Source | str:
    position = positions.get(column.number)
    if position is None:
        return "column not in the result"
    loader = values.loader(column, formats[position], settings)
    return loader if isinstance(loader, str) else (position, loader)


def _reading(bound: BoundRule, kind: Kind, key: Sequence[Source | None], value: Sequence[Source]) -> Read:
    if kind is Kind.FILL and bound.rule.format is ValueFormat.STRING and len(key) == 1:
        return _reading_one(bound, key[0], value[0])
    return _reading_several(bound, kind, key, value)


def _reading_one(bound: BoundRule, key: Source | None, value: Source) -> Read:
    """One key column and one value column are what most rules have."""
    render = bound.rule.template.render
    position, load = value[0], None if value[1] is values.verbatim else value[1]
    if key is None:

        def read_fixed(row: Sequence[bytes | None], fixed: Sequence[bytes | None]) -> Row | None:
            text = row[position]
            if text is not None and load is not None:
                text = load(text)
                if text is None:
                    return UNREADABLE
            part = fixed[0]
            assert part is not None
            return render((part,)), text

        return read_fixed

    key_position, load_key = key[0], None if key[1] is values.verbatim else key[1]

    def read(row: Sequence[bytes | None], fixed: Sequence[bytes | None]) -> Row | None:
        part = row[key_position]
        if part is None:
            return None
        if load_key is not None:
            part = load_key(part)
            if part is None:
                return UNREADABLE
        text = row[position]
        if text is not None and load is not None:
            text = load(text)
            if text is None:
                return UNREADABLE
        return render((part,)), text

    return read


def _reading_several(bound: BoundRule, kind: Kind, key: Sequence[Source | None], value: Sequence[Source]) -> Read:
    render_key = bound.rule.template.render
    render = values.renderer(bound.rule, bound.value)

    def read(row: Sequence[bytes | None], fixed: Sequence[bytes | None]) -> Row | None:
        parts: list[bytes] = []
        for known, source in zip(fixed, key, strict=True):
            part = known
            if source is not None:
                raw = row[source[0]]
                if raw is None:
                    return None
                part = source[1](raw)
            if part is None:
                return UNREADABLE
            parts.append(part)
        name = render_key(parts)
        if kind is Kind.EVICT:
            return name, None
        texts: list[bytes | None] = []
        for position, load in value:
            raw = row[position]
            text = None if raw is None else load(raw)
            if text is None and raw is not None:
                # A row that is known to have changed is an Evict at least.
                return (name, None) if kind is Kind.STORE else UNREADABLE
            texts.append(text)
        return name, render(texts)

    return read


class Reader:
    """Reads the rows of one result for one tap. Keeps copies only of what Redis will get."""

    __slots__ = ("_fixed", "_limit", "_read", "complete", "room", "rows", "tap", "unreadable")

    def __init__(self, tap: Tap, arguments: Arguments) -> None:
        self.tap = tap
        self._read = tap.read
        fixed = fixed_parts(tap, arguments)
        self._fixed: Sequence[bytes | None] = fixed or ()
        self._limit = 0 if fixed is None else tap.limit
        self.room = MAX_BYTES
        """Negative: ``take`` what is there."""
        self.rows: list[Row] = []
        self.complete = True
        """Every row that went by is in ``rows`` (or has no key)."""
        self.unreadable = 0
        """Rows that went by and are not in ``rows``."""

    def read(self, row: Sequence[bytes | None]) -> bool:
        """One DataRow's column values; those behind ``tap.columns`` may be left out. True while more will be read."""
        rows = self.rows
        if len(rows) >= self._limit:
            self.miss()
            return False
        found = self._read(row, self._fixed)
        if found is UNREADABLE:
            self.miss()
        elif found is not None:
            value = found[1]
            if value is not None:
                self.room -= len(value) if type(value) is bytes else weight(value)
                if self.room < 0 and self.tap.kind is not Kind.FILL:
                    found = (found[0], None)
            rows.append(found)
        return len(rows) < self._limit

    def take(self) -> list[Row]:
        """The rows so far; others follow."""
        rows, self.rows = self.rows, []
        self._limit -= len(rows)
        self.room = MAX_BYTES
        return rows

    def miss(self) -> None:
        """A row went by that could not be read."""
        self.complete = False
        self.unreadable += 1


def fixed_parts(tap: Tap, arguments: Arguments) -> Sequence[bytes | None] | None:
    """The key parts the statement fixes, None for those in the row; None when one of them is not certain."""
    fixed = tap.fixed
    if len(fixed) == 1:
        operand = fixed[0]
        if operand is None:
            return _NOTHING_FIXED
        text = arguments.text(tap.bound.key[0], operand)
        return None if text is None else (text,)
    parts: list[bytes | None] = []
    for column, operand in zip(tap.bound.key, fixed, strict=True):
        text = None if operand is None else arguments.text(column, operand)
        if operand is not None and text is None:
            return None
        parts.append(text)
    return parts


_NOTHING_FIXED = (None,)
