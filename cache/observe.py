"""From a plan and what went over the wire to changes. Pure: no clock, no state beyond one statement's.

``Arguments`` finds the text of a plan's operands; ``taps`` chooses, once for a result's shape, what to read from each
row; ``fills`` and ``writes`` turn rows and row counts into changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cache import constants, values
from cache.changes import Change, Kind, Value
from cache.plans import Action, Operand, Returning, Source, WritePlan
from cache.rules import ValueFormat

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cache.catalog import BoundRule, Column
    from cache.plans import Literals, Plan
    from cache.values_types import ValueSettings
    from protocol.backend import FieldDescription

MAX_RETURNED = 10_000
"""Rows of a RETURNING result that are followed; a write of more than that is judged by its plan alone."""


class Arguments:
    """The constants of one execution of a statement: its text's literals, and its parameters.

    ``parameters`` are Bind's values with ``formats`` (none: all text; one: for all; or one each) and ``types`` as Parse
    declared them. ``settings`` are the session's; without them only ASCII text is certain. ``outer`` is given for SQL
    EXECUTE: its arguments then stand for the parameters.
    """

    __slots__ = ("_formats", "_literals", "_outer", "_parameters", "_settings", "_types")

    def __init__(
        self,
        literals: Literals,
        parameters: Sequence[bytes | None] = (),
        formats: Sequence[int] = (),
        types: Sequence[int] = (),
        *,
        settings: ValueSettings | None = None,
        outer: tuple[Arguments, tuple[Operand | None, ...]] | None = None,
    ) -> None:
        self._literals = literals
        self._parameters = parameters
        self._formats = formats
        self._types = types
        self._settings = settings
        self._outer = outer

    def text(self, column: Column, operand: Operand) -> bytes | None:
        """The canonical text of a constant compared with or assigned to ``column``; None when that is not certain.
        NULL is not certain either: see ``is_null``."""
        source = operand.source
        if source is Source.LITERAL:
            return constants.literal_text(column, self._literals[operand.index], operand, self._settings)
        if source is Source.PARAMETER:
            return self._parameter(column, operand)
        return constants.keyword_text(column, operand)

    def is_null(self, operand: Operand) -> bool:
        """The operand is certainly NULL."""
        if operand.source is Source.NULL:
            return True
        if operand.source is not Source.PARAMETER:
            return False
        if self._outer is not None:
            argument = self._argument(operand)
            return argument is not None and self._outer[0].is_null(argument)
        return operand.index < len(self._parameters) and self._parameters[operand.index] is None

    def array(self, column: Column, operand: Operand) -> list[bytes] | None:
        """The canonical texts of an array's elements, NULLs left out; None when they are not certain."""
        if operand.source is Source.LITERAL:
            return constants.array_literal_texts(column, self._literals[operand.index], operand, self._settings)
        if operand.source is not Source.PARAMETER or self._outer is not None:
            return None
        raw, declared = self._raw(operand)
        if raw is None:
            return []
        return constants.array_texts(column, raw, self._format(operand.index), declared, operand, self._settings)

    def _argument(self, operand: Operand) -> Operand | None:
        assert self._outer is not None
        arguments = self._outer[1]
        return arguments[operand.index] if operand.index < len(arguments) else None

    def _parameter(self, column: Column, operand: Operand) -> bytes | None:
        if self._outer is not None:
            argument = self._argument(operand)
            if argument is None or argument.cast is not None:
                return None
            outer, _ = self._outer
            return outer.text(column, Operand(argument.source, argument.index, argument.negative, operand.cast))
        raw, declared = self._raw(operand)
        if raw is None:
            return None
        return constants.parameter_text(column, raw, self._format(operand.index), declared, operand, self._settings)

    def _raw(self, operand: Operand) -> tuple[bytes | None, int]:
        index = operand.index
        raw = self._parameters[index] if index < len(self._parameters) else None
        return raw, self._types[index] if index < len(self._types) else 0

    def _format(self, index: int) -> int:
        formats = self._formats
        if not formats:
            return 0
        return formats[0] if len(formats) == 1 else formats[index]


