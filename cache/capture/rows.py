"""Reads rows: chooses, once for a result's shape, which columns to read, and makes keys and values of each row.

A ``RowPlan`` is that choice for one rule, shared by all executions; a ``RowCollector`` belongs to one execution.
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

    ColumnLoader = tuple[int, Loader]
    """A column's position in the row, and what makes its value canonical text."""
    KeyedValue = tuple[bytes, Value | None]
    """A Redis key and the value it is to have there; None for no value."""
    ReadRow = Callable[[Sequence[bytes | None], Sequence[bytes | None]], KeyedValue | None]
    """From a row's values, and the key parts the statement fixes (None for the others), to the row's key and value;
    None for a row with a NULL in its key, which has no place in Redis, and UNREADABLE where a value is not certain."""

MAX_RETURNED = 10_000
"""Rows of a RETURNING result that are followed; a write of more than that is judged by its plan alone."""
MAX_BYTES = 1 << 20
"""Of values that are kept of one result. Beyond it, values read are passed on, and rows written are only Evicts."""
UNREADABLE: Final[KeyedValue] = (b"", None)


class RowPlan(NamedTuple):
    """What to read from each row of one result for one rule."""

    bound: BoundRule
    kind: Kind
    """FILL, or STORE or EVICT for the rows of a RETURNING."""
    write: WritePlan | None
    fixed: tuple[Operand | None, ...]
    """For each key column that is not in the row, the operand the statement fixes it to."""
    read: ReadRow
    columns: int
    """How many of the row's first columns are looked at."""
    limit: int
    """How many rows are read."""


def row_plans(
    plan: Plan, fields: Sequence[FieldDescription], formats: Sequence[int], settings: ValueSettings
) -> tuple[tuple[RowPlan, ...], tuple[tuple[BoundRule, str], ...]]:
    """What to read from rows of this shape, and for the rules that cannot be filled from them, why.

    ``formats`` are the result-column format codes in force: one for each field.
    """
    found: list[RowPlan] = []
    refused: list[tuple[BoundRule, str]] = []
    for fill in plan.fills:
        row_plan = _row_plan(fill.bound, Kind.FILL, None, fill.fixed, fields, formats, settings)
        if isinstance(row_plan, str):
            refused.append((fill.bound, row_plan))
        else:
            found.append(row_plan)
    for write in plan.writes:
        if write.returning is Returning.NO:
            continue
        kind = Kind.STORE if write.returning is Returning.STORE else Kind.EVICT
        nothing = (None,) * len(write.bound.key)
        row_plan = _row_plan(write.bound, kind, write, nothing, fields, formats, settings)
        if isinstance(row_plan, str) and kind is Kind.STORE:
            row_plan = _row_plan(write.bound, Kind.EVICT, write, nothing, fields, formats, settings)
        if not isinstance(row_plan, str):
            found.append(row_plan)
    return tuple(found), tuple(refused)


def _row_plan(
    bound: BoundRule,
    kind: Kind,
    write: WritePlan | None,
    fixed: tuple[Operand | None, ...],
    fields: Sequence[FieldDescription],
    formats: Sequence[int],
    settings: ValueSettings,
) -> RowPlan | str:
    """The plan for one rule, or why its keys and values cannot be read from such rows."""
    positions: dict[int, int] = {}
    for position, field in enumerate(fields):
        if field.table_oid == bound.relation.oid:
            positions.setdefault(field.column_number, position)
    key: list[ColumnLoader | None] = []
    missing: list[Operand | None] = []
    for column, operand in zip(bound.key, fixed, strict=True):
        found = _column_loader(column, positions, formats, settings)
        if isinstance(found, str) and operand is None:
            return found
        # What the row shows is certain, whatever else fixes it.
        key.append(None if isinstance(found, str) else found)
        missing.append(operand if isinstance(found, str) else None)
    value: list[ColumnLoader] = []
    for column in bound.value if kind is not Kind.EVICT else ():
        found = _column_loader(column, positions, formats, settings)
        if isinstance(found, str):
            return found
        value.append(found)
    columns = max([position for position, _ in filter(None, (*key, *value))], default=-1) + 1
    limit = bound.rule.max_rows if kind is Kind.FILL else MAX_RETURNED
    return RowPlan(bound, kind, write, tuple(missing), _read_row(bound, kind, key, value), columns, limit)


