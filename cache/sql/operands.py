"""Decides which constants can be the text of a column's value, by the column's type and the constant's cast.

A constant can be a key if equality in the column's type means same text, and a value if the type stores its text
unchanged. The text itself is found when the statement runs.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

from cache.builtin_types import BY_OID, VARCHAR, BuiltinType, Family, family_of_name
from cache.sql.plans import UNKNOWN, Operand, OperandSource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache.catalog.tables import BoundRule, Column
    from cache.sql.statements import Equality

MAX_TARGETS = 10_000
"""Conditions that combine to more keys than this count as not known."""

Keys = tuple[tuple[Operand, ...], ...]


class Operands:
    """Judges the constants of one statement.

    Args:
        types: what its PREPARE declared for its parameters.
        repeated: indexes of parameters that occur several times. If its type is not declared, another occurrence may
            have decided it.
    """

    def __init__(self, types: tuple[str, ...] = (), repeated: frozenset[int] = frozenset()) -> None:
        self._types = types
        self._repeated = repeated

    def key(self, column: Column, operand: Operand | None) -> Operand | None:
        """The constant whose text ``column = operand`` gives the column; None if equality need not mean same text."""
        base = _key_type(column)
        if base is None or operand is None or operand.source is OperandSource.NULL:
            return None
        return self._cast(base, operand)

    def value(self, column: Column, operand: Operand | None) -> Operand | None:
        """The constant whose text the column stores unchanged; None if the type may change it."""
        if operand is None or column.generated:
            return None
        if operand.source is OperandSource.NULL:
            return operand
        operand = self.declared(operand)
        if operand is None:
            return None
        if column.type_kind == "e":
            return operand if operand.cast is None else None
        base = BY_OID.get(column.base_oid or column.type_oid)
        if base is None or column.type_kind not in "bd":
            return None
        if column.type_kind == "d" and base.oid == VARCHAR:
            return None  # the domain's own length is not known
        return self._cast(base, operand)

    def declared(self, operand: Operand) -> Operand | None:
        """The operand with the type that PREPARE declared as its cast; None if that may change its text."""
        if operand.source is not OperandSource.PARAMETER:
            return operand
        declared = self._types[operand.index] if operand.index < len(self._types) else UNKNOWN
        if declared == UNKNOWN:
            return None if operand.index in self._repeated else operand
        if not declared:
            return None
        if operand.cast is None:
            return replace(operand, cast=declared)
        family = family_of_name(declared)
        return operand if family is not None and family is family_of_name(operand.cast) else None

    def _cast(self, base: BuiltinType, operand: Operand) -> Operand | None:
        declared = self.declared(operand)
        if declared is None or base.family is None:
            return None
        if declared.source in (OperandSource.TRUE, OperandSource.FALSE) and base.family is not Family.BOOL:
            return None
        return declared if declared.cast is None or family_of_name(declared.cast) is base.family else None

    def array(self, column: Column, operand: Operand) -> Operand | None:
        """The array whose elements are the only values ``column = ANY(operand)`` can have."""
        base = _key_type(column)
        declared = None if base is None else self.declared(operand)
        if base is None or declared is None or declared.cast is None:
            return declared
        return declared if family_of_name(declared.cast.removesuffix("[]")) is base.family else None

    def fixed(self, bound: BoundRule, equalities: Sequence[Equality]) -> tuple[Operand | None, ...]:
        """For each key column, the one constant it is fixed to."""
        found: list[Operand | None] = []
        for column in bound.key:
            operand = None
            for equality in equalities:
                if len(equality.rows) == 1 and column.name in equality.columns:
                    operand = operand or self.key(column, equality.rows[0][equality.columns.index(column.name)])
            found.append(operand)
        return tuple(found)

    def keys(self, bound: BoundRule, equalities: Sequence[Equality]) -> tuple[Keys | None, Operand | None]:
        """The only keys of rows that meet ``equalities``: as tuples of constants, as one array, or as neither."""
        fixed = self.fixed(bound, equalities)
        if None not in fixed:
            return (tuple(operand for operand in fixed if operand is not None),), None
        choices: list[list[dict[str, Operand]]] = []
        covered: set[str] = {column.name for column, operand in zip(bound.key, fixed, strict=True) if operand}
        for equality in equalities:
            if len(equality.rows) > 1 and (rows := self._rows(bound, equality, covered)):
                choices.append(rows)
                covered |= rows[0].keys()
        if covered < {column.name for column in bound.key}:
            return None, self._only_array(bound, equalities)
        total = 1
        for rows in choices:
            total *= len(rows)
        if total > MAX_TARGETS:
            return None, None
        known = {column.name: operand for column, operand in zip(bound.key, fixed, strict=True) if operand is not None}
        keys = []
        for combination in product(*choices):
            merged = dict(known)
            for part in combination:
                merged.update(part)
            keys.append(tuple(merged[column.name] for column in bound.key))
        return tuple(keys), None

    def _rows(self, bound: BoundRule, equality: Equality, covered: set[str]) -> list[dict[str, Operand]]:
        """A list's rows as operands of those key columns that are not fixed yet; empty if it does not help."""
        columns = [column for column in bound.key if column.name in equality.columns and column.name not in covered]
        rows: list[dict[str, Operand]] = []
        for row in equality.rows if columns else ():
            entry: dict[str, Operand] = {}
            for column in columns:
                given = row[equality.columns.index(column.name)]
                if given is not None and given.source is OperandSource.NULL:
                    break  # equal to nothing
                operand = self.key(column, given)
                if operand is None:
                    return []
                entry[column.name] = operand
            else:
                rows.append(entry)
        return rows

    def _only_array(self, bound: BoundRule, equalities: Sequence[Equality]) -> Operand | None:
        if len(bound.key) != 1:
            return None
        for equality in equalities:
            if equality.array is not None and equality.columns == (bound.key[0].name,):
                operand = self.array(bound.key[0], equality.array)
                if operand is not None:
                    return operand
        return None


def _key_type(column: Column) -> BuiltinType | None:
    """The column's type if equality means same text; None for other types."""
    base = BY_OID.get(column.base_oid or column.type_oid)
    return base if base is not None and base.is_key and column.deterministic else None