class Tap(NamedTuple):
    """What to read from each row of one result for one rule."""

    bound: BoundRule
    kind: Kind
    """FILL, or STORE or EVICT for the rows of a RETURNING."""
    write: WritePlan | None
    key: tuple[tuple[int, Callable[[bytes], bytes | None]] | None, ...]
    """For each key column its position in the row and its loader; None where the statement fixes it."""
    fixed: tuple[Operand | None, ...]
    value: tuple[tuple[int, Callable[[bytes], bytes | None]], ...]
    """For each value column; empty for EVICT."""
    render: Callable[[Sequence[bytes | None]], Value | None]
    """Makes of the value columns' texts what Redis is to hold."""


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
    key: list[tuple[int, Callable[[bytes], bytes | None]] | None] = []
    for column, operand in zip(bound.key, fixed, strict=True):
        if operand is not None:
            key.append(None)
            continue
        loader = _loader(column, positions, formats, settings)
        if isinstance(loader, str):
            return loader
        key.append(loader)
    value: list[tuple[int, Callable[[bytes], bytes | None]]] = []
    for column in bound.value if kind is not Kind.EVICT else ():
        loader = _loader(column, positions, formats, settings)
        if isinstance(loader, str):
            return loader
        value.append(loader)
    return Tap(bound, kind, write, tuple(key), fixed, tuple(value), values.renderer(bound.rule, bound.value))


def _loader(
    column: Column, positions: dict[int, int], formats: Sequence[int], settings: ValueSettings
) -> tuple[int, Callable[[bytes], bytes | None]] | str:
    position = positions.get(column.number)
    if position is None:
        return "column not in the result"
    loader = values.loader(column, formats[position], settings)
    return loader if isinstance(loader, str) else (position, loader)


class Reader:
    """Reads the rows of one result for one tap. Keeps copies only of what Redis will get."""

    __slots__ = ("_fixed", "_limit", "_tap", "complete", "rows", "unreadable")

    def __init__(self, tap: Tap, arguments: Arguments) -> None:
        self._tap = tap
        self._fixed = fixed_parts(tap, arguments)
        self._limit = tap.bound.rule.max_rows if tap.kind is Kind.FILL else MAX_RETURNED
        self.rows: list[tuple[bytes, Value | None]] = []
        self.complete = True
        """Every row that went by is in ``rows`` (or has no key)."""
        self.unreadable = 0
        """Rows that went by and are not in ``rows``."""

    @property
    def tap(self) -> Tap:
        return self._tap

    @property
    def exhausted(self) -> bool:
        """No further row will be read."""
        return self._fixed is None or len(self.rows) >= self._limit

    def read(self, row: Sequence[bytes | None]) -> None:
        """One DataRow's column values."""
        fixed = self._fixed
        if fixed is None or len(self.rows) >= self._limit:
            self.miss()
            return
        tap = self._tap
        parts: list[bytes] = []
        for known, source in zip(fixed, tap.key, strict=True):
            if source is None:
                assert known is not None
                parts.append(known)
                continue
            raw = row[source[0]]
            if raw is None:
                return  # a row without a key has no place in Redis
            text = source[1](raw)
            if text is None:
                self.miss()
                return
            parts.append(text)
        key = tap.bound.rule.template.render(parts)
        if tap.kind is Kind.EVICT:
            self.rows.append((key, None))
            return
        texts: list[bytes | None] = []
        for position, load in tap.value:
            raw = row[position]
            text = None if raw is None else load(raw)
            if text is None and raw is not None:
                self._unreadable_value(key)
                return
            texts.append(text)
        self.rows.append((key, tap.render(texts)))

    def _unreadable_value(self, key: bytes) -> None:
        if self._tap.kind is Kind.STORE:
            self.rows.append((key, None))  # known to have changed: an Evict
        else:
            self.miss()

    def miss(self) -> None:
        """A row went by that could not be read."""
        self.complete = False
        self.unreadable += 1


def fixed_parts(tap: Tap, arguments: Arguments) -> tuple[bytes | None, ...] | None:
    """The key parts the statement fixes, None for those in the row; None when one of them is not certain."""
    parts: list[bytes | None] = []
    for column, operand in zip(tap.bound.key, tap.fixed, strict=True):
        if operand is None:
            parts.append(None)
            continue
        text = arguments.text(column, operand)
        if text is None:
            return None
        parts.append(text)
    return tuple(parts)


def fills(reader: Reader, date: int, began: int) -> list[Change]:
    """Fills of the rows read so far; a row whose value columns are NULL has nothing to show in Redis."""
    rule = reader.tap.bound.rule
    return [Change(Kind.FILL, rule, key, value, date, began) for key, value in reader.rows if value is not None]