def _column_loader(
    column: Column, positions: dict[int, int], formats: Sequence[int], settings: ValueSettings
) -> ColumnLoader | str:
    position = positions.get(column.number)
    if position is None:
        return "column not in the result"
    loader = values.loader(column, formats[position], settings)
    return loader if isinstance(loader, str) else (position, loader)


def _read_row(
    bound: BoundRule, kind: Kind, key: Sequence[ColumnLoader | None], value: Sequence[ColumnLoader]
) -> ReadRow:
    if kind is Kind.FILL and bound.rule.format is ValueFormat.STRING and len(key) == 1:
        return _read_two_columns(bound, key[0], value[0])
    return _read_columns(bound, kind, key, value)


def _read_two_columns(bound: BoundRule, key: ColumnLoader | None, value: ColumnLoader) -> ReadRow:
    """The reader for one key column and one value column, which is what most rules have."""
    render = bound.rule.template.render
    position, load = value[0], None if value[1] is values.verbatim else value[1]
    if key is None:

        def read_fixed(row: Sequence[bytes | None], fixed: Sequence[bytes | None]) -> KeyedValue | None:
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

    def read(row: Sequence[bytes | None], fixed: Sequence[bytes | None]) -> KeyedValue | None:
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


def _read_columns(
    bound: BoundRule, kind: Kind, key: Sequence[ColumnLoader | None], value: Sequence[ColumnLoader]
) -> ReadRow:
    render_key = bound.rule.template.render
    render = values.renderer(bound.rule, bound.value)

    def read(row: Sequence[bytes | None], fixed: Sequence[bytes | None]) -> KeyedValue | None:
        parts: list[bytes] = []
        for part, loader in zip(fixed, key, strict=True):
            if loader is not None:
                raw = row[loader[0]]
                if raw is None:
                    return None
                part = loader[1](raw)
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


class RowCollector:
    """Collects what one execution's rows say by one row plan. Keeps copies only of what Redis will get."""

    __slots__ = ("_fixed", "_limit", "_read", "bytes_left", "complete", "row_plan", "rows", "unreadable")

    def __init__(self, row_plan: RowPlan, arguments: Arguments) -> None:
        self.row_plan = row_plan
        self._read = row_plan.read
        fixed = fixed_parts(row_plan, arguments)
        self._fixed: Sequence[bytes | None] = fixed or ()
        self._limit = 0 if fixed is None else row_plan.limit
        self.bytes_left = MAX_BYTES
        """How many more bytes of values may be kept. Below zero ``take`` is to be called, where rows fill."""
        self.rows: list[KeyedValue] = []
        self.complete = True
        """Every row that came is in ``rows`` (or has a NULL in its key)."""
        self.unreadable = 0
        """Rows that came and are not in ``rows``."""

    def add(self, row: Sequence[bytes | None]) -> bool:
        """Take one DataRow's column values; those behind ``row_plan.columns`` may be left out. True while more rows are
        wanted."""
        rows = self.rows
        if len(rows) >= self._limit:
            self.skip()
            return False
        found = self._read(row, self._fixed)
        if found is UNREADABLE:
            self.skip()
        elif found is not None:
            value = found[1]
            if value is not None:
                self.bytes_left -= len(value) if type(value) is bytes else weight(value)
                if self.bytes_left < 0 and self.row_plan.kind is not Kind.FILL:
                    found = (found[0], None)
            rows.append(found)
        return len(rows) < self._limit

    def take(self) -> list[KeyedValue]:
        """The rows so far, which are kept no longer. More may be added."""
        rows, self.rows = self.rows, []
        self._limit -= len(rows)
        self.bytes_left = MAX_BYTES
        return rows

    def skip(self) -> None:
        """A row came that could not be read."""
        self.complete = False
        self.unreadable += 1


def fixed_parts(row_plan: RowPlan, arguments: Arguments) -> Sequence[bytes | None] | None:
    """The key parts the statement fixes, None for those in the row; None when one of them is not certain."""
    fixed = row_plan.fixed
    if len(fixed) == 1:
        operand = fixed[0]
        if operand is None:
            return _NOTHING_FIXED
        text = arguments.text(row_plan.bound.key[0], operand)
        return None if text is None else (text,)
    parts: list[bytes | None] = []
    for column, operand in zip(row_plan.bound.key, fixed, strict=True):
        text = None if operand is None else arguments.text(column, operand)
        if operand is not None and text is None:
            return None
        parts.append(text)
    return parts


_NOTHING_FIXED = (None,)
