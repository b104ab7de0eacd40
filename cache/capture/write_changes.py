"""Makes changes of a write's plan, its constants and what PostgreSQL answered. Pure: no clock, and no state beyond one
statement's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.changes import Change, Kind
from cache.rules import ValueFormat
from cache.sql.plans import Action, Operand
from cache.values import loaders as values

if TYPE_CHECKING:
    from cache.capture.arguments import Arguments
    from cache.capture.rows import RowCollector
    from cache.catalog.tables import BoundRule
    from cache.changes import Value
    from cache.sql.plans import WritePlan


def changes_of_write(
    write: WritePlan,
    arguments: Arguments,
    count: int | None,
    returned: RowCollector | None,
    stamp: tuple[int, int],
    *,
    certain: bool,
) -> list[Change]:
    """What one finished write means for its rule.

    Args:
        count: the number of rows in the command tag; None when it has none, or not that of this write.
        returned: the rows of its RETURNING, if they could be read.
        stamp: date and instant at which the statement was forwarded.
        certain: the catalog is; otherwise nothing is stored.
    """
    if write.counted and count == 0:
        return []
    maker = _Maker(write.bound, arguments, stamp, certain=certain)
    if returned is not None and returned.complete and write.counted and count == len(returned.rows):
        return [maker.change(key, value) for key, value in returned.rows]
    if write.action is Action.NOTHING:
        return []
    if write.action is Action.FLUSH:
        return [maker.flush()]
    return maker.changes(write, count)


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

    def changes(self, write: WritePlan, count: int | None) -> list[Change]:
        """One change for each key the statement names; a Flush if one of them is not certain.

        An INSERT of rows whose keys or values are not certain changes nothing."""
        rows = self._keys(write) if write.array is None else self._array_keys(write, write.array)
        new = write.action is Action.STORE and write.missing is Action.NOTHING
        if rows is None:
            # The keys of rows that were not there before cannot be in Redis.
            return [] if new else [self.flush()]
        keys = {key for key, _ in rows}
        exact = write.action is Action.STORE and write.counted and count == len(keys) == len(rows)
        if exact:
            return [self._stored(key, operands) for key, operands in rows]
        return [] if new else [self.change(key, None) for key in keys]

    def _keys(self, write: WritePlan) -> list[tuple[bytes, tuple[Operand | None, ...]]] | None:
        """Each key with the operands assigned to the value columns; None if a key is not certain."""
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

    def _array_keys(self, write: WritePlan, array: Operand) -> list[tuple[bytes, tuple[Operand | None, ...]]] | None:
        texts = self._arguments.array(self._bound.key[0], array)
        if texts is None:
            return None
        operands = write.targets[0].values if write.targets else ()
        render = self._bound.rule.template.render
        return [(render([text]), operands) for text in dict.fromkeys(texts)]

    def _stored(self, key: bytes, operands: tuple[Operand | None, ...]) -> Change:
        """A Store of the columns the statement assigned: of the whole value, or of some fields of a hash."""
        texts: list[bytes | None] = []
        for column, operand in zip(self._bound.value, operands, strict=True):
            text = None if operand is None else self._arguments.text(column, operand)
            if operand is not None and text is None and not self._arguments.is_null(operand):
                return self.change(key, None)
            texts.append(text)
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