def writes(
    write: WritePlan,
    arguments: Arguments,
    count: int | None,
    reader: Reader | None,
    stamp: tuple[int, int],
    *,
    certain: bool,
) -> list[Change]:
    """What one finished write means for its rule.

    Args:
        count: rows the command tag speaks of; None when it speaks of none, or not of this write.
        reader: the rows of its RETURNING, if they could be read.
        stamp: date and instant at which the statement was forwarded.
        certain: the catalog is; otherwise nothing is stored.
    """
    if write.counted and count == 0:
        return []
    maker = _Maker(write.bound, arguments, stamp, certain=certain)
    if reader is not None and reader.complete and write.counted and count == len(reader.rows):
        return [maker.change(key, value) for key, value in reader.rows]
    if write.action is Action.NOTHING:
        return []
    if write.action is Action.FLUSH:
        return [maker.flush()]
    return maker.targets(write, count)


class _Maker:
    """Makes the changes of one write."""

    __slots__ = ("_arguments", "_bound", "_certain", "_stamp")

    def __init__(self, bound: BoundRule, arguments: Arguments, stamp: tuple[int, int], *, certain: bool) -> None:
        self._bound = bound
        self._arguments = arguments
        self._stamp = stamp
        self._certain = certain

    def flush(self) -> Change:
        return Change(Kind.FLUSH, self._bound.rule, b"", None, *self._stamp)

    def change(self, key: bytes, value: Value | None) -> Change:
        """A Store of ``value``; an Evict where there is none, or where nothing may be stored."""
        if value is None or not self._certain:
            return Change(Kind.EVICT, self._bound.rule, key, None, *self._stamp)
        return Change(Kind.STORE, self._bound.rule, key, value, *self._stamp)

    def targets(self, write: WritePlan, count: int | None) -> list[Change]:
        """One change for each key the statement names; a Flush if one of them is not certain."""
        rows = self._array(write) if write.array is not None else self._named(write)
        if rows is None:
            return [self.flush()]
        keys = {key for key, _ in rows}
        exact = write.action is Action.STORE and write.counted and count == len(keys) == len(rows)
        if exact:
            return [self._stored(key, operands) for key, operands in rows]
        if write.action is Action.STORE and write.missing is Action.NOTHING:
            return []
        return [self.change(key, None) for key in keys]

    def _named(self, write: WritePlan) -> list[tuple[bytes, tuple[Operand | None, ...]]] | None:
        rows = []
        for target in write.targets:
            parts: list[bytes] = []
            for column, operand in zip(self._bound.key, target.key, strict=True):
                text = self._arguments.text(column, operand)
                if text is None:
                    break
                parts.append(text)
            if len(parts) < len(self._bound.key):
                if any(self._arguments.is_null(operand) for operand in target.key):
                    continue  # no row has a NULL key that Redis could hold
                return None
            rows.append((self._bound.rule.template.render(parts), target.values))
        return rows if rows or write.targets else None

    def _array(self, write: WritePlan) -> list[tuple[bytes, tuple[Operand | None, ...]]] | None:
        assert write.array is not None
        texts = self._arguments.array(self._bound.key[0], write.array)
        if texts is None:
            return None
        operands = write.targets[0].values if write.targets else ()
        render = self._bound.rule.template.render
        return [(render([text]), operands) for text in dict.fromkeys(texts)]

    def _stored(self, key: bytes, operands: tuple[Operand | None, ...]) -> Change:
        """A Store of the columns the statement assigned: of the whole value, or of some fields of a hash."""
        texts: list[bytes | None] = []
        for column, operand in zip(self._bound.value, operands, strict=False):
            text = None if operand is None else self._arguments.text(column, operand)
            if operand is not None and text is None and not self._arguments.is_null(operand):
                return self.change(key, None)
            texts.append(text)
        if not operands:
            return self.change(key, None)
        if None not in operands:
            return self.change(key, values.render(self._bound.rule, self._bound.value, texts))
        return self._fields(key, operands, texts)

    def _fields(self, key: bytes, operands: tuple[Operand | None, ...], texts: list[bytes | None]) -> Change:
        if self._bound.rule.format is not ValueFormat.HASH or not self._certain:
            return self.change(key, None)
        written: dict[bytes, bytes] = {}
        removed: list[bytes] = []
        for column, operand, text in zip(self._bound.value, operands, texts, strict=True):
            if operand is None:
                continue
            if text is None:
                removed.append(column.name.encode())
            else:
                written[column.name.encode()] = text
        change = Change(Kind.STORE, self._bound.rule, key, written, *self._stamp)
        change.partial, change.removed = True, tuple(removed)
        return change
